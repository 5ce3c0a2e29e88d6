"""Where views look: through which movement ops, with which strides, from which offset on.

All of it follows from the type and the strides of what is looked at, and is worked out once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, TypeVar

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape, contiguous_strides, infer_view_size, normalize_axis, view_strides
from torturous.ir import movement
from torturous.ir.op import TYPES, Attributes, Op, Type, type_number
from torturous.tensor.base import Step


class Way(NamedTuple):
    """How a view looks at what it is made of: through movement ops, with strides, from an offset on, in elements."""

    steps: tuple[Step, ...]
    strides: Shape
    offset: int = 0


W = TypeVar("W", bound=Way | None)


def planned(plan: Callable[..., W]) -> Callable[..., W]:
    """Plans a kind of view once: `plan` is given the type and strides of what is looked at, and arguments.

    The function that this makes is given the type's number, and None for the strides of row-major memory.
    """
    @lru_cache(1 << 12, typed=True)
    def way(type_index: int, strides: Shape | None, *arguments: Any) -> W:
        kind = TYPES[type_index]
        return plan(kind, contiguous_strides(kind.shape) if strides is None else strides, *arguments)

    return way


def through(op: Op, attributes: Attributes, shape: Sequence[int], dtype: DType, strides: Sequence[int],
            offset: int = 0, starts: Sequence[int] = ()) -> Way:
    """The way through one movement op."""
    return Way((Step(op, attributes, type_number(tuple(shape), dtype), starts),), tuple(strides), offset)


# Shapes -----------------------------------------------------------------------------------------------------
def _to_shape(kind: Type, strides: Shape, wanted: Shape) -> Way | None:
    after = view_strides(kind.shape, strides, wanted)
    return None if after is None else through(movement.RESHAPE, (), wanted, kind.dtype, after)


@planned
def reshaped(kind: Type, strides: Shape, wanted: tuple[int, ...]) -> Way | None:
    """To another shape, one size of which may be −1; None where that would need a copy."""
    return _to_shape(kind, strides, infer_view_size(wanted, prod(kind.shape)))


@planned
def viewed(kind: Type, strides: Shape, wanted: tuple[int, ...]) -> Way:
    """The same; RuntimeError where that would need a copy."""
    shape = infer_view_size(wanted, prod(kind.shape))
    way = _to_shape(kind, strides, shape)
    if way is None:
        raise RuntimeError(
            f"view size {list(shape)} is not compatible with input tensor's size {list(kind.shape)} and "
            f"stride {list(strides)} (at least one dimension spans across two contiguous "
            "subspaces). Use .reshape(...) instead.")
    return way


@planned
def unsqueezed(kind: Type, strides: Shape, dim: int) -> Way:
    """With an axis of size 1 put in."""
    rank = len(kind.shape)
    axis = dim + rank + 1 if dim < 0 else dim
    if not 0 <= axis <= rank:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-rank - 1}, {rank}], but got {dim})")
    stride = kind.shape[axis] * strides[axis] if axis < rank else 1
    return through(movement.RESHAPE, (), (*kind.shape[:axis], 1, *kind.shape[axis:]), kind.dtype,
                   (*strides[:axis], stride, *strides[axis:]))


@planned
def permuted(kind: Type, strides: Shape, dims: tuple[int, ...]) -> Way:
    """With the axes in another order."""
    rank = len(kind.shape)
    if len(dims) != rank:
        raise RuntimeError(
            "permute: number of dimensions in the tensor input does not match the length of "
            f"the desired ordering of dimensions i.e. input.dim() = {rank} is not equal to len(dims) = "
            f"{len(dims)}")
    axes = tuple(normalize_axis(axis, rank) for axis in dims)
    if len(set(axes)) != rank:
        raise RuntimeError(f"permute(): duplicate dims are not allowed, got {list(dims)}")
    return _in_order(kind, strides, axes)


@planned
def transposed(kind: Type, strides: Shape, dim0: int, dim1: int) -> Way:
    """With two axes exchanged."""
    rank = len(kind.shape)
    first, second = normalize_axis(dim0, rank), normalize_axis(dim1, rank)
    order = list(range(rank))
    if rank:
        order[first], order[second] = order[second], order[first]
    return _in_order(kind, strides, tuple(order))


def _in_order(kind: Type, strides: Shape, axes: tuple[int, ...]) -> Way:
    return through(movement.PERMUTE, axes, [kind.shape[a] for a in axes], kind.dtype, [strides[a] for a in axes])


@planned
def expanded(kind: Type, before: Shape, size: tuple[int, ...]) -> Way:
    """With axes of size 1 repeated, and new ones in front; −1 keeps a size."""
    shape, wanted = kind.shape, list(size)
    lead = len(wanted) - len(shape)
    if lead < 0:
        raise RuntimeError(
            f"expand({list(shape)}, size={wanted}): the number of sizes provided ({len(wanted)}) "
            f"must be greater or equal to the number of dimensions in the tensor ({len(shape)})")
    strides = [0] * len(wanted)
    for axis in reversed(range(len(wanted))):
        have = shape[axis - lead] if axis >= lead else 1
        if axis >= lead:
            stride = before[axis - lead]
        else:
            stride = wanted[axis + 1] * strides[axis + 1] if axis + 1 < len(wanted) else 1
        if wanted[axis] == -1 and axis >= lead:
            wanted[axis] = have
        if wanted[axis] < 0:
            raise RuntimeError(
                f"The expanded size of the tensor ({wanted[axis]}) isn't allowed in a leading, "
                f"non-existing dimension {axis}")
        if wanted[axis] != have and have != 1:
            raise RuntimeError(
                f"The expanded size of the tensor ({wanted[axis]}) must match the existing size ({have}) "
                f"at non-singleton dimension {axis}. Target sizes: {wanted}. Tensor sizes: "
                f"{list(shape)}")
        strides[axis] = stride if wanted[axis] == have else 0
    op = movement.RESHAPE if prod(wanted) == prod(shape) else movement.EXPAND
    return through(op, (), wanted, kind.dtype, strides)  # Where nothing repeats, a reshape: that can be written.


@planned
def sliced(kind: Type, strides: Shape, axis: int, start: int, stop: int, step: int) -> Way:
    """Places start, start + step, … of an axis."""
    length = max(0, -(-(stop - start) // step))
    shape, after = list(kind.shape), list(strides)
    shape[axis] = length
    after[axis] *= step
    return through(movement.SLICE, ((axis,), (step,)), shape, kind.dtype, after, start * strides[axis],
                   (start if length else 0,))


@planned
def selected(kind: Type, strides: Shape, axis: int, index: int) -> Way:
    """One place of an axis, which vanishes."""
    size = kind.shape[axis]
    if not -size <= index < size:
        raise IndexError(
            f"index {index} is out of bounds for dimension {axis} with size {size} (shape "
            f"{list(kind.shape)})")
    place = index % size
    before, after = kind.shape[:axis], kind.shape[axis + 1:]
    slice_type = type_number((*before, 1, *after), kind.dtype)
    steps = (Step(movement.SLICE, ((axis,), (1,)), slice_type, (place,)),
             Step(movement.RESHAPE, (), type_number((*before, *after), kind.dtype)))
    return Way(steps, (*strides[:axis], *strides[axis + 1:]), place * strides[axis])
