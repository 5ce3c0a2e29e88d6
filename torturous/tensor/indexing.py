"""Indexing: `x[...]`, assignment to it, and the operations whose positions are data.

Integers and slices make views. Index tensors are applied after them, by one gather: the axes they index are
brought together, merged into one, and their positions combined arithmetically. Boolean masks are looked at on
the host, because they decide a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile
from math import prod
from operator import index as whole
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.shapes import Shape, broadcast
from torturous.ir import creation, elementwise, indexing, movement
from torturous.ir.op import TYPES, Type, type_number
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, Step, TensorBase
from torturous.tensor.movement import Movement
from torturous.tensor.paths import unrepeated
from torturous.tensor.positions import checked_index, host_integer, index_tensor, inside
from torturous.tensor.recording import begin_write, cast, write_value
from torturous.tensor.splitting import Splitting
from torturous.tensor.values import computed_values
from torturous.tensor.views import look
from torturous.tensor.ways import Way, planned

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# Keys -------------------------------------------------------------------------------------------------------
_WANTED = (
    "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
    "(got {})")


class _Parsed:
    """A key taken apart: the view that its integers and slices make, and index tensors by axis of it."""

    def __init__(self, kind: Type, strides: Shape, key: Any) -> None:
        self.kind = kind
        """Of the source."""
        self.shape, self.strides = kind.shape, strides
        self.axis = 0
        self.boxes: list[tuple[int, int, int, int]] = []
        """Axis of the source, start, length, step."""
        self.layout: list[tuple[int, int]] = []
        """Size and stride of each axis of the view."""
        self.reshaped = False
        self.indices: list[tuple[int, TensorBase]] = []
        keys = [_plain(k) for k in (key if _is_tuple(key) else (key,))]
        rank = len(self.shape)
        taken = sum(map(_axes_taken, keys))
        if taken > rank:
            raise IndexError(f"too many indices for tensor of dimension {rank}" if rank else
                             "invalid index of a 0-dim tensor. Use `tensor.item()` to convert it to a number")
        for k in keys:
            if k is Ellipsis:
                self._keep(rank - taken)
                taken = rank  # Another ellipsis stands for nothing.
            else:
                self._take(k)
        self._keep(rank - self.axis)

    def _keep(self, count: int) -> None:
        for _ in range(count):
            self.layout.append((self.shape[self.axis], self.strides[self.axis]))
            self.axis += 1

    def _new_axis(self) -> None:
        inside = self.axis < len(self.shape)
        self.layout.append((1, self.shape[self.axis] * self.strides[self.axis] if inside else 1))
        self.reshaped = True

    def _take(self, k: Any) -> None:
        if k is None:
            self._new_axis()
        elif isinstance(k, bool):
            self.indices.append((len(self.layout), index_tensor(np.zeros(int(k), np.int64))))
            self._new_axis()
        elif isinstance(k, int):
            size = self.shape[self.axis]
            if not -size <= k < size:
                raise IndexError(f"index {k} is out of bounds for dimension {self.axis} with size {size}")
            self.boxes.append((self.axis, k % size, 1, 1))
            self.axis += 1
            self.reshaped = True
        elif isinstance(k, slice):
            size, stride = self.shape[self.axis], self.strides[self.axis]
            start, length, step = _slice_places(k, size)
            if (start, length, step) != (0, size, 1):
                self.boxes.append((self.axis, start, length, step))
            self.layout.append((length, stride * step))
            self.axis += 1
        else:
            self.indices.append((len(self.layout), k))
            if k.dtype is dtypes.bool_:
                self._fits(k)
                self._keep(len(k.shape))
            else:
                self._keep(1)

    def _fits(self, mask: TensorBase) -> None:
        here = tuple(self.shape[self.axis:self.axis + len(mask.shape)])
        if here != tuple(mask.shape):
            first = next(i for i, (a, b) in enumerate(zip(here, mask.shape, strict=True)) if a != b)
            raise IndexError(
                f"The shape of the mask {list(mask.shape)} at index {first} does not match the shape of the "
                f"indexed tensor {list(self.shape)} at index {self.axis + first}")

    def way(self) -> Way:
        """From the source through the key's integers, slices and new axes."""
        dtype, offset = self.kind.dtype, 0
        path = []
        if self.boxes:
            axes, starts, lengths, steps = zip(*self.boxes, strict=True)
            shape = list(self.shape)
            for axis, start, length, _ in self.boxes:
                offset += start * self.strides[axis]
                shape[axis] = length
            begins = [start if length else 0 for start, length in zip(starts, lengths, strict=True)]
            path.append(Step(movement.SLICE, (axes, steps), type_number(tuple(shape), dtype), begins))
        if self.reshaped or not path:
            sizes = tuple(size for size, _ in self.layout)
            path.append(Step(movement.RESHAPE, (), type_number(sizes, dtype)))
        return Way(tuple(path), tuple(stride for _, stride in self.layout), offset)


