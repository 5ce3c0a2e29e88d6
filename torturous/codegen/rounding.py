"""Rounding to integers, and conversions that LLVM leaves to a library or leaves undefined."""

from __future__ import annotations

from torturous.codegen.builder import Builder
from torturous.codegen.emitter import Emitter
from torturous.codegen.lanes import copy_sign, format_of
from torturous.core import dtypes
from torturous.core.dtypes import DType


# To integers, in the same dtype -----------------------------------------------------------------------------
def _to_nearest(e: Emitter, a: str) -> str:
    """Non-negative numbers to the nearest integer, ties to even: the fraction is pushed out and is gone."""
    large = e.constant(2.0 ** format_of(e).fraction)
    return e.select(e.compare("lt", a, large), e.sub(e.add(a, large), large), a)


def round(e: Emitter, a: str) -> str:
    """To the nearest integer, ties to even. Integers are returned as they are, here and below."""
    if not e.floating:
        return a
    if e.builder.target.has_rounding:
        return e.intrinsic("roundeven", a)
    return copy_sign(e, _to_nearest(e, e.abs(a)), a)


def trunc(e: Emitter, a: str) -> str:
    """Toward zero."""
    if not e.floating:
        return a
    if e.builder.target.has_rounding:
        return e.intrinsic("trunc", a)
    magnitude = e.abs(a)
    nearest = _to_nearest(e, magnitude)
    lower = e.sub(nearest, e.constant(1.0))
    return copy_sign(e, e.select(e.compare("gt", nearest, magnitude), lower, nearest), a)


def floor(e: Emitter, a: str) -> str:
    """Toward −∞."""
    if not e.floating:
        return a
    if e.builder.target.has_rounding:
        return e.intrinsic("floor", a)
    nearest = round(e, a)
    lower = e.sub(nearest, e.constant(1.0))
    return copy_sign(e, e.select(e.compare("gt", nearest, a), lower, nearest), a)


def ceil(e: Emitter, a: str) -> str:
    """Toward +∞."""
    if not e.floating:
        return a
    if e.builder.target.has_rounding:
        return e.intrinsic("ceil", a)
    nearest = round(e, a)
    higher = e.add(nearest, e.constant(1.0))
    return copy_sign(e, e.select(e.compare("lt", nearest, a), higher, nearest), a)


# Sixteen-bit floats -----------------------------------------------------------------------------------------
class _Words:
    """Operations on vectors of i32, for the bit patterns below."""

    def __init__(self, builder: Builder, lanes: int) -> None:
        self.builder = builder
        self.lanes = lanes
        self.kind = f"<{lanes} x i32>"
        self.half = f"<{lanes} x i16>"
        self.single = f"<{lanes} x float>"

    def op(self, instruction: str, a: str, b: int | str) -> str:
        right = f"splat (i32 {b})" if isinstance(b, int) else b
        return self.builder.value(f"{instruction} {self.kind} {a}, {right}")

    def select(self, condition: str, a: int | str, b: str) -> str:
        left = f"splat (i32 {a})" if isinstance(a, int) else a
        mask = f"<{self.lanes} x i1> {condition}"
        return self.builder.value(f"select {mask}, {self.kind} {left}, {self.kind} {b}")

    def of(self, value: str) -> str:
        """The bits of floats."""
        return self.builder.value(f"bitcast {self.single} {value} to {self.kind}")

    def floats(self, pattern: str) -> str:
        return self.builder.value(f"bitcast {self.kind} {pattern} to {self.single}")

    def extend(self, value: str) -> str:
        return self.builder.value(f"zext {self.half} {value} to {self.kind}")

    def truncate(self, pattern: str) -> str:
        return self.builder.value(f"trunc {self.kind} {pattern} to {self.half}")


def widen(builder: Builder, value: str, source: DType, lanes: int) -> str:
    """Sixteen-bit floats, given as their bits (i16), as float32; exact."""
    w = _Words(builder, lanes)
    if source is dtypes.bfloat16:
        return w.floats(w.op("shl", w.extend(value), 16))
    if builder.target.has_f16c:
        half = builder.value(f"bitcast {w.half} {value} to <{lanes} x half>")
        return builder.value(f"fpext <{lanes} x half> {half} to {w.single}")
    pattern = w.extend(value)
    magnitude = w.op("shl", w.op("and", pattern, 0x7FFF), 13)
    # The fields now lie where a float has them, but the exponent is biased by 15: multiply by 2^(127 − 15).
    factor = f"splat (float 0x{(1023 + 112) << 52:016X})"
    scaled = w.of(builder.value(f"fmul {w.single} {w.floats(magnitude)}, {factor}"))
    special = w.op("icmp uge", magnitude, 0x7C00 << 13)
    scaled = w.select(special, w.op("or", magnitude, 0x7F800000), scaled)
    nan = w.op("icmp ugt", magnitude, 0x7C00 << 13)
    scaled = w.select(nan, w.op("or", scaled, 0x400000), scaled)
    return w.floats(w.op("or", scaled, w.op("shl", w.op("and", pattern, 0x8000), 16)))


