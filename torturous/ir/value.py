"""A row seen as an operand: the language in which gradient rules and macro expansions are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir import creation, elementwise, movement, reduction
from torturous.ir.op import Attributes, Op, Type, type_number
from torturous.ir.record import Place, Record

Number = bool | int | float


class Value:
    """One row (or slot) of a record, with operators that record further rows beside it.

    Rules know nothing of tensors. An operand may be a Value or a Python number, which becomes a slot.
    """

    __slots__ = ("record", "index", "place", "tracking")

    def __init__(self, record: Record, index: int, place: Place, tracking: bool) -> None:
        self.record = record
        self.index = index
        self.place = place
        self.tracking = tracking

    @property
    def type(self) -> Type:
        return self.record.type_of(self.index)

    @property
    def shape(self) -> Shape:
        return self.record.type_of(self.index).shape

    @property
    def dtype(self) -> DType:
        return self.record.type_of(self.index).dtype

    def _like(self, index: int) -> Value:
        return Value(self.record, index, self.place, self.tracking)

    def _operand(self, other: Value | Number) -> int:
        if type(other) is Value:
            return other.index
        if not isinstance(other, (int, float)):
            raise TypeError(f"{type(other).__name__} has no value here: the op whose rule reads it does not save it")
        return self.record.slot(other)

    def apply(self, op: Op, *others: Value | Number, attributes: Attributes = ()) -> Value:
        """Records an op with this value as its first operand."""
        operands = (self.index, *map(self._operand, others))
        return self._like(self.record.apply(op, attributes, operands, self.place, self.tracking))

    def apply_typed(
        self, op: Op, shape: Shape, dtype: DType, *others: Value | Number, attributes: Attributes = ()
    ) -> Value:
        """The same for an op whose result type the caller knows."""
        operands = (self.index, *map(self._operand, others))
        number = type_number(shape, dtype)
        return self._like(self.record.apply_typed(op, attributes, number, operands, self.place, self.tracking))

    # Arithmetic
    # ------------------------------------------------------------------------------------------------
    def __add__(self, other: Value | Number) -> Value:
        return self.apply(elementwise.ADD, other)

    def __sub__(self, other: Value | Number) -> Value:
        return self.apply(elementwise.SUB, other)

    def __mul__(self, other: Value | Number) -> Value:
        return self.apply(elementwise.MUL, other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self.apply(elementwise.DIV, other)

    def __radd__(self, other: Number) -> Value:
        return self._like(self.record.slot(other)).apply(elementwise.ADD, self)

    def __rsub__(self, other: Number) -> Value:
        return self._like(self.record.slot(other)).apply(elementwise.SUB, self)

    def __rmul__(self, other: Number) -> Value:
        return self._like(self.record.slot(other)).apply(elementwise.MUL, self)

    def __rtruediv__(self, other: Number) -> Value:
        return self._like(self.record.slot(other)).apply(elementwise.DIV, self)

    def __neg__(self) -> Value:
        return self.apply(elementwise.NEG)

    def __getattr__(self, name: str) -> Any:
        """Every elementwise op by its name: `x.exp()`, `x.maximum(y)`, `condition.where(a, b)`."""
        op = _methods.get(name)
        if op is None:
            raise AttributeError(name)
        return lambda *others: self.apply(op, *others)

    def to(self, dtype: DType) -> Value:
        if self.dtype is dtype:
            return self
        return self.apply_typed(elementwise.CAST, self.shape, dtype)

    # Movement
    # --------------------------------------------------------------------------------------------------
    def reshape(self, shape: Shape) -> Value:
        if self.shape == shape:
            return self
        return self.apply_typed(movement.RESHAPE, shape, self.dtype)

    def permute(self, order: Sequence[int]) -> Value:
        return self.apply(movement.PERMUTE, attributes=tuple(order))

    def expand(self, shape: Shape) -> Value:
        if self.shape == shape:
            return self
        return self.apply_typed(movement.EXPAND, shape, self.dtype)

    def flip(self, axes: Sequence[int]) -> Value:
        return self.apply(movement.FLIP, attributes=tuple(axes))

    def slice(self, shape: Shape, axes: Sequence[int], steps: Sequence[int], starts: Sequence[Value | Number]) -> Value:
        at = (tuple(axes), tuple(steps))
        return self.apply_typed(movement.SLICE, shape, self.dtype, *starts, attributes=at)

    def part(self, axis: int, which: int, count: int) -> Value:
        """One of `count` equal parts along an axis."""
        return self.apply(movement.PART, attributes=(axis, which, count))

    def concatenate(self, axis: int, *others: Value) -> Value:
        return self.apply(movement.CONCATENATE, *others, attributes=(axis,))

    def pad(
        self, shape: Shape, fill: Value | Number, axes: Sequence[int], steps: Sequence[int],
        starts: Sequence[Value | Number],
    ) -> Value:
        at = (tuple(axes), tuple(steps))
        return self.apply_typed(movement.PAD, shape, self.dtype, fill, *starts, attributes=at)

    def insert(self, x: Value, axes: Sequence[int], steps: Sequence[int], starts: Sequence[Value | Number]) -> Value:
        at = (tuple(axes), tuple(steps))
        return self.apply_typed(movement.INSERT, self.shape, self.dtype, x, *starts, attributes=at)

    def window(self, shape: Shape, windows: Attributes, fill: Value | Number) -> Value:
        return self.apply_typed(movement.WINDOW, shape, self.dtype, fill, attributes=windows)

    def unwindow(self, shape: Shape, windows: Attributes, fill: Value | Number) -> Value:
        return self.apply_typed(movement.UNWINDOW, shape, self.dtype, fill, attributes=windows)

    # Reduction
    # -------------------------------------------------------------------------------------------------
    def reduce(self, op: Op, axes: Sequence[int], keep: bool) -> Value:
        return self.apply(op, attributes=(tuple(axes), keep))

    def sum(self, axes: Sequence[int], keep: bool = False) -> Value:
        return self.reduce(reduction.SUM, axes, keep)

    def amax(self, axes: Sequence[int], keep: bool = False) -> Value:
        return self.reduce(reduction.AMAX, axes, keep)

    def prod(self, axes: Sequence[int], keep: bool = False) -> Value:
        return self.reduce(reduction.PROD, axes, keep)

    def sum_to(self, shape: Shape) -> Value:
        """Sums over whatever broadcasting from `shape` has repeated."""
        mine = self.shape
        if mine == shape:
            return self
        lead = len(mine) - len(shape)
        axes = [axis for axis in range(len(mine)) if axis < lead or (shape[axis - lead] == 1 and mine[axis] != 1)]
        total = self.sum(axes) if axes else self
        return total.reshape(shape)

    # Creation
    # --------------------------------------------------------------------------------------------------
    def full(self, shape: Shape, dtype: DType, fill: Number) -> Value:
        return self.slot(fill).apply_typed(creation.FULL, shape, dtype)

    def beside(self, other: Any) -> Value:
        """This value; a slot as a 0-d value of the type the other computes in, for ops between two of
        them."""
        if self.index >= 0:
            return self
        return self.apply_typed(creation.FULL, (), dtypes.float32 if other.dtype.is_half else other.dtype)

    def zeros(self) -> Value:
        """Zeros like this value."""
        return self.full(self.shape, self.dtype, 0)

    def iota(self, count: int, dtype: DType) -> Value:
        return self.slot(0).apply_typed(creation.IOTA, (count,), dtype, 1)

    def slot(self, number: Number) -> Value:
        return self._like(self.record.slot(number))


class Typed:
    """An operand of which a gradient rule may read only the type, because the op does not save it."""

    __slots__ = ("shape", "dtype", "record")

    def __init__(self, record: Record, kind: Type) -> None:
        self.record = record
        self.shape, self.dtype = kind

    def zeros(self) -> Value:
        """Zeros of this type."""
        return Value(self.record, -1, None, False).full(self.shape, self.dtype, 0)


_methods = {op.name: op for op in vars(elementwise).values() if isinstance(op, Op)}
