"""Vector instructions of one dtype, which the vector mathematics is written with.

An `Emitter` works in a *compute dtype* (never a sixteen-bit one) on vectors of `lanes` elements; bool is i1 in
registers and one byte in memory. Every operation here is rounded once: nothing is contracted or reassociated. What a
machine may lack, and the mathematics makes up for, is left open: `arithmetic` fills it in.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Any

from torturous.codegen.builder import Builder
from torturous.core import dtypes
from torturous.core.dtypes import Category, DType

_SCALARS = {
    dtypes.bool_: "i1", dtypes.uint8: "i8", dtypes.int32: "i32", dtypes.int64: "i64",
    dtypes.float16: "i16", dtypes.bfloat16: "i16", dtypes.float32: "float", dtypes.float64: "double",
}
_SUFFIX = {"i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "float": "f32", "double": "f64",
           "half": "f16"}
_FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def scalar_kind(dtype: DType) -> str:
    """The LLVM type of one element in a register; sixteen-bit floats are their bits."""
    return _SCALARS[dtype]


def kind(dtype: DType, lanes: int) -> str:
    return f"<{lanes} x {_SCALARS[dtype]}>"


def suffix(scalar: str, lanes: int) -> str:
    """The part of an intrinsic's name that tells its type."""
    return f"v{lanes}{_SUFFIX[scalar]}"


def literal(dtype: DType, number: Any) -> str:
    """One element as LLVM text."""
    if dtype.category is Category.FLOATING:
        if dtype is not dtypes.float64:
            number = struct.unpack("f", struct.pack("f", number))[0] if abs(number) < 3.5e38 else number
        bits = struct.unpack("<Q", struct.pack("<d", number))[0]
        return f"0x{bits:016X}"
    if dtype is dtypes.bool_:
        return "true" if number else "false"
    return str(int(number))


class Emitter(ABC):
    """Vector operations in one compute dtype. Values are LLVM value names of type `self.kind`."""

    def __init__(self, builder: Builder, dtype: DType, lanes: int) -> None:
        self.builder = builder
        self.dtype = dtype
        self.lanes = lanes
        self.scalar = scalar_kind(dtype)
        self.kind = kind(dtype, lanes)
        self.floating = dtype.category is Category.FLOATING
        self.mask = f"<{lanes} x i1>"

    # Building blocks -----------------------------------------------------------------------------------------------
    def constant(self, number: Any) -> str:
        """A vector with every lane the same number."""
        return f"splat ({self.scalar} {literal(self.dtype, number)})"

    def splat(self, scalar: str) -> str:
        """A vector with every lane a scalar value."""
        b = self.builder
        first = b.value(f"insertelement {self.kind} poison, {self.scalar} {scalar}, i32 0")
        return b.value(f"shufflevector {self.kind} {first}, {self.kind} poison, <{self.lanes} x i32> zeroinitializer")

    def intrinsic(self, name: str, *values: str) -> str:
        """`llvm.name` on vectors of this kind."""
        return self.builder.call(self.kind, f"llvm.{name}.{suffix(self.scalar, self.lanes)}",
                                 *[(self.kind, value) for value in values])

    def binary(self, instruction: str, a: str, b: str) -> str:
        return self.builder.value(f"{instruction} {self.kind} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.builder.value(f"select {self.mask} {condition}, {self.kind} {a}, {self.kind} {b}")

    def compare(self, relation: str, a: str, b: str) -> str:
        """A mask; relation is eq, ne, lt, le, gt or ge. Comparisons with NaN are false, but `ne`."""
        if self.floating:
            return self.builder.value(f"fcmp {_FLOAT_PREDICATES[relation]} {self.kind} {a}, {b}")
        sign = "" if relation in ("eq", "ne") else "s" if self.dtype.signed else "u"
        return self.builder.value(f"icmp {sign}{relation} {self.kind} {a}, {b}")

    # Arithmetic ----------------------------------------------------------------------------------------------------
    def _of(self, floating: str, integer: str, boolean: str) -> str:
        if self.floating:
            return floating
        return boolean if self.dtype is dtypes.bool_ else integer

    def add(self, a: str, b: str) -> str:
        return self.binary(self._of("fadd", "add", "or"), a, b)

    def sub(self, a: str, b: str) -> str:
        return self.binary(self._of("fsub", "sub", "xor"), a, b)

    def mul(self, a: str, b: str) -> str:
        return self.binary(self._of("fmul", "mul", "and"), a, b)

    @abstractmethod
    def multiply_add(self, a: str, b: str, c: str) -> str:
        """a·b + c rounded once (floats), the contraction's step."""

    @abstractmethod
    def div(self, a: str, b: str) -> str:
        """The quotient, of integers toward zero."""

    def neg(self, a: str) -> str:
        return self.builder.value(f"fneg {self.kind} {a}") if self.floating else self.sub(self.constant(0), a)

    def abs(self, a: str) -> str:
        if self.floating:
            return self.intrinsic("fabs", a)
        if not self.dtype.signed:
            return a
        return self.select(self.compare("lt", a, self.constant(0)), self.neg(a), a)

    def sign(self, a: str) -> str:
        """−1, 0 or 1; 0 for NaN, as in PyTorch."""
        zero, one = self.constant(0), self.constant(1)
        positive = self.select(self.compare("gt", a, zero), one, zero)
        if not self.dtype.signed:
            return positive
        return self.select(self.compare("lt", a, zero), self.constant(-1), positive)

    def maximum(self, a: str, b: str) -> str:
        """The larger; NaN if either is."""
        larger = self.select(self.compare("gt", a, b), a, b)
        return self.select(self.compare("ne", a, a), a, larger) if self.floating else larger

    def minimum(self, a: str, b: str) -> str:
        smaller = self.select(self.compare("lt", a, b), a, b)
        return self.select(self.compare("ne", a, a), a, smaller) if self.floating else smaller

    def relu(self, a: str) -> str:
        zero = self.constant(0)
        return self.select(self.compare("le", a, zero), zero, a)

    def bit(self, operation: str, a: str, b: str) -> str:
        return self.binary(operation, a, b)

    def bit_not(self, a: str) -> str:
        return self.binary("xor", a, self.constant(1 if self.dtype is dtypes.bool_ else -1))
