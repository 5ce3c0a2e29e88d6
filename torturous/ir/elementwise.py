"""Elementwise ops: one definition each, and nothing else to touch when one is added.

Operands broadcast and are brought to a common *compute dtype* (float32 for the sixteen-bit types); the result is
rounded to the row's dtype. Gradient rules may return the broadcast shape: the caller sums it back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category, DType, Rank
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
    saves: tuple[int, ...] = (),
    operands_as: DType | None = None,
    cost: int = 1,
    document: str = "",
) -> Op:
    return define(
        Op(name, Kind.ELEMENTWISE, infer, meaning, gradients, saves, lower, None,
           infer is infer_comparison, operands_as, cost, document)
    )


def _quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arrays: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return call


# Arithmetic -----------------------------------------------------------------------------------------------------
ADD = _define("add", infer_arithmetic, _quietly(np.add), lambda e, a, b: e.add(a, b),
              lambda g, out, at, a, b: g, lambda g, out, at, a, b: g)
SUB = _define("sub", infer_arithmetic, _quietly(np.subtract), lambda e, a, b: e.sub(a, b),
              lambda g, out, at, a, b: g, lambda g, out, at, a, b: -g)
MUL = _define("mul", infer_arithmetic, _quietly(np.multiply), lambda e, a, b: e.mul(a, b),
              lambda g, out, at, a, b: g * b, lambda g, out, at, a, b: g * a, saves=(0, 1))
DIV = _define("div", infer_floating, _quietly(np.divide), lambda e, a, b: e.div(a, b),
              lambda g, out, at, a, b: g / b, lambda g, out, at, a, b: -(g * out / b), saves=(1, -1), cost=4)
NEG = _define("neg", infer_arithmetic, _quietly(np.negative), lambda e, a: e.neg(a), lambda g, out, at, a: -g)
ABS = _define("abs", infer_arithmetic, _quietly(np.abs), lambda e, a: e.abs(a),
              lambda g, out, at, a: g * a.sign(), saves=(0,))
SIGN = _define("sign", infer_arithmetic, _quietly(np.sign), lambda e, a: e.sign(a), lambda g, out, at, a: g * 0.0)
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
                  _maximum_rule(True, "gt"), _maximum_rule(False, "gt"), saves=(0, 1))
MINIMUM = _define("minimum", infer_arithmetic, _quietly(np.minimum), lambda e, a, b: e.minimum(a, b),
                  _maximum_rule(True, "lt"), _maximum_rule(False, "lt"), saves=(0, 1))
FLOOR_DIVIDE = _define("floor_divide", infer_arithmetic, _quietly(np.floor_divide),
                       lambda e, a, b: e.floor_divide(a, b), None, None, cost=6)
REMAINDER = _define("remainder", infer_arithmetic, _quietly(np.remainder), lambda e, a, b: e.remainder(a, b),
                    lambda g, out, at, a, b: g, lambda g, out, at, a, b: -(g * (a / b).floor()),
                    saves=(0, 1), cost=6)
POW = _define("pow", infer_arithmetic, _quietly(np.power), lambda e, a, b: e.pow(a, b),
              lambda g, out, at, a, b: b.eq(0.0).where(0.0, g * (b * a.pow(b - 1.0))),
              lambda g, out, at, a, b: a.eq(0.0).where(b.ge(0.0).where(0.0, g * (out * a.log())), g * (out * a.log())),
              saves=(0, 1, -1), cost=40)

# Rounding -------------------------------------------------------------------------------------------------------
_ZERO = (lambda g, out, at, a: g * 0.0,)
FLOOR = _define("floor", infer_arithmetic, np.floor, lambda e, a: e.floor(a), *_ZERO)
CEIL = _define("ceil", infer_arithmetic, np.ceil, lambda e, a: e.ceil(a), *_ZERO)
ROUND = _define("round", infer_arithmetic, np.round, lambda e, a: e.round(a), *_ZERO,
                document="to nearest, ties to even")
TRUNC = _define("trunc", infer_arithmetic, np.trunc, lambda e, a: e.trunc(a), *_ZERO)

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
              lambda g, out, at, a: g * ((-(a * a)).exp() * 1.1283791670955126), saves=(0,), cost=30)
RELU = _define("relu", infer_arithmetic, lambda a: np.where(a <= 0, a.dtype.type(0), a), lambda e, a: e.relu(a),
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
BITWISE_AND = _define("bitwise_and", infer_arithmetic, np.bitwise_and, lambda e, a, b: e.bit("and", a, b))
BITWISE_OR = _define("bitwise_or", infer_arithmetic, np.bitwise_or, lambda e, a, b: e.bit("or", a, b))
BITWISE_XOR = _define("bitwise_xor", infer_arithmetic, np.bitwise_xor, lambda e, a, b: e.bit("xor", a, b))
BITWISE_NOT = _define("bitwise_not", infer_arithmetic, np.invert, lambda e, a: e.bit_not(a))
WHERE = _define("where", infer_where, np.where, lambda e, c, a, b: e.select(c, a, b),
                None, lambda g, out, at, c, a, b: c.where(g, 0.0), lambda g, out, at, c, a, b: c.where(0.0, g),
                saves=(0,), document="the second operand where the first is true, else the third")

# Casts: the target is the row's own type -------------------------------------------------------------------------
CAST = _define("cast", infer_arithmetic, lambda a: a, None, lambda g, out, at, a: g.to(a.dtype))
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
