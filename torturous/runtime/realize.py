"""Realization: pending rows become a plan, found or made, and the plan runs.

A record's rows and the set of values wanted from it are the key of its plan. On a miss the record is
expanded; if a plan of the same structure serves its sizes it is bound to them, otherwise one is compiled:
with constant sizes for the first record of a structure, with symbolic ones from the second on.
"""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torturous.codegen.driver import ENTRY_BYTES
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated, generate
from torturous.codegen.target import Target, host_target
from torturous.compiler.expand import Expanded, expand
from torturous.compiler.graph import Sizes, broadcasts_hold, dimensions, structure, unify
from torturous.compiler.plan import Plan, make_plan
from torturous.compiler.sizes import Size
from torturous.core import dtypes, settings
from torturous.core.dtypes import DType
from torturous.ir.op import OPS, Kind, Op, define
from torturous.ir.record import Record, Row, context, describe_place, slot_ordinal
from torturous.runtime import build
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.slots import converter, pack_format
from torturous.runtime.storage import Storage
from torturous.runtime.workers import Workers, build_workers

GRAIN = 1 << 15
"""Rough machine operations per piece: what makes handing work to another thread worth while."""
MOST_PIECES = 64
MOST_PREPARING = 16
"""Pieces per kernel at most; fewer where every piece first prepares its scratch memory."""
SERIAL_COST = 1 << 16
"""A plan of at most this many rough operations runs on the calling thread alone."""

_lock = threading.RLock()


@dataclass
class Statistics:
    """What realization has done in this process."""

    plans_made: int = 0
    plans_bound: int = 0
    """Plans given new sizes without compiling."""
    runs: int = 0
    plan_seconds: float = 0.0
    """Making plans and generating text, without LLVM (see `build.statistics`)."""


statistics = Statistics()


@dataclass(eq=False)
class Loaded:
    """A plan whose kernels are ready to run."""

    plan: Plan
    generated: list[list[Generated]]
    """Per level, in the order of `plan.memory.levels`."""
    addresses: list[list[int]]


@dataclass(eq=False)
class _Family:
    """Plans of one structure, and the sizes seen of it, in groups that one plan can serve."""

    groups: list[list[tuple[int, ...]]] = field(default_factory=list)
    plans: list[Loaded] = field(default_factory=list)

    def admit(self, expanded: Expanded, observed: tuple[int, ...]) -> Sizes:
        """The sizes of a plan for this record, and for as many earlier ones as possible."""
        for group in self.groups:
            sizes = unify([*group, observed])
            if broadcasts_hold(expanded, sizes):
                group.append(observed)
                return sizes
        self.groups.append([observed])
        return unify([observed])


