"""Threads that record at the same time, and use each other's pending tensors."""

from __future__ import annotations

import queue
import threading

import numpy as np

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
