"""Probability distributions against PyTorch: draws for the same seed, densities, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import attempt, check

import torturous


def t(lib: Any, data: Any) -> Any:
    return lib.tensor(data, dtype=lib.float64) if isinstance(np.ravel(data)[0], float) else lib.tensor(data)


@pytest.fixture(autouse=True)
def arguments_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's by its default, which its compiler switches off for the process that it comes to run in."""
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)


MAKE: dict[str, Callable[..., Any]] = {
    "normal": lambda lib, x: lib.distributions.Normal(x, x.abs() + 0.5),
    "normal of numbers": lambda lib, x: lib.distributions.Normal(0.5, 2.0),
    "normal broadcast": lambda lib, x: lib.distributions.Normal(x, 1.5),
    "uniform": lambda lib, x: lib.distributions.Uniform(x, x + 2.0),
    "bernoulli": lambda lib, x: lib.distributions.Bernoulli(x.sigmoid()),
    "bernoulli of logits": lambda lib, x: lib.distributions.Bernoulli(logits=x),
    "categorical": lambda lib, x: lib.distributions.Categorical(x.exp()),
    "categorical of logits": lambda lib, x: lib.distributions.Categorical(logits=x),
    "categorical of one axis": lambda lib, x: lib.distributions.Categorical(probs=x[0].exp()),
}
X = [[0.5, -1.0, 0.25, 2.0], [1.5, 0.0, -0.75, -2.0]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", MAKE)
def test_draws_and_densities(name: str, shape: tuple[int, ...]) -> None:
    sides = []
    for lib in (torturous, torch):
        lib.manual_seed(7)
        x = t(lib, X).requires_grad_()
        d = MAKE[name](lib, x)
        drawn = d.sample(shape)
        likely = d.log_prob(drawn)
        results = [drawn, likely, attempt(d.entropy), d.batch_shape, d.event_shape, d.mean, d.variance, d.stddev]
        if likely.requires_grad:
            results.append(lib.autograd.grad((likely * likely).sum(), x)[0])
        if name.startswith(("normal", "uniform")):
            results += [d.cdf(drawn), d.rsample(shape), d.has_rsample]
        sides.append([tuple(r) if type(r).__name__ == "Size" else r for r in results])
    for mine, theirs in zip(*sides, strict=True):
        check(mine, theirs, name, 1e-6)


DIVERGENCES = ("normal", "categorical", "bernoulli", "categorical of logits")


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences(name: str) -> None:
    results = []
    for lib in (torturous, torch):
        x = t(lib, X).requires_grad_()
        distance = lib.distributions.kl_divergence(MAKE[name](lib, x), MAKE[name](lib, x * 0.5 + 0.1))
        results.append((distance, lib.autograd.grad(distance.sum(), x)[0]))
    check(*results, name, 1e-8)


ERRORS: dict[str, Callable[[Any], Any]] = {
    "scale": lambda lib: lib.distributions.Normal(0.0, -1.0),
    "nan": lambda lib: lib.distributions.Normal(float("nan"), 1.0),
    "probabilities": lambda lib: lib.distributions.Bernoulli(lib.tensor([0.5, 1.5])),
    "both": lambda lib: lib.distributions.Bernoulli(lib.tensor(0.5), lib.tensor(0.5)),
    "neither": lambda lib: lib.distributions.Categorical(),
    "no axis": lambda lib: lib.distributions.Categorical(lib.tensor(0.5)),
    "negative": lambda lib: lib.distributions.Categorical(lib.tensor([-0.5, 0.5])),
    "class": lambda lib: lib.distributions.Categorical(lib.tensor([0.5, 0.5])).log_prob(lib.tensor(3)),
    "no draw with gradients": lambda lib: lib.distributions.Bernoulli(lib.tensor(0.5)).rsample(),
    "unlike": lambda lib: lib.distributions.kl_divergence(
        lib.distributions.Normal(0.0, 1.0), lib.distributions.Bernoulli(lib.tensor(0.5))),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    theirs, mine = attempt(ERRORS[name], torch), attempt(ERRORS[name], torturous)
    assert isinstance(theirs, Exception) and isinstance(mine, (type(theirs), ValueError)), (theirs, mine)


def test_a_policy_gradient_step() -> None:
    results = []
    for lib in (torturous, torch):
        lib.manual_seed(3)
        weight = (lib.arange(8.0).reshape(4, 2) / 8).requires_grad_()
        action_of = lib.distributions.Categorical(logits=lib.ones(5, 4) @ weight)
        action = action_of.sample()
        loss = -(action_of.log_prob(action) * lib.arange(5.0)).mean() - 0.1 * action_of.entropy().mean()
        loss.backward()
        results.append((action, loss, weight.grad))
    check(*results, "policy gradient", 1e-6)
