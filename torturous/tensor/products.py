"""Products of vectors, matrices and batches of them, as methods and functions; all of them record a contraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torturous.core.shapes import broadcast, describe
from torturous.ir.host import INVERSE
from torturous.tensor.applying import apply
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.linear import matmul, multiplied
from torturous.tensor.lowering import lowered
from torturous.tensor.movement import as_function
from torturous.tensor.recording import modifying

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _of_rank(name: str, t: TensorBase, rank: int, role: str) -> None:
    if not isinstance(t, TensorBase):
        raise TypeError(f"{name}(): argument '{role}' must be Tensor, not {type(t).__name__}")
    if len(t.shape) != rank:
        raise RuntimeError(
            f"{name}: {role} must be a {rank}-D tensor, got {len(t.shape)}-D of shape {describe(t.shape)}")


class Products(TensorBase):
    """Methods that multiply and sum."""

    __slots__ = ()

    def matmul(self, other: TensorBase) -> Tensor:
        """The product of matrices, vectors, or batches of them: see `torturous.tensor.linear.matmul`."""
        return matmul(self, other)

    def __matmul__(self, other: Any) -> Tensor:
        if not isinstance(other, TensorBase):
            return NotImplemented
        return matmul(self, other)

    def mm(self, mat2: TensorBase) -> Tensor:
        """(M, K) · (K, N). RuntimeError for any other rank."""
        _of_rank("mm", self, 2, "self")
        _of_rank("mm", mat2, 2, "mat2")
        return matmul(self, mat2)

    def bmm(self, mat2: TensorBase) -> Tensor:
        """(B, M, K) · (B, K, N), batch by batch, without broadcasting."""
        _of_rank("bmm", self, 3, "batch1")
        _of_rank("bmm", mat2, 3, "batch2")
        if self.shape[0] != mat2.shape[0] or self.shape[2] != mat2.shape[1]:
            raise RuntimeError(
                f"Expected size for first two dimensions of batch2 tensor to be: [{self.shape[0]}, {self.shape[2]}] "
                f"but got: [{mat2.shape[0]}, {mat2.shape[1]}] (bmm)")
        return matmul(self, mat2)

    def mv(self, vec: TensorBase) -> Tensor:
        """(M, K) · (K,)."""
        _of_rank("mv", self, 2, "self")
        _of_rank("mv", vec, 1, "vec")
        return multiplied(self, vec)

    def dot(self, tensor: TensorBase) -> Tensor:
        """(K,) · (K,), a scalar."""
        _of_rank("dot", self, 1, "self")
        _of_rank("dot", tensor, 1, "tensor")
        if self.shape != tensor.shape:
            raise RuntimeError(
                f"inconsistent tensor size, expected tensor {describe(self.shape)} and src {describe(tensor.shape)} to "
                f"have the same number of elements, but got {self.shape[0]} and {tensor.shape[0]} elements "
                "respectively")
        return multiplied(self, tensor)

    def outer(self, vec2: TensorBase) -> Tensor:
        """(M,) by (N,): every product, (M, N)."""
        _of_rank("outer", self, 1, "self")
        _of_rank("outer", vec2, 1, "vec2")
        return self.unsqueeze(1) * vec2.unsqueeze(0)  # type: ignore[attr-defined]

    def inverse(self) -> Tensor:
        """The inverses of square matrices, the last two axes; float32 or float64. Runs on the host.

        RuntimeError where a matrix is not square; LinAlgError, when values are computed, where one is singular.
        """
        shape = tuple(self.shape)
        if len(shape) < 2:
            raise RuntimeError(
                f"linalg.inv: The input tensor A must have at least 2 dimensions, but has shape {describe(shape)}")
        if shape[-1] != shape[-2]:
            raise RuntimeError(
                f"linalg.inv: A must be batches of square matrices, but they are {shape[-2]} by {shape[-1]} matrices")
        if self.dtype.itemsize < 4 or not self.dtype.is_floating_point:
            raise RuntimeError(f"linalg.inv: expected a tensor of float32 or float64, but got {self.dtype}")
        return apply(INVERSE, self)

    @lowered
    def addmm(self, mat1: Any, mat2: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (mat1 · mat2)."""
        return _sum("addmm", self, mat1.mm(mat2), beta, alpha)

    def addmv(self, mat: Any, vec: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (mat · vec)."""
        return _sum("addmv", self, mat.mv(vec), beta, alpha)

    @lowered
    def baddbmm(self, batch1: Any, batch2: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (batch1 · batch2), batch by batch."""
        return _sum("baddbmm", self, batch1.bmm(batch2), beta, alpha)


    addmm_, addmv_, baddbmm_ = modifying(addmm), modifying(addmv), modifying(baddbmm)
    ger = outer


def _sum(name: str, t: Any, product: Any, beta: Number, alpha: Number) -> Tensor:
    """beta · t + alpha · product; with beta 0 t is not read, so that its NaN do not count. RuntimeError for a t of
    another dtype, and for one that is not broadcast to the product's shape."""
    if t.dtype is not product.dtype:
        raise RuntimeError(f"{name}: self and the factors must have the same dtype, but got {t.dtype} and "
                           f"{product.dtype}")
    if broadcast([t.shape, product.shape]) != tuple(product.shape):
        raise RuntimeError(f"{name}: self, of shape {list(t.shape)}, does not expand to the product's shape "
                           f"{list(product.shape)}")
    if not t.dtype.is_floating_point:
        beta, alpha = int(beta), int(alpha)  # As PyTorch does, without a word.
    scaled = product if alpha == 1 else product * alpha
    if beta == 0:
        return scaled
    return scaled + (t if beta == 1 else t * beta)


mm = as_function(Products.mm)
bmm = as_function(Products.bmm)
mv = as_function(Products.mv)
dot = as_function(Products.dot)
outer = ger = as_function(Products.outer)
inverse = as_function(Products.inverse)
addmm = as_function(Products.addmm)
addmv = as_function(Products.addmv)
baddbmm = as_function(Products.baddbmm)

__all__ = ["addmm", "addmv", "baddbmm", "bmm", "dot", "ger", "inverse", "matmul", "mm", "mv", "outer"]
