"""Reading and writing at positions along an axis: gather, scatter, index_select, masks, and relatives."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.shapes import broadcast, normalize_axis
from torturous.ir import creation, elementwise, indexing, movement
from torturous.ir.op import Op
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.indexing import Indexing, rewrite
from torturous.tensor.movement import Movement, as_function
from torturous.tensor.paths import unrepeated
from torturous.tensor.positions import checked_index, index_tensor
from torturous.tensor.values import computed_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# Along one axis, element by element -------------------------------------------------------------------------
def _axis(t: TensorBase, dim: int) -> int:
    return normalize_axis(dim, len(t.shape))


def _at_least_1d(t: Any) -> Tensor:
    return t if t.shape else t.reshape(1)


def _along(t: TensorBase, dim: int, index: TensorBase, name: str) -> tuple[Tensor, int, Tensor]:
    """t, the axis and the checked index of a gather or scatter; scalars as vectors of one element."""
    axis = _axis(t, dim)
    if index.dtype is not dtypes.int64 and index.dtype is not dtypes.int32:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")
    t, index = _at_least_1d(t), _at_least_1d(index)
    if len(t.shape) != len(index.shape):
        if not prod(index.shape):
            return t, axis, index  # Nothing is read or written; the caller looks at the index's shape.
        raise RuntimeError(
            f"Index tensor must have the same number of dimensions as input tensor: {name} with index of "
            f"shape {list(index.shape)} and input of shape {list(t.shape)}")
    for other, (have, most) in enumerate(zip(index.shape, t.shape, strict=True)):
        if other != axis and have > most:
            raise RuntimeError(
                f"Size does not match at dimension {other} expected index {list(index.shape)} to be no "
                f"larger than self {list(t.shape)} apart from dimension {axis} ({name})")
    return t, axis, checked_index(index, t.shape[axis], name, axis=axis, error=RuntimeError)


def _scattered(t: Movement, op: Op, dim: int, index: TensorBase, source: TensorBase | Number, name: str
               ) -> Tensor:
    """t with elements of `source` added or written at the index's places along an axis."""
    shape = tuple(t.shape)
    wide, axis, places = _along(t, dim, index, name)
    if len(places.shape) != len(wide.shape):
        return t.clone()
    values: Any = source
    if isinstance(source, TensorBase):
        if source.dtype is not t.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype, got {t.dtype} and {source.dtype}")
        values = _at_least_1d(source)
        if len(values.shape) != len(places.shape) or any(
                want > have for want, have in zip(places.shape, values.shape, strict=True)):
            raise RuntimeError(
                f"Expected index {list(places.shape)} to be no larger than self {list(shape)} apart from "
                f"dimension {axis} and to be no larger size than src {list(source.shape)} ({name})")
        values = values[tuple(slice(0, size) for size in places.shape)]
    else:
        values = apply_typed(creation.FULL, tuple(places.shape), t.dtype, source)
    result: Any = apply(op, wide, places, values, attributes=(axis,))
    return result.reshape(shape) if tuple(result.shape) != shape else result


# Along one axis, slice by slice -----------------------------------------------------------------------------
def _vector(t: TensorBase, dim: int, index: TensorBase, name: str, error: type[Exception] = IndexError,
            negatives: bool = False) -> tuple[int, Tensor]:
    """The axis and checked positions, one-dimensional, of an operation on whole slices."""
    axis = _axis(t, dim)
    if len(index.shape) > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, got shape {list(index.shape)}")
    if index.dtype is not dtypes.int64 and index.dtype is not dtypes.int32:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype}")
    size = t.shape[axis] if t.shape else 1
    return axis, checked_index(_at_least_1d(index), size, name, axis=axis, error=error, negatives=negatives)


