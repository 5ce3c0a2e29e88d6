"""`torch.accelerator` where there is none: questions are answered, whatever needs one raises RuntimeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.core.devices import device


def is_available() -> bool:
    """Whether there is an accelerator: never."""
    return False


def device_count() -> int:
    return 0


def current_accelerator(check_available: bool = False) -> device | None:
    """The kind of accelerator there is: None."""
    return None


def _needing(name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError(
            f"torch.accelerator.{name}(): Cannot access accelerator device when none is available; ask "
            "torch.accelerator.is_available() first")

    function.__name__ = name
    function.__doc__ = "Raises RuntimeError: there is no accelerator."
    return function


(current_device_idx, current_device_index, current_stream, empty_cache, max_memory_allocated, memory_allocated,
 memory_reserved, reset_peak_memory_stats, set_device_idx, set_device_index, set_stream, synchronize) = map(_needing, (
     "current_device_idx", "current_device_index", "current_stream", "empty_cache", "max_memory_allocated",
     "memory_allocated", "memory_reserved", "reset_peak_memory_stats", "set_device_idx", "set_device_index",
     "set_stream", "synchronize"))
