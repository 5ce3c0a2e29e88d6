"""What is recorded twice is recorded right: the tree of prefixes, owners without storages, places, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import torturous
from torturous.ir import prefix
from torturous.ir.prefix import tree
from torturous.ir.record import context, describe_place
from torturous.runtime.realize import realize


def chain(x: Any, w: Any, count: int = 20) -> Any:
    for number in range(count):
        x = x * w if number & 1 else x + w
    return x


@pytest.fixture(autouse=True)
def _fresh() -> None:
    context.renew()


def in_thread(function: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    (result,) = results
    return result


def test_a_repeated_record_takes_no_new_prefix() -> None:
    x, w = torturous.ones(3), torturous.full((3,), 2.0)
    realize()
    expected = chain(x, w).tolist()
    size = tree.size
    assert chain(x, w).tolist() == expected
    assert tree.size == size


def test_numbers_are_not_part_of_a_prefix() -> None:
    x = torturous.ones(3)
    realize()
    assert ((x * 2.0 + 1) * 3).tolist() == [9.0] * 3
    size = tree.size
    assert ((x * 5.0 + 2) * 4).tolist() == [28.0] * 3
    assert tree.size == size
    assert ((x * 5 + 2) * 4).tolist() == [28.0] * 3  # An integer is another structure.
    assert tree.size > size


def test_the_same_operations_with_and_without_gradients() -> None:
    x, w = torturous.ones(3, requires_grad=True), torturous.full((3,), 2.0)
    for _ in range(3):
        y = chain(x, w, 5)
        assert y.requires_grad
        with torturous.no_grad():
            z = chain(x, w, 5)
            assert not z.requires_grad
            assert not (y * w).requires_grad
        assert (y * w).requires_grad
        assert z.tolist() == y.tolist()
        x.grad = None
        y.sum().backward()
        assert x.grad.tolist() == [4.0] * 3


def test_forgetting_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torturous.ones(3, requires_grad=True), torturous.full((3,), 1.5)

    def step() -> list[float]:
        x.grad = None
        y = chain(x, w, 30)
        y.sum().backward()
        return [*y.tolist(), *x.grad.tolist()]

    expected = step()
    monkeypatch.setattr(prefix, "MOST", 20)
    for _ in range(4):
        assert step() == expected
    half = chain(x, w, 10)
    tree.forget()
    assert torturous.equal(chain(half, w, 10), chain(chain(x, w, 10), w, 10))


def test_what_another_thread_has_made_of_a_dead_threads_tensor() -> None:
    x, w = torturous.ones(3), torturous.full((3,), 2.0)
    y = in_thread(lambda: x * w)
    dead = y._record
    assert dead is not None and dead.thread == 0
    rows = len(dead)
    z = in_thread(lambda: y * w + y)  # This thread may well have the dead one's identifier.
    assert len(dead) == rows
    assert z.tolist() == [6.0] * 3
    assert (y + z).tolist() == [8.0] * 3


def test_a_pending_tensor_of_another_thread_is_not_recorded_there() -> None:
    x, w = torturous.ones(3), torturous.full((3,), 2.0)
    y = x * w
    rows = len(context.record)
    assert in_thread(lambda: (y * w + 1).tolist()) == [5.0] * 3
    assert len(context.record) == rows
    assert y.tolist() == [2.0] * 3


def test_two_threads_ask_for_one_storage() -> None:
    x = torturous.ones(3)
    for _ in range(50):
        y = x * 2
        barrier = threading.Barrier(2)
        found: list[Any] = []

        def ask(y: Any = y, barrier: Any = barrier, found: Any = found) -> None:
            barrier.wait()
            found.append(y.storage)

        thread = threading.Thread(target=ask)
        thread.start()
        ask()
        thread.join()
        assert found[0] is found[1]


def test_what_nobody_holds_is_not_computed() -> None:
    x = torturous.ones(3)
    chain(x, x)
    kept = x * 3
    realize()
    assert [owner for owner in (kept.storage.buffer,) if owner is not None]
    assert len(context.record) == 0


def test_a_fresh_result_loses_its_history() -> None:
    x = torturous.ones(3, requires_grad=True)
    y = x * 2
    y.detach_()
    assert not y.requires_grad and y.is_leaf
    z = (torturous.ones(3) * 2).requires_grad_()
    (z * z).sum().backward()
    assert z.grad.tolist() == [4.0] * 3
    assert y.tolist() == [2.0] * 3


def test_places_are_those_of_this_time() -> None:
    x, w = torturous.ones(3, requires_grad=True), torturous.full((3,), 2.0)

    def first() -> Any:
        return x * w

    def second() -> Any:
        return x * w

    def name(y: Any) -> str:
        return describe_place(context.record.places[y._index])

    for function in (first, second, first):
        context.renew()
        assert name(function()).endswith(f"in {function.__name__}")

    for function in (first, second):
        y = function()
        loss = (y * y).sum()
        with torturous.no_grad():
            y.add_(1)
        with pytest.raises(RuntimeError, match=rf"modified by an inplace operation.*in {function.__name__}"):
            loss.backward()


def test_gradient_rows_belong_to_the_line_of_their_operation() -> None:
    x = torturous.ones(3, requires_grad=True)

    def one() -> Any:
        return (x.exp() * x).sum()

    def other() -> Any:
        return (x.exp() * x).sum()

    for function in (one, one, one, other, one):
        context.renew()
        x.grad = None
        function().backward()
        places = {describe_place(place).rpartition(" in ")[2] for place in context.record.places if place is not None}
        assert places - {"test_gradient_rows_belong_to_the_line_of_their_operation"} == {function.__name__}
