"""Taking tensors apart: several views of one tensor, side by side along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import index as whole
from typing import TYPE_CHECKING

from torturous.core.shapes import normalize_axis
from torturous.tensor.movement import Movement, as_function

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


class Splitting(Movement):
    """Methods that give several views, each of which may be written in place, tracked or not."""

    __slots__ = ()

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """A view for each place of an axis."""
        axis = normalize_axis(dim, len(self.shape))
        if not self.shape:
            raise IndexError("Dimension specified as 0 but tensor has no dimensions")
        return tuple(self.selected(axis, place) for place in range(self.shape[axis]))

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Views of `split_size` places each (the last may be smaller), or of the listed numbers of places."""
        if not self.shape:
            raise RuntimeError("split expects at least a 1-dimensional tensor")
        axis = normalize_axis(dim, len(self.shape))
        size = self.shape[axis]
        if isinstance(split_size, int):
            if split_size < 0 or (split_size == 0 and size):
                raise RuntimeError(
                    f"split_size can only be 0 if dimension size is 0, and is never negative: got split_size="
                    f"{split_size} for dimension {axis} of size {size}")
            starts = list(range(0, size, split_size)) if size else [0]
            return tuple(self.sliced(axis, start, min(start + split_size, size), 1) for start in starts)
        parts = [whole(part) for part in split_size]
        if any(part < 0 for part in parts) or sum(parts) != size:
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at "
                f"dimension {axis}) and to be non-negative, but got split_sizes={parts}")
        ends = list(accumulate(parts))
        return tuple(self.sliced(axis, end - part, end, 1) for end, part in zip(ends, parts, strict=True))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most `chunks` views of equal size, the last perhaps smaller."""
        if not self.shape:
            raise RuntimeError("chunk expects at least a 1-dimensional tensor")
        if chunks <= 0:
            raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
        axis = normalize_axis(dim, len(self.shape))
        size = -(-self.shape[axis] // chunks)
        if size == 0:
            return tuple(self.sliced(axis, 0, 0, 1) for _ in range(chunks))
        return self.split(size, axis)

    def tensor_split(self, indices_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """So many parts as equal as can be, or parts between the given places (taken as in slicing)."""
        if not self.shape:
            raise RuntimeError(
                "tensor_split expected at least a 1-dimensional tensor, but got a 0-dim tensor")
        axis = normalize_axis(dim, len(self.shape))
        size = self.shape[axis]
        if isinstance(indices_or_sections, int):
            sections = indices_or_sections
            if sections <= 0:
                raise RuntimeError(f"number of sections must be larger than 0, got {sections}")
            small, larger = divmod(size, sections)
            places = [small * k + min(k, larger) for k in range(1, sections)]
        else:
            places = [whole(place) for place in indices_or_sections]
        parts, start = [], 0
        for place in [*places, size]:
            begin, end, _ = slice(start, place).indices(size)
            parts.append(self.sliced(axis, begin, end, 1))
            start = place
        return tuple(parts)

    def split_with_sizes(self, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Parts of the given sizes."""
        return self.split(list(split_sizes), dim)

    def hsplit(self, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        """`tensor_split` of columns, or of a vector; a number of sections must divide them evenly."""
        if not self.shape:
            raise RuntimeError(
                "torch.hsplit requires a tensor with at least 1 dimension, but got a tensor with 0 dimensions!")
        return self._evenly("hsplit", indices_or_sections, 0 if len(self.shape) == 1 else 1)

    def vsplit(self, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        """`tensor_split` of rows; a number of sections must divide them evenly."""
        if len(self.shape) < 2:
            raise RuntimeError("torch.vsplit requires a tensor with at least 2 dimension, but got a tensor with "
                               f"{len(self.shape)} dimensions!")
        return self._evenly("vsplit", indices_or_sections, 0)

    def dsplit(self, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
        """`tensor_split` along the third axis; a number of sections must divide it evenly."""
        if len(self.shape) < 3:
            raise RuntimeError("torch.dsplit requires a tensor with at least 3 dimension, but got a tensor with "
                               f"{len(self.shape)} dimensions!")
        return self._evenly("dsplit", indices_or_sections, 2)

    def _evenly(self, name: str, parts: int | Sequence[int], axis: int) -> tuple[Tensor, ...]:
        if isinstance(parts, int) and (parts <= 0 or self.shape[axis] % parts):
            raise RuntimeError(f"torch.{name} attempted to split along dimension {axis}, but the size of the dimension "
                               f"{self.shape[axis]} is not divisible by the split_size {parts}!")
        return self.tensor_split(parts, axis)


chunk = as_function(Splitting.chunk)
dsplit = as_function(Splitting.dsplit)
hsplit = as_function(Splitting.hsplit)
split_with_sizes = as_function(Splitting.split_with_sizes)
vsplit = as_function(Splitting.vsplit)
split = as_function(Splitting.split)
tensor_split = as_function(Splitting.tensor_split)
unbind = as_function(Splitting.unbind)

FUNCTIONS = ("chunk", "dsplit", "hsplit", "split", "split_with_sizes", "tensor_split", "unbind", "vsplit")
"""Names that the package offers as functions."""

__all__ = ["Splitting", *FUNCTIONS]
