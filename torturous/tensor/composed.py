"""Elementwise functions made of others: each is a few rows that become one kernel with what is around it."""

from __future__ import annotations

from math import copysign as copysign_of_number
from math import log, pi
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.ir import elementwise as ops
from torturous.ir.op import Type
from torturous.tensor.applying import apply
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.movement import as_function
from torturous.tensor.recording import binary, cast, combine, modifying, tensor_operand
from torturous.tensor.types import finfo

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _floating(t: Any) -> Any:
    """A tensor as floating numbers: itself, or in the default floating type."""
    return t if t.dtype.is_floating_point else cast(t, dtypes.default_float())


def _where(condition: Any, a: Any, b: Any) -> Any:
    return apply(ops.WHERE, condition, a, b)


def _pair(name: str, a: TensorBase, b: Any) -> tuple[Any, Any]:
    """Two tensors in the type that they have in common."""
    kinds = [Type(tuple(t.shape), t.dtype) for t in (a, tensor_operand(name, "other", 2, b))]
    common = ops.common_type(kinds)
    return cast(a, common), cast(b, common)


def _refuse_whole(name: str, *operands: Any) -> None:
    for t in operands:
        if not t.dtype.is_floating_point:
            raise NotImplementedError(
                f"\"{name}\" not implemented for '{ops.scalar_name(t.dtype)}'; convert with .float() first")


