"""Linear algebra: determinants, solutions, decompositions, norms of matrices. Runs on the host, through LAPACK.

Matrices are the last two axes, of float32 or float64. RuntimeError where shapes do not fit; LinAlgError, when values
are computed, where a matrix is singular or an algorithm does not converge.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import broadcast, describe, normalize_axis
from torturous.ir import decompositions as ops
from torturous.tensor.applying import apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import eye, full
from torturous.tensor.linear import matmul
from torturous.tensor.movement import as_function
from torturous.tensor.reductions import return_type
from torturous.tensor.types import finfo

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Eigh, Qr = return_type("linalg_eigh", "eigenvalues", "eigenvectors"), return_type("linalg_qr", "Q", "R")
Svd, OldSvd = return_type("linalg_svd", "U", "S", "Vh"), return_type("svd", "U", "S", "V")
OldQr = return_type("qr", "Q", "R")
Slogdet, LinalgSlogdet = (return_type(name, "sign", "logabsdet") for name in ("slogdet", "linalg_slogdet"))


# Checks -----------------------------------------------------------------------------------------------------
def _matrix(name: str, t: Any) -> Any:
    if not isinstance(t, TensorBase):
        raise TypeError(f"linalg_{name}(): argument 'A' (position 1) must be Tensor, not {type(t).__name__}")
    if len(t.shape) < 2:
        raise RuntimeError(f"linalg.{name}: The input tensor A must have at least 2 dimensions, but has shape "
                           f"{describe(t.shape)}")
    if t.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"linalg.{name}: Expected a tensor of float32 or float64, but got {t.dtype}")
    return t


def _square(name: str, t: Any) -> Any:
    t = _matrix(name, t)
    if t.shape[-1] != t.shape[-2]:
        raise RuntimeError(f"linalg.{name}: A must be batches of square matrices, but they are {t.shape[-2]} by "
                           f"{t.shape[-1]} matrices")
    return t


def _parts(packed: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """What a decomposition packed into the last axis."""
    parts, start = [], 0
    for shape in shapes:
        count = 1
        for size in shape:
            count *= size
        piece = packed.narrow(-1, start, count)
        parts.append(piece.reshape((*packed.shape[:-1], *shape)))
        start += count
    return parts


# Determinants -----------------------------------------------------------------------------------------------
def det(A: Any) -> Tensor:
    """Determinants."""
    A = _square("det", A)
    return apply_typed(ops.DET, tuple(A.shape[:-2]), A.dtype, A)


def _slogdet(A: Any, result: Any) -> Any:
    A = _square("slogdet", A)
    packed: Any = apply_typed(ops.SLOGDET, (*A.shape[:-2], 2), A.dtype, A)
    return result(packed[..., 0].detach(), packed[..., 1])


def slogdet(A: Any) -> Any:
    """`(sign, logabsdet)` of determinants."""
    return _slogdet(A, LinalgSlogdet)


def logdet(A: Any) -> Tensor:
    """Logarithms of determinants; NaN for negative ones."""
    sign, size = slogdet(A)
    return size.masked_fill(sign < 0, float("nan"))


# Solutions --------------------------------------------------------------------------------------------------
def solve(A: Any, B: Any, *, left: bool = True) -> Tensor:
    """X with A · X = B (X · A = B unless `left`). B may be one vector for each matrix."""
    A = _square("solve", A)
    if not isinstance(B, TensorBase) or B.dtype is not A.dtype:
        raise RuntimeError(f"linalg.solve: Expected A and B to have the same dtype, but found A of type {A.dtype} and "
                           f"B of type {getattr(B, 'dtype', type(B).__name__)} instead")
    if not B.shape:
        raise RuntimeError("linalg.solve: B must be a vector for each matrix, or a matrix, but has no dimensions")
    b: Any = B
    vector = len(b.shape) == 1 or tuple(b.shape) == tuple(A.shape[:-1])
    if vector:
        b = b.unsqueeze(-1)
    if not left:
        A, b = A.mT, b if vector else b.mT
    if b.shape[-2] != A.shape[-1]:
        raise RuntimeError(f"linalg.solve: Incompatible shapes of A and B for the equation "
                           f"{'AX = B' if left else 'XA = B'} ({A.shape[-2]}x{A.shape[-1]} and "
                           f"{b.shape[-2]}x{b.shape[-1]})")
    lead = broadcast([tuple(A.shape[:-2]), tuple(b.shape[:-2])])
    A, b = A.expand(*lead, *A.shape[-2:]), b.expand(*lead, *b.shape[-2:])
    x: Any = apply_typed(ops.SOLVE, tuple(b.shape), b.dtype, A, b)
    if vector:
        return x.squeeze(-1)
    return x if left else x.mT


def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """`solve` with one half of A alone, its diagonal taken as ones if `unitriangular`."""
    A = _square("solve_triangular", A)
    half = A.triu(1 if unitriangular else 0) if upper else A.tril(-1 if unitriangular else 0)
    return solve(half + eye(A.shape[-1], dtype=A.dtype) if unitriangular else half, B, left=left)


def inv(A: Any) -> Tensor:
    """Inverses."""
    return _square("inv", A).inverse()


def pinv(A: Any, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Tensor:
    """Pseudo-inverses: singular values up to rtol times the largest (by default the larger extent times eps) count as
    0. UnsupportedError for `atol`."""
    A = _matrix("pinv", A)
    if atol is not None:
        raise UnsupportedError("linalg.pinv(atol=): give rtol, relative to the largest singular value")
    least = max(A.shape[-2:]) * finfo(A.dtype).eps if rtol is None else float(rtol)
    shape = (*A.shape[:-2], A.shape[-1], A.shape[-2])
    return apply_typed(ops.PINV, shape, A.dtype, A, full((), least, dtype=dtypes.float64))


def matrix_power(A: Any, n: int) -> Tensor:
    """A multiplied n times with itself; of the inverse where n is negative."""
    A = _square("matrix_power", A)
    if n < 0:
        return matrix_power(inv(A), -n)
    result: Any = eye(A.shape[-1], dtype=A.dtype).expand(A.shape).clone() if n == 0 else None
    while n:
        if n & 1:
            result = A if result is None else matmul(result, A)
        n >>= 1
        A = matmul(A, A) if n else A
    return result


def multi_dot(tensors: Sequence[Any]) -> Tensor:
    """The product of matrices, from left to right; the first and the last may be vectors."""
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    result: Any = tensors[0]
    for t in tensors[1:]:
        result = matmul(result, t)
    return result


def lstsq(A: Any, B: Any, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """`(solution, residuals, rank, singular_values)` of least squares: X that makes ‖A·X − B‖ smallest.

    Residuals and singular values are empty, as with PyTorch's "gelsy"; UnsupportedError for another driver.
    """
    if driver not in (None, "gelsy"):
        raise UnsupportedError(f"linalg.lstsq(driver={driver!r}): only 'gelsy', the default, is supported")
    A = _matrix("lstsq", A)
    x = matmul(pinv(A, rtol=rcond), B)
    return LeastSquares(x, A.new_empty(0), matrix_rank(A.detach(), rtol=rcond), A.new_empty(0))


LeastSquares = return_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")


# Decompositions ---------------------------------------------------------------------------------------------
def cholesky(A: Any, *, upper: bool = False) -> Tensor:
    """L with L · Lᵀ = A, lower triangular; Lᵀ if `upper`. Reads the lower half of A."""
    A = _square("cholesky", A)
    result: Any = apply_typed(ops.CHOLESKY, tuple(A.shape), A.dtype, A)
    return result.mT if upper else result


def eigh(A: Any, UPLO: str = "L") -> Any:
    """`(eigenvalues, eigenvectors)` of symmetric matrices, of which one half is read; eigenvalues rise."""
    A = _square("eigh", A)
    half = UPLO.upper()
    if half not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    n = A.shape[-1]
    packed = apply_typed(ops.EIGH, (*A.shape[:-2], n + n * n), A.dtype, A, attributes=(half,))
    return Eigh(*_parts(packed, (n,), (n, n)))


def eigvalsh(A: Any, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, rising."""
    return eigh(A, UPLO).eigenvalues


