"""What realization does: how often, and for those who watch, kernel by kernel, with times. `TORTUROUS_DEBUG=2` prints
them, a profile keeps them.

Watched kernels run one after the other, where otherwise those of a level share the workers, and each time includes a
microsecond or two of calling into native code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torturous.runtime.bound import Bound
    from torturous.runtime.loaded import Loaded


@dataclass
class Statistics:
    """What realization has done in this process."""

    plans_made: int = 0
    plans_bound: int = 0
    """Plans given new sizes without compiling."""
    plans_specialised: int = 0
    """Plans made in the background, for sizes that repeat: not among `plans_made`."""
    runs: int = 0
    plan_seconds: float = 0.0
    """Making plans and generating text, without LLVM (see `build.statistics`)."""
    made_seconds: float = 0.0
    """What a program has waited for plans to be made, LLVM included."""


statistics = Statistics()


@dataclass(frozen=True)
class PlanMade:
    """A plan that has been made, with its kernels compiled; times in seconds of `time.perf_counter`."""

    loaded: Loaded
    started: float
    seconds: float
    compiled: int
    """Kernels that LLVM had to compile: the others were in the cache."""
    background: bool = False
    """Whether another process has made it, for which nobody waited."""


@dataclass(frozen=True)
class PlanRun:
    """A plan that has run."""

    bound: Bound
    started: float
    seconds: float
    kernels: tuple[tuple[float, float], ...]
    """When each kernel began, and its seconds, in the order of `Bound.kernels`."""


Watcher = Callable[[PlanMade | PlanRun], None]

watchers: list[Watcher] = []
"""What is told of every plan made and run."""


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Within, the watcher is told of every plan that any thread makes or runs."""
    watchers.append(watcher)
    try:
        yield
    finally:
        watchers.remove(watcher)


def tell(event: PlanMade | PlanRun) -> None:
    for watcher in tuple(watchers):
        watcher(event)


def print_run(event: PlanRun) -> None:
    """What `TORTUROUS_DEBUG=2` shows of a run."""
    print(f"[torturous] ran a plan in {event.seconds * 1e6:.1f} µs, kernel by kernel", file=sys.stderr)
    for kernel, (_, seconds), pieces in zip(event.bound.kernels, event.kernels, event.bound.entries[:, 2], strict=True):
        print(f"[torturous]   {seconds * 1e6:9.1f} µs {'+'.join(kernel.names)} axes {kernel.axes} "
              f"reduced {kernel.reduced}, {pieces} pieces", file=sys.stderr)