def narrow(builder: Builder, value: str, target: DType, lanes: int) -> str:
    """float32 as the bits (i16) of sixteen-bit floats: to nearest, ties to even; NaN stays a quiet NaN."""
    w = _Words(builder, lanes)
    if target is dtypes.bfloat16:
        return w.truncate(_narrow_bfloat(w, value))
    if builder.target.has_f16c:
        half = builder.value(f"fptrunc {w.single} {value} to <{lanes} x half>")
        return builder.value(f"bitcast <{lanes} x half> {half} to {w.half}")
    return w.truncate(_narrow_half(w, w.of(value)))


def _narrow_bfloat(w: _Words, value: str) -> str:
    """A bfloat16 is a float's upper half: add just under half of its last bit, or half if that is odd."""
    pattern = w.of(value)
    odd = w.op("and", w.op("lshr", pattern, 16), 1)
    rounded = w.op("add", w.op("add", pattern, 0x7FFF), odd)
    nan = w.builder.value(f"fcmp uno {w.single} {value}, {value}")
    return w.op("lshr", w.select(nan, w.op("or", pattern, 0x400000), rounded), 16)


def _narrow_half(w: _Words, pattern: str) -> str:
    b = w.builder
    magnitude = w.op("and", pattern, 0x7FFFFFFF)
    # Normal results: the same rounding as above at bit 13, then the exponent's bias from 127 to 15.
    odd = w.op("and", w.op("lshr", magnitude, 13), 1)
    normal = w.op("lshr", w.op("add", w.op("add", magnitude, 0xFFF), odd), 13)
    normal = w.op("sub", normal, 112 << 10)
    # Subnormal results: 0.5 has its last bit where they have theirs, so adding it rounds in the right place.
    half = 0x3F000000
    raised = b.value(f"fadd {w.single} {w.floats(magnitude)}, splat (float 0x3FE0000000000000)")
    subnormal = w.op("sub", w.of(raised), half)
    result = w.select(w.op("icmp ult", magnitude, (127 - 14) << 23), subnormal, normal)
    result = w.select(w.op("icmp uge", magnitude, 0x47800000), 0x7C00, result)  # 65536 and beyond
    quiet = w.op("or", w.op("and", w.op("lshr", magnitude, 13), 0x3FF), 0x7E00)
    result = w.select(w.op("icmp ugt", magnitude, 0x7F800000), quiet, result)
    return w.op("or", result, w.op("lshr", w.op("and", pattern, -0x80000000), 16))


# Floats to integers -----------------------------------------------------------------------------------------
def float_to_integer(builder: Builder, value: str, source: DType, target: DType, lanes: int) -> str:
    """Toward zero, as PyTorch casts on x86-64: NaN and what is out of range become the smallest integer.

    uint8 takes the low eight bits of the int64, so that −1 becomes 255 and 300 becomes 44. From float32 the
    int32 will do: beyond its range these bits are zero.
    """
    if target is dtypes.uint8:
        middle = dtypes.int32 if source is dtypes.float32 else dtypes.int64
        wide = float_to_integer(builder, value, source, middle, lanes)
        return builder.value(f"trunc <{lanes} x i{8 * middle.itemsize}> {wide} to <{lanes} x i8>")
    width = 8 * target.itemsize
    scalar, letter = ("float", "f32") if source is dtypes.float32 else ("double", "f64")
    have, want = f"<{lanes} x {scalar}>", f"<{lanes} x i{width}>"
    magnitude = builder.call(have, f"llvm.fabs.v{lanes}{letter}", (have, value))
    bound = f"splat ({scalar} 0x{(1023 + width - 1) << 52:016X})"
    inside = builder.value(f"fcmp olt {have} {magnitude}, {bound}")
    # Lanes out of range are poison here, and select does not look at what it does not choose.
    converted = builder.value(f"fptosi {have} {value} to {want}")
    smallest = f"splat (i{width} {-(1 << (width - 1))})"
    return builder.value(f"select <{lanes} x i1> {inside}, {want} {converted}, {want} {smallest}")
