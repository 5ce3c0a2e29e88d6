"""Squares of LANES × LANES elements, turned in registers: what lies along one axis in memory and is wanted along
another.

Registers are made of stretches of sixteen bytes, within which elements move most easily. So elements of four bytes are
turned in fours by their stretches (interleaved one by one, then two by two), and stretches in fours after that; each
step is one instruction on machines from SSE2 on. Others are turned by exchanging ever smaller blocks across the
diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torturous.codegen.builder import Builder
from torturous.codegen.expressions import LANES

STRETCH = 4
"""Elements of four bytes in sixteen."""
_STARTS = range(0, LANES, STRETCH)


def _within(*places: int) -> tuple[int, ...]:
    """In every stretch, elements at these places of the same stretch of two vectors, the second's from STRETCH on."""
    return tuple(start + place + (LANES - STRETCH) * (place >= STRETCH) for start in _STARTS for place in places)


def _stretches(first: int) -> tuple[int, ...]:
    """Every second stretch of two vectors."""
    return tuple(start + place for start in range(first * STRETCH, 2 * LANES, 2 * STRETCH) for place in range(STRETCH))


_ONE_BY_ONE = _within(0, 4, 1, 5), _within(2, 6, 3, 7)
_TWO_BY_TWO = _within(0, 1, 4, 5), _within(2, 3, 6, 7)
_EVERY_SECOND = _stretches(0), _stretches(1)


def turned(b: Builder, kind: str, rows: Sequence[str]) -> list[str]:
    """The columns of LANES row vectors of this type."""
    way = _by_stretches if kind in (f"<{LANES} x float>", f"<{LANES} x i32>") else _halved
    return way(b, kind, rows)


def _by_stretches(b: Builder, kind: str, rows: Sequence[str]) -> list[str]:
    # LLVM looks for better ways to shuffle through as many shuffles as it finds, which takes most of the time that the
    # kernels of many products compile in. Where a vector is a register there are none.
    fenced = b.target.has_avx512 and "float" in kind

    def fence(value: str) -> str:
        return b.call(kind, f"llvm.arithmetic.fence.v{LANES}f32", (kind, value)) if fenced else value

    def pair(how: tuple[tuple[int, ...], tuple[int, ...]], first: str, second: str) -> list[str]:
        return [_shuffled(b, kind, first, second, picked) for picked in how]

    turned_within = []
    for start in _STARTS:
        one, two, three, four = rows[start:start + STRETCH]
        low, high = (list(map(fence, pair(_ONE_BY_ONE, *each))) for each in ((one, two), (three, four)))
        columns = [column for each in zip(low, high, strict=True) for column in pair(_TWO_BY_TWO, *each)]
        turned_within.append(list(map(fence, columns)))
    found = [""] * LANES
    for column, (one, two, three, four) in enumerate(zip(*turned_within, strict=True)):
        low, high = (list(map(fence, pair(_EVERY_SECOND, *each))) for each in ((one, two), (three, four)))
        for parity in range(2):
            even, odd = pair(_EVERY_SECOND, low[parity], high[parity])
            found[column + STRETCH * parity], found[column + STRETCH * (parity + 2)] = even, odd
    return found


def _halved(b: Builder, kind: str, rows: Sequence[str]) -> list[str]:
    current = list(rows)
    distance = LANES // 2
    while distance:
        low = tuple(lane if not lane & distance else lane - distance + LANES for lane in range(LANES))
        high = tuple(lane + distance if not lane & distance else lane + LANES for lane in range(LANES))
        for first in range(LANES):
            if first & distance:
                continue
            a, c = current[first], current[first + distance]
            for row, picked in ((first, low), (first + distance, high)):
                current[row] = _shuffled(b, kind, a, c, picked)
        distance //= 2
    return current


def _shuffled(b: Builder, kind: str, first: str, second: str, picked: Sequence[int]) -> str:
    return b.value(f"shufflevector {kind} {first}, {kind} {second}, {_mask(tuple(picked))}")


@cache
def _mask(picked: tuple[int, ...]) -> str:
    return f"<{LANES} x i32> <{', '.join(f'i32 {index}' for index in picked)}>"
