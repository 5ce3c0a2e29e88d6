"""Views: other ways of looking at the same memory.

A view is its base's storage and a chain of movement ops; strides and offset are what PyTorch would report, and what an
exported NumPy view uses. Everything here is linear and moves elements only, so gradients need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torturous.ir.op import Attributes, Op
from torturous.ir.record import context, user_place
from torturous.tensor.base import TensorBase
from torturous.tensor.paths import extended
from torturous.tensor.ways import Way, through

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def view(t: TensorBase, op: Op, attributes: Attributes, shape: Sequence[int], strides: Sequence[int],
         offset: int = 0, starts: Sequence[int] = ()) -> Tensor:
    """A tensor that looks at t's memory through one more movement op."""
    return look(t, through(op, attributes, shape, t.dtype, strides, offset, starts))


def look(t: TensorBase, way: Way) -> Tensor:
    """A tensor that looks at t's memory in another way."""
    steps, strides, offset = way
    index = t.row()  # Enters the base in the present grad mode.
    record, place = context.record, user_place()
    tracking = record.tracking
    for step in steps:
        operands = [index, *map(record.slot, step.starts)] if step.starts else (index,)
        index = record.apply_typed(step.op, step.attributes, step.type_index, operands, place, tracking)
    storage = t._storage
    result = TensorBase._make(t.storage if storage is None else storage, steps[-1].type_index)
    base = result.base = t if t.base is None else t.base
    result.steps = extended(t, steps)
    result._strides = strides
    if offset or t._offset:
        result._offset = t._offset + offset
    # A leaf that requires gradients may have been made of a detached tensor (a Parameter always is).
    if (t._detached and not t._requires_grad) or (base._requires_grad and not tracking):
        result._detached = True
    if t._unseen:
        result._unseen = True
    result._record, result._index, result._seen = record, index, t._seen
    return result
