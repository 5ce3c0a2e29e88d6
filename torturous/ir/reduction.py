"""Reductions, and the order in which a sum is taken.

Bits belong to the op: adjacent reduced axes are merged into runs. The *inner* run is the last one, the others are
the *outer* ones. Elements are taken in steps of LANES along the inner run (step s of outer index o covers inner
elements LANES·s …), BLOCK steps make a block. Within a block lane l adds up its elements in order; the lanes are
combined pairwise (l with l+8, +4, +2, +1); block results are combined by the same scheme. Every accumulator starts
from the op's identity (+0 for a sum, which makes elements that are not there free to add or to skip). All of it is a
function of the reduction's extents alone, so threads, layouts and fusion cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category, DType
from torturous.core.intervals import Interval
from torturous.core.shapes import Shape
from torturous.ir.op import Attributes, Kind, Op, Type, define

LANES = 16
BLOCK = 256


def reduced_shape(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    if keep:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def merged_runs(axes: Sequence[int]) -> list[list[int]]:
    """Reduced axes (rising) grouped into runs of neighbours."""
    runs: list[list[int]] = []
    for axis in axes:
        if runs and runs[-1][-1] == axis - 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def ordered_runs(axes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Reduced axes (rising) as outer axes and the axes of the inner run."""
    *outer, inner = merged_runs(axes) or [[]]
    return [axis for run in outer for axis in run], inner


def accumulator(dtype: DType) -> DType:
    """The type a reduction over values of this type accumulates in."""
    return dtypes.float32 if dtype.is_half else dtype


def ordered(x: np.ndarray, axes: Sequence[int], combine: Any, identity: Any) -> np.ndarray:
    """A reduction in the order that the module's text defines; the result has the kept axes only."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    outer_axes, inner_axes = ordered_runs(axes)
    inner = prod(x.shape[axis] for axis in inner_axes)
    outer = prod(x.shape[axis] for axis in outer_axes)
    shape = tuple(x.shape[axis] for axis in kept)
    flat = x.transpose(kept + outer_axes + inner_axes).reshape((prod(shape), outer, inner))
    chunks = -(-inner // LANES)
    flat = _filled(flat, 2, chunks * LANES, identity).reshape(flat.shape[0], outer * chunks, LANES)
    blocks = -(-flat.shape[1] // BLOCK)
    flat = _filled(flat, 1, blocks * BLOCK, identity).reshape(flat.shape[0], blocks, BLOCK, LANES)
    with np.errstate(all="ignore"):
        partial = _lanes(flat, 2, combine, identity)
        steps = -(-blocks // LANES)
        partial = _filled(partial, 1, steps * LANES, identity).reshape(partial.shape[0], steps, LANES)
        return _lanes(partial, 1, combine, identity).reshape(shape)


def _filled(x: np.ndarray, axis: int, size: int, identity: Any) -> np.ndarray:
    if x.shape[axis] == size:
        return x
    shape = list(x.shape)
    shape[axis] = size - x.shape[axis]
    return np.concatenate([x, np.full(shape, identity, x.dtype)], axis)


def _lanes(x: np.ndarray, axis: int, combine: Any, identity: Any) -> np.ndarray:
    """Adds up along `axis` in order, then across the last axis's lanes pairwise."""
    total = np.full(x.shape[:axis] + x.shape[axis + 1:], identity, x.dtype)
    for step in range(x.shape[axis]):
        total = combine(total, x.take(step, axis))
    half = LANES // 2
    while half:
        total = combine(total[..., :half], total[..., half:])
        half //= 2
    return total[..., 0]


def _infer_same(at: Attributes, operands: Sequence[Type]) -> Type:
    axes, keep = at
    return Type(reduced_shape(operands[0].shape, axes, keep), operands[0].dtype)


def _infer_sum(at: Attributes, operands: Sequence[Type]) -> Type:
    axes, keep = at
    dtype = operands[0].dtype
    return Type(reduced_shape(operands[0].shape, axes, keep), dtype if dtype.is_floating_point else dtypes.int64)


def _infer_logic(at: Attributes, operands: Sequence[Type]) -> Type:
    axes, keep = at
    return Type(reduced_shape(operands[0].shape, axes, keep), dtypes.bool_)