def _parsed(t: TensorBase, key: Any) -> _Parsed:
    return _Parsed(TYPES[t._type], t.strides, key)


def _plain_key(key: Any) -> tuple[Any, ...] | None:
    """A key of integers, slices between integers, None and Ellipsis alone, slices as tuples; None for any other."""
    parts = []
    for k in key if key.__class__ is tuple else (key,):
        kind = k.__class__
        if kind is slice:
            k = k.start, k.stop, k.step
            for bound in k:
                if bound is not None and bound.__class__ is not int:
                    return None
        elif kind is not int and k is not None and k is not Ellipsis:
            return None
        parts.append(k)
    return tuple(parts)


@planned
def _between(kind: Type, strides: Shape, parts: tuple[Any, ...]) -> Way:
    """The way that such a key leads."""
    return _Parsed(kind, strides, tuple(slice(*k) if isinstance(k, tuple) else k for k in parts)).way()


def _is_tuple(key: Any) -> bool:
    """Whether a key has a part for each axis: a tuple, or (an old habit) a short list of not only numbers."""
    if isinstance(key, tuple):
        return True
    return isinstance(key, list) and len(key) < 32 and any(
        part is None or part is Ellipsis
        or isinstance(part, (TensorBase, np.ndarray, list, tuple, range, slice)) for part in key)


def _plain(k: Any) -> Any:
    """One part of a key as an int, bool, slice, None, Ellipsis, or a tensor of integers or bool."""
    if k is None or k is Ellipsis or isinstance(k, (int, slice)):
        return k
    if isinstance(k, TensorBase):
        if k.dtype.is_floating_point:
            raise IndexError(
                f"tensors used as indices must be long, int, byte or bool tensors, got {k.dtype}")
        if not k.shape:
            return bool(computed_values(k)) if k.dtype is dtypes.bool_ else int(computed_values(k))
        return cast(k, dtypes.bool_) if k.dtype is dtypes.uint8 else k
    if isinstance(k, np.bool_):
        return bool(k)
    if isinstance(k, (list, tuple, range, np.ndarray)):
        return _plain_array(k)
    try:
        return whole(k)
    except TypeError:
        raise IndexError(_WANTED.format(type(k).__name__)) from None


