"""Views: other ways of looking at the same memory.

A view is its base's storage and a chain of movement ops; strides and offset are what PyTorch would report, and what an
exported NumPy view uses. Everything here is linear and moves elements only, so gradients need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from torturous.core.shapes import Shape, contiguous_strides, infer_view_size, view_strides
from torturous.ir import movement
from torturous.ir.op import TYPES, Attributes, Op, type_number
from torturous.ir.record import context, user_place
from torturous.tensor.base import Step, TensorBase
from torturous.tensor.paths import extended

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def view(t: TensorBase, op: Op, attributes: Attributes, shape: Sequence[int], strides: Sequence[int],
         offset: int = 0, starts: Sequence[int] = ()) -> Tensor:
    """A tensor that looks at t's memory through one more movement op."""
    return look(t, [Step(op, attributes, type_number(tuple(shape), t.dtype), starts)], strides, offset)


def look(t: TensorBase, steps: Sequence[Step], strides: Sequence[int], offset: int) -> Tensor:
    """The same through several: strides are those of the last, the offset is how far they move in all."""
    index = t.row()  # Enters the base in the present grad mode.
    record, place = context.record, user_place()
    tracking = record.tracking
    for step in steps:
        operands = [index, *map(record.slot, step.starts)]
        index = record.apply_typed(step.op, step.attributes, step.type_index, operands, place, tracking)
    result = TensorBase._make(t.storage, steps[-1].type_index)
    result.base = t.base if t.base is not None else t
    result.steps = extended(t, steps)
    result._strides = tuple(strides)
    result._offset = t._offset + offset
    # A leaf that requires gradients may have been made of a detached tensor (a Parameter always is).
    result._detached = (t._detached and not t._requires_grad) or (not tracking and result.base._requires_grad)
    result._unseen = t._unseen
    result._record, result._index, result._seen = record, index, t._seen
    return result


@lru_cache(1 << 12)
def reshaping(type_index: int, strides: Shape | None, shape: tuple[int, ...]) -> tuple[Step, Shape]:
    """The step to another shape, with the strides there; None stands for those of row-major memory."""
    before, dtype = TYPES[type_index]
    wanted = infer_view_size(shape, prod(before))
    strides = contiguous_strides(before) if strides is None else strides
    after = view_strides(before, strides, wanted)
    if after is None:
        raise RuntimeError(
            f"view size {list(wanted)} is not compatible with input tensor's size {list(before)} and "
            f"stride {list(strides)} (at least one dimension spans across two contiguous "
            "subspaces). Use .reshape(...) instead.")
    return Step(movement.RESHAPE, (), type_number(tuple(wanted), dtype)), after
