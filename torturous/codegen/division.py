"""Quotients and remainders: of integers without traps, and of floats without the C library's `fmod`."""

from __future__ import annotations

from torturous.codegen.builder import Builder
from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import (
    any_lane,
    both,
    cast,
    companion,
    copy_sign,
    define_once,
    differ,
    format_of,
    lane,
    rarely,
    with_lane,
)
from torturous.codegen.rounding import float_to_integer, floor, trunc
from torturous.core import dtypes


def integer_quotient(e: Emitter, a: str, b: str) -> str:
    """The quotient toward zero. Nothing traps: division by zero gives 0, the smallest integer by −1 wraps."""
    zero = e.constant(0)
    by_zero = e.compare("eq", b, zero)
    if e.dtype is dtypes.int64:
        return e.select(by_zero, zero, _quotient_of_words(e, a, b, by_zero))
    # 8 and 32 bits are exact in float and double, and so is the integer part of the rounded quotient.
    wide = companion(e, dtypes.float32 if e.dtype is dtypes.uint8 else dtypes.float64)
    instruction = "sitofp" if e.dtype.signed else "uitofp"
    quotient = wide.binary("fdiv", cast(e, instruction, a, wide), cast(e, instruction, b, wide))
    whole = float_to_integer(e.builder, quotient, wide.dtype, e.dtype, e.lanes)
    return e.select(by_zero, zero, whole)


def _quotient_of_words(e: Emitter, a: str, b: str, by_zero: str) -> str:
    """Machine division, with 1 in the place of the divisors 0 and −1, on which it may trap."""
    minus = e.compare("eq", b, e.constant(-1))
    risky = e.builder.value(f"or {e.mask} {minus}, {by_zero}")
    quotient = e.binary("sdiv", a, e.select(risky, e.constant(1), b))
    return e.select(minus, e.neg(a), quotient)


def _integer_floor_and_remainder(e: Emitter, a: str, b: str) -> tuple[str, str]:
    quotient = integer_quotient(e, a, b)
    zero = e.constant(0)
    rest = e.sub(a, e.mul(quotient, b))
    rest = e.select(e.compare("eq", b, zero), zero, rest)
    if not e.dtype.signed:
        return quotient, rest
    opposite = e.compare("lt", e.binary("xor", rest, b), zero)
    lower = both(e, e.compare("ne", rest, zero), opposite)
    return (e.select(lower, e.sub(quotient, e.constant(1)), quotient),
            e.select(lower, e.add(rest, b), rest))


def floor_divide(e: Emitter, a: str, b: str) -> str:
    """The quotient toward −∞, computed as Python does for floats; integers divided by zero give 0."""
    if not e.floating:
        return _integer_floor_and_remainder(e, a, b)[0]
    zero, one = e.constant(0.0), e.constant(1.0)
    plain = e.binary("fdiv", a, b)
    rest = truncated_remainder(e, a, b)
    infinity = e.constant(float("inf"))
    overflow = both(e, e.compare("eq", e.abs(plain), infinity), e.compare("ne", e.abs(a), infinity))
    quotient = e.binary("fdiv", e.select(overflow, a, e.sub(a, rest)), b)
    lower = _needs_divisor(e, rest, b)
    quotient = e.select(lower, e.sub(quotient, one), quotient)
    whole = floor(e, quotient)
    # The quotient was rounded: it may lie just under the integer that it stands for.
    whole = e.select(e.compare("gt", e.sub(quotient, whole), e.constant(0.5)), e.add(whole, one), whole)
    whole = e.select(e.compare("eq", quotient, zero), copy_sign(e, zero, plain), whole)
    return e.select(e.compare("eq", b, zero), plain, whole)


def _needs_divisor(e: Emitter, rest: str, b: str) -> str:
    """Where a truncated remainder is not zero and not of the divisor's sign."""
    zero = e.constant(0.0)
    opposite = differ(e, e.compare("lt", b, zero), e.compare("lt", rest, zero))
    return both(e, e.compare("ne", rest, zero), opposite)


def remainder(e: Emitter, a: str, b: str) -> str:
    """a − b·⌊a/b⌋ with the divisor's sign, as Python's %; integers modulo zero give 0, floats NaN.

    Exact before a possible addition of b, also where PyTorch's vectors give NaN because a/b overflows.
    """
    if not e.floating:
        return _integer_floor_and_remainder(e, a, b)[1]
    rest = truncated_remainder(e, a, b)
    lower = _needs_divisor(e, rest, b)
    return e.select(lower, e.add(rest, b), rest)


