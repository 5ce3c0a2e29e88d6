"""`torch.autograd.functional` against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensor.against_torch import attempt, check

import torturous


def quartic(x: Any) -> Any:
    return (x**4).sum()


def mixed(x: Any, y: Any) -> Any:
    return x.sin() * y.sum(), x + y[0]


CASES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "vjp": lambda f, x, y: f.vjp(lambda z: z.exp(), x, y), "vjp of a number": lambda f, x, y: f.vjp(quartic, x),
    "vjp of several": lambda f, x, y: f.vjp(mixed, (x, y), (y, x)),
    "vjp without v": lambda f, x, y: f.vjp(lambda z: z, x),
    "vjp wrong": lambda f, x, y: f.vjp(lambda z: z, x, y[0]),
    "jvp": lambda f, x, y: f.jvp(lambda z: z.exp() * z, x, y),
    "jvp of several": lambda f, x, y: f.jvp(mixed, (x, y), (y, x)),
    "jacobian": lambda f, x, y: f.jacobian(lambda z: z.exp(), x),
    "jacobian of several": lambda f, x, y: f.jacobian(mixed, (x, y)),
    "jacobian with a graph": lambda f, x, y: f.jacobian(lambda z: z**3, x.clone().requires_grad_(), create_graph=True),
    "hessian": lambda f, x, y: f.hessian(quartic, x),
    "hessian of several": lambda f, x, y: f.hessian(lambda a, b: (a * a * b).sum(), (x, y)),
    "hessian of more": lambda f, x, y: f.hessian(lambda z: z, x), "vhp": lambda f, x, y: f.vhp(quartic, x, y),
    "hvp": lambda f, x, y: f.hvp(lambda a, b: (a * a * b).sum(), (x, y), (y, x)),
    "independent": lambda f, x, y: f.vjp(lambda a, b: a * 2, (x, y), x),
    "independent and strict": lambda f, x, y: f.vjp(lambda a, b: a * 2, (x, y), x, strict=True),
    "no tensor": lambda f, x, y: f.vjp(lambda z: z, 3.0),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    outcomes = []
    for lib in (torturous, torch):
        x, y = (lib.tensor(data, dtype=lib.float64)
                for data in ([[0.5, -1.0], [2.0, 0.25]], [[1.5, 1.0], [-2.0, 0.75]]))
        outcomes.append(attempt(CASES[name], lib.autograd.functional, x, y))
    check(*outcomes, name, 1e-10)
