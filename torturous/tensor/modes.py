"""Settings that programs make for all tensors: what is asked for is what is done here in any case, or it is refused."""

from __future__ import annotations

import warnings
from typing import Any

from torturous.core.devices import CPU, check_device, device
from torturous.core.dtypes import DType
from torturous.tensor.creation import TENSOR_TYPES, TensorType
from torturous.tensor.types import set_default_dtype

_PRECISIONS = ("highest", "high", "medium")
_modes: dict[str, Any] = {"precision": "highest", "deterministic": False, "warn only": False}


def set_float32_matmul_precision(precision: str) -> None:
    """Allows products of float32 to be rounded more coarsely ("high", "medium") than "highest".

    Products are always of the highest precision here, as PyTorch's are on most processors. Warns for another word.
    """
    if precision not in _PRECISIONS:
        warnings.warn(f"{precision} is not one of 'highest', 'high', or 'medium'; the precision stays as it was",
                      stacklevel=2)
        return
    _modes["precision"] = precision


def get_float32_matmul_precision() -> str:
    return _modes["precision"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Asks for the same bits in every run; every operation here gives them anyway, with any number of threads."""
    _modes["deterministic"], _modes["warn only"] = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    return _modes["deterministic"]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    return _modes["deterministic"] and _modes["warn only"]


def set_default_device(device: Any) -> None:
    """Where new tensors are to lie: the CPU (or None); as `check_device` raises for another device."""
    check_device(device)


def get_default_device() -> device:
    return CPU


def set_flush_denormal(mode: bool) -> bool:
    """Whether tiny numbers can be taken for zero as asked: they never are."""
    return not mode


def set_default_tensor_type(t: TensorType | str | DType) -> None:
    """Makes the dtype of one of the old types ("torch.DoubleTensor") the default; TypeError for integers."""
    names = {f"torch.{kind.__name__}": kind for kind in TENSOR_TYPES.values()}
    if isinstance(t, str):
        if t not in names:
            raise TypeError(f"invalid type object: '{t}' is not one of {', '.join(names)}")
        t = names[t]
    if not isinstance(t, (TensorType, DType)):
        raise TypeError("invalid type object: only floating-point types are supported as the default type")
    set_default_dtype(t.dtype if isinstance(t, TensorType) else t)


__all__ = [
    "are_deterministic_algorithms_enabled", "get_default_device", "get_float32_matmul_precision",
    "is_deterministic_algorithms_warn_only_enabled", "set_default_device", "set_default_tensor_type",
    "set_float32_matmul_precision", "set_flush_denormal", "use_deterministic_algorithms",
]
