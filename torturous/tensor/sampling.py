"""Sampling images at places that a grid names (Jaderberg et al., 2015), and grids of affine maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import describe
from torturous.ir import elementwise as ops
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import linspace, ones
from torturous.tensor.joining import stack
from torturous.tensor.warn import warn_user

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _centres(size: int, aligned: bool, like: Any) -> Any:
    """The places of an axis in [−1, 1]: of the outer elements' centres if aligned, else of the outer edges."""
    if size <= 1:
        return like.new_zeros(size)
    places = linspace(-1, 1, size, dtype=like.dtype)
    return places if aligned else places * ((size - 1) / size)


def affine_grid(theta: TensorBase, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The places (N, H, W, 2) that maps theta (N, 2, 3) take the places of an (N, C, H, W) image to; UnsupportedError
    for volumes."""
    if align_corners is None:
        warn_user("Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please "
                  "specify align_corners=True if the old behavior is desired.")
        align_corners = False
    t: Any = theta
    if not t.dtype.is_floating_point:
        raise ValueError(f"Expected theta to have floating point type, but got {t.dtype}")
    if len(size) == 5:
        raise UnsupportedError("affine_grid: volumes (size of 5 numbers) are not supported")
    if len(size) != 4:
        raise NotImplementedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
                                  f"respectively. Got size {list(size)}.")
    if tuple(t.shape[-2:]) != (2, 3) or len(t.shape) != 3:
        raise ValueError(f"Expected a batch of 2D affine matrices of shape Nx2x3 for size {list(size)}. Got "
                         f"{tuple(t.shape)}.")
    if min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(size)}")
    samples, _, height, width = size
    across = _centres(width, align_corners, t).reshape(1, width).expand(height, width)
    down = _centres(height, align_corners, t).reshape(height, 1).expand(height, width)
    base = stack([across, down, ones(height, width, dtype=t.dtype)], -1)
    return (base.reshape(1, height * width, 3) @ t.transpose(1, 2)).reshape(samples, height, width, 2)


def _unnormalized(place: Any, size: int, aligned: bool) -> Any:
    """From [−1, 1] to positions of elements."""
    return (place + 1) / 2 * (size - 1) if aligned else ((place + 1) * size - 1) / 2


def _clipped(position: Any, size: int) -> Any:
    return apply(ops.CLAMP_MAX, apply(ops.CLAMP_MIN, position, 0), size - 1)


def _reflected(position: Any, size: int, aligned: bool) -> Any:
    """Positions folded back into the image, about its outer elements if aligned, else about its outer edges."""
    low, span = (0.0, float(size - 1)) if aligned else (-0.5, float(size))
    if span == 0:
        return position * 0
    distance = apply(ops.ABS, position - low)
    flips = apply(ops.FLOOR, (distance / span).detach())
    rest = distance - flips * span
    even = apply(ops.REMAINDER, flips, 2.0) == 0
    return apply(ops.WHERE, even, rest + low, span - rest + low)


def grid_sample(input: TensorBase, grid: TensorBase, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """The image (N, C, H, W) at the places of a grid (N, H', W', 2) of (x, y) in [−1, 1]: (N, C, H', W').

    Modes: bilinear, nearest; what lies outside: zeros, border, reflection. UnsupportedError for bicubic sampling and
    for volumes.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError("nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but "
                         f"got: '{mode}'")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', "
                         f"but got: '{padding_mode}'")
    if align_corners is None:
        warn_user("Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please "
                  "specify align_corners=True if the old behavior is desired. See the documentation of grid_sample for "
                  "details.")
        align_corners = False
    x: Any = input
    places: Any = grid
    if mode == "bicubic" or len(x.shape) == 5:
        raise UnsupportedError("grid_sample: bicubic sampling and volumes are not supported")
    if len(x.shape) != 4 or len(places.shape) != 4 or places.shape[-1] != 2 or x.shape[0] != places.shape[0]:
        raise RuntimeError("grid_sampler(): expected grid and input to have same batch size and a grid (N, H, W, 2) "
                           f"for an input (N, C, H, W), but got input with sizes {describe(x.shape)} and grid with "
                           f"sizes {describe(places.shape)}")
    if x.dtype is not places.dtype:
        raise RuntimeError("grid_sampler(): expected input and grid to have same dtype, but input has "
                           f"{x.dtype.name} and grid has {places.dtype.name}")
    if 0 in x.shape[2:]:
        raise RuntimeError("grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes "
                           f"{describe(x.shape)}")
    positions = []
    for axis, size in ((0, x.shape[3]), (1, x.shape[2])):
        position = _unnormalized(places.select(3, axis), size, align_corners)
        if padding_mode == "reflection":
            position = _reflected(position, size, align_corners)
        positions.append(position if padding_mode == "zeros" else _clipped(position, size))
    if mode == "nearest":
        column, row = (apply(ops.ROUND, position) for position in positions)
        # The grid has a gradient, which is 0 everywhere.
        return _at(x, column, row) + (apply(ops.SIGN, column) + apply(ops.SIGN, row)).unsqueeze(1) * 0
    left, top = (apply(ops.FLOOR, position.detach()) for position in positions)
    total: Any = None
    for step_x in (0, 1):
        for step_y in (0, 1):
            column, row = left + step_x, top + step_y
            weight = (1 - apply(ops.ABS, positions[0] - column)) * (1 - apply(ops.ABS, positions[1] - row))
            part = _at(x, column, row) * weight.unsqueeze(1)
            total = part if total is None else total + part
    return total


def _at(x: Any, column: Any, row: Any) -> Any:
    """The elements at whole positions (N, H', W') of every channel; 0 outside."""
    samples, channels, height, width = x.shape
    inside = (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
    place = (_clipped(row, height) * width + _clipped(column, width)).detach().to(dtypes.int64)
    flat = place.reshape(samples, 1, -1).expand(samples, channels, -1)
    found = x.reshape(samples, channels, height * width).gather(2, flat)
    found = found.reshape(samples, channels, *column.shape[1:])
    return apply(ops.WHERE, inside.unsqueeze(1), found, 0.0)


__all__ = ["affine_grid", "grid_sample"]