class Composed(TensorBase):
    """Methods that are functions of each element, made of others."""

    __slots__ = ()

    # Angles -------------------------------------------------------------------------------------------------
    def deg2rad(self) -> Tensor:
        """Degrees as radians."""
        return binary(ops.MUL, _floating(self), pi / 180)

    def rad2deg(self) -> Tensor:
        """Radians as degrees."""
        return binary(ops.MUL, _floating(self), 180 / pi)

    def angle(self) -> Tensor:
        """π for negative numbers, else 0; NaN for NaN."""
        x = _floating(self)
        return _where(x.isnan(), x, cast(x < 0, x.dtype) * pi)

    def hypot(self, other: TensorBase) -> Tensor:
        """√(self² + other²) without overflow; floating types only."""
        a, b = _pair("hypot", self, other)
        _refuse_whole("hypot_cpu", a)
        a, b = a.abs(), b.abs()
        longer, shorter = a.maximum(b), a.minimum(b)
        usual = (longer > 0) & (longer < float("inf"))
        ratio = shorter / _where(usual, longer, 1.0)
        length = _where(usual, longer * (ratio * ratio + 1.0).sqrt(), longer)
        return _where((a == float("inf")) | (b == float("inf")), float("inf"), length)

    def sinc(self) -> Tensor:
        """sin(π·self)/(π·self), 1 at 0."""
        x = _floating(self)
        zero = x == 0
        turned = _where(zero, 1.0, x) * pi
        return _where(zero, 1.0, turned.sin() / turned)

    # Signs --------------------------------------------------------------------------------------------------
    def signbit(self) -> Tensor:
        """Whether elements are negative, −0 included."""
        x: Any = self
        if not self.dtype.is_floating_point:
            return x < 0
        return (x < 0) | ((x == 0) & (x.detach().reciprocal() < 0))

    def copysign(self, other: TensorBase | Number) -> Tensor:
        """self with the sign of other, of its zeros too."""
        if not isinstance(other, TensorBase):
            size = _floating(self).abs()
            return -size if copysign_of_number(1.0, other) < 0 else size
        given, sign = _pair("copysign", self, other)
        size = _floating(given).abs()
        return _where(sign.signbit(), -size, size)

    def heaviside(self, values: TensorBase) -> Tensor:
        """0 where self is negative, 1 where positive, `values` where 0. RuntimeError where dtypes differ."""
        x: Any = self
        if tensor_operand("heaviside", "values", 2, values).dtype is not x.dtype:
            raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")
        return _where(x == 0, values, cast(x > 0, x.dtype))

    # What is not finite -------------------------------------------------------------------------------------
    def isposinf(self) -> Tensor:
        return binary(ops.EQ, self, float("inf")) if self.dtype.is_floating_point else binary(ops.NE, self, self)

    def isneginf(self) -> Tensor:
        return binary(ops.EQ, self, float("-inf")) if self.dtype.is_floating_point else binary(ops.NE, self, self)

    def isreal(self) -> Tensor:
        """Whether elements are real numbers: all are."""
        return self.new_ones(self.shape, dtype=dtypes.bool_)  # type: ignore[attr-defined]

    def nan_to_num(self, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """With numbers in place of NaN (0), ∞ (the largest number) and −∞ (the lowest)."""
        x: Any = self
        if not x.dtype.is_floating_point:
            return x.clone()
        limits = finfo(x.dtype)
        filled = _where(x.isnan(), 0.0 if nan is None else float(nan), x)
        filled = _where(x == float("inf"), limits.max if posinf is None else float(posinf), filled)
        return _where(x == float("-inf"), limits.min if neginf is None else float(neginf), filled)

    def fmax(self, other: TensorBase) -> Tensor:
        """The larger of the two; where one is NaN, the other."""
        a, b = _pair("fmax", self, other)
        return _where((a >= b) | b.isnan(), a, b)

    def fmin(self, other: TensorBase) -> Tensor:
        """The smaller of the two; where one is NaN, the other."""
        a, b = _pair("fmin", self, other)
        return _where((a <= b) | b.isnan(), a, b)

    # Powers and logarithms ----------------------------------------------------------------------------------
    def float_power(self, exponent: TensorBase | Number) -> Tensor:
        """self to a power, in float64."""
        power = cast(exponent, dtypes.float64) if isinstance(exponent, TensorBase) else float(exponent)
        return cast(self, dtypes.float64).pow(power)

    def ldexp(self, other: TensorBase) -> Tensor:
        """self · 2^other."""
        return combine(ops.MUL, self, apply(ops.POW, 2.0, tensor_operand("ldexp", "other", 2, other)))

    def logaddexp(self, other: TensorBase) -> Tensor:
        """log(e^self + e^other) without overflow; floating types only."""
        a, b = _pair("logaddexp", self, other)
        _refuse_whole("logaddexp_cpu", a)
        apart = _where(a == b, 0.0, a - b)
        return a.maximum(b) + (-apart.abs()).exp().log1p()

    def logaddexp2(self, other: TensorBase) -> Tensor:
        """log₂(2^self + 2^other) without overflow; floating types only."""
        a, b = _pair("logaddexp2", self, other)
        _refuse_whole("logaddexp2_cpu", a)
        apart = _where(a == b, 0.0, a - b)
        return a.maximum(b) + (-apart.abs()).exp2().log1p() / log(2)

    def xlogy(self, other: TensorBase | Number) -> Tensor:
        """self · log(other), 0 where self is 0 and other no NaN."""
        if isinstance(other, TensorBase):
            x, y = map(_floating, _pair("xlogy", self, other))
        else:
            x = _floating(self)
            y = x.new_full((), float(other))
        nothing = (x == 0) & ((y <= 0) | (y == float("inf")))
        return x * _where(nothing, 1.0, y).log()

    def logit(self, eps: float | None = None) -> Tensor:
        """log(z/(1 − z)), z being self, moved between eps and 1 − eps if that is given."""
        x = _floating(self)
        if eps is not None:
            x = x.clamp(eps, 1 - eps)
        return (x / (1 - x)).log()

    # Numbers are real here ----------------------------------------------------------------------------------
    @property
    def real(self) -> Tensor:
        """The tensor itself: there are no complex numbers here."""
        return self  # type: ignore[return-value]

    @property
    def imag(self) -> Tensor:
        raise RuntimeError(f"imag is not implemented for tensors with non-complex dtypes, such as {self.dtype}.")

    def conj(self) -> Tensor:
        """The tensor itself: there are no complex numbers here."""
        return self  # type: ignore[return-value]

    def is_conj(self) -> bool:
        return False

    def is_neg(self) -> bool:
        return False

    resolve_conj = resolve_neg = conj_physical = conj
    deg2rad_, rad2deg_, hypot_, sinc_ = modifying(deg2rad), modifying(rad2deg), modifying(hypot), modifying(sinc)
    copysign_, heaviside_, nan_to_num_ = modifying(copysign), modifying(heaviside), modifying(nan_to_num)
    float_power_, ldexp_, xlogy_, logit_ = modifying(float_power), modifying(ldexp), modifying(xlogy), modifying(logit)


angle = as_function(Composed.angle)
conj = as_function(Composed.conj)
conj_physical = as_function(Composed.conj_physical)
copysign = as_function(Composed.copysign)
deg2rad = as_function(Composed.deg2rad)
float_power = as_function(Composed.float_power)
fmax = as_function(Composed.fmax)
fmin = as_function(Composed.fmin)
heaviside = as_function(Composed.heaviside)
hypot = as_function(Composed.hypot)
is_conj = as_function(Composed.is_conj)
is_neg = as_function(Composed.is_neg)
isneginf = as_function(Composed.isneginf)
isposinf = as_function(Composed.isposinf)
isreal = as_function(Composed.isreal)
ldexp = as_function(Composed.ldexp)
logaddexp = as_function(Composed.logaddexp)
logaddexp2 = as_function(Composed.logaddexp2)
logit = as_function(Composed.logit)
nan_to_num = as_function(Composed.nan_to_num)
nan_to_num_ = as_function(Composed.nan_to_num_)
rad2deg = as_function(Composed.rad2deg)
resolve_conj = as_function(Composed.resolve_conj)
resolve_neg = as_function(Composed.resolve_neg)
signbit = as_function(Composed.signbit)
sinc = as_function(Composed.sinc)


def xlogy(input: TensorBase | Number, other: TensorBase | Number) -> Tensor:
    """input · log(other), 0 where input is 0 and other no NaN; either may be a number."""
    if not isinstance(input, TensorBase):
        given: Any = tensor_operand("xlogy", "other", 2, other)
        return Composed.xlogy(given.new_full((), input, dtype=_floating(given).dtype), other)
    return Composed.xlogy(input, other)  # type: ignore[arg-type]


def real(input: TensorBase) -> Tensor:
    """The tensor itself: there are no complex numbers here."""
    return input  # type: ignore[return-value]


__all__ = [
    "angle", "conj", "conj_physical", "copysign", "deg2rad", "float_power", "fmax", "fmin", "heaviside", "hypot",
    "is_conj", "is_neg", "isneginf", "isposinf", "isreal", "ldexp", "logaddexp", "logaddexp2", "logit", "nan_to_num",
    "nan_to_num_", "rad2deg", "real", "resolve_conj", "resolve_neg", "signbit", "sinc", "xlogy",
]
