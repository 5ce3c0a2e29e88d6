"""Intervals: between which numbers something lies, both ends included, and arithmetic with them (Moore, 1966)."""

from __future__ import annotations

from math import inf

Interval = tuple[float, float]
"""The least and the greatest; of integers both are ints or infinite."""
EVERYTHING: Interval = (-inf, inf)


def hull(*intervals: Interval) -> Interval:
    """The smallest that has all of these."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def added(a: Interval, b: Interval) -> Interval:
    """The sums of an element of each."""
    return a[0] + b[0], a[1] + b[1]


def subtracted(a: Interval, b: Interval) -> Interval:
    """The differences."""
    return a[0] - b[1], a[1] - b[0]


def multiplied(a: Interval, b: Interval) -> Interval:
    """The products; everything if an end is infinite."""
    if inf in (*map(abs, a), *map(abs, b)):
        return EVERYTHING
    products = [x * y for x in a for y in b]
    return min(products), max(products)


def larger(a: Interval, b: Interval) -> Interval:
    """The larger of an element of each."""
    return max(a[0], b[0]), max(a[1], b[1])


def smaller(a: Interval, b: Interval) -> Interval:
    """The smaller."""
    return min(a[0], b[0]), min(a[1], b[1])


def remainders(divisor: Interval) -> Interval:
    """What is left by a divisor, if that is positive."""
    return (0, divisor[1] - 1) if divisor[0] > 0 else EVERYTHING
