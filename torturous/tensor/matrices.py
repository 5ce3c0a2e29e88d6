"""Products, patterns and statistics of vectors and matrices that are made of other operations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations as choices
from itertools import combinations_with_replacement as choices_again
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir import indexing, movement
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.creation import arange, zeros
from torturous.tensor.joining import cat, meshgrid, stack
from torturous.tensor.lowering import lowered
from torturous.tensor.movement import as_function
from torturous.tensor.positions import index_tensor
from torturous.tensor.recording import modifying
from torturous.tensor.running import cumsum
from torturous.tensor.summation import tensordot

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _scaled(t: Any, product: Any, beta: Number, alpha: Number) -> Any:
    """beta · t + alpha · product; t is not read where beta is 0."""
    product = product if alpha == 1 else product * alpha
    return product if beta == 0 else product + (t if beta == 1 else t * beta)


class Matrices(TensorBase):
    """Methods on vectors and matrices."""

    __slots__ = ()

    # Products -----------------------------------------------------------------------------------------------
    def inner(self, other: Any) -> Tensor:
        """Sums of products along the last axes of both; of numbers, the product."""
        a: Any = self
        if not a.shape or not other.shape:
            return a * other
        if a.shape[-1] != other.shape[-1]:
            raise RuntimeError(f"inner() the last dimension must match on both input tensors but got shapes "
                               f"{list(a.shape)} and {list(other.shape)}")
        return tensordot(a, other, ([-1], [-1]))

    def vdot(self, other: Any) -> Tensor:
        return self.dot(other)  # type: ignore[attr-defined]

    def kron(self, other: Any) -> Tensor:
        """Kronecker's product: every element of self times all of other."""
        a: Any = self
        rank = max(len(a.shape), len(other.shape))
        left = (1,) * (rank - len(a.shape)) + tuple(a.shape)
        right = (1,) * (rank - len(other.shape)) + tuple(other.shape)
        spread = a.reshape([size for n in left for size in (n, 1)]) * other.reshape(
            [size for n in right for size in (1, n)])
        return spread.reshape([m * n for m, n in zip(left, right, strict=True)])

    def cross(self, other: Any, dim: int | None = None) -> Tensor:
        """The cross product of vectors of three along an axis: `dim`, or the first that has three places."""
        a: Any = self
        if len(a.shape) != len(other.shape):
            raise RuntimeError("inputs must have the same number of dimensions, but got shapes "
                               f"{list(a.shape)} and {list(other.shape)}")
        if dim is None:
            threes = [axis for axis, size in enumerate(a.shape) if size == 3]
            if not threes:
                raise RuntimeError(f"no dimension of size 3 in input: {list(a.shape)}")
            dim = threes[0]
        axis = normalize_axis(dim, len(a.shape))
        if a.shape[axis] != 3 or other.shape[axis] != 3:
            raise RuntimeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {a.shape[axis]} and "
                               f"{other.shape[axis]}")
        return a.roll(-1, axis) * other.roll(-2, axis) - a.roll(-2, axis) * other.roll(-1, axis)

    def addr(self, vec1: Any, vec2: Any, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (vec1 outer vec2)."""
        return _scaled(self, vec1.outer(vec2), beta, alpha)

    @lowered
    def addbmm(self, batch1: Any, batch2: Any, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · the sum of batch1[i] · batch2[i]."""
        return _scaled(self, batch1.bmm(batch2).sum(0), beta, alpha)

    # Diagonals ----------------------------------------------------------------------------------------------
    def trace(self) -> Tensor:
        """The sum of a matrix's diagonal."""
        if len(self.shape) != 2:
            raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {len(self.shape)}")
        return self.diagonal().sum()  # type: ignore[attr-defined]

    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """Matrices with the last axis as a diagonal and zeros elsewhere, in two new axes."""
        x: Any = self
        rank = len(x.shape) + 1
        first, second = normalize_axis(dim1, rank), normalize_axis(dim2, rank)
        if first == second:
            raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        if first > second:
            first, second, offset = second, first, -offset
        length = x.shape[-1]
        size = length + abs(offset)
        lead = tuple(x.shape[:-1])
        start = (offset if offset >= 0 else -offset * size) if length else 0
        flat = apply_typed(movement.PAD, (*lead, size * size), x.dtype, x, 0, start,
                           attributes=((len(lead),), (size + 1,)))
        square: Any = apply_typed(movement.RESHAPE, (*lead, size, size), x.dtype, flat)
        return square.movedim((-2, -1), (first, second))

    def diagflat(self, offset: int = 0) -> Tensor:
        """The matrix with all elements on its diagonal."""
        return self.reshape(-1).diag(offset)  # type: ignore[attr-defined]

    def fill_diagonal_(self, fill_value: Number, wrap: bool = False) -> Tensor:
        """Writes a number to the places whose positions along all axes are equal.

        `wrap` goes on in tall matrices, a row below where the diagonal ends.
        """
        t: Any = self
        if len(t.shape) < 2:
            raise RuntimeError("dimensions must larger than 1")
        if len(t.shape) == 2:
            rows, columns = t.shape
            start = 0
            while start < rows and columns:
                t[start:start + columns].diagonal().fill_(fill_value)
                start += columns + 1
                if not wrap:
                    break
            return t
        if len(set(t.shape)) > 1:
            raise RuntimeError("all dimensions of input must be of equal length")
        for place in range(t.shape[0]):
            t[(place,) * len(t.shape)] = fill_value
        return t

    # Distances ----------------------------------------------------------------------------------------------
    def dist(self, other: Any, p: float = 2) -> Tensor:
        """The p-norm of self − other."""
        return (self - other).norm(p)

    def renorm(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Slices along an axis shrunk to a p-norm of at most `maxnorm`."""
        x: Any = self
        if len(x.shape) < 2:
            raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {len(x.shape)} dimensions")
        axis = normalize_axis(dim, len(x.shape))
        norms = x.norm(p, [k for k in range(len(x.shape)) if k != axis], True)
        return x * apply(ops.WHERE, norms > maxnorm, maxnorm / (norms + 1e-7), 1.0)

    # Statistics ---------------------------------------------------------------------------------------------
    def cov(self, *, correction: int = 1, fweights: TensorBase | None = None,
            aweights: TensorBase | None = None) -> Tensor:
        """The covariances of rows, whose columns are observations; weighted by how often, and how much, each counts."""
        x: Any = self
        if len(x.shape) > 2:
            raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got an input with "
                               f"{len(x.shape)} dimensions")
        x = x if x.dtype.is_floating_point else x.to(dtypes.default_float())
        rows = x.reshape(1, -1) if len(x.shape) < 2 else x
        count: Any = rows.shape[1]
        if fweights is None and aweights is None:
            deviation = rows - rows.mean(1, keepdim=True)
            weighted, left = deviation, float(max(count - correction, 0))
        else:
            both: Any = fweights
            weights: Any = fweights if aweights is None else aweights if fweights is None else both * aweights
            weights = weights.to(rows.dtype)
            total = weights.sum()
            deviation = rows - (rows * weights).sum(1, True) / total
            weighted = deviation * weights
            share = total if aweights is None else (weights * aweights).sum()
            left = (total - correction * share / total).clamp(min=0)
        result = weighted.mm(deviation.t()) / left
        return result if len(x.shape) == 2 else result.reshape(())

    def corrcoef(self) -> Tensor:
        """The correlations of rows, whose columns are observations."""
        covariance: Any = self.cov()
        if not covariance.shape:
            return covariance / covariance
        deviation = covariance.diagonal().sqrt()
        return (covariance / deviation.unsqueeze(1) / deviation.unsqueeze(0)).clamp(-1, 1)

    addr_, addbmm_, renorm_ = modifying(addr), modifying(addbmm), modifying(renorm)


# Patterns ---------------------------------------------------------------------------------------------------
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType = dtypes.int64, device: Any = None) -> Tensor:
    """The rows and columns of a matrix's places up to a diagonal: (2, count)."""
    return index_tensor(np.stack(np.tril_indices(row, offset, col))).to(device=device, dtype=dtype)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType = dtypes.int64, device: Any = None) -> Tensor:
    """The rows and columns of a matrix's places from a diagonal on: (2, count)."""
    return index_tensor(np.stack(np.triu_indices(row, offset, col))).to(device=device, dtype=dtype)


def block_diag(*tensors: Any) -> Tensor:
    """Matrices one after another along the diagonal of a larger one; vectors are rows, numbers single places."""
    blocks = []
    for t in tensors:
        if len(t.shape) > 2:
            raise RuntimeError(f"torch.block_diag: Input tensors must have 2 or fewer dimensions, got {list(t.shape)}")
        blocks.append(t.reshape(1, -1) if len(t.shape) < 2 else t)
    width = sum(block.shape[1] for block in blocks)
    lines, before = [], 0
    for block in blocks:
        rows, columns = block.shape
        after = width - before - columns
        lines.append(cat([block.new_zeros(rows, before), block, block.new_zeros(rows, after)], 1))
        before += columns
    return cat(lines, 0) if lines else zeros(1, 0)


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers 0 … N − 1 of each element, a row each, falling unless `increasing`."""
    count = x.shape[-1] if N is None else N
    powers = arange(count) if increasing else arange(count - 1, -1, -1)
    return x.unsqueeze(-1) ** powers


def cartesian_prod(*tensors: Any) -> Tensor:
    """All combinations of an element of each vector: (count, vectors)."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if len(tensors) == 1:
        return tensors[0]
    return stack([grid.reshape(-1) for grid in meshgrid(*tensors, indexing="ij")], 1)


def combinations(input: Any, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All ways to choose r elements of a vector, in their order: (ways, r)."""
    if len(input.shape) != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return input.new_empty(0)
    chosen = list((choices_again if with_replacement else choices)(range(input.shape[0]), r))
    places = index_tensor(np.array(chosen, np.int64).reshape(-1, r))
    return apply(indexing.TAKE, input, places, attributes=(0,))


def unravel_index(indices: Any, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """The positions along each axis of places in a flat tensor of this shape."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    rest: Any = indices
    positions: list[Any] = []
    for axis in reversed(range(len(sizes))):
        positions.insert(0, rest % sizes[axis])
        rest = rest.floor_divide(sizes[axis])
    return tuple(positions)


# Distances and integrals ------------------------------------------------------------------------------------
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-distances of all rows of x1 (…, P, M) and x2 (…, R, M): (…, P, R). All modes compute differences."""
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError("X1 and X2 must have the same number of columns. X1: "
                           f"{x1.shape[-1]} X2: {x2.shape[-1]}")
    return (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, -1)


def _steps(x: Any, y: Any, dx: Any, dim: int) -> Any:
    """The widths between neighbours along an axis of y."""
    if x is None:
        return dx
    if len(x.shape) == 1:
        axis = normalize_axis(dim, len(y.shape))
        x = x.reshape([x.shape[0] if k == axis else 1 for k in range(len(y.shape))])
    return x.diff(dim=dim)


def trapezoid(y: Any, x: Any = None, *, dx: Number = 1, dim: int = -1) -> Tensor:
    """The integral of y along an axis by the trapezoidal rule, at places x or `dx` apart."""
    return _trapezoids(y, x, dx, dim).sum(dim)


def cumulative_trapezoid(y: Any, x: Any = None, *, dx: Number = 1, dim: int = -1) -> Tensor:
    """The same integral up to each place but the first."""
    return cumsum(_trapezoids(y, x, dx, dim), dim)


def _trapezoids(y: Any, x: Any, dx: Number, dim: int) -> Any:
    size = y.shape[dim]
    sums = y.narrow(dim, min(1, size), max(size - 1, 0)) + y.narrow(dim, 0, max(size - 1, 0))
    return sums * _steps(x, y, dx, dim) / 2.0


# At least so many axes --------------------------------------------------------------------------------------
def _at_least(rank: int, tensors: tuple[Any, ...]) -> Any:
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        return tuple(_raised(t, rank) for t in tensors[0])
    results = tuple(_raised(t, rank) for t in tensors)
    return results[0] if len(results) == 1 else results


def _raised(t: Any, rank: int) -> Any:
    if not t.shape:
        return t.reshape((1,) * rank)
    if len(t.shape) == 1 and rank > 1:
        t = t.unsqueeze(0)
    return t.unsqueeze(-1) if len(t.shape) == 2 and rank > 2 else t


def atleast_1d(*tensors: Any) -> Any:
    """Numbers as vectors."""
    return _at_least(1, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """Vectors as matrices of one row."""
    return _at_least(2, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """Matrices with a new last axis."""
    return _at_least(3, tensors)


addbmm = as_function(Matrices.addbmm)
addr = as_function(Matrices.addr)
corrcoef = as_function(Matrices.corrcoef)
cov = as_function(Matrices.cov)
cross = as_function(Matrices.cross)
diag_embed = as_function(Matrices.diag_embed)
diagflat = as_function(Matrices.diagflat)
dist = as_function(Matrices.dist)
inner = as_function(Matrices.inner)
kron = as_function(Matrices.kron)
renorm = as_function(Matrices.renorm)
trace = as_function(Matrices.trace)
trapz = trapezoid
vdot = as_function(Matrices.vdot)

__all__ = [
    "addbmm", "addr", "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "cartesian_prod", "cdist",
    "combinations", "corrcoef", "cov", "cross", "cumulative_trapezoid", "diag_embed", "diagflat", "dist", "inner",
    "kron", "renorm", "trace", "trapezoid", "trapz", "tril_indices", "triu_indices", "unravel_index", "vander",
    "vdot",
]
