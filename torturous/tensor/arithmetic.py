"""Elementwise operations on tensors: operators, functions, comparisons, and their in-place forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torturous.core.dtypes import Category, DType
from torturous.ir import elementwise as ops
from torturous.ir.op import TYPES, Op
from torturous.ir.record import context, number_category, user_place
from torturous.tensor.base import Number, TensorBase, apply, apply_typed, wrap

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def binary(op: Op, a: TensorBase, b: TensorBase | Number) -> Tensor:
    """Records an op of two operands: the path that small programs spend their time on."""
    i = a.row()
    if isinstance(b, TensorBase):
        j = b.row()
        record = context.record
        if a._record is not record:  # Entering b realized what a was entered into.
            i = a.row()
    elif isinstance(b, (int, float)):
        record = context.record
        j = record.slot(b)
    else:
        return NotImplemented
    return wrap(record, record.apply(op, (), (i, j), user_place(), context.tracking))


def unary(op: Op, a: TensorBase) -> Tensor:
    i = a.row()
    record = context.record
    return wrap(record, record.apply(op, (), (i,), user_place(), context.tracking))


def cast(t: TensorBase, dtype: DType) -> Tensor:
    """The tensor in another dtype; itself if it has it already."""
    if t.dtype is dtype:
        return t  # type: ignore[return-value]
    return apply_typed(ops.CAST, tuple(t.shape), dtype, t)


def in_place(op: Op, t: TensorBase, *operands: Any) -> Tensor:
    """t becomes op(t, operands), in its own dtype and shape."""
    t._writable()
    place = user_place()
    t._came_round(place)
    index = t._enter(writing=True) if t.storage.pending and t.storage.record is context.record else t.row()
    rows = [o.row() if isinstance(o, TensorBase) else o for o in operands]
    record = context.record
    if t._record is not record:
        index = t.row()
    codes = [index, *[r if isinstance(o, TensorBase) else record.slot(r) for r, o in zip(rows, operands, strict=True)]]
    value = record.apply(op, (), codes, place, context.tracking)
    write_value(t, value, op.name)
    return t  # type: ignore[return-value]


def write_value(t: TensorBase, value: int, name: str) -> None:
    """Writes a recorded value into t, cast and broadcast to what t is; raises as PyTorch does where it cannot."""
    record, place = context.record, user_place()
    shape, dtype = TYPES[record.rows[value][2]]
    mine = TYPES[t._type]
    if shape != mine.shape:
        from_rank = len(mine.shape) - len(shape)
        if from_rank < 0 or any(a not in (1, b) for a, b in zip(shape, mine.shape[from_rank:], strict=True)):
            raise RuntimeError(
                f"output with shape {list(mine.shape)} doesn't match the broadcast shape {list(shape)} ({name}_)")
    if dtype is not mine.dtype:
        if dtype.category > mine.dtype.category:
            raise RuntimeError(
                f"result type {_scalar_name(dtype)} can't be cast to the desired output type {_scalar_name(mine.dtype)}")
        value = record.apply_typed(ops.CAST, (), _typed(shape, mine.dtype), [value], place, context.tracking)
    if shape != mine.shape:
        from torturous.ir.movement import EXPAND

        value = record.apply_typed(EXPAND, (), t._type, [value], place, context.tracking)
    t._write(value, place)


def _typed(shape: tuple[int, ...], dtype: DType) -> int:
    from torturous.ir.op import type_number

    return type_number(shape, dtype)


def _scalar_name(dtype: DType) -> str:
    return {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16", "int64": "Long",
            "int32": "Int", "uint8": "Byte", "bool": "Bool"}[dtype.name]


class Arithmetic(TensorBase):
    """Operators and elementwise methods."""

    __slots__ = ()

    def __add__(self, other: Any) -> Tensor:
        return binary(ops.ADD, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return binary(ops.ADD, self, other)

    def __sub__(self, other: Any) -> Tensor:
        return binary(ops.SUB, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(ops.SUB, other, self)

    def __mul__(self, other: Any) -> Tensor:
        return binary(ops.MUL, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return binary(ops.MUL, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return binary(ops.DIV, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(ops.DIV, other, self)

    def __neg__(self) -> Tensor:
        return unary(ops.NEG, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return self.pow(exponent)

    def pow(self, exponent: TensorBase | Number) -> Tensor:
        """self to a power. Small integer exponents are structural: they become products."""
        if isinstance(exponent, (int, float)) and not isinstance(exponent, bool):
            if exponent == 2:
                return binary(ops.MUL, self, self)
            if exponent == 3:
                return binary(ops.MUL, binary(ops.MUL, self, self), self)
            if exponent == 0.5 and self.dtype.is_floating_point:
                return unary(ops.SQRT, self)
            if exponent == 1:
                return binary(ops.MUL, self, 1)
        return binary(ops.POW, self, exponent)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary(ops.EQ, self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary(ops.NE, self, other)  # type: ignore[arg-type]

    def __lt__(self, other: Any) -> Tensor:
        return binary(ops.LT, self, other)

    def __le__(self, other: Any) -> Tensor:
        return binary(ops.LE, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return binary(ops.GT, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return binary(ops.GE, self, other)

    def __hash__(self) -> int:
        return id(self)

    def exp(self) -> Tensor:
        return unary(ops.EXP, self)

    def log(self) -> Tensor:
        return unary(ops.LOG, self)

    def tanh(self) -> Tensor:
        return unary(ops.TANH, self)

    def relu(self) -> Tensor:
        return unary(ops.RELU, self)

    def add_(self, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
        """self += alpha · other."""
        if alpha != 1:
            other = binary(ops.MUL, other, alpha) if isinstance(other, TensorBase) else other * alpha
        return in_place(ops.ADD, self, other)

    def mul_(self, other: TensorBase | Number) -> Tensor:
        return in_place(ops.MUL, self, other)

    __iadd__ = add_
    __imul__ = mul_


__all__ = ["Arithmetic", "Category", "binary", "cast", "in_place", "number_category", "unary", "write_value"]
