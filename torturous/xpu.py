"""`torch.xpu` where there are no such GPUs (Intel's GPUs): questions are answered."""

from __future__ import annotations


def is_available() -> bool:
    """Whether there is such a GPU: never."""
    return False


def device_count() -> int:
    return 0


def manual_seed(seed: int) -> None:
    """Seeds the generator of such a GPU once there is one; `torch.manual_seed` seeds the CPU's."""
    int(seed)
