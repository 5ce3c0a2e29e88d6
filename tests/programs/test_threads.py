"""Threads that record at the same time, and use each other's pending tensors."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

import torturous as torch


def test_pending_tensors_handed_over_while_their_thread_goes_on_recording():
    handed: queue.Queue = queue.Queue(maxsize=4)
    base = torch.arange(12, dtype=torch.float32)

    def produce():
        total = base * 0
        for number in range(300):
            part = (base + number) * 2.0
            total = total + part  # Stays pending here, ever longer.
            handed.put((number, part, total))
        handed.put(None)

    producer = threading.Thread(target=produce)
    producer.start()
    values = np.arange(12, dtype=np.float32)
    expected = np.zeros(12, np.float32)
    while (item := handed.get()) is not None:
        number, part, total = item
        expected = expected + (values + number) * 2
        assert np.array_equal((part + 1).numpy(), (values + number) * 2 + 1)
        if number % 10 == 0:
            assert np.array_equal(total.numpy(), expected)
    producer.join()


def test_threads_train_side_by_side():
    results: dict[int, list[float]] = {}

    def train(seed):
        random = np.random.default_rng(seed)
        w = torch.tensor(random.standard_normal((5, 3)).astype(np.float32), requires_grad=True)
        x = torch.tensor(random.standard_normal((20, 5)).astype(np.float32))
        optimizer = torch.optim.SGD([w], lr=0.05)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = ((x @ w).tanh() - 0.5).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results[seed, threading.get_ident()] = losses  # type: ignore[index]

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2, 1, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_seed: dict[int, list[list[float]]] = {}
    for (seed, _), losses in results.items():  # type: ignore[misc]
        assert len(losses) == 60 and losses[-1] < losses[0]
        by_seed.setdefault(seed, []).append(losses)
    assert set(by_seed) == {1, 2, 3} and all(one == runs[0] for runs in by_seed.values() for one in runs)


def in_thread(function):
    """Its result, recorded by a thread that has ended."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("function", [
    lambda x: (x * x).exp(), lambda x: x.topk(1, 0)[0], lambda x: x.sort(0)[0], lambda x: x.softmax(0),
    lambda x: torch.cat([x, x * 2]) @ torch.cat([x * x, x]), lambda x: x[1:].sin()], ids=range(6))
def test_gradients_go_back_through_what_another_thread_recorded(function):
    values = [0.5, -0.5, -1.5]
    expected = torch.tensor(values, requires_grad=True)
    (function(expected) ** 2).sum().backward()
    x = torch.tensor(values, requires_grad=True)
    y = in_thread(lambda: function(x))
    (y * y).sum().backward(retain_graph=True)
    assert torch.equal(x.grad, expected.grad)
    (y * y).sum().backward()
    assert torch.equal(x.grad, expected.grad * 2)
    if function(x).grad_fn.name() in ("ExpBackward0", "SoftmaxBackward0"):
        with pytest.raises(RuntimeError, match="second time"):
            (y * y).sum().backward()


def test_gradients_while_the_other_thread_goes_on():
    x, ready, finish = torch.tensor([1.0, 2.0], requires_grad=True), threading.Event(), threading.Event()
    shared = []

    def work():
        y = (x * x).exp()
        shared.append(y)
        ready.set()
        finish.wait()
        shared.append((y * 2).sum())

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    shared[0].sum().backward(retain_graph=True)
    finish.set()
    thread.join()
    expected = (2 * x * (x * x).exp()).detach()
    assert torch.allclose(x.grad, expected)
    shared[1].backward()
    assert torch.allclose(x.grad, expected * 3)


@pytest.mark.parametrize("write", [lambda t: t.zero_(), lambda t: t.add_(1), lambda t: t[:1].fill_(3),
                                   lambda t: t.copy_(torch.ones(3))], ids=range(4))
def test_what_another_thread_writes_stays_written(write):
    base = torch.tensor([1.0, -2.0, 3.0])
    expected = base * 2
    write(expected)
    t = base * 2  # Pending here.
    later = t + 1
    in_thread(lambda: write(t))
    again = t + 1
    assert later.tolist() == (base * 2 + 1).tolist()
    assert t.tolist() == expected.tolist() and again.tolist() == (expected + 1).tolist()
