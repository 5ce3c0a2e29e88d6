"""Bars: what a case is to reach at least, and whether it does."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.suite.sides import COMPILED, EAGER, LABELS, ONNX, OURS
from torturous.runtime.peak import Peak

if TYPE_CHECKING:
    from benchmarks.suite.run import Row

BANDWIDTH = 0.85
"""Of a triad's: where memory is the limit, a case that reaches as much need not be faster than anyone."""


@dataclass(frozen=True)
class Bar:
    """What a case is to reach; 0 and False where nothing is asked."""

    eager: float = 0
    """How many times faster than PyTorch eager."""
    better: float = 0
    """Than the better of PyTorch eager and torch.compile."""
    onnxruntime: float = 0
    """Than ONNX Runtime."""
    mean: float = 0
    """Than PyTorch eager, in the geometric mean over all cases of the workload that ask for it."""
    cold: float = 0
    """Seconds that the first call may take, with nothing cached."""
    warm: float = 0
    """The same with a full cache."""
    memory: bool = False
    """Whether the peak of memory may be no more than PyTorch eager's."""


class Verdict(NamedTuple):
    """A bar, what was reached, and whether that is enough."""

    bar: str
    reached: str
    met: bool

    def __str__(self) -> str:
        return f"{self.bar}: {self.reached}{'' if self.met else ', SHORT'}"


def verdicts(row: Row, peak: Peak) -> Iterator[Verdict]:
    """Of everything that is asked of a case and was measured."""
    bar, ours = row.bar, row.sides.get(OURS)
    if bar is None or ours is None or not ours.median:
        return
    better = row.better if row.ratio(COMPILED) else None  # Without torch.compile nobody knows which is the better.
    share = row.bytes / ours.median / peak.bandwidth
    for wanted, reached, whom in ((bar.eager, row.ratio(EAGER), LABELS[EAGER]), (bar.better, better, "the better"),
                                  (bar.onnxruntime, row.ratio(ONNX), LABELS[ONNX])):
        if wanted and reached:
            memory = f", {share:.0%} of a triad" if row.bytes else ""
            yield Verdict(f"{wanted:g}× {whom}", f"{reached:.2f}×{memory}", reached >= wanted or share >= BANDWIDTH)
    for allowed, seconds, which in ((bar.cold, ours.first, "first call"), (bar.warm, ours.warm, "first call, warm")):
        if allowed and seconds:
            yield Verdict(f"{which} {allowed:g} s", f"{seconds:.2f} s", seconds <= allowed)
    theirs = row.sides.get(EAGER)
    if bar.memory and theirs is not None and theirs.memory and ours.memory:
        yield Verdict(f"memory {theirs.memory:.0f} MB", f"{ours.memory:.0f} MB", ours.memory <= theirs.memory)


def of_all(rows: Sequence[Row], peak: Peak) -> list[Verdict]:
    """Of several cases, those that ask for a mean judged together."""
    found = [verdict for row in rows for verdict in verdicts(row, peak)]
    together = [(row.bar.mean, ratio) for row in rows if row.bar and row.bar.mean and (ratio := row.ratio(EAGER))]
    if together:
        wanted = max(mean for mean, _ in together)
        reached = statistics.geometric_mean(ratio for _, ratio in together)
        found.append(Verdict(f"{wanted:g}× {LABELS[EAGER]} in the mean", f"{reached:.2f}×", reached >= wanted))
    return found
