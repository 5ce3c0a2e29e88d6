"""Bounds: between which integers the elements of a row lie, as far as that follows from how they are made.

Positions and classes that are in range by what they are (`argmax`, `arange`, the order of a sort) need not be looked
at, and a plan that reads them cannot fail: nobody has to wait for it. An op says in its definition what follows for
its result; numbers are taken as they are at this moment, so that nothing of this belongs in a key.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from torturous.core.dtypes import Category, DType
from torturous.core.intervals import EVERYTHING, Interval, hull
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Type
from torturous.ir.record import Record, slot_ordinal

DEEPEST = 32
"""Rows on the way from the one in question to one that anything can be said of."""


@cache
def every(dtype: DType) -> Interval:
    """What any element of a dtype lies in."""
    if dtype.is_floating_point:
        return EVERYTHING
    if dtype.category is Category.BOOL:
        return 0, 1
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


# Rules that ops share -----------------------------------------------------------------------------------------
def kept(out: Type, at: Attributes, types: Any, x: Interval, *others: Interval) -> Interval:
    """The elements are among those of the first operand."""
    return x


def of_all(out: Type, at: Attributes, types: Any, *operands: Interval) -> Interval:
    """They are among those of all operands."""
    return hull(*operands)


# The walk -----------------------------------------------------------------------------------------------------
def bounds_of(record: Record, row: int, leaf: Callable[[int], Interval | None]) -> Interval:
    """Between which numbers the elements of a row lie; `leaf` says it of the leaves of which it is known.

    While a call is captured, nothing is said of rows before it.
    """
    found: dict[int, Interval] = {}

    def of(operand: int, depth: int) -> Interval:
        if operand < 0:
            number = record.slots[slot_ordinal(operand)]
            return EVERYTHING if isinstance(number, float) else (number, number)
        if operand not in found:
            found[operand] = follow(operand, depth)
        return found[operand]

    def follow(row: int, depth: int) -> Interval:
        number, attributes, type_index, *operands = record.last(row).row
        out, op = TYPES[type_index], OPS[number]
        anything = every(out.dtype)
        if row < record.captured:
            return anything
        if op.kind is Kind.LEAF:
            return leaf(row) or anything
        if op.bounds is None or depth == DEEPEST or anything is EVERYTHING:
            return anything
        types = [TYPES[record.type_number_of(operand)] if operand >= 0 else None for operand in operands]
        low, high = op.bounds(out, attributes, types, *[of(operand, depth + 1) for operand in operands])
        # What leaves the dtype comes round to anything.
        return (low, high) if anything[0] <= low and high <= anything[1] else anything

    return of(row, 0)


__all__ = ["bounds_of", "every", "kept", "of_all"]
