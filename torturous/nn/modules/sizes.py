"""Sizes of layers: an integer stands for the same value along every spatial dimension."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def per_dimension(value: Any, dimensions: int) -> tuple[Any, ...]:
    """`value` once per spatial dimension: `3` becomes `(3, 3)`, a sequence becomes a tuple as it is."""
    if isinstance(value, Iterable):
        return tuple(value)
    return (value,) * dimensions
