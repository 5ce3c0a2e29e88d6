"""Padding of the last one, two or three axes: with a constant, mirrored, repeated at the edge, or going round.

A number pads both ends of every axis; a sequence gives pairs from the last axis backwards, as `F.pad` takes them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torturous.nn import functional as F
from torturous.nn.modules.module import Module
from torturous.tensor import Tensor


class _Padding(Module):
    dimensions: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.dimensions) if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return str(self.padding)


class _ConstantPad(_Padding):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return str(self.padding)


class ConstantPad1d(_ConstantPad):
    """(N, C, L) or (C, L) continued with `value`."""

    dimensions = 1


class ConstantPad2d(_ConstantPad):
    """(N, C, H, W) or (C, H, W) continued with `value`."""

    dimensions = 2


class ConstantPad3d(_ConstantPad):
    """(N, C, D, H, W) or (C, D, H, W) continued with `value`."""

    dimensions = 3


class ZeroPad1d(_ZeroPad):
    """(N, C, L) or (C, L) continued with zeros."""

    dimensions = 1


class ZeroPad2d(_ZeroPad):
    """(N, C, H, W) or (C, H, W) continued with zeros."""

    dimensions = 2


class ZeroPad3d(_ZeroPad):
    """(N, C, D, H, W) or (C, D, H, W) continued with zeros."""

    dimensions = 3


class ReflectionPad1d(_Padding):
    """(N, C, L) or (C, L) continued mirrored at the edge, which is not repeated."""

    dimensions = 1
    mode = "reflect"


class ReflectionPad2d(_Padding):
    """(N, C, H, W) or (C, H, W) continued mirrored at the edge, which is not repeated."""

    dimensions = 2
    mode = "reflect"


class ReflectionPad3d(_Padding):
    """(N, C, D, H, W) or (C, D, H, W) continued mirrored at the edge, which is not repeated."""

    dimensions = 3
    mode = "reflect"


class ReplicationPad1d(_Padding):
    """(N, C, L) or (C, L) continued by its edge."""

    dimensions = 1
    mode = "replicate"


class ReplicationPad2d(_Padding):
    """(N, C, H, W) or (C, H, W) continued by its edge."""

    dimensions = 2
    mode = "replicate"


class ReplicationPad3d(_Padding):
    """(N, C, D, H, W) or (C, D, H, W) continued by its edge."""

    dimensions = 3
    mode = "replicate"


class CircularPad1d(_Padding):
    """(N, C, L) or (C, L) continued by its other end."""

    dimensions = 1
    mode = "circular"


class CircularPad2d(_Padding):
    """(N, C, H, W) or (C, H, W) continued by its other end."""

    dimensions = 2
    mode = "circular"


class CircularPad3d(_Padding):
    """(N, C, D, H, W) or (C, D, H, W) continued by its other end."""

    dimensions = 3
    mode = "circular"