def _infer_index(at: Attributes, operands: Sequence[Type]) -> Type:
    axes, keep = at
    return Type(reduced_shape(operands[0].shape, axes, keep), dtypes.int64)


def lowest(dtype: DType) -> Any:
    if dtype.category is Category.FLOATING:
        return -np.inf
    return False if dtype.category is Category.BOOL else int(np.iinfo(dtype.numpy).min)


def highest(dtype: DType) -> Any:
    if dtype.category is Category.FLOATING:
        return np.inf
    return True if dtype.category is Category.BOOL else int(np.iinfo(dtype.numpy).max)


def _meaning(combine: Any, identity: Any) -> Any:
    def meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
        axes, _ = at
        x = x.astype(accumulator(out.dtype).numpy)
        start = identity(out.dtype) if callable(identity) else identity
        return ordered(x, axes, combine, start).reshape(out.shape).astype(out.dtype.numpy)

    return meaning


def _extreme_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    """Equal extremes share the gradient evenly (PyTorch's amax and amin)."""
    axes, keep = at
    shape = reduced_shape(x.shape, axes, True)
    chosen = x.eq(out.reshape(shape)).to(x.dtype)
    return chosen * (g.reshape(shape) / chosen.sum(axes, True))


def _product_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    """The product of the others: with the zeros left out of it where there are any, and multiplied in again as
    themselves, so that it is right with zeros too, and so is its own gradient.
    """
    axes, keep = at
    shape = reduced_shape(x.shape, axes, True)
    zero = x.eq(0.0)
    zeros = zero.to(x.dtype).sum(axes, True)
    present = zero.where(x, 0.0).sum(axes, True)
    others = zero.where(1.0, x)
    rest = others.prod(axes, True)
    of_zero = zeros.eq(1.0).where(rest, zeros.eq(2.0).where((present - x) * rest, 0.0))
    of_other = zeros.eq(0.0).where(1.0, zeros.eq(1.0).where(present, 0.0)) * (rest / others)
    return g.reshape(shape) * zero.where(of_zero, of_other)


SUM = define(Op(
    "sum", Kind.REDUCE, _infer_sum, _meaning(np.add, 0),
    (lambda g, out, at, x: g.reshape(reduced_shape(x.shape, at[0], True)).expand(x.shape),),
    document="attributes: axes, keep; floats keep their type, integers and bool give int64"))
PROD = define(Op("prod", Kind.REDUCE, _infer_sum, _meaning(np.multiply, 1), (_product_rule,), saves=(0,)))
AMAX = define(Op("amax", Kind.REDUCE, _infer_same, _meaning(np.maximum, lowest), (_extreme_rule,), saves=(0, -1)))
AMIN = define(Op("amin", Kind.REDUCE, _infer_same, _meaning(np.minimum, highest), (_extreme_rule,), saves=(0, -1)))


def _index_meaning(of: Any) -> Any:
    def meaning(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
        axes, _ = at
        kept = [axis for axis in range(x.ndim) if axis not in axes]
        flat = x.transpose(kept + list(axes)).reshape([x.shape[axis] for axis in kept] + [-1])
        return of(flat.astype(np.float32) if flat.dtype.itemsize == 2 else flat, -1).reshape(out.shape)

    return meaning


def _places(out: Type, at: Attributes, types: Sequence[Type], x: Interval) -> Interval:
    return 0, max(prod(types[0].shape[axis] for axis in at[0]) - 1, 0)


ARGMAX = define(Op("argmax", Kind.REDUCE, _infer_index, _index_meaning(np.argmax), bounds=_places,
                   document="position in the merged reduced axes; the first of equals, or the first NaN"))
ARGMIN = define(Op("argmin", Kind.REDUCE, _infer_index, _index_meaning(np.argmin), bounds=_places))
ANY = define(Op("any", Kind.REDUCE, _infer_logic, lambda out, at, x: x.any(at[0]).reshape(out.shape)))
ALL = define(Op("all", Kind.REDUCE, _infer_logic, lambda out, at, x: x.all(at[0]).reshape(out.shape)))
