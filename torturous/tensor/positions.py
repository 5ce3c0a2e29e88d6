"""Positions that are data: index tensors, and whether they are in range.

Values that are known are looked at when they are recorded, at the user's line, unless it follows from how they are made
that they are in range (see `ir.bounds`); others by the kernel that uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category
from torturous.core.intervals import Interval
from torturous.ir import elementwise
from torturous.ir.bounds import bounds_of
from torturous.ir.op import TYPES, Type
from torturous.ir.record import context
from torturous.runtime.buffers import Bounds, Buffer
from torturous.runtime.storage import Storage
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.values import computed_values, of_array, repeated_check

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# Values on the host -----------------------------------------------------------------------------------------
def host_integer(t: TensorBase) -> int:
    """The one element of an integer tensor; TypeError if it is something else."""
    if prod(t.shape) != 1 or t.dtype.is_floating_point:
        raise TypeError("only integer tensors of a single element can be converted to an index, got "
                        f"{t.dtype} of shape {list(t.shape)}")
    return int(computed_values(t).reshape(-1)[0])


def index_tensor(values: np.ndarray) -> Tensor:
    """An int64 tensor of positions worked out on the host."""
    return of_array(values, dtypes.int64)


# Checking positions -----------------------------------------------------------------------------------------
def _looked_at(buffer: Buffer, kind: Type) -> Bounds:
    """The least and the greatest of a buffer's elements, of which there must be some."""
    values = buffer.brief(kind.dtype.numpy, kind.shape)
    bounds = Bounds(int(values.min()), int(values.max()), True)
    if not buffer.exported:
        buffer.bounds = bounds
    return bounds


def bounds_within(t: TensorBase, lowest: int, past: int) -> tuple[int, int] | None:
    """What t's values, of which there must be some, are known to lie between. None if that may be outside of `lowest`
    to `past` − 1 and they have not been computed.

    They are the least and the greatest of t's own where some are outside.
    """
    storage = t.storage
    if storage.failure is not None:
        return None
    if storage.pending:
        known = _by_origin(storage)
        return known[:2] if known is not None and known.inside(lowest, past) else None
    buffer = storage.buffer
    assert buffer is not None
    known = buffer.bounds
    if known is None or not (known.exact or known.inside(lowest, past)):
        known = _looked_at(buffer, TYPES[storage.type_index])
    if t.steps and not known.inside(lowest, past):
        values = computed_values(t)
        return int(values.min()), int(values.max())
    return known[:2]


def _by_origin(storage: Storage) -> Bounds | None:
    """What a pending storage's values lie between by the way they are made, of buffers that nobody else looks at."""
    record = context.record
    if storage.record is not record:
        return None

    def leaf(row: int) -> Interval | None:
        buffer, kind = record.values.get(row), record.type_of(row)
        if buffer is None or kind.dtype.is_floating_point or 0 in kind.shape or buffer.exported:
            return None  # An export's inputs have no values at all.
        return (buffer.bounds or _looked_at(buffer, kind))[:2]

    low, high = bounds_of(record, storage.index, leaf)
    return Bounds(int(low), int(high), False)


@repeated_check
def check_within(t: TensorBase, past: int, failure: Callable[[int, int], Exception]) -> None:
    """Raises what `failure` makes of the least and the greatest where values are known not to lie in 0 … past − 1;
    values that are not known yet are left to the kernel to check."""
    if 0 in t.shape:
        return
    bounds = bounds_within(t, 0, past)
    if bounds is None:
        context.record.doubt()
    elif not 0 <= bounds[0] <= bounds[1] < past:
        raise failure(*bounds)


def checked_index(index: TensorBase, size: int, op_name: str, *, negatives: bool = False, axis: int = 0,
                  error: type[Exception] = IndexError) -> Tensor:
    """An index tensor whose positions lie in 0 … size − 1, or are left to the kernel to check.

    Known values are checked now (once per version of their storage), pending ones when they are used.
    `negatives` counts positions below zero from the end. Raises TypeError for a tensor that is not of
    integers, `error` for a position out of range.
    """
    if index.dtype.category is not Category.INTEGRAL:
        raise TypeError(f"{op_name}(): expected an index of dtype int64 or int32, got {index.dtype}")
    t: Any = index
    if prod(index.shape) == 0 or _known_in_range(index, size, op_name, negatives, axis, error):
        return t
    return from_end(t, size) if negatives else t


@repeated_check
def _known_in_range(index: TensorBase, size: int, op_name: str, negatives: bool, axis: int,
                    error: type[Exception]) -> bool:
    """Whether positions are known to lie in 0 … size − 1; `error` if one is known to be out of range."""
    lowest = -size if negatives else 0
    bounds = bounds_within(index, lowest, size)
    if bounds is not None:
        if bounds[0] < lowest or bounds[1] >= size:
            culprit = bounds[0] if bounds[0] < lowest else bounds[1]
            raise error(
                f"{op_name}(): index {culprit} is out of bounds for dimension {axis} with size {size}")
        return bounds[0] >= 0
    context.record.doubt()
    return False


def from_end(index: TensorBase, size: int) -> Tensor:
    """Positions below zero counted from the end."""
    below = apply(elementwise.LT, index, 0)
    return apply(elementwise.WHERE, below, apply(elementwise.ADD, index, size), index)


def inside(index: TensorBase, size: int) -> Tensor:
    return apply(elementwise.BITWISE_AND, apply(elementwise.GE, index, 0), apply(elementwise.LT, index, size))
