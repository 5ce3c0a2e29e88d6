"""Arrays whose elements do not lie row-major, as tensors that share their memory.

The memory is seen as a row-major array of which the elements are a box, its axes in another order: then a chain of
views (slice, permute, expand) leads to the elements, and writing through them works like any other in-place write.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.runtime.buffers import Buffer
from torturous.runtime.storage import Storage
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def shared_view(array: np.ndarray, dtype: DType) -> Tensor:
    """A tensor over a strided array's memory. ValueError for strides that PyTorch rejects too."""
    item = array.itemsize
    if any(stride < 0 for stride in array.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative strides are not "
            "currently supported. (You can make a copy of the array with array.copy().)")
    if any(stride % item for stride in array.strides):
        raise ValueError(
            f"given numpy array strides {array.strides} are not a multiple of the element size, {item} bytes; copy it")
    strides = [stride // item for stride in array.strides]
    # Axes that step through memory, the largest steps first; the others are repetitions or single.
    stepping = [axis for axis in range(array.ndim) if array.shape[axis] > 1 and strides[axis] > 0]
    order = sorted(stepping, key=lambda axis: -strides[axis])
    extents, steps = _grid([array.shape[axis] for axis in order], [strides[axis] for axis in order])
    memory, starts = _memory(array, order, extents, strides)
    storage = Storage(tuple(extents), dtype, Buffer.wrap(memory))
    storage.foreign = storage.buffer
    t: Any = TensorBase._make(storage, storage.type_index)
    for axis, (source, start) in enumerate(zip(order, starts, strict=True)):
        stop = start + (array.shape[source] - 1) * steps[axis] + 1
        t = t.sliced(axis, start, stop, steps[axis])
    # Back to the array's order of axes, with the axes of one place or repeated ones put in.
    t = t.permute(sorted(range(len(order)), key=order.__getitem__)) if order else t
    for axis in range(array.ndim):
        if axis not in stepping:
            t = t.unsqueeze(axis)
    return t.expand(array.shape)


def _grid(sizes: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """Extents of row-major memory in which steps along its axes are these strides, and those steps."""
    extents, steps = [], []
    block = 1
    for position in range(len(sizes) - 1, -1, -1):
        step, rest = divmod(strides[position], block)
        needed = (sizes[position] - 1) * step + 1
        if rest:
            raise _irregular(strides)
        extent = needed
        if position:
            extent, rest = divmod(strides[position - 1], block)
            if rest or extent < needed:
                raise _irregular(strides)
        extents.insert(0, extent)
        steps.insert(0, step)
        block *= extent
    return extents, steps


def _memory(array: np.ndarray, order: list[int], extents: list[int],
            strides: list[int]) -> tuple[np.ndarray, list[int]]:
    """The row-major memory around an array, and where in it the array starts along each axis.

    The memory must belong to the array's owner: where its end would lie beyond, it begins before the first element.
    """
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    item = array.itemsize
    first = array.__array_interface__["data"][0]
    low = owner.__array_interface__["data"][0]
    low += sum(min(0, stride * (size - 1)) for stride, size in zip(owner.strides, owner.shape, strict=True))
    high = low + item * (1 + sum(abs(stride) // item * (size - 1)
                                 for stride, size in zip(owner.strides, owner.shape, strict=True)))
    count = prod(extents)
    back = max(0, -(-(first + count * item - high) // item))
    starts, left, block = [], back, count
    for extent in extents:
        block //= extent
        starts.append(left // block)
        left %= block
    inside = first - back * item >= low and all(
        start + (array.shape[axis] - 1) * (strides[axis] // _inner(extents, k)) < extents[k]
        for k, (start, axis) in enumerate(zip(starts, order, strict=True)))
    if not inside:
        raise _irregular(strides)
    offset = np.lib.stride_tricks.as_strided(array, (1,) * max(array.ndim, 1), (item,) * max(array.ndim, 1))
    around = _Around(offset, first - back * item, count, array.dtype)
    return np.asarray(around).reshape(extents), starts


def _inner(extents: list[int], axis: int) -> int:
    return prod(extents[axis + 1:])


class _Around:
    """Memory near an array, kept alive by the array."""

    def __init__(self, array: np.ndarray, address: int, count: int, dtype: np.dtype) -> None:
        self.array = array
        self.__array_interface__ = {
            "data": (address, False), "shape": (count,), "typestr": dtype.str, "version": 3}


def _irregular(strides: list[int]) -> Exception:
    return UnsupportedError(
        f"from_numpy: an array with strides of {strides} elements is no box of row-major memory; use array.copy()")


__all__ = ["shared_view"]
