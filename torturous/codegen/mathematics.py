"""The vector functions that elementwise ops lower to, gathered under one name for `Arithmetic`.

Each takes the emitter `e` and values of type `e.kind`. They call nothing outside the module that is being
written and give the same bits for every number of lanes and on every machine; NaN alone may differ in sign
and payload. Subnormal numbers, infinities and signed zeros are as IEEE 754 has them.
"""

from __future__ import annotations

from torturous.codegen.division import floor_divide, integer_quotient, remainder, truncated_remainder
from torturous.codegen.emitter import Emitter
from torturous.codegen.exponential import erf, exp, expm1, log, log1p, log2, log10, sigmoid, tanh
from torturous.codegen.fused import fused_multiply_add
from torturous.codegen.inverse import acos, acosh, asin, asinh, atan, atan2, atanh
from torturous.codegen.lanes import cast, companion
from torturous.codegen.normals import normal24
from torturous.codegen.power import pow
from torturous.codegen.rounding import ceil, float_to_integer, floor, narrow, round, trunc, widen
from torturous.codegen.trigonometry import cos, sin
from torturous.core import dtypes

__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "cos", "erf", "exp", "expm1",
    "float_to_integer", "floor", "floor_divide", "fused_multiply_add", "integer_quotient", "log", "log10", "log1p",
    "log2", "narrow", "normal24", "pow", "remainder", "round", "sigmoid", "sin", "sqrt", "tanh", "trunc",
    "truncated_remainder", "uniform24", "uniform53", "widen",
]


def sqrt(e: Emitter, x: str) -> str:
    """The square root, correctly rounded; NaN for negative numbers, −0 for −0."""
    return e.intrinsic("sqrt", x)


def uniform53(e: Emitter, low: str, high: str) -> str:
    """float64 in [0, 1) from two int32 words: the low 53 bits of high·2³² + low, times 2^-53."""
    double = companion(e, dtypes.float64)
    top = cast(e, "sitofp", e.binary("and", high, e.constant((1 << 21) - 1)), double)
    # Every step is exact: 21 bits in front of 32.
    return double.add(
        double.mul(top, double.constant(2.0**-21)),
        double.mul(cast(e, "uitofp", low, double), double.constant(2.0**-53)),
    )


def uniform24(e: Emitter, word: str) -> str:
    """float32 in [0, 1) from an int32 word: its low 24 bits times 2^-24."""
    single = companion(e, dtypes.float32)
    bottom = cast(e, "sitofp", e.binary("and", word, e.constant((1 << 24) - 1)), single)
    return single.mul(bottom, single.constant(2.0**-24))
