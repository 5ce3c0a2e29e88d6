"""Reductions against PyTorch: operations × dtypes × axes, gradients, empty tensors, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor.against_torch import DTYPES, Pair, attempt, check, check_all, sample

import torturous

REDUCTIONS = """sum nansum mean prod count_nonzero amax amin argmax argmin any all var std norm logsumexp max
min""".split()
SINGLE = {"prod", "argmax", "argmin", "max", "min"}
NEEDS_DIM = {"logsumexp"}
RUNNING = ("cumsum", "cumprod")
SHAPE = (3, 4, 5)


def small(dtype: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Of few values, so that sums are exact in sixteen bits and equal elements occur."""
    return sample(shape, dtype, seed, -1, 1)


def axes_of(name: str, rank: int) -> list[Any]:
    """`dim` arguments to try: none, one, negative, several."""
    dims: list[Any] = [] if name in NEEDS_DIM else [None]
    dims += [0, -1]
    return dims if name in SINGLE or rank < 2 else [*dims, (0, -1), [1]]


def both(name: str, x: Pair, *arguments: Any, **named: Any) -> tuple[Any, Any]:
    return (attempt(getattr(x.mine, name), *arguments, **named),
            attempt(getattr(x.theirs, name), *arguments, **named))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values(dtype):
    outcomes = []
    views = ((SHAPE, None), ((), None), ((6, 4, 4), lambda t: t[::2].transpose(0, 2)))
    for shape, view in views:
        x = Pair(small(dtype, shape), dtype, view=view)
        for name in REDUCTIONS:
            for dim in axes_of(name, len(shape)):
                named = {} if dim is None else {"dim": dim}
                outcomes.append((f"{name} {shape} {dim}", *both(name, x, **named)))
                if dim == -1 and len(shape) == 3 and name != "count_nonzero":
                    outcomes.append((f"{name} {shape} {dim} keepdim", *both(name, x, keepdim=True, **named)))
        for name in RUNNING:
            outcomes.append((f"{name} {shape}", *both(name, x, 0)))
            outcomes.append((f"{name} {shape}", *both(name, x, dim=-1)))
    check_all(outcomes)


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_nothing_reduced(dtype):
    outcomes = []
    for shape in ((0,), (0, 3), (3, 0)):
        x = Pair(np.zeros(shape), dtype)
        for name in [*REDUCTIONS, *RUNNING]:
            dims = [0, -1] if name in NEEDS_DIM or name in RUNNING else [None, 0, -1]
            for dim in dims:
                outcomes.append(
                    (f"{name} {shape} {dim}", *both(name, x, **({} if dim is None else {"dim": dim})))
                )
    check_all(outcomes)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_gradients(dtype):
    totals: list[Any] = [0, 0]
    pairs = []
    names = [name for name in REDUCTIONS if name not in ("argmax", "argmin", "any", "all", "count_nonzero")]
    for name in [*names, *RUNNING]:
        dims = (
            [0]
            if name in RUNNING
            else [dim for dim in axes_of(name, 3) if dtype == "float64" or dim in (None, 0)]
        )
        for dim in dims:
            x = Pair(
                small(dtype, seed=3) + (1.5 if name in ("prod", "cumprod") else 0), dtype, requires_grad=True
            )
            pairs.append((f"{name} {dim}", x))
            for k, t in enumerate((x.mine, x.theirs)):
                result = getattr(t, name)(**({} if dim is None else {"dim": dim}))
                if isinstance(result, tuple):
                    result = result[0]
                totals[k] = totals[k] + (result * result).sum()
    for total in totals:
        total.backward()
    check_all([(label, x.mine.grad, x.theirs.grad) for label, x in pairs], {"bfloat16": 0.05}.get(dtype))


def test_gradients_at_zero_and_of_equal_elements():
    outcomes = []
    for expression in (
        "t.norm()",
        "t.std()",
        "t.norm(3)",
        "t.norm(1)",
        "t.norm(math.inf)",
        "t.prod()",
        "t.max()",
        "t.min()",
        "t.max(0)[0].sum()",
        "t.min(1, keepdim=True).values.sum()",
        "t.amax((0, 1))",
    ):
        for fill in (0.0, 2.0):
            x = Pair(np.full((2, 3), fill), "float64", requires_grad=True)
            for t in (x.mine, x.theirs):
                eval(expression, {"t": t, "math": math}).backward()
            outcomes.append((f"{expression} of {fill}", x.mine.grad, x.theirs.grad))
    x = Pair(np.array([2.0, 0.0, 3.0, 0.0]), "float64", True)
    y = Pair(np.array([2.0, 0.0, 3.0, 4.0]), "float64", True)
    for p in (x, y):
        p.mine.prod().backward()
        p.theirs.prod().backward()
        outcomes.append(("prod with zeros", p.mine.grad, p.theirs.grad))
    check_all(outcomes)


