"""Convolution and transposed convolution in one, two and three dimensions.

Initialised uniformly on ±1/sqrt(fan_in), in PyTorch's order of draws: weight, then bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torturous.nn import functional as F
from torturous.nn.modules.linear import init_weight_and_bias
from torturous.nn.modules.module import Module
from torturous.nn.modules.sizes import per_dimension
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, empty

PADDING_STRINGS = ("same", "valid")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolution layers share; a subclass says how many spatial `dimensions` it has."""

    dimensions: ClassVar[int]
    transposed: ClassVar[bool] = False
    convolve: ClassVar[Callable[..., Tensor]]
    """What of `functional` does it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_dimension(kernel_size, self.dimensions)
        self.stride = per_dimension(stride, self.dimensions)
        self.padding = padding if isinstance(padding, str) else per_dimension(padding, self.dimensions)
        self.dilation = per_dimension(dilation, self.dimensions)
        self.output_padding = per_dimension(output_padding, self.dimensions)
        self.groups = groups
        self.padding_mode = padding_mode
        self._check_options()

        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (channels[0], channels[1] // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _check_options(self) -> None:
        if self.groups <= 0:
            raise ValueError("groups must be a positive integer")
        if self.in_channels % self.groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if self.out_channels % self.groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        if isinstance(self.padding, str):
            if self.padding not in PADDING_STRINGS:
                raise ValueError(
                    f"Invalid padding string {self.padding!r}, should be one of {PADDING_STRINGS}"
                )
            if self.padding == "same" and any(stride != 1 for stride in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(
                f"padding_mode must be one of {PADDING_MODES}, but got padding_mode='{self.padding_mode}'"
            )

    def reset_parameters(self) -> None:
        """Draw weight and bias afresh."""
        init_weight_and_bias(self.weight, self.bias)

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ]
        if self.padding != (0,) * len(self.padding):
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.dimensions:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != (0,) * self.dimensions:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _ForwardConvolution(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _edges(self) -> list[int]:
        """How much to pad before and after each dimension, in the order of `F.pad`: last dimension first."""
        edges: list[int] = []
        before: Any
        after: Any
        for dimension in reversed(range(self.dimensions)):
            if self.padding == "valid":
                before = after = 0
            elif self.padding == "same":
                total = self.dilation[dimension] * (self.kernel_size[dimension] - 1)
                before, after = total // 2, total - total // 2
            else:
                before = after = self.padding[dimension]
            edges += [before, after]
        return edges

    def _prepare(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input and the padding that is left for the convolution: zeros are its own business."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._edges(), mode=self.padding_mode), 0

    def forward(self, input: Tensor) -> Tensor:
        input, padding = self._prepare(input)
        return self.convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_ForwardConvolution):
    """Convolution: (N, in_channels, L) to (N, out_channels, L'), with or without N."""

    dimensions = 1
    convolve = staticmethod(F.conv1d)


class Conv2d(_ForwardConvolution):
    """Convolution: (N, in_channels, H, W) to (N, out_channels, H', W'), with or without N."""

    dimensions = 2
    convolve = staticmethod(F.conv2d)


class Conv3d(_ForwardConvolution):
    """Convolution: (N, in_channels, D, H, W) to (N, out_channels, D', H', W'), with or without N."""

    dimensions = 3
    convolve = staticmethod(F.conv3d)


class _TransposedConvolution(_Convolution):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        if isinstance(padding, str):
            raise TypeError(f"{type(self).__name__}: padding must be integers, but got {padding!r}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _padding_for(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding that gives `output_size`, which may include the batch and channels.

        Raises `ValueError` if no padding smaller than the stride gives it.
        """
        if output_size is None:
            return self.output_padding
        leading = 2 if input.dim() == self.dimensions + 2 else 1
        wanted = list(output_size)
        if len(wanted) == leading + self.dimensions:
            wanted = wanted[leading:]
        if len(wanted) != self.dimensions:
            raise ValueError(
                f"ConvTranspose{self.dimensions}D: for {input.dim()}D input, output_size must have "
                f"{self.dimensions} or {leading + self.dimensions} elements (got {len(wanted)})"
            )
        smallest = [
            (input.shape[leading + dimension] - 1) * self.stride[dimension]
            - 2 * self.padding[dimension]
            + self.dilation[dimension] * (self.kernel_size[dimension] - 1)
            + 1
            for dimension in range(self.dimensions)
        ]
        largest = [least + stride - 1 for least, stride in zip(smallest, self.stride, strict=True)]
        for size, least, most in zip(wanted, smallest, largest, strict=True):
            if not least <= size <= most:
                raise ValueError(
                    f"requested an output size of {wanted}, but valid sizes range from {smallest} to "
                    f"{largest} (for an input of {input.shape[leading:]})"
                )
        return tuple(size - least for size, least in zip(wanted, smallest, strict=True))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return self.convolve(input, self.weight, self.bias, self.stride, self.padding,
                             self._padding_for(input, output_size), self.groups, self.dilation)


class ConvTranspose1d(_TransposedConvolution):
    """Transposed convolution: (N, in_channels, L) to (N, out_channels, L'), with or without N."""

    dimensions = 1
    convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_TransposedConvolution):
    """Transposed convolution: (N, in_channels, H, W) to (N, out_channels, H', W'), with or without N."""

    dimensions = 2
    convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_TransposedConvolution):
    """Transposed convolution: (N, in_channels, D, H, W) to (N, out_channels, D', H', W')."""

    dimensions = 3
    convolve = staticmethod(F.conv_transpose3d)
