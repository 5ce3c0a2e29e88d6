"""Linear algebra against PyTorch: values, gradients and their gradients, shapes, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import attempt, check

import torturous

INF = float("inf")


def matrices(*shape: int, seed: int = 0) -> np.ndarray:
    """Well-conditioned matrices, no two singular values alike."""
    x = np.random.default_rng(seed).standard_normal(shape)
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return (u * (1.0 + np.arange(min(shape[-2:])) * 0.7)) @ vh


def symmetric(a: Any) -> Any:
    return a @ a.mT + a.mT @ a


# What each gives does not depend on the signs of vectors, which are free.
DIFFERENTIABLE: dict[str, Callable[[Any, Any], Any]] = {
    "det": lambda lib, a: lib.linalg.det(a), "Tensor.det": lambda lib, a: a.det(),
    "slogdet": lambda lib, a: lib.linalg.slogdet(a)[1], "logdet": lambda lib, a: lib.logdet(symmetric(a)),
    "inv": lambda lib, a: lib.linalg.inv(a), "solve": lambda lib, a: lib.linalg.solve(a, a * a),
    "solve vectors": lambda lib, a: lib.linalg.solve(a, a[..., 0]),
    "solve from the right": lambda lib, a: lib.linalg.solve(a, a.cos(), left=False),
    "solve_triangular": lambda lib, a: lib.linalg.solve_triangular(a, a * 2 + 1, upper=True),
    "solve_triangular with ones": lambda lib, a: lib.linalg.solve_triangular(a, a * 2, upper=False, unitriangular=True),
    "cholesky": lambda lib, a: lib.linalg.cholesky(symmetric(a)),
    "cholesky upper": lambda lib, a: lib.cholesky(symmetric(a), upper=True),
    "eigvalsh": lambda lib, a: lib.linalg.eigvalsh(symmetric(a)),
    "eigh": lambda lib, a: lib.linalg.eigh(symmetric(a)).eigenvectors ** 2,
    "svdvals": lambda lib, a: lib.linalg.svdvals(a), "svd": lambda lib, a: lib.linalg.svd(a, False).U ** 2,
    "svd Vh": lambda lib, a: lib.linalg.svd(a, full_matrices=False).Vh ** 2,
    "torch.svd": lambda lib, a: lib.svd(a).V ** 2 * lib.svd(a).S.unsqueeze(-2),
    "qr R": lambda lib, a: lib.linalg.qr(a).R ** 2, "qr Q": lambda lib, a: lib.qr(a).Q ** 2,
    "pinv": lambda lib, a: lib.linalg.pinv(a), "pinverse": lambda lib, a: a.pinverse(),
    "matrix_power": lambda lib, a: lib.matrix_power(a, 5), "matrix_power -2": lambda lib, a: a.matrix_power(-2),
    "multi_dot": lambda lib, a: lib.linalg.multi_dot([a, a, a]) if a.dim() == 2 else a,
    "nuclear norm": lambda lib, a: lib.linalg.matrix_norm(a, "nuc"),
    "norm 2": lambda lib, a: lib.linalg.matrix_norm(a, 2),
    "norm 1": lambda lib, a: lib.linalg.norm(a, 1, (-2, -1)), "fro": lambda lib, a: lib.linalg.norm(a, "fro", (-2, -1)),
    "norm -inf": lambda lib, a: lib.linalg.matrix_norm(a, -INF, keepdim=True),
    "cond": lambda lib, a: lib.linalg.cond(a),
    "vector_norm": lambda lib, a: lib.linalg.vector_norm(a, 3, dim=-1), "norm": lambda lib, a: lib.linalg.norm(a),
    "vecdot": lambda lib, a: lib.linalg.vecdot(a, a * 2), "diagonal": lambda lib, a: lib.linalg.diagonal(a),
    "lstsq": lambda lib, a: lib.linalg.lstsq(a, a.sin()).solution,
}
SQUARE = ("det", "logdet", "inv", "solve", "cholesky", "eig", "matrix_power", "multi_dot", "slogdet", "Tensor.det",
          "cond")


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_and_their_gradients(name: str) -> None:
    shapes = [(3, 3), (2, 3, 3)] if name.startswith(SQUARE) else [(3, 3), (2, 4, 3), (3, 4)]
    for shape in shapes:
        if name.startswith("qr") and shape[-1] > shape[-2] or name == "lstsq" and shape[-1] > shape[-2]:
            continue
        results = []
        for lib in (torturous, torch):
            a = lib.tensor(matrices(*shape)).requires_grad_()
            z = DIFFERENTIABLE[name](lib, a)
            weights = lib.tensor(np.cos(np.arange(z.numel())).reshape(tuple(z.shape)))
            (first,) = lib.autograd.grad((z * z * weights).sum(), a, create_graph=True)
            second = attempt(lib.autograd.grad, (first * first).sum(), a)
            results.append((z, first, second))
        for mine, theirs in zip(*results, strict=True):
            if isinstance(theirs, Exception):
                continue
            mine, theirs = (g[0] if isinstance(g, tuple) else g for g in (mine, theirs))
            np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-6, atol=1e-7)


def t(lib: Any, array: np.ndarray, dtype: str = "float64") -> Any:
    return lib.tensor(array, dtype=getattr(lib, dtype))


CASES: dict[str, Callable[[Any], Any]] = {
    "slogdet negative": lambda lib: lib.slogdet(t(lib, -matrices(3, 3))),
    "det of nothing": lambda lib: lib.det(lib.ones(0, 3, 3)),
    "logdet negative": lambda lib: lib.logdet(lib.tensor([[0.0, 1.0], [1.0, 0.0]])),
    "det float32": lambda lib: lib.det(t(lib, matrices(2, 3, 3), "float32")),
    "det not square": lambda lib: lib.det(lib.ones(2, 3)), "det of a vector": lambda lib: lib.det(lib.ones(2)),
    "det of integers": lambda lib: lib.linalg.det(lib.ones(2, 2, dtype=lib.int64)),
    "solve dtypes": lambda lib: lib.linalg.solve(t(lib, matrices(2, 2)), lib.ones(2)),
    "solve broadcast": lambda lib: lib.linalg.solve(t(lib, matrices(2, 1, 3, 3)), t(lib, matrices(4, 3, 2))),
    "solve wrong": lambda lib: lib.linalg.solve(lib.ones(2, 2), lib.ones(3, 1)),
    "cholesky of what is none": lambda lib: lib.linalg.cholesky(-lib.eye(2)).sum().item(),
    "inv singular": lambda lib: lib.linalg.inv(lib.zeros(2, 2)).sum().item(),
    "solve singular": lambda lib: lib.linalg.solve(lib.zeros(2, 2), lib.ones(2)).sum().item(),
    "eigh": lambda lib: lib.linalg.eigh(t(lib, symmetric(matrices_t(3)))).eigenvalues,
    "eigh upper": lambda lib: lib.linalg.eigvalsh(t(lib, matrices(3, 3)), "U"),
    "eigh wrong half": lambda lib: lib.linalg.eigh(lib.eye(2), "X"),
    "qr complete": lambda lib: [p.abs() for p in lib.linalg.qr(t(lib, matrices(4, 2)), "complete")][1],
    "qr r": lambda lib: lib.linalg.qr(t(lib, matrices(4, 2)), "r")[1].abs(),
    "qr wide": lambda lib: lib.linalg.qr(t(lib, matrices(2, 4))).R.abs(),
    "qr wrong": lambda lib: lib.linalg.qr(lib.eye(2), "x"),
    "svd values": lambda lib: lib.svd(t(lib, matrices(2, 4)), compute_uv=False).S,
    "matrix_rank": lambda lib: lib.linalg.matrix_rank(lib.tensor([[1.0, 2.0], [2.0, 4.0]])),
    "matrix_rank rtol": lambda lib: lib.linalg.matrix_rank(t(lib, matrices(3, 3)), rtol=0.5),
    "matrix_rank atol": lambda lib: lib.linalg.matrix_rank(t(lib, matrices(3, 3)), atol=1.2),
    "matrix_power 0": lambda lib: lib.linalg.matrix_power(t(lib, matrices(3, 3)), 0),
    "pinv rtol": lambda lib: lib.linalg.pinv(t(lib, matrices(4, 3)), rtol=0.5),
    "cond 1": lambda lib: lib.linalg.cond(t(lib, matrices(3, 3)), 1),
    "cond -2": lambda lib: lib.linalg.cond(t(lib, matrices(3, 3)), -2),
    "norm of a vector": lambda lib: lib.linalg.norm(lib.tensor([3.0, 4.0]), 1),
    "norm order of three": lambda lib: lib.linalg.norm(lib.ones(1, 1, 1), 2),
    "matrix_norm wrong": lambda lib: lib.linalg.matrix_norm(lib.eye(2), 3),
    "matrix_norm dims": lambda lib: lib.linalg.matrix_norm(t(lib, matrices(2, 3, 4)), 1, (0, 2), True),
    "cross": lambda lib: lib.linalg.cross(lib.eye(3), lib.ones(3, 3)),
    "lstsq": lambda lib: lib.linalg.lstsq(t(lib, matrices(4, 2)), t(lib, matrices(4, 3)))[:3],
    "multi_dot of one": lambda lib: lib.linalg.multi_dot([lib.eye(2)]),
}


def matrices_t(size: int) -> Any:
    return torch.tensor(matrices(size, size))


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    check(attempt(CASES[name], torturous), attempt(CASES[name], torch), name, 1e-5)


def test_decompositions_multiply_up() -> None:
    for shape in ((3, 3), (2, 5, 3), (3, 4)):
        a = torturous.tensor(matrices(*shape))
        u, s, vh = torturous.linalg.svd(a, full_matrices=False)
        q, r = torturous.linalg.qr(a)
        for product in (u * s.unsqueeze(-2) @ vh, q @ r):
            np.testing.assert_allclose(product.numpy(), a.numpy(), atol=1e-12)
    w, v = torturous.linalg.eigh(symmetric(torturous.tensor(matrices(3, 3))))
    np.testing.assert_allclose((v * w @ v.mT).numpy(), symmetric(matrices_t(3)).numpy(), atol=1e-12)


def test_singular_matrices_are_named_with_the_line() -> None:
    a = torturous.zeros(2, 2)
    with pytest.raises(torturous.linalg.LinAlgError, match="test_decompositions"):
        torturous.linalg.solve(a, a).tolist()
