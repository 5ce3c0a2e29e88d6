"""Arithmetic on tensors: sums, products, quotients, powers, rounding, bounds.

Types of results follow PyTorch's promotion and are worked out by the ops (`ir/elementwise.py`), which also
raise the errors about them. Operands broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core.dtypes import Category
from torturous.ir import elementwise as ops
from torturous.ir.op import TYPES, Op
from torturous.ir.record import number_category
from torturous.tensor.applying import apply, operator
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.movement import as_function
from torturous.tensor.recording import (
    begin_write,
    binary,
    cast,
    combine,
    fill,
    in_place,
    modifying,
    reflected,
    tensor_operand,
    unary,
    with_number_first,
    write_value,
)
from torturous.tensor.values import known_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# Checks -----------------------------------------------------------------------------------------------------
def _divisor_not_zero(a: TensorBase | Number, b: TensorBase | Number) -> None:
    """Raises for a division of integers by a zero that can be seen without computing anything."""
    for operand in (a, b):
        floating = (
            operand.dtype.is_floating_point if isinstance(operand, TensorBase) else isinstance(operand, float)
        )
        if floating:
            return
    values = known_values(b) if isinstance(b, TensorBase) else np.asarray(b)
    if values is not None and not values.all():
        raise RuntimeError("ZeroDivisionError: integers cannot be divided by zero")


def _bounded(op: Op, t: TensorBase, bound: TensorBase | Number) -> Tensor:
    if isinstance(bound, bool) and t.dtype.category is Category.BOOL:
        raise NotImplementedError(
            f"\"{op.name}_scalar_cpu\" not implemented for 'Bool'; give a bool tensor as the bound"
        )
    return combine(op, t, bound)


class Arithmetic(TensorBase):
    """Operators and methods of arithmetic."""

    __slots__ = ()

    # Operators ----------------------------------------------------------------------------------------------
    __add__ = operator(ops.ADD, binary)

    def __radd__(self, other: Any) -> Tensor:
        return binary(ops.ADD, self, other)

    __sub__ = operator(ops.SUB, binary)

    def __rsub__(self, other: Any) -> Tensor:
        return reflected(ops.SUB, other, self)

    __mul__ = operator(ops.MUL, binary)

    def __rmul__(self, other: Any) -> Tensor:
        return binary(ops.MUL, self, other)

    __truediv__ = operator(ops.DIV, binary)

    def __rtruediv__(self, other: Any) -> Tensor:
        """The reciprocal times `other`, as PyTorch computes it: only the reciprocal is kept for the
        gradient."""
        return binary(ops.MUL, unary(ops.RECIPROCAL, self), other)

    def __floordiv__(self, other: Any) -> Tensor:
        return self.floor_divide(other) if isinstance(other, (TensorBase, int, float)) else NotImplemented

    def __rfloordiv__(self, other: Any) -> Tensor:
        _divisor_not_zero(other, self)
        return reflected(ops.FLOOR_DIVIDE, other, self)

    def __mod__(self, other: Any) -> Tensor:
        return self.remainder(other) if isinstance(other, (TensorBase, int, float)) else NotImplemented

    def __rmod__(self, other: Any) -> Tensor:
        _divisor_not_zero(other, self)
        return reflected(ops.REMAINDER, other, self)

    def __pow__(self, exponent: Any) -> Tensor:
        return self.pow(exponent) if isinstance(exponent, (TensorBase, int, float)) else NotImplemented

    def __rpow__(self, base: Any) -> Tensor:
        return reflected(ops.POW, base, self)

    def __neg__(self) -> Tensor:
        return unary(ops.NEG, self)

    def __pos__(self) -> Tensor:
        return self.positive()

    def __abs__(self) -> Tensor:
        return unary(ops.ABS, self)

    # Sums and products --------------------------------------------------------------------------------------
    def add(self, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
        """self + alpha · other."""
        return combine(ops.ADD, self, self._scaled(other, alpha))

    def sub(self, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
        """self − alpha · other; RuntimeError for bool."""
        return combine(ops.SUB, self, self._scaled(other, alpha))

    def _scaled(self, other: Any, alpha: Number) -> Any:
        """alpha · other, in the type of the sum with self."""
        if type(alpha) is int and alpha == 1:
            return other
        if not isinstance(other, (TensorBase, int, float)):
            return other
        theirs = TYPES[other._type] if isinstance(other, TensorBase) else number_category(other)
        common = ops.common_type([TYPES[self._type], theirs])
        if isinstance(alpha, bool) and common.category is not Category.BOOL:
            raise RuntimeError("Boolean alpha only supported for Boolean results.")
        if isinstance(alpha, float) and not common.is_floating_point:
            raise RuntimeError(
                "For integral input tensors, argument alpha must not be a floating point number."
            )
        if not isinstance(other, TensorBase):
            return other * alpha
        return binary(ops.MUL, cast(other, common), alpha)

    def mul(self, other: TensorBase | Number) -> Tensor:
        return combine(ops.MUL, self, other)

    def add_(self, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
        """self += alpha · other."""
        return in_place(ops.ADD, self, self._scaled(other, alpha))

    def sub_(self, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
        """self −= alpha · other."""
        return in_place(ops.SUB, self, self._scaled(other, alpha))

    def mul_(self, other: TensorBase | Number) -> Tensor:
        return in_place(ops.MUL, self, other)

    def addcmul(self, tensor1: TensorBase, tensor2: TensorBase, *, value: Number = 1) -> Tensor:
        """self + value · tensor1 · tensor2, all in their common type."""
        return self._with_quotient_or_product("addcmul", ops.MUL, tensor1, tensor2, value)

    def addcdiv(self, tensor1: TensorBase, tensor2: TensorBase, *, value: Number = 1) -> Tensor:
        """self + value · tensor1 / tensor2, all in their common type; RuntimeError for two integer tensors."""
        if not (tensor1.dtype.is_floating_point or tensor2.dtype.is_floating_point):
            raise RuntimeError(
                "Integer division with addcdiv is no longer supported; convert tensor1 or tensor2 with "
                ".float() first"
            )
        return self._with_quotient_or_product("addcdiv", ops.DIV, tensor1, tensor2, value)

    def _with_quotient_or_product(self, name: str, op: Op, tensor1: Any, tensor2: Any, value: Number) -> Tensor:
        operands = [self, tensor_operand(name, "tensor1", 2, tensor1), tensor_operand(name, "tensor2", 3, tensor2)]
        common = ops.common_type([TYPES[each._type] for each in operands])
        if common.category is Category.BOOL:
            raise NotImplementedError(f"\"{name}_cpu_out\" not implemented for 'Bool'")
        here, first, second = (cast(each, common) for each in operands)
        term = combine(op, first, second)
        if common.category is Category.INTEGRAL:
            value = int(value)  # As PyTorch does, without a word.
        return combine(ops.ADD, here, term if type(value) is int and value == 1 else term.mul(value))

    def lerp(self, end: TensorBase, weight: TensorBase | Number) -> Tensor:
        """self + weight · (end − self), computed from the nearer end. RuntimeError where dtypes differ."""
        for name, operand in (("end", tensor_operand("lerp", "end", 2, end)), ("weight", weight)):
            if isinstance(operand, TensorBase) and operand.dtype is not self.dtype:
                raise RuntimeError(
                    f"expected dtype {self.dtype.name} for `{name}` but got dtype {operand.dtype.name}"
                )
        span: Any = combine(ops.SUB, end, self)
        if isinstance(weight, TensorBase):
            near, far = self + span * weight, end - span * (1 - weight)  # type: ignore[operator]
            return apply(ops.WHERE, binary(ops.LT, unary(ops.ABS, weight), 0.5), near, far)
        return self + span * weight if -0.5 < weight < 0.5 else binary(ops.SUB, end, span * (1 - weight))

    # Quotients ----------------------------------------------------------------------------------------------
    def div(self, other: TensorBase | Number, *, rounding_mode: str | None = None) -> Tensor:
        """self / other: exact for None, rounded toward zero for "trunc", toward −∞ for "floor".

        Without rounding, integers give the default floating type; integers divided by zero raise
        RuntimeError.
        """
        if rounding_mode is None:
            return combine(ops.DIV, self, other)
        if rounding_mode not in ("trunc", "floor"):
            raise RuntimeError(
                "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
                f"'{rounding_mode}'"
            )
        _divisor_not_zero(self, other)
        return combine(ops.TRUNC_DIVIDE if rounding_mode == "trunc" else ops.FLOOR_DIVIDE, self, other)

    def floor_divide(self, other: TensorBase | Number) -> Tensor:
        return self.div(other, rounding_mode="floor")

    def true_divide(self, other: TensorBase | Number) -> Tensor:
        return self.div(other)

    def remainder(self, other: TensorBase | Number) -> Tensor:
        """self − other · ⌊self / other⌋, with other's sign, as Python's %."""
        _divisor_not_zero(self, other)
        return combine(ops.REMAINDER, self, other)

    def fmod(self, other: TensorBase | Number) -> Tensor:
        """The rest of the division toward zero, with self's sign."""
        _divisor_not_zero(self, other)
        return combine(ops.FMOD, self, other)

    def div_(self, other: TensorBase | Number, *, rounding_mode: str | None = None) -> Tensor:
        if rounding_mode is None:
            return in_place(ops.DIV, self, other)
        return self._divided(other, rounding_mode=rounding_mode)

    def reciprocal(self) -> Tensor:
        return unary(ops.RECIPROCAL, self)

    # Powers -------------------------------------------------------------------------------------------------
    def pow(self, exponent: TensorBase | Number) -> Tensor:
        """self to a power. The exponents ±1, 2, 3 and ±½ are structural: they become products and roots.

        RuntimeError for a negative integer exponent of an integer tensor.
        """
        if not isinstance(exponent, (int, float)):
            return combine(ops.POW, self, exponent)
        if isinstance(exponent, int) and exponent < 0 and not self.dtype.is_floating_point:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        base: Any = self
        if number_category(exponent) > self.dtype.category:
            base = cast(self, ops.common_type([TYPES[self._type], number_category(exponent)]))
        if exponent == 1:
            return binary(ops.MUL, base, True)
        if exponent == 2:
            return binary(ops.MUL, base, base)
        if exponent == 3:
            return binary(ops.MUL, binary(ops.MUL, base, base), base)
        if exponent in _ROOTS:
            return unary(_ROOTS[exponent], base)
        return binary(ops.POW, base, exponent)

    def square(self) -> Tensor:
        return self.pow(2)

    # Signs and rounding -------------------------------------------------------------------------------------
    def neg(self) -> Tensor:
        return unary(ops.NEG, self)

    def positive(self) -> Tensor:
        """The tensor itself; RuntimeError for bool."""
        if self.dtype.category is Category.BOOL:
            raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
        return self  # type: ignore[return-value]

    def abs(self) -> Tensor:
        return unary(ops.ABS, self)

    def sign(self) -> Tensor:
        """−1, 0 or 1."""
        return unary(ops.SIGN, self)

    def floor(self) -> Tensor:
        return unary(ops.FLOOR, self)

    def ceil(self) -> Tensor:
        return unary(ops.CEIL, self)

    def trunc(self) -> Tensor:
        return unary(ops.TRUNC, self)

    def round(self, *, decimals: int = 0) -> Tensor:
        """To the nearest multiple of 10^−decimals, ties to even."""
        if decimals == 0:
            return unary(ops.ROUND, self)
        if not self.dtype.is_floating_point:
            raise NotImplementedError(f"\"round_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'")
        scale = float(10 ** (decimals if decimals > 0 else -decimals))
        if decimals > 0:
            return binary(ops.DIV, unary(ops.ROUND, binary(ops.MUL, self, scale)), scale)
        return binary(ops.MUL, unary(ops.ROUND, binary(ops.DIV, self, scale)), scale)

    def frac(self) -> Tensor:
        """self − trunc(self); floating types only."""
        if not self.dtype.is_floating_point:
            raise NotImplementedError(f"\"frac_cpu\" not implemented for '{ops.scalar_name(self.dtype)}'")
        return binary(ops.SUB, self, unary(ops.TRUNC, self))

    # Bounds -------------------------------------------------------------------------------------------------
    def maximum(self, other: TensorBase) -> Tensor:
        """The larger of the two, NaN if either is."""
        return binary(ops.MAXIMUM, self, tensor_operand("maximum", "other", 2, other))

    def minimum(self, other: TensorBase) -> Tensor:
        """The smaller of the two, NaN if either is."""
        return binary(ops.MINIMUM, self, tensor_operand("minimum", "other", 2, other))

    def clamp(self, min: TensorBase | Number | None = None, max: TensorBase | Number | None = None) -> Tensor:
        """Elements moved up to min and down to max (max wins); RuntimeError where both are None."""
        if min is None and max is None:
            raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
        result: Any = self
        if min is not None:
            result = _bounded(ops.CLAMP_MIN, result, min)
        return result if max is None else _bounded(ops.CLAMP_MAX, result, max)

    def clamp_min(self, min: TensorBase | Number) -> Tensor:
        return _bounded(ops.CLAMP_MIN, self, min)

    def clamp_max(self, max: TensorBase | Number) -> Tensor:
        return _bounded(ops.CLAMP_MAX, self, max)

    # In place and under other names -------------------------------------------------------------------------
    def zero_(self) -> Tensor:
        return fill(self, 0)

    def fill_(self, value: TensorBase | Number) -> Tensor:
        """Every element becomes `value`, a number or a 0-d tensor."""
        if not isinstance(value, TensorBase):
            return fill(self, value)
        if value.shape:
            raise RuntimeError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{len(value.shape)} dimensions."
            )
        return self.copy_(value)

    def copy_(self, src: TensorBase, non_blocking: bool = False) -> Tensor:
        """self becomes src, broadcast and converted. Nothing here is copied in the background."""
        tensor_operand("copy_", "other", 1, src)
        if src is self:
            self._changeable()
            return self  # type: ignore[return-value]
        begin_write(self)
        write_value(self, cast(src, self.dtype).row(), "copy", replaces=True)
        return self  # type: ignore[return-value]

    _divided = modifying(div)
    floor_divide_ = modifying(floor_divide)
    true_divide_ = modifying(true_divide)
    remainder_, fmod_ = modifying(remainder), modifying(fmod)
    addcmul_, addcdiv_, lerp_ = modifying(addcmul), modifying(addcdiv), modifying(lerp)
    pow_, square_, reciprocal_ = modifying(pow), modifying(square), modifying(reciprocal)
    neg_, abs_, sign_ = modifying(neg), modifying(abs), modifying(sign)
    floor_, ceil_, trunc_ = modifying(floor), modifying(ceil), modifying(trunc)
    round_, frac_ = modifying(round), modifying(frac)
    clamp_, clamp_min_, clamp_max_ = modifying(clamp), modifying(clamp_min), modifying(clamp_max)

    subtract, multiply, divide, negative, absolute, clip, fix, sgn = (
        sub,
        mul,
        div,
        neg,
        abs,
        clamp,
        trunc,
        sign,
    )
    subtract_, multiply_, divide_, negative_, absolute_ = sub_, mul_, div_, neg_, abs_
    clip_, fix_, sgn_ = clamp_, trunc_, sign_
    __iadd__, __isub__, __imul__, __itruediv__ = add_, sub_, mul_, div_
    __ifloordiv__, __imod__, __ipow__ = floor_divide_, remainder_, pow_


