"""Products of vectors, matrices and batches of them, as methods and functions; all of them record a contraction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torturous.core.errors import UnsupportedError
from torturous.core.shapes import broadcast, describe
from torturous.ir.contraction import CONTRACT, lone
from torturous.ir.host import INVERSE
from torturous.tensor.base import Number, TensorBase, apply, apply_typed
from torturous.tensor.linear import matmul, same_dtype
from torturous.tensor.movement import as_function

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
        return matmul(self, vec)

    def dot(self, tensor: TensorBase) -> Tensor:
        """(K,) · (K,), a scalar."""
        _of_rank("dot", self, 1, "self")
        _of_rank("dot", tensor, 1, "tensor")
        if self.shape != tensor.shape:
            raise RuntimeError(
                f"inconsistent tensor size, expected tensor {describe(self.shape)} and src {describe(tensor.shape)} to "
                f"have the same number of elements, but got {self.shape[0]} and {tensor.shape[0]} elements "
                "respectively")
        return matmul(self, tensor)

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

    def addmm(self, mat1: Any, mat2: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (mat1 · mat2)."""
        return _sum(self, mat1.mm(mat2), beta, alpha)

    def addmv(self, mat: Any, vec: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (mat · vec)."""
        return _sum(self, mat.mv(vec), beta, alpha)

    def baddbmm(self, batch1: Any, batch2: TensorBase, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """beta · self + alpha · (batch1 · batch2), batch by batch."""
        return _sum(self, batch1.bmm(batch2), beta, alpha)


def _sum(t: Any, product: Any, beta: Number, alpha: Number) -> Tensor:
    """beta · t + alpha · product; with beta 0 t is not read, so that its NaN do not count."""
    scaled = product if alpha == 1 else product * alpha
    if beta == 0:
        return scaled
    broadcast([t.shape, product.shape])
    return scaled + (t if beta == 1 else t * beta)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein summation over one or two operands, as `torch.einsum`.

    Letters name axes; those left out of the result are summed. Two operands become one contraction; one operand is
    permuted and summed. UnsupportedError for more operands, repeated letters within an operand, and ellipses.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    equation = equation.replace(" ", "")
    if "." in equation:
        raise UnsupportedError("einsum(): ellipses are not supported yet; name the axes")
    inputs, arrow, result = equation.partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"einsum(): the equation names {len(terms)} operands, but {len(operands)} were given")
    if len(operands) > 2:
        raise UnsupportedError("einsum(): more than two operands are not supported yet; multiply two at a time")
    letters = inputs.replace(",", "")
    if not arrow:
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        if len(set(term)) != len(term):
            raise UnsupportedError(f"einsum(): a letter repeated within one operand ({term}) is not supported yet")
        if len(term) != len(operand.shape):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(term)}) does not match the number of "
                f"dimensions ({len(operand.shape)}) of operand {describe(operand.shape)}")
        for letter, size in zip(term, operand.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise RuntimeError(
                    f"einsum(): subscript {letter} has size {size} in {describe(operand.shape)}, which does not match "
                    f"previously seen size {sizes[letter]}")
    for letter in result:
        if letter not in sizes:
            raise RuntimeError(f"einsum(): output subscript {letter} does not appear in the equation for any input")
    if len(operands) == 1:
        (term,), (operand,) = terms, operands
        summed = [axis for axis, letter in enumerate(term) if letter not in result]
        reduced = operand.sum(summed) if summed else operand
        kept = [letter for letter in term if letter in result]
        return reduced.permute([kept.index(letter) for letter in result])
    reduced_letters = [letter for letter in sizes if letter not in result]
    loops = {letter: loop for loop, letter in enumerate([*result, *reduced_letters])}
    maps = [tuple(lone(loops[letter]) for letter in term) for term in terms]
    dtype = same_dtype("einsum", *operands)
    shape = tuple(sizes[letter] for letter in result)
    return apply_typed(CONTRACT, shape, dtype, *operands, attributes=(len(reduced_letters), *maps))


mm = as_function(Products.mm)
bmm = as_function(Products.bmm)
mv = as_function(Products.mv)
dot = as_function(Products.dot)
outer = as_function(Products.outer)
inverse = as_function(Products.inverse)
addmm = as_function(Products.addmm)
addmv = as_function(Products.addmv)
baddbmm = as_function(Products.baddbmm)

__all__ = ["addmm", "addmv", "baddbmm", "bmm", "dot", "einsum", "inverse", "matmul", "mm", "mv", "outer"]
