"""Plans in the air: a step's plan may run while the program goes on, and nobody can tell but by the time it takes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
from benchmarks.models.net import make_net
from torturous.runtime import bound, flight
from torturous.runtime.realize import realize
from torturous.runtime.workers import Workers


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Even small plans are handed to another worker, of which there is one."""
    monkeypatch.setattr(bound, "SERIAL_COST", -1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    flight.land()
    torch.set_num_threads(before)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[flight.Flight]:
    """The plans launched so far."""
    flights: list[flight.Flight] = []

    def launch(each: flight.Flight, offer: Callable[[], None]) -> None:
        flights.append(each)
        flight.launch(each, offer)

    monkeypatch.setattr(bound, "launch", launch)
    return flights


def in_the_air() -> bool:
    return flight._flight is not None


def perceptron(optimizer: str = "Adam", **options: Any) -> tuple[nn.Sequential, Any]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3))
    return model, getattr(torch.optim, optimizer)(model.parameters(), lr=0.05, **options)


def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def batches(count: int, size: int = 7) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return [(random.standard_normal((size, 6)).astype(np.float32), random.integers(0, 3, size)) for _ in range(count)]


def trained(optimizer: str, **options: Any) -> list[bytes]:
    model, rule = perceptron(optimizer, **options)
    for x, y in batches(6):
        step(model, rule, torch.tensor(x), torch.tensor(y))
    return [p.detach().numpy().tobytes() for p in model.parameters()]


