"""The plan in the air: one that runs while the program goes on.

`optimizer.step()` needs nobody to wait for it. Its plan is handed to the workers, and the calling thread goes on to
record the next step; it lands the plan, helping with what is left of it, when somebody looks at memory (`Buffer.array`)
or when the next plan is to run. Only what cannot fail is launched: what the program does next must not depend on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import NamedTuple


class Flight(NamedTuple):
    """A plan that was offered to the workers."""

    join: Callable[[], None]
    """Returns when it is done."""
    written: Set[object]
    """The buffers that it writes."""
    read: Set[object]
    """Those that it reads."""
    arena: object
    """Where its temporary values lie."""


_flight: Flight | None = None
_lock = threading.RLock()


def launch(flight: Flight, offer: Callable[[], None]) -> None:
    """Has a plan offered to the workers; nothing may be in the air.

    It is noted first, for an interrupt after the offer must not leave a plan in the air that nobody lands. Until it is
    offered, nobody may land it.
    """
    global _flight
    with _lock:
        _flight = flight
        offer()


def land() -> None:
    """Returns when no plan is in the air."""
    global _flight
    if _flight is None:
        return
    with _lock:
        flight = _flight
        if flight is None:
            return
        # It is in the air for other threads until it is done, and still after an interrupt: joining again does no harm.
        try:
            flight.join()
        except Exception:
            _flight = None
            raise
        _flight = None


@contextmanager
def held() -> Iterator[tuple[Set[object], Set[object]]]:
    """What the plan in the air writes, and what it reads: each refers to a buffer once. It does not land meanwhile."""
    with _lock:
        flight = _flight
        yield (flight.written, flight.read) if flight is not None else (frozenset(), frozenset())


def await_writer(buffer: object) -> None:
    """Returns when no plan in the air writes a buffer."""
    flight = _flight
    if flight is not None and buffer in flight.written:
        land()


def _before_fork() -> None:
    _lock.acquire()
    land()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
