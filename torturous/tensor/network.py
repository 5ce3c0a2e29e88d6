"""Network operations as methods, so that a forward pass can be one chain of calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torturous.core.dtypes import DType
from torturous.tensor import activations, dropout, linear, pooling
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Sizes = int | Sequence[int]


def _convolved(x: TensorBase, layer: Any, bias: TensorBase | None, stride: Sizes, padding: Sizes | str,
               dilation: Sizes, groups: int, spatial: int) -> Tensor:
    """A convolution by a layer, by what it is called with if it can be, or by a weight and options."""
    if isinstance(layer, TensorBase) and not callable(layer):
        return linear.convolution(x, layer, bias, stride, padding, dilation, groups, spatial)
    return layer(x)


class Network(TensorBase):
    """Methods that take a layer, or what a layer is made of."""

    __slots__ = ()

    def conv1d(self, weight: Any, bias: TensorBase | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
               dilation: Sizes = 1, groups: int = 1) -> Tensor:
        """self (N, C, L) convolved by a layer, or by weight (O, C/groups, K) and bias (O)."""
        return _convolved(self, weight, bias, stride, padding, dilation, groups, 1)

    def conv2d(self, weight: Any, bias: TensorBase | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
               dilation: Sizes = 1, groups: int = 1) -> Tensor:
        """self (N, C, H, W) convolved by a layer, or by weight and bias."""
        return _convolved(self, weight, bias, stride, padding, dilation, groups, 2)

    def conv3d(self, weight: Any, bias: TensorBase | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
               dilation: Sizes = 1, groups: int = 1) -> Tensor:
        """self (N, C, D, H, W) convolved by a layer, or by weight and bias."""
        return _convolved(self, weight, bias, stride, padding, dilation, groups, 3)

    def linear(self, weight: Any, bias: TensorBase | None = None) -> Tensor:
        """self (…, I) through a layer, or through weight (O, I) and bias (O)."""
        if isinstance(weight, TensorBase) and not callable(weight):
            return linear.linear(self, weight, bias)
        return weight(self)

    def max_pool1d(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                   dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
        """The largest element of each window of the last axis."""
        return pooling.max_pool(self, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)

    def max_pool2d(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                   dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
        """The largest element of each window of the last two axes."""
        return pooling.max_pool(self, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)

    def max_pool3d(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                   dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
        """The largest element of each window of the last three axes."""
        return pooling.max_pool(self, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)

    def avg_pool2d(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                   ceil_mode: bool = False, count_include_pad: bool = True,
                   divisor_override: int | None = None) -> Tensor:
        """The mean of each window of the last two axes."""
        return pooling.average_pool(
            self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)

    def dropout(self, training: bool, p: float = 0.5) -> Tensor:
        """Zeroes elements with probability p if training, dividing the rest by 1 − p."""
        return dropout.dropout(self, p, training)

    def dropout1d(self, training: bool, p: float = 0.5) -> Tensor:
        """Zeroes whole channels of (N, C, L)."""
        return dropout.dropout1d(self, p, training)

    def dropout2d(self, training: bool, p: float = 0.5) -> Tensor:
        """Zeroes whole channels of (N, C, H, W)."""
        return dropout.dropout2d(self, p, training)

    def dropout3d(self, training: bool, p: float = 0.5) -> Tensor:
        """Zeroes whole channels of (N, C, D, H, W)."""
        return dropout.dropout3d(self, p, training)

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return activations.relu(self)

    def relu_(self) -> Tensor:
        """max(x, 0), in place."""
        return activations.relu(self, True)

    def prelu(self, weight: TensorBase) -> Tensor:
        """x where x > 0, else weight · x."""
        return activations.prelu(self, weight)

    def hardshrink(self, lambd: float = 0.5) -> Tensor:
        """x where |x| > lambd, else 0."""
        return activations.hardshrink(self, lambd)

    def softmax(self, dim: int | None = None, dtype: DType | None = None) -> Tensor:
        """exp(x) / Σ exp(x) along `dim`; without one, PyTorch's implicit choice with its warning."""
        return activations.softmax(self, dim, dtype=dtype)

    def log_softmax(self, dim: int | None = None, dtype: DType | None = None) -> Tensor:
        """log(softmax(x)) along `dim`; without one, PyTorch's implicit choice with its warning."""
        return activations.log_softmax(self, dim, dtype=dtype)
