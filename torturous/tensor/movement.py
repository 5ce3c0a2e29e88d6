"""The movement operations: tensors that look at the same memory in another way (see `views.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import prod
from operator import index as whole
from typing import TYPE_CHECKING, Any

from torturous.core.devices import channels_last, channels_last_3d, check_format, memory_format
from torturous.core.dtypes import DType
from torturous.core.shapes import (
    Shape,
    broadcast,
    infer_view_size,
    is_contiguous,
    normalize_axis,
)
from torturous.ir import movement
from torturous.ir.op import TYPES
from torturous.tensor import ways
from torturous.tensor.applying import apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.views import look, view

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def sizes(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """`view(2, 3)` and `view((2, 3))` alike."""
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        arguments = tuple(arguments[0])
    return tuple(map(whole, arguments))


def as_function(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method as a function whose first parameter is called `input`, as PyTorch's functions have it."""

    @wraps(method)
    def function(input: TensorBase, *arguments: Any, **named: Any) -> Any:
        if not isinstance(input, TensorBase):
            raise TypeError(
                f"{method.__name__}(): argument 'input' (position 1) must be Tensor, not "
                f"{type(input).__name__}")
        return method(input, *arguments, **named)

    return function


def _moved(rank: int, source: int | Sequence[int], destination: int | Sequence[int]) -> list[int]:
    """The order of axes that takes `source` axes to `destination` and keeps the others in their order."""
    sources = [source] if isinstance(source, int) else list(source)
    destinations = [destination] if isinstance(destination, int) else list(destination)
    if len(sources) != len(destinations):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({sources} dims) should contain the same "
            f"number of dims as destination ({destinations} dims)")
    taken = [normalize_axis(axis, rank) for axis in sources]
    put = [normalize_axis(axis, rank) for axis in destinations]
    for name, axes, given in (("source", taken, sources), ("destination", put, destinations)):
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({given})")
    order = [axis for axis in range(rank) if axis not in taken]
    for place, axis in sorted(zip(put, taken, strict=True)):
        order.insert(place, axis)
    return order


