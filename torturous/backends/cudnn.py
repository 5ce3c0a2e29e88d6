"""NVIDIA's library of network operations, which is not used here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

enabled = True
"""Whether it would be used."""
benchmark = False
"""Whether it would try its algorithms to choose the fastest."""
benchmark_limit = 10
deterministic = False
"""Whether it would use only algorithms that give the same bits every time; everything here does."""
allow_tf32 = True
"""Whether it would round products to 19 bits; nothing here does."""


def is_available() -> bool:
    return False


def version() -> int | None:
    """Its version: None, since it is not there."""
    return None


@contextmanager
def flags(enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10, deterministic: bool = False,
          allow_tf32: bool = True, fp32_precision: str = "none") -> Iterator[None]:
    """Within it the switches are set so."""
    wanted: dict[str, Any] = {
        "enabled": enabled, "benchmark": benchmark, "benchmark_limit": benchmark_limit,
        "deterministic": deterministic, "allow_tf32": allow_tf32}
    switches = globals()
    saved = {name: switches[name] for name in wanted}
    switches.update(wanted)
    try:
        yield
    finally:
        switches.update(saved)
