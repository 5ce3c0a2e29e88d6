"""Realization: pending rows become a plan, found or made, and the plan runs.

A record's rows and the set of values wanted from it are the key of its plan. On a miss the record is
expanded; if a plan of the same structure serves its sizes it is bound to them, otherwise one is compiled:
with constant sizes for the first record of a structure, with symbolic ones from the second on.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torturous.codegen.kernels import generate
from torturous.compiler.expand import Expanded, expand
from torturous.compiler.graph import Sizes, broadcasts_hold, dimensions, structure, unify
from torturous.compiler.plan import Plan, make_plan
from torturous.core import settings
from torturous.ir.op import OPS, Kind, Op, define
from torturous.ir.prefix import tree
from torturous.ir.record import Record, Row, context, describe_place
from torturous.runtime import build
from torturous.runtime.bound import Bound, Loaded, target
from torturous.runtime.buffers import Buffer
from torturous.runtime.storage import Storage
from torturous.runtime.watching import PlanMade, tell

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
"""By prefix and what is alive: rows kept for backward passes and stored, ends of spent graphs, the plan."""
tree.tables.append(_realizations)


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
    generated = [[generate(kernel, machine, streaming=True) for kernel in level] for level in plan.memory.levels]
    statistics.plans_made += 1
    statistics.plan_seconds += time.perf_counter() - started
    compiled = build.statistics.kernels_compiled
    sources: dict[str, build.KernelSource] = {}
    for level, group in enumerate(generated):
        for order, kernel in enumerate(group):
            if kernel.symbol and kernel.symbol not in sources:
                description = _describe(plan, level, order)
                sources[kernel.symbol] = build.KernelSource(kernel.symbol, kernel.text, description)
    built = dict(zip(sources, build.build(list(sources.values()), machine), strict=True))
    addresses = [[built[kernel.symbol] if kernel.symbol else 0 for kernel in group] for group in generated]
    loaded = Loaded(plan, generated, addresses)
    made = PlanMade(loaded, started, time.perf_counter() - started, build.statistics.kernels_compiled - compiled)
    _debug(made)
    tell(made)
    return loaded


def _describe(plan: Plan, level: int, order: int) -> str:
    kernel = plan.memory.levels[level][order]
    return f"{'+'.join(kernel.names)} at {describe_place(kernel.places[0])}"


def _debug(made: PlanMade) -> None:
    level, plan, generated = settings.debug.value, made.loaded.plan, made.loaded.generated
    if level < 1:
        return
    print(f"[torturous] made {plan} ({made.compiled} kernels compiled, {made.seconds * 1e3:.0f} ms; "
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
    record.owners[0] = object()
    return next(map(sys.getrefcount, record.owners.values()))


_ALONE = _alone()


def _alive(record: Record) -> list[int]:
    """Rows that are the present version of a storage that somebody holds."""
    alone, owners = _ALONE, record.owners
    alive = [
        index for index, references in zip(owners, map(sys.getrefcount, owners.values()), strict=True)
        if references > alone
    ]
    alive.sort()
    return alive


def _claimed(owner: Any) -> Storage:
    """The storage that will hold an owner's value: a tensor that was nothing but a row gets one now."""
    return owner if owner.__class__ is Storage else owner.storage


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
    tape = Record(tree.root)
    tape.append((SPENT.number, (OPS[row[0]].name,), row[2]), 1, None)
    tape.freed.append(1)
    return tape


def realize() -> None:
    """Computes whatever of this thread's pending record somebody still wants."""
    record = context.record
    if not len(record):
        return
    with _lock:
        tree.forget_if_large()
        context.renew()
        alive = _alive(record)
        owners = record.owners
        storages = [_claimed(owners[index]) for index in alive]
        # Rows after the last one wanted cannot matter, least of all to the key.
        used = alive[-1] + 1 if alive else 0
        key = (record.end.until(used), tuple(alive), bytes(record.freed[:used]), tuple(record.sources),
               settings.fuse.value, settings.target.value)
        found = _realizations.get(key)
        if found is None:
            saved = saved_rows(record, alive)
            outputs = tuple(sorted({*alive, *saved} - record.values.keys()))
            spent = frozenset(index for index in alive if record.tracked[index] and _spent(record, index))
            bound = None
        else:
            saved, outputs, spent, bound = found
        values = record.values
        computed: dict[int, Buffer] = {}
        try:
            if outputs:
                if bound is None:
                    bound = bind(record, outputs)
                buffers = bound.run([values[row] for row in bound.leaves], record.slots)
                statistics.runs += 1
                computed = dict(zip(outputs, buffers, strict=True))
        except BaseException as failure:
            record.close()
            for storage in storages:
                storage.withdraw(failure)
            raise
        if found is None:
            _realizations[key] = saved, outputs, spent, bound
        tape = record.close()
        tape.values = {row: computed[row] if row in computed else values[row] for row in saved}
        for index, storage in zip(alive, storages, strict=True):
            storage.commit(computed[index])
            if not storage.tracked:
                storage.record, storage.index = None, -1
            elif index in spent:
                storage.record, storage.index = _spent_tape(tape.last(index).row), 0
            else:
                storage.record = tape
        for index in saved:
            owner = owners.get(index)
            if isinstance(owner, Storage):
                tape.versions.setdefault(index, (owner.watch(), owner.version - owner.unseen))


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
        prefix = record.until(row + 1)
        bound = bind(prefix, (row,))
        (buffer,) = bound.run([record.values[leaf] for leaf in bound.leaves], prefix.slots)
        statistics.runs += 1
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
