"""Programs that go round: after the first iterations nothing is compiled, and memory does not grow."""

from __future__ import annotations

import numpy as np
import pytest

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
from benchmarks.models.gpt import generate, make_gpt
from benchmarks.models.net import make_net
from torturous.ir.record import context
from torturous.runtime import build, realize
from torturous.runtime.buffers import statistics as memory


class Count:
    """Plans and kernels made while something ran."""

    def __enter__(self) -> Count:
        realize.realize()
        self.before = realize.statistics.plans_made, build.statistics.kernels_compiled + build.statistics.cache_hits
        return self

    def __exit__(self, *error: object) -> None:
        realize.realize()
        now = realize.statistics.plans_made, build.statistics.kernels_compiled + build.statistics.cache_hits
        self.plans, self.kernels = (b - a for a, b in zip(self.before, now, strict=True))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(count, seed=0):
    random = np.random.default_rng(seed)
    return (torch.tensor(random.standard_normal((count, 1, 28, 28)).astype(np.float32)),
            torch.tensor(random.integers(0, 10, count)))


def test_what_a_model_is_made_of_has_a_plan_of_its_own():
    """The first step is then planned as all others are; so is the first pass of a model that is only used."""
    x = torch.tensor(np.ones((5, 6), np.float32))
    with Count() as count:
        net = small()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert count.plans == 2
    with Count() as count:
        net = small()
        with torch.no_grad():
            results = [net(x).numpy() for _ in range(3)]
    assert count.plans == 1 and np.array_equal(results[0], results[2])  # Such a net has been made before.


@pytest.mark.parametrize("name, options", [
    ("Adam", {}), ("AdamW", {}), ("Adamax", {}), ("RMSprop", {}), ("Adadelta", {}), ("Rprop", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True})])
def test_the_first_step_of_an_optimizer_has_the_plan_of_all(name, options):
    """What it keeps of parameters is there before they are updated the first time."""
    net, x = small(), torch.ones(4, 6)
    optimizer = getattr(torch.optim, name)(net.parameters(), **options)

    def step():
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    with Count() as first:
        step()
    with Count() as others:
        step()
        step()
    assert first.plans == 1 and others.plans == 0


def test_a_training_step_is_one_plan_of_few_rows():
    net = make_net(torch)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)
    x, y = batch(64)
    records = []

    def step():
        optimizer.zero_grad()
        loss = F.nll_loss(net(x), y)
        loss.backward()
        records.append(context.record)
        optimizer.step()

    step()
    step()
    with Count() as count:
        runs = realize.statistics.runs
        step()
        step()
        assert realize.statistics.runs == runs + 2
    assert count.plans == 0
    assert max(len(record.rows) for record in records) <= 80


def test_adam_with_a_schedule_compiles_nothing_after_the_third_step():
    net = small()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.1 * step))
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        schedule.step()

    for _ in range(3):
        step()
    with Count() as count:
        for _ in range(997):
            step()
    assert (count.plans, count.kernels) == (0, 0)


def test_writing_columns_compiles_nothing_after_the_third_iteration():
    x = torch.randn(7, 500)
    y = torch.zeros(7, 500)
    made = []
    for t in range(500):
        y[:, t] = x[:, t] * t
        made.append(realize.statistics.plans_made)
    with Count() as count:
        result = y.numpy()
    assert made[3] == made[-1]
    assert count.plans <= 1
    assert np.array_equal(result, x.numpy() * np.arange(500, dtype=np.float32))


@pytest.mark.parametrize("training", [False, True])
def test_the_second_new_batch_size_and_all_after_it_run_no_llvm(training):
    net = make_net(torch).train(training)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)

    def run(count):
        x, y = batch(count)
        if training:
            optimizer.zero_grad()
            F.nll_loss(net(x), y).backward()
            optimizer.step()
        else:
            with torch.no_grad():
                net(x).numpy()

    run(64)
    run(64)
    run(1)
    with Count() as count:
        for size in range(2, 71, 1 if not training else 7):
            run(size)
    assert count.kernels == 0


