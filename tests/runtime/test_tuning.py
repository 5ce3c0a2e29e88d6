"""Shares of work: all of them give the same bits, and `TORTUROUS_TUNE=1` finds, keeps and uses the best."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compiler.oracle import Program, same_bits

import torturous as torch
from torturous.core import settings
from torturous.ir.contraction import CONTRACT, matrix_product
from torturous.runtime import build, planning, realize, tuning
from torturous.runtime.bound import target
from torturous.runtime.shares import Shares, other_granules, other_groups, share_out


@pytest.fixture
def fresh(monkeypatch):
    """No winners yet, and a place for them that nobody else uses: `keep` and `recall` of a dictionary."""
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(build, "keep", lambda name, target, data: kept.__setitem__(name + target.name, data))
    monkeypatch.setattr(build, "recall", lambda name, target: kept.get(name + target.name))
    monkeypatch.setattr(tuning, "_winners", {})
    realize.forget_plans()
    yield kept
    realize.forget_plans()


def product_plan(m: int, k: int, n: int):
    """A bound plan of one product with its operands."""
    p = Program()
    a, b = p.normal(m, k), p.normal(k, n)
    c = a.apply_typed(CONTRACT, (m, n), a.dtype, b, attributes=matrix_product(0))
    return p, planning.bind(p.record, (c.index,))


def kernels_of(bound):
    return [(place, bound.loaded.generated[place[0]][place[1]]) for place in bound.kernel_of]


@pytest.mark.parametrize("sizes", [(5, 40, 7), (100, 64, 200), (700, 90, 300)])
def test_all_shares_give_the_same_bits(fresh, sizes):
    p, bound = product_plan(*sizes)
    operands = [p.record.values[leaf] for leaf in bound.leaves]

    def result():
        [buffer] = bound.run(operands, p.record.slots)
        return buffer.array(np.float32, (sizes[0], sizes[2])).copy()

    expected = result()
    tried = 0
    for number, (place, kernel) in enumerate(kernels_of(bound)):
        model = share_out(kernel, bound.evaluate, torch.get_num_threads())
        candidates = [model, *other_groups(kernel, bound.evaluate)]
        candidates += [each for shares in list(candidates) for each in other_granules(kernel, bound.evaluate, shares)]
        for shares in candidates:
            for group, part in zip(shares.groups, kernel.work.divided, strict=True):
                assert group % part.unit == 0 and 0 < group <= part.most
            bound.give(place, shares)
            bound.entries[number, 2] = shares.pieces
            assert same_bits(result(), expected), shares
            tried += 1
        bound.give(place, model)
        bound.entries[number, 2] = model.pieces
    assert tried > 5


def test_winners_are_kept_and_used(fresh, monkeypatch):
    """With a clock in which the largest granule wins."""
    monkeypatch.setattr(settings.tune, "value", True)
    monkeypatch.setattr(tuning, "_best", lambda candidates, measure: max(candidates, key=lambda s: s.granule))
    p, bound = product_plan(300, 200, 400)
    operands = [p.record.values[leaf] for leaf in bound.leaves]
    [first] = bound.run(operands, p.record.slots)
    assert bound.tuned
    [kept] = fresh.values()
    assert json.loads(kept) == tuning.winners() != {}
    monkeypatch.setattr(tuning, "_winners", {})  # as in another process
    realize.forget_plans()
    again = planning.bind(p.record, (len(p.record.rows) - 1,))
    for place, kernel in kernels_of(again):
        won = tuning.chosen(kernel, again.evaluate, torch.get_num_threads())
        model = share_out(kernel, again.evaluate, torch.get_num_threads())
        if model.cost >= tuning.LEAST_COST:
            assert won.granule > model.granule
        for which, position in again.loaded.arrangement.shared[place]:
            assert again.values[position] == (won.granule if which < 0 else won.groups[which])
    [second] = again.run(operands, p.record.slots)
    shape = (300, 400)
    assert same_bits(first.array(np.float32, shape), second.array(np.float32, shape))


def test_a_training_step_is_the_same_while_it_is_tuned(fresh, monkeypatch):
    def losses():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
        optimizer = torch.optim.Adam(model.parameters())
        x, y = torch.randn(96, 64), torch.randint(0, 10, (96,))
        found = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    expected = losses()
    monkeypatch.setattr(settings.tune, "value", True)
    realize.forget_plans()
    assert losses() == expected
    assert tuning.winners()  # something was worth measuring
    realize.forget_plans()
    assert losses() == expected


def test_the_model_stays_unless_something_is_clearly_faster():
    model, other = Shares(1, 4, (), 0), Shares(2, 2, (), 0)
    seconds = {model: 1.0, other: 0.99}
    assert tuning._best([model, other], seconds.__getitem__) is model
    seconds[other] = 0.9
    assert tuning._best([model, other], seconds.__getitem__) is other


def test_damaged_memories_are_not_used(fresh):
    _, bound = product_plan(50, 60, 70)
    [(_, kernel), *_] = kernels_of(bound)
    question = tuning._question(kernel, bound.evaluate, 2)
    tuning._winners[target().name] = {question: [1]}  # of another version's kernels: too few numbers
    assert tuning.chosen(kernel, bound.evaluate, 2) == share_out(kernel, bound.evaluate, 2)