class Movement(TensorBase):
    """Methods that move elements without computing."""

    __slots__ = ()

    # Shapes -------------------------------------------------------------------------------------------------
    def view(self, *shape: Any, dtype: DType | None = None) -> Tensor:
        """The same memory under another shape, one size of which may be −1.

        Raises RuntimeError where the strides do not allow it. Looking at the bytes as another dtype is not
        supported.
        """
        if dtype is None and len(shape) == 1 and isinstance(shape[0], DType):
            (dtype,) = shape
        if dtype is not None:
            if dtype is self.dtype:
                return view(self, movement.RESHAPE, (), self.shape, self.strides)
            raise NotImplementedError(
                f"view({dtype}) of a tensor of {self.dtype}: memory is not reinterpreted as another dtype "
                f"here; use .to({dtype}) to convert the values, or .numpy().view(...) for the bytes")
        if not shape:
            raise TypeError(
                "view() received no size; give a shape such as view(-1), view(2, 3) or view((2, 3))")
        return look(self, ways.viewed(self._type, self._strides, sizes(shape)))

    def view_as(self, other: TensorBase) -> Tensor:
        return self.view(tuple(other.shape))

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements under another shape: a view where strides allow it, else a copy."""
        wanted = sizes(shape)
        way = ways.reshaped(self._type, self._strides, wanted)
        if way is not None:
            return look(self, way)
        return apply_typed(movement.RESHAPE, infer_view_size(wanted, prod(self.shape)), self.dtype, self)

    def reshape_as(self, other: TensorBase) -> Tensor:
        return self.reshape(tuple(other.shape))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim … end_dim (both included) as one; a 0-d tensor gets one axis."""
        rank = len(self.shape)
        first, last = normalize_axis(start_dim, rank), normalize_axis(end_dim, rank)
        if first > last:
            raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
        if rank and first == last:
            return self  # type: ignore[return-value]
        shape = tuple(self.shape)
        return self.reshape((*shape[:first], prod(shape[first:last + 1]), *shape[last + 1:]))

    def ravel(self) -> Tensor:
        return self.reshape(-1)

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """One axis as several, one of which may be −1."""
        axis = normalize_axis(dim, len(self.shape))
        if not sizes:
            raise RuntimeError("unflatten: sizes must be non-empty")
        shape = tuple(self.shape)
        given = [whole(size) for size in sizes]
        if -1 not in given and prod(given) != shape[axis]:
            raise RuntimeError(
                f"unflatten: Provided sizes {given} don't multiply up to the size of dim {axis} "
                f"({shape[axis]}) in the input tensor")
        wanted = infer_view_size(given, shape[axis])
        return self.view((*shape[:axis], *wanted, *shape[axis + 1:]))

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Without axes of size 1: all of them, or those of `dim` that have it."""
        rank = len(self.shape)
        if dim is None:
            axes = set(range(rank))
        else:
            given = [dim] if isinstance(dim, int) else list(dim)
            found = [normalize_axis(axis, rank) for axis in given]
            if len(set(found)) != len(found):
                raise RuntimeError(f"squeeze: a dim appears multiple times in the list of dims {given}")
            axes = set(found)
        kept = [axis for axis in range(rank) if axis not in axes or self.shape[axis] != 1]
        shape, strides = [self.shape[a] for a in kept], [self.strides[a] for a in kept]
        return view(self, movement.RESHAPE, (), shape, strides)

    def unsqueeze(self, dim: int) -> Tensor:
        """With an axis of size 1 put in at `dim`."""
        return look(self, ways.unsqueezed(self._type, self._strides, dim))

    # Order of axes ------------------------------------------------------------------------------------------
    def permute(self, *dims: Any) -> Tensor:
        return look(self, ways.permuted(self._type, self._strides, sizes(dims)))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        return look(self, ways.transposed(self._type, self._strides, dim0, dim1))

    def swapaxes(self, axis0: int, axis1: int) -> Tensor:
        return self.transpose(axis0, axis1)

    def swapdims(self, dim0: int, dim1: int) -> Tensor:
        return self.transpose(dim0, dim1)

    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        return self.permute(_moved(len(self.shape), source, destination) if self.shape else ())

    def moveaxis(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        return self.movedim(source, destination)

    def t(self) -> Tensor:
        """A matrix transposed; a vector or scalar as it is."""
        rank = len(self.shape)
        if rank > 2:
            raise RuntimeError(
                f"t() expects a tensor with <= 2 dimensions, but self is {rank}D; use transpose(dim0, dim1) "
                "or .mT")
        return self.permute(*reversed(range(rank)))

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return self.permute(*reversed(range(len(self.shape))))

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped."""
        if len(self.shape) < 2:
            raise RuntimeError(
                f"tensor.mT is only supported on matrices or batches of matrices. Got {len(self.shape)}-D "
                "tensor.")
        return self.transpose(-2, -1)

    @property
    def H(self) -> Tensor:
        """A matrix transposed (there are no complex numbers to conjugate)."""
        if len(self.shape) not in (0, 2):
            raise RuntimeError(
                f"tensor.H is only supported on matrices (2-D tensors). Got {len(self.shape)}-D tensor. "
                "For batches of matrices, consider using tensor.mH")
        return self.t()

    @property
    def mH(self) -> Tensor:
        return self.mT

    # Repetition ---------------------------------------------------------------------------------------------
    def expand(self, *size: Any) -> Tensor:
        """Axes of size 1 repeated, without copying; −1 keeps a size."""
        return look(self, ways.expanded(self._type, self._strides, sizes(size)))

    def expand_as(self, other: TensorBase) -> Tensor:
        return self.expand(tuple(other.shape))

    def broadcast_to(self, size: Sequence[int]) -> Tensor:
        return self.expand(tuple(size))

    # Parts of an axis ---------------------------------------------------------------------------------------
    def sliced(self, axis: int, start: int, stop: int, step: int) -> Tensor:
        """self[..., start:stop:step, ...] along one axis, with 0 ≤ start and a positive step."""
        return look(self, ways.sliced(self._type, self._strides, axis, start, stop, step))

    def selected(self, axis: int, index: int) -> Tensor:
        """self[..., index, ...]: one place of an axis, which vanishes."""
        return look(self, ways.selected(self._type, self._strides, axis, index))

    def _axis(self, dim: int, name: str) -> int:
        """An axis to take apart; a 0-d tensor has none."""
        if not self.shape:
            raise IndexError(f"{name}() cannot be applied to a 0-dim tensor.")
        return normalize_axis(dim, len(self.shape))

    def select(self, dim: int, index: int) -> Tensor:
        """One place of an axis, which vanishes; IndexError if there is no such place."""
        return self.selected(self._axis(dim, "select"), whole(index))

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """`length` places of an axis from `start` on."""
        if not self.shape:
            raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
        axis = self._axis(dim, "narrow")
        start, length, size = whole(start), whole(length), self.shape[axis]
        if length < 0:
            raise RuntimeError(f"narrow(): length must be non-negative, got {length}")
        if not -size <= start <= size:
            raise IndexError(
                f"start out of range (expected to be in range of [{-size}, {size}], but got {start})")
        start = start + size if start < 0 else start
        if start + length > size:
            raise RuntimeError(
                f"start ({start}) + length ({length}) exceeds dimension size ({size}) of axis {axis}")
        return self.sliced(axis, start, start + length, 1)

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """A view of a diagonal of two axes, as a new last axis."""
        rank = len(self.shape)
        first, second = normalize_axis(dim1, rank), normalize_axis(dim2, rank)
        if first == second:
            raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
        rows, columns = self.shape[first], self.shape[second]
        length = max(0, min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns))
        kept = [axis for axis in range(rank) if axis not in (first, second)]
        if length and 0 in (self.strides[first], self.strides[second]):
            return self._repeated_diagonal(first, second, max(offset, 0), max(-offset, 0), length)
        flat = self.permute(*kept, first, second)
        lead, strides = [self.shape[a] for a in kept], [self.strides[a] for a in kept]
        # As values, not as memory, the two axes can always be merged; then a diagonal is a slice.
        flat = view(flat, movement.RESHAPE, (), [*lead, rows * columns], [*strides, 1])
        start = (offset if offset >= 0 else -offset * columns) if length else 0
        away = offset * self.strides[second] if offset >= 0 else -offset * self.strides[first]
        if not length:
            away = 0
        return view(flat, movement.SLICE, ((len(kept),), (columns + 1,)), [*lead, length],
                    [*strides, self.strides[first] + self.strides[second]], away, (start,))

    def _repeated_diagonal(self, first: int, second: int, column: int, row: int, length: int) -> Tensor:
        """A diagonal from (row, column) on where the places of one of its axes, or of both, are all the same."""
        if self.strides[second]:
            first, second, row = second, first, column
        if self.shape[first] > 1 and not self.strides[first]:
            one = self.selected(max(first, second), 0).selected(min(first, second), 0)
            return one.unsqueeze(-1).expand(*one.shape, length)
        left = self.selected(second, 0)
        axis = first - (second < first)
        return left.sliced(axis, row, row + length, 1).movedim(axis, -1)

    def unfold(self, dimension: int, size: int, step: int) -> Tensor:
        """Windows of `size` places, `step` apart, along one axis; the places of a window become a new last
        axis.

        Windows that overlap can be read only.
        """
        rank = len(self.shape)
        axis = normalize_axis(dimension, rank)
        extent, stride = (self.shape[axis], self.strides[axis]) if rank else (1, 1)
        if not 0 <= size <= extent:
            raise RuntimeError(f"maximum size for tensor at dimension {axis} is {extent} but size is {size}")
        if step <= 0:
            raise RuntimeError(f"step is {step} but must be > 0")
        count = (extent - size) // step + 1
        if not rank:
            return self.unsqueeze(0).sliced(0, 0, size, 1)
        lead, strides = list(self.shape), list(self.strides)
        if not stride and extent > 1:
            return self.sliced(axis, 0, 1, 1).unsqueeze(-1).expand(*lead[:axis], count, *lead[axis + 1:], size)
        if size == 1:
            apart = self.sliced(axis, 0, extent, step)
            return view(apart, movement.RESHAPE, (), [*apart.shape, 1], [*apart.strides, stride])
        if count * step <= extent and size <= step:
            # Side by side: the windows are the axis split in two.
            parts = self.sliced(axis, 0, count * step, 1).unflatten(axis, (count, step)).sliced(axis + 1, 0, size, 1)
            return parts.movedim(axis + 1, -1)
        wide = view(self, movement.RESHAPE, (), [*lead, 1], [*strides, stride])
        wide = view(wide, movement.EXPAND, (), [*lead, size], [*strides, stride])
        lead[axis], strides[axis] = count, stride * step
        shape = (*lead, size)
        return view(wide, movement.WINDOW, ((axis, rank, step, 1, 0),), shape, [*strides, stride], 0, (0,))

    # Memory -------------------------------------------------------------------------------------------------
    def clone(self) -> Tensor:
        """A copy with history, always row-major."""
        return apply_typed(movement.ALIAS, tuple(self.shape), self.dtype, self)

    def contiguous(self, memory_format: memory_format | None = None) -> Tensor:
        """The tensor itself if its strides are row-major, else a copy that is. UnsupportedError for other formats."""
        check_format(memory_format)
        return self if self.is_contiguous() else self.clone()  # type: ignore[return-value]

    def is_contiguous(self, memory_format: memory_format | None = None) -> bool:
        """Whether the strides are row-major, or those of another format."""
        if memory_format in (channels_last, channels_last_3d):
            rank = 4 if memory_format is channels_last else 5
            if len(self.shape) != rank:
                return False
            order = [0, *range(2, rank), 1]
            return is_contiguous(tuple(self.shape[k] for k in order), tuple(self.strides[k] for k in order))
        return is_contiguous(self.shape, self.strides)

    def stride(self, dim: int | None = None) -> Any:
        """Strides in elements: all of them, or one axis's."""
        if dim is None:
            return tuple(self.strides)
        return self.strides[self._axis(dim, "stride")]

    def storage_offset(self) -> int:
        """Where in its storage the first element lies, in elements."""
        return self._offset


