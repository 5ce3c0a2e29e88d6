"""`torch.func` against PyTorch's: gradients, products with Jacobians, nested and of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensor.against_torch import attempt, check

import torturous


def cubic(x: Any, y: Any = 2.0) -> Any:
    return (x**3 * y).sum()


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "grad": lambda lib, x: lib.func.grad(cubic)(x),
    "grad of two": lambda lib, x: lib.func.grad(cubic, argnums=(0, 1))(x, x * 2),
    "second": lambda lib, x: lib.func.grad(cubic, argnums=1)(x, x.cos()),
    "nested": lambda lib, x: lib.func.grad(lambda z: lib.func.grad(cubic)(z).sin().sum())(x),
    "aux": lambda lib, x: lib.func.grad(lambda z: (cubic(z), z.sum()), has_aux=True)(x),
    "value": lambda lib, x: lib.func.grad_and_value(cubic)(x),
    "unused": lambda lib, x: lib.func.grad(lambda z, w: (w * w).sum())(x, x),
    "no number": lambda lib, x: lib.func.grad(lambda z: z * 2)(x),
    "integers": lambda lib, x: lib.func.grad(cubic)(x.long()),
    "vjp": lambda lib, x: (lambda out, pull: (out, pull(x)))(*lib.func.vjp(lambda z: z.sin() * z, x)),
    "vjp of two": lambda lib, x: lib.func.vjp(lambda a, b: a * b, x, x + 1)[1](x),
    "jvp": lambda lib, x: lib.func.jvp(lambda z: z.exp() * z, (x,), (x.cos(),)),
    "jvp of two": lambda lib, x: lib.func.jvp(lambda a, b: a * b.sin(), (x, x + 1), (x.cos(), x)),
    "jacrev": lambda lib, x: lib.func.jacrev(lambda z: z[0] * z[1:].sin())(x),
    "jacrev of a number": lambda lib, x: lib.func.jacrev(cubic)(x),
    "hessian": lambda lib, x: lib.func.hessian(cubic)(x),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    mine, theirs = (attempt(lambda lib=lib: CASES[name](lib, lib.tensor([[0.5, -1.0], [2.0, 0.25]], dtype=lib.float64)))
                    for lib in (torturous, torch))
    if isinstance(theirs, Exception):
        assert isinstance(mine, Exception)
        return
    check(mine, theirs, name, 1e-10)


def test_modules_with_other_parameters() -> None:
    results = []
    for lib in (torturous, torch):
        net = lib.nn.Sequential(lib.nn.Linear(3, 2), lib.nn.Tanh()).requires_grad_(False)
        with lib.no_grad():
            for p in net.parameters():
                p.copy_(lib.arange(float(p.numel())).reshape(p.shape) / 5)
        own = {name: p.detach() for name, p in net.named_parameters()}
        x = lib.ones(4, 3)

        def loss(parameters: Any, lib: Any = lib, net: Any = net, x: Any = x) -> Any:
            return lib.func.functional_call(net, {"0.weight": parameters}, (x,)).pow(2).sum()

        g = lib.func.grad(loss)(own["0.weight"] * 2)
        results.append((g, net(x), lib.func.functional_call(net, ({"0.bias": own["0.bias"] - 1}, {}), x)))
    check(*results, "functional_call", 1e-6)
    with pytest.raises(KeyError, match="0.nothing"):
        torturous.func.functional_call(torturous.nn.Sequential(torturous.nn.Linear(1, 1)), {"0.nothing": 1}, (1,))
