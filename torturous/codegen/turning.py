"""Squares of LANES × LANES elements, turned in registers: what lies along one axis in memory and is wanted along
another."""

from __future__ import annotations

from collections.abc import Sequence

from torturous.codegen.builder import Builder
from torturous.codegen.expressions import LANES


def turned(b: Builder, kind: str, rows: Sequence[str]) -> list[str]:
    """The columns of LANES row vectors of this type, by exchanging ever smaller blocks across the diagonal."""
    current = list(rows)
    distance = LANES // 2
    while distance:
        low = [lane if not lane & distance else lane - distance + LANES for lane in range(LANES)]
        high = [lane + distance if not lane & distance else lane + LANES for lane in range(LANES)]
        for first in range(LANES):
            if first & distance:
                continue
            a, c = current[first], current[first + distance]
            for row, picked in ((first, low), (first + distance, high)):
                indices = ", ".join(f"i32 {index}" for index in picked)
                current[row] = b.value(f"shufflevector {kind} {a}, {kind} {c}, <{LANES} x i32> <{indices}>")
        distance //= 2
    return current
