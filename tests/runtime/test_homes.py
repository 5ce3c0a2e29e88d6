"""New versions of what a storage holds stay where it is, if nobody else looks there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import torturous as torch
import torturous.nn.functional as F
from torturous.compiler import memory
from torturous.core import settings
from torturous.runtime import watching
from torturous.runtime.realize import realize


def address(t: Any) -> int:
    return t.storage.buffer.address


def updated(t: Any) -> None:
    """t as an optimizer or a running mean would write it."""
    t.mul_(0.5).add_(1.0)
    realize()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (40, 50), (300, 400)])
def test_a_written_tensor_stays_where_it_is(shape):
    t = torch.full(shape, 3.0)
    updated(t)
    here, want = address(t), np.full(shape, 2.5, np.float32)
    for _ in range(3):
        updated(t)
        want = want * 0.5 + 1
        assert address(t) == here
        assert np.array_equal(t.clone().numpy(), want)


WATCHERS: dict[str, Callable[[Any], Any]] = {
    "an array": lambda t: t.numpy(),
    "a view as an array": lambda t: t[1:].numpy(),
    "a copy that is pending": lambda t: t * 1.0,
    "a graph": lambda t: (torch.ones(4, requires_grad=True) * t).sum(),
}


@pytest.mark.parametrize("name", WATCHERS)
def test_what_somebody_looks_at_is_left_alone(name):
    t = torch.tensor([1.0, 2.0, 3.0, 4.0])
    updated(t)
    before = t.tolist()
    watcher = WATCHERS[name](t)
    updated(t)
    after = t.tolist()
    assert after == [each * 0.5 + 1 for each in before]
    if isinstance(watcher, np.ndarray):  # Which sees it: memory that is shown stays the tensor's own.
        assert watcher.tolist() == after[-len(watcher):]
    elif watcher.shape:
        assert watcher.tolist() == before
    else:
        assert watcher.item() == sum(before)


def test_a_kept_graph_keeps_what_it_reads():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    x = torch.tensor([3.0, 4.0])
    updated(x)
    before = x.tolist()
    y = (w * x).sum()
    realize()
    y.backward(retain_graph=True)
    realize()
    held = address(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        updated(x)
        y.backward()
    assert address(x) != held
    assert w.grad.tolist() == before


def test_memory_in_two_roles():
    """The same parameter read as itself and detached, which are two leaves of one buffer."""
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        w = torch.randn(6, 6, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            loss = ((w @ w.detach().t()) * w.data).sum()
            loss.backward()
            optimizer.step()
        results.append(w.detach().numpy().tobytes())
        settings.fuse.value = False
    settings.fuse.value = True
    assert results[0] == results[1]


def test_values_that_change_places():
    """Each takes the other's values: neither may be written before both are read."""
    a, b = torch.arange(500.0), -torch.arange(500.0)
    updated(a), updated(b)
    for _ in range(3):
        x, y = a.clone().numpy(), b.clone().numpy()
        c, d = a * 2 + b, b * 2 - a
        a.copy_(d)
        b.copy_(c)
        del c, d
        realize()
        assert np.array_equal(a.clone().numpy(), y * 2 - x)
        assert np.array_equal(b.clone().numpy(), x * 2 + y)


def test_neighbours_are_read_before_they_are_written():
    """A place's new value reads other places of the old one: that needs memory of its own."""
    t = torch.arange(1000.0)
    updated(t)
    for _ in range(3):
        before = t.clone().numpy()
        t.copy_(t.flip(0) + torch.cat([t[1:], t[:1]]))
        realize()
        assert np.array_equal(t.clone().numpy(), before[::-1] + np.roll(before, -1))
        t[1:] += t[:-1]
        want = before[::-1] + np.roll(before, -1)
        want = np.concatenate([want[:1], want[1:] + want[:-1]])
        realize()
        assert np.array_equal(t.clone().numpy(), want)
        updated(t.mul_(1e-3))


def test_a_step_that_fails_has_changed_nothing():
    table = torch.zeros(5, 3)
    w = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    for turn in range(3):
        optimizer.zero_grad()
        positions = torch.tensor([0, 1]) * 0 + (1000 if turn == 2 else 1)
        before = w.detach().tolist()
        loss = (F.embedding(positions, table + 1) * w).sum()
        loss.backward()
        if turn == 2:
            with pytest.raises(IndexError):
                optimizer.step()
            assert w.detach().tolist() == before
        else:
            optimizer.step()
            assert w.detach().tolist() != before


def test_what_stays_where_it_is_goes_through_the_caches(monkeypatch):
    """Large results are written past them, but not those that are written over what has just been read."""
    monkeypatch.setattr(memory, "STREAMED_BYTES", 0)
    made: list[watching.PlanMade] = []
    monkeypatch.setattr(watching, "watchers", [made.append])
    parameter, elsewhere = torch.nn.Parameter(torch.ones(123_457)), torch.ones(123_457)
    parameter.grad = torch.ones(123_457)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    realize()
    made.clear()
    copy = elsewhere * 2
    optimizer.step()
    (event,) = [each for each in made if isinstance(each, watching.PlanMade)]
    plan = event.loaded.plan
    streamed = {node for level in plan.memory.levels for kernel in level for node in kernel.streamed}
    assert len(plan.outputs) == 3 and len(streamed) == 1
    (node,) = streamed
    assert plan.outputs.index(node) == 0 and copy.tolist()[:2] == [2, 2]
