"""Interleaved timing: contestants take turns, so that a noisy machine is noisy for all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Measure = Callable[[int], list[float]]
"""Calls the contestant's program this often and gives the seconds of each call."""

ROUND_SECONDS = 0.08
"""What one contestant's turn takes, roughly; longer if a single call is."""
MOST_CALLS = 50


@dataclass
class Timing:
    """Seconds a call: a median for every round, and the smallest of all."""

    rounds: list[float] = field(default_factory=list)
    minimum: float = math.inf

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def add(self, times: list[float]) -> None:
        self.rounds.append(statistics.median(times))
        self.minimum = min(self.minimum, *times)


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for a case, and bounds for its rounds."""

    seconds: float
    least: int
    most: int


FULL = Effort(4.0, 5, 25)
QUICK = Effort(1.0, 3, 8)
ONCE = Effort(0.0, 1, 1)


def interleaved(
    contestants: Mapping[str, Measure], estimates: Mapping[str, float], effort: Effort
) -> dict[str, Timing]:
    """Times contestants round by round, in alternating order. `estimates` says roughly how long a call takes."""
    calls = {name: max(1, min(MOST_CALLS, round(ROUND_SECONDS / max(estimates[name], 1e-9)))) for name in contestants}
    turn = sum(estimates[name] * (calls[name] + 1) for name in contestants)
    rounds = max(effort.least, min(effort.most, int(effort.seconds / max(turn, 1e-9))))
    timings = {name: Timing() for name in contestants}
    for number in range(rounds):
        order = list(contestants)
        if number % 2:
            order.reverse()
        for name in order:
            timings[name].add(contestants[name](calls[name]))
    return timings


def ratio(theirs: Timing, ours: Timing) -> float:
    """How many times faster ours is: the median over rounds, each of which compares neighbours in time."""
    return statistics.median(a / b for a, b in zip(theirs.rounds, ours.rounds, strict=True))
