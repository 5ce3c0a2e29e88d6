"""Pooling over windows of the last one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import Shape, describe
from torturous.ir.macros import AVERAGE_POOL, MAX_POOL, MAX_POOL_PLACE, WINDOW_SUM
from torturous.ir.op import TYPES, Type, type_number
from torturous.tensor.applying import Rule, apply_rule, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.linear import tuple_of

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Sizes = int | Sequence[int]


class _Windows:
    """The windows of one pooling call: their attributes, and the shape of the result."""

    def __init__(self, name: str, x: Type, kernel: Sizes, stride: Sizes | None, padding: Sizes,
                 dilation: Sizes, ceil_mode: bool, spatial: int) -> None:
        if x.dtype is dtypes.bool_:
            raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'")
        self.name = name
        self.kernel = tuple_of(kernel, spatial, "kernel_size")
        self.stride = self.kernel if stride is None or stride == () or stride == [] else tuple_of(
            stride, spatial, "stride")
        self.padding = tuple_of(padding, spatial, "padding")
        self.dilation = tuple_of(dilation, spatial, "dilation")
        if len(x.shape) not in (spatial + 1, spatial + 2) or 0 in x.shape[-spatial - 1:]:
            raise RuntimeError(
                f"{name}: Expected {spatial + 1}D or {spatial + 2}D (batch mode) tensor with optional 0 dim "
                f"batch size for input, but got: {describe(x.shape)}")
        for axis in range(spatial):
            self._check(axis)
        lead = x.shape[:-spatial]
        counts = [self._size(x, axis - spatial, axis, ceil_mode) for axis in range(spatial)]
        self.out: Shape = (*lead, *counts)
        self.rule: Rule = (type_number(self.out, x.dtype), self.attributes)

    def _check(self, axis: int) -> None:
        kernel, padding = self.kernel[axis], self.padding[axis]
        if kernel <= 0:
            raise RuntimeError(f"{self.name}: kernel size should be greater than zero, but got "
                               f"{list(self.kernel)}")
        if self.stride[axis] <= 0:
            raise RuntimeError(f"{self.name}: stride should be greater than zero, but got "
                               f"{list(self.stride)}")
        if self.dilation[axis] <= 0:
            raise RuntimeError(f"{self.name}: dilation should be greater than zero, but got "
                               f"{list(self.dilation)}")
        if padding < 0:
            raise RuntimeError(f"{self.name}: pad must be non-negative, but got pad: {padding}")
        if padding > ((kernel - 1) * self.dilation[axis] + 1) // 2:
            raise RuntimeError(
                f"{self.name}: pad should be at most half of effective kernel size, but got pad={padding}, "
                f"kernel_size={kernel} and dilation={self.dilation[axis]}")

    def _size(self, x: Type, axis: int, number: int, ceil_mode: bool) -> int:
        """How many windows fit along an axis; with `ceil_mode` the last may hang over but starts inside."""
        size, stride, padding = x.shape[axis], self.stride[number], self.padding[number]
        room = size + 2 * padding - self.dilation[number] * (self.kernel[number] - 1) - 1
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        if ceil_mode and (count - 1) * stride >= size + padding:
            count -= 1
        if count < 1:
            raise RuntimeError(
                f"{self.name}: Given input size: {describe(x.shape)}, calculated output size along axis "
                f"{len(x.shape) + axis} is {count}: Output size is too small for "
                f"kernel_size={list(self.kernel)}")
        return count

    @property
    def attributes(self) -> tuple:
        return self.kernel, self.stride, self.padding, self.dilation

    def overhang(self, x: TensorBase) -> bool:
        """Whether some window reaches beyond the padded input."""
        spatial = len(self.kernel)
        return any(
            (self.out[axis - spatial] - 1) * self.stride[axis] + self.kernel[axis]
            > x.shape[axis - spatial] + 2 * self.padding[axis]
            for axis in range(spatial))


_remembered = lru_cache(1 << 12, typed=True)(
    lambda name, type_index, *options: _Windows(name, TYPES[type_index], *options))


def _windows(name: str, x: TensorBase, *options: Any) -> _Windows:
    """The windows over a tensor, worked out once per type and options."""
    if not isinstance(x, TensorBase):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
    return _remembered(name, x._type, *[tuple(each) if isinstance(each, list) else each for each in options])


def max_pool(x: TensorBase, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes,
             ceil_mode: bool, return_indices: bool, spatial: int) -> Any:
    """The largest element of each window of the last `spatial` axes; x is (N, C, …) or (C, …).

    With `return_indices` also where each was found in the flattened windowed axes (int64). NaN is the
    largest. RuntimeError names what does not fit.
    """
    windows = _windows(f"max_pool{spatial}d", x, kernel_size, stride, padding, dilation, ceil_mode, spatial)
    largest = apply_rule(MAX_POOL, windows.rule, x)
    if not return_indices:
        return largest
    return largest, apply_typed(MAX_POOL_PLACE, windows.out, dtypes.int64, x, attributes=windows.attributes)


def average_pool(x: TensorBase, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool,
                 count_include_pad: bool, divisor_override: int | None, spatial: int) -> Tensor:
    """The mean of each window of the last `spatial` axes.

    Padding counts as zeros unless `count_include_pad` is false; `divisor_override` replaces the count.
    """
    name = f"avg_pool{spatial}d"
    windows = _windows(name, x, kernel_size, stride, padding, 1, ceil_mode, spatial)
    if not x.dtype.is_floating_point:
        raise UnsupportedError(f"{name} of {x.dtype.name}: only floating dtypes are supported; convert with "
                               ".float()")
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    divisor = divisor_override
    if divisor is None and not windows.overhang(x) and (count_include_pad or not any(windows.padding)):
        divisor = prod(windows.kernel)
    if divisor is None:
        return apply_typed(AVERAGE_POOL, windows.out, x.dtype, x,
                           attributes=(*windows.attributes, bool(count_include_pad)))
    return apply_typed(WINDOW_SUM, windows.out, x.dtype, x, attributes=windows.attributes) / divisor
