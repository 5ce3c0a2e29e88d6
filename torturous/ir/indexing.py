"""Gather and scatter: positions that are themselves data.

Index tensors are checked against the axis by the kernel, or when recorded if their values are known; a
position below zero counts from the end only where the recording op says so (it has been made non-negative by
then).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from torturous.core.shapes import Shape
from torturous.ir.bounds import kept, of_all
from torturous.ir.op import Attributes, Kind, Op, Type, define


def taken_shape(x: Shape, axis: int, index: Shape) -> Shape:
    return x[:axis] + index + x[axis + 1:]


def _infer_take(at: Attributes, operands: Sequence[Type]) -> Type:
    x, index = operands
    return Type(taken_shape(x.shape, at[0], index.shape), x.dtype)


def _put_meaning(out: Type, at: Attributes, base: np.ndarray, index: np.ndarray, x: np.ndarray) -> np.ndarray:
    (axis,) = at
    result = np.moveaxis(base.copy(), axis, 0)
    parts = np.moveaxis(x.reshape(base.shape[:axis] + (index.size,) + base.shape[axis + 1:]), axis, 0)
    for position, part in zip(index.reshape(-1), parts, strict=True):
        result[position] = part
    return np.moveaxis(result, 0, axis)


def _put_along_meaning(
    out: Type, at: Attributes, base: np.ndarray, index: np.ndarray, x: np.ndarray
) -> np.ndarray:
    (axis,) = at
    result = base.copy()
    for place in np.ndindex(index.shape):
        result[place[:axis] + (int(index[place]),) + place[axis + 1:]] = x[place]
    return result


def _take_add_meaning(
    out: Type, at: Attributes, base: np.ndarray, index: np.ndarray, x: np.ndarray
) -> np.ndarray:
    (axis,) = at
    result = np.moveaxis(base.copy(), axis, 0)
    parts = np.moveaxis(x.reshape(base.shape[:axis] + (index.size,) + base.shape[axis + 1:]), axis, 0)
    for position, part in zip(index.reshape(-1), parts, strict=True):
        result[position] = result[position] + part
    return np.moveaxis(result, 0, axis)


def _along_add_meaning(
    out: Type, at: Attributes, base: np.ndarray, index: np.ndarray, x: np.ndarray
) -> np.ndarray:
    (axis,) = at
    result = base.copy()
    for place in np.ndindex(index.shape):
        target = place[:axis] + (int(index[place]),) + place[axis + 1:]
        result[target] = result[target] + x[place]
    return result


def _along_meaning(out: Type, at: Attributes, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    (axis,) = at
    corner = tuple(slice(None) if other == axis else slice(0, size) for other, size in enumerate(index.shape))
    return np.take_along_axis(x[corner], index, axis)


TAKE: Op = define(Op(
    "take", Kind.GATHER, _infer_take, lambda out, at, x, index: x.take(index, at[0]),
    (lambda g, out, at, x, index: g.full(x.shape, x.dtype, 0).apply(TAKE_ADD, index, g, attributes=at), None),
    (1,), bounds=kept,
    document="x(.., index, ..): whole slices of one axis; the index's axes take the place of that axis"))
TAKE_ADD: Op = define(Op(
    "take_add", Kind.SCATTER, lambda at, operands: operands[0], _take_add_meaning,
    (lambda g, out, at, base, index, x: g, None,
     lambda g, out, at, base, index, x: g.apply(TAKE, index, attributes=at)), (1,),
    document="base with slices added at the index's positions, in the index's order"))
TAKE_ALONG: Op = define(Op(
    "take_along", Kind.GATHER, lambda at, operands: Type(operands[1].shape, operands[0].dtype),
    _along_meaning,
    (lambda g, out, at, x, index: g.full(x.shape, x.dtype, 0).apply(TAKE_ALONG_ADD, index, g, attributes=at),
     None), (1,), bounds=kept,
    document="x at the index along one axis, at the element's own place along the others (PyTorch's gather)"))
TAKE_ALONG_ADD: Op = define(Op(
    "take_along_add", Kind.SCATTER, lambda at, operands: operands[0], _along_add_meaning,
    (lambda g, out, at, base, index, x: g, None,
     lambda g, out, at, base, index, x: g.apply(TAKE_ALONG, index, attributes=at)), (1,),
    document="base with elements added at the index's positions along one axis (PyTorch's scatter_add)"))
PUT: Op = define(Op(
    "put", Kind.SCATTER, lambda at, operands: operands[0], _put_meaning,
    (lambda g, out, at, base, index, x: g.apply(PUT, index, x.zeros(), attributes=at), None,
     lambda g, out, at, base, index, x: g.apply(TAKE, index, attributes=at)), (1,),
    document="base with slices written at the index's positions, in its order: the last of equals stays"))
PUT_ALONG: Op = define(Op(
    "put_along", Kind.SCATTER, lambda at, operands: operands[0], _put_along_meaning,
    (lambda g, out, at, base, index, x: g.apply(PUT_ALONG, index, x.zeros(), attributes=at), None,
     lambda g, out, at, base, index, x: g.apply(TAKE_ALONG, index, attributes=at)), (1,),
    document="base with elements written at the index's positions along one axis (PyTorch's scatter)"))


# Joining many parts -----------------------------------------------------------------------------------------
def _join_rule(position: int) -> Any:
    def rule(g: Any, out: Any, at: Attributes, *parts: Any) -> Any:
        """The part's own stretch of the gradient: `width` places of the axis for each part."""
        (axis,) = at
        widths = [prod(part.shape) // max(prod(g.shape) // max(g.shape[axis], 1), 1) for part in parts]
        shape = g.shape[:axis] + (widths[position],) + g.shape[axis + 1:]
        return g.slice(shape, (axis,), (1,), (sum(widths[:position]),)).reshape(parts[position].shape)

    return rule


def _join_meaning(out: Type, at: Attributes, *parts: np.ndarray) -> np.ndarray:
    (axis,) = at
    lead = out.shape[:axis]
    rest = [part.reshape(*lead, part.size // max(prod(lead), 1)) for part in parts]
    return np.concatenate(rest, axis).reshape(out.shape)


MOST_JOINED = 512
"""Parts of one row; more are joined in several rows."""
JOIN: Op = define(Op(
    "join", Kind.SCATTER, None, _join_meaning, tuple(_join_rule(position) for position in range(MOST_JOINED)),
    bounds=of_all,
    document="parts of out's dtype laid one after another along an axis, by copying: attributes the axis; a "
             "part may lack the axis where it takes one place (stack)"))
