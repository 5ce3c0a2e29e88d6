"""Other numbers of places along the last axes: pooling to given sizes, interpolation, channels traded for pixels."""

from __future__ import annotations

from functools import lru_cache
from math import floor, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import describe
from torturous.ir import reduction
from torturous.ir.contraction import CONTRACT, lone
from torturous.ir.extremes import FIRST_MAX
from torturous.ir.indexing import TAKE
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.pooling import average_pool, max_pool
from torturous.tensor.positions import index_tensor
from torturous.tensor.values import of_array
from torturous.tensor.warn import warn_user

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Sizes = Any


# Pooling to given sizes -------------------------------------------------------------------------------------------
def _wanted_sizes(name: str, x: TensorBase, output_size: Sizes, spatial: int) -> tuple[int, ...]:
    """The sizes asked for; None keeps an axis. Raises what PyTorch raises where they do not fit."""
    single = output_size is None or isinstance(output_size, int)
    sizes = (output_size,) * spatial if single else tuple(output_size)
    rank = len(x.shape)
    if len(sizes) != spatial:
        raise RuntimeError(f"{name}: output_size must be {spatial} (got {list(sizes)})")
    if rank not in (spatial + 1, spatial + 2):
        raise RuntimeError(f"{name}: Expected {spatial + 1}D or {spatial + 2}D tensor, but got {describe(x.shape)}")
    wanted = tuple(size if want is None else int(want) for size, want in zip(x.shape[-spatial:], sizes, strict=True))
    if any(want < 0 for want in wanted):
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 but received "
                           f"{list(wanted)}")
    for axis in range(rank - spatial, rank):
        if x.shape[axis] == 0:
            raise RuntimeError(f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input "
                               f"has sizes {describe(x.shape)} with dimension {axis} being empty")
    return wanted


