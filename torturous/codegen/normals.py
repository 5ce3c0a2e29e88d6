"""Normal numbers from pairs of uniform ones: the arithmetic of `core.box_muller`, step by step.

It is PyTorch's own evaluation of logarithm, sine and cosine, not that of the ops of these names: the numbers that a
seed gives depend on its every rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import bits, cast, from_bits, integers
from torturous.core.box_muller import (
    COS_COEFFICIENTS,
    FOUR_OVER_PI,
    LN2_HIGH,
    LN2_LOW,
    LOG_COEFFICIENTS,
    QUARTER_PI,
    SIN_COEFFICIENTS,
    SQRT_HALF,
    TWO_PI,
)


def normal24(e: Emitter, first: str, second: str, sine: str) -> str:
    """A standard normal out of two uniforms in [0, 1): by the angle's sine where `sine` is not zero, else cosine."""
    logarithm = _log(e, e.sub(e.constant(1.0), first))
    radius = e.intrinsic("sqrt", e.mul(e.constant(-2.0), logarithm))
    waves = _sine_and_cosine(e, e.mul(e.constant(float(TWO_PI)), second))
    return e.mul(radius, e.select(e.compare("ne", sine, e.constant(0.0)), *waves))


def _horner(e: Emitter, coefficients: Sequence[float], x: str) -> str:
    value = e.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = e.multiply_add(value, x, e.constant(coefficient))
    return value


def _log(e: Emitter, x: str) -> str:
    """`log32`."""
    i = integers(e)
    exponent = cast(i, "sitofp", i.sub(i.binary("lshr", bits(e, x), i.constant(23)), i.constant(126)), e)
    fraction = from_bits(e, i.binary("or", i.binary("and", bits(e, x), i.constant((1 << 23) - 1)),
                                     i.constant(126 << 23)))
    small = e.compare("lt", fraction, e.constant(float(SQRT_HALF)))
    exponent = e.sub(exponent, e.select(small, e.constant(1.0), e.constant(0.0)))
    f = e.add(e.sub(fraction, e.constant(1.0)), e.select(small, fraction, e.constant(0.0)))
    square = e.mul(f, f)
    low = e.mul(exponent, e.constant(float(LN2_LOW)))
    y = e.multiply_add(e.mul(_horner(e, LOG_COEFFICIENTS, f), f), square, low)
    y = e.multiply_add(e.neg(square), e.constant(0.5), y)
    return e.multiply_add(exponent, e.constant(float(LN2_HIGH)), e.add(f, y))


def _sine_and_cosine(e: Emitter, x: str) -> tuple[str, str]:
    """`sin_cos32`."""
    i = integers(e)
    octant = cast(e, "fptosi", e.mul(x, e.constant(float(FOUR_OVER_PI))), i)
    octant = i.binary("and", i.add(octant, i.constant(1)), i.constant(~1))
    multiple = e.neg(cast(i, "sitofp", octant, e))
    for part in QUARTER_PI:
        x = e.multiply_add(multiple, e.constant(float(part)), x)
    square = e.mul(x, x)
    even = e.mul(_horner(e, COS_COEFFICIENTS, square), square)
    even = e.add(e.multiply_add(even, square, e.mul(e.constant(-0.5), square)), e.constant(1.0))
    odd = e.multiply_add(e.mul(_horner(e, SIN_COEFFICIENTS, square), square), x, x)

    def has(value: str, bit: int) -> str:
        return i.compare("ne", i.binary("and", value, i.constant(bit)), i.constant(0))

    sine, cosine = e.select(has(octant, 2), even, odd), e.select(has(octant, 2), odd, even)
    after = i.sub(octant, i.constant(2))
    return (e.select(has(octant, 4), e.neg(sine), sine), e.select(has(after, 4), cosine, e.neg(cosine)))