def truncated_remainder(e: Emitter, a: str, b: str) -> str:
    """The exact a − b·trunc(a/b), with the sign of a: C's fmod."""
    form = format_of(e)
    dividend, divisor = e.abs(a), e.abs(b)
    ratio = e.binary("fdiv", dividend, divisor)
    # Below this the truncated ratio is right or one too large, and the fused step gives the rest exactly.
    quotient = trunc(e, ratio)
    rest = e.multiply_add(e.neg(quotient), divisor, dividend)
    rest = e.select(e.compare("lt", rest, e.constant(0.0)), e.add(rest, divisor), rest)
    rest = e.select(e.compare("lt", dividend, divisor), dividend, rest)
    infinity = e.constant(float("inf"))
    huge = both(e, e.compare("ge", ratio, e.constant(2.0 ** (form.fraction - 1))),
                both(e, e.compare("lt", dividend, infinity), e.compare("gt", divisor, e.constant(0.0))))

    def slowly() -> list[str]:
        safe_dividend = e.select(huge, dividend, e.constant(1.0))
        safe_divisor = e.select(huge, divisor, e.constant(1.0))
        result = e.constant(0.0)
        for index in range(e.lanes):
            pair = [_as_double(e, lane(e, value, index)) for value in (safe_dividend, safe_divisor)]
            exact = e.builder.call("double", _define_long_division(e.builder), *[("double", x) for x in pair])
            if e.dtype is dtypes.float32:
                exact = e.builder.value(f"fptrunc double {exact} to float")
            result = with_lane(e, result, exact, index)
        return [e.select(huge, result, rest)]

    [rest] = rarely(e, any_lane(e, huge), [(e.kind, rest)], slowly)
    return copy_sign(e, rest, a)


def _as_double(e: Emitter, scalar: str) -> str:
    return scalar if e.dtype is dtypes.float64 else e.builder.value(f"fpext float {scalar} to double")


_LONG_DIVISION = """
; The remainder of two positive finite numbers, the first not smaller: long division of the significands,
; eleven bits of the quotient at a time.
define internal double @torturous_long_division(double %a, double %b) cold #0 {
entry:
  %a_bits = bitcast double %a to i64
  %b_bits = bitcast double %b to i64
  %a_field = lshr i64 %a_bits, 52
  %b_field = lshr i64 %b_bits, 52
  %a_fraction = and i64 %a_bits, 4503599627370495
  %b_fraction = and i64 %b_bits, 4503599627370495
  %a_normal = icmp ne i64 %a_field, 0
  %b_normal = icmp ne i64 %b_field, 0
  %a_leading = select i1 %a_normal, i64 4503599627370496, i64 0
  %b_leading = select i1 %b_normal, i64 4503599627370496, i64 0
  %a_whole = or i64 %a_fraction, %a_leading
  %b_whole = or i64 %b_fraction, %b_leading
  %a_exponent = select i1 %a_normal, i64 %a_field, i64 1
  %b_exponent = select i1 %b_normal, i64 %b_field, i64 1
  %distance = sub i64 %a_exponent, %b_exponent
  %start = urem i64 %a_whole, %b_whole
  br label %look

look:
  %left = phi i64 [ %distance, %entry ], [ %still_left, %divide ]
  %rest = phi i64 [ %start, %entry ], [ %next_rest, %divide ]
  %more = icmp sgt i64 %left, 0
  br i1 %more, label %divide, label %done

divide:
  %few = icmp slt i64 %left, 11
  %step = select i1 %few, i64 %left, i64 11
  %shifted = shl i64 %rest, %step
  %next_rest = urem i64 %shifted, %b_whole
  %still_left = sub i64 %left, %step
  br label %look

done:
  %number = sitofp i64 %rest to double
  %fraction = fmul double %number, 0x3CB0000000000000
  %scale_bits = shl i64 %b_exponent, 52
  %scale = bitcast i64 %scale_bits to double
  %result = fmul double %fraction, %scale
  ret double %result
}
"""


def _define_long_division(builder: Builder) -> str:
    define_once(builder, "torturous_long_division", _LONG_DIVISION)
    return "torturous_long_division"
