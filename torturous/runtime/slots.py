"""Slots on their way into a plan: Python numbers packed as the words that kernels read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType


def pack_format(dtype: DType) -> str:
    """The `struct` format of a slot of this dtype: eight bytes, the value in the first ones."""
    return {"float32": "f4x", "float64": "d", "bool": "?7x"}.get(dtype.name, "q")


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


class Packing:
    """Packs some of a record's numbers, in a given order, as a word of eight bytes each."""

    def __init__(self, slots: Sequence[tuple[int, DType]]) -> None:
        """Which numbers, and the types that kernels read them in."""
        self._sources = [(ordinal, converter(dtype)) for ordinal, dtype in slots]
        ordinals = [ordinal for ordinal, _ in slots]
        # A getter of one item gives no tuple, so there are always two.
        self._pick = itemgetter(*ordinals, 0) if len(slots) == 1 else itemgetter(*ordinals)
        self._count = len(slots)
        self._format = struct.Struct("<" + "".join(pack_format(dtype) for _, dtype in slots))

    def pack(self, memory: Any, offset: int, numbers: Sequence[bool | int | float]) -> None:
        try:
            self._format.pack_into(memory, offset, *self._pick(numbers)[:self._count])
        except (struct.error, OverflowError):  # A number of another category than its word, or out of range.
            words = [convert(numbers[ordinal]) for ordinal, convert in self._sources]
            self._format.pack_into(memory, offset, *words)
