"""What the arguments of `Module.to` mean."""

from __future__ import annotations

from typing import Any

from torturous.tensor import Tensor
from torturous.tensor import device as Device
from torturous.tensor import dtype as DType


def parse_to(
    *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False
) -> tuple[Any, Any, bool]:
    """Sort the arguments of `Module.to` into device, dtype and `non_blocking`."""
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, bool):
            non_blocking = value
        elif isinstance(value, DType):
            dtype = value
        elif isinstance(value, (str, int, Device)):
            device = value
        elif value is not None:
            raise TypeError(f"to() received an invalid combination of arguments: got {type(value).__name__}")
    return device, dtype, non_blocking
