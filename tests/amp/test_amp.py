"""Mixed precision against PyTorch: which dtype each operation gives, gradients, scaling of losses."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import Pair, attempt, check, sample

import torturous

# x (2, 3), w (4, 3), c (1, 2, 4, 4), k (3, 2, 2, 2), all of float32.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "@": lambda lib, x, w, c, k: x @ w.t(), "mm": lambda lib, x, w, c, k: x.mm(w.t()),
    "linear": lambda lib, x, w, c, k: lib.nn.functional.linear(x, w, w[:, 0]),
    "conv2d": lambda lib, x, w, c, k: lib.nn.functional.conv2d(c, k, k[:, 0, 0, 0]),
    "conv_transpose2d": lambda lib, x, w, c, k: lib.nn.functional.conv_transpose2d(c, k.transpose(0, 1)),
    "bmm": lambda lib, x, w, c, k: lib.bmm(c[0], c[0]), "addmm": lambda lib, x, w, c, k: lib.addmm(x[:, :1], x, w.t()),
    "baddbmm": lambda lib, x, w, c, k: lib.baddbmm(c[0], c[0], c[0]),
    "einsum": lambda lib, x, w, c, k: lib.einsum("ij,kj->ik", x, w),
    "attention": lambda lib, x, w, c, k: lib.nn.functional.scaled_dot_product_attention(c, c, c),
    "+": lambda lib, x, w, c, k: x + w[:2], "mv": lambda lib, x, w, c, k: w.mv(x[0]),
    "dot": lambda lib, x, w, c, k: x[0].dot(x[1]), "outer": lambda lib, x, w, c, k: x[0].outer(x[1]),
    "softmax": lambda lib, x, w, c, k: lib.softmax(x @ w.t(), 1), "sum": lambda lib, x, w, c, k: (x @ w.t()).sum(),
    "mixed sum": lambda lib, x, w, c, k: x @ w.t() + x[:, :1], "exp": lambda lib, x, w, c, k: (x @ w.t()).exp(),
    "cat": lambda lib, x, w, c, k: lib.cat([x @ w.t(), x]  , 1),
    "mse": lambda lib, x, w, c, k: lib.nn.functional.mse_loss(x @ w.t(), w[:2, :1].expand(2, 4)),
    "l1": lambda lib, x, w, c, k: lib.nn.functional.l1_loss(x @ w.t(), w[:2, :1].expand(2, 4)),
    "nll": lambda lib, x, w, c, k: lib.nn.functional.nll_loss(x @ w.t(), lib.tensor([0, 1])),
    "cross entropy": lambda lib, x, w, c, k: lib.nn.functional.cross_entropy(x @ w.t(), lib.tensor([0, 1])),
    "bce": lambda lib, x, w, c, k: lib.nn.functional.binary_cross_entropy_with_logits(x @ w.t(), (x @ w.t()) * 0),
    "double": lambda lib, x, w, c, k: x.double() @ w.double().t(),
    "half": lambda lib, x, w, c, k: x.half() @ w.half().t(),
    "outside again": lambda lib, x, w, c, k: outside(lib, x, w),
    "integers": lambda lib, x, w, c, k: x.long() @ w.long().t(),
}


def outside(lib: Any, x: Any, w: Any) -> Any:
    with lib.autocast("cpu", enabled=False):
        return x @ w.t()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_dtypes_and_values(name: str, dtype: str) -> None:
    pairs = [Pair(sample(shape, "float32", seed), "float32", True)
             for seed, shape in enumerate(((2, 3), (4, 3), (1, 2, 4, 4), (3, 2, 2, 2)))]
    results = []
    for lib, side in ((torturous, "mine"), (torch, "theirs")):
        with lib.autocast("cpu", dtype=getattr(lib, dtype)):
            results.append(attempt(OPERATIONS[name], lib, *(getattr(p, side) for p in pairs)))
    check(*results, name, 4e-2)
    if getattr(results[1], "requires_grad", False):
        for result in results:
            result.float().sum().backward()
        for p in pairs:
            assert (p.mine.grad is None) == (p.theirs.grad is None)
            if p.theirs.grad is not None:
                check(p.mine.grad, p.theirs.grad, f"{name} gradient", 6e-2)


QUESTIONS = [
    "autocast('cuda')._enabled", "autocast('cpu')._enabled", "autocast('cpu', dtype=float32)._enabled",
    "autocast('cpu', dtype=float16)._enabled",
    "autocast('cpu', enabled=False)._enabled", "repr(autocast('cpu').fast_dtype)",
    "autocast('foo')", "autocast(5)",
    "is_autocast_enabled()", "is_autocast_enabled('cpu')", "repr(get_autocast_dtype('cpu'))",
    "amp.GradScaler().is_enabled()", "amp.GradScaler('cpu').is_enabled()", "amp.GradScaler().get_scale()",
    "amp.GradScaler('cpu').get_scale()", "amp.GradScaler('cpu').state_dict()", "amp.GradScaler().state_dict()",
    "cuda.amp.GradScaler().scale(3)", "amp.GradScaler('cpu', init_scale=4.0).scale([ones(2)])[0].tolist()",
    "amp.GradScaler('cpu', growth_factor=0.5)", "amp.GradScaler('cpu').scale(3)", "cuda.amp.autocast()._enabled",
    "amp.is_autocast_available('cpu')",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions(question: str) -> None:
    answers = []
    for lib in (torturous, torch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers.append(attempt(eval, question, dict(vars(lib))))
    mine, theirs = (type(a) if isinstance(a, Exception) else a for a in answers)
    assert mine == theirs


def test_a_training_loop_with_a_scaler() -> None:
    """Steps with gradients that are not finite are left out; the scale shrinks and grows."""
    seen = []
    for lib in (torturous, torch):
        w = lib.ones(3).requires_grad_()
        optimizer = lib.optim.SGD([w], lr=0.1)
        scaler = lib.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
        log: list[Any] = []
        for factor in (1.0, float("inf"), 1.0, 2.0, 3.0):
            optimizer.zero_grad()
            loss = (w * w * factor).sum()
            scaler.scale(loss).backward()
            if factor == 2.0:
                scaler.unscale_(optimizer)
                log.append(w.grad.tolist())
            scaler.step(optimizer)
            scaler.update()
            log += [w.tolist(), scaler.get_scale()]
        other = lib.amp.GradScaler("cpu")
        other.load_state_dict(scaler.state_dict())
        log.append(other.state_dict())
        seen.append(log)
    for mine, theirs in zip(*seen, strict=True):
        assert mine == theirs if isinstance(theirs, dict) else np.allclose(mine, theirs)


def test_misuse_of_a_scaler() -> None:
    for lib in (torturous, torch):
        w = lib.ones(3).requires_grad_()
        optimizer, scaler = lib.optim.SGD([w], lr=0.1), lib.amp.GradScaler("cpu")
        with pytest.raises(AssertionError):
            scaler.update()
        scaler.scale(w.sum()).backward()
        scaler.unscale_(optimizer)
        with pytest.raises(RuntimeError, match="already been called"):
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        with pytest.raises(RuntimeError, match="already been called"):
            scaler.step(optimizer)


def test_as_a_decorator_and_nested() -> None:
    @torturous.autocast("cpu")
    def product(x: Any) -> Any:
        return x @ x

    x = torturous.ones(2, 2)
    assert product(x).dtype is torturous.bfloat16
    with torturous.autocast("cpu"):
        with torturous.autocast("cpu", dtype=torturous.float16):
            assert (x @ x).dtype is torturous.float16
        assert (x @ x).dtype is torturous.bfloat16
        assert torturous.is_autocast_enabled("cpu")
    assert (x @ x).dtype is torturous.float32
