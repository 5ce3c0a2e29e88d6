"""A plan bound to sizes: every address and number that its kernels need, ready to be filled in and run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np

from torturous.codegen.table import ARGUMENTS, ENTRY_BYTES, PIECES
from torturous.codegen.target import Target, host_target
from torturous.compiler.expand import Expanded
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Kernel
from torturous.compiler.sizes import Size
from torturous.core import settings
from torturous.ir.record import describe_place
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.flight import Flight, land, launch
from torturous.runtime.homes import Home
from torturous.runtime.hosting import HostCall
from torturous.runtime.loaded import Loaded, Place
from torturous.runtime.shares import GRANULE, Shares, arranged, evened
from torturous.runtime.tuning import Tuner, chosen
from torturous.runtime.watching import PlanRun, print_run, tell, watchers
from torturous.runtime.workers import Workers, build_workers

SERIAL_COST = 1 << 16
"""A plan of at most this many rough operations runs on the calling thread alone."""

_workers: Workers | None = None


def target() -> Target:
    """The target of this process."""
    return host_target(settings.target.value)


def workers() -> Workers:
    """The threads that run plans, started when first needed."""
    global _workers
    if _workers is None:
        _workers = build_workers(target())
    return _workers


class Bound:
    """A loaded plan at fixed sizes: every address and number it needs, laid out to be filled and run."""

    def __init__(self, loaded: Loaded, values: tuple[int, ...], expanded: Expanded, numbers: int,
                 wanted: Sequence[int] | None = None) -> None:
        """`wanted`: which of the plan's outputs, if it has more."""
        plan, layout = loaded.plan, loaded.arrangement
        self.loaded = loaded
        self.leaves = expanded.leaves
        self.numbers = numbers
        """How many of a record's numbers it takes: the first ones."""
        self.constants = expanded.record.slots[numbers:]
        """Numbers that macro expansions brought along, as slots after these."""
        self.wanted = wanted
        self.sizes = values
        self._evaluated: dict[Size, int] = {}
        self.successor: Callable[[], Bound | None] | None = None
        """Asked before each run for another plan that serves these sizes better."""
        evaluate = self.evaluate
        self.output_bytes = [evaluate(size) for size in layout.output_bytes]
        offsets, self.arena_bytes = plan.memory.offsets(evaluate)
        self.temporaries = [offsets[slot] for slot in layout.temporaries]
        self.read, self.written = layout.read, layout.written
        self.packing, self.checks = layout.packing, layout.checks
        self.values = np.zeros(max(len(layout.position), 1), np.int64)
        for place, variable in layout.sizes:
            self.values[place] = values[variable]
        self.errors = np.zeros(max(len(layout.checks), 1), np.int64)
        self.error_words = self.errors.data
        """The same words: a few are looked at quicker so."""
        for place, check in layout.errors:
            self.values[place] = self.errors.ctypes.data + 8 * check

        shares, order = self._share_out()
        written = layout.stretches.write(evaluate, layout.position, order)
        self.entries, self.gather = written.entries, written.gather
        self.offsets = written.offsets
        """In bytes, of what moves from step to step of a loop; None where nothing does."""
        self.table = np.zeros(max(len(self.gather), 1), np.int64)
        self.entries[:, ARGUMENTS] = self.table.ctypes.data + 8 * self.entries[:, ARGUMENTS]
        self.entries[:, PIECES] = np.array([each.pieces for each in shares], np.int64)[written.kernels]
        self.entry_address = self.entries.ctypes.data
        self._numbers = written.kernels
        self.cost = int(np.array([each.cost for each in shares], np.int64)[written.kernels].sum())
        for kernel_place, each in zip(layout.places, shares, strict=True):
            self.give(kernel_place, each)
        self.scratch = max((evaluate(kernel.scratch) for kernel in layout.distinct), default=0)
        self.calls = sorted((self._call(number, node) for number, node in layout.hosted), key=lambda call: call.entry)
        self.serial = self.cost <= SERIAL_COST
        self.tuned = False
        """Whether `TORTUROUS_TUNE=1` has measured its kernels."""

    def _share_out(self) -> tuple[list[Shares], list[int] | None]:
        """How each kernel's work is shared out; and in which order they run, if it is not that of their numbers."""
        layout, threads = self.loaded.arrangement, workers().count
        kinds = [chosen(kernel, self.evaluate, threads) for kernel in layout.distinct]
        shares = [kinds[kind] for kind in layout.work_of]
        order = None
        for level in layout.wide:
            shares[level] = evened(shares[level])
            within = arranged(shares[level])
            if within != sorted(within):
                order = list(range(len(shares))) if order is None else order
                order[level] = [level.start + place for place in within]
        return shares, order

    def _call(self, number: int, node: Node) -> HostCall:
        """A host op, in place of the entry that stands for it."""
        entry = int(np.flatnonzero(self._numbers == number)[0])
        self.entries[entry, PIECES] = 0
        first = (int(self.entries[entry, ARGUMENTS]) - self.table.ctypes.data) // 8
        return HostCall.bound(entry, node, first, self.evaluate)

    def evaluate(self, size: Size) -> int:
        """What a size of the plan's kernels is here."""
        if size.constant is not None:
            return size.constant
        known = self._evaluated.get(size)
        if known is None:
            known = self._evaluated[size] = size.evaluate(
                lambda variable: 0 if variable[0] == "slot" else self.sizes[variable[1]])
        return known

    def give(self, place: tuple[int, int], shares: Shares) -> None:
        """Shares a kernel's work out, but for the number of its entry's pieces."""
        for which, position in self.loaded.arrangement.shared.get(place, ()):
            self.values[position] = shares.granule if which == GRANULE else shares.groups[which]

    @cached_property
    def kernel_of(self) -> list[Place]:
        """Where in the plan each entry's kernel stands; those of a loop come once for each step."""
        places = self.loaded.arrangement.places
        return [places[number] for number in self._numbers.tolist()]

    @property
    def kernels(self) -> list[Kernel]:
        """The kernel of each entry of the table."""
        levels = self.loaded.plan.memory.levels
        return [levels[level][order] for level, order in self.kernel_of]

    def run(self, leaves: Sequence[Buffer], numbers: Sequence[bool | int | float], wait: bool = True,
            homes: Sequence[Home] = ()) -> list[Buffer]:
        """Runs the plan; gives the wanted outputs' buffers. Nothing that anyone can see has changed if it raises.

        Outputs may be written to their `homes`, over what nobody else wants, if nothing can fail.

        Unless the caller must `wait`, as he must if a check can fail, it may still be running on return (see `flight`);
        but not if it reads memory that others may write as soon as they are back.
        """
        if self.successor is not None:
            better = self.successor()
            if better is not None:
                return better.run(leaves, numbers, wait, homes)
        # What is in the air reads the table, but not the values. The less is left to do once it has landed, the shorter
        # the workers wait.
        values = self.values
        self.read.pack_into(values.data, 0, *[buffer.address for buffer in leaves])
        if self.packing is not None:
            numbers = [*numbers[:self.numbers], *self.constants] if self.constants else numbers
            self.packing.pack(values.data, self.read.size + self.written.size, numbers)
        wait = wait or any(map(Buffer.written_by_others, leaves))
        places = self._places(homes)
        land()
        outputs = [place or allocate(nbytes) for place, nbytes in zip(places, self.output_bytes, strict=True)]
        arena = allocate(self.arena_bytes) if self.arena_bytes else None
        base = 0 if arena is None else arena.address
        addresses = [buffer.address for buffer in outputs]
        addresses += [base + offset for offset in self.temporaries]
        self.written.pack_into(values.data, self.read.size, *addresses)
        if len(self.entries):
            self.fill_table()
            crew = workers()
            if self.scratch:
                crew.reserve(self.scratch)
            alone = self.serial or crew.count == 1
            run = crew.run_serial if alone else crew.run
            if watchers or settings.debug.value >= 2:
                self._run_watched(run)
            elif settings.tune.value and not self.tuned:
                self._run_tuning(run)
            elif self.calls:
                self._run_around_calls(run)
            elif wait or alone:
                run(self.entry_address, len(self.entries))
            else:
                launch(Flight(partial(self._join, crew), set(outputs), set(leaves), arena),
                       partial(crew.offer, self.entry_address, len(self.entries)))
                return self._chosen(outputs)
            if self.checks and any(self.error_words):
                self._report()
        return self._chosen(outputs)

    def _places(self, homes: Sequence[Home]) -> list[Buffer | None]:
        """For each output of the plan: where it is at home."""
        places: list[Buffer | None] = [None] * len(self.output_bytes)
        if self.calls or settings.tune.value:
            return places
        for position, leaf, buffer in homes:
            if self.wanted is not None:
                position = self.wanted[position]
            if (position, leaf) in self.loaded.arrangement.overwritable:
                places[position] = buffer
                buffer.bounds = None
        return places

    def _chosen(self, outputs: list[Buffer]) -> list[Buffer]:
        return outputs if self.wanted is None else [outputs[position] for position in self.wanted]

    def _join(self, crew: Workers) -> None:
        crew.join()
        if self.checks and any(self.error_words):
            self._report()

    def fill_table(self) -> None:
        """Hands the present values to the kernels."""
        words = self.table[:len(self.gather)]
        self.values.take(self.gather, out=words, mode="clip")
        if self.offsets is not None:
            np.add(words, self.offsets, out=words)

    def _run_around_calls(self, run: Callable[[int, int], None]) -> None:
        """Runs native stretches and, between them, host ops."""
        start = 0
        for call in self.calls:
            if call.entry > start:
                run(self.entry_address + ENTRY_BYTES * start, call.entry - start)
            call.run(self.table)
            start = call.entry + 1
        if start < len(self.entries):
            run(self.entry_address + ENTRY_BYTES * start, len(self.entries) - start)

    def _run_watched(self, run: Callable[[int, int], None]) -> None:
        """Runs kernel by kernel, and tells whoever watches what each took."""
        calls = {call.entry: call for call in self.calls}
        started = time.perf_counter()
        kernels = []
        for number in range(len(self.entries)):
            before = time.perf_counter()
            if number in calls:
                calls[number].run(self.table)
            else:
                run(self.entry_address + ENTRY_BYTES * number, 1)
            kernels.append((before, time.perf_counter() - before))
        event = PlanRun(self, started, time.perf_counter() - started, tuple(kernels))
        if settings.debug.value >= 2:
            print_run(event)
        tell(event)

    def _run_tuning(self, run: Callable[[int, int], None]) -> None:
        """Runs kernel by kernel; each that has not been tuned yet is run again and again, in different shares, before
        the next one may change what it reads."""
        calls = {call.entry: call for call in self.calls}
        looped = {level for each in self.loaded.plan.memory.repeated for level in range(each.first, each.past)}
        tuner = Tuner(workers().count)
        for number, place in enumerate(self.kernel_of):
            if number in calls:
                calls[number].run(self.table)
                continue
            run(self.entry_address + ENTRY_BYTES * number, 1)
            if place[0] in looped:
                continue
            kernel = self.loaded.generated[place[0]][place[1]]

            def measure(shares: Shares, number: int = number, place: tuple[int, int] = place) -> float:
                self.give(place, shares)
                self.fill_table()
                self.entries[number, PIECES] = shares.pieces
                started = time.perf_counter()
                run(self.entry_address + ENTRY_BYTES * number, 1)
                return time.perf_counter() - started

            tuner.tune(kernel, self.evaluate, measure)
        tuner.remember()
        self.tuned = True

    def _report(self) -> None:
        """Raises the error of the first check that failed."""
        node = self.checks[int(np.flatnonzero(self.errors)[0])]
        self.errors[...] = 0
        raise IndexError(
            f"index out of range in {node.op.name}: axis {node.attributes[0]} of "
            f"{list(map(repr, node.inputs[0].shape))} (recorded at {describe_place(node.place)})"
        )

