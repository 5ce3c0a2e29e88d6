"""Automatic mixed precision: within `autocast`, products are taken in sixteen bits, and losses in float32.

Which operations do so follows PyTorch's lists for the CPU. All others take what they get.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from torturous.core import dtypes
from torturous.core.devices import device as Device
from torturous.core.dtypes import DType
from torturous.tensor.base import TensorBase
from torturous.tensor.recording import cast

F = TypeVar("F", bound=Callable[..., Any])
class _Lowering(threading.local):
    """Of each thread: the dtype that autocast takes products in, where it is on."""

    dtype: DType | None = None


class _Switch:
    """How many autocasts are on, in all threads: what operations ask first, for that is quick."""

    count = 0


_lowering = _Lowering()
switch = _Switch()
_default: dict[str, DType] = {"cpu": dtypes.bfloat16, "cuda": dtypes.float16}


def _to(value: Any, dtype: DType) -> Any:
    """A floating tensor but of float64 in a dtype, tensors within sequences too; anything else as it is."""
    if isinstance(value, TensorBase):
        return cast(value, dtype) if value.dtype.is_floating_point and value.dtype is not dtypes.float64 else value
    if isinstance(value, (list, tuple)) and any(isinstance(part, TensorBase) for part in value):
        return type(value)(_to(part, dtype) for part in value)
    return value


def lowered_operands(*operands: Any) -> tuple[Any, ...]:
    """Operands of a product in autocast's dtype, if it is on in this thread."""
    dtype = _lowering.dtype
    return operands if dtype is None else tuple(_to(value, dtype) for value in operands)


def lowered(function: F) -> F:
    """A function whose operands are brought to autocast's dtype while that is on."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not switch.count:
            return function(*arguments, **named)
        return function(*lowered_operands(*arguments),
                        **dict(zip(named, lowered_operands(*named.values()), strict=True)))

    return call  # type: ignore[return-value]


def in_full(function: F) -> F:
    """A function whose operands are brought to float32 while autocast is on."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not switch.count or _lowering.dtype is None:
            return function(*arguments, **named)
        return function(*[_to(value, dtypes.float32) for value in arguments],
                        **{name: _to(value, dtypes.float32) for name, value in named.items()})

    return call  # type: ignore[return-value]


class autocast:
    """Within it, or within functions that it decorates, products of floats are taken in `dtype`.

    `dtype` is bfloat16 (the default) or float16; with another one, and for a GPU, it warns and changes nothing, as
    PyTorch does on a CPU. `cache_enabled` is PyTorch's cache of cast weights: here a cast is part of the kernel that
    needs it. ValueError where `device_type` is no string, RuntimeError where it names no device.
    """

    def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.device = Device(device_type).type
        self.fast_dtype = dtype or _default.get(self.device, dtypes.bfloat16)
        if enabled and self.device != "cpu":
            warnings.warn(f"autocast('{device_type}'): there is no such device, only the CPU. Disabling autocast.",
                          stacklevel=2)
            enabled = False
        if enabled and not self.fast_dtype.is_half:
            warnings.warn("In CPU autocast, but the target dtype is not supported. Disabling autocast.\nCPU Autocast "
                          "only supports dtypes of torch.bfloat16, torch.float16 currently.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        self._before: list[DType | None] = []

    def __enter__(self) -> autocast:
        self._before.append(_lowering.dtype)
        if self.device == "cpu":
            _lowering.dtype = self.fast_dtype if self._enabled else None
        switch.count += 1
        return self

    def __exit__(self, *error: object) -> None:
        _lowering.dtype = self._before.pop()
        switch.count -= 1

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with self:
                return function(*arguments, **named)

        return call  # type: ignore[return-value]


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on for a device; without one, for GPUs: never."""
    return device_type == "cpu" and _lowering.dtype is not None


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that products are taken in while autocast is on, or would be by default."""
    if device_type == "cpu" and _lowering.dtype is not None:
        return _lowering.dtype
    return _default.get(device_type, dtypes.bfloat16)


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Sets the default."""
    _default[device_type] = dtype


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast can be on for a device."""
    return Device(device_type).type == "cpu"


__all__ = ["autocast", "get_autocast_dtype", "is_autocast_enabled", "set_autocast_dtype"]
