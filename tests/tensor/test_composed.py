"""Operations made of others against PyTorch: values, gradients and their gradients, dtypes, shapes, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import DTYPES, Pair, attempt, check, check_all, sample

import torturous

INF, NAN = float("inf"), float("nan")
UNARY = """deg2rad rad2deg angle sinc signbit isposinf isneginf isreal nan_to_num logit real conj is_conj is_neg
    atleast_1d atleast_2d atleast_3d diagflat""".split()
BINARY = "hypot copysign fmax fmin heaviside ldexp logaddexp logaddexp2 xlogy float_power kron inner".split()


@pytest.mark.parametrize("dtype", DTYPES)
def test_elementwise(dtype: str) -> None:
    outcomes = []
    for shape in ((3, 5), (), (0, 2)):
        x, y = Pair(sample(shape, dtype), dtype), Pair(sample(shape, dtype, 1), dtype)
        for name in UNARY:
            outcomes.append((f"{name} {shape}", attempt(getattr(torturous, name), x.mine),
                             attempt(getattr(torch, name), x.theirs)))
        for name in BINARY:
            if name == "float_power" and dtype not in ("float32", "float64"):
                continue
            if name in ("kron", "inner") and dtype == "bool":
                continue
            outcomes.append((f"{name} {shape}", attempt(getattr(torturous, name), x.mine, y.mine),
                             attempt(getattr(torch, name), x.theirs, y.theirs)))
    check_all(outcomes, 2e-2 if dtype in ("float16", "bfloat16") else 1e-5)


SPECIAL = [NAN, INF, -INF, 0.0, -0.0, 1.0, -2.0, 1e30, -1e-30]


@pytest.mark.parametrize("name", BINARY)
def test_special_values(name: str) -> None:
    if name in ("kron", "inner", "ldexp"):
        return
    a, b = (np.array(grid).reshape(-1) for grid in np.meshgrid(SPECIAL, SPECIAL))
    for dtype in ("float32", "float64"):
        x, y = Pair(a, dtype), Pair(b, dtype)
        check(getattr(torturous, name)(x.mine, y.mine), getattr(torch, name)(x.theirs, y.theirs), name, 1e-5)
    for unary in ("nan_to_num", "signbit", "sinc", "angle", "isposinf", "isneginf", "logit"):
        x = Pair(np.array(SPECIAL[1:] if unary == "signbit" else SPECIAL), "float32")
        check(getattr(x.mine, unary)(), getattr(x.theirs, unary)(), unary)


DIFFERENTIABLE: dict[str, Callable[..., Any]] = {
    "hypot": lambda lib, x, y: lib.hypot(x, y), "fmax": lambda lib, x, y: lib.fmax(x, y),
    "fmin": lambda lib, x, y: x.fmin(y), "copysign": lambda lib, x, y: x.copysign(y),
    "logaddexp": lambda lib, x, y: lib.logaddexp(x, y), "logaddexp2": lambda lib, x, y: x.logaddexp2(y),
    "xlogy": lambda lib, x, y: lib.xlogy(x, y.abs()), "sinc": lambda lib, x, y: lib.sinc(x),
    "logit": lambda lib, x, y: lib.logit(x.sigmoid(), 0.2), "nan_to_num": lambda lib, x, y: x.nan_to_num() * y,
    "float_power": lambda lib, x, y: x.abs().float_power(y), "ldexp": lambda lib, x, y: x.ldexp(y),
    "kron": lambda lib, x, y: lib.kron(x, y), "inner": lambda lib, x, y: x.inner(y),
    "cross": lambda lib, x, y: lib.cross(x, y, dim=1), "cross along the first": lambda lib, x, y: x.cross(y, 0),
    "trace": lambda lib, x, y: x.mm(y).trace(), "diag_embed": lambda lib, x, y: lib.diag_embed(x, 1),
    "diag_embed elsewhere": lambda lib, x, y: x.diag_embed(-1, 2, 0), "diagflat": lambda lib, x, y: x.diagflat(2),
    "addr": lambda lib, x, y: x.addr(x[0], y[0], beta=0.5, alpha=2),
    "addbmm": lambda lib, x, y: x.addbmm(lib.stack([x, y]), lib.stack([y, x])),
    "dist": lambda lib, x, y: x.dist(y, 3), "cdist": lambda lib, x, y: lib.cdist(x, y),
    "renorm": lambda lib, x, y: x.renorm(2, 0, 1.5), "cov": lambda lib, x, y: x.cov(),
    "corrcoef": lambda lib, x, y: x.corrcoef(),
    "trapezoid": lambda lib, x, y: lib.trapezoid(x, y),
    "block_diag": lambda lib, x, y: lib.block_diag(x, y[0], y[0, 0]),
    "cumulative_trapezoid": lambda lib, x, y: lib.cumulative_trapezoid(x, dx=0.5, dim=0),
    "tensordot": lambda lib, x, y: lib.tensordot(x, y, 1),
    "tensordot lists": lambda lib, x, y: lib.tensordot(x, y, ([0, 1], [1, 0])),
    "einsum": lambda lib, x, y: lib.einsum("ij,jk->ik", x, y),
    "einsum of three": lambda lib, x, y: lib.einsum("ij,jk,lk->il", x, y, x),
    "einsum diagonal": lambda lib, x, y: lib.einsum("ii,ij->j", x, y),
    "einsum ellipsis": lambda lib, x, y: lib.einsum("...i,ji->...j", lib.stack([x, y]), x),
    "select_scatter": lambda lib, x, y: lib.select_scatter(x, y[0], 0, 1),
    "slice_scatter": lambda lib, x, y: x.slice_scatter(y[:, :2], 1, 1, 3),
    "diagonal_scatter": lambda lib, x, y: lib.diagonal_scatter(x, y[0]),
    "sum_to_size": lambda lib, x, y: lib.stack([x, y]).sum_to_size(3, 1),
    "t_": lambda lib, x, y: (x * 2).t_().mm(y), "unsqueeze_": lambda lib, x, y: (x * 2).unsqueeze_(0).mul_(y),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_and_their_gradients(name: str) -> None:
    arrays = [np.random.default_rng(seed).permutation(9).reshape(3, 3) / 3 - 1.4 for seed in (0, 1)]
    results = []
    for lib in (torturous, torch):
        x, y = (lib.tensor(a).requires_grad_() for a in arrays)
        z = DIFFERENTIABLE[name](lib, x, y)
        weights = lib.tensor(np.cos(np.arange(z.numel())).reshape(tuple(z.shape)))
        first = lib.autograd.grad((z * z * weights).sum(), (x, y), create_graph=True, allow_unused=True)
        total = sum((g * g).sum() for g in first if g is not None and g.requires_grad)
        second = attempt(lib.autograd.grad, total, (x, y), allow_unused=True)
        # PyTorch has no second derivatives of some.
        results.append((z, *first, *(second if not isinstance(second, Exception) else ())))
    for mine, theirs in zip(*results, strict=False):
        a, b = (np.zeros(()) if g is None else g.detach().numpy() for g in (mine, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def t(lib: Any, data: Any, dtype: str | None = None) -> Any:
    return lib.tensor(data, dtype=getattr(lib, dtype) if dtype else None)


def counted(lib: Any, *shape: int) -> Any:
    return lib.arange(float(np.prod(shape))).reshape(shape)


def turned(lib: Any, name: str, *arguments: Any) -> Any:
    x = counted(lib, 2, 1, 3)[:, 0] if name == "t_" else counted(lib, 2, 1, 3)
    view = x[1]
    y = getattr(x, name)(*arguments)
    assert y is x
    x[0] += 1
    return x, x.stride(), view, x * 2


# Each on both sides: equal results, or exceptions of one type.
CASES: dict[str, Callable[[Any], Any]] = {
    "fmax nan": lambda lib: lib.fmax(t(lib, [1.0, NAN, NAN]), t(lib, [NAN, 2.0, NAN])),
    "fmin of integers": lambda lib: lib.fmin(t(lib, [1, 5]), t(lib, [2, 3])),
    "copysign number": lambda lib: lib.copysign(t(lib, [1, -2]), -0.0),
    "xlogy number": lambda lib: lib.xlogy(2, t(lib, [1.0, 3.0])), "xlogy by": lambda lib: t(lib, [0.0, 2.0]).xlogy(3),
    "heaviside dtypes": lambda lib: lib.heaviside(t(lib, [1.0]), t(lib, [1])),
    "nan_to_num given": lambda lib: lib.nan_to_num(t(lib, [NAN, INF, -INF]), 1.0, 2.0, 3.0),
    "nan_to_num_": lambda lib: t(lib, [NAN, 1.0]).nan_to_num_(5.0), "imag": lambda lib: t(lib, [1.0]).imag,
    "logit eps": lambda lib: lib.logit(t(lib, [0.0, 0.5, 2.0]), eps=1e-3),
    "trace of integers": lambda lib: t(lib, [[1, 2], [3, 4]]).trace(),
    "trace of three": lambda lib: lib.ones(1, 1, 1).trace(),
    "trace tall": lambda lib: counted(lib, 4, 2).trace(), "cross none": lambda lib: lib.cross(lib.ones(2), lib.ones(2)),
    "cross found": lambda lib: lib.cross(counted(lib, 2, 3), counted(lib, 2, 3) ** 2),
    "inner wrong": lambda lib: lib.inner(lib.ones(2, 3), lib.ones(4)),
    "inner number": lambda lib: t(lib, 2.0).inner(t(lib, [3.0])),
    "vdot": lambda lib: lib.vdot(counted(lib, 3), counted(lib, 3)),
    "kron ranks": lambda lib: counted(lib, 3).kron(counted(lib, 2, 2)),
    "diag_embed same": lambda lib: lib.ones(2).diag_embed(0, 1, 1),
    "diag_embed of nothing": lambda lib: lib.ones(2, 0).diag_embed(),
    "tril_indices": lambda lib: lib.tril_indices(3, 4, 1),
    "triu_indices": lambda lib: lib.triu_indices(4, 3, -1, dtype=lib.int32),
    "block_diag none": lambda lib: lib.block_diag(),
    "block_diag of three": lambda lib: lib.block_diag(lib.ones(1, 1, 1)),
    "vander": lambda lib: lib.vander(t(lib, [1.0, 2.0, 3.0]), 4),
    "vander rising": lambda lib: lib.vander(t(lib, [1, 2, 3]), increasing=True),
    "cartesian_prod": lambda lib: lib.cartesian_prod(t(lib, [1, 2]), t(lib, [3, 4, 5])),
    "cartesian_prod of one": lambda lib: lib.cartesian_prod(t(lib, [1, 2])),
    "combinations": lambda lib: lib.combinations(t(lib, [5, 6, 7])),
    "combinations again": lambda lib: lib.combinations(t(lib, [5.0, 6, 7]), 3, True),
    "combinations of more": lambda lib: lib.combinations(t(lib, [5, 6]), r=3),
    "combinations 0": lambda lib: lib.combinations(t(lib, [5]), 0),
    "combinations of rows": lambda lib: lib.combinations(t(lib, [[5]])),
    "unravel_index": lambda lib: lib.unravel_index(t(lib, [[7, 3], [0, 11]]), (3, 4)),
    "cdist 1": lambda lib: lib.cdist(counted(lib, 2, 3, 2), counted(lib, 4, 2) ** 2, 1.0),
    "cdist inf": lambda lib: lib.cdist(counted(lib, 3, 2), counted(lib, 4, 2) ** 2, INF),
    "cdist wrong": lambda lib: lib.cdist(lib.ones(2, 3), lib.ones(2, 4)),
    "trapz": lambda lib: lib.trapz(t(lib, [1.0, 5.0, 10.0])),
    "trapz dx": lambda lib: lib.trapz(t(lib, [1, 5, 10]), dx=2),
    "trapezoid along": lambda lib: lib.trapezoid(counted(lib, 3, 4), t(lib, [1.0, 3.0, 4.0]), dim=0),
    "cov of a row": lambda lib: counted(lib, 5).cov(),
    "cov correction": lambda lib: (counted(lib, 2, 4) ** 2).cov(correction=0),
    "cov weights": lambda lib: (counted(lib, 2, 4) ** 2).cov(
        fweights=t(lib, [1, 2, 3, 1]), aweights=t(lib, [0.5, 1.0, 2.0, 1.0])),
    "cov of three": lambda lib: lib.ones(1, 1, 1).cov(), "corrcoef of a row": lambda lib: counted(lib, 5).corrcoef(),
    "renorm": lambda lib: counted(lib, 2, 3).renorm(1, 1, 4.0),
    "renorm of a row": lambda lib: lib.ones(3).renorm(2, 0, 1.0),
    "atleast list": lambda lib: lib.atleast_2d([t(lib, 1.0), t(lib, [1.0, 2.0])]),
    "atleast several": lambda lib: lib.atleast_3d(t(lib, 1), t(lib, [[1]])),
    "hsplit": lambda lib: lib.hsplit(counted(lib, 4, 4), 2),
    "hsplit places": lambda lib: counted(lib, 5).hsplit([1, 3]),
    "hsplit uneven": lambda lib: counted(lib, 4, 4).hsplit(3), "vsplit": lambda lib: lib.vsplit(counted(lib, 4, 2), 2),
    "vsplit of a row": lambda lib: counted(lib, 4).vsplit(2),
    "dsplit": lambda lib: lib.dsplit(counted(lib, 2, 1, 4), 2),
    "split_with_sizes": lambda lib: counted(lib, 5).split_with_sizes([2, 3]),
    "select_scatter wrong": lambda lib: lib.ones(2, 3).select_scatter(lib.ones(2), 0, 0),
    "fill_diagonal_": lambda lib: lib.zeros(3, 5).fill_diagonal_(7.0),
    "fill_diagonal_ tall": lambda lib: lib.zeros(7, 3).fill_diagonal_(7),
    "fill_diagonal_ wrapped": lambda lib: lib.zeros(8, 3).fill_diagonal_(7, wrap=True),
    "fill_diagonal_ cube": lambda lib: lib.zeros(3, 3, 3).fill_diagonal_(1),
    "fill_diagonal_ uneven": lambda lib: lib.zeros(3, 3, 2).fill_diagonal_(1),
    "fill_diagonal_ row": lambda lib: lib.zeros(3).fill_diagonal_(1),
    "triu_ expanded": lambda lib: counted(lib, 3, 1).expand(3, 4).triu_(),
    "tril_ expanded": lambda lib: counted(lib, 3).expand(2, 3).tril_(1),
    "addmm_": lambda lib: lib.ones(2, 2).addmm_(counted(lib, 2, 3), counted(lib, 3, 2), beta=0.5),
    "ger": lambda lib: lib.ger(counted(lib, 2), counted(lib, 3)),
    "logspace": lambda lib: lib.logspace(-1, 2, 4),
    "logspace base": lambda lib: lib.logspace(0, 3, 4, base=2, dtype=lib.float64),
    "range": lambda lib: lib.range(1, 4),
    "range step": lambda lib: lib.range(1, 2, 0.25),
    "range wrong": lambda lib: lib.range(2, 1),
    "asarray": lambda lib: lib.asarray([1, 2]), "asarray copy": lambda lib: lib.asarray(t(lib, [1.0]), copy=True),
    "asarray cannot": lambda lib: lib.asarray([1.0], copy=False),
    "frombuffer": lambda lib: lib.frombuffer(bytearray(range(8)), dtype=lib.uint8),
    "frombuffer part": lambda lib: lib.frombuffer(bytearray(16), dtype=lib.float32, count=2, offset=4),
    "resize": lambda lib: counted(lib, 6).resize(2, 3), "resize wrong": lambda lib: counted(lib, 6).resize(2, 2),
    "sum_to_size wrong": lambda lib: lib.ones(2, 3).sum_to_size(2, 2),
    "narrow_copy": lambda lib: counted(lib, 6).narrow_copy(0, 1, 3),
    "t_": lambda lib: turned(lib, "t_"),
    "transpose_": lambda lib: turned(lib, "transpose_", 0, 2),
    "squeeze_": lambda lib: turned(lib, "squeeze_"),
    "unsqueeze_": lambda lib: turned(lib, "unsqueeze_", 1), "swapaxes_": lambda lib: turned(lib, "swapaxes_", 0, 1),
    "unsqueeze_ of a leaf": lambda lib: lib.ones(2).requires_grad_().unsqueeze_(0),
    "t_ of three": lambda lib: lib.ones(1, 1, 1).t_(),
    "tensordot numbers": lambda lib: lib.tensordot(counted(lib, 2), counted(lib, 3), 0),
    "tensordot wrong": lambda lib: lib.tensordot(lib.ones(2, 3), lib.ones(2, 3), 1),
    "tensordot uneven": lambda lib: lib.tensordot(lib.ones(2), lib.ones(2), ([0], [])),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    check(attempt(CASES[name], torturous), attempt(CASES[name], torch), name)


# Equation, then the shapes of operands.
EQUATIONS = [
    ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("ij", (2, 3)), ("ji", (2, 3)), ("ii->i", (3, 3)), ("ii", (3, 3)),
    ("iji->j", (2, 3, 2)),
    ("i,j->ij", (2,), (3,)), ("i,i->", (4,), (4,)), ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhid,bhjd->bhij", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)), ("i,j,k->kji", (2,), (3,), (4,)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 2), (2, 3), (3, 2)),
    ("...ij,...jk->...ik", (2, 3, 4), (4, 5)), ("...i->...", (2, 3, 4)), ("...", (2, 3)),
    ("i...,i...->...", (3, 2, 2), (3, 2, 2)),
    ("b...,b...->b", (2, 3), (2, 3)), ("...,...->...", (2, 1, 3), (4, 1)), ("ij,jk", (1, 3), (3, 2)),
    ("ij,ij->ij", (2, 3), (1, 3)),
    ("ij,kj->ik", (2, 1), (3, 4)), ("ij,j->i", (0, 3), (3,)), ("i j , j k -> i k", (2, 3), (3, 2)), (",->", (), ()),
    ("i,->i", (3,), ()),
    ("ij,jk->iq", (2, 3), (3, 2)), ("ij,jk->ii", (2, 3), (3, 2)), ("ij", (2,)), ("ij,jk->ik", (2, 3)),
    ("i1->i", (2, 3)),
    ("ij,jk->ik", (2, 3), (4, 2)), ("bn,anm,bm->ba", (2, 5), (3, 5, 4), (2, 4)),
]


@pytest.mark.parametrize("equation", EQUATIONS, ids=[equation[0] for equation in EQUATIONS])
def test_einsum(equation: Any) -> None:
    text, *shapes = equation
    pairs = [Pair(sample(shape, "float64", seed), "float64", True) for seed, shape in enumerate(shapes)]
    mine = attempt(torturous.einsum, text, *(p.mine for p in pairs))
    theirs = attempt(torch.einsum, text, *(p.theirs for p in pairs))
    check(mine, theirs, text)
    if isinstance(theirs, Exception):
        return
    mine.sum().backward()
    theirs.sum().backward()
    for p in pairs:
        check(p.mine.grad, p.theirs.grad, f"{text} gradient")


def test_einsum_of_axis_numbers() -> None:
    results = []
    for lib in (torturous, torch):
        x, y = counted(lib, 2, 3), counted(lib, 3, 4)
        results.append((lib.einsum(x, [0, 1], y, [1, 2], [0, 2]), lib.einsum(x, [0, 1], y, [1, 2]),
                        lib.einsum(x, [..., 1], y, [1, 5], [..., 5]), lib.einsum("ij,jk->ik", [x, y])))
    check(*results)
