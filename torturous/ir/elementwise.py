"""Elementwise ops: one definition each, and nothing else to touch when one is added.

Operands broadcast and are brought to a common *compute dtype* (float32 for the sixteen-bit types); the result is
rounded to the row's dtype. Gradient rules may return the broadcast shape: the caller sums it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.box_muller import fused_multiply_add32, fused_multiply_add64, normal32
from torturous.core.dtypes import Category, DType, Rank
from torturous.core.intervals import Interval, added, hull, larger, multiplied, remainders, smaller, subtracted
from torturous.core.shapes import broadcast
from torturous.ir.op import Attributes, Kind, Op, Type, define

Operand = Type | Category


def common_type(operands: Sequence[Operand]) -> DType:
    """The type that operands of an elementwise op are promoted to."""
    ranked = []
    for operand in operands:
        if isinstance(operand, Category):
            ranked.append((Rank.NUMBER, dtypes.number_type(operand)))
        else:
            ranked.append((Rank.DIMENSIONED if operand.shape else Rank.SCALAR, operand.dtype))
    return dtypes.result_type(ranked)


def common_shape(operands: Sequence[Operand]) -> tuple[int, ...]:
    return broadcast([operand.shape for operand in operands if not isinstance(operand, Category)])


def infer_arithmetic(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    return Type(common_shape(operands), common_type(operands))


def infer_floating(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    dtype = common_type(operands)
    return Type(common_shape(operands), dtype if dtype.is_floating_point else dtypes.default_float())


def infer_comparison(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    return Type(common_shape(operands), dtypes.bool_)


def infer_where(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    return Type(common_shape(operands), common_type(operands[1:]))


# What PyTorch refuses ---------------------------------------------------------------------------------------------
def scalar_name(dtype: DType) -> str:
    """The name that PyTorch's errors give a dtype."""
    return _SCALAR_NAMES[dtype]


_SCALAR_NAMES = {
    dtypes.bool_: "Bool", dtypes.uint8: "Byte", dtypes.int32: "Int", dtypes.int64: "Long", dtypes.float16: "Half",
    dtypes.bfloat16: "BFloat16", dtypes.float32: "Float", dtypes.float64: "Double",
}
Infer = Callable[[Attributes, Sequence[Operand]], Type]


def _is_bool(operand: Operand) -> bool:
    return operand is Category.BOOL if isinstance(operand, Category) else operand.dtype is dtypes.bool_


def refusing(name: str, refused: Category | tuple[Category, ...], infer: Infer = infer_arithmetic) -> Infer:
    """An inference that raises NotImplementedError where the operands' common type is of a refused category."""
    categories = refused if isinstance(refused, tuple) else (refused,)

    def checked(attributes: Attributes, operands: Sequence[Operand]) -> Type:
        dtype = common_type(operands)
        if dtype.category in categories:
            raise NotImplementedError(
                f"\"{name}\" not implemented for '{scalar_name(dtype)}'; convert the operands with .to(dtype) first")
        return infer(attributes, operands)

    return checked


