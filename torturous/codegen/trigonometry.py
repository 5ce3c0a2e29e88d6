"""Sine and cosine for vectors of float32 and float64, of any finite angle."""

from __future__ import annotations

from functools import cache

from torturous.codegen.builder import Builder
from torturous.codegen.coefficients import numbers
from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import (
    any_lane,
    bits,
    both,
    define_once,
    flip_sign,
    format_of,
    integers,
    lane,
    polynomial,
    rarely,
    sign_bit,
    with_lane,
)
from torturous.core import dtypes


def sin(e: Emitter, x: str) -> str:
    """The sine of an angle in radians; NaN for infinities."""
    i = integers(e)
    quadrant, *angle = _reduce(e, e.abs(x))
    value = _either_wave(e, quadrant, *angle)
    return flip_sign(e, value, i.binary("xor", _upper_half(e, quadrant), sign_bit(e, x)))


def cos(e: Emitter, x: str) -> str:
    """The cosine of an angle in radians; NaN for infinities."""
    i = integers(e)
    quadrant, *angle = _reduce(e, e.abs(x))
    quadrant = i.add(quadrant, i.constant(1))
    return flip_sign(e, _either_wave(e, quadrant, *angle), _upper_half(e, quadrant))


def _upper_half(e: Emitter, quadrant: str) -> str:
    """The sign bit, where the second bit of the quadrant is set."""
    i, form = integers(e), format_of(e)
    return i.binary("and", i.binary("shl", quadrant, i.constant(form.bits - 2)), i.constant(form.sign))


def _either_wave(e: Emitter, quadrant: str, r: str, r_low: str) -> str:
    """The sine of r + r_low, or its cosine where the quadrant is odd."""
    i, n = integers(e), numbers(e)
    square = e.mul(r, r)
    sine = e.add(r, e.multiply_add(e.mul(square, r), polynomial(e, square, n.sine), r_low))
    curved = e.multiply_add(square, polynomial(e, square, n.cosine), e.constant(-0.5))
    cosine = e.multiply_add(square, curved, e.constant(1.0))
    odd = i.compare("ne", i.binary("and", quadrant, i.constant(1)), i.constant(0))
    return e.select(odd, cosine, sine)


def _reduce(e: Emitter, x: str) -> tuple[str, str, str]:
    """x = q·π/2 + r for x ≥ 0: the integer q, modulo 4, in its low bits; r with |r| ≤ π/4; what r lacks.

    After Cody and Waite: the first fused step is exact, and the others round relative to their result, which
    for no float in range comes near enough to zero to need a fourth part of π/2.
    """
    i, n, form = integers(e), numbers(e), format_of(e)
    shifted = e.multiply_add(x, e.constant(n.two_over_pi), e.constant(form.magic))
    q = e.sub(shifted, e.constant(form.magic))
    first, second, third = (e.constant(-part) for part in n.half_pi)
    exact = e.multiply_add(q, first, x)
    r = e.multiply_add(q, second, exact)
    # The difference is exact unless most of `exact` has cancelled; near zero r needs no second part.
    r_low = e.multiply_add(q, second, e.sub(exact, r))
    r_low = e.select(e.compare("gt", e.abs(r), e.constant(2.0**-6)), r_low, e.constant(0.0))
    r = e.multiply_add(q, third, r)
    limit = e.constant(n.reducible)
    far = both(e, e.compare("gt", x, limit), e.compare("lt", x, e.constant(float("inf"))))

    def slowly() -> list[str]:
        angles = e.select(far, x, limit)
        slow = [bits(e, shifted), r, r_low]
        for index in range(e.lanes):
            parts = _reduce_one(e, lane(e, angles, index))
            slow = [with_lane(v, old, new, index) for v, old, new in zip((i, e, e), slow, parts, strict=True)]
        near = (bits(e, shifted), r, r_low)
        return [v.select(far, new, old) for v, new, old in zip((i, e, e), slow, near, strict=True)]

    usual = [(i.kind, bits(e, shifted)), (e.kind, r), (e.kind, r_low)]
    quadrant, r, r_low = rarely(e, any_lane(e, far), usual, slowly)
    return quadrant, r, r_low


def _reduce_one(e: Emitter, angle: str) -> tuple[str, str, str]:
    b = e.builder
    if e.dtype is dtypes.float32:
        angle = b.value(f"fpext float {angle} to double")
    pair = b.call("{ i64, double }", _define_reduction(b), ("double", angle))
    quadrant = b.value(f"extractvalue {{ i64, double }} {pair}, 0")
    rest = b.value(f"extractvalue {{ i64, double }} {pair}, 1")
    if e.dtype is dtypes.float64:
        return quadrant, rest, "0.0"
    quadrant = b.value(f"trunc i64 {quadrant} to i32")
    high = b.value(f"fptrunc double {rest} to float")
    lack = b.value(f"fsub double {rest}, {b.value(f'fpext float {high} to double')}")
    return quadrant, high, b.value(f"fptrunc double {lack} to float")


# Payne and Hanek's reduction --------------------------------------------------------------------------------
_PADDING = 64
_WORDS = 21
"""64-bit words of 2/π, the first of them zero: enough for the largest double and 190 bits below the point."""


