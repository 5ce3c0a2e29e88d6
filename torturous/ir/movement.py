"""Movement ops: each says, for an element of the result, where it comes from.

Sizes stand in the row's type, structure (axes, steps, permutations) in its attributes, and starting positions are
slots, so that `x[:, t]` is one plan for every t.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from torturous.core.dtypes import Rank, result_type
from torturous.core.intervals import Interval, hull
from torturous.core.shapes import Shape
from torturous.ir.bounds import kept, of_all
from torturous.ir.op import Attributes, Kind, Op, Type, define


def permuted(shape: Shape, order: Sequence[int]) -> Shape:
    return tuple(shape[axis] for axis in order)


def _starts(rank: int, axes: Sequence[int], steps: Sequence[int], starts: Sequence[Any], sizes: Shape) -> tuple:
    """The NumPy index of a strided box."""
    index: list[Any] = [slice(None)] * rank
    for axis, step, start in zip(axes, steps, starts, strict=True):
        begin = int(start)
        index[axis] = slice(begin, begin + step * max(sizes[axis] - 1, 0) + (1 if sizes[axis] else 0), step)
    return tuple(index)


def _part_shape(at: Attributes, shape: Shape) -> Shape:
    axis, _, count = at
    if shape[axis] % count:
        raise RuntimeError(f"an axis of {shape[axis]} elements has no {count} equal parts")
    return shape[:axis] + (shape[axis] // count,) + shape[axis + 1:]


def _expand_meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x.reshape((1,) * (len(out.shape) - x.ndim) + x.shape), out.shape)


def _slice_meaning(out: Type, at: Attributes, x: np.ndarray, *starts: Any) -> np.ndarray:
    return x[_starts(x.ndim, at[0], at[1], starts, out.shape)]


def _pad_meaning(out: Type, at: Attributes, x: np.ndarray, fill: Any, *starts: Any) -> np.ndarray:
    result = np.full(out.shape, fill, x.dtype)
    result[_starts(x.ndim, at[0], at[1], starts, x.shape)] = x
    return result


def _insert_meaning(out: Type, at: Attributes, base: np.ndarray, x: np.ndarray, *starts: Any) -> np.ndarray:
    result = base.copy()
    result[_starts(x.ndim, at[0], at[1], starts, x.shape)] = x.astype(base.dtype)
    return result


def _of_both(out: Type, at: Attributes, types: Any, a: Interval, b: Interval, *starts: Interval) -> Interval:
    """They are among those of two operands."""
    return hull(a, b)


RESHAPE = define(Op(
    "reshape", Kind.MOVEMENT, None, lambda out, at, x: x.reshape(out.shape),
    (lambda g, out, at, x: g.reshape(x.shape),), bounds=kept,
    document="the same elements in row-major order under other sizes"))
PERMUTE = define(Op(
    "permute", Kind.MOVEMENT, lambda at, operands: Type(permuted(operands[0].shape, at), operands[0].dtype),
    lambda out, at, x: x.transpose(at),
    (lambda g, out, at, x: g.permute(tuple(np.argsort(at).tolist())),), bounds=kept,
    document="attributes: the order of axes"))
EXPAND = define(Op(
    "expand", Kind.MOVEMENT, None, _expand_meaning, (lambda g, out, at, x: g.sum_to(x.shape),), bounds=kept,
    document="axes of size 1, and new leading ones, repeated"))
SLICE = define(Op(
    "slice", Kind.MOVEMENT, None, _slice_meaning,
    (lambda g, out, at, x, *starts: g.pad(x.shape, 0, at[0], at[1], starts),) + (None,) * 32, bounds=kept,
    document="attributes: axes, steps; operands: x and a start for each axis; lengths in the type"))
PAD = define(Op(
    "pad", Kind.MOVEMENT, None, _pad_meaning,
    (lambda g, out, at, x, fill, *starts: g.slice(x.shape, at[0], at[1], starts),) + (None,) * 32,
    bounds=_of_both,
    document="x placed in a larger box: attributes axes, steps; operands x, fill, a start for each axis"))
INSERT = define(Op(
    "insert", Kind.MOVEMENT, None, _insert_meaning,
    (lambda g, out, at, base, x, *starts: g.insert(x.zeros(), at[0], at[1], starts),
     lambda g, out, at, base, x, *starts: g.slice(x.shape, at[0], at[1], starts)) + (None,) * 32, bounds=_of_both,
    document="base with x written over a strided box: attributes axes, steps; operands base, x, starts"))
PART = define(Op(
    "part", Kind.MOVEMENT, lambda at, operands: Type(_part_shape(at, operands[0].shape), operands[0].dtype),
    lambda out, at, x: np.split(x, at[2], at[0])[at[1]],
    (lambda g, out, at, x: g.pad(x.shape, 0, at[:1], (1,), (at[1] * g.shape[at[0]],)),), bounds=kept,
    document="one of equal parts of an axis, which is structure as starts of slices are not: attributes axis, which "
             "part, of how many"))
FLIP = define(Op(
    "flip", Kind.MOVEMENT, lambda at, operands: operands[0], lambda out, at, x: np.flip(x, at),
    (lambda g, out, at, x: g.flip(at),), bounds=kept,
    document="attributes: the axes run backwards"))


def _infer_concatenate(at: Attributes, operands: Sequence[Type]) -> Type:
    (axis,) = at
    first = operands[0].shape
    for number, operand in enumerate(operands):
        for other, (have, want) in enumerate(zip(operand.shape, first, strict=False)):
            if other != axis and have != want:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {want} but got size "
                    f"{have} for tensor number {number} in the list."
                )
    size = sum(operand.shape[axis] for operand in operands)
    dtype = result_type([(Rank.DIMENSIONED, operand.dtype) for operand in operands])
    return Type(first[:axis] + (size,) + first[axis + 1:], dtype)


def _concatenate_rule(position: int) -> Any:
    def rule(g: Any, out: Any, at: Attributes, *operands: Any) -> Any:
        (axis,) = at
        start = sum(operand.shape[axis] for operand in operands[:position])
        return g.slice(operands[position].shape, (axis,), (1,), (start,))

    return rule


MOST_CONCATENATED = 512
CONCATENATE = define(Op(
    "concatenate", Kind.MOVEMENT, _infer_concatenate,
    lambda out, at, *parts: np.concatenate([part.astype(out.dtype.numpy) for part in parts], at[0]),
    tuple(_concatenate_rule(position) for position in range(MOST_CONCATENATED)),
    bounds=of_all, document="attributes: the axis"))


# Windows --------------------------------------------------------------------------------------------------------
# attributes: one (axis, kernel axis, stride, dilation, padding) per windowed axis.



def _window_meaning(out: Type, at: Attributes, x: np.ndarray, fill: Any) -> np.ndarray:
    index = list(np.indices(out.shape, sparse=True))
    valid = np.ones(out.shape, bool)
    for axis, kernel, stride, dilation, padding in at:
        position = index[axis] * stride + index[kernel] * dilation - padding
        valid = valid & (position >= 0) & (position < x.shape[axis])
        index[axis] = np.clip(position, 0, max(x.shape[axis] - 1, 0))
    if not x.size:
        return np.full(out.shape, fill, x.dtype)
    return np.where(valid, x[tuple(index)], np.asarray(fill, x.dtype))


def _unwindow_meaning(out: Type, at: Attributes, x: np.ndarray, fill: Any) -> np.ndarray:
    index = list(np.indices(out.shape, sparse=True))
    valid = np.ones(out.shape, bool)
    for axis, kernel, stride, dilation, padding in at:
        position = index[axis] + padding - index[kernel] * dilation
        valid = valid & (position >= 0) & (position % stride == 0) & (position // stride < x.shape[axis])
        index[axis] = np.clip(position // stride, 0, max(x.shape[axis] - 1, 0))
    if not x.size:
        return np.full(out.shape, fill, x.dtype)
    return np.where(valid, x[tuple(index)], np.asarray(fill, x.dtype))


WINDOW = define(Op(
    "window", Kind.MOVEMENT, None, _window_meaning,
    (lambda g, out, at, x, fill: g.unwindow(x.shape, at, 0), None),
    document="out[.. o .. k ..] = x[.. o·stride + k·dilation − padding .. k ..], the fill outside x"))
UNWINDOW = define(Op(
    "unwindow", Kind.MOVEMENT, None, _unwindow_meaning,
    (lambda g, out, at, x, fill: g.window(x.shape, at, 0), None),
    document="out[.. h .. k ..] = x[.. (h + padding − k·dilation)/stride .. k ..] where that is whole, else the fill"))
ALIAS = define(Op(
    "alias", Kind.MOVEMENT, lambda at, operands: operands[0], lambda out, at, x: x,
    (lambda g, out, at, x: g,), bounds=kept,
    document="the same value under another place on the tape"))
REPLACE = define(Op(
    "replace", Kind.MOVEMENT, lambda at, operands: operands[1], lambda out, at, history, x: x,
    (lambda g, out, at, history, x: g, None), bounds=lambda out, at, types, history, x: x,
    document="the second operand's value with the first operand's history: data written behind autograd's back"))
WRITE = define(Op(
    "write", Kind.MOVEMENT, lambda at, operands: operands[0], lambda out, at, x: x,
    (lambda g, out, at, x: g,), once=True, bounds=kept,
    document="a base written through one of its views: PyTorch lets go of how once gradients have passed"))
FUNCTION = define(Op(
    "function", Kind.MOVEMENT, lambda at, operands: operands[0], lambda out, at, x, *inputs: x, (None,),
    document="the first operand's value; its gradient goes through the user's code to the further operands"))


def elements(shape: Shape) -> int:
    return prod(shape)