def infer_negation(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    if _is_bool(operands[0]):
        raise RuntimeError(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead.")
    return infer_arithmetic(attributes, operands)


def infer_subtraction(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    if all(map(_is_bool, operands)):
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead.")
    if any(map(_is_bool, operands)):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead.")
    return infer_arithmetic(attributes, operands)


def infer_rectification(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    if _is_bool(operands[0]):
        raise RuntimeError("Boolean inputs not supported for relu")
    return infer_arithmetic(attributes, operands)


def infer_inversion(attributes: Attributes, operands: Sequence[Operand]) -> Type:
    if common_type(operands).is_floating_point:
        raise TypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return infer_arithmetic(attributes, operands)


def compute_type(op: Op, out: DType, operands: Sequence[Operand]) -> DType:
    """The dtype in which a row computes, before its result is rounded to the row's own."""
    if op.operands_as is not None:
        return op.operands_as
    dtype = common_type(operands[1:] if op is WHERE else operands) if op.compares or op is WHERE else out
    return dtypes.float32 if dtype.is_half else dtype


def _define(
    name: str,
    infer: Callable[[Attributes, Sequence[Any]], Type],
    meaning: Callable[..., Any],
    lower: Callable[..., Any] | None,
    *gradients: Callable[..., Any] | None,
    saves: tuple[Any, ...] = (),
    operands_as: DType | None = None,
    cost: int = 1,
    document: str = "",
    within: Callable[..., Interval] | None = None,
) -> Op:
    """`within(*operands' intervals)`: what an integer result lies in."""
    bounds = within and (lambda out, at, types, *operands: within(*operands))
    return define(
        Op(name, Kind.ELEMENTWISE, infer, meaning, gradients, saves, lower, None,
           infer is infer_comparison, operands_as, cost, document, bounds=bounds)
    )


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return call


def _fused(a: Any, b: Any, c: Any) -> Any:
    if a.dtype.kind != "f":
        return a * b + c
    return (fused_multiply_add64 if a.dtype == np.float64 else fused_multiply_add32)(a, b, c)


# Arithmetic -----------------------------------------------------------------------------------------------------
ADD = _define("add", infer_arithmetic, _quietly(np.add), lambda e, a, b: e.add(a, b),
              lambda g, out, at, a, b: g, lambda g, out, at, a, b: g, within=added)
SUB = _define("sub", infer_subtraction, _quietly(np.subtract), lambda e, a, b: e.sub(a, b),
              lambda g, out, at, a, b: g, lambda g, out, at, a, b: -g, within=subtracted)
MUL = _define("mul", infer_arithmetic, _quietly(np.multiply), lambda e, a, b: e.mul(a, b),
              lambda g, out, at, a, b: g * b, lambda g, out, at, a, b: g * a, saves=((1,), (0,)),
              within=multiplied)
DIV = _define("div", infer_floating, _quietly(np.divide), lambda e, a, b: e.div(a, b),
              lambda g, out, at, a, b: g / b, lambda g, out, at, a, b: -(g * out / b), saves=((1,), (1, -1)), cost=4)
_NOTHING = (lambda g, out, at, a, b: g.zeros(),) * 2
TRUNC_DIVIDE = _define("trunc_divide", refusing("div_trunc_cpu", Category.BOOL), lambda a, b: _trunc_divide(a, b),
                       lambda e, a, b: e.trunc(e.div(a, b)), *_NOTHING, cost=5,
                       document="the quotient rounded toward zero; integers divided by zero give 0")
FUSED_MULTIPLY_ADD = _define(
    "fused_multiply_add", infer_arithmetic, _fused, lambda e, a, b, c: e.multiply_add(a, b, c),
    lambda g, out, at, a, b, c: g * b, lambda g, out, at, a, b, c: g * a, lambda g, out, at, a, b, c: g,
    saves=((1,), (0,), ()), document="a·b + c, rounded once")
NEG = _define("neg", infer_negation, _quietly(np.negative), lambda e, a: e.neg(a), lambda g, out, at, a: -g)
ABS = _define("abs", refusing("abs_cpu", Category.BOOL), _quietly(np.abs), lambda e, a: e.abs(a),
              lambda g, out, at, a: g * a.sign(), saves=(0,))
SIGN = _define("sign", infer_arithmetic, _quietly(lambda a: np.where(a != a, a.dtype.type(0), np.sign(a))),
               lambda e, a: e.sign(a), lambda g, out, at, a: g.zeros())
RECIPROCAL = _define("reciprocal", infer_floating, _quietly(lambda a: (1 / a).astype(a.dtype)),
                     lambda e, a: e.div(e.constant(1.0), a), lambda g, out, at, a: -(g * (out * out)),
                     saves=(-1,), cost=4)


def _maximum_rule(first: bool, compare: str) -> Callable[..., Any]:
    def rule(g: Any, out: Any, at: Attributes, a: Any, b: Any) -> Any:
        """The larger (smaller) operand takes the gradient; equal ones share it."""
        mine, other = (a, b) if first else (b, a)
        chosen = getattr(mine, compare)(other).where(g, 0.0)
        return mine.eq(other).where(g * 0.5, chosen)

    return rule


MAXIMUM = _define("maximum", infer_arithmetic, _quietly(np.maximum), lambda e, a, b: e.maximum(a, b),
                  _maximum_rule(True, "gt"), _maximum_rule(False, "gt"), saves=(0, 1), within=larger)
MINIMUM = _define("minimum", infer_arithmetic, _quietly(np.minimum), lambda e, a, b: e.minimum(a, b),
                  _maximum_rule(True, "lt"), _maximum_rule(False, "lt"), saves=(0, 1), within=smaller)
FLOOR_DIVIDE = _define("floor_divide", refusing("div_floor_cpu", Category.BOOL), _quietly(np.floor_divide),
                       lambda e, a, b: e.floor_divide(a, b), *_NOTHING, cost=6)


def _clamp_rule(inside: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def inner(g: Any, out: Any, at: Attributes, a: Any, bound: Any) -> Any:
        return getattr(a, inside)(bound).where(g, 0.0)

    def outer(g: Any, out: Any, at: Attributes, a: Any, bound: Any) -> Any:
        return getattr(a, inside)(bound).where(0.0, g)

    return inner, outer


CLAMP_MIN = _define("clamp_min", infer_arithmetic, _quietly(np.maximum), lambda e, a, b: e.maximum(a, b),
                    *_clamp_rule("ge"), saves=(0, 1), within=larger,
                    document="the larger; at the bound itself a takes the gradient")
CLAMP_MAX = _define("clamp_max", infer_arithmetic, _quietly(np.minimum), lambda e, a, b: e.minimum(a, b),
                    *_clamp_rule("le"), saves=(0, 1), within=smaller,
                    document="the smaller; at the bound itself a takes the gradient")


def _trunc_divide(a: Any, b: Any) -> Any:
    if a.dtype.kind not in "iu":
        return _quietly(lambda: np.trunc(a / b))()
    quotient = _quietly(np.floor_divide)(a, b)
    inexact = (quotient * b != a) & (b != 0) & ((a < 0) != (b < 0))
    return np.where(b == 0, a.dtype.type(0), quotient + inexact.astype(a.dtype))


def _lower_fmod(e: Any, a: str, b: str) -> str:
    if e.floating:
        return e.truncated_remainder(a, b)
    rest = e.sub(a, e.mul(e.div(a, b), b))
    return e.select(e.compare("eq", b, e.constant(0)), e.constant(0), rest)


FMOD = _define("fmod", refusing("fmod_cpu", Category.BOOL), _quietly(np.fmod), _lower_fmod,
               lambda g, out, at, a, b: g, lambda g, out, at, a, b: -(g * (a / b).trunc()), saves=((), (0, 1)), cost=6,
               document="the rest of a division toward zero: a's sign; integers modulo zero give 0")


def _remainder(a: Any, b: Any) -> Any:
    """NumPy's with C's sign of zero: that of the dividend, as in PyTorch."""
    if a.dtype.kind in "iu":
        return np.remainder(a, b)
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((b < 0) != (rest < 0)), rest + b, rest)


REMAINDER = _define("remainder", refusing("remainder_cpu", Category.BOOL), _quietly(_remainder),
                    lambda e, a, b: e.remainder(a, b),
                    lambda g, out, at, a, b: g, lambda g, out, at, a, b: -(g * (a / b).floor()),
                    saves=((), (0, 1)), cost=6, within=lambda a, b: remainders(b))
def _power_base_rule(g: Any, out: Any, at: Attributes, a: Any, b: Any) -> Any:
    b = b.beside(a)
    return b.eq(0.0).where(0.0, g * (b * a.pow(b - 1.0)))


def _power_exponent_rule(g: Any, out: Any, at: Attributes, a: Any, b: Any) -> Any:
    a = a.beside(b)
    slope = g * (out * a.log())
    return a.eq(0.0).where(b.ge(0.0).where(0.0, slope), slope)


POW = _define("pow", refusing("pow", Category.BOOL), _quietly(np.power), lambda e, a, b: e.pow(a, b),
              _power_base_rule, _power_exponent_rule, saves=((0, 1), (0, 1, -1)), cost=40)

# Rounding -------------------------------------------------------------------------------------------------------
_ZERO = (lambda g, out, at, a: g.zeros(),)
FLOOR = _define("floor", refusing("floor_vml_cpu", Category.BOOL), np.floor, lambda e, a: e.floor(a), *_ZERO)
CEIL = _define("ceil", refusing("ceil_vml_cpu", Category.BOOL), np.ceil, lambda e, a: e.ceil(a), *_ZERO)
ROUND = _define("round", refusing("round_vml_cpu", Category.BOOL), np.round, lambda e, a: e.round(a), *_ZERO,
                document="to nearest, ties to even")
TRUNC = _define("trunc", refusing("trunc_vml_cpu", Category.BOOL), np.trunc, lambda e, a: e.trunc(a), *_ZERO)

# Functions ------------------------------------------------------------------------------------------------------
EXP = _define("exp", infer_floating, _quietly(np.exp), lambda e, a: e.exp(a),
              lambda g, out, at, a: g * out, saves=(-1,), cost=14)
EXPM1 = _define("expm1", infer_floating, _quietly(np.expm1), lambda e, a: e.expm1(a),
                lambda g, out, at, a: g * (out + 1.0), saves=(-1,), cost=20)
LOG = _define("log", infer_floating, _quietly(np.log), lambda e, a: e.log(a),
              lambda g, out, at, a: g / a, saves=(0,), cost=16)
LOG1P = _define("log1p", infer_floating, _quietly(np.log1p), lambda e, a: e.log1p(a),
                lambda g, out, at, a: g / (a + 1.0), saves=(0,), cost=22)
LOG2 = _define("log2", infer_floating, _quietly(np.log2), lambda e, a: e.log2(a),
               lambda g, out, at, a: g / (a * 0.6931471805599453), saves=(0,), cost=18)
LOG10 = _define("log10", infer_floating, _quietly(np.log10), lambda e, a: e.log10(a),
                lambda g, out, at, a: g / (a * 2.302585092994046), saves=(0,), cost=18)
SQRT = _define("sqrt", infer_floating, _quietly(np.sqrt), lambda e, a: e.sqrt(a),
               lambda g, out, at, a: g / (out * 2.0), saves=(-1,), cost=6)
RSQRT = _define("rsqrt", infer_floating, _quietly(lambda a: (1 / np.sqrt(a)).astype(a.dtype)),
                lambda e, a: e.div(e.constant(1.0), e.sqrt(a)),
                lambda g, out, at, a: g * (out * out * out) * -0.5, saves=(-1,), cost=10)
SIN = _define("sin", infer_floating, _quietly(np.sin), lambda e, a: e.sin(a),
              lambda g, out, at, a: g * a.cos(), saves=(0,), cost=30)
COS = _define("cos", infer_floating, _quietly(np.cos), lambda e, a: e.cos(a),
              lambda g, out, at, a: -(g * a.sin()), saves=(0,), cost=30)
TAN = _define("tan", infer_floating, _quietly(np.tan), lambda e, a: e.div(e.sin(a), e.cos(a)),
              lambda g, out, at, a: g * (out * out + 1.0), saves=(-1,), cost=60)

ASIN = _define("asin", infer_floating, _quietly(np.arcsin), lambda e, a: e.asin(a),
               lambda g, out, at, a: g * (1.0 - a * a).rsqrt(), saves=(0,), cost=40)
ACOS = _define("acos", infer_floating, _quietly(np.arccos), lambda e, a: e.acos(a),
               lambda g, out, at, a: -(g * (1.0 - a * a).rsqrt()), saves=(0,), cost=40)
ATAN = _define("atan", infer_floating, _quietly(np.arctan), lambda e, a: e.atan(a),
               lambda g, out, at, a: g / (a * a + 1.0), saves=(0,), cost=30)
ATAN2 = _define("atan2", infer_floating, _quietly(np.arctan2), lambda e, y, x: e.atan2(y, x),
                lambda g, out, at, y, x: g * (x / (x * x + y * y)),
                lambda g, out, at, y, x: -(g * (y / (x * x + y * y))), saves=(0, 1), cost=50,
                document="the angle of the point whose second coordinate is the first operand")
ASINH = _define("asinh", infer_floating, _quietly(np.arcsinh), lambda e, a: e.asinh(a),
                lambda g, out, at, a: g * (a * a + 1.0).rsqrt(), saves=(0,), cost=50)
ACOSH = _define("acosh", infer_floating, _quietly(np.arccosh), lambda e, a: e.acosh(a),
                lambda g, out, at, a: g * (a * a - 1.0).rsqrt(), saves=(0,), cost=50)
ATANH = _define("atanh", infer_floating, _quietly(np.arctanh), lambda e, a: e.atanh(a),
                lambda g, out, at, a: g / (1.0 - a * a), saves=(0,), cost=50)


def _lower_hyperbolic(e: Any, a: str) -> tuple[str, str]:
    """e^|a| / 2 and e^−|a| / 2; the first by halves, for it may be finite where e^|a| is not."""
    root = e.exp(e.mul(e.abs(a), e.constant(0.5)))
    return e.mul(e.mul(root, e.constant(0.5)), root), e.div(e.constant(0.5), e.mul(root, root))


def _lower_sinh(e: Any, a: str) -> str:
    """By e^a − 1 near zero, where the two exponentials are nearly equal."""
    rising, falling = _lower_hyperbolic(e, a)
    zero, one = e.constant(0.0), e.constant(1.0)
    large = e.sub(rising, falling)
    large = e.select(e.compare("lt", a, zero), e.neg(large), large)
    less = e.expm1(a)
    small = e.mul(e.add(less, e.div(less, e.add(less, one))), e.constant(0.5))
    # a itself for tiny arguments keeps the sign of zero, and NaN takes the other branch.
    return e.select(e.compare("lt", e.abs(a), one), e.select(e.compare("eq", a, zero), a, small), large)


SINH = _define("sinh", infer_floating, _quietly(np.sinh), _lower_sinh,
               lambda g, out, at, a: g * a.cosh(), saves=(0,), cost=50)
COSH = _define("cosh", infer_floating, _quietly(np.cosh), lambda e, a: e.add(*_lower_hyperbolic(e, a)),
               lambda g, out, at, a: g * a.sinh(), saves=(0,), cost=24)
TANH = _define("tanh", infer_floating, np.tanh, lambda e, a: e.tanh(a),
               lambda g, out, at, a: g * (1.0 - out * out), saves=(-1,), cost=20)


def _sigmoid(a: Any) -> Any:
    return (1 / (1 + np.exp(-a))).astype(a.dtype)


SIGMOID = _define("sigmoid", infer_floating, _quietly(_sigmoid), lambda e, a: e.sigmoid(a),
                  lambda g, out, at, a: g * ((1.0 - out) * out), saves=(-1,), cost=18)


def _erf(a: Any) -> Any:
    from math import erf

    return np.vectorize(erf, otypes=[a.dtype])(a) if a.size else a


ERF = _define("erf", infer_floating, _erf, lambda e, a: e.erf(a),
              lambda g, out, at, a: g * ((-(a * a)).exp() * 1.1283791670955126), saves=(0,), cost=24)
RELU = _define("relu", infer_rectification, lambda a: np.where(a <= 0, a.dtype.type(0), a), lambda e, a: e.relu(a),
               lambda g, out, at, a: g.relu_backward(out), saves=(-1,))
RELU_BACKWARD = _define(
    "relu_backward", infer_arithmetic, lambda g, out: np.where(out <= 0, g.dtype.type(0), g),
    lambda e, g, out: e.select(e.compare("le", out, e.constant(0)), e.constant(0), g),
    lambda gg, out, at, g, y: gg.relu_backward(y), None, saves=(1,), document="the gradient where the output is not 0",
)

# Comparison and logic -------------------------------------------------------------------------------------------
EQ = _define("eq", infer_comparison, np.equal, lambda e, a, b: e.compare("eq", a, b))
NE = _define("ne", infer_comparison, np.not_equal, lambda e, a, b: e.compare("ne", a, b))
LT = _define("lt", infer_comparison, np.less, lambda e, a, b: e.compare("lt", a, b))
LE = _define("le", infer_comparison, np.less_equal, lambda e, a, b: e.compare("le", a, b))
GT = _define("gt", infer_comparison, np.greater, lambda e, a, b: e.compare("gt", a, b))
GE = _define("ge", infer_comparison, np.greater_equal, lambda e, a, b: e.compare("ge", a, b))
LOGICAL_NOT = _define("logical_not", infer_comparison, np.logical_not, lambda e, a: e.compare("eq", a, e.constant(0)))
ISNAN = _define("isnan", infer_comparison, lambda a: a != a, lambda e, a: e.compare("ne", a, a))
BITWISE_AND = _define("bitwise_and", refusing("bitwise_and_cpu", Category.FLOATING), np.bitwise_and,
                      lambda e, a, b: e.bit("and", a, b))
BITWISE_OR = _define("bitwise_or", refusing("bitwise_or_cpu", Category.FLOATING), np.bitwise_or,
                      lambda e, a, b: e.bit("or", a, b))
BITWISE_XOR = _define("bitwise_xor", refusing("bitwise_xor_cpu", Category.FLOATING), np.bitwise_xor,
                      lambda e, a, b: e.bit("xor", a, b))
BITWISE_NOT = _define("bitwise_not", infer_inversion, np.invert, lambda e, a: e.bit_not(a))


def _shifted_meaning(left: bool) -> Callable[..., Any]:
    def meaning(a: Any, b: Any) -> Any:
        width = 8 * a.dtype.itemsize
        outside = (b < 0) | (b >= width)
        if left:
            return np.where(outside, a.dtype.type(0), np.left_shift(a, np.where(outside, a.dtype.type(0), b)))
        return np.right_shift(a, np.where(outside, a.dtype.type(width - 1), b))

    return meaning


def _lower_shift(left: bool) -> Callable[..., Any]:
    def lower(e: Any, a: str, b: str) -> str:
        width = 8 * e.dtype.itemsize
        # As unsigned numbers, negative distances are large ones.
        inside = e.builder.value(f"icmp ult {e.kind} {b}, {e.constant(width)}")
        if left:
            return e.select(inside, e.binary("shl", a, e.select(inside, b, e.constant(0))), e.constant(0))
        distance = e.select(inside, b, e.constant(width - 1))
        return e.binary("ashr" if e.dtype.signed else "lshr", a, distance)

    return lower


_NO_SHIFT = (Category.BOOL, Category.FLOATING)
SHIFT_LEFT = _define("shift_left", refusing("lshift_cpu", _NO_SHIFT), _shifted_meaning(True), _lower_shift(True),
                     document="by a distance outside 0 … width−1: 0")
SHIFT_RIGHT = _define("shift_right", refusing("rshift_cpu", _NO_SHIFT), _shifted_meaning(False), _lower_shift(False),
                      document="arithmetic for signed types; a distance outside 0 … width−1 leaves the sign")
WHERE = _define("where", infer_where, np.where, lambda e, c, a, b: e.select(c, a, b),
                None, lambda g, out, at, c, a, b: c.where(g, 0.0), lambda g, out, at, c, a, b: c.where(0.0, g),
                saves=(0,), within=lambda c, a, b: hull(a, b),
                document="the second operand where the first is true, else the third")

# Casts: the target is the row's own type -------------------------------------------------------------------------
CAST = _define("cast", infer_arithmetic, lambda a: a, None, lambda g, out, at, a: g.to(a.dtype), within=lambda a: a)
UNIFORM53 = _define(
    "uniform53", lambda at, operands: Type(common_shape(operands), dtypes.float64),
    lambda low, high: (((high.astype(np.uint64) << np.uint64(32)) | (low.astype(np.uint64) & np.uint64(0xFFFFFFFF)))
                       & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53,
    lambda e, low, high: e.uniform53(low, high), None, None, operands_as=dtypes.int32, cost=6,
    document="a float64 in [0, 1) from two raw 32-bit words, as PyTorch's CPU generator makes it",
)
UNIFORM24 = _define(
    "uniform24", lambda at, operands: Type(common_shape(operands), dtypes.float32),
    lambda word: (word & np.int32(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24),
    lambda e, word: e.uniform24(word), None, operands_as=dtypes.int32, cost=3,
    document="a float32 in [0, 1) from one raw 32-bit word, as PyTorch's CPU generator makes it",
)
NORMAL24 = _define(
    "normal24", lambda at, operands: Type(common_shape(operands), dtypes.float32), normal32,
    lambda e, first, second, sine: e.normal24(first, second, sine), None, None, None, cost=50,
    document="a standard normal from two uniforms, as PyTorch's CPU generator makes it: by the angle's sine where the "
             "third operand is not zero, else by its cosine",
)
