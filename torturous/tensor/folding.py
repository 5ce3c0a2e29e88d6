"""Windows as columns and back, maxima put back in their places, and pooling by powers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.shapes import describe
from torturous.ir import elementwise as ops
from torturous.ir.macros import FOLD, UNFOLD
from torturous.tensor.applying import apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.linear import tuple_of
from torturous.tensor.pooling import average_pool
from torturous.tensor.recording import unary

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Sizes = int | Sequence[int]


def _pair(value: Sizes, name: str) -> tuple[int, ...]:
    return tuple_of(value, 2, name)


def _places(sizes: Sequence[int], at: tuple) -> list[int]:
    kernel, stride, padding, dilation = at
    return [(size + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
            for a, size in enumerate(sizes)]


def _attributes(kernel_size: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> tuple:
    at = (_pair(kernel_size, "kernel_size"), _pair(stride, "stride"), _pair(padding, "padding"),
          _pair(dilation, "dilation"))
    for name, values, least in zip(("kernel size", "stride", "padding", "dilation"), at, (1, 1, 0, 1), strict=True):
        if min(values) < least:
            raise RuntimeError(f"{name} should be {'greater than zero' if least else 'non-negative'}, but got {values}")
    return at


def unfold(input: TensorBase, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
           ) -> Tensor:
    """Every window of (N, C, H, W) as a column: (N, C · kernel, places); N may be missing."""
    at = _attributes(kernel_size, dilation, padding, stride)
    x: Any = input
    if len(x.shape) == 3:
        return unfold(x.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if len(x.shape) != 4:
        raise RuntimeError("Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero "
                           f"dimensions for input, but got: {describe(x.shape)} (unfold)")
    counts = _places(x.shape[2:], at)
    if min(counts) < 1:
        raise RuntimeError(f"Given input with spatial size {describe(x.shape[2:])}, kernel_size={at[0]}, "
                           f"dilation={at[3]}, padding={at[2]}, calculated shape of the array of sliding blocks as "
                           f"{counts}, but its components must be at least one (unfold)")
    shape = (x.shape[0], x.shape[1] * prod(at[0]), prod(counts))
    return apply_typed(UNFOLD, shape, x.dtype, x, attributes=at)


def fold(input: TensorBase, output_size: Sizes, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0,
         stride: Sizes = 1) -> Tensor:
    """Columns (N, C · kernel, places) added up in their places: (N, C, *output_size); N may be missing."""
    at = _attributes(kernel_size, dilation, padding, stride)
    sizes = _pair(output_size, "output_size")
    x: Any = input
    if len(x.shape) == 2:
        return fold(x.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    if len(x.shape) != 3:
        raise RuntimeError("Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero "
                           f"dimensions for input, but got: {describe(x.shape)} (fold)")
    if x.shape[1] % prod(at[0]):
        raise RuntimeError("Expected size of input's dimension 1 to be divisible by the product of kernel_size, but "
                           f"got input.size(1)={x.shape[1]} and kernel_size={at[0]} (fold).")
    counts = _places(sizes, at)
    if min(counts) < 1 or prod(counts) != x.shape[2]:
        raise RuntimeError(f"Given output_size={sizes}, kernel_size={at[0]}, dilation={at[3]}, padding={at[2]}, "
                           f"stride={at[1]}, expected size of input's dimension 2 to match the calculated number of "
                           f"sliding blocks {counts[0]} * {counts[1]} = {prod(counts)}, but got "
                           f"input.size(2)={x.shape[2]} (fold).")
    return apply_typed(FOLD, (x.shape[0], x.shape[1] // prod(at[0]), *sizes), x.dtype, x, attributes=at)


# Maxima put back --------------------------------------------------------------------------------------------------
def _max_unpool(input: Any, indices: Any, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, output_size: Any,
                spatial: int) -> Tensor:
    name = f"max_unpool{spatial}d"
    if indices.dtype is not dtypes.int64:
        raise RuntimeError(f"elements in indices should be type int64 but got: {indices.dtype.name} ({name})")
    if tuple(indices.shape) != tuple(input.shape):
        raise RuntimeError("Expected shape of indices to be same as that of the input tensor "
                           f"({describe(input.shape)}) but got indices tensor with shape: {describe(indices.shape)} "
                           f"({name})")
    kernel = tuple_of(kernel_size, spatial, "kernel_size")
    steps = kernel if stride is None else tuple_of(stride, spatial, "stride")
    pads = tuple_of(padding, spatial, "padding")
    lead, sizes = tuple(input.shape[:-spatial]), tuple(input.shape[-spatial:])
    usual = [(size - 1) * steps[a] + kernel[a] - 2 * pads[a] for a, size in enumerate(sizes)]
    wanted = usual
    if output_size is not None:
        wanted = list(output_size)[-spatial:]
        for axis, (want, least) in enumerate(zip(wanted, usual, strict=True)):
            if not least - steps[axis] < want < least + steps[axis]:
                raise ValueError(f'invalid output_size "{output_size}" (dim {axis} must be between '
                                 f"{least - steps[axis]} and {least + steps[axis]})")
    flat = input.new_zeros((*lead, prod(wanted)))
    axis = len(lead)
    places = indices.reshape(*lead, prod(sizes))
    return flat.scatter(axis, places, input.reshape(*lead, prod(sizes))).reshape(*lead, *wanted)


def max_unpool1d(input: TensorBase, indices: TensorBase, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Any = None) -> Tensor:
    """The values at the places that `max_pool1d` gave, zeros elsewhere: (N, C, L) to (N, C, L')."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(input: TensorBase, indices: TensorBase, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Any = None) -> Tensor:
    """See `max_unpool1d`: the last two axes."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(input: TensorBase, indices: TensorBase, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Any = None) -> Tensor:
    """See `max_unpool1d`: the last three axes."""
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 3)


# Powers -----------------------------------------------------------------------------------------------------------
def _power_pool(input: TensorBase, norm_type: float, kernel_size: Sizes, stride: Sizes | None, ceil_mode: bool,
                spatial: int) -> Tensor:
    x: Any = input
    mean: Any = average_pool(x.pow(norm_type), kernel_size, stride, 0, ceil_mode, True, None, spatial)
    total = unary(ops.SIGN, mean) * unary(ops.RELU, unary(ops.ABS, mean))
    return (total * prod(tuple_of(kernel_size, spatial, "kernel_size"))).pow(1.0 / norm_type)


def lp_pool1d(input: TensorBase, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
              ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of (N, C, L)."""
    return _power_pool(input, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(input: TensorBase, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
              ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of (N, C, H, W)."""
    return _power_pool(input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(input: TensorBase, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
              ceil_mode: bool = False) -> Tensor:
    """The p-norm of each window of (N, C, D, H, W)."""
    return _power_pool(input, norm_type, kernel_size, stride, ceil_mode, 3)


__all__ = ["fold", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d", "unfold"]
