"""Joining tensors, and laying them in larger ones: cat, stack, pad, meshgrid."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core.dtypes import DType, Rank, result_type
from torturous.core.shapes import normalize_axis
from torturous.ir import creation, indexing, movement
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.positions import index_tensor
from torturous.tensor.recording import cast
from torturous.tensor.shortcuts import shortcut

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

MOST_FUSED = 8
"""Up to so many parts are joined by an index map that fuses with what reads it; more are copied, which
compiles in a time that hardly grows with their number."""


def _tensors(tensors: Any, name: str) -> list[Any]:
    """The operands of a joining function."""
    if isinstance(tensors, TensorBase) or not isinstance(tensors, (list, tuple)):
        raise TypeError(f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
                        f"{type(tensors).__name__}")
    for position, t in enumerate(tensors):
        if not isinstance(t, TensorBase):
            raise TypeError(
                f"expected Tensor as element {position} in argument 0, but got {type(t).__name__} ({name})")
    return list(tensors)


def _common_dtype(tensors: Sequence[TensorBase]) -> DType:
    return result_type([(Rank.DIMENSIONED if t.shape else Rank.SCALAR, t.dtype) for t in tensors])


def _join(parts: Sequence[TensorBase], shape: tuple[int, ...], axis: int, width: Any) -> Tensor:
    """Parts laid one after another along an axis of `shape`, of which a part takes `width(part)` places."""
    dtype = _common_dtype(parts)
    parts = [cast(part, dtype) for part in parts]
    if len(parts) <= indexing.MOST_JOINED:
        return apply_typed(indexing.JOIN, shape, dtype, *parts, attributes=(axis,))
    groups = []
    for start in range(0, len(parts), indexing.MOST_JOINED):
        group = parts[start:start + indexing.MOST_JOINED]
        groups.append(_join(group, (*shape[:axis], sum(map(width, group)), *shape[axis + 1:]), axis, width))
    return _join(groups, shape, axis, lambda part: part.shape[axis])


def cat(tensors: Sequence[TensorBase], dim: int = 0) -> Tensor:
    """Tensors one after another along an axis.

    Shapes must agree in the other axes, except that empty vectors are passed over; dtypes are promoted.
    Raises ValueError for no tensors, RuntimeError for shapes that do not fit.
    """
    parts = _tensors(tensors, "cat")
    if not parts:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    return _concatenated(*parts, dim)


@shortcut(operands=-1)
def _concatenated(*parts_and_dim: Any) -> Tensor:
    *parts, dim = parts_and_dim
    for position, part in enumerate(parts):
        if not part.shape:
            raise RuntimeError(f"zero-dimensional tensor (at position {position}) cannot be concatenated")
    dtype = _common_dtype(parts)
    kept = [part for part in parts if tuple(part.shape) != (0,)] or parts[:1]
    first = kept[0].shape
    axis = normalize_axis(dim, len(first))
    for position, part in enumerate(parts):
        if part in _Same(kept) and len(part.shape) != len(first):
            raise RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first)} and {len(part.shape)} "
                f"(tensor number {position} of shape {list(part.shape)})")
        for other, (have, want) in enumerate(zip(part.shape, first, strict=False)):
            if other != axis and have != want and tuple(part.shape) != (0,):
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {want} but got "
                    f"size {have} for tensor number {position} in the list.")
    kept = [cast(part, dtype) for part in kept]
    if len(kept) == 1:
        return kept[0].clone()
    if len(kept) <= MOST_FUSED:
        return apply(movement.CONCATENATE, *kept, attributes=(axis,))
    size = sum(part.shape[axis] for part in kept)
    return _join(kept, (*first[:axis], size, *first[axis + 1:]), axis, lambda part: part.shape[axis])


concat = concatenate = cat


class _Same:
    """Membership by identity: tensors compare element by element."""

    def __init__(self, tensors: Sequence[TensorBase]) -> None:
        self.identities = set(map(id, tensors))

    def __contains__(self, t: TensorBase) -> bool:
        return id(t) in self.identities


def stack(tensors: Sequence[TensorBase], dim: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    parts = _tensors(tensors, "stack")
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    return _stacked(*parts, dim)


@shortcut(operands=-1)
def _stacked(*parts_and_dim: Any) -> Tensor:
    *parts, dim = parts_and_dim
    shape = tuple(parts[0].shape)
    for position, part in enumerate(parts):
        if tuple(part.shape) != shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(part.shape)} at entry {position}")
    axis = normalize_axis(dim, len(shape) + 1)
    if len(parts) <= MOST_FUSED:
        return cat([part.unsqueeze(axis) for part in parts], axis)
    return _join(parts, (*shape[:axis], len(parts), *shape[axis:]), axis, lambda part: 1)


def _at_least(rank: int, tensors: Any, name: str) -> list[Any]:
    """Tensors with axes of size 1 put where `hstack` and its relatives want them."""
    result = []
    for t in _tensors(tensors, name):
        if not t.shape:
            t = t.reshape(1)
        if rank >= 2 and len(t.shape) == 1:
            t = t.unsqueeze(0)
        if rank == 3 and len(t.shape) == 2:
            t = t.unsqueeze(2)
        result.append(t)
    if not result:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return result


def hstack(tensors: Sequence[TensorBase]) -> Tensor:
    """Side by side: along axis 1, or 0 for vectors."""
    parts = _at_least(1, tensors, "hstack")
    return cat(parts, 0 if len(parts[0].shape) == 1 else 1)


def vstack(tensors: Sequence[TensorBase]) -> Tensor:
    """One below the other; vectors are rows."""
    return cat(_at_least(2, tensors, "vstack"), 0)


row_stack = vstack


def dstack(tensors: Sequence[TensorBase]) -> Tensor:
    """One behind the other, along axis 2."""
    return cat(_at_least(3, tensors, "dstack"), 2)


def column_stack(tensors: Sequence[TensorBase]) -> Tensor:
    """Side by side; vectors are columns."""
    parts = [t.reshape(-1, 1) if len(t.shape) < 2 else t for t in _at_least(0, tensors, "column_stack")]
    return cat(parts, 1)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Every vector expanded over the grid that they span; with "xy" the first two axes are swapped."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    parts = _tensors(list(tensors), "meshgrid")
    if not parts:
        raise ValueError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for part in parts:
        if len(part.shape) > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {part.shape}")
        if part.dtype is not parts[0].dtype:
            raise RuntimeError("torch.meshgrid expects all tensors to have the same dtype")
    swapped = indexing == "xy" and len(parts) >= 2
    if swapped:
        parts[:2] = reversed(parts[:2])
    shape = tuple(prod(part.shape) for part in parts)
    grids = [part.reshape((1,) * axis + (-1,) + (1,) * (len(parts) - axis - 1)).expand(shape)
             for axis, part in enumerate(parts)]
    if swapped:
        grids[:2] = reversed(grids[:2])
    return tuple(grids)


# Padding ----------------------------------------------------------------------------------------------------
def pad(input: TensorBase, pad: Sequence[int], mode: str = "constant", value: Number | None = None) -> Tensor:
    """input with `pad` places added before and after its last axes (pairs, from the last axis backwards).

    Modes: "constant" (any axes, filled with `value`), "reflect", "replicate" and "circular" (the last one,
    two or three axes of an input with one or two more). Negative numbers take places away.
    """
    t: Any = input
    widths = [int(width) for width in pad]
    if len(widths) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {widths}")
    rank = len(t.shape)
    if len(widths) > 2 * rank:
        raise RuntimeError(
            "Padding length should be less than or equal to two times the input dimension but got padding "
            f"length {len(widths)} and input of dimension {rank}")
    around = [(rank - 1 - k, widths[2 * k], widths[2 * k + 1]) for k in range(len(widths) // 2)]
    if mode == "constant":
        return _pad_constant(t, around, 0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(
            f"Unrecognised padding mode {mode}; use constant, reflect, replicate or circular")
    if value not in (None, 0):
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if not (1 <= len(around) <= 3 and rank in (len(around) + 1, len(around) + 2)):
        raise NotImplementedError(
            f"Padding size {len(widths)} is not supported for {rank}D input tensor: mode {mode} pads the "
            "last 1, 2 or 3 axes of an input that has one or two more")
    for axis, before, after in around:
        size = t.shape[axis]
        if size + before + after < 0 or (before or after) and size == 0:
            raise RuntimeError(f"pad: axis {axis} of {list(t.shape)} would have size {size + before + after}")
        if before or after:
            places = index_tensor(_padded_places(mode, size, before, after, axis, list(t.shape)))
            t = apply(indexing.TAKE, t, places, attributes=(axis,))
    return apply_typed(movement.ALIAS, tuple(t.shape), t.dtype, t) if t is input else t


def _pad_constant(t: Any, around: Sequence[tuple[int, int, int]], value: Number) -> Tensor:
    shape = list(t.shape)
    for axis, before, after in around:
        if shape[axis] + before + after < 0:
            raise RuntimeError(
                f"pad: axis {axis} of size {shape[axis]} cannot be padded by {before} before and {after} "
                "after: the resulting size would be negative")
        if min(before, after) < 0:
            t = t.sliced(axis, max(-before, 0), shape[axis] - max(-after, 0), 1)
        shape[axis] += before + after
    grown = [(axis, max(before, 0)) for axis, before, after in around if max(before, after) > 0]
    if not grown:
        return t.clone()
    if 0 in t.shape:
        return apply_typed(creation.FULL, tuple(shape), t.dtype, value)
    axes, starts = zip(*sorted(grown), strict=True)
    attributes = (axes, (1,) * len(axes))
    return apply_typed(movement.PAD, tuple(shape), t.dtype, t, value, *starts, attributes=attributes)


def _padded_places(mode: str, size: int, before: int, after: int, axis: int, shape: list[int]) -> np.ndarray:
    """Where each place of a padded axis comes from."""
    places = np.arange(-before, size + after)
    if mode == "replicate":
        return places.clip(0, size - 1)
    if mode == "circular":
        if before > size or after > size:
            raise RuntimeError(
                f"Padding value causes wrapping around more than once: ({before}, {after}) at dimension "
                f"{axis} of input {shape}")
        first, last = max(-before, 0), size - max(-after, 0)  # What negative widths leave is what goes round.
        return np.arange(-max(before, 0), last - first + max(after, 0)) % (last - first) + first
    if before >= size or after >= size:
        raise RuntimeError(
            "Argument #4: Padding size should be less than the corresponding input dimension, but got: "
            f"padding ({before}, {after}) at dimension {axis} of input {shape}")
    mirrored = np.abs(places)
    return np.where(mirrored >= size, 2 * (size - 1) - mirrored, mirrored)


FUNCTIONS = ("cat", "column_stack", "concat", "concatenate", "dstack", "hstack", "meshgrid", "row_stack",
             "stack", "vstack")
"""Names that the package offers as functions; `pad` belongs to nn.functional."""

__all__ = ["pad", *FUNCTIONS]
