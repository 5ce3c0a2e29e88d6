"""Linear algebra on the host: determinants, solutions, decompositions, of the last two axes (LAPACK through NumPy).

An op has one result. A decomposition that gives several packs them, flattened, into one last axis, from which they are
sliced; its gradient rule takes them apart again. Rules are written with the same operations, so they have gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.errors import LinAlgError
from torturous.core.shapes import Shape
from torturous.ir.contraction import CONTRACT, matrix_product
from torturous.ir.host import INVERSE
from torturous.ir.op import Attributes, Kind, Op, Type, define


def _host(name: str, meaning: Callable[..., Any], *gradients: Any, saves: tuple = (), document: str = "") -> Op:
    def careful(out: Type, at: Attributes, *arrays: np.ndarray) -> np.ndarray:
        try:
            with np.errstate(all="ignore"):
                return meaning(out, at, *arrays)
        except np.linalg.LinAlgError as error:
            shapes = ", ".join(str(list(x.shape)) for x in arrays)
            raise LinAlgError(f"linalg.{name}: {error} (input of shape {shapes})") from error

    return define(Op(name, Kind.HOST, None, careful, gradients, saves, document=document))


# Rules' words -----------------------------------------------------------------------------------------------
def _product(a: Any, b: Any) -> Any:
    shape = (*a.shape[:-1], b.shape[-1])
    return a.apply_typed(CONTRACT, shape, a.dtype, b, attributes=matrix_product(len(shape) - 2))


def _turned(x: Any) -> Any:
    rank = len(x.shape)
    return x.permute((*range(rank - 2), rank - 1, rank - 2))


def _part(x: Any, start: int, shape: Shape) -> Any:
    """A stretch of the last axis, reshaped to (…, *shape)."""
    lead = x.shape[:-1]
    return x.slice((*lead, prod(shape)), (len(lead),), (1,), (start,)).reshape((*lead, *shape))


def _across(x: Any, compare: str) -> Any:
    """Where the row's number compares so with the column's, for square matrices like x: bool (n, n)."""
    size = x.shape[-1]
    rows = x.iota(size, dtypes.int64).reshape((size, 1))
    return getattr(rows, compare)(x.iota(size, dtypes.int64))


def _masked(x: Any, compare: str) -> Any:
    return _across(x, compare).where(x, 0.0)


def _column(x: Any) -> Any:
    """(…, n) as (…, n, 1)."""
    return x.reshape((*x.shape, 1))


def _row(x: Any) -> Any:
    return x.reshape((*x.shape[:-1], 1, x.shape[-1]))


def _on_diagonal(x: Any) -> Any:
    """(…, n) as diagonals of zeros."""
    size = x.shape[-1]
    wide = _row(x).expand((*x.shape[:-1], size, size))
    return _masked(wide, "eq")


def _gaps(x: Any) -> Any:
    """1/(xⱼ − xᵢ) off the diagonal, 0 on it."""
    apart = _row(x) - _column(x)
    same = _across(apart, "eq")
    return same.where(0.0, same.where(1.0, apart).reciprocal())


# Determinants and solutions ---------------------------------------------------------------------------------
def _det_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    """det(X)·X⁻ᵀ."""
    return _column(_column(g * out)) * _turned(x.apply(INVERSE))


def _slogdet_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    """X⁻ᵀ for the logarithm; the sign is constant."""
    return _column(_part(g, 1, (1,))) * _turned(x.apply(INVERSE))


DET = _host("det", lambda out, at, x: np.linalg.det(x), _det_rule, saves=((0, -1),),
            document="determinants: (…, n, n) → (…)")
SLOGDET = _host("slogdet", lambda out, at, x: np.stack(np.linalg.slogdet(x), -1), _slogdet_rule, saves=((0,),),
                document="signs and logarithms of the sizes of determinants: (…, n, n) → (…, 2)")


def _solve_right_rule(g: Any, out: Any, at: Attributes, a: Any, b: Any) -> Any:
    return _turned(a).apply_typed(SOLVE, g.shape, g.dtype, g)


SOLVE: Op = _host("solve", lambda out, at, a, b: np.linalg.solve(a, b),
                  lambda g, out, at, a, b: -_product(_solve_right_rule(g, out, at, a, b), _turned(out)),
                  _solve_right_rule, saves=((0, -1), (0,)),
                  document="X with A·X = B: A (…, n, n), B (…, n, k)")


# Decompositions ---------------------------------------------------------------------------------------------
def _cholesky_rule(g: Any, out: Any, at: Attributes, a: Any) -> Any:
    """½(M + Mᵀ) for M = L⁻ᵀ·(Lᵀg, its lower half with half the diagonal)·L⁻¹."""
    upper = _turned(out)
    inner = _product(upper, g)
    inner = _masked(inner, "gt") + _masked(inner, "eq") * 0.5
    half = upper.apply_typed(SOLVE, inner.shape, inner.dtype, inner)
    whole = upper.apply_typed(SOLVE, inner.shape, inner.dtype, _turned(half))
    return (whole + _turned(whole)) * 0.5


CHOLESKY = _host("cholesky", lambda out, at, a: np.linalg.cholesky(a), _cholesky_rule, saves=((-1,),),
                 document="L with L·Lᵀ = A, lower triangular")


def _packed(*parts: np.ndarray, lead: int) -> np.ndarray:
    shape = parts[0].shape[:lead]
    return np.concatenate([part.reshape(*shape, prod(part.shape[lead:])) for part in parts], -1)


def _eigh_meaning(out: Type, at: Attributes, a: np.ndarray) -> np.ndarray:
    return _packed(*np.linalg.eigh(a, at[0]), lead=a.ndim - 2)


def _eigh_rule(g: Any, out: Any, at: Attributes, a: Any) -> Any:
    """V·(diag(gλ) + (Vᵀ·gV) / (λⱼ − λᵢ))·Vᵀ."""
    n = a.shape[-1]
    values, vectors = _part(out, 0, (n,)), _part(out, n, (n, n))
    inner = _product(_turned(vectors), _part(g, n, (n, n))) * _gaps(values) + _on_diagonal(_part(g, 0, (n,)))
    return _product(_product(vectors, inner), _turned(vectors))


EIGH = _host("eigh", _eigh_meaning, _eigh_rule, saves=((-1,),),
             document="eigenvalues, rising, and eigenvectors of symmetric matrices, packed: attributes the half read")


def _svd_meaning(out: Type, at: Attributes, a: np.ndarray) -> np.ndarray:
    return _packed(*np.linalg.svd(a, full_matrices=False), lead=a.ndim - 2)


def _svd_rule(g: Any, out: Any, at: Attributes, a: Any) -> Any:
    """After Townsend (2016), "Differentiating the singular value decomposition"."""
    m, n = a.shape[-2:]
    k = min(m, n)
    u, s, vh = _part(out, 0, (m, k)), _part(out, m * k, (k,)), _part(out, m * k + k, (k, n))
    gu, gs, gvh = _part(g, 0, (m, k)), _part(g, m * k, (k,)), _part(g, m * k + k, (k, n))
    gaps = _gaps(s * s)
    left, right = _product(_turned(u), gu), _product(gvh, _turned(vh))
    # Of V, the second is the transpose of Vᵀ·gV.
    inner = (left - _turned(left)) * gaps * _row(s) + _column(s) * ((_turned(right) - right) * gaps) + _on_diagonal(gs)
    result = _product(_product(u, inner), vh)
    if m > k:
        outside = gu - _product(u, left)
        result = result + _product(outside / _row(s), vh)
    if n > k:
        outside = gvh - _product(right, vh)
        result = result + _product(u, outside / _column(s))
    return result


SVD = _host("svd", _svd_meaning, _svd_rule, saves=((-1,),),
            document="U (m, k), singular values (k), falling, and Vᵀ (k, n) of (m, n), packed")


def _qr_meaning(out: Type, at: Attributes, a: np.ndarray) -> np.ndarray:
    return _packed(*np.linalg.qr(a, at[0]), lead=a.ndim - 2)


def _qr_rule(g: Any, out: Any, at: Attributes, a: Any) -> Any:
    """(gQ + Q·copyltu(R·gRᵀ − gQᵀ·Q))·R⁻ᵀ, for matrices that are not wide (Walter and Lehmann, 2013)."""
    m, n = a.shape[-2:]
    q, r = _part(out, 0, (m, n)), _part(out, m * n, (n, n))
    gq, gr = _part(g, 0, (m, n)), _part(g, m * n, (n, n))
    inner = _product(r, _turned(gr)) - _product(_turned(gq), q)
    inner = _masked(inner, "ge") + _turned(_masked(inner, "gt"))
    total = gq + _product(q, inner)
    return _turned(r.apply_typed(SOLVE, (*a.shape[:-2], n, m), a.dtype, _turned(total)))


QR = _host("qr", _qr_meaning, _qr_rule, saves=((-1,),),
           document="Q (m, k) and R (k, n) of (m, n), packed: attributes NumPy's mode; gradients for k = n")


def _pinv_rule(g: Any, out: Any, at: Attributes, a: Any, rcond: Any) -> Any:
    """After Golub and Pereyra (1973)."""
    turned, gt = _turned(out), _turned(g)
    inner = _product(gt, out)
    outer = _product(inner, turned)
    result = outer - _turned(_product(out, inner)) - _product(_product(a, out), outer)
    return result + _product(_product(turned, out), gt - _product(inner, a))


def _pinv_meaning(out: Type, at: Attributes, a: np.ndarray, rcond: Any) -> np.ndarray:
    return np.linalg.pinv(a, rcond=np.asarray(rcond))


PINV = _host("pinv", _pinv_meaning, _pinv_rule, None, saves=((0, -1), ()),
             document="pseudo-inverses: (…, m, n) → (…, n, m); the second operand is the least relative singular value")
