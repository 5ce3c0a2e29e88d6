"""`TORTUROUS_TUNE=1`: shares of work are measured, and the winners remembered beside the compiled kernels.

What is tuned is how work is shared out (`shares`), which changes no result and needs no compiling. Winners found once
are used by all later processes, tuning or not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from torturous.codegen.kernels import Generated
from torturous.codegen.target import host_target
from torturous.core import settings
from torturous.runtime import build
from torturous.runtime.shares import Evaluate, Shares, other_granules, other_groups, share_out, shared

ROUNDS = 5
"""Times that each candidate is measured; the shortest counts."""
WORTH = 0.03
"""Share of the time that a winner has to save."""
LEAST_COST = 1 << 16
"""Kernels of less rough cost than this are not measured: a call takes longer than what could be won."""
NAME = "tuned shares"

Measure = Callable[[Shares], float]

_winners: dict[str, dict[str, list[int]]] = {}
"""By target, then by what `_question` says: granule, then units of each divided extent."""


def chosen(kernel: Generated, evaluate: Evaluate, threads: int) -> Shares:
    """What has won where it was measured, else the model's choice."""
    best = winners()
    known = best.get(_question(kernel, evaluate, threads)) if best else None
    if known is None or len(known) != len(kernel.work.divided) + 1:
        return share_out(kernel, evaluate, threads)
    return shared(kernel, evaluate, known[1:], known[0])


def winners() -> dict[str, list[int]]:
    """All that is known for this target: read from the cache at the first use."""
    target = host_target(settings.target.value)
    if target.name not in _winners:
        kept = build.recall(NAME, target)
        _winners[target.name] = json.loads(kept) if kept is not None else {}
    return _winners[target.name]


def _question(kernel: Generated, evaluate: Evaluate, threads: int) -> str:
    """A kernel at certain sizes with a number of threads."""
    work = kernel.work
    sizes = [evaluate(size) for size in (work.outer, *(part.extent for part in work.divided), work.cost)]
    return f"{kernel.symbol} {'×'.join(map(str, sizes))} {threads}"


@dataclass
class Tuner:
    """Measures kernels of one run."""

    threads: int
    found: dict[str, list[int]] = field(default_factory=dict)

    def tune(self, kernel: Generated, evaluate: Evaluate, measure: Measure) -> None:
        """Finds the best shares of a kernel, and leaves it with them. `measure` gives a run's seconds."""
        question = _question(kernel, evaluate, self.threads)
        model = share_out(kernel, evaluate, self.threads)
        if question in winners() or model.cost < LEAST_COST:
            return
        best = _best([model, *other_groups(kernel, evaluate)], measure)
        best = _best([model, best, *other_granules(kernel, evaluate, best)], measure)
        measure(best)  # leaves it so
        units = [group // part.unit for group, part in zip(best.groups, kernel.work.divided, strict=True)]
        self.found[question] = [best.granule, *units]

    def remember(self) -> None:
        """Keeps what has been found, with what others have kept in the meantime."""
        if not self.found:
            return
        target = host_target(settings.target.value)
        kept = build.recall(NAME, target)
        known = winners()
        known.update(json.loads(kept) if kept is not None else {})
        known.update(self.found)
        build.keep(NAME, target, json.dumps(known).encode())


def _best(candidates: list[Shares], measure: Measure) -> Shares:
    """The fastest, by the shortest of several times taken in turns; the first, unless another is clearly faster."""
    candidates = list(dict.fromkeys(candidates))
    times = {shares: float("inf") for shares in candidates}
    for _ in range(ROUNDS):
        for shares in candidates:
            times[shares] = min(times[shares], measure(shares))
    fastest = min(candidates, key=lambda shares: times[shares])
    return fastest if times[fastest] < (1 - WORTH) * times[candidates[0]] else candidates[0]
