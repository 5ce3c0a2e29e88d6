"""Sorting and what follows from it: the largest few, medians, modes, quantiles, distinct elements, searching.

One operation gives positions in sorted order; values are gathered at them, so gradients go where they came from. NaN
is greater than every number.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category
from torturous.core.shapes import normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir import indexing, ordering
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.creation import arange, as_tensor, zeros
from torturous.tensor.movement import as_function
from torturous.tensor.positions import index_tensor
from torturous.tensor.reductions import numpy_names, return_type
from torturous.tensor.running import running_position
from torturous.tensor.values import computed_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Sorted, TopResult = return_type("sort", "values", "indices"), return_type("topk", "values", "indices")
KthValue, Mode = return_type("kthvalue", "values", "indices"), return_type("mode", "values", "indices")
Median, NanMedian = return_type("median", "values", "indices"), return_type("nanmedian", "values", "indices")


def _order(t: Any, axis: int, descending: bool, count: int | None = None) -> Any:
    """Positions in sorted order along an axis: all of them, or the first `count`."""
    shape = list(t.shape)
    if count is not None:
        shape[axis] = count
    return apply_typed(ordering.ORDER, tuple(shape), dtypes.int64, t, attributes=(axis, bool(descending)))


def _at(t: Any, places: Any, axis: int) -> Any:
    return apply(indexing.TAKE_ALONG, t, places, attributes=(axis,))


def _lined(t: Any, dim: int) -> tuple[Any, int]:
    """The tensor with an axis at least, and the axis."""
    axis = normalize_axis(dim, len(t.shape))
    return (t if t.shape else t.reshape(1)), axis


def _not_bool(t: TensorBase, name: str) -> None:
    if t.dtype.category is Category.BOOL:
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'; convert with .to(torch.uint8) first")


def _picked(t: Any, x: Any, axis: int, places: Any, keepdim: bool, result: Any) -> Any:
    """(values, indices) at one place along the axis of x, which is t with an axis at least."""
    values = _at(x, places, axis)
    if not t.shape:
        return result(values.reshape(()), places.reshape(()))
    return result(values, places) if keepdim else result(values.squeeze(axis), places.squeeze(axis))


def _median(t: Any, dim: int | None, keepdim: bool, skip: bool) -> Any:
    name = "nanmedian" if skip else "median"
    if dim is None:
        if not prod(t.shape):
            return _nothing(t)
        return _median(t.reshape(-1), 0, False, skip).values
    x, axis = _lined(t, dim)
    size = x.shape[axis]
    if not size:
        raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")
    _not_bool(t, "median_cpu")
    order = _order(x, axis, False)
    if not x.dtype.is_floating_point:
        places = order.narrow(axis, (size - 1) // 2, 1)
    else:
        numbers = size - x.detach().isnan().sum(axis, True)
        middle = (numbers - 1).clamp(min=0).floor_divide(2)
        if not skip:
            middle = apply(ops.WHERE, numbers == size, middle, numbers)
        places = _at(order, middle, axis)
    return _picked(t, x, axis, places, keepdim, NanMedian if skip else Median)


def _nothing(t: Any) -> Tensor:
    """The median of no elements."""
    if t.dtype.is_floating_point:
        return t.new_full((), float("nan"))
    return t.new_full((), True if t.dtype is dtypes.bool_ else np.iinfo(t.dtype.numpy).min)


def _quantile(t: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip: bool) -> Tensor:
    name = "nanquantile" if skip else "quantile"
    if t.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise RuntimeError(f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
                           f"{interpolation}")
    if isinstance(q, TensorBase):
        if q.dtype is not t.dtype:
            raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor")
        if len(q.shape) > 1:
            raise RuntimeError(f"{name}() q must be a scalar or 1D tensor, got shape {list(q.shape)}")
    elif not 0 <= q <= 1:
        raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
    if not prod(t.shape):
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    given, rank = t, len(t.shape)
    x, axis = (t.reshape(-1), 0) if dim is None else _lined(t, dim)
    wanted: Any = as_tensor(q, dtype=t.dtype).reshape(-1)
    x = x.movedim(axis, -1)
    size = x.shape[-1]
    ordered = _at(x, _order(x, len(x.shape) - 1, False), len(x.shape) - 1)
    numbers = size - x.detach().isnan().sum(-1, True)
    ranks = wanted * (numbers.to(t.dtype) - 1 if skip else float(size - 1))
    if not skip:
        ranks = apply(ops.WHERE, numbers == size, ranks, float(size - 1))
    ranks = ranks.clamp(min=0.0)
    if interpolation in ("lower", "higher", "nearest"):
        ranks = getattr(ranks, {"lower": "floor", "higher": "ceil", "nearest": "round"}[interpolation])()
    below = ranks.floor()
    last = len(x.shape) - 1
    result = _at(ordered, below.long(), last)
    if interpolation in ("linear", "midpoint"):
        weight = (ranks > below).to(t.dtype) * 0.5 if interpolation == "midpoint" else ranks - below
        result = result.lerp(_at(ordered, ranks.ceil().long(), last), weight)
    result = result.movedim(-1, 0)
    if keepdim:
        kept = [1] * rank if dim is None else [1 if k == axis else size for k, size in enumerate(given.shape)]
        result = result.reshape((wanted.shape[0], *kept))
    elif dim is not None and not rank:
        result = result.reshape((wanted.shape[0],))
    return result if isinstance(q, TensorBase) and q.shape else result.squeeze(0)


# Distinct elements ------------------------------------------------------------------------------------------
def _distinct(rows: Any, differs: Any, order: Any) -> tuple[Any, Any, Any]:
    """Of sorted rows, given where each differs from the one before: the first of each kind, the kind of every element
    in its old place, and how many there are of each kind."""
    starts = np.flatnonzero(computed_values(differs))
    count = rows.shape[0]
    kinds = differs.long().cumsum(0) - 1
    inverse = kinds if order is None else apply(indexing.PUT, kinds, order, kinds, attributes=(0,))
    counts = index_tensor(np.diff(np.append(starts, count)))
    return apply(indexing.TAKE, rows, index_tensor(starts), attributes=(0,)), inverse, counts


def _flat(rows: Any) -> Any:
    """Each row as one line."""
    return rows.reshape(rows.shape[0], prod(rows.shape[1:]))


def _differing(rows: Any) -> Any:
    """Whether each row differs from the one before it; the first does."""
    flat = _flat(rows)
    size = flat.shape[0]
    result = flat.new_ones(size, dtype=dtypes.bool_)
    if size > 1:
        result[1:] = (flat[1:] != flat[:-1]).any(1)
    return result


def _results(values: Any, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool) -> Any:
    chosen = [values] + [inverse] * return_inverse + [counts] * return_counts
    return values if len(chosen) == 1 else tuple(chosen)


def _unique(t: Any, dim: int | None, return_inverse: bool, return_counts: bool, by_order: bool) -> Any:
    """Distinct elements, or slices along `dim`: all, sorted, where `by_order`; else of each run of equals one."""
    t = t.detach()
    if dim is None:
        rows = t.reshape(-1)
    else:
        axis = normalize_axis(dim, len(t.shape))
        rows = (t if t.shape else t.reshape(1)).movedim(axis, 0)
        if 0 in rows.shape[1:]:
            raise RuntimeError("There are 0 sized dimensions, and they aren't selected by `dim`, so unique cannot be "
                               f"applied: shape {list(t.shape)}, dim {dim}")
    order = None
    if by_order:
        flat = _flat(rows)
        order = arange(rows.shape[0])
        for column in reversed(range(flat.shape[1] if rows.shape[0] else 0)):
            keys = apply(indexing.TAKE, flat[:, column], order, attributes=(0,))
            order = apply(indexing.TAKE, order, _order(keys, 0, False), attributes=(0,))
        rows = apply(indexing.TAKE, rows, order, attributes=(0,))
    values, inverse, counts = _distinct(rows, _differing(rows), order)
    if dim is None:
        inverse = inverse.reshape(tuple(t.shape))
    else:
        values = values.movedim(0, axis)
    return _results(values, inverse, counts, return_inverse, return_counts)


class Ordering(TensorBase):
    """Methods that sort."""

    __slots__ = ()

    # Sorted -------------------------------------------------------------------------------------------------
    @numpy_names
    def sort(self, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
        """`(values, indices)` in sorted order along an axis; equal elements always keep their order."""
        x, axis = _lined(self, dim)
        places = _order(x, axis, descending)
        shape = tuple(self.shape)
        return Sorted(_at(x, places, axis).reshape(shape), places.reshape(shape))

    @numpy_names
    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
        """Positions in sorted order along an axis; equal elements always keep their order."""
        x, axis = _lined(self, dim)
        return _order(x, axis, descending).reshape(tuple(self.shape))

    def msort(self) -> Tensor:
        """Sorted along the first axis."""
        return self.sort(0).values

    @numpy_names
    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
        """`(values, indices)` of the k largest (or smallest) along an axis, in order whether or not `sorted`."""
        x, axis = _lined(self, dim)
        if self.dtype.category is Category.BOOL:
            raise RuntimeError("topk does not support bool dtypes on CPU")
        if not 0 <= k <= x.shape[axis]:
            raise RuntimeError(f"selected index k out of range: topk({k}) of {x.shape[axis]} along axis {axis}")
        places = _order(x, axis, largest, k)
        values = _at(x, places, axis)
        return TopResult(values, places) if self.shape else TopResult(values.reshape(()), places.reshape(()))

    @numpy_names
    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> Any:
        """`(values, indices)` of the k-th smallest along an axis, counted from 1."""
        x, axis = _lined(self, dim)
        if not x.shape[axis]:
            raise IndexError(f"kthvalue(): Expected reduction dim {axis} to have non-zero size.")
        if self.shape:
            _not_bool(self, "kthvalue_cpu")
        if not 1 <= k <= x.shape[axis]:
            raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}: {k}")
        return _picked(self, x, axis, _order(x, axis, False, k).narrow(axis, k - 1, 1), keepdim, KthValue)

    # Middles ------------------------------------------------------------------------------------------------
    @numpy_names
    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements, NaN if there is one: of all, or `(values, indices)` along an axis."""
        return _median(self, dim, keepdim, False)

    @numpy_names
    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements that are not NaN: of all, or `(values, indices)` along an axis."""
        return _median(self, dim, keepdim, True)

    @numpy_names
    def quantile(self, q: float | TensorBase, dim: int | None = None, keepdim: bool = False, *,
                 interpolation: str = "linear") -> Tensor:
        """The q-th quantiles, of all elements or along an axis; a vector q gives a new first axis."""
        return _quantile(self, q, dim, keepdim, interpolation, False)

    @numpy_names
    def nanquantile(self, q: float | TensorBase, dim: int | None = None, keepdim: bool = False, *,
                    interpolation: str = "linear") -> Tensor:
        """The q-th quantiles of what is not NaN."""
        return _quantile(self, q, dim, keepdim, interpolation, True)

    @numpy_names
    def mode(self, dim: int = -1, keepdim: bool = False) -> Any:
        """`(values, indices)` of the most frequent element along an axis, the smallest of equally frequent ones, and
        where it is last."""
        x, axis = _lined(self, dim)
        size = x.shape[axis]
        if not size:
            raise IndexError(f"mode(): Expected reduction dim {axis} to have non-zero size.")
        order = _order(x, axis, False)
        ordered: Any = _at(x.detach(), order, axis).movedim(axis, -1)
        places: Any = arange(size)
        # Where the run of equals began that each sorted element is in.
        fresh: Any = places.expand(ordered.shape).clone()
        if size > 1:
            changed = ordered[..., 1:] != ordered[..., :-1]
            fresh[..., 1:] = apply(ops.WHERE, changed, fresh[..., 1:].clone(), -1)
        run = places - running_position(ordering.RUNNING_MAX, fresh, len(fresh.shape) - 1)
        ends = run.argmax(-1, True).movedim(-1, axis)
        return _picked(self, x, axis, _at(order, ends, axis), keepdim, Mode)

    # Distinct -----------------------------------------------------------------------------------------------
    def unique(self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
               dim: int | None = None) -> Any:
        """Distinct elements, or distinct slices along `dim`, sorted in any case; with where each element went and how
        often each occurs, if asked for. Computes at once, for the shape depends on values."""
        return _unique(self, dim, return_inverse, return_counts, True)

    def unique_consecutive(self, return_inverse: bool = False, return_counts: bool = False,
                           dim: int | None = None) -> Any:
        """The same with one of each run of equals only, in place of sorting."""
        return _unique(self, dim, return_inverse, return_counts, False)

    # Counting -----------------------------------------------------------------------------------------------
    def bincount(self, weights: TensorBase | None = None, minlength: int = 0) -> Tensor:
        """How often each number 0, 1, … occurs in a vector of integers, or the sum of weights there. As long as the
        greatest number asks for, or `minlength`; looks at values at once."""
        if self.dtype.is_floating_point or self.dtype is dtypes.bool_:
            raise NotImplementedError(f"\"bincount_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'")
        if minlength < 0:
            raise RuntimeError("minlength should be >= 0")
        values = computed_values(self)
        if len(self.shape) != 1 or (values.size and values.min() < 0):
            raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
        if weights is not None and tuple(weights.shape) != tuple(self.shape):
            raise RuntimeError(
                f"weights should be 1-d and have the same length as input: {list(weights.shape)}, {list(self.shape)}")
        size = max(int(values.max()) + 1 if values.size else 0, minlength)
        places: Any = apply_typed(ops.CAST, tuple(self.shape), dtypes.int64, self)
        if weights is None:
            added: Any = places.new_ones(places.shape)
        else:
            added = weights.detach()
            added = added if added.dtype is dtypes.float32 else added.to(dtypes.float64)
        base = added.new_zeros(size)
        return apply(indexing.TAKE_ADD, base, places, added, attributes=(0,))

    def histc(self, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
        """How many elements lie in each of so many bins of equal width between two bounds; the elements' own extremes
        where the bounds are equal. What lies outside is not counted; looks at values at once if it needs them."""
        if not self.dtype.is_floating_point:
            raise NotImplementedError(f"\"histogram_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'")
        if bins <= 0:
            raise RuntimeError(f"torch.histc(): bins must be > 0, but got {bins}")
        low, high = float(min), float(max)
        x: Any = self.detach().reshape(-1)
        if low == high and x.shape[0]:
            values = computed_values(self).astype(np.float64)
            low, high = float(values.min()), float(values.max())
        if low == high:
            low, high = low - 1, high + 1
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
        if low > high:
            raise RuntimeError("torch.histc: max must be larger than min")
        places = ((x - low) / (high - low) * bins).floor().clamp(0, bins - 1).long()
        places = apply(ops.WHERE, (x >= low) & (x <= high), places, bins)
        counts: Any = apply(indexing.TAKE_ADD, zeros(bins + 1, dtype=self.dtype), places, x.new_ones(x.shape),
                            attributes=(0,))
        return counts[:bins].clone()


# Searching --------------------------------------------------------------------------------------------------
def searchsorted(sorted_sequence: TensorBase, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: str | None = None, sorter: TensorBase | None = None) -> Tensor:
    """Where values would be put into sorted sequences (the last axis): before equal elements, behind them if `right`.

    A sequence of one axis serves values of any shape, others share their leading axes with the values. `sorter` gives
    the sequence's positions in sorted order. RuntimeError where shapes or dtypes do not fit.
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got side of left while "
                           "right was True")
    line: Any = sorted_sequence.detach()
    if not line.shape:
        raise RuntimeError("torch.searchsorted(): boundaries tensor should have positive dimension")
    values: Any = input.detach() if isinstance(input, TensorBase) else as_tensor(input)
    if sorter is not None:
        if tuple(sorter.shape) != tuple(line.shape):
            raise RuntimeError("torch.searchsorted(): boundary and sorter must have the same size, but got "
                               f"{list(line.shape)} and {list(sorter.shape)}")
        line = _at(line, sorter, len(line.shape) - 1)
    if len(line.shape) > 1 and tuple(line.shape[:-1]) != tuple(values.shape[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but got {list(line.shape)} and {list(values.shape)}")
    size = line.shape[-1]
    place: Any = zeros(tuple(values.shape), dtype=dtypes.int64)
    step = 1 << max(size.bit_length() - 1, 0)
    while step and size:
        # Whether the answer lies at least `step` on: whether the element before that place is passed.
        probe = (place + step).clamp(max=size)
        if len(line.shape) == 1:
            here = apply(indexing.TAKE, line, probe - 1, attributes=(0,))
        else:
            here = _at(line, probe - 1, len(line.shape) - 1)
        passed = ~((here > values) if right or side == "right" else (here >= values))
        place = apply(ops.WHERE, passed & (place + step <= size), probe, place)
        step //= 2
    return place.to(dtypes.int32) if out_int32 else place


def bucketize(input: Any, boundaries: TensorBase, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Which of the intervals between sorted boundaries each value lies in (see `searchsorted`)."""
    if len(boundaries.shape) != 1:
        raise RuntimeError(f"boundaries tensor must be 1 dimension, but got dim({len(boundaries.shape)})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is one of others; `assume_unique` changes nothing but speed, and here not that."""
    values, line = as_tensor(elements), as_tensor(test_elements).reshape(-1)
    size = line.shape[0]
    if not size:
        return values.new_full(tuple(values.shape), bool(invert), dtype=dtypes.bool_)
    line = _at(line, _order(line, 0, False), 0)
    place = searchsorted(line, values).clamp(max=size - 1)
    found = apply(indexing.TAKE, line, place, attributes=(0,)) == values
    return ~found if invert else found


argsort = as_function(Ordering.argsort)
bincount = as_function(Ordering.bincount)
histc = as_function(Ordering.histc)
kthvalue = as_function(Ordering.kthvalue)
median = as_function(Ordering.median)
mode = as_function(Ordering.mode)
msort = as_function(Ordering.msort)
nanmedian = as_function(Ordering.nanmedian)
nanquantile = as_function(Ordering.nanquantile)
quantile = as_function(Ordering.quantile)
sort = as_function(Ordering.sort)
topk = as_function(Ordering.topk)
unique = as_function(Ordering.unique)
unique_consecutive = as_function(Ordering.unique_consecutive)

__all__ = [
    "argsort", "bincount", "bucketize", "histc", "isin", "kthvalue", "median", "mode", "msort", "nanmedian",
    "nanquantile", "quantile", "searchsorted", "sort", "topk", "unique", "unique_consecutive",
]
