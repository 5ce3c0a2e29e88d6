"""What every function of a library begins with: is what the caller gave fit to be used?"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from torturous.codegen.builder import Builder, Integer
from torturous.native.codes import Code
from torturous.native.weights import ALIGNMENT, VARIANT


def refuse(b: Builder, condition: str, code: Code) -> None:
    """Returns the code where the condition holds."""
    inside, after = b.label("refuse"), b.label("go_on")
    b.emit(f"br i1 {condition}, label %{inside}, label %{after}")
    b.start_block(inside)
    b.emit(f"ret i32 {code:d}")
    b.start_block(after)


def refuse_code(b: Builder, code: str) -> None:
    """Returns a code that a called function gave, unless it is OK."""
    inside, after = b.label("refuse"), b.label("go_on")
    b.emit(f"br i1 {b.value(f'icmp ne i32 {code}, 0')}, label %{inside}, label %{after}")
    b.start_block(inside)
    b.emit(f"ret i32 {code}")
    b.start_block(after)


def refuse_null(b: Builder, pointers: Sequence[str]) -> None:
    for pointer in pointers:
        refuse(b, b.value(f"icmp eq ptr {pointer}, null"), Code.ENULL)


def refuse_misaligned(b: Builder, pointers: Sequence[tuple[str, int]]) -> None:
    """Pointers with the bytes they must be multiples of."""
    for pointer, alignment in pointers:
        if alignment > 1:
            address = b.value(f"ptrtoint ptr {pointer} to i64")
            refuse(b, b.compare("ne", b.value(f"and i64 {address}, {alignment - 1}"), 0), Code.EALIGN)


def refuse_batch(b: Builder, most: int) -> None:
    refuse(b, b.compare("slt", "%batch", 1), Code.EBATCH)
    refuse(b, b.compare("sgt", "%batch", most), Code.EBATCH)


def refuse_foreign(b: Builder, block: str, identity: bytes, variants: int) -> str:
    """Compares the head of a block with what this library writes there; gives the instruction set's number."""
    wrong = "false"
    for position, (word,) in enumerate(struct.iter_unpack("<q", identity)):
        found = b.load("i64", b.offset(block, 8 * position), 8)
        wrong = b.value(f"or i1 {wrong}, {b.compare('ne', found, word)}")
    variant = b.load("i64", b.offset(block, VARIANT), 8)
    wrong = b.value(f"or i1 {wrong}, {b.compare('uge', variant, variants)}")
    refuse(b, wrong, Code.EWEIGHTS)
    return variant


def sized(b: Builder, value: str) -> Integer:
    """A `size_t` parameter as i64."""
    return value if b.target.pointer_bits == 64 else b.value(f"zext i{b.target.pointer_bits} {value} to i64")


def mark_block(b: Builder, block: str, identity: bytes, variant: Integer) -> None:
    """Writes the head of a block."""
    for position, (word,) in enumerate(struct.iter_unpack("<q", identity)):
        b.store("i64", word, b.offset(block, 8 * position), 8)
    b.store("i64", variant, b.offset(block, VARIANT), 8)
    for position in range(VARIANT + 8, ALIGNMENT, 8):
        b.store("i64", 0, b.offset(block, position), 8)