_families: dict[tuple, _Family] = {}
_bound: dict[tuple, Bound] = {}
_realizations: dict[tuple, tuple[list[int], tuple[int, ...], frozenset[int], Bound | None]] = {}
"""By rows, what is alive and tracked: rows kept for backward passes and stored, ends of spent graphs, the
plan."""
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

    def __init__(self, loaded: Loaded, values: tuple[int, ...], expanded: Expanded, slot_count: int) -> None:
        plan = loaded.plan
        self.loaded = loaded
        self.leaves = expanded.leaves
        self.constants = expanded.record.slots[slot_count:]
        """Numbers that macro expansions brought along, as slots after the user's."""

        def evaluate(size: Size) -> int:
            return size.evaluate(lambda variable: values[variable[1]] if variable[0] == "size" else 0)

        self.output_bytes = [
            evaluate(_bytes(node.shape, node.dtype)) for node in plan.outputs
        ]
        offsets, self.arena_bytes = plan.memory.offsets(evaluate)
        # The block of values: buffers, sizes, granules, error words' addresses, then slots.
        position: dict[Any, int] = {}
        for node in [*plan.leaves, *plan.outputs]:
            position.setdefault(("buffer", node), len(position))
        self.moving = len(position)
        self.temporaries = []
        for node, slot in plan.memory.slot_of.items():
            self.temporaries.append(offsets[slot])
            position["buffer", node] = len(position)
        granules: list[tuple[Any, int]] = []
        slots: list[Argument] = []
        checks: list[Any] = []
        gather: list[int] = []
        entries: list[list[int]] = []
        self.cost = 0
        scratch = 0
        for level, (group, addresses) in enumerate(zip(loaded.generated, loaded.addresses, strict=True)):
            for order, (kernel, address) in enumerate(zip(group, addresses, strict=True)):
                granule, pieces, cost = _pieces(kernel, evaluate)
                self.cost += cost
                scratch = max(scratch, evaluate(kernel.scratch))
                entries.append([address, len(gather), pieces, order if pieces == 1 else 0, 0, 0, 0, 0])
                for argument in plan_arguments(loaded, level, order):
                    key: Any = (argument.kind, argument.what)
                    if argument.kind == "slot":
                        key = argument
                    elif argument.kind == "granule":
                        key = ("granule", level, order)
                    if key not in position:
                        position[key] = len(position)
                        if argument.kind == "slot":
                            slots.append(argument)
                        elif argument.kind == "errors":
                            checks.append(argument.what)
                    gather.append(position[key])
                    if argument.kind == "granule":
                        granules.append((key, granule))
            if entries:
                entries[-1][4] = 1
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
        for key, value in granules:
            self.values[position[key]] = value
        self.gather = np.array(gather, np.intp)
        self.table = np.zeros(max(len(gather), 1), np.int64)
        self.entries = np.array(entries, np.int64).reshape(-1, ENTRY_BYTES // 8)
        self.entries[:, 1] = self.table.ctypes.data + 8 * self.entries[:, 1]
        self.entry_address = self.entries.ctypes.data
        self.serial = self.cost <= SERIAL_COST
        self.scratch = scratch
        # Slots are packed in one call, in the order of their places; each place is eight bytes.
        slots.sort(key=lambda argument: position[argument])
        self.slot_places = [position[argument] for argument in slots]
        self.slot_sources = [
            (slot_ordinal(argument.what), converter(argument.dtype)) for argument in slots  # type: ignore[arg-type]
        ]
        self.slot_format = struct.Struct("<" + "".join(pack_format(a.dtype) for a in slots))  # type: ignore[arg-type]
        self.slot_index = np.array(self.slot_places, np.intp)
        self.slot_words = np.zeros(len(slots), np.int64)

    def run(self, leaves: Sequence[Buffer], numbers: Sequence[bool | int | float]) -> list[Buffer]:
        """Runs the plan; gives the outputs' buffers. Nothing that anyone can see has changed if it raises."""
        outputs = [allocate(nbytes) for nbytes in self.output_bytes]
        arena = allocate(self.arena_bytes) if self.arena_bytes else None
        values = self.values
        addresses = [buffer.address for buffer in leaves]
        addresses += [buffer.address for buffer in outputs]
        if arena is not None:
            base = arena.address
            addresses += [base + offset for offset in self.temporaries]
        values[:len(addresses)] = addresses
        if self.slot_sources:
            if self.constants:
                numbers = [*numbers, *self.constants]
            self._fill_slots(numbers)
        if len(self.entries):
            values.take(self.gather, out=self.table[:len(self.gather)], mode="clip")
            crew = workers()
            if self.scratch:
                crew.reserve(self.scratch)
            run = crew.run_serial if self.serial or crew.count == 1 else crew.run
            if settings.debug.value >= 2:
                self._run_timed(run)
            else:
                run(self.entry_address, len(self.entries))
            if self.checks and self.errors.any():
                self._report()
        statistics.runs += 1
        return outputs

    def _run_timed(self, run: Callable[[int, int], None]) -> None:
        """Runs kernel by kernel and prints what each took (`TORTUROUS_DEBUG=2`)."""
        kernels = [kernel for level in self.loaded.plan.memory.levels for kernel in level]
        started = time.perf_counter()
        lines = []
        for number, kernel in enumerate(kernels):
            before = time.perf_counter()
            run(self.entry_address + ENTRY_BYTES * number, 1)
            seconds = time.perf_counter() - before
            lines.append(f"[torturous]   {seconds * 1e6:9.1f} µs {'+'.join(kernel.names)} axes {kernel.axes} "
                         f"reduced {kernel.reduced}, {self.entries[number, 2]} pieces")
        print(f"[torturous] ran a plan in {(time.perf_counter() - started) * 1e6:.1f} µs, kernel by kernel",
              *lines, sep="\n", file=sys.stderr)

    def _fill_slots(self, numbers: Sequence[bool | int | float]) -> None:
        words = [convert(numbers[ordinal]) for ordinal, convert in self.slot_sources]
        self.slot_format.pack_into(self.slot_words.data, 0, *words)
        self.values[self.slot_index] = self.slot_words

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


def _pieces(kernel: Generated, evaluate: Callable[[Size], int]) -> tuple[int, int, int]:
    """Items per piece, number of pieces, and the kernel's rough cost, for given sizes."""
    outer = evaluate(kernel.work.outer)
    inner = evaluate(kernel.work.inner) if kernel.work.inner is not None else 1
    chunks = -(-inner // kernel.chunk) if kernel.work.inner is not None else 1
    items = outer * chunks
    per_item = max(1, evaluate(kernel.work.cost) // max(chunks, 1))
    most = MOST_PREPARING if evaluate(kernel.scratch) else MOST_PIECES
    granule = max(1, GRAIN // per_item, -(-items // most))
    return granule, -(-items // granule), items * per_item


# Finding or making plans
# -------------------------------------------------------------------------------------------
def bind(record: Record, outputs: tuple[int, ...]) -> Bound:
    """The bound plan for these values of a record."""
    key = (tuple(record.rows[:outputs[-1] + 1]), outputs, settings.fuse.value, settings.target.value)
    bound = _bound.get(key)
    if bound is None:
        bound = _bound[key] = _bind(record, outputs)
    return bound


def forget_plans() -> None:
    """Forgets every plan: for a setting that is part of no key has changed (the default dtype)."""
    with _lock:
        _realizations.clear()
        _bound.clear()
        _families.clear()


def _bind(record: Record, outputs: tuple[int, ...]) -> Bound:
    started = time.perf_counter()
    expanded = expand(record, outputs)
    observed = dimensions(expanded)
    family = _families.setdefault((structure(expanded), settings.fuse.value, settings.target.value), _Family())
    loaded = values = None
    for candidate in family.plans:
        values = candidate.plan.sizes.match(observed)
        if values is not None:
            loaded = candidate
            statistics.plans_bound += 1
            break
    if loaded is None or values is None:
        sizes = family.admit(expanded, observed)
        matched = sizes.match(observed)
        assert matched is not None
        values = matched
        loaded = _load(expanded, sizes, values, started)
        family.plans.insert(0, loaded)
    else:
        statistics.plan_seconds += time.perf_counter() - started
    return Bound(loaded, values, expanded, len(record.slots))


def _load(expanded: Expanded, sizes: Sizes, values: tuple[int, ...], started: float) -> Loaded:
    build.start()
    plan = make_plan(expanded, sizes, values, settings.fuse.value)
    machine = target()
    generated = [[generate(kernel, machine) for kernel in level] for level in plan.memory.levels]
    statistics.plans_made += 1
    statistics.plan_seconds += time.perf_counter() - started
    compiled = build.statistics.kernels_compiled
    sources = [
        build.KernelSource(kernel.symbol, kernel.text, _describe(plan, level, order))
        for level, group in enumerate(generated) for order, kernel in enumerate(group)
    ]
    flat = build.build(sources, machine)
    addresses, position = [], 0
    for group in generated:
        addresses.append(flat[position:position + len(group)])
        position += len(group)
    _debug(plan, generated, build.statistics.kernels_compiled - compiled, time.perf_counter() - started)
    return Loaded(plan, generated, addresses)


def _describe(plan: Plan, level: int, order: int) -> str:
    kernel = plan.memory.levels[level][order]
    return f"{'+'.join(kernel.names)} at {describe_place(kernel.places[0])}"


def _debug(plan: Plan, generated: list[list[Generated]], compiled: int, seconds: float) -> None:
    level = settings.debug.value
    if level < 1:
        return
    print(f"[torturous] made {plan} ({compiled} kernels compiled, {seconds * 1e3:.0f} ms; "
          f"{statistics.plans_made} plans and {build.statistics.kernels_compiled} kernels so far)", file=sys.stderr)
    if level < 2:
        return
    for depth, (kernels, texts) in enumerate(zip(plan.memory.levels, generated, strict=True)):
        for kernel, text in zip(kernels, texts, strict=True):
            place = describe_place(kernel.places[0])
            print(f"[torturous]   level {depth}: {'+'.join(kernel.names)} {text.symbol} at {place}", file=sys.stderr)
            if level >= 3:
                print(kernel, file=sys.stderr)
            if level >= 4:
                print(text.text, file=sys.stderr)
            if level >= 5:
                source = build.KernelSource(text.symbol, text.text, "+".join(kernel.names))
                print(build.assembly(source, target()), file=sys.stderr)


# Realizing
# ---------------------------------------------------------------------------------------------------------
def _alone() -> int:
    """References to an owner that nobody but its record holds, counted as `_alive` counts them."""
    record = Record()
    record.owners.append(Storage((), dtypes.float32))
    return next(sys.getrefcount(owner) for _, owner in enumerate(record.owners))


_ALONE = _alone()


def _alive(record: Record) -> list[int]:
    """Rows that are the present version of a storage that somebody holds."""
    alone, references = _ALONE, sys.getrefcount
    return [
        index for index, owner in enumerate(record.owners) if owner is not None and references(owner) > alone
    ]


def saved_rows(record: Record, alive: Sequence[int]) -> list[int]:
    """Rows whose values a later backward pass through this record would read."""
    tracked, freed, rows = record.tracked, record.freed, record.rows
    pending = [index for index in alive if tracked[index]]
    visited = bytearray(len(rows))
    reached = []
    while pending:
        index = pending.pop()
        if visited[index]:
            continue
        visited[index] = 1
        if index >= len(freed) or not freed[index]:
            reached.append(index)
        pending += [operand for operand in rows[index][3:] if operand >= 0 and tracked[operand]]
    return sorted(record.read_rows(reached))


SPENT = define(Op("spent", Kind.LEAF, None, None, (None,), ((-1,),),
                  document="the end of a graph whose saved values a backward pass has freed: attributes (op name,)"))


def _spent(tape: Record, index: int) -> bool:
    """Whether nothing is left to do for a backward pass from this row but to fail, for want of what it would
    read."""
    pending, visited, fails = [index], set(), False
    while pending:
        index = pending.pop()
        if index in visited or index in tape.sources:
            continue
        visited.add(index)
        if index >= len(tape.freed) or not tape.freed[index]:
            return False
        fails = fails or any(True for _ in tape.reads_of(index))
        pending += [operand for operand in tape.rows[index][3:] if operand >= 0 and tape.tracked[operand]]
    return fails


def _spent_tape(row: Row) -> Record:
    """A tape of one row, in place of one that nothing can be read from any more."""
    tape = Record()
    tape.append((SPENT.number, (OPS[row[0]].name,), row[2]), 1, None)
    tape.freed.append(1)
    return tape


def realize() -> None:
    """Computes whatever of this thread's pending record somebody still wants."""
    record = context.record
    if not record.rows:
        return
    with _lock:
        context.record = Record()
        alive = _alive(record)
        # Rows after the last one wanted cannot matter, least of all to the key.
        used = alive[-1] + 1 if alive else 0
        key = (tuple(record.rows[:used]), tuple(alive), bytes(record.tracked[:used]), bytes(record.freed[:used]),
               tuple(record.sources), settings.fuse.value, settings.target.value)
        found = _realizations.get(key)
        if found is None:
            saved = saved_rows(record, alive)
            outputs = tuple(sorted({*alive, *saved} - record.values.keys()))
            spent = frozenset(index for index in alive if record.tracked[index] and _spent(record, index))
            bound = None
        else:
            saved, outputs, spent, bound = found
        values = record.values
        owners = record.owners
        computed: dict[int, Buffer] = {}
        try:
            if outputs:
                if bound is None:
                    bound = bind(record, outputs)
                buffers = bound.run([values[row] for row in bound.leaves], record.slots)
                computed = dict(zip(outputs, buffers, strict=True))
        except BaseException as failure:
            record.close()
            for storage in owners:
                if storage is not None:
                    storage.withdraw(failure)
            raise
        if found is None:
            _realizations[key] = saved, outputs, spent, bound
        tape = record.close()
        tape.values = {row: computed[row] if row in computed else values[row] for row in saved}
        for index in alive:
            storage = owners[index]
            storage.commit(computed[index])
            if not tape.tracked[index]:
                storage.record, storage.index = None, -1
            elif index in spent:
                storage.record, storage.index = _spent_tape(tape.rows[index]), 0
            else:
                storage.record = tape
        for index in saved:
            storage = owners[index]
            if storage is not None:
                tape.versions.setdefault(index, (storage.watch(), storage.version - storage.unseen))


def compute(storage: Storage) -> None:
    """Makes a storage's pending version available to this thread.

    If another thread has recorded it, that thread may be recording at this moment: its record is read up to the row
    in question, which is complete, and never changed. The other thread computes the value again if it needs it.
    """
    if storage.record is context.record:
        realize()
        return
    with _lock:
        record, row = storage.record, storage.index
        if not storage.pending or record is None:
            return
        prefix = Record()
        prefix.rows, prefix.places = record.rows[:row + 1], record.places[:row + 1]
        prefix.tracked, prefix.slots = record.tracked[:row + 1], list(record.slots)
        bound = bind(prefix, (row,))
        (buffer,) = bound.run([record.values[leaf] for leaf in bound.leaves], prefix.slots)
        storage.commit(buffer)
        if not prefix.tracked[row]:
            storage.record, storage.index = None, -1


def expose(storage: Storage) -> np.ndarray:
    """A realized storage's memory as an array that shares it.

    From now on others may write it, so rows that are to read what it holds now are computed first.
    """
    if any(buffer is storage.buffer for buffer in context.record.values.values()):
        realize()
    return storage.export()
