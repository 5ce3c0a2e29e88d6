"""Slots on their way into a plan: Python numbers packed as the words that kernels read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType


def pack_format(dtype: DType) -> str:
    """The `struct` format of a slot of this dtype: eight bytes, the value in the first ones."""
    return {"float32": "f4x", "float64": "d"}.get(dtype.name, "q")


def converter(dtype: DType) -> Callable[[Any], Any]:
    """Makes a Python number ready to be packed."""
    if dtype is dtypes.float32:
        return _single
    if dtype is dtypes.float64:
        return float
    if dtype is dtypes.bool_:
        return bool
    bits = dtype.itemsize * 8

    def wrapped(number: Any) -> int:
        whole = int(number) if number == number and abs(number) != float("inf") else -(1 << (bits - 1))
        return (whole + (1 << 63)) % (1 << 64) - (1 << 63)

    return wrapped


_MOST_SINGLE = 3.4028235677973366e38


def _single(number: Any) -> float:
    number = float(number)
    if -_MOST_SINGLE < number < _MOST_SINGLE or number != number:
        return number
    return float("inf" if number > 0 else "-inf")
