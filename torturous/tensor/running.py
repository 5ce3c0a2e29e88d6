"""Running values along an axis: sums, products, extremes, differences.

Sums and products are taken in the order of the axis, floats in float64, each element rounded to its dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import normalize_axis
from torturous.ir import creation, indexing, ordering
from torturous.ir import elementwise as ops
from torturous.ir.op import Op
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.joining import cat
from torturous.tensor.movement import as_function
from torturous.tensor.recording import binary, cast, modifying
from torturous.tensor.reductions import numpy_names, return_type

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

CumulativeMaximum = return_type("cummax", "values", "indices")
CumulativeMinimum = return_type("cummin", "values", "indices")


def _prepared(t: TensorBase, dim: int, dtype: DType | None) -> tuple[Any, int]:
    """The tensor in the type of a running sum or product, with an axis at least; and the axis."""
    axis = normalize_axis(dim, len(t.shape))
    if dtype is None and not t.dtype.is_floating_point:
        dtype = dtypes.int64
    given: Any = t if dtype is None else cast(t, dtype)
    return given if given.shape else given.reshape(1), axis


def _places(t: TensorBase, axis: int) -> Any:
    """0, 1, … along an axis, to broadcast against t."""
    size = t.shape[axis]
    counted: Any = apply_typed(creation.IOTA, (size,), dtypes.int64, 0, 1)
    return counted.reshape(tuple(size if other == axis else 1 for other in range(len(t.shape))))


def running_position(op: Op, t: TensorBase, axis: int) -> Tensor:
    """Where the greatest or smallest element so far is."""
    return apply(op, t, attributes=(axis,))


def _running_extreme(t: Any, dim: int, op: Op, result: Any) -> Any:
    axis = normalize_axis(dim, len(t.shape))
    one = t if t.shape else t.reshape(1)
    places: Any = running_position(op, one, axis)
    values: Any = apply(indexing.TAKE_ALONG, one, places, attributes=(axis,))
    return result(values.reshape(tuple(t.shape)), places.reshape(tuple(t.shape)))


class Running(TensorBase):
    """Methods that go along an axis."""

    __slots__ = ()

    @numpy_names
    def cumsum(self, dim: int, *, dtype: DType | None = None) -> Tensor:
        """The running sum along an axis; integers and bool give int64."""
        given, axis = _prepared(self, dim, dtype)
        return apply(ordering.RUNNING_SUM, given, attributes=(axis, False)).reshape(tuple(self.shape))

    @numpy_names
    def cumprod(self, dim: int, *, dtype: DType | None = None) -> Tensor:
        """The running product along an axis; integers and bool give int64."""
        given, axis = _prepared(self, dim, dtype)
        first = _places(given, axis) == 0
        zero: Any = 0.0 if given.dtype.is_floating_point else 0
        # The first element starts a recurrence that multiplies by the others.
        factors, start = apply(ops.WHERE, first, zero, given), apply(ops.WHERE, first, given, zero)
        product = apply(ordering.RECURRENCE, factors, start, attributes=(axis, False))
        return product.reshape(tuple(self.shape))

    @numpy_names
    def cummax(self, dim: int) -> Any:
        """`(values, indices)` of the greatest element so far, the last of equals; NaN is greatest."""
        return _running_extreme(self, dim, ordering.RUNNING_MAX, CumulativeMaximum)

    @numpy_names
    def cummin(self, dim: int) -> Any:
        """`(values, indices)` of the smallest element so far, the last of equals; NaN is smallest."""
        return _running_extreme(self, dim, ordering.RUNNING_MIN, CumulativeMinimum)

    @numpy_names
    def logcumsumexp(self, dim: int) -> Tensor:
        """log of the running sum of e^self along an axis, without overflow; floating types only."""
        if not self.dtype.is_floating_point:
            raise NotImplementedError(f"\"logcumsumexp_out_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'")
        axis = normalize_axis(dim, len(self.shape))
        x: Any = self
        x = x if x.shape else x.reshape(1)
        highest: Any = x.detach().cummax(axis).values
        highest = apply(ops.WHERE, highest.isfinite(), highest, 0.0)
        # The sum so far is kept relative to the highest element so far.
        size = x.shape[axis]
        before = cat([highest.narrow(axis, 0, min(size, 1)), highest.narrow(axis, 0, max(size - 1, 0))], axis)
        total = apply(ordering.RECURRENCE, (before - highest).exp(), (x - highest).exp(), attributes=(axis, False))
        return (total.log() + highest).reshape(tuple(self.shape))

    @numpy_names
    def diff(self, n: int = 1, dim: int = -1, prepend: TensorBase | None = None,
             append: TensorBase | None = None) -> Tensor:
        """Differences of neighbours along an axis, n times over; of truth values, whether they differ."""
        if not self.shape:
            raise RuntimeError("diff expects input to be at least one-dimensional")
        if n < 0:
            raise RuntimeError(f"order must be non-negative but got {n}")
        axis = normalize_axis(dim, len(self.shape))
        given: Any = self
        x = given
        if prepend is not None or append is not None:
            x = cat([part for part in (prepend, x, append) if part is not None], axis)
        for _ in range(min(n, x.shape[axis])):
            size = x.shape[axis]
            ahead, behind = x.narrow(axis, 1, size - 1), x.narrow(axis, 0, size - 1)
            x = binary(ops.NE if x.dtype is dtypes.bool_ else ops.SUB, ahead, behind)
        return x.clone() if x is given else x

    cumsum_, cumprod_ = modifying(cumsum), modifying(cumprod)


cummax = as_function(Running.cummax)
cummin = as_function(Running.cummin)
cumprod = as_function(Running.cumprod)
cumsum = as_function(Running.cumsum)
diff = as_function(Running.diff)
logcumsumexp = as_function(Running.logcumsumexp)

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]