@pytest.mark.parametrize("optimizer, options", [("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {})])
def test_steps_in_the_air_give_the_same_bits(optimizer, options, launched, request):
    model, rule = perceptron(optimizer, **options)
    realize()
    launched.clear()
    for x, y in batches(6):
        loss = step(model, rule, torch.tensor(x), torch.tensor(y))
        assert in_the_air()
        loss.item()
        assert not in_the_air()
    waiting = [p.detach().numpy().tobytes() for p in model.parameters()]
    assert len(launched) == 6
    assert trained(optimizer, **options) == waiting
    request.getfixturevalue("late_plans")
    assert trained(optimizer, **options) == waiting


def test_a_convolutional_net_in_the_air(late_plans):
    def run() -> list[bytes]:
        net = make_net(torch)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)
        torch.manual_seed(0)
        for size in (4, 4, 3, 4):
            optimizer.zero_grad()
            F.nll_loss(net(torch.randn(size, 1, 28, 28)), torch.randint(0, 10, (size,))).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        return [p.detach().numpy().tobytes() for p in net.parameters()]

    late = run()
    torch.set_num_threads(1)  # Nobody is there to hand a plan to.
    assert run() == late


READERS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda p: p.detach().numpy().copy(),
    "item": lambda p: p.detach().reshape(-1)[0].item(),
    "tolist": lambda p: p.detach().tolist(),
    "printing": lambda p: str(p.detach()),
    "an operation": lambda p: (p.detach() * 2).sum().item(),
    "a copy": lambda p: p.detach().clone().numpy(),
    "the array protocol": lambda p: np.array(np.asarray(p.detach())),
    "its address": lambda p: np.ctypeslib.as_array(
        (np.ctypeslib.ctypes.c_float * p.numel()).from_address(p.data_ptr())).copy(),
    "in place": lambda p: p.data.mul_(2).numpy().copy(),
}


@pytest.mark.parametrize("name", READERS)
def test_whoever_looks_waits(name, late_plans):
    def look() -> Any:
        model, optimizer = perceptron()
        for x, y in batches(3):
            step(model, optimizer, torch.tensor(x), torch.tensor(y))
        return READERS[name](model[0].weight)

    late = look()
    torch.set_num_threads(1)
    assert np.array_equal(late, look())


def test_reading_what_a_plan_only_reads_does_not_wait():
    model, optimizer = perceptron()
    (x, y), *_ = batches(1)
    inputs, labels = torch.tensor(x), torch.tensor(y)
    for _ in range(2):
        step(model, optimizer, inputs, labels)
        assert in_the_air()
        assert labels.tolist() == y.tolist()
        assert torch.tensor(x + 1).shape == (7, 6)
        assert in_the_air()


def test_memory_of_the_program_s_own(late_plans):
    """An array that shares memory with what a step reads may be written as soon as the step returns."""
    def run() -> list[bytes]:
        model, optimizer = perceptron()
        x = np.ones((7, 6), np.float32)
        large = np.ones((1200, 6), np.float32)
        labels = np.zeros(7, np.int64)
        for turn in range(4):
            step(model, optimizer, torch.from_numpy(x), torch.from_numpy(labels))
            x[:] = turn
            labels[:] = turn % 3
            step(model, optimizer, torch.from_numpy(large), torch.zeros(1200, dtype=torch.int64))
            large[:] = turn
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    late = run()
    torch.set_num_threads(1)
    assert run() == late


def worked_out(like: Any, position: int) -> Any:
    """Positions that nothing is known of before they have been computed."""
    return (like.double() * 0 + position).long()


BAD: dict[str, Callable[[Any, Any], Any]] = {
    "classes": lambda out, bad: F.cross_entropy(out, bad),
    "gather": lambda out, bad: out.gather(1, bad[:, None]).sum(),
    "index": lambda out, bad: out[bad].sum(),
    "index_select": lambda out, bad: out.index_select(1, bad).sum(),
    "embedding": lambda out, bad: F.embedding(bad, out).sum(),
    "embedding_bag": lambda out, bad: F.embedding_bag(bad[:, None], out).sum(),
    "take": lambda out, bad: out.take(bad).sum(),
    "scatter_add": lambda out, bad: out.scatter_add(1, bad[:, None], out).sum(),
    "index_add": lambda out, bad: out.index_add(0, bad, out).sum(),
    "take_along_dim": lambda out, bad: torch.take_along_dim(out, bad[:, None], 1).sum(),
}


@pytest.mark.parametrize("name", BAD)
def test_what_may_fail_is_waited_for(name, launched):
    """A position that only the plan works out, out of range: the step raises, and has changed nothing."""
    model, optimizer = perceptron()
    (x, y), *_ = batches(1)
    step(model, optimizer, torch.tensor(x), torch.tensor(y))
    before = [p.detach().numpy().copy() for p in model.parameters()]
    launched.clear()
    for good in (True, False):
        optimizer.zero_grad()
        positions = worked_out(torch.tensor(y), 1 if good else 1000)
        loss = BAD[name](model(torch.tensor(x)), positions)
        loss.backward()
        if good:
            optimizer.step()
            before = [p.detach().numpy().copy() for p in model.parameters()]
        else:
            with pytest.raises(IndexError, match="out of range"):
                optimizer.step()
    assert launched == []
    for p, was in zip(model.parameters(), before, strict=True):
        assert np.array_equal(p.detach().numpy(), was)


IN_RANGE: dict[str, Callable[[Any], Any]] = {
    "arange": lambda out: F.embedding(torch.arange(3), out).sum(),
    "argmax": lambda out: out.gather(1, out.argmax(1, keepdim=True)).sum(),
    "argsort": lambda out: out[out[:, 0].argsort()].sum(),
    "randint": lambda out: out[torch.randint(0, 7, (4,))].sum(),
    "classes": lambda out: F.cross_entropy(out, out.detach().argmax(1)),
}


@pytest.mark.parametrize("name", IN_RANGE)
def test_what_cannot_fail_is_launched(name, launched):
    """Positions that nobody has computed yet, but that are in range by the way they are made."""
    model, optimizer = perceptron()
    for x, _ in batches(4):
        optimizer.zero_grad()
        loss = IN_RANGE[name](model(torch.tensor(x)))
        loss.backward()
        launched.clear()
        optimizer.step()
        assert len(launched) == 1


def test_tokens_in_the_air_need_not_land_to_be_looked_up(launched):
    """A loop that appends tokens to what the plan before has yet to write."""
    torch.manual_seed(0)
    table, head = nn.Embedding(9, 4), nn.Linear(4, 9)
    tokens = torch.tensor([[3]])
    with torch.no_grad():
        for _ in range(6):
            before = in_the_air()
            looked_up = table(tokens)
            assert in_the_air() or not before
            tokens = torch.cat([tokens, head(looked_up[:, -1]).argmax(1, keepdim=True)], 1)
            realize(wait=False)
            assert in_the_air()
    assert tokens.shape == (1, 7) and tokens.tolist()[0][:1] == [3]


def test_what_may_fail_is_waited_for_in_a_repeated_call(launched):
    """A compiled call whose rows are recorded without Python doubts what Python doubted."""
    table, linear = nn.Embedding(5, 4), nn.Linear(4, 3)
    optimizer = torch.optim.SGD([*table.parameters(), *linear.parameters()], lr=0.1)
    call = torch.compile(lambda positions: linear(table(positions)).square().mean())
    for turn in range(6):
        before = linear.weight.detach().numpy().copy()
        optimizer.zero_grad()
        call(worked_out(torch.tensor([0, 1]), 1 if turn < 5 else 1000)).backward()
        if turn < 5:
            optimizer.step()
        else:
            with pytest.raises(IndexError, match="out of range"):
                optimizer.step()
    assert launched == []
    assert np.array_equal(linear.weight.detach().numpy(), before)


def test_doubt_outlives_a_realization_in_between(launched):
    """Entering the table, which a loop has written, realizes the record in which the positions are still pending."""
    table = torch.zeros(4, 3)
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for turn in range(3):
        table += 1
        positions = worked_out(torch.tensor([0, 1]), 1 if turn < 2 else 1000)
        loss = (F.embedding(positions, table) * weight).sum()
        optimizer.zero_grad()
        if turn < 2:
            loss.backward()
            optimizer.step()
        else:
            with pytest.raises(IndexError, match="out of range"):
                loss.backward()
                optimizer.step()


def test_other_threads_wait_too():
    model, optimizer = perceptron()
    seen: list[np.ndarray] = []
    for x, y in batches(20):
        step(model, optimizer, torch.tensor(x), torch.tensor(y))
        readers = [threading.Thread(target=lambda: seen.append(model[0].weight.detach().numpy().copy()))
                   for _ in range(3)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        now = model[0].weight.detach().numpy()
        assert all(np.array_equal(each, now) for each in seen)
        seen.clear()


def _in_child(model: Any, answers: Any) -> None:
    answers.put(model[0].weight.detach().numpy().tobytes())


def test_nobody_passes_who_comes_while_another_thread_waits(monkeypatch):
    """A thread that looks at memory while another one is landing the plan waits as well."""
    model, optimizer = perceptron()
    (x, y), *_ = batches(1)
    step(model, optimizer, torch.tensor(x), torch.tensor(y))
    flying = flight._flight
    assert flying is not None
    landing, done, seen = threading.Event(), threading.Event(), []

    def join() -> None:
        landing.set()
        assert done.wait(30)
        flying.join()

    monkeypatch.setattr(flight, "_flight", flying._replace(join=join))
    first = threading.Thread(target=flight.land)
    first.start()
    assert landing.wait(30)
    second = threading.Thread(target=lambda: seen.append(model[0].weight.detach().numpy().copy()))
    second.start()
    second.join(0.05)
    assert not seen
    done.set()
    first.join()
    second.join()
    assert np.array_equal(seen[0], model[0].weight.detach().numpy())


def test_an_interrupt_leaves_the_plan_in_the_air(monkeypatch):
    model, optimizer = perceptron()
    (x, y), *_ = batches(1)
    step(model, optimizer, torch.tensor(x), torch.tensor(y))
    flying = flight._flight
    assert flying is not None

    def join() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flight, "_flight", flying._replace(join=join))
    with pytest.raises(KeyboardInterrupt):
        flight.land()
    assert in_the_air()
    monkeypatch.setattr(flight, "_flight", flying)
    assert np.isfinite(model[0].weight.detach().numpy()).all()
    assert not in_the_air()


def test_an_interrupt_at_the_offer_leaves_everything_usable(monkeypatch):
    """Whether the workers have the plan by then or not."""
    offer = Workers.offer
    for late in (False, True):

        def interrupted(workers: Workers, table: int, entries: int, late: bool = late) -> None:
            if late:
                offer(workers, table, entries)
            raise KeyboardInterrupt

        model, optimizer = perceptron()
        (x, y), *_ = batches(1)
        step(model, optimizer, torch.tensor(x), torch.tensor(y))
        with monkeypatch.context() as patched:
            patched.setattr(Workers, "offer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                step(model, optimizer, torch.tensor(x), torch.tensor(y))
        assert in_the_air()
        for _ in range(3):
            step(model, optimizer, torch.tensor(x), torch.tensor(y))
        assert np.isfinite(model[0].weight.detach().numpy()).all()
        assert not in_the_air()


def test_synchronizing_waits(launched):
    model, optimizer = perceptron()
    (x, y), *_ = batches(1)
    step(model, optimizer, torch.tensor(x), torch.tensor(y))
    assert in_the_air()
    torch.cpu.synchronize()
    assert not in_the_air()
    doubled = model[0].weight.detach() * 2
    torch.cpu.synchronize()
    assert not doubled.storage.pending


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_fork_waits():
    model, optimizer = perceptron()
    processes = multiprocessing.get_context("fork")
    for x, y in batches(3):
        step(model, optimizer, torch.tensor(x), torch.tensor(y))
        assert in_the_air()
        answers = processes.SimpleQueue()
        child = processes.Process(target=_in_child, args=(model, answers))
        child.start()
        assert not in_the_air()
        assert answers.get() == model[0].weight.detach().numpy().tobytes()
        child.join()


def test_the_number_of_threads_may_change_meanwhile():
    results = []
    for counts in ((2, 2, 2, 2), (2, 3, 1, 2)):
        model, optimizer = perceptron()
        for count, (x, y) in zip(counts, batches(4), strict=True):
            step(model, optimizer, torch.tensor(x), torch.tensor(y))
            torch.set_num_threads(count)
        results.append([p.detach().numpy().tobytes() for p in model.parameters()])
    assert results[0] == results[1]