def _slices(t: Movement, op: Op, dim: int, index: TensorBase, source: TensorBase, name: str) -> Tensor:
    """t with slices of `source` added or written at positions of an axis."""
    axis, places = _vector(t, dim, index, name, IndexError if op is indexing.PUT else RuntimeError)
    if source.dtype is not t.dtype:
        raise RuntimeError(f"{name}(): self ({t.dtype}) and source ({source.dtype}) must have the same dtype")
    wide, values = _at_least_1d(t), _at_least_1d(source)
    wanted = (*wide.shape[:axis], places.shape[0], *wide.shape[axis + 1:])
    if tuple(values.shape) != wanted:
        raise RuntimeError(
            f"{name}(): source of shape {list(source.shape)} does not fit: {places.shape[0]} slices along "
            f"axis {axis} of self {list(t.shape)} have shape {list(wanted)}")
    result: Any = apply(op, wide, places, values, attributes=(axis,))
    return result.reshape(tuple(t.shape)) if not t.shape else result


def take_rows(weight: TensorBase, index: TensorBase) -> Tensor:
    """weight[index] for a weight (V, ...) and positions of any shape: what an embedding looks up.

    Raises RuntimeError for an index that is not of int32 or int64, IndexError for a position outside
    0 … V − 1.
    """
    if index.dtype is not dtypes.int64 and index.dtype is not dtypes.int32:
        raise RuntimeError(
            f"embedding: expected an index of dtype int64 or int32, got {index.dtype}; use index.long()")
    places = checked_index(index, weight.shape[0], "index out of range in self: embedding")
    return apply(indexing.TAKE, weight, places, attributes=(0,))


# Masks ------------------------------------------------------------------------------------------------------
def _mask_places(mask: TensorBase, shape: Sequence[int], name: str) -> Tensor:
    """Flat positions, within `shape`, where a mask that broadcasts to it is true."""
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(f"{name}: expected BoolTensor for mask, got {mask.dtype}")
    return index_tensor(np.flatnonzero(np.broadcast_to(computed_values(mask), tuple(shape))))


def _flat(t: Any) -> Tensor:
    return t.reshape(-1)