_ROOTS = {0.5: ops.SQRT, -0.5: ops.RSQRT, -1: ops.RECIPROCAL}


# Functions --------------------------------------------------------------------------------------------------
def pow(input: TensorBase | Number, exponent: TensorBase | Number) -> Tensor:
    """input to a power; either may be a number."""
    if isinstance(input, (int, float)) and isinstance(exponent, TensorBase):
        return apply(ops.POW, input, exponent)
    return Arithmetic.pow(tensor_operand("pow", "input", 1, input), exponent)  # type: ignore[arg-type]


def rsub(input: TensorBase, other: TensorBase | Number, *, alpha: Number = 1) -> Tensor:
    """other − alpha · input."""
    scaled = input if type(alpha) is int and alpha == 1 else combine(ops.MUL, input, alpha)
    return apply(ops.SUB, other, scaled)


add = with_number_first(Arithmetic.add, ops.ADD)
sub = subtract = with_number_first(Arithmetic.sub, ops.SUB)
mul = multiply = with_number_first(Arithmetic.mul, ops.MUL)
div = divide = with_number_first(Arithmetic.div, ops.DIV)
true_divide = with_number_first(Arithmetic.true_divide, ops.DIV)
floor_divide = with_number_first(Arithmetic.floor_divide, ops.FLOOR_DIVIDE)
remainder = with_number_first(Arithmetic.remainder, ops.REMAINDER)
abs = absolute = as_function(Arithmetic.abs)
addcdiv = as_function(Arithmetic.addcdiv)
addcmul = as_function(Arithmetic.addcmul)
ceil = as_function(Arithmetic.ceil)
clamp = clip = as_function(Arithmetic.clamp)
clamp_max = as_function(Arithmetic.clamp_max)
clamp_min = as_function(Arithmetic.clamp_min)
floor = as_function(Arithmetic.floor)
fmod = as_function(Arithmetic.fmod)
frac = as_function(Arithmetic.frac)
lerp = as_function(Arithmetic.lerp)
maximum = as_function(Arithmetic.maximum)
minimum = as_function(Arithmetic.minimum)
neg = negative = as_function(Arithmetic.neg)
positive = as_function(Arithmetic.positive)
reciprocal = as_function(Arithmetic.reciprocal)
round = as_function(Arithmetic.round)
sign = sgn = as_function(Arithmetic.sign)
square = as_function(Arithmetic.square)
trunc = fix = as_function(Arithmetic.trunc)

__all__ = [
    "abs", "absolute", "add", "addcdiv", "addcmul", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "div",
    "divide", "fix", "floor", "floor_divide", "fmod", "frac", "lerp", "maximum", "minimum", "mul", "multiply",
    "neg", "negative", "positive", "pow", "reciprocal", "remainder", "round", "rsub", "sgn", "sign", "square",
    "sub", "subtract", "true_divide", "trunc",
]
