"""Arithmetic of shapes: broadcasting, axes, strides, and the errors they can raise."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Shape = tuple[int, ...]


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The common shape of several operands, right-aligned; raises RuntimeError naming the axis at fault."""
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        lead = rank - len(shape)
        for axis, size in enumerate(shape):
            have = result[lead + axis]
            if size == have or size == 1:
                continue
            if have != 1:
                raise RuntimeError(
                    f"The size of tensor a ({have}) must match the size of tensor b ({size}) "
                    f"at non-singleton dimension {lead + axis} (shapes {', '.join(map(describe, shapes))})"
                )
            result[lead + axis] = size
    return tuple(result)


def describe(shape: Shape) -> str:
    return str(list(shape))


def normalize_axis(axis: int, rank: int) -> int:
    """A possibly negative axis as one of 0 … rank−1 (a 0-d tensor counts as having one axis)."""
    span = max(rank, 1)
    if not -span <= axis < span:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got {axis})"
        )
    return axis + span if axis < 0 else axis


def normalize_axes(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes of a reduction in rising order; None or an empty sequence means all of them."""
    if axes is None:
        return tuple(range(rank))
    if isinstance(axes, int):
        axes = (axes,)
    if not axes:
        return tuple(range(rank))
    result = [normalize_axis(axis, rank) for axis in axes]
    if len(set(result)) != len(result):
        repeated = next(axis for axis in result if result.count(axis) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    return tuple(sorted(result)) if rank else ()


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides in elements; axes of size 0 count as 1, as in PyTorch."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def is_contiguous(shape: Shape, strides: Shape) -> bool:
    if 0 in shape:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def infer_view_size(sizes: Sequence[int], count: int) -> Shape:
    """Resolves one −1 in the sizes given to `view` or `reshape` for a tensor of `count` elements."""
    unknown = [axis for axis, size in enumerate(sizes) if size == -1]
    if len(unknown) > 1:
        raise RuntimeError("only one dimension can be inferred")
    for size in sizes:
        if size < -1:
            raise RuntimeError(f"invalid shape dimension {size}")
    known = prod(size for size in sizes if size != -1)
    if unknown:
        if known == 0:
            raise RuntimeError(
                f"cannot reshape tensor of {count} elements into shape {list(sizes)} because the unspecified "
                "dimension size -1 can be any value and is ambiguous"
            )
        if count % known == 0:
            result = list(sizes)
            result[unknown[0]] = count // known
            return tuple(result)
    elif known == count:
        return tuple(sizes)
    raise RuntimeError(f"shape '{list(sizes)}' is invalid for input of size {count}")


def view_strides(shape: Shape, strides: Shape, new_shape: Shape) -> Shape | None:
    """Strides with which `new_shape` can look at the same memory, or None where it would need a copy."""
    count = prod(shape)
    if count == 0:
        return strides if shape == new_shape else contiguous_strides(new_shape)
    old = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    # Runs of axes that lie in memory as one: (elements in the run, innermost stride), outermost first.
    runs: list[tuple[int, int]] = []
    for size, stride in old:
        if runs and runs[-1][1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
    result = [0] * len(new_shape)
    axis = len(new_shape) - 1
    for elements, innermost in reversed(runs):
        stride, left = innermost, elements
        while axis >= 0 and left > 1:
            size = new_shape[axis]
            if left % size:
                return None
            result[axis] = stride
            stride *= size
            left //= size
            axis -= 1
        if left != 1:
            return None
        while axis >= 0 and new_shape[axis] == 1:
            result[axis] = stride
            axis -= 1
    while axis >= 0:
        if new_shape[axis] != 1:
            return None
        result[axis] = result[axis + 1] * new_shape[axis + 1] if axis + 1 < len(new_shape) else 1
        axis -= 1
    return tuple(result)
