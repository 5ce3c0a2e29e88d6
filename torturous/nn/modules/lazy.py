"""Layers whose input size is learned from their first input.

Their parameters are *uninitialized* until then: they have no shape, and only `materialize` gives them one. After its
first call a lazy layer is an ordinary one, of the ordinary class.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torturous.nn.modules.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    _NormBase,
)
from torturous.nn.modules.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    _Convolution,
)
from torturous.nn.modules.linear import Linear
from torturous.nn.modules.module import Module
from torturous.nn.parameter import UninitializedParameter
from torturous.tensor import Tensor, empty, int64, ones, tensor, zeros


class _Lazy(Module):
    """What lazy layers share: they look at their first input before they are called with it."""

    becomes: ClassVar[type[Module]]
    # Uninitialized parameters, at first.
    weight: Any
    bias: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.has_uninitialized_params():
            self.initialize_parameters(*args, **kwargs)
        self.__class__ = self.becomes  # type: ignore[assignment]
        return self(*args, **kwargs)

    def has_uninitialized_params(self) -> bool:
        """Whether the layer has not seen an input, nor loaded a state."""
        return any(isinstance(parameter, UninitializedParameter) for parameter in self._parameters.values())

    def initialize_parameters(self, input: Tensor) -> None:
        """Take the sizes that are missing from an input."""
        raise NotImplementedError


class LazyLinear(_Lazy, Linear):
    """`Linear` whose `in_features` is the size of the first input's last axis."""

    becomes = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, False, device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(dtype=dtype)
        self.bias = UninitializedParameter(dtype=dtype) if bias else None

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        self.in_features = input.shape[-1]
        self.weight.materialize((self.out_features, self.in_features))
        if self.bias is not None:
            self.bias.materialize((self.out_features,))
        Linear.reset_parameters(self)


class _LazyConvolution(_Lazy, _Convolution):
    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()

    def _begin(self, out_channels: int, bias: bool, dtype: Any) -> None:
        self.out_channels = out_channels
        self.weight = UninitializedParameter(dtype=dtype)
        self.bias = UninitializedParameter(dtype=dtype) if bias else None

    def initialize_parameters(self, input: Tensor, *rest: Any) -> None:
        batched = input.dim() == self.dimensions + 2
        if not batched and input.dim() != self.dimensions + 1:
            raise RuntimeError(f"Expected {self.dimensions + 1}D (unbatched) or {self.dimensions + 2}D (batched) input "
                               f"to {type(self).__name__}, but got input of size: {input.shape}")
        self.in_channels = input.shape[1 if batched else 0]
        if self.in_channels % self.groups:
            raise ValueError("in_channels must be divisible by groups")
        first, second = (self.in_channels, self.out_channels) if self.transposed else (
            self.out_channels, self.in_channels)
        self.weight.materialize((first, second // self.groups, *self.kernel_size))
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        _Convolution.reset_parameters(self)


class _LazyForward(_LazyConvolution):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                 groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype)  # type: ignore[call-arg]
        self._begin(out_channels, bias, dtype)


class _LazyTransposed(_LazyConvolution):
    def __init__(self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation, padding_mode,
                         device, dtype)
        self._begin(out_channels, bias, dtype)


class LazyConv1d(_LazyForward, Conv1d):
    """`Conv1d` that takes `in_channels` from its first input."""

    becomes = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """`Conv2d` that takes `in_channels` from its first input."""

    becomes = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """`Conv3d` that takes `in_channels` from its first input."""

    becomes = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """`ConvTranspose1d` that takes `in_channels` from its first input."""

    becomes = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """`ConvTranspose2d` that takes `in_channels` from its first input."""

    becomes = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """`ConvTranspose3d` that takes `in_channels` from its first input."""

    becomes = ConvTranspose3d


class _LazyNorm(_Lazy, _NormBase):
    """A normalization whose number of channels is that of its first input."""

    running_mean: Any
    running_var: Any

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True
                 ) -> None:
        super().__init__(0, eps, momentum, False, False, device, dtype)  # type: ignore[call-arg]
        self._begin(affine, track_running_stats, bias, dtype)

    def _begin(self, affine: bool, track: bool, bias: bool, dtype: Any) -> None:
        self.affine = affine
        self.track_running_stats = track
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            self.register_parameter(name, UninitializedParameter(dtype=dtype) if wanted else None)
        if track:
            self.register_buffer("running_mean", empty(0, dtype=dtype))
            self.register_buffer("running_var", empty(0, dtype=dtype))
            self.register_buffer("num_batches_tracked", tensor(0, dtype=int64))

    def has_uninitialized_params(self) -> bool:
        return self.num_features == 0

    def reset_parameters(self) -> None:
        if self.num_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        self._check_input_dim(input)
        self.num_features = input.shape[1]
        for parameter in (self.weight, self.bias):
            if parameter is not None:
                parameter.materialize((self.num_features,))
        if self.track_running_stats:
            dtype = self.running_mean.dtype
            self.running_mean = zeros(self.num_features, dtype=dtype)
            self.running_var = ones(self.num_features, dtype=dtype)
        _NormBase.reset_parameters(self)


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """`BatchNorm1d` that takes `num_features` from its first input."""

    becomes = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """`BatchNorm2d` that takes `num_features` from its first input."""

    becomes = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """`BatchNorm3d` that takes `num_features` from its first input."""

    becomes = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """`InstanceNorm1d` that takes `num_features` from its first input."""

    becomes = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """`InstanceNorm2d` that takes `num_features` from its first input."""

    becomes = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """`InstanceNorm3d` that takes `num_features` from its first input."""

    becomes = InstanceNorm3d
