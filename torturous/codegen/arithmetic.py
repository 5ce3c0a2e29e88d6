"""Arithmetic on vectors of one dtype: what an elementwise op's `lower` calls, and conversion between dtypes."""

from __future__ import annotations

from typing import Any

from torturous.codegen import mathematics
from torturous.codegen.builder import Builder
from torturous.codegen.emitter import Emitter, kind
from torturous.core import dtypes
from torturous.core.dtypes import DType


class Arithmetic(Emitter):
    """Vector operations and functions in one compute dtype. Values are LLVM value names of type `self.kind`."""

    def multiply_add(self, a: str, b: str, c: str) -> str:
        if self.floating:
            return mathematics.fused_multiply_add(self, a, b, c)
        return self.add(self.mul(a, b), c)

    def div(self, a: str, b: str) -> str:
        if self.floating:
            return self.binary("fdiv", a, b)
        return mathematics.integer_quotient(self, a, b)

    def __getattr__(self, name: str) -> Any:
        """The functions of `mathematics`: `e.exp(x)` is `mathematics.exp(e, x)`."""
        function = getattr(mathematics, name, None)
        if function is None:
            raise AttributeError(f"no vector arithmetic called {name}")
        return lambda *values: function(self, *values)


def convert(builder: Builder, value: str, source: DType, target: DType, lanes: int) -> str:
    """A vector in another dtype, as PyTorch casts: floats to the nearest (ties to even), floats to ints toward zero.

    Sixteen-bit floats are held as their bits (i16); everything else as its own LLVM type.
    """
    if source is target:
        return value
    if source.is_half:
        return convert(builder, mathematics.widen(builder, value, source, lanes), dtypes.float32, target, lanes)
    if target.is_half:
        single = convert(builder, value, source, dtypes.float32, lanes)
        return mathematics.narrow(builder, single, target, lanes)
    have, want = kind(source, lanes), kind(target, lanes)
    if target is dtypes.bool_:
        return Arithmetic(builder, source, lanes).compare("ne", value, Arithmetic(builder, source, lanes).constant(0))
    if source.is_floating_point and target.is_floating_point:
        instruction = "fpext" if target.itemsize > source.itemsize else "fptrunc"
    elif source.is_floating_point:
        return mathematics.float_to_integer(builder, value, source, target, lanes)
    elif target.is_floating_point:
        instruction = "sitofp" if source.signed else "uitofp"
    elif source is dtypes.bool_ or source.itemsize < target.itemsize:
        instruction = "sext" if source.signed else "zext"
    elif source.itemsize > target.itemsize:
        instruction = "trunc"
    else:
        return value
    return builder.value(f"{instruction} {have} {value} to {want}")
