"""Words: the elements of two bfloat16 products that follow each other in a sum, and arithmetic with them (AVX512-BF16).

A word of 32 bits holds the element of the first product in its upper half. That is the half which the instruction takes
first: it adds the one product, rounds to the nearest float32 (ties to even), adds the other and rounds again (Intel 64
and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS). The order is thus that of every contraction
(`ir.contraction`), with the same results, but that subnormal numbers, elements as well as sums, count as zero: the
instruction knows none, whatever the machine is set to.

Words take the place of elements in copies, panels and registers, where they are floats that nobody computes with. A
block has half as many words as products.
"""

from __future__ import annotations

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Builder
from torturous.core import dtypes
from torturous.ir.contraction import BLOCK, LANES

WORDS = BLOCK // 2
"""Of a block."""
SINGLE = f"<{LANES} x float>"


class WordArithmetic(Arithmetic):
    """float32 arithmetic whose factors are words."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder, dtypes.float32, LANES)

    def multiply_add(self, a: str, b: str, c: str) -> str:
        """c + first · first + second · second, rounded after each.

        `a` is what the micro-kernel broadcasts: the instruction's last operand, which it may read from memory so.
        """
        builder, pairs = self.builder, f"<{2 * LANES} x bfloat>"
        builder.features.add("avx512bf16")
        left, right = (builder.value(f"bitcast {SINGLE} {word} to {pairs}") for word in (a, b))
        return builder.call(SINGLE, "llvm.x86.avx512bf16.dpbf16ps.512", (SINGLE, c), (pairs, right), (pairs, left))


def factors(builder: Builder, dtype: dtypes.DType, words: bool) -> Arithmetic:
    """What a contraction computes with: elements of what it accumulates in, or words."""
    return WordArithmetic(builder) if words else Arithmetic(builder, dtype, LANES)


def word(b: Builder, first: str, second: str | None, lanes: int) -> str:
    """Words of two products' elements, or of one alone."""
    wide, half, single = f"<{lanes} x i32>", f"<{lanes} x i16>", f"<{lanes} x float>"
    value = b.value(f"shl {wide} {b.value(f'zext {half} {first} to {wide}')}, splat (i32 16)")
    if second is not None:
        value = b.value(f"or {wide} {value}, {b.value(f'zext {half} {second} to {wide}')}")
    return b.value(f"bitcast {wide} {value} to {single}")
