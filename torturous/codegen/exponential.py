"""exp, the logarithms and what is made of them, for vectors of float32 and float64.

Every function reduces its argument with steps that are exact or nearly so and then takes a polynomial (see
`coefficients`). Only operations with one rounding are used, so all machines give the same bits.
"""

from __future__ import annotations

from torturous.codegen.coefficients import COMPLEMENT_ROOT, SCALED_COMPLEMENT, TANH, numbers
from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import (
    at_least,
    at_most,
    bits,
    copy_sign,
    format_of,
    from_bits,
    has_native_parts,
    integers,
    native,
    polynomial,
    quick_two_sum,
    sign_bit,
    two_sum,
)
from torturous.core import dtypes


# Powers of e ------------------------------------------------------------------------------------------------
class _Reduced:
    """x = k·ln 2 + r with an integer k and |r| ≤ ln(2)/2, and the polynomial `exponential` at r."""

    def __init__(self, e: Emitter, x: str) -> None:
        n, form = numbers(e), format_of(e)
        # The sum has its last bit at 1: it is rounded to an integer, which stands in its low bits.
        self.shifted = e.multiply_add(x, e.constant(n.log2_e[0]), e.constant(form.magic))
        self.k = e.sub(self.shifted, e.constant(form.magic))
        self.first = e.multiply_add(self.k, e.constant(-n.log_2[0]), x)
        """x − k·(the first part of ln 2), exactly."""
        self.r = e.multiply_add(self.k, e.constant(-n.log_2[1]), self.first)
        self.tail = polynomial(e, self.r, n.exponential)

    def power(self, e: Emitter, exponent: int = 0) -> str:
        """2^(k + exponent), where that is a normal number."""
        i, form = integers(e), format_of(e)
        shifted = i.binary("shl", bits(e, self.shifted), i.constant(form.fraction))
        return from_bits(e, i.add(shifted, i.constant(form.pattern(exponent))))

    def exponential(self, e: Emitter) -> str:
        """eʳ."""
        one = e.constant(1.0)
        return e.multiply_add(e.multiply_add(self.tail, self.r, one), self.r, one)

    def scaled(self, e: Emitter) -> str:
        """eˣ, whether it is a normal number or not."""
        return scale_by_power(e, self.exponential(e), self.shifted, self.k)


def scale_by_power(e: Emitter, value: str, shifted: str, k: str) -> str:
    """value·2^k, rounded once where it becomes subnormal; `shifted` is k plus the format's magic number."""
    if has_native_parts(e):
        return native(e, "scalef", [value, k])
    i, form = integers(e), format_of(e)
    whole = i.sub(bits(e, shifted), i.constant(form.pattern(form.fraction) | 1 << (form.fraction - 1)))
    half = i.binary("ashr", whole, i.constant(1))
    for part in (half, i.sub(whole, half)):
        biased = i.binary("shl", i.add(part, i.constant(form.bias)), i.constant(form.fraction))
        value = e.mul(value, from_bits(e, biased))
    return value


def exp(e: Emitter, x: str) -> str:
    """eˣ."""
    n = numbers(e)
    reduced = _Reduced(e, at_least(e, at_most(e, x, n.overflow), n.underflow))
    return reduced.scaled(e)


def expm1(e: Emitter, x: str) -> str:
    """eˣ − 1, accurate near zero."""
    n, form = numbers(e), format_of(e)
    result = _exponential_less_one(e, at_least(e, at_most(e, x, n.overflow), -2.0 * form.fraction))
    tiny = e.compare("lt", e.abs(x), e.constant(2.0 ** (-form.fraction - 2)))
    return e.select(tiny, x, result)


def _exponential_less_one(e: Emitter, x: str) -> str:
    """eˣ − 1 for arguments within bounds and not tiny."""
    n = numbers(e)
    reduced = _Reduced(e, x)
    # 2^(k−1), because 2^k may overflow where the result does not: half the result is computed.
    half = reduced.power(e, -1)
    lead = e.multiply_add(half, reduced.first, e.sub(half, e.constant(0.5)))
    correction = e.mul(reduced.k, e.constant(-n.log_2[1]))
    rest = e.multiply_add(e.mul(reduced.r, reduced.r), reduced.tail, correction)
    result = e.multiply_add(half, rest, lead)
    return e.add(result, result)


