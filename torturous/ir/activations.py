"""Activations that are more than one operation, as one row each, and their gradients as another.

Each is given by three expressions: its value, its gradient (linear in g), and the gradient of that with respect to x
for the product g · gg. Numbers are slots. Sixteen-bit types are computed in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

from torturous.core import dtypes
from torturous.ir.op import Attributes, Kind, Op, Type, define

Expression = Callable[..., Any]


def _wide(x: Any) -> Any:
    return x.to(dtypes.float32) if x.dtype.is_half else x


def _define(name: str, numbers: int, value: Expression, gradient: Expression, curvature: Expression,
            document: str) -> Op:
    """An op of x and some numbers: `value(x, …)`, `gradient(g, x, …)`, `curvature(g · gg, x, …)`."""
    def expand(out: Type, at: Attributes, x: Any, *rest: Any) -> Any:
        return value(_wide(x), *rest).to(out.dtype)

    def expand_gradient(out: Type, at: Attributes, g: Any, x: Any, *rest: Any) -> Any:
        return gradient(_wide(g), _wide(x), *rest).to(out.dtype)

    def back(g: Any, x: Any, rest: Any) -> Any:
        return g.apply_typed(backward, x.shape, x.dtype, x, *rest)

    none = (None,) * numbers
    backward = define(Op(
        f"{name}_backward", Kind.MACRO, None, None,
        (lambda gg, out, at, g, x, *rest: back(gg, x, rest),
         lambda gg, out, at, g, x, *rest: curvature(_wide(g) * _wide(gg), _wide(x), *rest).to(x.dtype), *none),
        ((1,), (0, 1), *((),) * numbers), None, expand_gradient,
        document=f"the gradient of {name}: operands the result's gradient, x, numbers"))
    return define(Op(
        name, Kind.MACRO, lambda at, operands: operands[0], None,
        (lambda g, out, at, x, *rest: back(g, x, rest), *none), ((0,), *((),) * numbers), None, expand,
        document=document))


# Gaussian and logistic --------------------------------------------------------------------------------------------
def _density(x: Any) -> Any:
    """The normal density."""
    return (x * x * -0.5).exp() * (1 / sqrt(2 * pi))


def _distribution(x: Any) -> Any:
    """The normal distribution function."""
    return ((x * sqrt(0.5)).erf() + 1.0) * 0.5


GELU = _define(
    "gelu", 0, lambda x: x * 0.5 * ((x * sqrt(0.5)).erf() + 1.0),
    lambda g, x: g * (_distribution(x) + x * _density(x)),
    lambda gg, x: gg * (_density(x) * (2.0 - x * x)), "x · Φ(x) (Hendrycks, Gimpel 2016)")

_A, _C = 0.044715, sqrt(2 / pi)


def _gelu_tanh_parts(x: Any) -> tuple[Any, Any, Any]:
    """The hyperbolic tangent that stands for Φ, its slope, and the slope of what is inside."""
    t = ((x + x * x * x * _A) * _C).tanh()
    return t, 1.0 - t * t, (x * x * (3 * _A) + 1.0) * _C


def _gelu_tanh_gradient(g: Any, x: Any) -> Any:
    t, slope, inner = _gelu_tanh_parts(x)
    return g * ((t + 1.0) * 0.5 + x * 0.5 * (slope * inner))


def _gelu_tanh_curvature(gg: Any, x: Any) -> Any:
    t, slope, inner = _gelu_tanh_parts(x)
    return gg * (slope * inner + x * 0.5 * (slope * (x * (6 * _A * _C)) - t * slope * inner * inner * 2.0))


GELU_TANH = _define(
    "gelu_tanh", 0, lambda x: x * 0.5 * (((x + x * x * x * _A) * _C).tanh() + 1.0), _gelu_tanh_gradient,
    _gelu_tanh_curvature, "GELU with a hyperbolic tangent in place of Φ")


def _silu_gradient(g: Any, x: Any) -> Any:
    s = x.sigmoid()
    return g * (s * (x * (1.0 - s) + 1.0))


def _silu_curvature(gg: Any, x: Any) -> Any:
    s = x.sigmoid()
    return gg * (s * (1.0 - s) * (x * (1.0 - s * 2.0) + 2.0))


SILU = _define("silu", 0, lambda x: x * x.sigmoid(), _silu_gradient, _silu_curvature, "x · sigmoid(x)")


# Bent -------------------------------------------------------------------------------------------------------------
LEAKY_RELU = _define(
    "leaky_relu", 1, lambda x, slope: x.gt(0.0).where(x, x * slope),
    lambda g, x, slope: x.gt(0.0).where(g, g * slope), lambda gg, x, slope: gg.zeros(),
    "x where x > 0, else slope · x")
HARDTANH = _define(
    "hardtanh", 2, lambda x, low, high: x.clamp_min(low).clamp_max(high),
    lambda g, x, low, high: x.gt(low).where(x.lt(high).where(g, 0.0), 0.0), lambda gg, x, low, high: gg.zeros(),
    "x between its bounds; no gradient on or beyond them")


def _tail(x: Any, inside: Any) -> Any:
    """inside · x where x is negative, else 0: what would overflow is not raised."""
    return x.gt(0.0).where(0.0, x) * inside


EXPONENTIAL_UNIT = _define(
    "exponential_unit", 3,
    lambda x, inside, negative, positive: x.gt(0.0).where(x * positive, _tail(x, inside).expm1() * negative),
    lambda g, x, inside, negative, positive: x.gt(0.0).where(
        g * positive, g * (_tail(x, inside).exp() * inside * negative)),
    lambda gg, x, inside, negative, positive: x.gt(0.0).where(
        0.0, gg * (_tail(x, inside).exp() * inside * inside * negative)),
    "positive · x where x > 0, else negative · (exp(inside · x) − 1)")


def _softplus(x: Any, beta: Any, threshold: Any) -> Any:
    scaled = x * beta
    above = scaled.gt(threshold)
    return above.where(x, above.where(0.0, scaled).exp().log1p() / beta)


SOFTPLUS = _define(
    "softplus", 2, _softplus,
    lambda g, x, beta, threshold: (x * beta).gt(threshold).where(g, g * (x * beta).sigmoid()),
    lambda gg, x, beta, threshold: (x * beta).gt(threshold).where(
        0.0, gg * ((x * beta).sigmoid() * (1.0 - (x * beta).sigmoid()) * beta)),
    "log(1 + exp(beta · x)) / beta; x itself where beta · x > threshold")


# One slope per channel --------------------------------------------------------------------------------------------
# attributes: the channels' axis, or −1 where there is one slope
def _slopes(weight: Any, rank: int, axis: int) -> Any:
    return weight.reshape(()) if axis < 0 else weight.reshape((weight.shape[0],) + (1,) * (rank - 1 - axis))


def _shared(value: Any, like: Any, axis: int) -> Any:
    """The sum of a value over all that shares a slope, in the weight's type."""
    axes = tuple(a for a in range(len(value.shape)) if a != axis)
    return _wide(value).sum(axes).reshape(like.shape).to(like.dtype)