def _plain_array(k: Any) -> TensorBase:
    array = np.asarray([_plain(part) for part in k] if any(isinstance(part, TensorBase) for part in k) else k)
    if array.size == 0 and not isinstance(k, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype == np.bool_:
        mask = index_tensor(array.astype(np.int64))
        return cast(mask, dtypes.bool_)
    if array.dtype.kind not in "iu":
        raise IndexError(_WANTED.format(f"a sequence of {array.dtype}"))
    return index_tensor(array)


def _axes_taken(k: Any) -> int:
    if k is None or k is Ellipsis or isinstance(k, bool):
        return 0
    if isinstance(k, TensorBase) and k.dtype is dtypes.bool_:
        return len(k.shape)
    return 1


def _slice_places(k: slice, size: int) -> tuple[int, int, int]:
    """Start, length and step of a slice of an axis; ValueError for a step that is not positive."""
    start, stop, step = (host_integer(bound) if isinstance(bound, TensorBase) else bound
                         for bound in (k.start, k.stop, k.step))
    if step is not None and whole(step) <= 0:
        raise ValueError(f"step must be greater than zero, got {step} (use flip to run backwards)")
    begin, end, stride = slice(start, stop, step).indices(size)
    return begin, max(0, -(-(end - begin) // stride)), stride


# Gathering by several index tensors -------------------------------------------------------------------------
class _Plan:
    """How index tensors apply to a tensor: the order of axes, the merged axis, and the combined positions."""

    def __init__(self, t: Movement, indices: Sequence[tuple[int, TensorBase]], op_name: str) -> None:
        self.shape = tuple(t.shape)
        axes: list[int] = []
        positions: list[TensorBase] = []
        for axis, index in indices:
            if index.dtype is dtypes.bool_:
                places = np.nonzero(computed_values(index))
                axes += range(axis, axis + len(places))
                positions += map(index_tensor, places)
            else:
                axes.append(axis)
                positions.append(checked_index(
                    index, self.shape[axis], op_name, negatives=True, axis=axis))
        self.axes, self.positions = axes, positions
        self.index = self._combined(positions, [self.shape[axis] for axis in axes])
        # Where indexed axes lie next to each other the result keeps their place, else it has them in front.
        self.at = axes[0] if axes == list(range(axes[0], axes[0] + len(axes))) else 0
        rest = [axis for axis in range(len(self.shape)) if axis not in axes]
        self.order = [*rest[:self.at], *axes, *rest[self.at:]]
        sizes = [self.shape[axis] for axis in self.order]
        end = self.at + len(axes)
        self.merged = (*sizes[:self.at], prod(sizes[self.at:end]), *sizes[end:])
        self.taken = (*self.merged[:self.at], *self.index.shape, *self.merged[self.at + 1:])

    @staticmethod
    def _combined(positions: list[TensorBase], sizes: list[int]) -> TensorBase:
        """Positions in the merged axis; −1, which no axis has, where one of several is out of its axis."""
        if len(positions) == 1:
            return positions[0]
        try:
            shape = broadcast([tuple(index.shape) for index in positions])
        except RuntimeError:
            raise IndexError(
                "shape mismatch: indexing tensors could not be broadcast together with shapes "
                + ", ".join(str(list(index.shape)) for index in positions)) from None
        total: Any = cast(positions[0], dtypes.int64)
        valid: Any = None
        for number, (index, size) in enumerate(zip(positions, sizes, strict=True)):
            if number:
                total = apply(elementwise.ADD, apply(elementwise.MUL, total, size), index)
            if index.storage.pending:
                here = inside(index, size)
                valid = here if valid is None else apply(elementwise.BITWISE_AND, valid, here)
        if valid is not None:
            total = apply(elementwise.WHERE, valid, total, -1)
        return total.expand(shape) if tuple(total.shape) != shape else total

    def forward(self, t: Movement) -> Tensor:
        """t with its indexed axes merged."""
        moved: Any = t if self.order == sorted(self.order) else t.permute(self.order)
        if tuple(moved.shape) == self.merged:
            return moved
        return apply_typed(movement.RESHAPE, self.merged, t.dtype, moved)

    def back(self, merged: TensorBase) -> Tensor:
        """The inverse of `forward`."""
        t: Any = merged
        shape = tuple(self.shape[axis] for axis in self.order)
        if shape != self.merged:
            t = apply_typed(movement.RESHAPE, shape, t.dtype, t)
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return t if self.order == sorted(self.order) else t.permute(inverse)

    def values(self, t: Movement, given: TensorBase | Number) -> Tensor:
        """What is to be written, in t's dtype and the shape of what it is written over."""
        if isinstance(given, TensorBase) and given.dtype is not t.dtype:
            raise RuntimeError("Index put requires the source and destination dtypes match, got "
                               f"{t.dtype} for the destination and {given.dtype} for the source; use .to({t.dtype})")
        value = _value_for(t, given)
        lead = len(self.taken) - len(value.shape)
        if lead < 0 or any(a not in (1, b) for a, b in zip(value.shape, self.taken[lead:], strict=True)):
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing "
                f"result of shape {list(self.taken)}")
        return value.expand(self.taken)


def _without_leading_ones(value: Any) -> Any:
    """What is assigned, without the sizes of one before all others, which an assignment may have too many of."""
    if not isinstance(value, TensorBase):
        return value
    shape = tuple(dropwhile(lambda size: size == 1, value.shape))
    return value if len(shape) == len(value.shape) else value.reshape(shape)  # type: ignore[attr-defined]


def _value_for(t: TensorBase, given: Any) -> Tensor:
    """A number or tensor that is assigned, in t's dtype."""
    if isinstance(given, TensorBase):
        return cast(given, t.dtype)
    if isinstance(given, np.generic):
        given = given.item()
    if not isinstance(given, (int, float)):
        raise TypeError(
            f"can't assign a {type(given).__name__} to a tensor of {t.dtype}; use torch.tensor(...) first")
    return apply_typed(creation.FULL, (), t.dtype, given)


def rewrite(t: Movement, make: Callable[[Any], TensorBase], name: str, replaces: bool = False) -> Tensor:
    """t becomes make(t), in place; `replaces` says that this has nothing of what t was before."""
    begin_write(t)
    write_value(t, make(t).row(), name, replaces)
    return t  # type: ignore[return-value]


class Indexing(Splitting):
    """`x[...]` and the methods that read or write at positions which are data."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Tensor:
        parts = _plain_key(key)
        if parts is not None:
            return look(self, _between(self._type, self._strides, parts))
        parsed = _parsed(self, key)
        t: Any = look(self, parsed.way())
        if not parsed.indices:
            return t
        plan = _Plan(t, parsed.indices, "index")
        return apply(indexing.TAKE, plan.forward(t), plan.index, attributes=(plan.at,))

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is False:
            return
        parsed = _parsed(self, key)
        target: Any = look(self, parsed.way())
        if not parsed.indices:
            _assign(target, value)
        elif len(parsed.indices) == 1 and _fills_mask(parsed.indices[0][1], value):
            ((axis, mask),) = parsed.indices
            wide: Any = mask
            wide = wide.reshape(*mask.shape, *(1,) * (len(target.shape) - axis - len(mask.shape)))
            filling = _value_for(target, value).reshape(())
            target.masked_fill_(wide, filling)
        else:
            target.index_put_(_by_axis(parsed.indices), _without_leading_ones(value))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def index_put_(self, indices: Sequence[TensorBase | None], values: TensorBase | Number,
                   accumulate: bool = False) -> Tensor:
        """self[indices] = values; with `accumulate`, elements named several times add up."""
        self._changeable()
        pairs = _axes_of(self, indices)
        if self._repeats():
            return _put_repeated(self, pairs, values, accumulate)

        def put(t: Movement) -> TensorBase:
            plan = _Plan(t, pairs, "index_put_")
            op = indexing.TAKE_ADD if accumulate else indexing.PUT
            written = plan.values(t, values)
            return plan.back(apply(op, plan.forward(t), plan.index, written, attributes=(plan.at,)))

        return rewrite(self, put, "index_put")

    def index_put(self, indices: Sequence[TensorBase | None], values: TensorBase | Number,
                  accumulate: bool = False) -> Tensor:
        return self.clone().index_put_(indices, values, accumulate)


def _put_repeated(t: Movement, pairs: Sequence[tuple[int, TensorBase]], values: TensorBase | Number,
                  accumulate: bool) -> Tensor:
    """`index_put_` into an expanded tensor: what comes last for a place in memory stays, or all add up."""
    narrow = unrepeated(t)
    plan = _Plan(t, pairs, "index_put_")
    written = plan.values(t, values)
    repeated = [axis for axis, size in enumerate(t.shape) if narrow.shape[axis] != size]
    rest = [axis for axis in range(len(t.shape)) if axis not in plan.axes]
    for place, axis in enumerate(rest):
        if axis in repeated:
            position = place if place < plan.at else place + len(plan.index.shape)
            written = (written.sum(position, True) if accumulate
                       else written.sliced(position, t.shape[axis] - 1, t.shape[axis], 1))
    indices: list[TensorBase | None] = [None] * len(t.shape)
    for axis, index in zip(plan.axes, plan.positions, strict=True):
        indices[axis] = apply(elementwise.MUL, index, 0) if axis in repeated else index
    narrow.index_put_(indices, written, accumulate)
    return t  # type: ignore[return-value]


def _fills_mask(index: TensorBase, value: Any) -> bool:
    """Whether one value goes wherever a mask is true: then nobody needs to count."""
    if index.dtype is not dtypes.bool_:
        return False
    return not value.shape if isinstance(value, TensorBase) else True


def _by_axis(indices: Sequence[tuple[int, TensorBase]]) -> list[TensorBase | None]:
    """Index tensors as `index_put_` takes them: None for axes not indexed."""
    result: list[TensorBase | None] = []
    axis = 0
    for where, index in indices:
        result += [None] * (where - axis) + [index]
        axis = where + (len(index.shape) if index.dtype is dtypes.bool_ else 1)
    return result


def _axes_of(t: Movement, indices: Sequence[Any]) -> list[tuple[int, TensorBase]]:
    """The inverse of `_by_axis`, with the checks of keys."""
    parsed = _parsed(t, tuple(slice(None) if index is None else index for index in indices))
    return [(axis, index) for axis, index in parsed.indices]


def _assign(target: Movement, value: Any) -> None:
    """target[...] = value."""
    given = _value_for(target, value)
    shape = tuple(given.shape)
    while len(shape) > len(target.shape) and shape[0] == 1:
        shape = shape[1:]
    if shape != tuple(given.shape):
        given = given.reshape(shape)
    if shape != tuple(target.shape):
        given = given.expand(tuple(target.shape))

    rewrite(target, lambda t: given, "setitem", replaces=True)


__all__ = ["Indexing", "checked_index", "host_integer", "index_tensor", "rewrite"]