def tanh(e: Emitter, x: str) -> str:
    """The hyperbolic tangent."""
    magnitude = e.abs(x)
    if e.dtype is dtypes.float32:
        # 1 − 2/(e^2x + 1) loses digits near zero, where a polynomial has few terms.
        double = at_most(e, e.add(magnitude, magnitude), 40.0)
        reduced = _Reduced(e, double)
        denominator = e.multiply_add(reduced.exponential(e), reduced.power(e), e.constant(1.0))
        large = e.sub(e.constant(1.0), e.binary("fdiv", e.constant(2.0), denominator))
        square = e.mul(x, x)
        small = e.multiply_add(e.mul(square, magnitude), polynomial(e, square, TANH), magnitude)
        return copy_sign(e, e.select(e.compare("lt", magnitude, e.constant(0.8)), small, large), x)
    double = at_most(e, e.add(magnitude, magnitude), 80.0)
    grown = _exponential_less_one(e, double)
    tiny = e.compare("lt", magnitude, e.constant(2.0**-56))
    result = e.binary("fdiv", grown, e.add(grown, e.constant(2.0)))
    return copy_sign(e, e.select(tiny, magnitude, result), x)


def sigmoid(e: Emitter, x: str) -> str:
    """1/(1 + e^−x), which is eˣ/(1 + eˣ): the exponential is taken where it is at most 1."""
    n = numbers(e)
    reduced = _Reduced(e, at_least(e, e.neg(e.abs(x)), n.underflow))
    small = reduced.scaled(e)
    one = e.constant(1.0)
    numerator = e.select(e.compare("lt", x, e.constant(0.0)), small, one)
    # The sum and its reciprocal are rounded; what they lack is added with the product's own rounding.
    total, lost = quick_two_sum(e, one, small)
    inverse = e.binary("fdiv", one, total)
    lack = e.multiply_add(e.neg(lost), inverse, e.multiply_add(e.neg(total), inverse, one))
    return e.multiply_add(numerator, inverse, e.mul(numerator, e.mul(inverse, lack)))


def erf(e: Emitter, x: str) -> str:
    """The error function: a polynomial up to 1, and from there one less its complement."""
    magnitude = e.abs(x)
    square = e.mul(x, x)
    small = e.multiply_add(magnitude, polynomial(e, square, numbers(e).error_function), magnitude)
    large = _beyond_one(e, magnitude) if e.dtype is dtypes.float32 else _beyond_one_in_double(e, magnitude)
    return copy_sign(e, e.select(e.compare("lt", magnitude, e.constant(1.0)), small, large), x)


def _beyond_one(e: Emitter, magnitude: str) -> str:
    """erf from 1 on in single precision: a polynomial's square is less work than an exponential."""
    centred = e.sub(at_most(e, magnitude, 4.0), e.constant(1.5))
    root = polynomial(e, centred, COMPLEMENT_ROOT)
    return e.multiply_add(e.neg(root), root, e.constant(1.0))


def _beyond_one_in_double(e: Emitter, magnitude: str) -> str:
    """erf from 1 on as 1 − exp(−x²)·(erfc(x)·exp(x²))."""
    bounded = at_most(e, magnitude, 6.0)
    reduced = _Reduced(e, e.neg(e.mul(bounded, bounded)))
    decay = e.mul(reduced.exponential(e), reduced.power(e))
    scaled = polynomial(e, e.sub(bounded, e.constant(2.0)), SCALED_COMPLEMENT)
    return e.multiply_add(e.neg(decay), scaled, e.constant(1.0))


