"""The inverses of trigonometric and hyperbolic functions, for vectors of float32 and float64."""

from __future__ import annotations

from torturous.codegen.coefficients import ARCSINE, ARCTANGENT, numbers
from torturous.codegen.emitter import Emitter
from torturous.codegen.exponential import log1p
from torturous.codegen.lanes import copy_sign, either, format_of, integers, polynomial, sign_bit

NEAR = 0.41421356237309503
"""tan(π/8): up to here the arctangent is a polynomial, beyond it π/4 or π/2 less that of something smaller."""


# Arctangent -------------------------------------------------------------------------------------------------
def _arctangent(e: Emitter, w: str, base: str, base_low: str) -> str:
    """base + base_low + arctan w for |w| ≤ tan(π/8)."""
    square = e.mul(w, w)
    curve = e.mul(square, polynomial(e, square, ARCTANGENT[e.dtype]))
    return e.add(base, e.add(w, e.multiply_add(w, curve, base_low)))


def _parts_of_half_pi(e: Emitter, times: float) -> tuple[str, str]:
    first, second, _ = numbers(e).half_pi
    return e.constant(times * first), e.constant(times * second)


def atan(e: Emitter, x: str) -> str:
    """The arctangent, between −π/2 and π/2."""
    t, one, zero = e.abs(x), e.constant(1.0), e.constant(0.0)
    near, far = e.compare("le", t, e.constant(NEAR)), e.compare("gt", t, e.constant(1 / NEAR))
    numerator = e.select(near, t, e.select(far, e.constant(-1.0), e.sub(t, one)))
    denominator = e.select(near, one, e.select(far, t, e.add(t, one)))
    (half, half_low), (quarter, quarter_low) = _parts_of_half_pi(e, 1.0), _parts_of_half_pi(e, 0.5)
    base = e.select(near, zero, e.select(far, half, quarter))
    base_low = e.select(near, zero, e.select(far, half_low, quarter_low))
    return copy_sign(e, _arctangent(e, e.binary("fdiv", numerator, denominator), base, base_low), x)


