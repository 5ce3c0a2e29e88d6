"""Along one axis, element after element: sorting, running sums, recurrences, running extremes.

A running value is worked out from the first element to the last (from the last to the first where `reverse`),
floats in float64, and every element rounded to the row's dtype: the order is that of the axis, whatever the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.intervals import Interval
from torturous.ir.op import Attributes, Kind, Op, Type, define


def _infer_first(at: Attributes, operands: Sequence[Type]) -> Type:
    return operands[0]


def _infer_positions(at: Attributes, operands: Sequence[Type]) -> Type:
    return Type(operands[0].shape, dtypes.int64)


# Sorting ----------------------------------------------------------------------------------------------------
def _order_meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
    axis, descending = at
    if x.dtype.itemsize == 2:
        x = x.astype(np.float32)
    x = np.moveaxis(x, axis, -1)
    if descending:
        order = (x.shape[-1] - 1 - np.argsort(x[..., ::-1], -1, kind="stable"))[..., ::-1]
    else:
        order = np.argsort(x, -1, kind="stable")
    return np.moveaxis(order[..., :out.shape[axis]], -1, axis)


def _places(out: Type, at: Attributes, types: Sequence[Type], x: Interval) -> Interval:
    return 0, max(types[0].shape[at[0]] - 1, 0)


ORDER: Op = define(Op(
    "order", Kind.ALONG, None, _order_meaning, bounds=_places,
    document="positions of the elements in sorted order, as many as the result's axis has: attributes (axis, "
             "descending). Equal elements keep their order; NaN is greater than every number"))


# Running values ---------------------------------------------------------------------------------------------
def _wide(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind in "bui" else x.astype(np.float64)


def _narrow(x: np.ndarray, out: Type) -> np.ndarray:
    with np.errstate(all="ignore"):
        return (x.astype(np.float32) if out.dtype.is_half else x).astype(out.dtype.numpy)


def _running_sum_meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
    axis, reverse = at
    x = np.flip(_wide(x), axis) if reverse else _wide(x)
    with np.errstate(all="ignore"):
        total = np.add.accumulate(x, axis, dtype=x.dtype) + x.dtype.type(0)  # From +0, which −0 does not change.
    return _narrow(np.flip(total, axis) if reverse else total, out)


def _recurrence_meaning(out: Type, at: Attributes, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    axis, reverse = at
    a, b = np.moveaxis(_wide(a), axis, 0), np.moveaxis(_wide(b), axis, 0)
    result, h = np.empty_like(b), np.zeros_like(b[:1].sum(0))
    with np.errstate(all="ignore"):
        for place in reversed(range(len(b))) if reverse else range(len(b)):
            result[place] = h = a[place] * h + b[place]
    return _narrow(np.moveaxis(result, 0, axis), out)


def _shifted(x: Any, axis: int, reverse: bool) -> Any:
    """Each place's neighbour before it (behind it where `reverse`); 0 for what has none."""
    size = x.shape[axis]
    if not size:
        return x
    shape = (*x.shape[:axis], size - 1, *x.shape[axis + 1:])
    kept = x.slice(shape, (axis,), (1,), (1 if reverse else 0,))
    return kept.pad(x.shape, 0, (axis,), (1,), (0 if reverse else 1,))


def _arriving(g: Any, at: Attributes, a: Any) -> Any:
    """The gradient that arrives at every place: its own, and what a neighbour sends back."""
    axis, reverse = at
    return _shifted(a, axis, not reverse).apply(RECURRENCE, g, attributes=(axis, not reverse))


RUNNING_SUM: Op = define(Op(
    "running_sum", Kind.ALONG, _infer_first, _running_sum_meaning,
    (lambda g, out, at, x: g.apply(RUNNING_SUM, attributes=(at[0], not at[1])),),
    document="the sum of all elements so far: attributes (axis, reverse)"))
RECURRENCE: Op = define(Op(
    "recurrence", Kind.ALONG, _infer_first, _recurrence_meaning,
    (lambda g, out, at, a, b: _arriving(g, at, a) * _shifted(out, *at),
     lambda g, out, at, a, b: _arriving(g, at, a)),
    ((0, -1), (0,)),
    document="h = a·h + b along an axis, from h = 0: attributes (axis, reverse)"))


def _extreme_meaning(greatest: bool) -> Any:
    def meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
        (axis,) = at
        x = np.moveaxis(_wide(x), axis, 0)
        result = np.zeros(x.shape, np.int64)
        if not x.size:
            return np.moveaxis(result, 0, axis)
        best, place = x[0].copy(), np.zeros(x.shape[1:], np.int64)
        for position, here in enumerate(x):
            better = (here != here) | ((here >= best) if greatest else (here <= best))
            best, place = np.where(better, here, best), np.where(better, position, place)
            result[position] = place
        return np.moveaxis(result, 0, axis)

    return meaning


RUNNING_MAX: Op = define(Op(
    "running_max", Kind.ALONG, _infer_positions, _extreme_meaning(True), bounds=_places,
    document="the position of the greatest element so far, the last of equals; NaN is greatest: attributes (axis,)"))
RUNNING_MIN: Op = define(Op("running_min", Kind.ALONG, _infer_positions, _extreme_meaning(False),
                             bounds=_places))
