"""What a program's plans and kernels cost, gathered while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from torturous.cli.work import Work, operations_in, work_of
from torturous.compiler.kernel import Kernel
from torturous.compiler.memory import read_by, written_by
from torturous.ir.record import Place, describe_place
from torturous.runtime.bound import Bound
from torturous.runtime.loaded import Loaded
from torturous.runtime.peak import Peak
from torturous.runtime.watching import PlanMade, PlanRun

MOST_EVENTS = 200_000
"""Kernels whose single runs are kept for the timeline; all are counted."""


@dataclass(eq=False)
class KernelProfile:
    """One kernel of a plan, summed over its runs."""

    name: str
    level: int
    fused: list[str]
    lines: list[str]
    """The user's lines that recorded what it computes."""
    text: str
    """Its kernel IR."""
    reads: list[int]
    """Kernels before it in the plan whose results it reads (not what comes round from a loop's step before)."""
    calls: int = 0
    seconds: float = 0.0
    operations: int = 0
    bytes: int = 0

    def share(self, peak: Peak) -> tuple[float, str]:
        """How much of the machine it uses while it runs, and which side of it is the tighter: arithmetic or memory."""
        if not self.seconds:
            return 0.0, "memory"
        return max((self.operations / self.seconds / peak.operations, "arithmetic"),
                   (self.bytes / self.seconds / peak.bandwidth, "memory"))


@dataclass(eq=False)
class PlanProfile:
    """One plan, summed over its runs."""

    number: int
    kernels: list[KernelProfile]
    places: list[tuple[int, int]]
    """Of each kernel: its level, and which of the level's kernels it is."""
    rows: int
    levels: int
    variables: int
    line: str
    runs: int = 0
    seconds: float = 0.0
    arena: int = 0
    made: float | None = None
    """Seconds it took to make and compile it, if that happened while watched."""
    compiled: int = 0


@dataclass(frozen=True)
class Event:
    """A stretch of time: a plan being made, or run with its kernels as (number, start, seconds). Seconds from the
    program's start."""

    plan: int
    start: float
    seconds: float
    kernels: tuple[tuple[int, float, float], ...] = ()
    made: bool = False


@dataclass(eq=False)
class Profile:
    """A watcher (`runtime.watching`) that keeps what it is told."""

    started: float = field(default_factory=time.perf_counter)
    plans: dict[Loaded, PlanProfile] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    """Of the whole program; set by `finish`."""
    lost: int = 0
    """Runs that the timeline has no room for."""
    _entries: dict[Bound, list[tuple[int, Work]]] = field(default_factory=dict)
    _room: int = MOST_EVENTS

    def __call__(self, event: PlanMade | PlanRun) -> None:
        if isinstance(event, PlanMade):
            plan = self._plan(event.loaded)
            plan.compiled = event.compiled
            if event.background:
                return  # Another process has made it: that is none of this program's time.
            plan.made = event.seconds
            self.events.append(Event(plan.number, event.started - self.started, event.seconds, made=True))
        else:
            self._add_run(event)

    def finish(self) -> None:
        self.seconds = time.perf_counter() - self.started

    @property
    def in_kernels(self) -> float:
        """Seconds that kernels ran."""
        return sum(kernel.seconds for _, kernel in self.kernels())

    @property
    def making(self) -> float:
        """Seconds that plans were made and compiled."""
        return sum(plan.made or 0.0 for plan in self.plans.values())

    def kernels(self) -> Iterator[tuple[PlanProfile, KernelProfile]]:
        for plan in self.plans.values():
            for kernel in plan.kernels:
                yield plan, kernel

    def _add_run(self, event: PlanRun) -> None:
        bound = event.bound
        plan = self._plan(bound.loaded)
        entries = self._entries.get(bound)
        if entries is None:
            entries = self._entries[bound] = self._entries_of(plan, event)
        plan.runs += 1
        plan.seconds += event.seconds
        plan.arena = max(plan.arena, bound.arena_bytes)
        for (index, work), (_, seconds) in zip(entries, event.kernels, strict=True):
            kernel = plan.kernels[index]
            kernel.calls += 1
            kernel.seconds += seconds
            kernel.operations += work.operations
            kernel.bytes += work.bytes
        self._room -= len(event.kernels)
        if self._room < 0:
            self.lost += 1
            return
        kernels = tuple((index, start - self.started, seconds)
                        for (index, _), (start, seconds) in zip(entries, event.kernels, strict=True))
        self.events.append(Event(plan.number, event.started - self.started, event.seconds, kernels))

    def _entries_of(self, plan: PlanProfile, event: PlanRun) -> list[tuple[int, Work]]:
        """For each kernel that a run calls (those of a loop are called at every step): its number in the plan, and its
        work at these sizes."""
        bound = event.bound
        number = {place: index for index, place in enumerate(plan.places)}
        works = {place: work_of(kernel, bound.evaluate)
                 for place, kernel in zip(bound.kernel_of, bound.kernels, strict=True)}
        return [(number[place], works[place]) for place in bound.kernel_of]

    def _plan(self, loaded: Loaded) -> PlanProfile:
        known = self.plans.get(loaded)
        if known is None:
            plan = loaded.plan
            kernels = [kernel for level in plan.memory.levels for kernel in level]
            makers = {node: number for number, kernel in enumerate(kernels) for node in written_by(kernel)}
            places = [(level, order) for level, group in enumerate(plan.memory.levels) for order in range(len(group))]
            profiles = [
                KernelProfile("+".join(kernel.names), level, operations_in(kernel), _lines(kernel), str(kernel),
                              sorted({makers[node] for node in read_by(kernel) if makers.get(node, number) < number}))
                for number, (kernel, (level, _)) in enumerate(zip(kernels, places, strict=True))
            ]
            line = profiles[-1].lines[0] if profiles and profiles[-1].lines else ""
            known = self.plans[loaded] = PlanProfile(
                len(self.plans), profiles, places, len(plan.graph.nodes), len(plan.memory.levels),
                plan.sizes.variables, line)
        return known


def _lines(kernel: Kernel) -> list[str]:
    """Where the kernel's rows were recorded, each line once, those of the anchor first."""
    return list(dict.fromkeys(short_place(place) for place in kernel.places if place is not None))


def short_place(place: Place) -> str:
    """`train.py:12 in forward`: the file as seen from the working folder."""
    text = describe_place(place)
    folder = f"{Path.cwd()}/"
    return text.removeprefix(folder)
