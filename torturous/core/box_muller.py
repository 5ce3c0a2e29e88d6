"""Normal numbers from pairs of uniform ones, with the roundings of PyTorch's vector code.

PyTorch makes sixteen normals at a time out of sixteen uniforms: uniform i (i < 8) gives the radius and
uniform i + 8 the angle of normals i (cosine) and i + 8 (sine). In float32 its x86-64 code (AVX2 or better)
evaluates the single-precision logarithm, sine and cosine of the Cephes library (Moshier 1989) with most
multiply-adds fused. To give the same bits this module does the same arithmetic in the same order; `_fused`
below stands for one fused multiply-add, so the native kernel (`codegen.normals`) uses `llvm.fma` there, and plain
multiplication and addition everywhere else. In float64 PyTorch calls the C library, and so does this module.

Box and Muller, "A note on the generation of random normal deviates", Ann. Math. Statist. 29 (1958).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


GROUP = 16
"""Normals made together, out of as many uniforms."""

_SPLITTER = 2.0**27 + 1.0
"""Veltkamp's constant: splits a float64 into two halves of 26 bits."""

LOG_COEFFICIENTS = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
SIN_COEFFICIENTS = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS_COEFFICIENTS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
SQRT_HALF = np.float32(0.707106781186547524)
FOUR_OVER_PI = np.float32(1.27323954473516)
TWO_PI = np.float32(2.0 * math.pi)
# pi / 4 in three parts, the first two short enough for their products with small integers to be exact.
QUARTER_PI = tuple(map(np.float32, (0.78515625, 2.4187564849853515625e-4, 3.77489497744594108e-8)))
_HALF, _ONE, _MINUS_TWO = np.float32(0.5), np.float32(1.0), np.float32(-2.0)


def _two_sum(a: Float64, b: Float64) -> tuple[Float64, Float64]:
    """The rounded sum and its rounding error, which is exact (Knuth)."""
    total = a + b
    shadow = total - a
    return total, (a - (total - shadow)) + (b - shadow)


def _two_product(a: Float64, b: Float64) -> tuple[Float64, Float64]:
    """The rounded product and its rounding error, exact unless it underflows (Dekker, Veltkamp)."""
    product = a * b
    scaled = a * _SPLITTER
    a_high = scaled - (scaled - a)
    scaled = b * _SPLITTER
    b_high = scaled - (scaled - b)
    a_low, b_low = a - a_high, b - b_high
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


def _round_to_odd(total: Float64, error: Float64) -> Float64:
    """total + error, an inexact sum going to the neighbour whose last bit is set: rounding it again is
    safe."""
    bits = np.asarray(total).view(np.int64)
    inexact_even = (error != 0.0) & (bits & 1 == 0)
    away_from_zero = np.signbit(error) == np.signbit(total)
    return (bits + np.where(inexact_even, np.where(away_from_zero, 1, -1), 0)).view(np.float64)


def fused_multiply_add32(a: Any, b: Any, c: Any) -> Float32:
    """a * b + c with one rounding, element-wise, for float32 arrays or scalars that broadcast."""
    product = np.asarray(a, np.float64) * np.asarray(b, np.float64)  # exact: 24 + 24 bits
    with np.errstate(over="ignore", invalid="ignore"):
        total, error = _two_sum(product, np.asarray(c, np.float64))
        # Infinities have no error: their sum is what it is.
        return np.where(np.isfinite(error), _round_to_odd(total, error), total).astype(np.float32)


def fused_multiply_add64(a: Any, b: Any, c: Any) -> Float64:
    """a * b + c with one rounding, element-wise, for float64 arrays or scalars that broadcast.

    Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
    odd", IEEE Trans. Computers 57 (2008). Where an intermediate result overflows (beyond about 2**996) or the
    error of the product underflows, the plain a * b + c is given.
    """
    a, b, c = (np.asarray(operand, np.float64) for operand in (a, b, c))
    with np.errstate(over="ignore", invalid="ignore"):
        plain = a * b + c
        product, product_error = _two_product(a, b)
        low, low_error = _two_sum(c, product_error)
        high, high_error = _two_sum(product, low)
        total = high + _round_to_odd(*_two_sum(low_error, high_error))
        return np.where(np.isfinite(total) & (total != 0), total, plain)  # plain has the right sign of zero


