"""Loops over tensors: how a body traced once is recorded as one row of the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torturous.ir.body import Traced
from torturous.ir.loop import record_loop
from torturous.ir.op import TYPES, Type
from torturous.ir.record import context, user_place
from torturous.ir.value import Value
from torturous.tensor.applying import enter, wrap_all
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Tensors = Sequence[TensorBase]


def type_of(t: TensorBase) -> Type:
    return TYPES[t._type]


def slice_type(t: TensorBase) -> Type:
    """The type of what one step reads of a stacked operand."""
    shape, dtype = TYPES[t._type]
    return Type(shape[1:], dtype)


def loop(
    traced: Traced, carried: Tensors, stacked: Tensors, fixed: Tensors, reverse: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Carried values after the last step, and what the steps have stacked: see `ir.loop`."""
    operands = [*carried, *stacked, *fixed]
    record, rows = enter(operands)
    place, tracking = user_place(), context.tracking
    values = [Value(record, row, place, tracking) for row in rows]
    numbers = [values[0].slot(number) for number in traced.numbers]
    steps = TYPES[stacked[0]._type].shape[0]
    first, last = len(carried), len(carried) + len(stacked)
    finals, stacks = record_loop(
        traced.body, steps, numbers, values[:first], values[first:last], values[last:], reverse)
    results = wrap_all(record, [value.index for value in (*finals, *stacks)])
    return results[:len(finals)], results[len(finals):]
