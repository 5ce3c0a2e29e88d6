"""Reductions: sums, means, extremes, norms.

`dim` is an axis, several, or None for all of them, and may be called `axis`; `keepdim` (or `keepdims`) keeps
reduced axes with size 1. Sixteen-bit floats are accumulated in float32 and rounded once.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import wraps
from math import inf
from math import prod as product
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import normalize_axes, normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir import extremes, reduction
from torturous.ir.op import Op
from torturous.tensor.applying import apply
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.comparison import truth
from torturous.tensor.movement import as_function
from torturous.tensor.recording import binary, unary
from torturous.tensor.recording import cast as convert
from torturous.tensor.shortcuts import shortcut

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])
Dim = "int | Sequence[int] | None"


def numpy_names(method: F) -> F:
    """Lets a reduction's `dim` and `keepdim` be called `axis` and `keepdims`."""

    @wraps(method)
    def call(self: TensorBase, *arguments: Any, **named: Any) -> Any:
        if "axis" in named:
            named["dim"] = named.pop("axis")
        if "keepdims" in named:
            named["keepdim"] = named.pop("keepdims")
        return method(self, *arguments, **named)

    return cast(F, call)


def return_type(name: str, *fields: str) -> Any:
    """A class of named tuples that prints as PyTorch's `torch.return_types` do."""

    def represent(self: Any) -> str:
        parts = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{parts})"

    base: Any = namedtuple(name, fields)  # type: ignore[misc]
    return type(name, (base,), {"__slots__": (), "__repr__": represent, "__module__": __name__})


MaxResult = return_type("max", "values", "indices")
MinResult = return_type("min", "values", "indices")


def reduce(t: TensorBase, op: Op, dim: int | Sequence[int] | None, keepdim: bool) -> Tensor:
    """Records a reduction over some axes."""
    return apply(op, t, attributes=(normalize_axes(dim, len(t.shape)), bool(keepdim)))


def _accumulated(
    t: TensorBase, op: Op, dim: int | Sequence[int] | None, keepdim: bool, dtype: DType | None
) -> Tensor:
    """A sum or product in `dtype`; without one, integers and bool give int64."""
    if dtype is None:
        return reduce(t, op, dim, keepdim)
    return convert(reduce(convert(t, dtype), op, dim, keepdim), dtype)


def _widened(t: TensorBase) -> Tensor:
    """The tensor in the type that it is accumulated in."""
    return convert(t, reduction.accumulator(t.dtype))


def _floating(name: str, t: TensorBase) -> None:
    if not t.dtype.is_floating_point:
        raise RuntimeError(
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point or complex "
            f"dtype. Got: {ops.scalar_name(t.dtype)}; convert with .float() or give dtype="
        )


def _count(t: TensorBase, dim: int | Sequence[int] | None) -> int:
    """How many elements are reduced to one."""
    return product(t.shape[axis] for axis in normalize_axes(dim, len(t.shape)))


def _not_empty(name: str, t: TensorBase, dim: int | Sequence[int] | None, error: type[Exception]) -> None:
    """Raises where an operation without a value for nothing would be asked for it."""
    if product(t.shape):
        return
    if dim is None or dim == ():
        raise error(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction "
            "dim with the 'dim' argument."
        )
    for axis in normalize_axes(dim, len(t.shape)):
        if t.shape[axis] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")