def _bounds(size: int, wanted: int) -> list[tuple[int, int]]:
    """Where each window begins and ends: as even as whole numbers allow, overlapping where they must."""
    return [(place * size // wanted, -(-(place + 1) * size // wanted)) for place in range(wanted)]


@lru_cache(maxsize=256)
def _averaging(size: int, wanted: int, dtype: DType) -> Tensor:
    """(size, wanted): each column the shares of one window's mean."""
    matrix = np.zeros((size, wanted))
    for place, (first, last) in enumerate(_bounds(size, wanted)):
        matrix[first:last, place] = 1 / (last - first)
    return of_array(matrix, dtype)


def _along(x: TensorBase, matrix: TensorBase, axis: int) -> Tensor:
    """One axis of x multiplied by a matrix (size, new size)."""
    rank = len(x.shape)
    maps = tuple(lone(rank if a == axis else a) for a in range(rank))
    shape = (*x.shape[:axis], matrix.shape[1], *x.shape[axis + 1:])
    return apply_typed(CONTRACT, shape, x.dtype, x, matrix, attributes=(1, maps, (lone(rank), lone(axis))))


def _adaptive_average(name: str, input: Any, output_size: Sizes, spatial: int) -> Tensor:
    wanted = _wanted_sizes(name, input, output_size, spatial)
    sizes = tuple(input.shape[-spatial:])
    axes = tuple(range(len(input.shape) - spatial, len(input.shape)))
    if not input.dtype.is_floating_point:
        raise UnsupportedError(f"{name} of {input.dtype.name}: only floating dtypes are supported; convert with "
                               ".float()")
    if set(wanted) == {1}:
        return apply(reduction.SUM, input, attributes=(axes, True)) / prod(sizes)
    if 0 not in wanted and not any(size % want for size, want in zip(sizes, wanted, strict=True)):
        kernel = tuple(size // want for size, want in zip(sizes, wanted, strict=True))
        return average_pool(input, kernel, None, 0, False, True, None, spatial)
    for axis, size, want in zip(axes, sizes, wanted, strict=True):
        if size != want:
            input = _along(input, _averaging(size, want, input.dtype), axis)
    return input


@lru_cache(maxsize=256)
def _window_places(size: int, wanted: int) -> tuple[Tensor, int]:
    """The places of each window one after another, the last repeated to the longest window's length; and that."""
    bounds = _bounds(size, wanted)
    longest = max((last - first for first, last in bounds), default=1)
    places = [[min(first + k, last - 1) for k in range(longest)] for first, last in bounds]
    return index_tensor(np.array(places, np.int64).reshape(-1)), longest


def _adaptive_max(name: str, input: Any, output_size: Sizes, return_indices: bool, spatial: int) -> Any:
    wanted = _wanted_sizes(name, input, output_size, spatial)
    sizes = tuple(input.shape[-spatial:])
    if 0 not in wanted and not any(size % want for size, want in zip(sizes, wanted, strict=True)):
        kernel = tuple(size // want for size, want in zip(sizes, wanted, strict=True))
        return max_pool(input, kernel, None, 0, 1, False, return_indices, spatial)
    lead = tuple(input.shape[:-spatial])
    rank = len(lead)
    counted = np.arange(prod(sizes)).reshape((1,) * rank + sizes)
    spread, shape = input, [*lead]
    for axis, (size, want) in enumerate(zip(sizes, wanted, strict=True)):
        places, longest = _window_places(size, want)
        spread = apply(TAKE, spread, places, attributes=(rank + axis,))
        counted = counted.take(places.numpy(), rank + axis)
        shape += [want, longest]
    order = (*range(rank), *range(rank, len(shape), 2), *range(rank + 1, len(shape), 2))
    spread = spread.reshape(shape).permute(order).reshape(*lead, *wanted, -1)
    largest = apply(FIRST_MAX, spread, attributes=((rank + spatial,), False))
    if not return_indices:
        return largest
    counted = counted.reshape([1] * rank + shape[rank:]).transpose(order).reshape([1] * rank + [*wanted, -1])
    chosen = apply(reduction.ARGMAX, spread, attributes=((rank + spatial,), True))
    places = index_tensor(counted).expand(*spread.shape).gather(rank + spatial, chosen)
    return largest, places.squeeze(-1)


def adaptive_avg_pool1d(input: TensorBase, output_size: Sizes) -> Tensor:
    """Means over `output_size` windows of the last axis, as even as can be; None keeps its size."""
    return _adaptive_average("adaptive_avg_pool1d", input, output_size, 1)


def adaptive_avg_pool2d(input: TensorBase, output_size: Sizes) -> Tensor:
    """See `adaptive_avg_pool1d`: the last two axes."""
    return _adaptive_average("adaptive_avg_pool2d", input, output_size, 2)


def adaptive_avg_pool3d(input: TensorBase, output_size: Sizes) -> Tensor:
    """See `adaptive_avg_pool1d`: the last three axes."""
    return _adaptive_average("adaptive_avg_pool3d", input, output_size, 3)


def adaptive_max_pool1d(input: TensorBase, output_size: Sizes, return_indices: bool = False) -> Any:
    """Largest elements of `output_size` windows of the last axis, as even as can be; with `return_indices` also where
    they were."""
    return _adaptive_max("adaptive_max_pool1d", input, output_size, return_indices, 1)


def adaptive_max_pool2d(input: TensorBase, output_size: Sizes, return_indices: bool = False) -> Any:
    """See `adaptive_max_pool1d`: the last two axes, places in them flattened."""
    return _adaptive_max("adaptive_max_pool2d", input, output_size, return_indices, 2)


def adaptive_max_pool3d(input: TensorBase, output_size: Sizes, return_indices: bool = False) -> Any:
    """See `adaptive_max_pool1d`: the last three axes, places in them flattened."""
    return _adaptive_max("adaptive_max_pool3d", input, output_size, return_indices, 3)


# Interpolation ----------------------------------------------------------------------------------------------------
MODES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "area": (1, 2, 3), "linear": (1,), "bilinear": (2,),
         "trilinear": (3,), "bicubic": (2,)}
"""Each mode, and how many axes it is for."""
_CUBIC = -0.75


def interpolate(input: TensorBase, size: Sizes = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """(N, C, …) at other sizes: those given, or the present ones times `scale_factor`, rounded down.

    Modes: nearest, nearest-exact, area; linear, bilinear, trilinear and bicubic for one, two, three and two axes.
    `align_corners` puts the outer places of both grids, rather than the outer edges of their cells, on each other.
    UnsupportedError for `antialias`.
    """
    x: Any = input
    spatial = len(x.shape) - 2
    if mode not in MODES or spatial not in (1, 2, 3):
        raise NotImplementedError("Input Error: Only 3D, 4D and 5D input Tensors supported (got "
                                  f"{len(x.shape)}D) for the modes: {' | '.join(MODES)} (got {mode})")
    if align_corners is not None and mode in ("nearest", "area", "nearest-exact"):
        raise ValueError("align_corners option can only be set with the interpolating modes: linear | bilinear | "
                         "bicubic | trilinear")
    if spatial not in MODES[mode]:
        raise NotImplementedError(f"Got {len(x.shape)}D input, but {mode} mode needs {MODES[mode][0] + 2}D input")
    if antialias:
        if mode not in ("bilinear", "bicubic"):
            raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor "
                             "as input")
        raise UnsupportedError("interpolate: antialias is not supported")
    sizes, scales = _grid(x, size, scale_factor, recompute_scale_factor, spatial)
    if mode == "area":
        return _adaptive_average("interpolate", x, sizes, spatial)
    if not x.dtype.is_floating_point and not mode.startswith("nearest"):
        raise NotImplementedError(f"\"interpolate\" not implemented for {x.dtype.name} in mode {mode}: it needs a "
                                  "floating dtype")
    if min(sizes) <= 0 or 0 in x.shape[1:]:
        raise RuntimeError("Input and output sizes should be greater than 0, but got input "
                           f"{describe(x.shape[2:])} output {describe(sizes)} (interpolate)")
    if tuple(x.shape[2:]) == sizes and mode != "nearest-exact":
        return x.clone()
    for axis in range(spatial):
        x = _interpolated(x, 2 + axis, sizes[axis], scales[axis], mode, bool(align_corners))
    return x


def _grid(x: Any, size: Sizes, scale_factor: Any, recompute: bool | None, spatial: int
          ) -> tuple[tuple[int, ...], list[float | None]]:
    """The sizes of the result, and the scales that places are computed with (None: the sizes' ratio)."""
    present = tuple(x.shape[2:])
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    given, name = (size, "output size") if scale_factor is None else (scale_factor, "scale_factor")
    values = tuple(given) if isinstance(given, (tuple, list)) else (given,) * spatial
    if len(values) != spatial:
        raise ValueError("Input and " + name + " must have the same number of spatial dimensions, but got input with "
                         f"spatial dimensions of {list(present)} and {name} of {given} (interpolate)")
    if scale_factor is None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        return tuple(int(value) for value in values), [None] * spatial
    sizes = tuple(floor(extent * float(value)) for extent, value in zip(present, values, strict=True))
    return sizes, [None if recompute else float(value) for value in values]


def _interpolated(x: Any, axis: int, wanted: int, scale: float | None, mode: str, aligned: bool) -> Any:
    size = x.shape[axis]
    if size == wanted and (scale in (None, 1) or "linear" in mode):
        return x
    if mode == "nearest" and wanted % size == 0 and (scale is None or wanted == size * scale):
        # Every element several times: no more than another way of looking at it.
        times, shape = wanted // size, tuple(x.shape)
        repeated = x.unsqueeze(axis + 1).expand(*shape[:axis + 1], times, *shape[axis + 1:])
        return repeated.reshape(*shape[:axis], wanted, *shape[axis + 1:])
    wide = dtypes.float64 if x.dtype is dtypes.float64 else dtypes.float32
    taps = _taps(size, wanted, scale, mode, aligned, wide)
    total: Any = None
    for places, weights in taps:
        part = apply(TAKE, x, places, attributes=(axis,))
        if weights is not None:
            part = part * weights.reshape(wanted, *(1,) * (len(x.shape) - axis - 1)).to(x.dtype)
        total = part if total is None else total + part
    return total


@lru_cache(maxsize=256)
def _taps(size: int, wanted: int, scale: float | None, mode: str, aligned: bool, dtype: DType
          ) -> list[tuple[Any, Any]]:
    """For each element that a result is made of: its places, and its weights (None: 1)."""
    kind = dtype.numpy.type
    step = kind(size / wanted if scale is None else 1 / scale)
    grid = np.arange(wanted, dtype=dtype.numpy)
    if mode.startswith("nearest"):
        place = np.floor((grid + kind(0.5)) * step if mode == "nearest-exact" else grid * step)
        return [(index_tensor(np.minimum(place.astype(np.int64), size - 1)), None)]
    if aligned:
        source = grid * kind((size - 1) / (wanted - 1) if wanted > 1 else 0)
    else:
        source = (grid + kind(0.5)) * step - kind(0.5)
    if mode != "bicubic":
        source = np.maximum(source, 0)
        first = np.minimum(source.astype(np.int64), size - 1)
        share = np.clip(source - first.astype(dtype.numpy), 0, 1)
        both = [(first, 1 - share), (np.minimum(first + 1, size - 1), share)]
    else:
        first = np.floor(source).astype(np.int64)
        share = source - first.astype(dtype.numpy)
        both = [(np.clip(first + k, 0, size - 1), _cubic(np.abs(share - k))) for k in (-1, 0, 1, 2)]
    return [(index_tensor(place), of_array(weight, dtype)) for place, weight in both]


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The weight of a place at a distance of up to 2 (Keys, 1981, with a = −0.75)."""
    a, x = _CUBIC, distance
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


def upsample(input: TensorBase, size: Sizes = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """The older name of `interpolate`."""
    warn_user("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.")
    return interpolate(input, size, scale_factor, mode, align_corners)


# Channels and pixels ----------------------------------------------------------------------------------------------
def pixel_shuffle(input: TensorBase, upscale_factor: int) -> Tensor:
    """(…, C·r², H, W) to (…, C, H·r, W·r): channels become pixels (Shi et al., 2016)."""
    x: Any = input
    r = upscale_factor
    if len(x.shape) < 3:
        raise RuntimeError("pixel_shuffle expects input to have at least 3 dimensions, but got input with "
                           f"{len(x.shape)} dimension(s)")
    if r <= 0:
        raise RuntimeError(f"pixel_shuffle expects a positive upscale_factor, but got {r}")
    *lead, channels, height, width = x.shape
    if channels % (r * r):
        raise RuntimeError("pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of "
                           f"upscale_factor, but input.size(-3)={channels} is not divisible by {r * r}")
    n = len(lead)
    split = x.reshape(*lead, channels // (r * r), r, r, height, width)
    moved = split.permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return moved.reshape(*lead, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: TensorBase, downscale_factor: int) -> Tensor:
    """(…, C, H·r, W·r) to (…, C·r², H, W): the inverse of `pixel_shuffle`."""
    x: Any = input
    r = downscale_factor
    if len(x.shape) < 3:
        raise RuntimeError("pixel_unshuffle expects input to have at least 3 dimensions, but got input with "
                           f"{len(x.shape)} dimension(s)")
    if r <= 0:
        raise RuntimeError(f"pixel_unshuffle expects a positive downscale_factor, but got {r}")
    *lead, channels, height, width = x.shape
    for role, extent, position in (("height", height, -2), ("width", width, -1)):
        if extent % r:
            raise RuntimeError(f"pixel_unshuffle expects {role} to be divisible by downscale_factor, but "
                               f"input.size({position})={extent} is not divisible by {r}")
    n = len(lead)
    split = x.reshape(*lead, channels, height // r, r, width // r, r)
    return split.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(*lead, channels * r * r, height // r,
                                                                          width // r)


def channel_shuffle(input: TensorBase, groups: int) -> Tensor:
    """(N, C, …) with the channels of all groups dealt out in turn (Zhang et al., 2018)."""
    x: Any = input
    if len(x.shape) < 3:
        raise RuntimeError("channel_shuffle expects input with > 2 dims, but got input with sizes "
                           f"{describe(x.shape)}")
    samples, channels, *rest = x.shape
    if groups <= 0 or channels % groups:
        raise RuntimeError("Number of channels must be divisible by groups. Got "
                           f"{channels} channels and {groups} groups.")
    return x.reshape(samples, groups, channels // groups, *rest).transpose(1, 2).reshape(x.shape)


__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
           "adaptive_max_pool2d", "adaptive_max_pool3d", "channel_shuffle", "interpolate", "pixel_shuffle",
           "pixel_unshuffle", "upsample"]