@pytest.mark.parametrize("expression", [
    "x.sum(axis=0)", "x.sum(axis=(0, 1), keepdims=True)", "x.sum(dim=[])", "x.mean(dim=())",
    "x.sum(dtype=lib.float64)", "x.to(lib.int64).mean(dtype=lib.float32)", "x.sum(0, True)",
    "x.sum(0, dtype=lib.int32)", "x.sum(1, dtype=lib.uint8)", "x.prod(0, dtype=lib.int32)",
    "x.prod(0, dtype=lib.float64)", "x.var(False)", "x.var(0, False)", "x.std(unbiased=False)",
    "x.var(correction=0)", "x.var((0, 1), correction=2)", "x[:1].var(0)", "x[0, 0].var()", "lib.var_mean(x)",
    "lib.std_mean(x, 1)", "lib.std_mean(x, dim=0, keepdim=True)", "x.norm('fro')", "x.norm(2, 0)",
    "x.norm(3, (0, 1), True)", "x.norm(0)", "x.norm(-math.inf)", "x.norm(0.5, 1)",
    "x.norm(dtype=lib.float64)", "x.norm(p=None, dim=0)", "x.max(0)", "x.max(dim=1, keepdim=True)", "x.max()",
    "x.min(-1)", "lib.max(x, 1)", "lib.max(x, x * 2)", "x.min(other=x.abs())", "lib.min(x, dim=0)",
    "x.max(1).indices", "lib.max(x, 1)[1]", "x.argmax()", "x.argmax(keepdim=True)", "lib.argmin(x, dim=1)",
    "x.argmax(1, True)", "lib.any(x > 0, 0)", "x.all(dim=(0, 1))", "lib.sum(x, dim=(0, 1))", "lib.mean(x, 1)",
    "lib.logsumexp(x, (0, 1))", "x.to(lib.int64).logsumexp(0)", "(x * 1000).logsumexp(0)", "lib.cumsum(x, 1)",
    "x.cumsum(0, dtype=lib.float64)", "(x > 0).cumsum(1)", "x[0, 0].max(0)", "x[0, 0].max(0, True)",
    "x[0, 0].cumsum(0)", "x[0, 0].argmax(0)", "(x / 0).nansum()", "(x / 0).amax()", "(x / 0).argmax()",
    "(x / 0 * 0).min(0)", "(x / 0).logsumexp(0)",
])
def test_particular_results(expression):
    x = Pair(sample((3, 4), "float32", 5), "float32")
    mine, theirs = (attempt(eval, expression, {"lib": library, "x": t, "math": math})
                    for library, t in ((torturous, x.mine), (torch, x.theirs)))
    assert not isinstance(theirs, Exception)
    check(mine, theirs, expression)


@pytest.mark.parametrize("expression", [
    "x.sum((0, 0))", "x.sum(5)", "x.sum(-3)", "x.prod((0, 1))", "x.sum('a')", "lib.sum([1])",
    "x.norm('nuc2')", "x.to(lib.int64).mean()", "x.to(lib.int64).std()", "x.to(lib.int64).norm()",
    "(x > 0).argmax()", "x.max(5)", "x.argmax(7)", "x[:0].max()", "x[:0].max(0)", "x[:0].argmax()",
    "x[:0].amax()", "x[:0].amin(0)", "x.cumsum(3)", "x.var(0, unbiased=True, correction=1)", "x.cumsum()",
    "x.max(x, 0)",
])
def test_errors(expression):
    x = Pair(sample((3, 4), "float32", 5), "float32")
    mine, theirs = (attempt(eval, expression, {"lib": library, "x": t})
                    for library, t in ((torturous, x.mine), (torch, x.theirs)))
    assert isinstance(theirs, Exception)
    check(mine, theirs, expression)


def test_return_types_print_and_unpack_as_in_pytorch():
    x = Pair(np.array([[1.0, 3.0, 2.0], [6.0, 5.0, 4.0]]), "float32")
    assert repr(x.mine.max(1)) == repr(x.theirs.max(1))
    values, indices = x.mine.min(1)
    assert values.tolist() == [1.0, 4.0] and indices.tolist() == [0, 2]


def test_one_plan_serves_means_of_every_length():
    for length in range(3, 9):
        assert torturous.arange(length, dtype=torturous.float32).mean().item() == (length - 1) / 2


@settings(max_examples=30)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300), st.booleans())
def test_sums_are_as_accurate_as_pairwise_ones(numbers, double):
    array = np.array(numbers, np.float64 if double else np.float32)
    scale = np.abs(array).astype(np.float64).sum()
    exact = math.fsum(array.tolist())
    error = abs(torturous.tensor(array).sum().item() - exact)
    assert error <= scale * float(np.finfo(array.dtype).eps) * (2 + math.log2(len(numbers)))
