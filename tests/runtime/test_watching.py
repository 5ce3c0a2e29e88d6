"""Whoever watches is told of plans made and run, and changes nothing."""

from __future__ import annotations

import numpy as np

import torturous as torch
from torturous.core import settings
from torturous.runtime.watching import PlanMade, PlanRun, watching


def program():
    """Two kernels at least, with a matrix product and a sum; a structure of its own."""
    x = torch.tensor(np.linspace(-1, 1, 37 * 5, dtype=np.float32).reshape(37, 5))
    return ((x @ x.T).relu().sum(0) * 3 - 0.5).numpy()


def test_plans_and_kernels_are_seen():
    events = []
    with watching(events.append):
        watched = program()
    np.testing.assert_array_equal(watched, program())
    [run] = [event for event in events if isinstance(event, PlanRun)]
    assert all(event.loaded is run.bound.loaded for event in events if isinstance(event, PlanMade))
    assert len(run.kernels) == len(run.bound.kernels) == len(run.bound.entries)
    starts = [start for start, _ in run.kernels]
    assert starts == sorted(starts) and starts[0] >= run.started
    assert 0 < sum(seconds for _, seconds in run.kernels) <= run.seconds


def test_nothing_is_told_afterwards():
    events = []
    with watching(events.append):
        pass
    program()
    assert events == []


def test_host_ops_are_watched_like_kernels():
    x = torch.tensor(np.eye(4, dtype=np.float32) * 2)
    events = []
    with watching(events.append):
        inverse = ((x + x).inverse() * 2).numpy()
    np.testing.assert_array_equal(inverse, np.eye(4, dtype=np.float32) / 2)
    [run] = [event for event in events if isinstance(event, PlanRun)]
    assert run.bound.calls and len(run.kernels) == len(run.bound.kernels)


def test_debug_prints_the_same_times(capfd, monkeypatch):
    monkeypatch.setattr(settings.debug, "value", 2)
    events = []
    with watching(events.append):
        program()
    text = capfd.readouterr().err
    [run] = [event for event in events if isinstance(event, PlanRun)]
    assert f"ran a plan in {run.seconds * 1e6:.1f} µs" in text
    for _, seconds in run.kernels:
        assert f"{seconds * 1e6:.1f} µs" in text
