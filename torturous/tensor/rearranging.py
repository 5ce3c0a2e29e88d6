"""Rearranged copies: elements in another order or several times over. None shares memory with its input."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import index as whole
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core.dtypes import Category
from torturous.core.shapes import normalize_axis
from torturous.ir import indexing, movement
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.movement import Movement, as_function, sizes
from torturous.tensor.positions import index_tensor
from torturous.tensor.values import computed_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


class Rearranging(Movement):
    """Methods that copy elements to other places."""

    __slots__ = ()

    # Repetition ---------------------------------------------------------------------------------------------
    def repeat(self, *repeats: Any) -> Tensor:
        """Copies laid side by side, so often along each axis (new leading axes included)."""
        times = sizes(repeats)
        lead = len(times) - len(self.shape)
        if lead < 0:
            raise RuntimeError(
                "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor: "
                f"{list(times)} for shape {list(self.shape)}")
        if any(count < 0 for count in times):
            raise RuntimeError(f"Trying to create tensor with negative dimension: repeat({list(times)})")
        shape = (1,) * lead + tuple(self.shape)
        apart = tuple(size for pair in zip((1,) * len(shape), shape, strict=True) for size in pair)
        spread = tuple(size for pair in zip(times, shape, strict=True) for size in pair)
        wide = apply_typed(movement.EXPAND, spread, self.dtype, self.reshape(apart))
        merged = tuple(count * size for count, size in zip(times, shape, strict=True))
        return apply_typed(movement.RESHAPE, merged, self.dtype, wide)

    def tile(self, *dims: Any) -> Tensor:
        """`repeat`, but with ones put in front of too few counts."""
        times = sizes(dims)
        return self.repeat((1,) * (len(self.shape) - len(times)) + times)

    def diag(self, diagonal: int = 0) -> Tensor:
        """The diagonal of a matrix, or the matrix with a vector on its diagonal and zeros elsewhere."""
        rank = len(self.shape)
        if rank == 2:
            return self.diagonal(diagonal).clone()
        if rank != 1:
            raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {rank}D")
        size = self.shape[0] + abs(diagonal)
        start = diagonal if diagonal >= 0 else -diagonal * size
        flat = apply_typed(movement.PAD, (size * size,), self.dtype, self, 0, start if self.shape[0] else 0,
                           attributes=((0,), (size + 1,)))
        return apply_typed(movement.RESHAPE, (size, size), self.dtype, flat)

    # Order --------------------------------------------------------------------------------------------------
    def flip(self, *dims: Any) -> Tensor:
        """A copy with axes run backwards."""
        rank = len(self.shape)
        axes = tuple(normalize_axis(axis, rank) for axis in sizes(dims))
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"dim appears multiple times in the list of dims: flip({list(dims)})")
        if not rank or not axes:
            return self.clone()
        return apply(movement.FLIP, self, attributes=tuple(sorted(axes)))

    def fliplr(self) -> Tensor:
        if len(self.shape) < 2:
            raise RuntimeError("Input must be >= 2-d.")
        return self.flip(1)

    def flipud(self) -> Tensor:
        if not self.shape:
            raise RuntimeError("Input must be >= 1-d.")
        return self.flip(0)

    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
        """A copy turned k times by 90° from the first of two axes towards the second."""
        rank = len(self.shape)
        if len(dims) != 2:
            raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
        if rank < 2:
            raise RuntimeError(f"expected total dims >= 2, but got total dims = {rank}")
        first, second = (normalize_axis(axis, rank) for axis in dims)
        if first == second:
            raise RuntimeError(
                f"expected rotation dims to be different, but got dim0 = {first} and dim1 = {second}")
        turns = k % 4
        if turns == 0:
            return self.clone()
        if turns == 2:
            return self.flip(first, second)
        return self.flip(second if turns == 1 else first).transpose(first, second).clone()

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """A copy with elements moved along axes, those that leave at the end coming in at the start.

        Without dims the flat tensor is rolled.
        """
        steps = [shifts] if isinstance(shifts, int) else [whole(shift) for shift in shifts]
        axes = [] if dims is None else [dims] if isinstance(dims, int) else list(dims)
        if not axes and len(steps) == 1:
            return self.reshape(-1).roll(steps, 0).reshape(tuple(self.shape))
        if len(steps) != len(axes) or not steps:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(steps)}, dims:{len(axes)}")
        if not self.shape:
            raise IndexError(f"Dimension specified as {axes[0]} but tensor has no dimensions")
        t: Any = self
        for shift, dim in zip(steps, axes, strict=True):
            axis = normalize_axis(dim, len(self.shape))
            size = t.shape[axis]
            away = shift % size if size else 0
            if away:
                parts = t.sliced(axis, size - away, size, 1), t.sliced(axis, 0, size - away, 1)
                t = apply(movement.CONCATENATE, *parts, attributes=(axis,))
        return t.clone() if t is self else t

    def repeat_interleave(self, repeats: int | TensorBase, dim: int | None = None, *,
                          output_size: int | None = None) -> Tensor:
        """Every place of an axis so many times in a row; `repeats` may have a number for each place.

        Without dim the flat tensor is meant. `output_size`, the sum of repeats, is checked.
        """
        if dim is None:
            return self.reshape(-1).repeat_interleave(repeats, 0, output_size=output_size)
        t: Any = self
        if not self.shape:
            raise IndexError("repeat_interleave(): a tensor without dimensions has none to repeat along; leave dim out")
        axis = normalize_axis(dim, len(self.shape))
        size = t.shape[axis]
        if isinstance(repeats, TensorBase) and prod(repeats.shape) != 1:
            if repeats.dtype.category is not Category.INTEGRAL or len(repeats.shape) > 1:
                raise RuntimeError(
                    f"repeats must be 0-dim or 1-dim and of integers, got {repeats.dtype} of shape "
                    f"{list(repeats.shape)}")
            if repeats.shape[0] != size:
                raise RuntimeError(
                    f"repeats must have the same size as input along dim, but got repeats.size(0) = "
                    f"{repeats.shape[0]} and input.size({axis}) = {size}")
            counts = computed_values(repeats)
        else:
            one = repeats if isinstance(repeats, int) else int(computed_values(repeats).reshape(()))
            counts = np.full(size, one)
        if (counts < 0).any():
            raise RuntimeError("repeats can not be negative")
        if output_size is not None and output_size != counts.sum():
            raise RuntimeError(
                f"allocated size does not match required size: {output_size} and {counts.sum()}")
        if size and (counts == counts[0]).all():
            count = int(counts[0])
            lead, rest = tuple(t.shape[:axis + 1]), tuple(t.shape[axis + 1:])
            wide = apply_typed(movement.EXPAND, (*lead, count, *rest), t.dtype, t.reshape(*lead, 1, *rest))
            return apply_typed(movement.RESHAPE, (*lead[:-1], size * count, *rest), t.dtype, wide)
        places = index_tensor(np.repeat(np.arange(size), counts))
        return apply(indexing.TAKE, t, places, attributes=(axis,))

    # Parts written over -------------------------------------------------------------------------------------
    def _written(self, view: Any, src: TensorBase) -> Tensor:
        """A copy with `src` in place of what a view of it shows."""
        copy = self.clone()
        part = view(copy)
        if tuple(part.shape) != tuple(src.shape):
            raise RuntimeError("expected src to have a size equal to the slice of self. src size = "
                               f"{list(src.shape)}, slice size = {list(part.shape)}")
        part.copy_(src)
        return copy

    def select_scatter(self, src: TensorBase, dim: int, index: int) -> Tensor:
        """A copy with `src` at one place of an axis."""
        return self._written(lambda t: t.select(dim, index), src)

    def slice_scatter(self, src: TensorBase, dim: int = 0, start: int | None = None, end: int | None = None,
                      step: int = 1) -> Tensor:
        """A copy with `src` over a slice of an axis."""
        axis = normalize_axis(dim, len(self.shape))
        return self._written(lambda t: t[(slice(None),) * axis + (slice(start, end, step),)], src)

    def diagonal_scatter(self, src: TensorBase, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """A copy with `src` over a diagonal."""
        return self._written(lambda t: t.diagonal(offset, dim1, dim2), src)


# Functions --------------------------------------------------------------------------------------------------
def flip(input: TensorBase, dims: Sequence[int]) -> Tensor:
    """`input.flip(dims)`."""
    return input.flip(tuple(dims))  # type: ignore[attr-defined]


def tile(input: TensorBase, dims: Sequence[int]) -> Tensor:
    """`input.tile(dims)`."""
    return input.tile(tuple(dims))  # type: ignore[attr-defined]


diagonal_scatter = as_function(Rearranging.diagonal_scatter)
select_scatter = as_function(Rearranging.select_scatter)
slice_scatter = as_function(Rearranging.slice_scatter)
diag = as_function(Rearranging.diag)
fliplr = as_function(Rearranging.fliplr)
flipud = as_function(Rearranging.flipud)
repeat_interleave = as_function(Rearranging.repeat_interleave)
roll = as_function(Rearranging.roll)
rot90 = as_function(Rearranging.rot90)

FUNCTIONS = ("diag", "diagonal_scatter", "flip", "fliplr", "flipud", "repeat_interleave", "roll", "rot90",
             "select_scatter", "slice_scatter", "tile")
"""Names that the package offers as functions."""

__all__ = ["Rearranging", *FUNCTIONS]
