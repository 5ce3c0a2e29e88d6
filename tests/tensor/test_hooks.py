"""Hooks on tensors against PyTorch's: what they are called with, in which order, and what their results do.

Every program is run once as it is and once with hooks that look at the value they are given, which realizes
the pending record in the middle of the backward pass.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torturous

Program = Callable[[Any, Callable[[Any], Any]], Any]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    """A program gets the package and a function to look at gradients with."""
    PROGRAMS.append(function)
    return function


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values, dtype=T.float64, requires_grad=True)


@program
def sees_the_gradient_of_a_result(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x.exp()
    h.register_hook(lambda g: seen.append(look(g)))
    (h * h + h).sum().backward()
    return seen, x.grad


@program
def sees_the_gradient_of_a_leaf_once(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    x.register_hook(lambda g: seen.append(look(g)))
    (x * x + x.exp() + x).sum().backward()
    return seen, x.grad


@program
def sees_a_leaf_of_several_tapes_once(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    x.register_hook(lambda g: seen.append(look(g)))
    h = x * x
    h.tolist()
    z = (h * x).exp()
    z.tolist()
    (z * x).sum().backward()
    return seen, x.grad


@program
def replaces(T: Any, look: Callable[[Any], Any]) -> Any:
    x, w = leaf(T, 1, 2), leaf(T, 3, 4)
    h = x * w
    h.register_hook(lambda g: (look(g), g * 10)[1])
    w.register_hook(lambda g: (look(g), g + 1)[1])
    (h * h).sum().backward()
    return x.grad, w.grad


@program
def several_in_order(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x * 2
    h.register_hook(lambda g: (seen.append(look(g)), g * 2)[1])
    removed = h.register_hook(lambda g: g * 100)
    h.register_hook(lambda g: seen.append(look(g)))
    h.register_hook(lambda g: (seen.append(look(g)), g + 1)[1])
    removed.remove()
    h.sum().backward()
    return seen, x.grad


@program
def handle_as_context(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    with x.register_hook(lambda g: seen.append(look(g))):
        x.sum().backward()
    x.sum().backward()
    return seen, x.grad


@program
def order_along_a_chain(T: Any, look: Callable[[Any], Any]) -> Any:
    x, w, names = leaf(T, 1, 2), leaf(T, 3, 4), []
    a = x.exp()
    b = a * w
    c = b.sum()
    for name, t in (("x", x), ("a", a), ("b", b), ("c", c)):
        t.register_hook(lambda g, name=name: names.append((name, look(g))))
    c.backward()
    return names


@program
def writes_the_gradient_in_place(T: Any, look: Callable[[Any], Any]) -> Any:
    x = leaf(T, 1, 2)
    h = x * 3

    def clip(g: Any) -> None:
        look(g)
        g.mul_(0.5)

    h.register_hook(clip)
    (h * h).sum().backward()
    return x.grad


@program
def many_layers_that_look(T: Any, look: Callable[[Any], Any]) -> Any:
    weights, seen = [leaf(T, 0.5 + k, 1 - k) for k in range(6)], []
    h = leaf(T, 1, 2)
    for number, w in enumerate(weights):
        w.register_hook(lambda g, number=number: seen.append((number, look(g))))
        h = (h * w).tanh() + h
        h.register_hook(lambda g, number=number: seen.append((-number, look(g))))
    h.sum().backward()
    return seen, [w.grad for w in weights]


@program
def retains(T: Any, look: Callable[[Any], Any]) -> Any:
    x = leaf(T, 1, 2)
    h = x.exp()
    h.retain_grad()
    h.retain_grad()
    h.register_hook(lambda g: (look(g), g * 2)[1])
    for _ in range(2):
        (h * h).sum().backward(retain_graph=True)
    return h.grad, x.grad, h.retains_grad, x.retains_grad, h.is_leaf


@program
def retains_a_view(T: Any, look: Callable[[Any], Any]) -> Any:
    x = leaf(T, 1, 2, 3, 4)
    h = x * 2
    v = h.view(2, 2)
    v.retain_grad()
    v.register_hook(lambda g: (look(g), None)[1])
    y = (v * v).sum()
    y.item()
    (y + (v * 3).sum()).backward()
    return v.grad, x.grad


@program
def retains_after_looking(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x.exp()
    h.tolist()
    h.retain_grad()
    h.register_hook(lambda g: seen.append(look(g)))
    ((h * 2).sum() + (h * h).sum()).backward()
    return h.grad, x.grad, seen


@program
def a_result_of_several_tapes_once(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x.exp()
    h.register_hook(lambda g: seen.append(look(g)))
    y = (h * h).sum()
    y.item()
    (y + h.sum()).backward()
    return seen, x.grad


@program
def before_writing_in_place(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x * 2
    h.register_hook(lambda g: seen.append(("before", look(g))))
    h.mul_(3)
    h.register_hook(lambda g: seen.append(("after", look(g))))
    (h * 5).sum().backward()
    return seen, x.grad


@program
def after_accumulation(T: Any, look: Callable[[Any], Any]) -> Any:
    x, w, seen = leaf(T, 1, 2), leaf(T, 3, 4), []

    def step(p: Any) -> None:
        look(p.grad)
        with T.no_grad():
            p -= 0.1 * p.grad
        p.grad = None
        seen.append(p is w)

    w.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        (x * w * w).sum().backward()
    return seen, w, w.grad is None, x.grad


@program
def with_gradients_of_gradients(T: Any, look: Callable[[Any], Any]) -> Any:
    x, seen = leaf(T, 1, 2), []
    h = x * x
    h.register_hook(lambda g: (seen.append(look(g)), g * x)[1])
    (g,) = T.autograd.grad((h * h).sum(), x, create_graph=True)
    (g * g).sum().backward()
    return seen, g, x.grad


@program
def in_autograd_grad(T: Any, look: Callable[[Any], Any]) -> Any:
    x, w, seen = leaf(T, 1, 2), leaf(T, 3, 4), []
    h = x * w
    h.register_hook(lambda g: (seen.append(look(g)), g * 3)[1])
    w.register_hook(lambda g: (seen.append(look(g)), g + 1)[1])
    x.register_hook(lambda g: seen.append(("never", look(g))))
    return T.autograd.grad((h * h).sum(), [w, h]), seen


@program
def raising(T: Any, look: Callable[[Any], Any]) -> Any:
    x = leaf(T, 1, 2)
    h = x * x

    def fail(g: Any) -> None:
        look(g)
        raise KeyError("no")

    handle = h.register_hook(fail)
    try:
        h.sum().backward()
    except KeyError:
        handle.remove()
    return x.grad is None


@program
def backward_within_a_hook(T: Any, look: Callable[[Any], Any]) -> Any:
    x, w = leaf(T, 1, 2), leaf(T, 3, 4)
    h = x.exp()

    def other(g: Any) -> None:
        look(g)
        with T.enable_grad():
            (w * w).sum().backward()

    h.register_hook(other)
    (h * w).sum().backward()
    return x.grad, w.grad


@program
def of_another_shape(T: Any, look: Callable[[Any], Any]) -> Any:
    h = leaf(T, 1, 2) * 2
    h.register_hook(lambda g: g.sum())
    h.sum().backward()


@program
def on_what_needs_none(T: Any, look: Callable[[Any], Any]) -> Any:
    T.ones(2).register_hook(lambda g: None)


@program
def retain_what_needs_none(T: Any, look: Callable[[Any], Any]) -> Any:
    T.ones(2).retain_grad()


@program
def after_accumulation_on_a_result(T: Any, look: Callable[[Any], Any]) -> Any:
    (leaf(T, 1, 2) * 2).register_post_accumulate_grad_hook(lambda t: None)


def plain(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, torturous.Tensor)):
        return value.detach().numpy().tolist()
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


def outcome(function: Program, library: Any, look: Callable[[Any], Any]) -> Any:
    try:
        return plain(function(library, look))
    except Exception as error:
        return error


def close(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list):
        assert isinstance(ours, list), ours
        assert len(ours) == len(theirs), (ours, theirs)
        for a, b in zip(ours, theirs, strict=True):
            close(a, b)
    elif isinstance(theirs, Exception):
        assert type(ours) is type(theirs), (ours, theirs)
        assert str(ours)[:30] == str(theirs)[:30]
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-12)
    else:
        assert ours == theirs


LOOKS = {"unseen": lambda g: tuple(g.shape), "looked_at": lambda g: g.tolist()}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("function", PROGRAMS, ids=[function.__name__ for function in PROGRAMS])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_as_in_pytorch(function: Program, look: Callable[[Any], Any]) -> None:
    close(outcome(function, torturous, look), outcome(function, torch, look))


def test_looking_changes_no_bit() -> None:
    def run(look: bool) -> list[Any]:
        torturous.manual_seed(1)
        w = [torturous.randn(5, 7, requires_grad=True) for _ in range(5)]
        x = torturous.randn(5, 7)
        for t in w:
            x = (x * t).tanh() + x.exp() * 0.01
            if look:
                x.register_hook(lambda g: g.sum().item() and None)
                t.register_hook(lambda g: g.tolist() and None)
        (x * x).sum().backward()
        return [t.grad.numpy() for t in w]

    for plain_gradient, looked_at in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(plain_gradient, looked_at)


def test_hooks_die_with_the_graph() -> None:
    class Witness:
        pass

    witness = Witness()
    x = torturous.ones(3, requires_grad=True)
    h = x * 2
    h.register_hook(lambda g, witness=witness: None)
    h.tolist()
    alive = weakref.ref(witness)
    gc.disable()
    try:
        del witness, h
        assert alive() is None
    finally:
        gc.enable()
