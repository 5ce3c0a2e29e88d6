"""Recording elementwise operations, and writing their results in place: what every family of operations
uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core.dtypes import DType
from torturous.ir import creation, movement
from torturous.ir import elementwise as ops
from torturous.ir.op import TYPES, Op, type_number
from torturous.ir.record import context, user_place
from torturous.tensor.applying import apply, apply_typed, record_binary, wrap
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.movement import as_function
from torturous.tensor.paths import unrepeated

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# Recording --------------------------------------------------------------------------------------------------
def binary(op: Op, a: TensorBase, b: TensorBase | Number) -> Tensor:
    """Records an op of two operands: the path that small programs spend their time on.

    NotImplemented where b is neither a tensor nor a number, for Python to try b's own operator.
    """
    if isinstance(b, TensorBase):
        return record_binary(op, a, b)
    i = a.row()
    record = context.record
    if isinstance(b, (int, float)):
        j = record.slot(b)
    elif isinstance(b, np.generic) and isinstance(b.item(), (int, float)):
        return binary(op, a, b.item())
    else:
        return NotImplemented
    record.apply(op, (), (i, j), user_place(), record.tracking)
    return wrap(record)


def unary(op: Op, a: TensorBase) -> Tensor:
    """Records an op of one operand."""
    i = a.row()
    record = context.record
    record.apply(op, (), (i,), user_place(), record.tracking)
    return wrap(record)


def combine(op: Op, a: TensorBase, b: TensorBase | Number) -> Tensor:
    """`binary` for methods: TypeError where b is neither a tensor nor a number."""
    result = binary(op, a, b)
    if result is NotImplemented:
        raise TypeError(
            f"{op.name}(): argument 'other' (position 2) must be Tensor or Number, not {type(b).__name__}")
    return result


def reflected(op: Op, number: Any, t: TensorBase) -> Any:
    """op(number, t) for a Python operator whose left operand is a number."""
    if isinstance(number, np.generic):
        number = number.item()
    return apply(op, number, t) if isinstance(number, (int, float)) else NotImplemented


def tensor_operand(name: str, argument: str, position: int, value: Any) -> TensorBase:
    """The value, if it is a tensor; else PyTorch's TypeError."""
    if not isinstance(value, TensorBase):
        raise TypeError(
            f"{name}(): argument '{argument}' (position {position}) must be Tensor, not "
            f"{type(value).__name__}"
        )
    return value


def cast(t: TensorBase, dtype: DType) -> Tensor:
    """The tensor in another dtype; itself if it has it already."""
    if t.dtype is dtype:
        return t  # type: ignore[return-value]
    return apply_typed(ops.CAST, tuple(t.shape), dtype, t)


# Writing in place -------------------------------------------------------------------------------------------
def begin_write(t: TensorBase) -> None:
    """Checks that t may be written, and enters its present version as what the write reads."""
    t._writable()
    t._came_round(user_place())
    if t.storage.pending and t.storage.record is context.record:
        t._enter(writing=True)


def in_place(op: Op, t: TensorBase, *operands: Any) -> Tensor:
    """t becomes op(t, operands), in its own dtype and shape."""
    for operand in operands:
        if not isinstance(operand, (TensorBase, int, float)):
            raise TypeError(
                f"{op.name}_(): an operand must be Tensor or Number, not {type(operand).__name__}"
            )
    begin_write(t)
    index = t.row()
    rows = [o.row() if isinstance(o, TensorBase) else o for o in operands]
    record = context.record
    if t._record is not record:
        index = t.row()
    codes = [
        index,
        *[r if isinstance(o, TensorBase) else record.slot(r) for r, o in zip(rows, operands, strict=True)],
    ]
    value = record.apply(op, (), codes, user_place(), context.tracking)
    write_value(t, value, op.name)
    return t  # type: ignore[return-value]


def modifying(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place form of a method: `exp_ = modifying(exp)` writes the result into the tensor and returns
    it."""

    @wraps(method)
    def write(self: TensorBase, *arguments: Any, **named: Any) -> Tensor:
        begin_write(self)
        record, before = context.record, len(context.record)
        result = method(self, *arguments, **named)
        value = result.row()
        if record is context.record and value >= before and result.base is None and result is not self:
            record.owners.pop(value, None)  # Nobody else has seen the result: its row can be t's own.
        write_value(self, value, method.__name__)
        return self  # type: ignore[return-value]

    write.__name__ += "_"
    write.__qualname__ += "_"
    return write


def write_value(t: TensorBase, value: int, name: str, replaces: bool = False) -> None:
    """Writes a recorded value into t, cast and broadcast to what t is; raises as PyTorch does where it
    cannot. `replaces` says that it has nothing of what t was before."""
    record, place = context.record, user_place()
    shape, dtype = TYPES[record.last(value).type_index]
    mine = TYPES[t._type]
    if shape != mine.shape:
        lead = len(mine.shape) - len(shape)
        if lead < 0 or any(a not in (1, b) for a, b in zip(shape, mine.shape[lead:], strict=True)):
            raise RuntimeError(
                f"output with shape {list(mine.shape)} doesn't match the broadcast shape {list(shape)} "
                f"({name}_)"
            )
    if dtype is not mine.dtype:
        if dtype.category > mine.dtype.category:
            raise RuntimeError(
                f"result type {ops.scalar_name(dtype)} can't be cast to the desired output type "
                f"{ops.scalar_name(mine.dtype)} ({name}_)")
        number = type_number(shape, mine.dtype)
        value = record.apply_typed(ops.CAST, (), number, [value], place, context.tracking)
    if shape != mine.shape:
        value = record.apply_typed(movement.EXPAND, (), t._type, [value], place, context.tracking)
    t._write(_with_history(t, value) if replaces else value, place)


def _with_history(t: TensorBase, value: int) -> int:
    """A row that replaces t's value, with t's history all the same: its gradients are zero."""
    if not context.tracking or not t._tracked() or not all(step.op in _WHOLE for step in t.steps):
        return value
    return context.record.apply_typed(movement.INSERT, ((), ()), t._type, [t.row(), value], user_place(), True)


_WHOLE = (movement.RESHAPE, movement.PERMUTE)
"""Steps that leave out nothing."""


def fill(t: TensorBase, number: Number) -> Tensor:
    """Every element of t becomes a number, converted to t's dtype.

    An expanded tensor may be filled, since all that share a place get the same.
    """
    if t._repeats():
        fill(unrepeated(t), number)
        return t  # type: ignore[return-value]
    begin_write(t)
    record, place = context.record, user_place()
    value = record.apply_typed(creation.FULL, (), t._type, [record.slot(number)], place, False)
    t._write(_with_history(t, value), place)
    return t  # type: ignore[return-value]


# Functions --------------------------------------------------------------------------------------------------
def with_number_first(method: Callable[..., Any], op: Op) -> Callable[..., Any]:
    """The same for an operation of two operands, either of which may be a number."""
    of_tensors = as_function(method)

    @wraps(method)
    def function(input: TensorBase | Number, other: TensorBase | Number, **named: Any) -> Any:
        if isinstance(input, (int, float)) and isinstance(other, TensorBase) and not named:
            return apply(op, input, other)
        return of_tensors(input, other, **named)

    return function


__all__ = [
    "as_function",
    "begin_write",
    "binary",
    "cast",
    "combine",
    "fill",
    "in_place",
    "modifying",
    "reflected",
    "tensor_operand",
    "unary",
    "with_number_first",
    "write_value",
]