def _svd(A: Any) -> list[Any]:
    m, n = A.shape[-2:]
    k = min(m, n)
    packed = apply_typed(ops.SVD, (*A.shape[:-2], m * k + k + k * n), A.dtype, A)
    return _parts(packed, (m, k), (k,), (k, n))


def svd(A: Any, full_matrices: bool = True) -> Any:
    """`(U, S, Vh)` with A = U · diag(S) · Vh; S falls. UnsupportedError for full matrices of what is not square."""
    A = _matrix("svd", A)
    if full_matrices and A.shape[-1] != A.shape[-2]:
        raise UnsupportedError("linalg.svd(full_matrices=True) of what is not square: give full_matrices=False")
    return Svd(*_svd(A))


def svdvals(A: Any) -> Tensor:
    """Singular values, falling."""
    return _svd(_matrix("svdvals", A))[1]


def qr(A: Any, mode: str = "reduced") -> Any:
    """`(Q, R)` with A = Q · R, Q orthogonal and R upper triangular: "reduced", "complete", or "r" (Q is empty).

    Gradients need mode "reduced" and at least as many rows as columns.
    """
    A = _matrix("qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or "
                           "'complete'")
    m, n = A.shape[-2:]
    k = m if mode == "complete" else min(m, n)
    plain = mode == "reduced" and m >= n
    source = A if plain else A.detach()
    if not plain and (A.requires_grad or A._tracked()):
        raise UnsupportedError(f"linalg.qr: gradients of mode '{mode}' for {m} by {n} matrices; detach() the input")
    packed = apply_typed(ops.QR, (*A.shape[:-2], m * k + k * n), A.dtype, source,
                         attributes=("complete" if mode == "complete" else "reduced",))
    q, r = _parts(packed, (m, k), (k, n))
    return Qr(A.new_empty(0) if mode == "r" else q, r)


