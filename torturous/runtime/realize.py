"""Realization: pending rows become a plan, found or made, and the plan runs.

A record's last prefix and the set of values wanted from it are the key of its plan; on a miss `planning` finds or makes
one. It, and with it everything that compiles, is imported by the first miss.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import settings
from torturous.core.deferred import deferred
from torturous.core.dtypes import Category
from torturous.core.intervals import Interval
from torturous.ir.bounds import bounds_of, every
from torturous.ir.op import OPS, TYPES, Kind, Op, define
from torturous.ir.prefix import tree
from torturous.ir.record import Record, Row, context
from torturous.runtime.buffers import Bounds, Buffer
from torturous.runtime.homes import Move, homes, moves, successors
from torturous.runtime.storage import Storage
from torturous.runtime.watching import statistics

if TYPE_CHECKING:
    from torturous.runtime import planning
    from torturous.runtime.bound import Bound
else:
    planning = deferred("torturous.runtime.planning")

_lock = threading.RLock()

_realizations: dict[
    tuple, tuple[list[int], tuple[int, ...], dict[int, Row], tuple[int, ...], tuple[Move, ...], Bound | None]] = {}
"""By prefix and what is alive: rows kept for backward passes and stored, the rows that are ends of spent graphs, the
outputs that may be positions, which outputs may stay where the values before them lie, the plan."""
tree.tables.append(_realizations)


def forget_plans() -> None:
    """Forgets every plan: for a setting that is part of no key has changed (the default dtype)."""
    with _lock:
        _realizations.clear()
        planning.forget_plans()


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
    if record.visited:
        # Another thread may have computed such a storage since, and then written it.
        alive = [index for index in alive if not isinstance(owner := owners[index], Storage) or (
            owner.record is record and owner.index == index)]
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
        fails = fails or tape.fails_again(index)
        pending += [operand for operand in tape.rows[index][3:] if operand >= 0 and tape.tracked[operand]]
    return fails


def _may_be_positions(row: Row) -> bool:
    """Whether a row is of integers, more than one, of which something may be known by the way they are made."""
    shape, dtype = TYPES[row[2]]
    return dtype.category is Category.INTEGRAL and bool(shape) and OPS[row[0]].bounds is not None


def _bounds(record: Record, index: int) -> Bounds | None:
    """What an integer row's elements lie between, as far as that is known without looking at them."""
    def leaf(row: int) -> Interval | None:
        known = record.values[row].bounds
        return None if known is None else known[:2]

    found = bounds_of(record, index, leaf)
    return None if found == every(record.type_of(index).dtype) else Bounds(int(found[0]), int(found[1]), False)


def _spent_tape(row: Row) -> Record:
    """A tape of one row, in place of one that nothing can be read from any more."""
    tape = Record(tree.root)
    tape.append((SPENT.number, (OPS[row[0]].name,), row[2]), 1, None)
    tape.freed.append(1)
    return tape


def realize(wait: bool = True) -> None:
    """Computes whatever of this thread's pending record somebody still wants.

    Unless the caller must `wait`, the computation may go on after the return: who looks at memory waits for it.
    """
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
            spent = {index: record.rows[index] for index in alive if record.tracked[index] and _spent(record, index)}
            positions = tuple(index for index in outputs if _may_be_positions(record.rows[index]))
            kept: tuple[Move, ...] = ()
            bound = None
        else:
            saved, outputs, spent, positions, kept, bound = found
        values = record.values
        computed: dict[int, Buffer] = {}
        try:
            if outputs:
                if bound is None:
                    following = successors(outputs, alive, storages, values, saved)
                    bound = planning.bind(record, outputs, tuple(following))
                    kept = moves(following, outputs, alive, bound.leaves)
                may_fail = record.doubtful > 0
                homely = () if may_fail else homes(kept, storages, bound.leaves, values)
                leaves = [values[row] for row in bound.leaves]
                buffers = bound.run(leaves, record.slots, wait or may_fail, homely)
                statistics.runs += 1
                computed = dict(zip(outputs, buffers, strict=True))
                # All before any: one of these buffers may be what another was made of, and has been written over.
                for index, bounds in [(index, _bounds(record, index)) for index in positions]:
                    computed[index].bounds = bounds
        except BaseException as failure:
            record.close()
            for storage in storages:
                storage.withdraw(failure)
            raise
        if found is None:
            _realizations[key] = saved, outputs, spent, positions, kept, bound
        tape = record.close()
        tape.values = {row: computed[row] if row in computed else values[row] for row in saved}
        for index, storage in zip(alive, storages, strict=True):
            storage.commit(computed[index])
            if not storage.tracked:
                storage.record, storage.index = None, -1
            elif index in spent:
                storage.record, storage.index = _spent_tape(spent[index]), 0
            else:
                storage.record = tape
        for index in saved:
            owner = owners.get(index)
            if isinstance(owner, Storage):
                tape.versions.setdefault(index, (owner.watch(), owner.version - owner.unseen))


def compute(storage: Storage) -> None:
    """Makes a storage's pending version available to this thread.

    If another thread has recorded it, that thread may be recording at this moment: its record is read up to the row
    in question, which is complete, and never changed. The other thread computes the value again if it needs it. What
    leads to the value, with what gradients would read of it, becomes a tape of its own.
    """
    if storage.record is context.record:
        realize()
        return
    with _lock:
        record, row = storage.record, storage.index
        if not storage.pending or record is None:
            return
        record.visited = True
        tape, values = record.until(row + 1), record.values
        saved = saved_rows(tape, (row,)) if tape.tracked[row] else []
        outputs = tuple(sorted({row, *saved} - values.keys()))
        bound = planning.bind(tape, outputs)
        buffers = bound.run([values[leaf] for leaf in bound.leaves], tape.slots)
        statistics.runs += 1
        computed = dict(zip(outputs, buffers, strict=True))
        storage.commit(computed[row])
        if tape.tracked[row]:
            tape.values = {each: computed[each] if each in computed else values[each] for each in saved}
            storage.record = tape
        else:
            storage.record, storage.index = None, -1


def expose(storage: Storage) -> np.ndarray:
    """A realized storage's memory as an array that shares it.

    From now on others may write it, so rows that are to read what it holds now are computed first.
    """
    if any(buffer is storage.buffer for buffer in context.record.values.values()):
        realize()
    return storage.export()