# Functions --------------------------------------------------------------------------------------------------
def reshape(input: TensorBase, shape: Sequence[int]) -> Tensor:
    """`input.reshape(shape)`."""
    return input.reshape(tuple(shape))  # type: ignore[attr-defined]


def permute(input: TensorBase, dims: Sequence[int]) -> Tensor:
    """`input.permute(dims)`."""
    return input.permute(tuple(dims))  # type: ignore[attr-defined]


def broadcast_shapes(*shapes: int | Sequence[int]) -> Shape:
    """The shape that the given shapes broadcast to; RuntimeError where they do not."""
    return broadcast([(shape,) if isinstance(shape, int) else tuple(shape) for shape in shapes] or [()])


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Every tensor expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    shape = broadcast([tuple(t.shape) for t in tensors])
    return tuple(t.expand(shape) for t in tensors)


broadcast_to = as_function(Movement.broadcast_to)
clone = as_function(Movement.clone)
diagonal = as_function(Movement.diagonal)
flatten = as_function(Movement.flatten)
moveaxis = as_function(Movement.moveaxis)
movedim = as_function(Movement.movedim)
narrow = as_function(Movement.narrow)
ravel = as_function(Movement.ravel)
select = as_function(Movement.select)
squeeze = as_function(Movement.squeeze)
swapaxes = as_function(Movement.swapaxes)
swapdims = as_function(Movement.swapdims)
t = as_function(Movement.t)
transpose = as_function(Movement.transpose)
unflatten = as_function(Movement.unflatten)
unsqueeze = as_function(Movement.unsqueeze)

FUNCTIONS = (
    "broadcast_shapes", "broadcast_tensors", "broadcast_to", "clone", "diagonal", "flatten", "moveaxis",
    "movedim", "narrow", "permute", "ravel", "reshape", "select", "squeeze", "swapaxes", "swapdims", "t",
    "transpose", "unflatten", "unsqueeze")
"""Names that the package offers as functions."""

__all__ = ["TYPES", "Movement", "as_function", "look", "prod", "sizes", "view", *FUNCTIONS]
