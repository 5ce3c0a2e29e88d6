"""Learning-rate schedules against PyTorch's: every rate equal to the bit."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous

LIBRARIES = [torturous, torch]
FACTORS = st.floats(0.1, 1.0)
COUNTS = st.integers(1, 7)

SCHEDULES = {
    "StepLR": st.fixed_dictionaries({"step_size": COUNTS}, optional={"gamma": FACTORS}),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(st.integers(0, 20), max_size=4)}, optional={"gamma": FACTORS}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": FACTORS}),
    "ConstantLR": st.fixed_dictionaries({}, optional={"factor": FACTORS, "total_iters": COUNTS}),
    "LinearLR": st.fixed_dictionaries(
        {}, optional={"start_factor": FACTORS, "end_factor": FACTORS, "total_iters": COUNTS}
    ),
    "CosineAnnealingLR": st.fixed_dictionaries({"T_max": COUNTS}, optional={"eta_min": st.floats(0, 0.1)}),
    "PolynomialLR": st.fixed_dictionaries(
        {}, optional={"total_iters": COUNTS, "power": st.sampled_from([1.0, 0.5, 2.0])}),
    "CosineAnnealingWarmRestarts": st.fixed_dictionaries(
        {"T_0": COUNTS}, optional={"T_mult": st.integers(1, 3), "eta_min": st.floats(0, 0.1)}),
    "CyclicLR": st.fixed_dictionaries(
        {"base_lr": st.floats(0.01, 0.1), "max_lr": st.floats(0.2, 1.0), "step_size_up": COUNTS},
        optional={"step_size_down": COUNTS, "mode": st.sampled_from(["triangular", "triangular2", "exp_range"]),
                  "gamma": FACTORS, "cycle_momentum": st.booleans()}),
    "OneCycleLR": st.fixed_dictionaries(
        {"max_lr": st.floats(0.1, 1.0) | st.just([0.5, 0.25]), "total_steps": st.integers(13, 30)},
        optional={
            "pct_start": st.floats(0.2, 0.45),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "cycle_momentum": st.booleans(),
            "three_phase": st.booleans(),
            "div_factor": st.floats(2.0, 30.0),
        },
    ),
}


def optimizer_of(library, kind="SGD"):
    params = [library.nn.Parameter(library.ones(1)) for _ in range(2)]
    groups = [{"params": params[:1], "lr": 0.3}, {"params": params[1:]}]
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(library.optim, kind)(groups, lr=0.1, **options)


def rates(optimizer):
    return [
        [group["lr"] for group in optimizer.param_groups],
        [group.get("momentum", group.get("betas")) for group in optimizer.param_groups],
    ]


def run(library, name, options, kind="SGD", steps=12):
    optimizer = optimizer_of(library, kind)
    scheduler = getattr(library.optim.lr_scheduler, name)(optimizer, **options)
    history = [rates(optimizer)]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == rates(optimizer)[0]
        history.append(rates(optimizer))
    return history


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=40)
@given(st.data(), st.sampled_from(["SGD", "Adam"]))
def test_rates_are_equal(name, data, kind):
    options = data.draw(SCHEDULES[name])
    assert run(torturous, name, options, kind) == run(torch, name, options, kind)


JUMPING = [name for name in SCHEDULES if name not in ("OneCycleLR", "CosineAnnealingWarmRestarts")]


@pytest.mark.parametrize("name", JUMPING)
@settings(max_examples=20)
@given(st.data(), st.integers(0, 12))
def test_jumping_to_an_epoch(name, data, epoch):
    options = data.draw(SCHEDULES[name])
    found = []
    for library in LIBRARIES:
        optimizer = optimizer_of(library)
        scheduler = getattr(library.optim.lr_scheduler, name)(optimizer, **options)
        optimizer.step()
        with pytest.warns(UserWarning, match="epoch parameter"):
            scheduler.step(epoch)
        found.append(rates(optimizer))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", SCHEDULES)
@settings(max_examples=15)
@given(st.data(), st.integers(1, 6))
def test_saved_schedules_go_on(name, data, when):
    options = data.draw(SCHEDULES[name])
    whole = run(torturous, name, options)

    optimizer = optimizer_of(torturous)
    scheduler = getattr(torturous.optim.lr_scheduler, name)(optimizer, **options)
    for _ in range(when):
        optimizer.step()
        scheduler.step()
    fresh_optimizer = optimizer_of(torturous)
    fresh = getattr(torturous.optim.lr_scheduler, name)(fresh_optimizer, **options)
    fresh.load_state_dict(scheduler.state_dict())
    fresh_optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(12 - when):
        fresh_optimizer.step()
        fresh.step()
    assert rates(fresh_optimizer) == whole[-1]


class Halving:
    def __init__(self):
        self.factor = 0.5

    def __call__(self, epoch):
        return self.factor**epoch


def test_functions_of_the_epoch():
    for functions in (lambda epoch: 0.9**epoch, [Halving(), lambda epoch: 1 / (1 + epoch)]):
        found = [run(library, "LambdaLR", {"lr_lambda": functions}) for library in LIBRARIES]
        assert found[0] == found[1]
    scheduler = torturous.optim.lr_scheduler.LambdaLR(optimizer_of(torturous), [Halving(), lambda epoch: 1.0])
    scheduler.lr_lambdas[0].factor = 0.25
    state = scheduler.state_dict()
    assert state["lr_lambdas"] == [{"factor": 0.25}, None]
    fresh = torturous.optim.lr_scheduler.LambdaLR(optimizer_of(torturous), [Halving(), lambda epoch: 1.0])
    fresh.load_state_dict(state)
    assert fresh.lr_lambdas[0].factor == 0.25 and state["lr_lambdas"] == [{"factor": 0.25}, None]


@settings(max_examples=60)
@given(
    st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25),
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["min", "max"]),
            "factor": st.floats(0.1, 0.9),
            "patience": st.integers(0, 3),
            "threshold": st.sampled_from([0.0, 0.1, 1.0]),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "cooldown": st.integers(0, 2),
            "min_lr": st.sampled_from([0, 0.05, [0.2, 0.01]]),
        },
    ),
)
def test_plateaus(metrics, options):
    found = []
    for library in LIBRARIES:
        optimizer = optimizer_of(library)
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        history = []
        for metric in metrics:
            scheduler.step(metric)
            history.append((rates(optimizer), scheduler.num_bad_epochs, scheduler.best))
        assert scheduler.get_last_lr() == rates(optimizer)[0]
        fresh = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        fresh.load_state_dict(scheduler.state_dict())
        fresh.step(metrics[-1])
        found.append((history, rates(optimizer)))
    assert found[0] == found[1]


MISUSES = [
    lambda lib, opt: lib.optim.lr_scheduler.StepLR(3, 1),
    lambda lib, opt: lib.optim.lr_scheduler.StepLR(opt, 1, last_epoch=3),
    lambda lib, opt: lib.optim.lr_scheduler.LambdaLR(opt, [lambda epoch: 1.0]),
    lambda lib, opt: lib.optim.lr_scheduler.ConstantLR(opt, factor=2.0),
    lambda lib, opt: lib.optim.lr_scheduler.LinearLR(opt, start_factor=0.0),
    lambda lib, opt: lib.optim.lr_scheduler.LinearLR(opt, end_factor=2.0),
    lambda lib, opt: lib.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=1.0),
    lambda lib, opt: lib.optim.lr_scheduler.ReduceLROnPlateau(opt, mode="none"),
    lambda lib, opt: lib.optim.lr_scheduler.ReduceLROnPlateau(opt, threshold_mode="none"),
    lambda lib, opt: lib.optim.lr_scheduler.ReduceLROnPlateau(opt, min_lr=[0.1]),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(opt, 0.1),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=0),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(opt, 0.1, epochs=2, steps_per_epoch=0),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=3, pct_start=2.0),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(opt, 0.1, total_steps=3, anneal_strategy="none"),
    lambda lib, opt: lib.optim.lr_scheduler.OneCycleLR(lib.optim.Adagrad([lib.ones(1)]), 0.1, total_steps=3),
]


@pytest.mark.parametrize("position", range(len(MISUSES)))
def test_misuse_raises_as_in_pytorch(position):
    errors = []
    for library in LIBRARIES:
        with pytest.raises((ValueError, TypeError, KeyError)) as caught:
            MISUSES[position](library, optimizer_of(library))
        errors.append(type(caught.value))
    assert errors[0] is errors[1]


@pytest.mark.parametrize("library", LIBRARIES)
def test_too_many_steps_of_a_cycle(library):
    optimizer = optimizer_of(library)
    scheduler = library.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=2)
    optimizer.step()
    with pytest.raises(ValueError, match="total steps is 2"):
        for _ in range(3):
            scheduler.step()


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_wrong_order_warns(library):
    optimizer = optimizer_of(library)
    scheduler = library.optim.lr_scheduler.StepLR(optimizer, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
    optimizer = optimizer_of(library)
    scheduler = library.optim.lr_scheduler.StepLR(optimizer, 2)
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


@pytest.mark.parametrize("library", LIBRARIES)
def test_own_schedules(library):
    class Tenth(library.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            return [base / 10 ** self.last_epoch for base in self.base_lrs]

    optimizer = optimizer_of(library)
    scheduler = Tenth(optimizer)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.3 / 10, 0.1 / 10]


@pytest.mark.parametrize("library", LIBRARIES)
def test_two_schedules_of_one_optimizer(library):
    optimizer = optimizer_of(library)
    schedulers = [
        library.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        library.optim.lr_scheduler.StepLR(optimizer, 2, 0.1),
    ]
    for _ in range(2):
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rates(optimizer)[0] == [0.3 * 0.5 * 0.5 * 0.1, 0.1 * 0.5 * 0.5 * 0.1]


def composed(library, kind):
    """Rates of schedules made of others."""
    optimizer = optimizer_of(library)
    schedules = library.optim.lr_scheduler
    warm = schedules.LinearLR(optimizer, 0.1, total_iters=3)
    if kind == "multiplicative":
        scheduler = schedules.MultiplicativeLR(optimizer, lambda epoch: 0.9)
    elif kind == "chained":
        scheduler = schedules.ChainedScheduler([warm, schedules.ExponentialLR(optimizer, 0.8)], optimizer)
    else:
        later = schedules.CosineAnnealingLR(optimizer, 4) if kind == "cosine" else schedules.StepLR(optimizer, 2, 0.5)
        last = schedules.ExponentialLR(optimizer, 0.7)
        scheduler = schedules.SequentialLR(optimizer, [warm, later, last], [3, 8])
    history = [(rates(optimizer), scheduler.get_last_lr())]
    for _ in range(12):
        optimizer.step()
        scheduler.step()
        history.append((rates(optimizer), scheduler.get_last_lr()))
    return history


@pytest.mark.parametrize("kind", ["multiplicative", "chained", "cosine", "steps"])
def test_composed_schedules(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert composed(torturous, kind) == composed(torch, kind)


@pytest.mark.parametrize("library", LIBRARIES)
def test_composed_schedules_are_checked(library):
    schedules, optimizer = library.optim.lr_scheduler, optimizer_of(library)
    step = schedules.StepLR(optimizer, 2)
    with pytest.raises(ValueError, match="one more"):
        schedules.SequentialLR(optimizer, [step], [3])
    with pytest.raises(ValueError, match="same optimizer"):
        schedules.SequentialLR(optimizer_of(library), [step], [])
    with pytest.raises(ValueError, match="no scheduler"):
        schedules.ChainedScheduler([])
    with pytest.raises(ValueError, match="T_0"):
        schedules.CosineAnnealingWarmRestarts(optimizer, 0)
    with pytest.raises(ValueError, match="mode is invalid"):
        schedules.CyclicLR(optimizer, 0.1, 0.2, mode="none")


@pytest.mark.parametrize("factor", [1, 2])
def test_restarts_at_fractions_of_epochs(factor):
    found = []
    for library in LIBRARIES:
        optimizer = optimizer_of(library)
        scheduler = library.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3, factor)
        history = []
        for epoch in (0.25, 1.5, 3.75, 8.9, 20.1):
            scheduler.step(epoch)
            history.append(rates(optimizer))
        scheduler.step()
        found.append([*history, rates(optimizer)])
    assert found[0] == found[1]
