"""Powers: floats to floats, and integers by repeated squaring."""

from __future__ import annotations

from torturous.codegen.coefficients import ARTANH, EXP2, LOG2, ONE_THIRD, numbers
from torturous.codegen.emitter import Emitter
from torturous.codegen.exponential import scale_by_power, separate
from torturous.codegen.lanes import (
    any_lane,
    at_least,
    at_most,
    bits,
    both,
    cast,
    companion,
    differ,
    either,
    format_of,
    from_bits,
    integers,
    polynomial,
    quick_two_sum,
    two_product,
    two_sum,
)
from torturous.codegen.rounding import trunc
from torturous.core import dtypes


def pow(e: Emitter, a: str, b: str) -> str:
    """aᵇ, with IEEE 754's special cases for floats; integers wrap, negative b gives 0 unless a is ±1."""
    if not e.floating:
        return _integer_power(e, a, b)
    magnitude = e.abs(a)
    ordinary = _through_double if e.dtype is dtypes.float32 else _in_pairs
    return _settle(e, a, b, magnitude, ordinary(e, magnitude, b))


def _settle(e: Emitter, a: str, b: str, magnitude: str, result: str) -> str:
    """The power, given that of |a| for finite b and 0 < |a| < ∞."""
    i, form = integers(e), format_of(e)
    zero, one, infinity = e.constant(0.0), e.constant(1.0), e.constant(float("inf"))
    # Zero or infinity to any power, and anything to ±infinity, is infinite where base and exponent agree.
    endless = either(e, e.compare("eq", e.abs(b), infinity),
                     either(e, e.compare("eq", magnitude, infinity), e.compare("eq", magnitude, zero)))
    agree = differ(e, e.compare("gt", magnitude, one), e.compare("lt", b, zero))
    result = e.select(endless, e.select(agree, infinity, zero), result)
    # Whole numbers to whole numbers may be negative; others have no real root.
    whole = e.compare("eq", trunc(e, b), b)
    half = e.mul(b, e.constant(0.5))
    odd = both(e, whole, e.compare("ne", trunc(e, half), half))
    negative = i.compare("lt", bits(e, a), i.constant(0))
    flipped = from_bits(e, i.binary("or", bits(e, result), i.constant(form.sign)))
    result = e.select(both(e, odd, negative), flipped, result)
    rootless = both(e, e.compare("lt", a, zero), e.compare("lt", magnitude, infinity))
    fractional = e.compare("ne", trunc(e, b), b)
    result = e.select(both(e, rootless, fractional), e.constant(float("nan")), result)
    # NaN in, NaN out, but for 1 to any power and any number to the power of 0.
    unordered = e.builder.value(f"fcmp uno {e.kind} {a}, {b}")
    result = e.select(unordered, e.add(a, b), result)
    trivial = either(e, e.compare("eq", a, one), e.compare("eq", b, zero))
    balanced = both(e, e.compare("eq", magnitude, one), e.compare("eq", e.abs(b), infinity))
    return e.select(either(e, trivial, balanced), one, result)


def _through_double(e: Emitter, a: str, b: str) -> str:
    """2^(b·log₂ a) of float32 in float64, good to 2^-33 before it is rounded."""
    wide = companion(e, dtypes.float64)
    i, form = integers(wide), format_of(wide)
    a, b = cast(e, "fpext", a, wide), cast(e, "fpext", b, wide)
    k, m, _ = separate(wide, a)  # every float is a normal double
    f = wide.sub(m, wide.constant(1.0))
    logarithm = wide.multiply_add(polynomial(wide, f, LOG2), f, k)
    exponent = at_least(wide, at_most(wide, wide.mul(b, logarithm), 200.0), -200.0)
    shifted = wide.add(exponent, wide.constant(form.magic))
    r = wide.sub(exponent, wide.sub(shifted, wide.constant(form.magic)))
    whole = i.binary("shl", bits(wide, shifted), i.constant(form.fraction))
    power = from_bits(wide, i.add(whole, i.constant(form.pattern(0))))
    return cast(wide, "fptrunc", wide.mul(polynomial(wide, r, EXP2), power), e)


