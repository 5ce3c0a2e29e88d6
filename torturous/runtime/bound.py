"""A plan bound to sizes: every address and number that its kernels need, ready to be filled in and run."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated
from torturous.codegen.table import ARGUMENTS, ENTRY_BYTES, PIECES
from torturous.codegen.target import Target, host_target
from torturous.compiler.expand import Expanded
from torturous.compiler.kernel import Kernel
from torturous.compiler.plan import Plan
from torturous.compiler.sizes import Size
from torturous.core import settings
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.ir.record import describe_place, slot_ordinal
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.flight import Flight, land, launch
from torturous.runtime.hosting import HostCall
from torturous.runtime.shares import GRANULE, Shares, arranged, evened, share_out
from torturous.runtime.slots import Packing
from torturous.runtime.stretches import Stretches
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


@dataclass(eq=False)
class Loaded:
    """A plan whose kernels are ready to run."""

    plan: Plan
    generated: list[list[Generated]]
    """Per level, in the order of `plan.memory.levels`."""
    addresses: list[list[int]]


class Bound:
    """A loaded plan at fixed sizes: every address and number it needs, laid out to be filled and run."""

    def __init__(self, loaded: Loaded, values: tuple[int, ...], expanded: Expanded, numbers: int) -> None:
        plan = loaded.plan
        self.loaded = loaded
        self.leaves = expanded.leaves
        self.numbers = numbers
        """How many of a record's numbers it takes: the first ones."""
        self.constants = expanded.record.slots[numbers:]
        """Numbers that macro expansions brought along, as slots after these."""

        self.sizes = values
        self._evaluated: dict[Size, int] = {}
        self.successor: Callable[[], Bound | None] | None = None
        """Asked before each run for another plan that serves these sizes better."""
        evaluate = self.evaluate
        self.output_bytes = [
            evaluate(_bytes(node.shape, node.dtype)) for node in plan.outputs
        ]
        offsets, self.arena_bytes = plan.memory.offsets(evaluate)
        # The block of values: buffers, slots, then sizes, granules and the addresses of error words.
        position: dict[Any, int] = {}
        for node in [*plan.leaves, *plan.outputs]:
            position.setdefault(("buffer", node), len(position))
        self.temporaries = []
        for node, slot in plan.memory.slot_of.items():
            self.temporaries.append(offsets[slot])
            position["buffer", node] = len(position)
        self.shared: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """For each kernel, by level and order: where among the values its shares stand (see `give`)."""
        self.addresses = struct.Struct(f"<{len(position)}q")
        arguments = [argument for group in loaded.generated for kernel in group for argument in kernel.arguments]
        slots = list(dict.fromkeys(argument for argument in arguments if argument.kind == "slot"))
        self.packing = Packing([(slot_ordinal(a.what), a.dtype) for a in slots]) if slots else None  # type: ignore[misc]
        for argument in slots:
            position[argument] = len(position)
        checks: list[Any] = []
        stretches = Stretches(evaluate, position)
        self.calls: list[HostCall] = []
        self.cost = 0
        given: dict[tuple[int, int], Shares] = {}
        scratch = 0
        repeated = {level: each for each in plan.memory.repeated for level in range(each.first, each.past)}
        for level, (group, addresses) in enumerate(zip(loaded.generated, loaded.addresses, strict=True)):
            loop = repeated.get(level)
            times = stretches.enter(loop.repetition if loop is not None else None)
            threads = workers().count
            each_share = evened([
                chosen(kernel, evaluate, threads) if kernel.symbol else share_out(kernel, evaluate) for kernel in group
            ])
            for order in arranged(each_share):
                kernel, address, shares = group[order], addresses[order], each_share[order]
                pieces = shares.pieces
                given[level, order] = shares
                self.cost += shares.cost * times
                scratch = max(scratch, evaluate(kernel.scratch))
                if not kernel.symbol:
                    hosted = plan.memory.levels[level][order].special
                    assert hosted is not None
                    if loop is not None:
                        raise UnsupportedError(f"{hosted.op.name} cannot run within a loop: it is a host operation")
                    self.calls.append(HostCall.bound(stretches.entry_count, hosted, stretches.word_count, evaluate))
                    pieces = 0
                stretches.kernel(address, pieces, (level, order))
                for argument in plan_arguments(loaded, level, order):
                    key: Any = (argument.kind, argument.what)
                    if argument.kind == "slot":
                        key = argument
                    elif argument.kind in ("granule", "group"):
                        key = (argument.kind, argument.what, level, order)
                    elif argument.kind == "buffer" and stretches.moves(argument.what):
                        stretches.moving(argument.what)
                        continue
                    if key not in position:
                        position[key] = len(position)
                        if argument.kind == "errors":
                            checks.append(argument.what)
                    stretches.argument(position[key])
                    if argument.kind in ("granule", "group"):
                        which = GRANULE if argument.kind == "granule" else argument.what
                        self.shared.setdefault((level, order), []).append((which, position[key]))
            stretches.barrier()
        entries, gather, offsets_ = stretches.finish()
        self.checks = checks
        self.errors = np.zeros(max(len(checks), 1), np.int64)
        self.error_words = self.errors.data
        """The same words: a few are looked at quicker so."""
        self.values = np.zeros(max(len(position), 1), np.int64)
        for key, place in position.items():
            if isinstance(key, Argument):
                continue
            kind, what = key[0], key[1]
            if kind == "size":
                self.values[place] = values[what]
            elif kind == "errors":
                self.values[place] = self.errors.ctypes.data + 8 * checks.index(what)
        for kernel_place, shares in given.items():
            self.give(kernel_place, shares)
        self.gather = gather
        self.offsets = offsets_
        """In bytes, of what moves from step to step of a loop; None where nothing does."""
        self.table = np.zeros(max(len(gather), 1), np.int64)
        self.entries = entries
        self.kernel_of = stretches.kernel_of
        self.entries[:, ARGUMENTS] = self.table.ctypes.data + 8 * self.entries[:, ARGUMENTS]
        self.entry_address = self.entries.ctypes.data
        self.serial = self.cost <= SERIAL_COST
        self.scratch = scratch
        self.tuned = False
        """Whether `TORTUROUS_TUNE=1` has measured its kernels."""

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
        for which, position in self.shared.get(place, ()):
            self.values[position] = shares.granule if which == GRANULE else shares.groups[which]

    @property
    def kernels(self) -> list[Kernel]:
        """The kernel of each entry of the table; those of a loop once for each step."""
        levels = self.loaded.plan.memory.levels
        return [levels[level][order] for level, order in self.kernel_of]

    def run(self, leaves: Sequence[Buffer], numbers: Sequence[bool | int | float], wait: bool = True) -> list[Buffer]:
        """Runs the plan; gives the outputs' buffers. Nothing that anyone can see has changed if it raises.

        Unless the caller must `wait`, as he must if a check can fail, it may still be running on return (see `flight`);
        but not if it reads memory that others may write as soon as they are back.
        """
        if self.successor is not None:
            better = self.successor()
            if better is not None:
                return better.run(leaves, numbers, wait)
        land()
        outputs = [allocate(nbytes) for nbytes in self.output_bytes]
        arena = allocate(self.arena_bytes) if self.arena_bytes else None
        values = self.values
        addresses = [buffer.address for buffer in leaves]
        addresses += [buffer.address for buffer in outputs]
        base = 0 if arena is None else arena.address
        addresses += [base + offset for offset in self.temporaries]
        self.addresses.pack_into(values.data, 0, *addresses)
        if self.packing is not None:
            numbers = [*numbers[:self.numbers], *self.constants] if self.constants else numbers
            self.packing.pack(values.data, self.addresses.size, numbers)
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
            elif wait or alone or any(map(Buffer.written_by_others, leaves)):
                run(self.entry_address, len(self.entries))
            else:
                crew.offer(self.entry_address, len(self.entries))
                launch(Flight(partial(self._join, crew), outputs, (leaves, arena)))
                return outputs
            if self.checks and any(self.error_words):
                self._report()
        return outputs

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


def _bytes(shape: Sequence[Size], dtype: DType) -> Size:
    total = Size.of(dtype.itemsize)
    for size in shape:
        total = total * size
    return total


def plan_arguments(loaded: Loaded, level: int, order: int) -> tuple[Argument, ...]:
    return loaded.generated[level][order].arguments
