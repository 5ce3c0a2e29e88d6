"""Comparisons, logic, bits, and choosing between values."""

from __future__ import annotations

import warnings
from math import inf
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.dtypes import Category, DType
from torturous.ir import elementwise as ops
from torturous.ir.op import Op
from torturous.tensor.applying import apply
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.movement import as_function
from torturous.tensor.paths import unrepeated
from torturous.tensor.recording import (
    binary,
    cast,
    combine,
    modifying,
    reflected,
    tensor_operand,
    unary,
    with_number_first,
)
from torturous.tensor.values import computed_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def truth(t: TensorBase) -> Tensor:
    """Whether each element is not zero."""
    if t.dtype.category is Category.BOOL:
        return t  # type: ignore[return-value]
    return binary(ops.NE, t, 0)


def _logical(name: str, op: Op, a: TensorBase, b: TensorBase) -> Tensor:
    return binary(op, truth(a), truth(tensor_operand(name, "other", 2, b)))


def _filling(number: Number, dtype: DType) -> Number:
    """A number as an element of a tensor of this dtype, so that it has no say in the result's type."""
    if dtype.is_floating_point:
        return float(number)
    return bool(number) if dtype.category is Category.BOOL else int(number)


class Comparison(TensorBase):
    """Comparisons and logic, as operators and as methods."""

    __slots__ = ()

    # Operators ----------------------------------------------------------------------------------------------
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

    def __invert__(self) -> Tensor:
        return unary(ops.BITWISE_NOT, self)

    def __and__(self, other: Any) -> Tensor:
        return binary(ops.BITWISE_AND, self, other)

    def __or__(self, other: Any) -> Tensor:
        return binary(ops.BITWISE_OR, self, other)

    def __xor__(self, other: Any) -> Tensor:
        return binary(ops.BITWISE_XOR, self, other)

    def __lshift__(self, other: Any) -> Tensor:
        return binary(ops.SHIFT_LEFT, self, other)

    def __rshift__(self, other: Any) -> Tensor:
        return binary(ops.SHIFT_RIGHT, self, other)

    def __rlshift__(self, other: Any) -> Tensor:
        return reflected(ops.SHIFT_LEFT, other, self)

    def __rrshift__(self, other: Any) -> Tensor:
        return reflected(ops.SHIFT_RIGHT, other, self)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    # Comparisons --------------------------------------------------------------------------------------------
    def eq(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.EQ, self, other)

    def ne(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.NE, self, other)

    def lt(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.LT, self, other)

    def le(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.LE, self, other)

    def gt(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.GT, self, other)

    def ge(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.GE, self, other)

    def isnan(self) -> Tensor:
        return unary(ops.ISNAN, self)

    def isinf(self) -> Tensor:
        if not self.dtype.is_floating_point:
            return binary(ops.NE, self, self)
        return binary(ops.EQ, unary(ops.ABS, self), inf)

    def isfinite(self) -> Tensor:
        if not self.dtype.is_floating_point:
            return binary(ops.EQ, self, self)
        return binary(ops.LT, unary(ops.ABS, self), inf)

    def isclose(
        self, other: TensorBase, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> Tensor:
        """Where |self − other| ≤ atol + rtol · |other|, or they are equal. RuntimeError where dtypes
        differ."""
        tensor_operand("isclose", "other", 2, other)
        if self.dtype is not other.dtype:
            raise RuntimeError(f"{ops.scalar_name(self.dtype)} did not match {ops.scalar_name(other.dtype)}")
        if rtol < 0 or atol < 0:
            which, value = ("rtol", rtol) if rtol < 0 else ("atol", atol)
            raise RuntimeError(f"{which} must be greater than or equal to zero, but got {value}")
        close = binary(ops.EQ, self, other)
        if equal_nan and self.dtype.is_floating_point:
            close = close | (self.isnan() & unary(ops.ISNAN, other))
        if rtol == 0 and atol == 0:
            return close
        # Truth values are subtracted as numbers.
        a, b = (cast(t, dtypes.uint8) if t.dtype is dtypes.bool_ else t for t in (self, other))
        distance: Any = unary(ops.ABS, binary(ops.SUB, a, b))
        allowed: Any = unary(ops.ABS, binary(ops.MUL, b, rtol))
        return close | (distance.isfinite() & (distance <= allowed + atol))

    def allclose(
        self, other: TensorBase, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> bool:
        """Whether `isclose` holds everywhere."""
        return bool(computed_values(self.isclose(other, rtol, atol, equal_nan)).all())

    def equal(self, other: TensorBase) -> bool:
        """Whether shapes and all elements are equal."""
        tensor_operand("equal", "other", 2, other)
        return self.shape == other.shape and bool(computed_values(binary(ops.EQ, self, other)).all())

    # Logic and bits -----------------------------------------------------------------------------------------
    def logical_and(self, other: TensorBase) -> Tensor:
        return _logical("logical_and", ops.BITWISE_AND, self, other)

    def logical_or(self, other: TensorBase) -> Tensor:
        return _logical("logical_or", ops.BITWISE_OR, self, other)

    def logical_xor(self, other: TensorBase) -> Tensor:
        return _logical("logical_xor", ops.BITWISE_XOR, self, other)

    def logical_not(self) -> Tensor:
        return unary(ops.LOGICAL_NOT, self)

    def bitwise_and(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.BITWISE_AND, self, other)

    def bitwise_or(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.BITWISE_OR, self, other)

    def bitwise_xor(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.BITWISE_XOR, self, other)

    def bitwise_not(self) -> Tensor:
        if self.dtype.is_floating_point:
            raise NotImplementedError(
                f"\"bitwise_not_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'"
            )
        return unary(ops.BITWISE_NOT, self)

    def bitwise_left_shift(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.SHIFT_LEFT, self, other)

    def bitwise_right_shift(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.SHIFT_RIGHT, self, other)

    # Choosing -----------------------------------------------------------------------------------------------
    def where(self, condition: TensorBase, other: TensorBase | Number) -> Tensor:
        """self where the condition holds, else other."""
        return where(condition, self, other)

    def masked_fill(self, mask: TensorBase, value: TensorBase | Number) -> Tensor:
        """`value`, a number or a 0-d tensor, where the mask is true, else self; the dtype stays self's."""
        tensor_operand("masked_fill", "mask", 2, mask)
        if mask.dtype is not dtypes.bool_:
            raise RuntimeError(
                f"masked_fill_ only supports boolean masks, but got mask with dtype {mask.dtype.name}"
            )
        if not isinstance(value, TensorBase):
            return apply(ops.WHERE, mask, _filling(value, self.dtype), self)
        if value.shape:
            raise RuntimeError(
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{len(value.shape)} dimension(s).")
        return apply(ops.WHERE, mask, cast(value, self.dtype), self)

    def masked_fill_(self, mask: TensorBase, value: TensorBase | Number) -> Tensor:
        """The same in place. Of an expanded tensor, a place in memory is filled that the mask meets anywhere."""
        if not self._repeats() or not isinstance(mask, TensorBase) or mask.dtype is not dtypes.bool_:
            return _masked_fill(self, mask, value)
        narrow = unrepeated(self)
        repeated = tuple(axis for axis, size in enumerate(self.shape) if narrow.shape[axis] != size)
        met = mask.expand(tuple(self.shape)).any(repeated, True)  # type: ignore[attr-defined]
        _masked_fill(narrow, met, value)
        return self  # type: ignore[return-value]

    eq_, ne_, lt_, le_, gt_, ge_ = map(modifying, (eq, ne, lt, le, gt, ge))
    logical_and_, logical_or_, logical_xor_ = (
        modifying(logical_and),
        modifying(logical_or),
        modifying(logical_xor),
    )
    logical_not_ = modifying(logical_not)
    bitwise_and_, bitwise_or_, bitwise_xor_ = (
        modifying(bitwise_and),
        modifying(bitwise_or),
        modifying(bitwise_xor),
    )
    bitwise_not_ = modifying(bitwise_not)
    bitwise_left_shift_, bitwise_right_shift_ = modifying(bitwise_left_shift), modifying(bitwise_right_shift)
    __iand__, __ior__, __ixor__ = bitwise_and_, bitwise_or_, bitwise_xor_
    __ilshift__, __irshift__ = bitwise_left_shift_, bitwise_right_shift_
    greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne


_masked_fill = modifying(Comparison.masked_fill)


def where(condition: TensorBase, input: Any = None, other: Any = None) -> Any:
    """input where the condition holds, else other; either may be a number.

    With the condition alone, the positions where it holds, as `nonzero(as_tuple=True)` gives them.
    RuntimeError where the condition is not bool.
    """
    tensor_operand("where", "condition", 1, condition)
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)  # type: ignore[attr-defined]
    if condition.dtype is dtypes.uint8:
        warnings.warn("where received a uint8 condition tensor; use a bool tensor instead.", stacklevel=2)
        condition = truth(condition)
    if condition.dtype is not dtypes.bool_:
        raise RuntimeError(
            "where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{ops.scalar_name(condition.dtype)}")
    for position, (name, value) in enumerate((("input", input), ("other", other))):
        if not isinstance(value, (TensorBase, int, float)):
            raise TypeError(
                f"where(): argument '{name}' (position {position + 2}) must be Tensor or Number, not "
                f"{type(value).__name__}")
    return apply(ops.WHERE, condition, input, other)


allclose = as_function(Comparison.allclose)
bitwise_and = with_number_first(Comparison.bitwise_and, ops.BITWISE_AND)
bitwise_left_shift = with_number_first(Comparison.bitwise_left_shift, ops.SHIFT_LEFT)
bitwise_not = as_function(Comparison.bitwise_not)
bitwise_or = with_number_first(Comparison.bitwise_or, ops.BITWISE_OR)
bitwise_right_shift = with_number_first(Comparison.bitwise_right_shift, ops.SHIFT_RIGHT)
bitwise_xor = with_number_first(Comparison.bitwise_xor, ops.BITWISE_XOR)
eq = as_function(Comparison.eq)
equal = as_function(Comparison.equal)
ge = greater_equal = as_function(Comparison.ge)
gt = greater = as_function(Comparison.gt)
isclose = as_function(Comparison.isclose)
isfinite = as_function(Comparison.isfinite)
isinf = as_function(Comparison.isinf)
isnan = as_function(Comparison.isnan)
le = less_equal = as_function(Comparison.le)
logical_and = as_function(Comparison.logical_and)
logical_not = as_function(Comparison.logical_not)
logical_or = as_function(Comparison.logical_or)
logical_xor = as_function(Comparison.logical_xor)
lt = less = as_function(Comparison.lt)
masked_fill = as_function(Comparison.masked_fill)
ne = not_equal = as_function(Comparison.ne)

__all__ = [
    "allclose", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "equal", "ge", "greater", "greater_equal", "gt", "isclose", "isfinite", "isinf",
    "isnan", "le", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt",
    "masked_fill", "ne", "not_equal", "where",
]
