"""Views: other ways of looking at the same memory, and the movement operations that make them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.core.shapes import infer_view_size, normalize_axis, view_strides
from torturous.ir import movement
from torturous.ir.op import TYPES, Attributes, Op, type_number
from torturous.ir.record import context, user_place
from torturous.tensor.base import Step, TensorBase, apply_typed, wrap

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def view(t: TensorBase, op: Op, attributes: Attributes, shape: Sequence[int], strides: Sequence[int],
         offset: int = 0, starts: Sequence[int] = ()) -> Tensor:
    """A tensor that looks at t's memory through one more movement op."""
    shape = tuple(shape)
    step = Step(op, attributes, type_number(shape, t.dtype), starts)
    source = t.row()  # Enters the base in the present grad mode.
    record = context.record
    operands = [source, *map(record.slot, starts)]
    index = record.apply_typed(op, attributes, step.type_index, operands, user_place(), context.tracking)
    result = TensorBase._make(t.storage, step.type_index)
    result.base = t.base if t.base is not None else t
    result.steps = (*t.steps, step)
    result._strides = tuple(strides)
    result._offset = t._offset + offset
    result._detached = t._detached or (not context.tracking and result.base._requires_grad)
    result._record, result._index, result._version = record, index, t.storage.version
    return result


def sizes(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """`view(2, 3)` and `view((2, 3))` alike."""
    if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)):
        return tuple(int(size) for size in arguments[0])
    return tuple(int(size) for size in arguments)


class Movement(TensorBase):
    """Methods that move elements without computing."""

    __slots__ = ()

    def view(self, *shape: Any) -> Tensor:
        """The same memory under another shape; RuntimeError where strides do not allow it."""
        wanted = infer_view_size(sizes(shape), self.shape.numel())  # type: ignore[attr-defined]
        strides = view_strides(self.shape, self.strides, wanted)
        if strides is None:
            raise RuntimeError(
                f"view size {list(wanted)} is not compatible with input tensor's size {list(self.shape)} and stride "
                f"{list(self.strides)} (at least one dimension spans across two contiguous subspaces). "
                "Use .reshape(...) instead.")
        return view(self, movement.RESHAPE, (), wanted, strides)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements under another shape: a view where strides allow it, else a copy."""
        wanted = infer_view_size(sizes(shape), self.shape.numel())  # type: ignore[attr-defined]
        strides = view_strides(self.shape, self.strides, wanted)
        if strides is not None:
            return view(self, movement.RESHAPE, (), wanted, strides)
        return apply_typed(movement.RESHAPE, wanted, self.dtype, self)

    def permute(self, *order: Any) -> Tensor:
        rank = len(self.shape)
        axes = tuple(normalize_axis(axis, rank) for axis in sizes(order))
        if sorted(axes) != list(range(rank)):
            raise RuntimeError(f"permute(dims): {list(axes)} is not an order of the {rank} axes of the tensor")
        return view(self, movement.PERMUTE, axes, [self.shape[a] for a in axes], [self.strides[a] for a in axes])

    def transpose(self, first: int, second: int) -> Tensor:
        rank = len(self.shape)
        first, second = normalize_axis(first, rank), normalize_axis(second, rank)
        order = list(range(rank))
        if rank:
            order[first], order[second] = order[second], order[first]
        return self.permute(order)

    def expand(self, *shape: Any) -> Tensor:
        """Axes of size 1 repeated, without copying; −1 keeps a size."""
        wanted = list(sizes(shape))
        lead = len(wanted) - len(self.shape)
        if lead < 0:
            raise RuntimeError(
                f"expand({list(self.shape)}, size={wanted}): the number of sizes provided ({len(wanted)}) must be "
                f"greater or equal to the number of dimensions in the tensor ({len(self.shape)})")
        strides = [0] * lead
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides, strict=True)):
            if wanted[lead + axis] == -1:
                wanted[lead + axis] = size
            if wanted[lead + axis] != size and size != 1:
                raise RuntimeError(
                    f"The expanded size of the tensor ({wanted[lead + axis]}) must match the existing size ({size}) "
                    f"at non-singleton dimension {lead + axis}. Target sizes: {wanted}. Tensor sizes: "
                    f"{list(self.shape)}")
            strides.append(stride if wanted[lead + axis] == size else 0)
        return view(self, movement.EXPAND, (), wanted, strides)

    def unsqueeze(self, axis: int) -> Tensor:
        axis = normalize_axis(axis, len(self.shape) + 1)
        shape, strides = list(self.shape), list(self.strides)
        stride = shape[axis] * strides[axis] if axis < len(shape) else 1
        shape.insert(axis, 1)
        strides.insert(axis, stride)
        return view(self, movement.RESHAPE, (), shape, strides)

    def sliced(self, axis: int, start: int, stop: int, step: int) -> Tensor:
        """self[..., start:stop:step, ...] along one axis, with 0 ≤ start and a positive step."""
        length = max(0, -(-(stop - start) // step))
        shape, strides = list(self.shape), list(self.strides)
        offset = start * strides[axis] if length else 0
        shape[axis] = length
        strides[axis] *= step
        return view(self, movement.SLICE, ((axis,), (step,)), shape, strides, offset, (start if length else 0,))

    def selected(self, axis: int, index: int) -> Tensor:
        """self[..., index, ...]: one place of an axis, which vanishes."""
        size = self.shape[axis]
        if not -size <= index < size:
            raise IndexError(
                f"index {index} is out of bounds for dimension {axis} with size {size} (shape {list(self.shape)})")
        part = self.sliced(axis, index % size, index % size + 1, 1)
        shape, strides = list(part.shape), list(part.strides)
        del shape[axis], strides[axis]
        return view(part, movement.RESHAPE, (), shape, strides)

    def clone(self) -> Tensor:
        return apply_typed(movement.ALIAS, tuple(self.shape), self.dtype, self)

    def contiguous(self) -> Tensor:
        """The tensor itself if its strides are row-major, else a copy that is."""
        if self.is_contiguous():
            return self  # type: ignore[return-value]
        return self.clone()

    def is_contiguous(self) -> bool:
        from torturous.core.shapes import is_contiguous

        return is_contiguous(self.shape, self.strides)


__all__ = ["Movement", "TYPES", "prod", "sizes", "view", "wrap"]