def matrix_rank(A: Any, *, atol: float | None = None, rtol: float | None = None, hermitian: bool = False) -> Tensor:
    """How many singular values are larger than atol, and than rtol times the largest."""
    A = _matrix("matrix_rank", A)
    values: Any = svdvals(A.detach())
    if rtol is None:
        rtol = 0.0 if atol is not None and atol > 0 else max(A.shape[-2:]) * finfo(A.dtype).eps
    least = (values.amax(-1, True) * rtol).clamp(min=0.0 if atol is None else atol)
    return (values > least).sum(-1)


def cond(A: Any, p: Any = None) -> Tensor:
    """Condition numbers: the largest singular value by the smallest, or norm times norm of the inverse."""
    A = _matrix("cond", A)
    if p in (None, 2, -2):
        values: Any = svdvals(A)
        return values[..., -1] / values[..., 0] if p == -2 else values[..., 0] / values[..., -1]
    return matrix_norm(A, p) * matrix_norm(inv(A), p)


# Norms ------------------------------------------------------------------------------------------------------
def vector_norm(x: Any, ord: float = 2, dim: int | Sequence[int] | None = None, keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """(Σ|x|^ord)^(1/ord) over axes, or over all elements."""
    return x.norm(float(ord), dim, keepdim, dtype)


def matrix_norm(A: Any, ord: Any = "fro", dim: Sequence[int] = (-2, -1), keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """Of matrices: "fro", "nuc", ±1 and ±inf (sums of columns or rows), ±2 (singular values)."""
    A = _matrix("matrix_norm", A if dtype is None else A.to(dtype))
    if len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {list(dim)}")
    rank = len(A.shape)
    first, second = (normalize_axis(axis, rank) for axis in dim)
    if first == second:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        return A.norm(2.0, (first, second), keepdim)
    A = A.movedim((first, second), (-2, -1))
    if ord in ("nuc", 2, -2):
        values: Any = svdvals(A)
        result = values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
    elif ord in (1, -1, inf, -inf):
        sums = A.abs().sum(-2 if ord in (1, -1) else -1)
        result = sums.amax(-1) if ord > 0 else sums.amin(-1)
    else:
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    if keepdim:
        for axis in sorted((first, second)):
            result = result.unsqueeze(axis)
    return result


def norm(A: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """`matrix_norm` where two axes are given, or a matrix and an order; else `vector_norm`."""
    if ord is None or dim is not None and (isinstance(dim, int) or len(dim) == 1) or (
            dim is None and len(A.shape) == 1):
        return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)
    if dim is None and len(A.shape) != 2:
        raise RuntimeError(f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
                           f"{len(A.shape)}D.")
    return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)


# Of two vectors ---------------------------------------------------------------------------------------------
def cross(input: Any, other: Any, *, dim: int = -1) -> Tensor:
    """The cross products of vectors of three along an axis."""
    return input.cross(other, dim)


def vecdot(x: Any, y: Any, *, dim: int = -1) -> Tensor:
    """The dot products of vectors along an axis."""
    return (x * y).sum(dim)


def diagonal(A: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    return A.diagonal(offset, dim1, dim2)


class Decompositions(TensorBase):
    """Methods of linear algebra."""

    __slots__ = ()

    def det(self) -> Tensor:
        """Determinants."""
        return det(self)

    def logdet(self) -> Tensor:
        """Logarithms of determinants; NaN for negative ones."""
        return logdet(self)

    def slogdet(self) -> Any:
        """`(sign, logabsdet)` of determinants."""
        return _slogdet(self, Slogdet)

    def cholesky(self, upper: bool = False) -> Tensor:
        """L with L · Lᵀ = self; Lᵀ if `upper`."""
        return cholesky(self, upper=upper)

    def pinverse(self, rcond: float = 1e-15) -> Tensor:
        """Pseudo-inverses."""
        return pinv(self, rtol=rcond)

    def matrix_power(self, n: int) -> Tensor:
        """self multiplied n times with itself."""
        return matrix_power(self, n)

    def svd(self, some: bool = True, compute_uv: bool = True) -> Any:
        """`(U, S, V)` with self = U · diag(S) · Vᵀ. UnsupportedError for full matrices of what is not square."""
        u, s, vh = _svd(_matrix("svd", self))
        if not some and self.shape[-1] != self.shape[-2]:
            raise UnsupportedError("svd(some=False) of a matrix that is not square: give some=True")
        if not compute_uv:
            return OldSvd(u.detach() * 0, s, vh.mT.detach() * 0)
        return OldSvd(u, s, vh.mT)

    def qr(self, some: bool = True) -> Any:
        """`(Q, R)` with self = Q · R."""
        return OldQr(*qr(self, "reduced" if some else "complete"))


cholesky_method, det_method = as_function(Decompositions.cholesky), as_function(Decompositions.det)
logdet_method = as_function(Decompositions.logdet)
matrix_power_method, pinverse = as_function(Decompositions.matrix_power), as_function(Decompositions.pinverse)
qr_method, slogdet_method = as_function(Decompositions.qr), as_function(Decompositions.slogdet)
svd_method = as_function(Decompositions.svd)
