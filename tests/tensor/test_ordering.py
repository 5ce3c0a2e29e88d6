"""Sorting, running values, distinct elements and searching, against PyTorch: values, places, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import DTYPES, FLOATS, Pair, attempt, check, check_all, sample

import torturous

INF, NAN = float("inf"), float("nan")
SHAPES = ((7,), (3, 50), (4, 60, 3), (2, 0), (), (5, 1, 4), (33, 17))


def distinct(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers in no order, all different where the dtype has so many."""
    count = int(np.prod(shape))
    numbers = np.random.default_rng(seed).permutation(count).reshape(shape) - (0 if dtype == "uint8" else count // 2)
    return numbers % 2 == 0 if dtype == "bool" else numbers / 4 if dtype in FLOATS else numbers


# What has one answer for equal elements too, and what has one for different ones.
SORTED: dict[str, Callable[..., Any]] = {
    "sort": lambda lib, x, dim: x.sort(dim=dim, stable=True),
    "sort down": lambda lib, x, dim: lib.sort(x, dim=dim, descending=True, stable=True),
    "argsort": lambda lib, x, dim: lib.argsort(x, dim=dim, stable=True),
    "argsort down": lambda lib, x, dim: x.argsort(dim=dim, descending=True, stable=True),
    "msort": lambda lib, x, dim: lib.msort(x),
    "cummax": lambda lib, x, dim: x.cummax(dim),
    "cummin": lambda lib, x, dim: lib.cummin(x, dim=dim),
    "unique": lambda lib, x, dim: lib.unique(x, return_inverse=True, return_counts=True),
    "unique_consecutive": lambda lib, x, dim: x.unique_consecutive(return_inverse=True, return_counts=True),
    "mode": lambda lib, x, dim: x.mode(dim).values,
    "mode kept": lambda lib, x, dim: lib.mode(x, dim, True).values,
    "median of all": lambda lib, x, dim: x.median(),
    "cumsum": lambda lib, x, dim: x.cumsum(dim),
    "cumsum in float64": lambda lib, x, dim: lib.cumsum(x, dim, dtype=lib.float64),
    "diff": lambda lib, x, dim: x.diff(dim=dim),
}
CHOSEN: dict[str, Callable[..., Any]] = {
    "topk": lambda lib, x, dim: x.topk(2, dim),
    "topk smallest": lambda lib, x, dim: lib.topk(x, k=2, dim=dim, largest=False),
    "topk of many": lambda lib, x, dim: lib.topk(x, min(40, x.shape[dim]) if x.dim() else 1, dim),
    "kthvalue": lambda lib, x, dim: x.kthvalue(2, dim),
    "kthvalue kept": lambda lib, x, dim: lib.kthvalue(x, 1, dim, keepdim=True),
    "median": lambda lib, x, dim: x.median(dim),
    "median kept": lambda lib, x, dim: lib.median(x, dim, keepdim=True),
    "nanmedian": lambda lib, x, dim: x.nanmedian(dim, True),
}


@pytest.mark.parametrize("name", [*SORTED, *CHOSEN])
def test_along_every_axis(name: str) -> None:
    function = (SORTED | CHOSEN)[name]
    outcomes = []
    for number, shape in enumerate(SHAPES):
        for dtype in DTYPES:
            array = sample(shape, dtype, number) if name in SORTED else distinct(shape, dtype, number)
            if name in CHOSEN and dtype in ("bool", "uint8", "bfloat16") and array.size > 7:
                continue  # Too many equals.
            for dim in {0, len(shape) - 1, -1}:
                pair = Pair(array, dtype)
                label = f"{name} {shape} {dtype} {dim}"
                outcomes.append((label, attempt(function, torturous, pair.mine, dim),
                                 attempt(function, torch, pair.theirs, dim)))
    check_all(outcomes)


SPECIAL = np.array([[NAN, 1.0, -INF, 2.0, 0.0, -0.0, INF], [3.0, NAN, NAN, -1.0, 2.5, 2.5, 7.0]])


@pytest.mark.parametrize("name", ["sort", "sort down", "argsort", "cummax", "cummin", "cumsum"])
def test_special_values(name: str) -> None:
    for dtype in FLOATS:
        for dim in (0, 1):
            pair = Pair(SPECIAL, dtype)
            check(SORTED[name](torturous, pair.mine, dim), SORTED[name](torch, pair.theirs, dim), f"{name} {dtype}")


@pytest.mark.parametrize("shape", [(1,), (31,), (32,), (33,), (1000,), (3, 300), (300, 3)])
def test_rows_of_any_length_are_sorted(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(5).integers(-50, 50, shape)
    for dtype in ("float32", "int64", "uint8", "float16"):
        for descending in (False, True):
            pair = Pair(abs(array) if dtype == "uint8" else array, dtype)
            check(pair.mine.sort(dim=0, descending=descending, stable=True),
                  pair.theirs.sort(dim=0, descending=descending, stable=True), f"{shape} {dtype}")


def test_sizes_that_change_are_served_by_one_plan() -> None:
    for size in (5, 40, 33, 7, 200):
        pair = Pair(distinct((3, size), "float32", size), "float32")
        check((pair.mine * 2).sort(), (pair.theirs * 2).sort())
        check((pair.mine * 2).topk(size // 2), (pair.theirs * 2).topk(size // 2))
        check((pair.mine * 2).cumsum(1), (pair.theirs * 2).cumsum(1))


DIFFERENTIABLE: dict[str, Callable[..., Any]] = {
    "sort": lambda lib, x: x.sort(1).values,
    "topk": lambda lib, x: x.topk(3, 1).values,
    "kthvalue": lambda lib, x: x.kthvalue(2, 0).values,
    "median": lambda lib, x: x.median(1).values,
    "median of all": lambda lib, x: x.median(),
    "mode": lambda lib, x: x.mode(1).values,
    "quantile": lambda lib, x: x.quantile(0.3, 1),
    "cumsum": lambda lib, x: x.cumsum(1),
    "cumsum along the first": lambda lib, x: x.cumsum(0),
    "cumprod": lambda lib, x: x.cumprod(1),
    "cumprod along the first": lambda lib, x: x.cumprod(0),
    "cumprod with zeros": lambda lib, x: (x * (x > 0)).cumprod(1),
    "cummax": lambda lib, x: x.cummax(1).values,
    "cummin": lambda lib, x: x.cummin(0).values,
    "logcumsumexp": lambda lib, x: x.logcumsumexp(1),
    "diff": lambda lib, x: x.diff(2, 0),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_and_their_gradients(name: str) -> None:
    array = distinct((4, 5), "float64") / 3 + 0.05
    results = []
    for lib in (torturous, torch):
        x = lib.tensor(array).requires_grad_()
        y = DIFFERENTIABLE[name](lib, x)
        weights = lib.tensor(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
        (g,) = lib.autograd.grad((y * y * weights).sum(), x, create_graph=True)
        (second,) = lib.autograd.grad((g * g).sum(), x)
        results.append((y, g, second))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-9)


def t(lib: Any, data: Any, dtype: str | None = None) -> Any:
    return lib.tensor(data, dtype=getattr(lib, dtype) if dtype else None)


# Each on both sides: equal results, or exceptions of one type.
CASES: dict[str, Callable[[Any], Any]] = {
    "cumprod": lambda lib: t(lib, [[1.5, -2.0, 3.0], [0.0, 2.0, INF]]).cumprod(1),
    "cumprod of integers": lambda lib: lib.cumprod(t(lib, [1, 2, 3, 0, 5]), 0),
    "cumprod of bool": lambda lib: t(lib, [True, True, False]).cumprod(0),
    "cumprod of a number": lambda lib: t(lib, 3.0).cumprod(0),
    "cumsum_": lambda lib: t(lib, [1, 2, 3], "int32").cumsum_(0),
    "cumprod_": lambda lib: t(lib, [1.0, 2.0, 3.0]).cumprod_(0),
    "cumsum axis": lambda lib: t(lib, [1.0, 2.0]).cumsum(axis=0),
    "cumsum out of range": lambda lib: t(lib, [1.0, 2.0]).cumsum(1),
    "cumsum bool number": lambda lib: t(lib, True).cumsum(0),
    "logcumsumexp": lambda lib: lib.logcumsumexp(t(lib, [-1000.0, 0.0, 1.0, -INF]), 0),
    "logcumsumexp infinite": lambda lib: lib.logcumsumexp(t(lib, [-INF, -INF, 2.0, INF, 1.0]), 0),
    "logcumsumexp number": lambda lib: t(lib, 2.0).logcumsumexp(0),
    "logcumsumexp of integers": lambda lib: t(lib, [1, 2]).logcumsumexp(0),
    "diff several": lambda lib: t(lib, [[1, 2, 4], [1, 6, 24]]).diff(2),
    "diff more than there is": lambda lib: t(lib, [1, 3]).diff(5),
    "diff none": lambda lib: t(lib, [1, 3]).diff(0),
    "diff with ends": lambda lib: lib.diff(t(lib, [1, 2]), prepend=t(lib, [0]), append=t(lib, [9])),
    "diff of bool": lambda lib: t(lib, [True, False, False]).diff(),
    "diff of a number": lambda lib: t(lib, 1).diff(),
    "topk too many": lambda lib: t(lib, [1, 2]).topk(3),
    "topk negative": lambda lib: t(lib, [1, 2]).topk(-1),
    "topk none": lambda lib: t(lib, [1, 2]).topk(0),
    "kthvalue 0": lambda lib: t(lib, [1.0, 2.0]).kthvalue(0),
    "sort out of range": lambda lib: t(lib, [1.0]).sort(2),
    "sort positional": lambda lib: t(lib, [2, 3, 1]).sort(0, True),
    "median nan": lambda lib: t(lib, [NAN, 1.0, NAN, 2.0]).median(),
    "median nan place": lambda lib: t(lib, [2.0, NAN, 3.0, NAN]).median(0),
    "nanmedian": lambda lib: t(lib, [NAN, 1.0, NAN, 2.0]).nanmedian(0),
    "nanmedian of all": lambda lib: lib.nanmedian(t(lib, [[NAN, 1.0], [5.0, 2.0]])),
    "nanmedian of nan": lambda lib: t(lib, [NAN, NAN]).nanmedian(),
    "median of nothing": lambda lib: lib.empty(0).median(),
    "median along nothing": lambda lib: lib.empty(0, 3).median(0),
    "median beside nothing": lambda lib: lib.empty(3, 0).median(0),
    "median of integers": lambda lib: t(lib, [3, 1, 2, 9]).median(),
    "mode of few": lambda lib: t(lib, [3, 2, 2, 3, 2, 3]).mode(),
    "mode of nothing": lambda lib: lib.empty(0).mode(),
    "unique": lambda lib: t(lib, [3, 1, 2, 1]).unique(),
    "unique counts": lambda lib: lib.unique(t(lib, [3, 1, 2, 1]), return_counts=True),
    "unique of a number": lambda lib: t(lib, 3).unique(return_inverse=True, return_counts=True),
    "unique of nothing": lambda lib: lib.empty(0).unique(return_inverse=True, return_counts=True),
    "unique of bool": lambda lib: t(lib, [True, True]).unique(),
    "unique nan": lambda lib: t(lib, [3.0, NAN, NAN, 1.0]).unique(),
    "unique rows": lambda lib: t(lib, [[1, 2], [1, 2], [0, 5], [1, 0]]).unique(
        dim=0, return_inverse=True, return_counts=True),
    "unique columns": lambda lib: lib.unique(t(lib, [[1, 2, 1], [1, 2, 1], [0, 5, 0]]), dim=1, return_inverse=True),
    "unique blocks": lambda lib: t(lib, [[[1, 0], [2, 3]], [[1, 0], [2, 2]], [[1, 0], [2, 3]]]).unique(dim=0),
    "unique dim out of range": lambda lib: t(lib, [1]).unique(dim=1),
    "unique consecutive": lambda lib: lib.unique_consecutive(t(lib, [1, 1, 2, 2, 1]), return_counts=True),
    "unique consecutive rows": lambda lib: t(lib, [[1, 1], [1, 1], [2, 2]]).unique_consecutive(dim=0),
    "searchsorted": lambda lib: lib.searchsorted(t(lib, [1.0, 2.0, 2.0, 3.0]), t(lib, [[2.0, NAN], [0.0, 9.0]])),
    "searchsorted right": lambda lib: lib.searchsorted(t(lib, [1.0, 2.0, 2.0, 3.0]), t(lib, [2.0, 3.0]), right=True),
    "searchsorted side": lambda lib: lib.searchsorted(t(lib, [1, 2, 3]), t(lib, 2), side="right", out_int32=True),
    "searchsorted number": lambda lib: lib.searchsorted(t(lib, [1.0, 2.0, 3.0]), 2.5),
    "searchsorted rows": lambda lib: lib.searchsorted(t(lib, [[1, 2, 3], [4, 5, 6]]), t(lib, [[2, 9], [5, 0]])),
    "searchsorted rows wrong": lambda lib: lib.searchsorted(t(lib, [[1.0, 2], [4, 5]]), t(lib, [2.0])),
    "searchsorted nothing": lambda lib: lib.searchsorted(lib.empty(0), t(lib, [2.0])),
    "searchsorted opposites": lambda lib: lib.searchsorted(t(lib, [1.0]), t(lib, [1.0]), side="left", right=True),
    "searchsorted sorter": lambda lib: lib.searchsorted(t(lib, [3.0, 1, 2]), t(lib, 2.0), sorter=t(lib, [1, 2, 0])),
    "bucketize": lambda lib: lib.bucketize(t(lib, [[3, 6, 9], [3, 6, 9]]), t(lib, [1, 3, 5, 7, 9])),
    "bucketize number": lambda lib: lib.bucketize(2, t(lib, [1, 2, 3]), right=True),
    "bucketize rows": lambda lib: lib.bucketize(t(lib, [1]), t(lib, [[1, 2]])),
    "isin": lambda lib: lib.isin(t(lib, [[1, 2], [3, 4]]), t(lib, [2, 3, 3])),
    "isin number": lambda lib: lib.isin(t(lib, [1, 2]), 2),
    "isin inverted": lambda lib: lib.isin(t(lib, [1.0, 2.0]), t(lib, [2, 3]), invert=True),
    "isin nothing": lambda lib: lib.isin(t(lib, [1, 2]), t(lib, [], "int64")),
    "number isin": lambda lib: lib.isin(1, t(lib, [1, 5])),
    "quantiles": lambda lib: lib.quantile(t(lib, [[4.0, 2.0, 3.0], [1.0, 5.0, 9.0]]), t(lib, [0.1, 0.5]), dim=1),
    "quantiles kept": lambda lib: lib.quantile(t(lib, [[4.0, 2.0], [1.0, 5.0]]), t(lib, [0.1, 0.5]), 0, True),
    "quantile of all": lambda lib: t(lib, [[4.0, 2.0], [1.0, 5.0]]).quantile(0.4),
    "quantile of all kept": lambda lib: t(lib, [[4.0, 2.0], [1.0, 5.0]]).quantile(0.4, keepdim=True),
    "quantile nan": lambda lib: t(lib, [[1.0, NAN], [3.0, 4.0]]).quantile(0.5, dim=1),
    "nanquantile": lambda lib: lib.nanquantile(t(lib, [[1.0, NAN], [3.0, 4.0], [NAN, NAN]]), 0.5, dim=1),
    "quantile of integers": lambda lib: t(lib, [1, 2]).quantile(0.5),
    "quantile beyond": lambda lib: t(lib, [1.0]).quantile(2.0),
    "quantile of another dtype": lambda lib: t(lib, [1.0]).quantile(t(lib, 0.5, "float64")),
    "quantile of a number": lambda lib: t(lib, 1.0).quantile(0.5, 0),
    "bincount": lambda lib: lib.bincount(t(lib, [1, 1, 3])),
    "bincount weights": lambda lib: t(lib, [1, 1, 3]).bincount(t(lib, [0.5, 1.0, 2.0]), 6),
    "bincount integer weights": lambda lib: t(lib, [1, 1, 3]).bincount(weights=t(lib, [5, 1, 2])),
    "bincount negative": lambda lib: t(lib, [-1]).bincount(),
    "bincount of floats": lambda lib: t(lib, [1.0]).bincount(),
    "bincount of rows": lambda lib: t(lib, [[1]]).bincount(),
    "bincount of nothing": lambda lib: t(lib, [], "int64").bincount(minlength=2),
    "bincount wrong weights": lambda lib: t(lib, [1, 1]).bincount(t(lib, [1.0])),
    "histc": lambda lib: lib.histc(t(lib, [1.0, 2.0, 2.0, 5.0]), 4),
    "histc bounds": lambda lib: t(lib, [1.0, 2.0, 2.0, 5.0]).histc(4, 0, 3),
    "histc of integers": lambda lib: t(lib, [1, 2]).histc(2),
    "histc nan": lambda lib: t(lib, [NAN, 1.0]).histc(2),
    "histc no bins": lambda lib: t(lib, [1.0]).histc(0),
    "histc of one value": lambda lib: t(lib, [2.0, 2.0]).histc(3),
    "histc of nothing": lambda lib: lib.empty(0).histc(3),
    "histc turned": lambda lib: t(lib, [1.0]).histc(2, 3, 1),
    "repr": lambda lib: repr(t(lib, [2, 1]).sort()),
    "repr of cummax": lambda lib: repr(t(lib, [2, 1]).cummax(0)),
    **{f"quantile {way}": (lambda lib, way=way: t(lib, [1.0, 2.0, 5.0, 9.0]).quantile(
        t(lib, [0.0, 0.2, 0.5, 0.7, 1.0]), interpolation=way))
       for way in ("linear", "lower", "higher", "nearest", "midpoint", "other")},
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    check(attempt(CASES[name], torturous), attempt(CASES[name], torch), name)