def _extreme(name: str, t: TensorBase, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """`max` and `min` in their three forms: of all elements, along an axis, of two tensors."""
    if "axis" in named:
        named["dim"] = named.pop("axis")
    if arguments and isinstance(arguments[0], TensorBase):
        named["other"], arguments = arguments[0], arguments[1:]
    greatest = name == "max"
    if "other" in named:
        other = named.pop("other")
        if named or arguments:
            raise TypeError(f"{name}(input, other) takes no further arguments")
        return binary(ops.MAXIMUM if greatest else ops.MINIMUM, t, other)
    if not arguments and not named:
        _not_empty(name, t, None, RuntimeError)
        return reduce(t, reduction.AMAX if greatest else reduction.AMIN, None, False)
    return _along(name, t, *arguments, **named)


def _along(name: str, t: TensorBase, dim: int, keepdim: bool = False) -> Any:
    greatest = name == "max"
    axis = normalize_axis(dim, len(t.shape))
    _not_empty(name, t, axis, IndexError)
    one: Any = t if t.shape else t.unsqueeze(0)  # type: ignore[attr-defined]
    values = apply(
        extremes.FIRST_MAX if greatest else extremes.FIRST_MIN, one, attributes=((axis,), bool(keepdim))
    )
    indices = reduce(one, reduction.ARGMAX if greatest else reduction.ARGMIN, axis, keepdim)
    if not t.shape and keepdim:
        values, indices = values.squeeze(0), indices.squeeze(0)
    return (MaxResult if greatest else MinResult)(values, indices)


def _position(name: str, op: Op, t: TensorBase, dim: int | None, keepdim: bool) -> Tensor:
    if t.dtype is dtypes.bool_:
        raise RuntimeError(f"{name}(): does not support bool input")
    _not_empty(name, t, dim, IndexError)
    return reduce(t, op, dim, keepdim)


def _root(squares: TensorBase) -> Tensor:
    """The square root, with gradient 0 at 0."""
    zero = binary(ops.EQ, squares, 0)
    return apply(ops.WHERE, zero, 0, unary(ops.SQRT, apply(ops.WHERE, zero, 1, squares)))


@shortcut(operands=1)
def _mean(t: Any, dim: int | Sequence[int] | None, keepdim: bool, dtype: DType | None) -> Tensor:
    given = t if dtype is None else convert(t, dtype)
    _floating("mean", given)
    total = reduce(_widened(given), reduction.SUM, dim, keepdim)
    return convert(binary(ops.DIV, total, _count(t, dim)), given.dtype)


class Reductions(TensorBase):
    """Methods that reduce axes."""

    __slots__ = ()

    # Sums ---------------------------------------------------------------------------------------------------
    @numpy_names
    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False, *,
            dtype: DType | None = None) -> Tensor:
        """The sum, in `dtype`; without one, integers and bool give int64."""
        return _accumulated(self, reduction.SUM, dim, keepdim, dtype)

    @numpy_names
    def nansum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False, *,
               dtype: DType | None = None) -> Tensor:
        """The sum of what is not NaN."""
        return apply(ops.WHERE, unary(ops.ISNAN, self), 0, self).sum(dim, keepdim, dtype=dtype)

    @numpy_names
    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False, *,
             dtype: DType | None = None) -> Tensor:
        """The mean; RuntimeError for integers without `dtype`."""
        return _mean(self, dim, keepdim, dtype)

    @numpy_names
    def prod(self, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
        """The product, of all elements or along one axis; integers and bool give int64."""
        if not (dim is None or isinstance(dim, int)):
            raise TypeError(f"prod(): argument 'dim' must be int, not {type(dim).__name__}")
        return _accumulated(self, reduction.PROD, dim, keepdim, dtype)

    @numpy_names
    def count_nonzero(self, dim: int | Sequence[int] | None = None) -> Tensor:
        return reduce(truth(self), reduction.SUM, dim, False)

    @numpy_names
    def logsumexp(self, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
        """log Σ e^self without overflow."""
        dtype = self.dtype if self.dtype.is_floating_point else dtypes.default_float()
        x: Any = _widened(convert(self, dtype))
        axes = normalize_axes(dim, len(self.shape))
        if not product(self.shape):
            return convert(x.exp().sum(axes, keepdim).log(), dtype)
        highest = reduce(x.detach(), reduction.AMAX, axes, True)
        highest = apply(ops.WHERE, highest.isfinite(), highest, 0)
        total = (x - highest).exp().sum(axes, True).log() + highest
        if not keepdim:
            total = total.reshape(reduction.reduced_shape(tuple(self.shape), axes, False))
        return convert(total, dtype)

    # Extremes -----------------------------------------------------------------------------------------------
    def max(self, *arguments: Any, **named: Any) -> Any:
        """`max()`: of all elements, equal ones share the gradient. `max(dim, keepdim=False)`: `(values,
        indices)` along an axis, the first of equals taking the gradient. `max(other)`: `maximum`."""
        return _extreme("max", self, arguments, named)

    def min(self, *arguments: Any, **named: Any) -> Any:
        """As `max`, of the smallest."""
        return _extreme("min", self, arguments, named)

    @numpy_names
    def amax(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """The largest; equal ones share the gradient."""
        _not_empty("amax", self, dim, RuntimeError)
        return reduce(self, reduction.AMAX, dim, keepdim)

    @numpy_names
    def amin(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """The smallest; equal ones share the gradient."""
        _not_empty("amin", self, dim, RuntimeError)
        return reduce(self, reduction.AMIN, dim, keepdim)

    @numpy_names
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Where the largest is, the first of equals; without `dim`, its place in row-major order."""
        return _position("argmax", reduction.ARGMAX, self, dim, keepdim)

    @numpy_names
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Where the smallest is, the first of equals; without `dim`, its place in row-major order."""
        return _position("argmin", reduction.ARGMIN, self, dim, keepdim)

    # Logic --------------------------------------------------------------------------------------------------
    @numpy_names
    def any(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Whether any element is not zero, as bool (uint8 for uint8)."""
        result = reduce(truth(self), reduction.ANY, dim, keepdim)
        return convert(result, dtypes.uint8) if self.dtype is dtypes.uint8 else result

    @numpy_names
    def all(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Whether no element is zero, as bool (uint8 for uint8)."""
        result = reduce(truth(self), reduction.ALL, dim, keepdim)
        return convert(result, dtypes.uint8) if self.dtype is dtypes.uint8 else result

    # Spread -------------------------------------------------------------------------------------------------
    @numpy_names
    def var(self, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
            correction: Number | None = None) -> Tensor:
        """Σ(x − mean)² / (count − correction); `correction` is 1, or what `unbiased` says. `var(False)` is
        `var(unbiased=False)`. RuntimeError for integers."""
        return self._variance(dim, unbiased, keepdim, correction)[0]

    @numpy_names
    def std(self, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
            correction: Number | None = None) -> Tensor:
        """The square root of `var`, with gradient 0 at 0."""
        return self._variance(dim, unbiased, keepdim, correction, root=True)[0]

    def _variance(self, dim: Any, unbiased: bool | None, keepdim: bool, correction: Number | None,
                  root: bool = False) -> tuple[Tensor, Tensor]:
        """Variance, or its root, and mean."""
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if unbiased is not None and correction is not None:
            raise TypeError("var and std take either unbiased or correction, not both")
        if not self.dtype.is_floating_point:
            raise RuntimeError("std and var only support floating point and complex dtypes")
        if correction is None:
            correction = 0 if unbiased is False else 1
        x: Any = _widened(self)
        axes = normalize_axes(dim, len(self.shape))
        count = _count(self, axes)
        mean = reduce(x, reduction.SUM, axes, True) / count
        deviation = x - mean
        total = reduce(deviation * deviation, reduction.SUM, axes, keepdim)
        left = count - correction
        variance: Any = total / (left if left > 0 else 0)
        if not keepdim:
            mean = mean.reshape(tuple(total.shape))
        return convert(_root(variance) if root else variance, self.dtype), convert(mean, self.dtype)

    @numpy_names
    def norm(self, p: Any = "fro", dim: int | Sequence[int] | None = None, keepdim: bool = False,
             dtype: DType | None = None) -> Tensor:
        """(Σ|x|^p)^(1/p) over the axes; "fro" and None mean 2; ±inf give the extremes of |x|, 0 counts.

        Gradient 0 at 0. RuntimeError for integers; UnsupportedError for the nuclear norm.
        """
        if p == "nuc":
            raise UnsupportedError("norm(p='nuc') needs singular values, which are not available")
        if isinstance(p, str) and p != "fro":
            raise RuntimeError(f"norm(): p must be a number, 'fro' or 'nuc', but got {p!r}")
        given = self if dtype is None else convert(self, dtype)
        if not given.dtype.is_floating_point:
            raise RuntimeError(
                "linalg.vector_norm: Expected a floating point or complex tensor as input. Got "
                f"{ops.scalar_name(given.dtype)}")
        order = 2.0 if p is None or p == "fro" else float(p)
        return convert(_norm(_widened(given), order, dim, keepdim), given.dtype)


def _norm(x: Any, order: float, dim: int | Sequence[int] | None, keepdim: bool) -> Any:
    if order == 2.0:
        return _root(reduce(x * x, reduction.SUM, dim, keepdim))
    if order == 0.0:
        return convert(reduce(truth(x), reduction.SUM, dim, keepdim), x.dtype)
    size = x.abs()
    if order == 1.0:
        return reduce(size, reduction.SUM, dim, keepdim)
    if order in (inf, -inf):
        return size.amax(dim, keepdim) if order > 0 else size.amin(dim, keepdim)
    zero = size == 0
    powers = apply(ops.WHERE, zero, 0 if order > 0 else inf, apply(ops.WHERE, zero, 1, size).pow(order))
    total = reduce(powers, reduction.SUM, dim, keepdim)
    none = total == 0
    return apply(ops.WHERE, none, 0, apply(ops.WHERE, none, 1, total).pow(1.0 / order))


def var_mean(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Number | None = None) -> tuple[Tensor, Tensor]:
    """Variance and mean (see `Tensor.var`)."""
    return Reductions._variance(input, dim, unbiased, keepdim, correction)


def std_mean(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: Number | None = None) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean (see `Tensor.std`)."""
    return Reductions._variance(input, dim, unbiased, keepdim, correction, root=True)


all = as_function(Reductions.all)
amax = as_function(Reductions.amax)
amin = as_function(Reductions.amin)
any = as_function(Reductions.any)
argmax = as_function(Reductions.argmax)
argmin = as_function(Reductions.argmin)
count_nonzero = as_function(Reductions.count_nonzero)
logsumexp = as_function(Reductions.logsumexp)
max = as_function(Reductions.max)
mean = as_function(Reductions.mean)
min = as_function(Reductions.min)
nansum = as_function(Reductions.nansum)
norm = as_function(Reductions.norm)
prod = as_function(Reductions.prod)
std = as_function(Reductions.std)
sum = as_function(Reductions.sum)
var = as_function(Reductions.var)

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "logsumexp",
    "max", "mean", "min", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean",
]