@cache
def _two_over_pi() -> str:
    """The words as an LLVM constant; π by Machin's formula, 16·arctan(1/5) − 4·arctan(1/239)."""
    guard = 64
    scale = 1 << (64 * _WORDS + guard)

    def arctangent_of_inverse(number: int) -> int:
        term = scale // number
        total, divisor, sign = 0, 1, 1
        while term:
            total += sign * (term // divisor)
            term //= number * number
            divisor += 2
            sign = -sign
        return total

    pi = 16 * arctangent_of_inverse(5) - 4 * arctangent_of_inverse(239)
    fraction = 2 * scale * (1 << (64 * _WORDS - _PADDING)) // pi
    words = [(fraction >> (64 * (_WORDS - 1 - index))) & (2**64 - 1) for index in range(_WORDS)]
    return ", ".join(f"i64 {word - 2**64 if word >> 63 else word}" for word in words)


_REDUCTION = """
; An angle x = m*2^e of at least 2^17, m being an integer of 53 bits: the quadrant and the rest, at most pi/4.
; Bits of 2/pi above 2^(2-e) add whole turns and are skipped; of the 192 that follow, times m, the top two are
; the quadrant and the others the fraction of it.
define internal { i64, double } @torturous_reduce_angle(double %x) cold #0 {
entry:
  %bits = bitcast double %x to i64
  %field = lshr i64 %bits, 52
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  ; e = field - 1075; the window starts at bit e - 2 after the point, counted from 0, behind 64 zeros.
  %start = sub i64 %field, 1013
  %word = lshr i64 %start, 6
  %shift = and i64 %start, 63
  %at0 = getelementptr i64, ptr @torturous_two_over_pi, i64 %word
  %at1 = getelementptr i64, ptr %at0, i64 1
  %at2 = getelementptr i64, ptr %at0, i64 2
  %at3 = getelementptr i64, ptr %at0, i64 3
  %a = load i64, ptr %at0, align 8
  %b = load i64, ptr %at1, align 8
  %c = load i64, ptr %at2, align 8
  %d = load i64, ptr %at3, align 8
  %w0 = call i64 @llvm.fshl.i64(i64 %a, i64 %b, i64 %shift)
  %w1 = call i64 @llvm.fshl.i64(i64 %b, i64 %c, i64 %shift)
  %w2 = call i64 @llvm.fshl.i64(i64 %c, i64 %d, i64 %shift)
  %m_wide = zext i64 %m to i128
  %w1_wide = zext i64 %w1 to i128
  %w2_wide = zext i64 %w2 to i128
  %top = mul i64 %m, %w0
  %top_wide = zext i64 %top to i128
  %high = shl i128 %top_wide, 64
  %middle = mul i128 %m_wide, %w1_wide
  %bottom = mul i128 %m_wide, %w2_wide
  %carried = lshr i128 %bottom, 64
  %partial = add i128 %high, %middle
  %product = add i128 %partial, %carried
  %half = shl i128 1, 125
  %raised = add i128 %product, %half
  %turns = lshr i128 %raised, 126
  %quadrant = trunc i128 %turns to i64
  %signed = shl i128 %product, 2
  %negative = icmp slt i128 %signed, 0
  %opposite = sub i128 0, %signed
  %magnitude = select i1 %negative, i128 %opposite, i128 %signed
  ; The leading 106 bits as two doubles, times pi/2.
  %zeros = call i128 @llvm.ctlz.i128(i128 %magnitude, i1 false)
  %zeros_safe = and i128 %zeros, 127
  %normal = shl i128 %magnitude, %zeros_safe
  %first_bits = lshr i128 %normal, 75
  %first_word = trunc i128 %first_bits to i64
  %second_bits = lshr i128 %normal, 22
  %second_word = trunc i128 %second_bits to i64
  %second_part = and i64 %second_word, 9007199254740991
  %first = sitofp i64 %first_word to double
  %second_whole = sitofp i64 %second_part to double
  %second = fmul double %second_whole, 0x3CA0000000000000
  %near = fmul double %first, 0x3FF921FB54442D18
  %far_first = fmul double %first, 0x3C91A62633145C07
  %far_second = fmul double %second, 0x3FF921FB54442D18
  %far = fadd double %far_first, %far_second
  %sum = fadd double %near, %far
  ; The first part counts 2^(75 - zeros) of 2^-128.
  %zeros_word = trunc i128 %zeros_safe to i64
  %exponent = sub i64 970, %zeros_word
  %scale_bits = shl i64 %exponent, 52
  %scale = bitcast i64 %scale_bits to double
  %rest_magnitude = fmul double %sum, %scale
  %minus = fneg double %rest_magnitude
  %rest = select i1 %negative, double %minus, double %rest_magnitude
  %one = insertvalue { i64, double } poison, i64 %quadrant, 0
  %both = insertvalue { i64, double } %one, double %rest, 1
  ret { i64, double } %both
}
"""


def _define_reduction(builder: Builder) -> str:
    if "torturous_reduce_angle" not in builder.declarations:
        table = f"@torturous_two_over_pi = internal constant [{_WORDS} x i64] [{_two_over_pi()}], align 8"
        define_once(builder, "torturous_two_over_pi", table)
        builder.declare("i64", "llvm.fshl.i64", ["i64", "i64", "i64"])
        builder.declare("i128", "llvm.ctlz.i128", ["i128", "i1"])
        define_once(builder, "torturous_reduce_angle", _REDUCTION)
    return "torturous_reduce_angle"
