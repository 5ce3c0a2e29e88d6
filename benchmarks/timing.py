"""Interleaved timing, and the table that reports it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Timing:
    """Seconds a call: the smallest, and the median over rounds."""

    minimum: float
    median: float


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int = 20, calls: int = 5) -> dict[str, Timing]:
    """Times all contestants in turn, round by round, in alternating order; a round is the median of its calls."""
    for run in contestants.values():
        run()
        run()
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    lowest = dict.fromkeys(contestants, float("inf"))
    for number in range(rounds):
        order = list(contestants)
        if number % 2:
            order.reverse()
        for name in order:
            run = contestants[name]
            run()  # The first call after another contestant pays for cold caches and sleeping threads.
            times = []
            for _ in range(calls):
                started = time.perf_counter()
                run()
                times.append(time.perf_counter() - started)
            samples[name].append(statistics.median(times))
            lowest[name] = min(lowest[name], *times)
    return {name: Timing(lowest[name], statistics.median(values)) for name, values in samples.items()}


def report(title: str, timings: dict[str, Timing], ours: str = "torturous") -> None:
    """Prints times and the ratios of the others' medians and minima to ours (above 1: ours is faster)."""
    print(title)
    print(f"  {'':24}{'median ms':>12}{'min ms':>12}{'ratio (median)':>16}{'ratio (min)':>14}")
    base = timings[ours]
    for name, timing in timings.items():
        ratio = "" if name == ours else f"{timing.median / base.median:.2f}"
        least = "" if name == ours else f"{timing.minimum / base.minimum:.2f}"
        print(f"  {name:24}{timing.median * 1e3:12.3f}{timing.minimum * 1e3:12.3f}{ratio:>16}{least:>14}")
