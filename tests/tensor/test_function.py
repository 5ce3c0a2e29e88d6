"""`autograd.Function`, `gradcheck` and `gradgradcheck` against PyTorch's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torturous
from torturous.autograd import check
from torturous.ir.record import context as context_of_thread

LIBRARIES = {"torch": torch, "torturous": torturous}


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values, dtype=T.float64, requires_grad=True)


def exponential(T: Any) -> Any:
    """Saves its result."""
    class Exponential(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            result = x.exp()
            ctx.save_for_backward(result)
            return result

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (result,) = ctx.saved_tensors
            return g * result

    return Exponential.apply


def product(T: Any) -> Any:
    """Saves its operands; takes a number too, and has two results."""
    class Product(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any, factor: float) -> Any:
            ctx.save_for_backward(x, y)
            ctx.factor = factor
            return x * y * factor, x + y

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            x, y = ctx.saved_tensors
            return g * y * ctx.factor + h, g * x * ctx.factor + h, None

    return Product.apply


def squared(T: Any) -> Any:
    """With `setup_context`."""
    class Squared(T.autograd.Function):
        @staticmethod
        def forward(x: Any) -> Any:
            return x * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g * ctx.saved_tensors[0]

    return Squared.apply


def uses(T: Any, look: bool) -> list[Any]:
    x, y = leaf(T, 0.5, 2), leaf(T, 3, 4)
    h = exponential(T)(x)
    a, b = product(T)(h, y, 3.0)
    if look:
        a.tolist()
        b.sum().item()
    z = squared(T)(a).sum() + (b * b).sum()
    gx, gy = T.autograd.grad(z, [x, y], create_graph=True)
    if look:
        gx.tolist()
    (gx * gx + gy).sum().backward()
    return [z, gx, gy, x.grad, y.grad]


@pytest.mark.parametrize("look", [False, True])
def test_gradients_and_their_gradients(look: bool) -> None:
    for ours, theirs in zip(uses(torturous, look), uses(torch, look), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-10)


def context(T: Any) -> list[Any]:
    seen: list[Any] = []

    class Parts(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            seen.append(ctx.needs_input_grad)
            seen.append(T.is_grad_enabled())
            positive = x > 0
            ctx.mark_non_differentiable(positive)
            return x * 2, y * 3, positive

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any, p: Any) -> Any:
            seen.append(h.tolist())
            seen.append(T.is_grad_enabled())
            return g * 2, h * 3

    x, y = leaf(T, 1, -2), T.ones(2, dtype=T.float64)
    a, b, positive = Parts.apply(x, y)
    a.sum().backward()
    return [*seen, x.grad.tolist(), positive.requires_grad, b.requires_grad, a.grad_fn.name()]


def unmaterialized(T: Any) -> list[Any]:
    seen: list[Any] = []

    class Parts(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            seen.append((g is None, h is None))
            return g * 2

    x = leaf(T, 1, -2)
    Parts.apply(x)[0].sum().backward()
    return [*seen, x.grad.tolist()]


def dirty(T: Any) -> list[Any]:
    class Doubled(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 20

    x = leaf(T, 1, -2)
    h = x * 3
    result = Doubled.apply(h)
    (h * 5).sum().backward()
    return [result is h, h.tolist(), x.grad.tolist()]


def hooked(T: Any) -> list[Any]:
    x, seen = leaf(T, 1, -2), []
    h = squared(T)(x)
    h.register_hook(lambda g: (seen.append(g.tolist()), g * 2)[1])
    (h * 3).sum().backward()
    return [*seen, x.grad.tolist()]


def under_no_grad(T: Any) -> list[Any]:
    with T.no_grad():
        return [squared(T)(leaf(T, 1, 2)).requires_grad]


def constant_operand(T: Any) -> list[Any]:
    return [squared(T)(T.ones(2)).requires_grad]


def wrong_count(T: Any) -> Any:
    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            return x * y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    Wrong.apply(leaf(T, 1), leaf(T, 2)).sum().backward()


def wrong_shape(T: Any) -> Any:
    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return T.ones(3, dtype=T.float64)

    Wrong.apply(leaf(T, 1, 2)).sum().backward()


def gradient_of_a_number(T: Any) -> Any:
    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, k: float) -> Any:
            return x * k

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g, g

    Wrong.apply(leaf(T, 1, 2), 3.0).sum().backward()


def saved_twice(T: Any) -> Any:
    y = exponential(T)(leaf(T, 1, 2)).sum()
    y.backward()
    y.backward()


def saved_and_written(T: Any) -> Any:
    x = leaf(T, 1, 2) * 1
    y = squared(T)(x)
    x.add_(1)
    y.sum().backward()


def once(T: Any) -> Any:
    class Once(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @T.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g * ctx.saved_tensors[0]

    x = leaf(T, 1, 2)
    (g,) = T.autograd.grad(Once.apply(x).pow(2).sum(), x, create_graph=True)
    g.sum().backward()


def save_a_number(T: Any) -> Any:
    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(3)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return ctx.saved_tensors

    Wrong.apply(leaf(T, 1, 2)).sum().backward()


PROGRAMS: list[Callable[[Any], Any]] = [
    context, unmaterialized, dirty, hooked, under_no_grad, constant_operand, wrong_count, wrong_shape,
    gradient_of_a_number, saved_twice, saved_and_written, once, save_a_number]


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.__name__ for program in PROGRAMS])
def test_as_in_pytorch(program: Callable[[Any], Any]) -> None:
    outcomes = []
    for library in (torturous, torch):
        try:
            outcomes.append(program(library))
        except Exception as error:
            outcomes.append(error)
    ours, theirs = outcomes
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), (ours, theirs)
        if isinstance(theirs, RuntimeError):
            assert str(ours)[:20] == str(theirs)[:20]
    else:
        assert ours == theirs


def test_a_function_leaves_no_cycle() -> None:
    context_of_thread.renew()  # What other tests have left pending shares a tape with what follows.
    x = torturous.ones(3, requires_grad=True)
    y = squared(torturous)(exponential(torturous)(x) * 2)
    y.tolist()
    alive = weakref.ref(y.storage.record)
    gc.disable()
    try:
        del y
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("T", LIBRARIES.values(), ids=LIBRARIES)
def test_gradcheck(T: Any) -> None:
    x, y = leaf(T, 0.5, 2), leaf(T, 3, 4)
    assert T.autograd.gradcheck(lambda a, b: ((a * b).tanh(), a / b), (x, y))
    assert T.autograd.gradgradcheck(lambda a, b: (a * b).tanh() + a.exp(), (x, y))
    assert T.autograd.gradcheck(exponential(T), (x,))
    assert T.autograd.gradgradcheck(exponential(T), (x,))

    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2.1

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        T.autograd.gradcheck(Wrong.apply, (x,))
    assert not T.autograd.gradcheck(Wrong.apply, (x,), raise_exception=False)
    with pytest.raises(ValueError, match="at least one input"):
        T.autograd.gradcheck(lambda a: a, (T.ones(2),))


def test_gradcheck_error_is_a_runtime_error() -> None:
    assert issubclass(check.GradcheckError, RuntimeError)