class Gathering(Indexing):
    """Methods that read or write at positions along an axis, or where a mask is true."""

    __slots__ = ()

    # Element by element -------------------------------------------------------------------------------------
    def gather(self, dim: int, index: TensorBase, *, sparse_grad: bool = False) -> Tensor:
        """out[i][j] = self[index[i][j]][j] for dim 0, and so on; the result has the index's shape."""
        if sparse_grad:
            raise NotImplementedError("gather(sparse_grad=True): there are no sparse tensors; leave it False")
        wide, axis, places = _along(self, dim, index, "gather")
        if len(places.shape) != len(wide.shape):
            return _flat(self).sliced(0, 0, 0, 1).reshape(tuple(index.shape))
        result: Any = apply(indexing.TAKE_ALONG, wide, places, attributes=(axis,))
        return result if index.shape else result.reshape(())

    def scatter(self, dim: int, index: TensorBase, src: TensorBase | Number | None = None, *,
                value: Number | None = None, reduce: str | None = None) -> Tensor:
        """self with src written at the index's places along one axis; of several for a place the last stays.

        `src` is a tensor of self's dtype at least as large as the index, or a number (also named `value`).
        `reduce` may be "add".
        """
        source = value if src is None else src
        if source is None:
            raise TypeError("scatter() needs `src` or `value`")
        if reduce not in (None, "add"):
            raise NotImplementedError(f"scatter(reduce={reduce!r}): only None and 'add' are supported")
        op = indexing.PUT_ALONG if reduce is None else indexing.TAKE_ALONG_ADD
        return _scattered(self, op, dim, index, source, "scatter")

    def scatter_add(self, dim: int, index: TensorBase, src: TensorBase) -> Tensor:
        """self with src added at the index's places along one axis."""
        return _scattered(self, indexing.TAKE_ALONG_ADD, dim, index, src, "scatter")

    def scatter_(self, dim: int, index: TensorBase, src: TensorBase | Number | None = None, *,
                 value: Number | None = None, reduce: str | None = None) -> Tensor:
        return rewrite(self, lambda t: t.scatter(dim, index, src, value=value, reduce=reduce), "scatter")

    def scatter_add_(self, dim: int, index: TensorBase, src: TensorBase) -> Tensor:
        return rewrite(self, lambda t: t.scatter_add(dim, index, src), "scatter_add")

    def take_along_dim(self, indices: TensorBase, dim: int | None = None) -> Tensor:
        """`gather` with self and index broadcast along the other axes; without dim, of the flat tensor."""
        if dim is None:
            return _flat(self).gather(0, _flat(indices))
        rank = len(self.shape)
        if rank != len(indices.shape):
            raise RuntimeError(
                "torch.take_along_dim(): input and indices should have the same number of dimensions, but "
                f"got {rank} dimensions for input, and {len(indices.shape)} dimensions for indices")
        axis = _axis(self, dim)
        mine, theirs = list(self.shape), list(indices.shape)
        mine[axis] = theirs[axis] = 1
        mine = list(broadcast([tuple(mine), tuple(theirs)]))
        theirs = list(mine)
        mine[axis], theirs[axis] = self.shape[axis], indices.shape[axis]
        wide: Any = checked_index(indices, self.shape[axis], "take_along_dim", negatives=True, axis=axis,
                                  error=RuntimeError)
        return self.expand(mine).gather(axis, wide.expand(theirs))

    # Slice by slice -----------------------------------------------------------------------------------------
    def index_select(self, dim: int, index: TensorBase) -> Tensor:
        """The slices of one axis that the index names, in its order."""
        axis, places = _vector(self, dim, index, "index_select")
        result: Any = apply(indexing.TAKE, _at_least_1d(self), places, attributes=(axis,))
        return result if self.shape else result.reshape(())

    def index_add(self, dim: int, index: TensorBase, source: TensorBase, *, alpha: Number = 1) -> Tensor:
        """self with slices of alpha · source added at positions of an axis."""
        scaled = source if alpha == 1 else apply(elementwise.MUL, source, alpha)
        return _slices(self, indexing.TAKE_ADD, dim, index, scaled, "index_add")

    def index_add_(self, dim: int, index: TensorBase, source: TensorBase, *, alpha: Number = 1) -> Tensor:
        return rewrite(self, lambda t: t.index_add(dim, index, source, alpha=alpha), "index_add")

    def index_copy(self, dim: int, index: TensorBase, source: TensorBase) -> Tensor:
        """self with slices of source written at positions of an axis."""
        return _slices(self, indexing.PUT, dim, index, source, "index_copy")

    def index_copy_(self, dim: int, index: TensorBase, source: TensorBase) -> Tensor:
        return rewrite(self, lambda t: t.index_copy(dim, index, source), "index_copy")

    def index_fill(self, dim: int, index: TensorBase, value: TensorBase | Number) -> Tensor:
        """self with a number (or 0-d tensor) written over the slices of an axis that the index names."""
        axis, places = _vector(self, dim, index, "index_fill", negatives=True)
        if isinstance(value, TensorBase) and value.shape:
            raise RuntimeError(
                f"index_fill_ only supports a 0-dimensional value tensor, but got shape {list(value.shape)}")
        wide = _at_least_1d(self)
        shape = (*wide.shape[:axis], places.shape[0], *wide.shape[axis + 1:])
        if isinstance(value, TensorBase):
            filling = apply_typed(movement.EXPAND, shape, self.dtype, _cast(value, self))
        else:
            filling = apply_typed(creation.FULL, shape, self.dtype, value)
        result: Any = apply(indexing.PUT, wide, places, filling, attributes=(axis,))
        return result if self.shape else result.reshape(())

    def index_fill_(self, dim: int, index: TensorBase, value: TensorBase | Number) -> Tensor:
        """The same in place, of an expanded tensor too."""
        t: Movement = self
        if self._repeats():
            axis, index = _vector(self, dim, index, "index_fill", negatives=True)
            t = unrepeated(self)
            if t.shape[axis] != self.shape[axis]:
                index = apply(elementwise.MUL, index, 0)
        rewrite(t, lambda t: t.index_fill(dim, index, value), "index_fill")
        return self  # type: ignore[return-value]

    def take(self, index: TensorBase) -> Tensor:
        """Elements at positions of the flat tensor (below 0 from the end), in the index's shape."""
        if index.dtype is not dtypes.int64:
            raise RuntimeError(f"take(): Expected a long tensor for index, but got {index.dtype}")
        flat = _flat(self)
        (count,) = flat.shape
        if count == 0 and 0 not in index.shape:
            raise IndexError("take(): tried to take from an empty tensor")
        places = checked_index(index, count, "take", negatives=True)
        return apply(indexing.TAKE, flat, places, attributes=(0,))

    def put_(self, index: TensorBase, source: TensorBase, accumulate: bool = False) -> Tensor:
        """Writes source's elements at positions of the flat tensor: the last of equals stays, or all add."""
        if prod(index.shape) != prod(source.shape):
            raise IndexError(
                "put_(): Expected source and index to have the same number of elements, but got "
                f"source.numel() = {prod(source.shape)}, index.numel() = {prod(index.shape)}")
        if source.dtype is not self.dtype:
            raise RuntimeError(
                f"put_(): self and source expected to have the same dtype, got {self.dtype} and "
                               f"{source.dtype}")
        places = checked_index(index, prod(self.shape), "put_", negatives=True)
        op = indexing.TAKE_ADD if accumulate else indexing.PUT

        def put(t: Movement) -> Tensor:
            flat = apply(op, _flat(t), _flat(places), _flat(source), attributes=(0,))
            return flat.reshape(tuple(t.shape))

        return rewrite(self, put, "put")

    # Masks --------------------------------------------------------------------------------------------------
    def masked_select(self, mask: TensorBase) -> Tensor:
        """The elements where a mask is true, in a vector; both broadcast."""
        shape = broadcast([tuple(self.shape), tuple(mask.shape)])
        places = _mask_places(mask, shape, "masked_select")
        return apply(indexing.TAKE, _flat(self.expand(shape)), places, attributes=(0,))

    def masked_scatter(self, mask: TensorBase, source: TensorBase) -> Tensor:
        """self with source's elements, in order, put where a mask is true."""
        shape = broadcast([tuple(self.shape), tuple(mask.shape)])
        places = _mask_places(mask, shape, "masked_scatter")
        if source.dtype is not self.dtype:
            raise RuntimeError(
                f"masked_scatter: expected self and source to have same dtypes but got {self.dtype} and "
                f"{source.dtype}")
        count = places.shape[0]
        if count > prod(source.shape):
            raise RuntimeError(
                "masked_scatter: expected source to have at least as many elements as the mask has ones, "
                f"but got {prod(source.shape)} and {count}")
        values = _flat(source)[:count]
        return apply(indexing.PUT, _flat(self.expand(shape)), places, values, attributes=(0,)).reshape(shape)

    def masked_scatter_(self, mask: TensorBase, source: TensorBase) -> Tensor:
        return rewrite(self, lambda t: t.masked_scatter(mask, source), "masked_scatter")

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """Positions of the elements that are not zero: (count, rank) int64, or a vector for each axis."""
        values = computed_values(self)
        if values.dtype.kind not in "biuf":  # NumPy does not know what zero is in bfloat16.
            values = values.astype(np.float32)
        if not as_tuple:
            return index_tensor(np.argwhere(values))
        return tuple(map(index_tensor, np.nonzero(np.atleast_1d(values))))

    def argwhere(self) -> Tensor:
        return self.nonzero()


def _cast(value: TensorBase, like: TensorBase) -> TensorBase:
    if value.dtype is like.dtype:
        return value
    return apply_typed(elementwise.CAST, tuple(value.shape), like.dtype, value)


argwhere = as_function(Gathering.argwhere)
gather = as_function(Gathering.gather)
index_add = as_function(Gathering.index_add)
index_copy = as_function(Gathering.index_copy)
index_fill = as_function(Gathering.index_fill)
index_put = as_function(Indexing.index_put)
index_select = as_function(Gathering.index_select)
masked_scatter = as_function(Gathering.masked_scatter)
masked_select = as_function(Gathering.masked_select)
nonzero = as_function(Gathering.nonzero)
scatter = as_function(Gathering.scatter)
scatter_add = as_function(Gathering.scatter_add)
take = as_function(Gathering.take)
take_along_dim = as_function(Gathering.take_along_dim)

FUNCTIONS = ("argwhere", "gather", "index_add", "index_copy", "index_fill", "index_put", "index_select",
             "masked_scatter", "masked_select", "nonzero", "scatter", "scatter_add", "take", "take_along_dim")
"""Names that the package offers as functions."""

__all__ = ["Gathering", "take_rows", *FUNCTIONS]