def _prelu_backward(g: Any, out: Any, at: Attributes, x: Any, weight: Any) -> Any:
    return g.apply_typed(PRELU_BACKWARD, x.shape, x.dtype, x, weight, attributes=at)


def _prelu_weight(g: Any, out: Any, at: Attributes, x: Any, weight: Any) -> Any:
    return g.apply_typed(PRELU_WEIGHT, weight.shape, weight.dtype, x, attributes=at)


PRELU: Op = define(Op(
    "prelu", Kind.MACRO, None, None, (_prelu_backward, _prelu_weight), ((0, 1), (0,)), None,
    lambda out, at, x, weight: x.gt(0.0).where(x, x * _slopes(weight, len(x.shape), at[0])),
    document="x where x > 0, else weight · x"))
PRELU_BACKWARD: Op = define(Op(
    "prelu_backward", Kind.MACRO, None, None,
    (lambda gg, out, at, g, x, weight: gg.apply_typed(PRELU_BACKWARD, g.shape, g.dtype, x, weight, attributes=at),
     None,
     lambda gg, out, at, g, x, weight: _shared(x.gt(0.0).where(0.0, g * gg), weight, at[0])),
    ((1, 2), (), (0, 1)), None,
    lambda out, at, g, x, weight: x.gt(0.0).where(g, g * _slopes(weight, len(x.shape), at[0])),
    document="the gradient of x: operands the result's gradient, x, weight"))
PRELU_WEIGHT: Op = define(Op(
    "prelu_weight", Kind.MACRO, None, None,
    (lambda gg, out, at, g, x: x.gt(0.0).where(0.0, x * _slopes(gg, len(x.shape), at[0])),
     lambda gg, out, at, g, x: x.gt(0.0).where(0.0, g * _slopes(gg, len(x.shape), at[0]))), ((1,), (0, 1)), None,
    lambda out, at, g, x: _shared(x.gt(0.0).where(0.0, g * x), out, at[0]),
    document="the gradient of the weight: operands the result's gradient, x"))