_fused = fused_multiply_add32


def _horner(coefficients: tuple[float, ...], x: Float32) -> Float32:
    """The polynomial in x, highest coefficient first, every step fused."""
    value: Any = np.float32(coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fused(value, x, np.float32(coefficient))
    return value


def log32(x: Float32) -> Float32:
    """The natural logarithm of positive, normal float32 numbers: x = f 2**e with f in [sqrt(1/2),
    sqrt(2))."""
    fraction, exponent = np.frexp(x)
    small = fraction < SQRT_HALF
    exponent = (exponent - small).astype(np.float32)
    f = (fraction - _ONE) + np.where(small, fraction, np.float32(0))
    square = f * f
    y = _fused(_horner(LOG_COEFFICIENTS, f) * f, square, exponent * LN2_LOW)
    y = _fused(-square, _HALF, y)
    return _fused(exponent, LN2_HIGH, f + y)


def sin_cos32(x: Float32) -> tuple[Float32, Float32]:
    """Sine and cosine of float32 numbers in [0, 8192): reduced to [-pi/4, pi/4] and a quadrant."""
    octant = ((x * FOUR_OVER_PI).astype(np.int32) + 1) & ~1
    multiple = octant.astype(np.float32)
    for part in QUARTER_PI:
        x = _fused(-multiple, part, x)
    square = x * x
    cosine = _horner(COS_COEFFICIENTS, square) * square
    cosine = _fused(cosine, square, -_HALF * square) + _ONE
    sine = _fused(_horner(SIN_COEFFICIENTS, square) * square, x, x)
    swapped = (octant & 2) != 0
    sin = np.where(swapped, cosine, sine)
    cos = np.where(swapped, sine, cosine)
    return (
        np.where((octant & 4) != 0, -sin, sin),
        np.where(((octant - 2) & 4) == 0, -cos, cos),
    )


def by_library(function: Callable[[float], float], x: Float64) -> Float64:
    """A function of Python's math module (so of the C library, as in PyTorch) of every element.

    NumPy's own may differ in the last bit: it has vector code for them.
    """
    return np.fromiter(map(function, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


def normal32(first: Float32, second: Float32, sine: Float32) -> Float32:
    """A standard normal out of two uniforms in [0, 1): by the angle's sine where `sine` is not zero, else cosine."""
    radius = np.sqrt(_MINUS_TWO * log32(_ONE - first))
    return radius * np.where(sine != 0, *sin_cos32(TWO_PI * second))


def normal_groups32(uniforms: Float32, mean: float, std: float) -> Float32:
    """Normals out of uniforms in [0, 1): both float32[groups, 16]."""
    first, second = uniforms[:, : GROUP // 2], uniforms[:, GROUP // 2 :]
    radius = np.sqrt(_MINUS_TWO * log32(_ONE - first))
    sine, cosine = sin_cos32(TWO_PI * second)
    pairs = np.concatenate([radius * cosine, radius * sine], axis=1)
    return _fused(pairs, np.float32(std), np.float32(mean))


def normal_groups64(uniforms: Float64, mean: float, std: float) -> Float64:
    """Normals out of uniforms in [0, 1): both float64[groups, 16]."""
    first, second = uniforms[:, : GROUP // 2], uniforms[:, GROUP // 2 :]
    radius = np.sqrt(-2.0 * by_library(math.log, 1.0 - first))
    angle = 2.0 * math.pi * second
    sine, cosine = by_library(math.sin, angle), by_library(math.cos, angle)
    pairs = np.concatenate([radius * cosine, radius * sine], axis=1)
    return fused_multiply_add64(pairs, std, mean)


def normal_pairs64(first: Float64, second: Float64) -> tuple[Float64, Float64]:
    """Two standard normals out of each two uniforms in [0, 1), as PyTorch draws normals one by one.

    Here the first uniform is the angle and the second the radius; the second normal is the one that is kept.
    """
    radius = np.sqrt(-2.0 * by_library(math.log1p, -second))
    angle = 2.0 * math.pi * first
    return radius * by_library(math.cos, angle), radius * by_library(math.sin, angle)
