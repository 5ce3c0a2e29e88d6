"""Small tools that the vector mathematics is written with: bit patterns, polynomials, code outside the line.

Everything takes the `Emitter` emitter `e`, as an elementwise op's `lower` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torturous.codegen.builder import Builder
from torturous.codegen.emitter import Emitter
from torturous.core import dtypes
from torturous.core.dtypes import DType


class Format(NamedTuple):
    """A binary floating-point format of IEEE 754."""

    fraction: int
    """Bits of the significand that are stored."""
    bias: int
    bits: int

    @property
    def magic(self) -> float:
        """Added to a small number, leaves it rounded to an integer in the low bits."""
        return 1.5 * 2.0**self.fraction

    @property
    def sign(self) -> int:
        """The sign bit, as a signed integer of the format's width."""
        return -(1 << (self.bits - 1))

    def pattern(self, exponent: int) -> int:
        """The bits of 2^exponent."""
        return (exponent + self.bias) << self.fraction


_FORMATS = {dtypes.float32: Format(23, 127, 32), dtypes.float64: Format(52, 1023, 64)}


def format_of(e: Emitter) -> Format:
    return _FORMATS[e.dtype]


def companion(e: Emitter, dtype: DType) -> Emitter:
    """An emitter of the same lanes for another dtype."""
    return type(e)(e.builder, dtype, e.lanes)


def integers(e: Emitter) -> Emitter:
    """The emitter for the bit patterns of a floating emitter's values."""
    return companion(e, dtypes.int32 if e.dtype is dtypes.float32 else dtypes.int64)


def cast(e: Emitter, instruction: str, value: str, to: Emitter) -> str:
    return e.builder.value(f"{instruction} {e.kind} {value} to {to.kind}")


def bits(e: Emitter, value: str) -> str:
    return cast(e, "bitcast", value, integers(e))


def from_bits(e: Emitter, pattern: str) -> str:
    return cast(integers(e), "bitcast", pattern, e)


def copy_sign(e: Emitter, magnitude: str, sign: str) -> str:
    return e.intrinsic("copysign", magnitude, sign)


def flip_sign(e: Emitter, value: str, signs: str) -> str:
    """The value, negated where the sign bit of the integer `signs` is set; its other bits must be clear."""
    return from_bits(e, integers(e).binary("xor", bits(e, value), signs))


def sign_bit(e: Emitter, value: str) -> str:
    i = integers(e)
    return i.binary("and", bits(e, value), i.constant(format_of(e).sign))


def at_most(e: Emitter, value: str, bound: float) -> str:
    """The smaller of a value and a constant; NaN stays NaN."""
    limit = e.constant(bound)
    return e.select(e.compare("gt", value, limit), limit, value)


def at_least(e: Emitter, value: str, bound: float) -> str:
    """The larger of a value and a constant; NaN stays NaN."""
    limit = e.constant(bound)
    return e.select(e.compare("lt", value, limit), limit, value)


def both(e: Emitter, a: str, b: str) -> str:
    """The conjunction of two masks."""
    return e.builder.value(f"and {e.mask} {a}, {b}")


def either(e: Emitter, a: str, b: str) -> str:
    return e.builder.value(f"or {e.mask} {a}, {b}")


def differ(e: Emitter, a: str, b: str) -> str:
    return e.builder.value(f"xor {e.mask} {a}, {b}")


def polynomial(e: Emitter, x: str, coefficients: Sequence[float]) -> str:
    """Σ coefficients[i]·xⁱ by Horner's rule, each step rounded once."""
    *rest, highest = coefficients
    result = e.constant(highest)
    for coefficient in reversed(rest):
        result = e.multiply_add(result, x, e.constant(coefficient))
    return result


def two_sum(e: Emitter, a: str, b: str) -> tuple[str, str]:
    """a + b as the rounded sum and its exact error (Knuth, TAOCP volume 2, 4.2.2, theorem B)."""
    total = e.add(a, b)
    part = e.sub(total, a)
    error = e.add(e.sub(a, e.sub(total, part)), e.sub(b, part))
    return total, error


def quick_two_sum(e: Emitter, a: str, b: str) -> tuple[str, str]:
    """`two_sum` for |a| ≥ |b| (Dekker, 1971)."""
    total = e.add(a, b)
    return total, e.sub(b, e.sub(total, a))


def two_product(e: Emitter, a: str, b: str) -> tuple[str, str]:
    """a·b as the rounded product and its exact error, barring underflow."""
    product = e.mul(a, b)
    return product, e.multiply_add(a, b, e.neg(product))


# Code outside the line --------------------------------------------------------------------------------------
def define_once(builder: Builder, name: str, text: str) -> None:
    """Puts a module-level definition beside the builder's declarations; its linkage has to be `internal`."""
    builder.declarations.setdefault(name, text)