# float64: numbers as unevaluated sums of two ----------------------------------------------------------------
def _logarithm_pair(e: Emitter, a: str) -> tuple[str, str]:
    """ln a to about 2^-66 relative, as a number and what it lacks.

    With s = f/(2 + f), ln(1 + f) = 2·artanh(s) = 2s + 2s³/3 + s⁵·(…): the first two terms are taken in pairs.
    """
    n = numbers(e)
    small = e.compare("lt", a, e.constant(2.0**-1022))
    k, m, _ = separate(e, e.select(small, e.mul(a, e.constant(2.0**54)), a))
    k = e.select(small, e.sub(k, e.constant(54.0)), k)
    f = e.sub(m, e.constant(1.0))
    denominator, denominator_low = quick_two_sum(e, e.constant(2.0), f)
    s = e.binary("fdiv", f, denominator)
    lack = e.multiply_add(e.neg(s), denominator, f)
    lack = e.multiply_add(e.neg(s), denominator_low, lack)
    s_low = e.binary("fdiv", lack, denominator)

    square, square_low = two_product(e, s, s)
    square_low = e.multiply_add(e.add(s, s), s_low, square_low)
    # 1/3 + s²·(…) as a pair, then times s³ and doubled.
    curve = e.mul(square, polynomial(e, square, ARTANH))
    third, third_low = quick_two_sum(e, e.constant(ONE_THIRD[0]), curve)
    third_low = e.add(third_low, e.constant(ONE_THIRD[1]))
    cube, cube_low = two_product(e, square, s)
    cube_low = e.add(cube_low, e.multiply_add(square, s_low, e.mul(square_low, s)))
    term, term_low = two_product(e, cube, third)
    term_low = e.add(term_low, e.multiply_add(cube, third_low, e.mul(cube_low, third)))

    total, rest = quick_two_sum(e, s, term)
    rest = e.add(rest, e.add(s_low, term_low))
    total, rest = e.add(total, total), e.add(rest, rest)
    # k·ln 2 in a pair; the sum of the two is never much smaller than its parts.
    whole, whole_low = two_product(e, k, e.constant(n.log_2[0]))
    whole_low = e.multiply_add(k, e.constant(n.log_2[1]), whole_low)
    high, low = two_sum(e, whole, total)
    return quick_two_sum(e, high, e.add(low, e.add(whole_low, rest)))


def _in_pairs(e: Emitter, a: str, b: str) -> str:
    """exp(b·ln a) in float64, the exponent being a pair."""
    n, form = numbers(e), format_of(e)
    logarithm, logarithm_low = _logarithm_pair(e, a)
    # A bound on b that changes no result keeps the exact product from overflowing.
    b = at_least(e, at_most(e, b, 2.0**66), -(2.0**66))
    exponent = e.mul(b, logarithm)
    bounded = at_least(e, at_most(e, exponent, n.overflow), n.underflow)
    error = e.multiply_add(b, logarithm, e.neg(exponent))
    error = e.multiply_add(b, logarithm_low, error)
    error = e.select(e.compare("eq", bounded, exponent), error, e.constant(0.0))
    shifted = e.multiply_add(bounded, e.constant(n.log2_e[0]), e.constant(form.magic))
    k = e.sub(shifted, e.constant(form.magic))
    first = e.multiply_add(k, e.constant(-n.log_2[0]), bounded)
    r, r_low = two_sum(e, first, e.multiply_add(k, e.constant(-n.log_2[1]), error))
    one = e.constant(1.0)
    # e^(r + r_low) = 1 + r + (r²·(…) + r_low·eʳ)
    tail = e.mul(e.mul(r, r), polynomial(e, r, n.exponential))
    curve = e.add(tail, e.multiply_add(r_low, r, r_low))
    return scale_by_power(e, e.add(one, e.add(r, curve)), shifted, k)


# Integers ---------------------------------------------------------------------------------------------------
def _integer_power(e: Emitter, a: str, b: str) -> str:
    """By repeated squaring, as long as some lane has bits of its exponent left."""
    builder = e.builder
    zero, one = e.constant(0), e.constant(1)
    negative = e.compare("lt", b, zero)
    initial = (one, a, e.select(negative, zero, b))
    before, header, body, after = builder.block, *map(builder.label, ("power", "square", "raised"))
    builder.emit(f"br label %{header}")
    builder.start_block(header)
    place = len(builder.lines)
    builder.lines += [""] * len(initial)  # the phi nodes, once the values that come round have names
    result, base, exponent = names = [builder.label("%power") for _ in initial]
    builder.emit(f"br i1 {any_lane(e, e.compare('ne', exponent, zero))}, label %{body}, label %{after}")
    builder.start_block(body)
    odd = e.compare("ne", e.binary("and", exponent, one), zero)
    product, square = e.mul(result, base), e.mul(base, base)
    following = (e.select(odd, product, result), square, e.binary("lshr", exponent, one))
    builder.emit(f"br label %{header}")
    builder.lines[place : place + len(initial)] = [
        f"  {name} = phi {e.kind} [ {first}, %{before} ], [ {later}, %{body} ]"
        for name, first, later in zip(names, initial, following, strict=True)
    ]
    builder.start_block(after)
    if not e.dtype.signed:
        return result
    # A negative exponent: 1/aⁿ, whose integer part is 0 unless a is 1 or −1.
    minus = e.constant(-1)
    alternating = e.select(e.compare("ne", e.binary("and", b, one), zero), minus, one)
    inverse = e.select(e.compare("eq", a, minus), alternating, zero)
    inverse = e.select(e.compare("eq", a, one), one, inverse)
    return e.select(negative, inverse, result)