def atan2(e: Emitter, y: str, x: str) -> str:
    """The angle of the point (x, y), between −π and π; signs of zeros count, as IEEE 754 has it."""
    form, zero, one = format_of(e), e.constant(0.0), e.constant(1.0)
    up, across = e.abs(y), e.abs(x)
    steep = e.compare("gt", up, across)
    longer, shorter = e.select(steep, up, across), e.select(steep, across, up)
    # Powers of two keep the sum below from overflowing, and both from losing bits.
    large, small = e.constant(2.0 ** (form.bias // 2)), e.constant(2.0 ** (-form.bias // 2))
    scale = e.select(e.compare("gt", longer, large), small, e.select(e.compare("lt", longer, small), large, one))
    longer, shorter = e.mul(longer, scale), e.mul(shorter, scale)
    infinite = e.compare("eq", shorter, e.constant(float("inf")))
    longer, shorter = e.select(infinite, one, longer), e.select(infinite, one, shorter)
    nothing = e.compare("eq", longer, zero)
    near = e.compare("le", shorter, e.mul(longer, e.constant(NEAR)))
    numerator = e.select(near, shorter, e.sub(shorter, longer))
    denominator = e.select(nothing, one, e.select(near, longer, e.add(shorter, longer)))
    w = e.binary("fdiv", numerator, denominator)
    # angle = base ± w: of the steep it is taken from π/2, of those to the left from π.
    left = integers(e).compare("ne", sign_bit(e, x), integers(e).constant(0))
    turned = e.builder.value(f"xor {e.mask} {steep}, {left}")
    w = e.select(turned, e.neg(w), w)
    bases = []
    for quarter, half, whole, three_quarters in zip(
            _parts_of_half_pi(e, 0.5), _parts_of_half_pi(e, 1.0), _parts_of_half_pi(e, 2.0), _three_quarters(e),
            strict=True):
        flat = e.select(left, whole, zero)
        diagonal = e.select(left, three_quarters, quarter)
        bases.append(e.select(near, e.select(steep, half, flat), diagonal))
    angle = _arctangent(e, w, *bases)
    angle = e.select(either(e, e.compare("ne", x, x), e.compare("ne", y, y)), e.constant(float("nan")), angle)
    return copy_sign(e, angle, y)


def _three_quarters(e: Emitter) -> tuple[str, str]:
    """3π/4 in two parts."""
    first, second, _ = numbers(e).half_pi
    half = 0.5 * first
    nearest = e.dtype.numpy.type(first + half)
    return e.constant(float(nearest)), e.constant((first - float(nearest)) + half + 1.5 * second)


# Arcsine and arccosine --------------------------------------------------------------------------------------
def _half_angle(e: Emitter, t: str) -> tuple[str, str, str, str]:
    """Whether t ≥ 0 is at most 1/2; s with arcsin t = arcsin s there, else π/2 − 2·arcsin s; s² and s³·(…)."""
    small = e.compare("le", t, e.constant(0.5))
    rest = e.mul(e.sub(e.constant(1.0), t), e.constant(0.5))
    square = e.select(small, e.mul(t, t), rest)
    s = e.select(small, t, e.intrinsic("sqrt", rest))
    curve = e.mul(e.mul(square, polynomial(e, square, ARCSINE[e.dtype])), s)
    return small, s, square, curve


def asin(e: Emitter, x: str) -> str:
    """The arcsine, between −π/2 and π/2; NaN outside −1 … 1."""
    small, s, square, curve = _half_angle(e, e.abs(x))
    half, half_low = _parts_of_half_pi(e, 1.0)
    lack = _root_lack(e, s, square)
    two = e.constant(2.0)
    large = e.sub(half, e.sub(e.mul(two, s), e.sub(half_low, e.mul(two, e.add(curve, lack)))))
    return copy_sign(e, e.select(small, e.add(s, curve), large), x)


def acos(e: Emitter, x: str) -> str:
    """The arccosine, between 0 and π; NaN outside −1 … 1."""
    small, s, square, curve = _half_angle(e, e.abs(x))
    half, half_low = _parts_of_half_pi(e, 1.0)
    pi, pi_low = _parts_of_half_pi(e, 2.0)
    negative = e.compare("lt", x, e.constant(0.0))
    curve = e.add(curve, e.select(small, e.constant(0.0), _root_lack(e, s, square)))
    signed, signed_curve = copy_sign(e, s, x), copy_sign(e, curve, x)
    across = e.sub(half, e.sub(signed, e.sub(half_low, signed_curve)))
    two = e.constant(2.0)
    beside = e.mul(two, e.add(s, curve))
    opposite = e.sub(pi, e.sub(e.mul(two, s), e.sub(pi_low, e.mul(two, curve))))
    return e.select(small, across, e.select(negative, opposite, beside))


def _root_lack(e: Emitter, s: str, square: str) -> str:
    """What the square root s lacks, 0 for s = 0."""
    zero = e.constant(0.0)
    lack = e.binary("fdiv", e.multiply_add(e.neg(s), s, square), e.add(s, s))
    return e.select(e.compare("gt", s, zero), lack, zero)


# Hyperbolic -------------------------------------------------------------------------------------------------
def _large(e: Emitter) -> float:
    """Beyond this, 1 does not show beside a square, and hardly beside the number."""
    return 2.0 ** (format_of(e).fraction + 8)


def asinh(e: Emitter, x: str) -> str:
    """The inverse hyperbolic sine."""
    t, one = e.abs(x), e.constant(1.0)
    far = e.compare("gt", t, e.constant(_large(e)))
    square = e.mul(t, t)
    near = e.add(t, e.binary("fdiv", square, e.add(one, e.intrinsic("sqrt", e.add(one, square)))))
    return copy_sign(e, _doubled_logarithm(e, far, t, near), x)


def acosh(e: Emitter, x: str) -> str:
    """The inverse hyperbolic cosine; NaN below 1."""
    one = e.constant(1.0)
    far = e.compare("gt", x, e.constant(_large(e)))
    above = e.sub(x, one)
    near = e.add(above, e.intrinsic("sqrt", e.mul(above, e.add(x, one))))
    result = _doubled_logarithm(e, far, x, near)
    return e.select(e.compare("lt", x, one), e.constant(float("nan")), result)


def _doubled_logarithm(e: Emitter, far: str, t: str, near: str) -> str:
    """ln(1 + near), or ln(2t) where t is far from 0."""
    two = e.select(far, e.constant(0.6931471805599453), e.constant(0.0))
    return e.add(log1p(e, e.select(far, t, near)), two)


def atanh(e: Emitter, x: str) -> str:
    """The inverse hyperbolic tangent; infinite at ±1, NaN beyond."""
    t = e.abs(x)
    grown = e.binary("fdiv", e.add(t, t), e.sub(e.constant(1.0), t))
    return copy_sign(e, e.mul(log1p(e, grown), e.constant(0.5)), x)
