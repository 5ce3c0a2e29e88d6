"""A plan bound to sizes: every address and number that its kernels need, ready to be filled in and run."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from torturous.codegen.driver import ENTRY_BYTES
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated
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
from torturous.runtime.hosting import HostCall
from torturous.runtime.slots import Packing
from torturous.runtime.stretches import Stretches
from torturous.runtime.watching import PlanRun, print_run, tell, watchers
from torturous.runtime.workers import Workers, build_workers

GRAIN = 1 << 15
"""Rough machine operations per piece: what makes handing work to another thread worth while."""
ITEM_COST = 1 << 20
ENOUGH_ITEMS = 8
"""What is divided is divided further while there are fewer items, and their cost allows."""
MOST_PIECES = 64
MOST_PREPARING = 16
"""Pieces per kernel at most; fewer where every piece first prepares its scratch memory."""
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

    def __init__(self, loaded: Loaded, values: tuple[int, ...], expanded: Expanded, slot_count: int) -> None:
        plan = loaded.plan
        self.loaded = loaded
        self.leaves = expanded.leaves
        self.constants = expanded.record.slots[slot_count:]
        """Numbers that macro expansions brought along, as slots after the user's."""

        self.sizes = values
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
        numbers: list[tuple[Any, int]] = []
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
        scratch = 0
        repeated = {level: each for each in plan.memory.repeated for level in range(each.first, each.past)}
        for level, (group, addresses) in enumerate(zip(loaded.generated, loaded.addresses, strict=True)):
            loop = repeated.get(level)
            times = stretches.enter(loop.repetition if loop is not None else None)
            for order, (kernel, address) in enumerate(zip(group, addresses, strict=True)):
                shares = share_out(kernel, evaluate)
                pieces = shares.pieces
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
                    if argument.kind == "granule":
                        numbers.append((key, shares.granule))
                    elif argument.kind == "group":
                        numbers.append((key, shares.groups[argument.what]))
            stretches.barrier()
        entries, gather, offsets_ = stretches.finish()
        self.checks = checks
        self.errors = np.zeros(max(len(checks), 1), np.int64)
        self.values = np.zeros(max(len(position), 1), np.int64)
        for key, place in position.items():
            if isinstance(key, Argument):
                continue
            kind, what = key[0], key[1]
            if kind == "size":
                self.values[place] = values[what]
            elif kind == "errors":
                self.values[place] = self.errors.ctypes.data + 8 * checks.index(what)
        for key, value in numbers:
            self.values[position[key]] = value
        self.gather = gather
        self.offsets = offsets_
        """In bytes, of what moves from step to step of a loop; None where nothing does."""
        self.table = np.zeros(max(len(gather), 1), np.int64)
        self.entries = entries
        self.kernel_of = stretches.kernel_of
        self.entries[:, 1] = self.table.ctypes.data + 8 * self.entries[:, 1]
        self.entry_address = self.entries.ctypes.data
        self.serial = self.cost <= SERIAL_COST
        self.scratch = scratch

    def evaluate(self, size: Size) -> int:
        """What a size of the plan's kernels is here."""
        return size.evaluate(lambda variable: self.sizes[variable[1]] if variable[0] == "size" else 0)

    @property
    def kernels(self) -> list[Kernel]:
        """The kernel of each entry of the table; those of a loop once for each step."""
        levels = self.loaded.plan.memory.levels
        return [levels[level][order] for level, order in self.kernel_of]

    def run(self, leaves: Sequence[Buffer], numbers: Sequence[bool | int | float]) -> list[Buffer]:
        """Runs the plan; gives the outputs' buffers. Nothing that anyone can see has changed if it raises."""
        outputs = [allocate(nbytes) for nbytes in self.output_bytes]
        arena = allocate(self.arena_bytes) if self.arena_bytes else None
        values = self.values
        addresses = [buffer.address for buffer in leaves]
        addresses += [buffer.address for buffer in outputs]
        base = 0 if arena is None else arena.address
        addresses += [base + offset for offset in self.temporaries]
        self.addresses.pack_into(values.data, 0, *addresses)
        if self.packing is not None:
            numbers = [*numbers, *self.constants] if self.constants else numbers
            self.packing.pack(values.data, self.addresses.size, numbers)
        if len(self.entries):
            values.take(self.gather, out=self.table[:len(self.gather)], mode="clip")
            if self.offsets is not None:
                np.add(self.table[:len(self.gather)], self.offsets, out=self.table[:len(self.gather)])
            crew = workers()
            if self.scratch:
                crew.reserve(self.scratch)
            run = crew.run_serial if self.serial or crew.count == 1 else crew.run
            if watchers or settings.debug.value >= 2:
                self._run_watched(run)
            elif self.calls:
                self._run_around_calls(run)
            else:
                run(self.entry_address, len(self.entries))
            if self.checks and self.errors.any():
                self._report()
        return outputs

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


@dataclass(frozen=True)
class Shares:
    """How a kernel's work is shared out, for given sizes."""

    granule: int
    """Items per piece."""
    pieces: int
    groups: list[int]
    """How much of each divided extent an item takes."""
    cost: int
    """The kernel's rough cost."""


def share_out(kernel: Generated, evaluate: Callable[[Size], int]) -> Shares:
    """Large items, but enough of them for all workers; then pieces that are worth handing over."""
    work = kernel.work
    outer, cost = evaluate(work.outer), evaluate(work.cost)
    units = [-(-evaluate(part.extent) // part.unit) for part in work.divided]
    counts = [-(-have // (part.most // part.unit)) for have, part in zip(units, work.divided, strict=True)]
    free = [number for number, part in enumerate(work.divided) if part.unit < part.most]
    wanted = min(ENOUGH_ITEMS, outer * cost // ITEM_COST)
    while outer * prod(counts) < wanted:
        # Halves what makes the largest items along its extent.
        large = [number for number in free if counts[number] < units[number]]
        if not large:
            break
        number = max(large, key=lambda n: -(-units[n] // counts[n]) * work.divided[n].unit)
        counts[number] = -(-units[number] // max(1, units[number] // counts[number] // 2))
    taken = [max(1, -(-have // max(count, 1))) for have, count in zip(units, counts, strict=True)]
    parts = prod(-(-have // units_taken) for have, units_taken in zip(units, taken, strict=True))
    items = outer * parts
    per_item = max(1, cost // max(parts, 1))
    most = MOST_PREPARING if evaluate(kernel.scratch) else MOST_PIECES
    granule = max(1, GRAIN // per_item, -(-items // most))
    groups = [units_taken * part.unit for units_taken, part in zip(taken, work.divided, strict=True)]
    return Shares(granule, -(-items // granule), groups, items * per_item)
