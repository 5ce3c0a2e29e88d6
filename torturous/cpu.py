"""`torch.cpu`: the one device there is."""

from __future__ import annotations

from typing import Any

from torturous.runtime.flight import land
from torturous.runtime.realize import realize


def is_available() -> bool:
    """Whether there is a CPU: always."""
    return True


def is_initialized() -> bool:
    """Whether the CPU is ready: always."""
    return True


def device_count() -> int:
    return 1


def current_device() -> str:
    return "cpu"


def set_device(device: Any) -> None:
    """Chooses among CPUs, of which there is one: nothing happens, as in PyTorch."""


def synchronize(device: Any = None) -> None:
    """Returns when everything that this thread has asked for, and somebody still wants, has been computed.

    Nothing needs it but a clock: `optimizer.step()` returns while its values are computed, and whoever looks at them
    waits by itself. `device` makes no difference, as in PyTorch.
    """
    realize()
    land()
