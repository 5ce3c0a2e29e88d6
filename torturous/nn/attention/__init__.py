"""Which implementation of attention may be used: PyTorch's `torch.nn.attention`, of whose choices there is one here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any


class SDPBackend(IntEnum):
    """PyTorch's implementations of `scaled_dot_product_attention`; all of them mean the same values."""

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4


@contextmanager
def sdpa_kernel(backends: Any, set_priority: bool = False) -> Iterator[None]:
    """Allows only some implementations within the block. One serves all of them here: values are theirs.

    `AssertionError` for anything that is not a backend or a list of them.
    """
    chosen = [backends] if isinstance(backends, SDPBackend) else backends
    if not isinstance(chosen, (list, tuple)) or not all(isinstance(backend, SDPBackend) for backend in chosen):
        raise AssertionError("Backend must be an instance of SDPBackend or a list of SDPBackend instances")
    if not chosen or list(chosen) == [SDPBackend.ERROR]:
        raise RuntimeError("No viable backend for scaled_dot_product_attention was found.")
    yield


__all__ = ["SDPBackend", "sdpa_kernel"]