def outlined(e: Emitter, name: str, body: Callable[..., str], *arguments: str) -> str:
    """A call of an internal function on vectors of `e`, written by `body(emitter, *parameters)` on first use.

    For what takes so many instructions on some target that repeating it would swell every kernel.
    """
    symbol = f"torturous_{name}_v{e.lanes}{e.scalar}"
    if symbol not in e.builder.declarations:
        inner = Builder(e.builder.target)
        names = [f"%p{i}" for i in range(len(arguments))]
        result = body(type(e)(inner, e.dtype, e.lanes), *names)
        parameters = ", ".join(f"{e.kind} {parameter}" for parameter in names)
        text = [f"define internal {e.kind} @{symbol}({parameters}) #0 {{", "entry:", *inner.lines,
                f"  ret {e.kind} {result}", "}"]
        for other, declaration in inner.declarations.items():
            define_once(e.builder, other, declaration)
        define_once(e.builder, symbol, "\n".join(text))
    return e.builder.call(e.kind, symbol, *[(e.kind, argument) for argument in arguments])


def any_lane(e: Emitter, mask: str) -> str:
    """An i1: whether the mask holds in some lane."""
    b = e.builder
    packed = b.value(f"bitcast {e.mask} {mask} to i{e.lanes}")
    return b.value(f"icmp ne i{e.lanes} {packed}, 0")


def rarely(
    e: Emitter, condition: str, usual: Sequence[tuple[str, str]], body: Callable[[], Sequence[str]]
) -> list[str]:
    """The (type, value) pairs `usual`, or what `body` makes instead of them where the i1 holds."""
    b = e.builder
    inside, after = b.label("rare"), b.label("usual")
    before = b.block
    b.emit(f"br i1 {condition}, label %{inside}, label %{after}")
    b.start_block(inside)
    changed = body()
    end = b.block
    b.emit(f"br label %{after}")
    b.start_block(after)
    return [
        b.value(f"phi {kind} [ {value}, %{before} ], [ {other}, %{end} ]")
        for (kind, value), other in zip(usual, changed, strict=True)
    ]


def lane(e: Emitter, vector: str, index: int) -> str:
    return e.builder.value(f"extractelement {e.kind} {vector}, i32 {index}")


def with_lane(e: Emitter, vector: str, scalar: str, index: int) -> str:
    return e.builder.value(f"insertelement {e.kind} {vector}, {e.scalar} {scalar}, i32 {index}")


# AVX-512's instructions that no generic IR stands for -------------------------------------------------------
def has_native_parts(e: Emitter) -> bool:
    """Whether vectors of `e` are whole AVX-512 registers, or one half or quarter of one."""
    size = e.lanes * format_of(e).bits
    return e.builder.target.has_avx512 and (size in (128, 256) or size % 512 == 0)


def native(e: Emitter, name: str, values: Sequence[str], immediate: int | None = None) -> str:
    """`llvm.x86.avx512.mask.name` on all lanes, register by register. Needs `has_native_parts`."""
    b = e.builder
    width = format_of(e).bits
    size = min(e.lanes * width, 512)
    lanes = size // width
    part = type(e)(b, e.dtype, lanes)
    mask = max(lanes, 8)
    pieces = []
    for first in range(0, e.lanes, lanes):
        inputs = values
        if lanes != e.lanes:
            chosen = ", ".join(f"i32 {i}" for i in range(first, first + lanes))
            inputs = [b.value(f"shufflevector {e.kind} {value}, {e.kind} poison, <{lanes} x i32> <{chosen}>")
                      for value in values]
        arguments: list[tuple[str, int | str]] = [(part.kind, value) for value in inputs]
        if immediate is not None:
            arguments.append(("i32", immediate))
        arguments += [(part.kind, "zeroinitializer"), (f"i{mask}", -1)]
        if size == 512:
            arguments.append(("i32", 4))  # the current rounding mode
        suffix = f"{'ps' if width == 32 else 'pd'}.{size}"
        pieces.append(b.call(part.kind, f"llvm.x86.avx512.mask.{name}.{suffix}", *arguments))
    return joined(b, part.scalar, lanes, pieces)


def joined(builder: Builder, scalar: str, lanes: int, pieces: Sequence[str]) -> str:
    """Vectors one after the other as one; their number is a power of two."""
    pieces = list(pieces)
    while len(pieces) > 1:
        chosen = ", ".join(f"i32 {i}" for i in range(2 * lanes))
        kind = f"<{lanes} x {scalar}>"
        pieces = [
            builder.value(f"shufflevector {kind} {a}, {kind} {b}, <{2 * lanes} x i32> <{chosen}>")
            for a, b in zip(pieces[::2], pieces[1::2], strict=True)
        ]
        lanes *= 2
    return pieces[0]