def test_a_sequence_that_grows_needs_three_plans():
    """The one of length 1, where an axis is repeated; constants for the second; symbols for all others, the last one
    too, after which less is wanted."""
    torch.manual_seed(0)
    model = make_gpt(torch, vocabulary=11, context=64, layers=6, heads=2, width=32).eval()
    start = torch.tensor([[3]])
    realize.forget_plans()  # Other tests' nets of the same structure, with sizes of theirs.
    with Count():
        pass
    with Count() as count:
        first = generate(torch, model, start, 40, 64).numpy()
    assert 1 < count.plans <= 3
    with Count() as count:
        again = generate(torch, model, start, 40, 64).numpy()
    assert (count.plans, count.kernels) == (0, 0)
    assert np.array_equal(first, again)
    longest = torch.tensor(first[:, :-1])
    with torch.no_grad():
        assert model(longest)[0, -1].argmax().item() == first[0, -1]


def test_masks_of_random_counts_run_no_llvm():
    random = np.random.default_rng(0)
    x = torch.tensor(random.standard_normal((50, 4)).astype(np.float32))
    masks = [random.random(50) < p for p in random.random(30)]
    results = []
    for number, mask in enumerate(masks):
        if number == 3:
            made = build.statistics.kernels_compiled + build.statistics.cache_hits
        results.append((x[torch.tensor(mask)] * 2).sum(0).numpy())
    assert build.statistics.kernels_compiled + build.statistics.cache_hits == made
    for mask, result in zip(masks, results, strict=True):
        assert np.allclose(result, (x.numpy()[mask] * 2).sum(0), rtol=1e-5, atol=1e-5)


def flat_memory(iterate, count):
    """The most bytes of live buffers in the first fifth of the iterations, and in the last."""
    most = [0, 0]
    for number in range(count):
        iterate()
        fifth = number * 5 // count
        if fifth in (0, 4):
            most[fifth // 4] = max(most[fifth // 4], memory().live_bytes)
    return most


def test_hand_written_descent():
    net = small()
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    step = iter(range(10_000))
    printed = []

    def iterate():
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.1 * p.grad
                p.grad = None
        if next(step) % 100 == 0:
            printed.append(f"{loss.item():.4f}")

    with Count() as count:
        early, late = flat_memory(iterate, 1000)
    assert count.plans <= 3
    assert late <= early + 4096
    assert float(printed[-1]) < float(printed[0])


def test_accumulation_over_eight_batches():
    net = small()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))

    def iterate():
        optimizer.zero_grad()
        for _ in range(8):
            (F.cross_entropy(net(x), y) / 8).backward()
        optimizer.step()

    with Count() as count:
        early, late = flat_memory(iterate, 125)
    assert count.plans <= 3
    assert late <= early + 4096


def test_evaluation_without_looking():
    net = small().eval()
    x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
    state = {"correct": torch.tensor(0)}

    def iterate():
        with torch.no_grad():
            state["correct"] = state["correct"] + net(x).argmax(1).eq(y).sum()

    with Count() as count:
        early, late = flat_memory(iterate, 1000)
    assert count.plans <= 3
    assert late <= early + 4096
    once = net(x).argmax(1).eq(y).sum().item()
    assert state["correct"].item() == 1000 * once


@pytest.mark.parametrize("call", [
    lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), lambda x: F.layer_norm(x, (16,)),
    lambda x: x.softmax(1)], ids=["attention", "layer norm", "softmax"])
def test_numbers_of_rows_that_nobody_wants_change_nothing(call):
    """A remembered plan has numbers of its own, of expanded macros; how many the record has besides may differ."""
    x = torch.tensor(np.random.default_rng(0).standard_normal((24, 16)).astype(np.float32))

    def values(dropped):
        y = call(x)
        for number in range(dropped):
            _ = x * 2.5 + number
        return y.numpy().copy()

    expected = values(1)
    for dropped in (0, 1, 3, 0):
        np.testing.assert_array_equal(values(dropped), expected)
