"""Arrays whose elements do not lie row-major, as tensors that share their memory.

The memory is seen as a row-major array of which the elements are a box, its axes in another order: then a
chain of views (slice, permute, expand) leads to the elements, and writing through them works like any other
in-place write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

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
            "At least one stride in the given numpy array is negative, and tensors with negative strides are "
            "not currently supported. (You can make a copy of the array with array.copy().)"
        )
    if any(stride % item for stride in array.strides):
        raise ValueError(
            f"given numpy array strides {array.strides} are not a multiple of the element size, {item} "
            "bytes; copy it"
        )
    strides = [stride // item for stride in array.strides]
    before, behind = _room(array)
    box = _Box.find(array.shape, strides, before, behind)
    if box is None:
        raise UnsupportedError(
            f"from_numpy: an array of shape {array.shape} with strides of {tuple(strides)} elements is no "
            "box of row-major memory; use array.copy()"
        )
    memory = np.asarray(_Around(array, box.back, prod(box.extents))).reshape(box.extents)
    storage = Storage.of(tuple(box.extents), dtype, Buffer.wrap(memory))
    storage.foreign = storage.buffer
    return box.elements(TensorBase._make(storage, storage.type_index))


def strided_view(memory: Tensor, shape: Sequence[int], strides: Sequence[int], offset: int) -> Tensor:
    """A view of one-dimensional memory by strides in elements. UnsupportedError where that is no box in it."""
    box = _Box.find(shape, strides, offset, memory.numel() - offset)
    if box is None:
        raise UnsupportedError(f"a tensor of shape {tuple(shape)} with strides {tuple(strides)} is no box of row-major "
                               "memory")
    begin = offset - box.back
    return box.elements(memory.sliced(0, begin, begin + prod(box.extents), 1).view(box.extents))


class _Box(NamedTuple):
    """Elements as a box in row-major memory."""

    shape: Sequence[int]
    order: list[int]
    """The axes that step through memory, the largest steps first; the others are repetitions or single."""
    extents: list[int]
    """Of the memory, which begins `back` elements before the first one."""
    steps: list[int]
    starts: list[int]
    back: int

    @staticmethod
    def find(shape: Sequence[int], strides: Sequence[int], before: int, behind: int) -> _Box | None:
        """One within so many elements before the first element, and from there on."""
        stepping = [axis for axis in range(len(shape)) if shape[axis] > 1 and strides[axis] > 0]
        order = sorted(stepping, key=lambda axis: -strides[axis])
        for extents, steps in _grids([shape[axis] for axis in order], [strides[axis] for axis in order]):
            back = max(0, prod(extents) - behind)
            starts = _digits(back, extents)
            if back <= before and all(
                    start + (shape[axis] - 1) * step < extent
                    for start, axis, step, extent in zip(starts, order, steps, extents, strict=True)):
                return _Box(shape, order, extents, steps, starts, back)
        return None

    def elements(self, memory: Any) -> Tensor:
        """The elements, given the memory."""
        t = memory
        for axis, (source, start) in enumerate(zip(self.order, self.starts, strict=True)):
            stop = start + (self.shape[source] - 1) * self.steps[axis] + 1
            t = t.sliced(axis, start, stop, self.steps[axis])
        # Back to the elements' own order of axes, with the axes of one place or repeated ones put in.
        t = t.permute(sorted(range(len(self.order)), key=self.order.__getitem__)) if self.order else t
        for axis in range(len(self.shape)):
            if axis not in self.order:
                t = t.unsqueeze(axis)
        return t.expand(self.shape)


def _grids(sizes: list[int], strides: list[int], block: int = 1) -> Iterator[tuple[list[int], list[int]]]:
    """Ways to see memory as row-major so that steps along its axes are these strides: extents, and those
    steps.

    Given the largest strides first. The last axis that is given moves by a multiple of `block` elements.
    """
    if not sizes:
        yield [], []
        return
    step, rest = divmod(strides[-1], block)
    if rest:
        return
    needed = (sizes[-1] - 1) * step + 1
    if len(sizes) == 1:
        yield [needed], [step]
        return
    room = strides[-2] // block
    for extent in range(needed, room + 1):
        if room % extent == 0:
            for extents, steps in _grids(sizes[:-1], strides[:-1], block * extent):
                yield [*extents, extent], [*steps, step]


def _room(array: np.ndarray) -> tuple[int, int]:
    """How many elements the array's owner has before its first element, and from there on."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    reach = [stride * (size - 1) for stride, size in zip(owner.strides, owner.shape, strict=True)]
    first = owner.__array_interface__["data"][0]
    low = first + sum(min(0, step) for step in reach)
    high = first + sum(max(0, step) for step in reach) + owner.itemsize
    here = array.__array_interface__["data"][0]
    return (here - low) // array.itemsize, (high - here) // array.itemsize


def _digits(offset: int, extents: list[int]) -> list[int]:
    """An offset in row-major memory as a place along each axis."""
    places: list[int] = []
    for extent in reversed(extents):
        offset, place = divmod(offset, extent)
        places.insert(0, place)
    return places


class _Around:
    """Memory that begins `back` elements before an array, kept alive by the array."""

    def __init__(self, array: np.ndarray, back: int, count: int) -> None:
        self.array = array
        address = array.__array_interface__["data"][0] - back * array.itemsize
        self.__array_interface__ = {
            "data": (address, False), "shape": (count,), "typestr": array.dtype.str, "version": 3}


__all__ = ["shared_view", "strided_view"]
