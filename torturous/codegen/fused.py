"""a·b + c with one rounding, on machines with and without the instruction.

Where the machine has none, LLVM would call `fma` of the C library lane by lane. The emulations below give the
same bits as the instruction, subnormal numbers, infinities and NaN included; they are written once per module
as an internal function.
"""

from __future__ import annotations

from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import (
    bits,
    both,
    cast,
    companion,
    copy_sign,
    differ,
    either,
    format_of,
    from_bits,
    integers,
    outlined,
    two_sum,
)
from torturous.core import dtypes


def fused_multiply_add(e: Emitter, a: str, b: str, c: str) -> str:
    """a·b + c rounded once, to nearest, ties to even; float32 and float64."""
    if e.builder.target.has_fma:
        return e.intrinsic("fma", a, b, c)
    if e.dtype is dtypes.float32:
        return outlined(e, "fma", _through_double, a, b, c)
    return outlined(e, "fma", _error_free, a, b, c)


def _sum_to_odd(e: Emitter, a: str, b: str) -> str:
    """a + b rounded to odd: toward zero, and the last bit set if that was not exact.

    A number rounded to odd with two bits to spare can be rounded again without harm (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums", 2008).
    """
    i = integers(e)
    total, error = two_sum(e, a, b)
    zero = e.constant(0.0)
    inexact = e.builder.value(f"fcmp one {e.kind} {error}, zeroinitializer")  # not where the sum is infinite
    lower = differ(e, e.compare("lt", error, zero), e.compare("lt", total, zero))
    pattern = bits(e, total)
    toward_zero = i.sub(pattern, i.constant(1))
    pattern = i.select(both(e, inexact, lower), toward_zero, pattern)
    odd = i.binary("or", pattern, i.constant(1))
    return from_bits(e, i.select(inexact, odd, pattern))


def _through_double(e: Emitter, a: str, b: str, c: str) -> str:
    """The product of two floats is exact in double; their sum is rounded to odd there, then to float."""
    wide = companion(e, dtypes.float64)
    a, b, c = (cast(e, "fpext", value, wide) for value in (a, b, c))
    return cast(wide, "fptrunc", _sum_to_odd(wide, wide.mul(a, b), c), e)


def _split(e: Emitter, x: str) -> tuple[str, str]:
    """Halves of 26 bits whose sum is x (Veltkamp)."""
    scaled = e.mul(x, e.constant(2.0**27 + 1))
    high = e.sub(scaled, e.sub(scaled, x))
    return high, e.sub(x, high)


def _product(e: Emitter, a: str, b: str) -> tuple[str, str]:
    """a·b and its exact error, for arguments far from overflow and underflow (Dekker)."""
    product = e.mul(a, b)
    a_high, a_low = _split(e, a)
    b_high, b_low = _split(e, b)
    error = e.sub(e.mul(a_high, b_high), product)
    error = e.add(e.add(error, e.mul(a_high, b_low)), e.mul(a_low, b_high))
    return product, e.add(error, e.mul(a_low, b_low))


def _power(e: Emitter, exponent: str) -> str:
    """2^exponent for an integer within the normal range."""
    i, form = integers(e), format_of(e)
    biased = i.add(exponent, i.constant(form.bias))
    return from_bits(e, i.binary("shl", biased, i.constant(form.fraction)))


def _within(i: Emitter, value: str, low: int, high: int) -> str:
    value = i.select(i.compare("lt", value, i.constant(low)), i.constant(low), value)
    return i.select(i.compare("gt", value, i.constant(high)), i.constant(high), value)


def _separate(e: Emitter, x: str) -> tuple[str, str]:
    """x = m·2^k with 1 ≤ |m| < 2 and an integer k; m = 0 for zero. Not for infinity and NaN."""
    i, form = integers(e), format_of(e)
    small = e.compare("lt", e.abs(x), e.constant(2.0**-1022))
    x = e.select(small, e.mul(x, e.constant(2.0**64)), x)
    pattern = bits(e, x)
    exponent = i.binary("lshr", pattern, i.constant(form.fraction))
    exponent = i.sub(i.binary("and", exponent, i.constant(2047)), i.constant(form.bias))
    mantissa = i.binary("and", pattern, i.constant(form.sign | ((1 << form.fraction) - 1)))
    mantissa = from_bits(e, i.binary("or", mantissa, i.constant(form.pattern(0))))
    mantissa = e.select(e.compare("eq", x, e.constant(0.0)), x, mantissa)
    return mantissa, i.select(small, i.sub(exponent, i.constant(64)), exponent)


def _error_free(e: Emitter, a: str, b: str, c: str) -> str:
    """In float64 alone: exact product, exact sums, one rounding where the result's last bit will be.

    All is scaled so that the product lies in [1, 4) and nothing overflows or loses bits on the way.
    """
    i = integers(e)
    zero, infinity = e.constant(0.0), e.constant(float("inf"))
    finite = both(e, e.compare("lt", e.abs(a), infinity), e.compare("lt", e.abs(b), infinity))
    simple = either(e, e.compare("eq", a, zero), e.compare("eq", b, zero))
    ordinary = both(e, finite, e.compare("lt", e.abs(c), infinity))
    plain = e.select(both(e, finite, e.compare("ne", e.sub(c, c), zero)), c, e.add(e.mul(a, b), c))

    a_part, a_exponent = _separate(e, a)
    b_part, b_exponent = _separate(e, b)
    c_part, c_exponent = _separate(e, c)
    product_exponent = i.add(a_exponent, b_exponent)
    # Beyond these distances the smaller of product and c only tells on which side of a tie the sum lies.
    distance = _within(i, i.sub(c_exponent, product_exponent), -120, 120)
    is_zero = e.compare("eq", c, zero)
    exponent = i.select(is_zero, product_exponent, i.sub(c_exponent, distance))
    exponent = i.select(i.compare("gt", product_exponent, exponent), product_exponent, exponent)
    addend = e.mul(c_part, _power(e, distance))

    high, low = _product(e, a_part, b_part)
    upper, upper_error = two_sum(e, addend, low)
    total, total_error = two_sum(e, high, upper)
    rest = _sum_to_odd(e, total_error, upper_error)
    rounded = e.add(total, rest)

    # Where the result is subnormal, the smallest normal number added first puts the rounding in its place.
    quantum = _within(i, i.sub(i.constant(-1074), exponent), -300, 300)
    limit = _power(e, i.add(quantum, i.constant(52)))
    anchor = e.select(e.compare("lt", e.abs(rounded), limit), copy_sign(e, limit, rounded), zero)
    anchored, anchor_error = two_sum(e, anchor, total)
    result = e.sub(e.add(anchored, _sum_to_odd(e, anchor_error, rest)), anchor)

    exponent = _within(i, exponent, -1400, 1400)
    half = i.binary("ashr", exponent, i.constant(1))
    result = e.mul(e.mul(result, _power(e, half)), _power(e, i.sub(exponent, half)))
    result = copy_sign(e, result, rounded)
    return e.select(simple, plain, e.select(ordinary, result, plain))