# Logarithms -------------------------------------------------------------------------------------------------
def separate(e: Emitter, x: str) -> tuple[str, str, str]:
    """x = 2^k·m with 3/4 ≤ m < 3/2 for positive normal x: k as a number, m, and k in the exponent's place."""
    i, form = integers(e), format_of(e)
    pattern = bits(e, x)
    # Half a significand more carries into the exponent from 3/2 on.
    raised = i.add(pattern, i.constant(1 << (form.fraction - 1)))
    field = i.binary("and", raised, i.constant(-1 << form.fraction))
    shift = i.sub(field, i.constant(form.pattern(0)))
    number = i.binary("lshr", field, i.constant(form.fraction))
    magic = form.pattern(form.fraction) | 1 << (form.fraction - 1)
    k = e.sub(from_bits(e, i.add(number, i.constant(magic - form.bias))), e.constant(form.magic))
    return k, from_bits(e, i.sub(pattern, shift)), shift


def _separate_any(e: Emitter, x: str) -> tuple[str, str]:
    """`separate` where x may be subnormal too."""
    form = format_of(e)
    small = e.compare("lt", x, e.constant(2.0 ** (1 - form.bias)))
    raised = e.select(small, e.mul(x, e.constant(2.0 ** (form.fraction + 1))), x)
    k, m, _ = separate(e, raised)
    return e.select(small, e.sub(k, e.constant(form.fraction + 1.0)), k), m


def _settle(e: Emitter, x: str, result: str) -> str:
    """The logarithm where x is positive and finite, and what IEEE 754 says elsewhere."""
    infinity, zero = e.constant(float("inf")), e.constant(0.0)
    result = e.select(e.compare("eq", x, infinity), infinity, result)
    other = e.select(e.compare("eq", x, zero), e.constant(float("-inf")), e.constant(float("nan")))
    return e.select(e.compare("gt", x, zero), result, other)


def _combine(
    e: Emitter, k: str, f: str, two: tuple[float, ...], base: tuple[float, float] | None
) -> str:
    """log(2^k·(1 + f)) to the base whose log(2) is `two`, in parts, and log(e) is `base` (None: base e)."""
    curved = e.mul(e.mul(f, f), polynomial(e, f, numbers(e).logarithm))
    if base is None:
        near = e.add(f, e.multiply_add(k, e.constant(two[1]), curved))
    else:
        small = e.mul(f, e.constant(base[1]))
        if len(two) > 1:
            small = e.multiply_add(k, e.constant(two[1]), small)
        near = e.multiply_add(f, e.constant(base[0]), e.multiply_add(curved, e.constant(base[0]), small))
    return e.multiply_add(k, e.constant(two[0]), near)


def _logarithm(
    e: Emitter, x: str, two: tuple[float, ...], base: tuple[float, float] | None = None
) -> str:
    one = e.constant(1.0)
    if has_native_parts(e):
        # Significand in [3/4, 3/2), NaN for negative numbers; the exponents of 0 and infinity are infinite,
        # and with them everything special comes out right by itself.
        m = native(e, "getmant", [x], 0b1011)
        k = e.sub(native(e, "getexp", [x]), native(e, "getexp", [m]))
        return _combine(e, k, e.sub(m, one), two, base)
    k, m = _separate_any(e, x)
    return _settle(e, x, _combine(e, k, e.sub(m, one), two, base))


def log(e: Emitter, x: str) -> str:
    """The natural logarithm."""
    return _logarithm(e, x, numbers(e).log_2, None)


def log2(e: Emitter, x: str) -> str:
    """The logarithm to base 2; exact for powers of 2."""
    return _logarithm(e, x, (1.0,), numbers(e).log2_e)


def log10(e: Emitter, x: str) -> str:
    """The logarithm to base 10."""
    return _logarithm(e, x, numbers(e).log10_2, numbers(e).log10_e)


def log1p(e: Emitter, x: str) -> str:
    """ln(1 + x), accurate near zero."""
    i, form = integers(e), format_of(e)
    one = e.constant(1.0)
    u, error = two_sum(e, one, x)
    k, m, shift = separate(e, u)
    inverse = i.sub(i.constant(form.pattern(0)), shift)
    inverse = from_bits(e, i.maximum(inverse, i.constant(0)))  # the largest u would give a negative pattern
    f = e.multiply_add(error, inverse, e.sub(m, one))
    result = _settle(e, u, _combine(e, k, f, numbers(e).log_2, None))
    # The sign of the result is that of x, also for −0.
    return from_bits(e, i.binary("or", bits(e, result), sign_bit(e, x)))
