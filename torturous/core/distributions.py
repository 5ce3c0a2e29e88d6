"""The random numbers of PyTorch's CPU generator: from raw 32-bit words to values.

These functions are the meaning of the random operations, and what native kernels are tested against. Each
takes the generator, the shape and the parameters, draws a number of words that depends on nothing but those
(and, for `normal`, on whether a number was kept), and returns a fresh array. An empty shape draws nothing.
Below, `w[k]` are the words the call draws, `i` counts elements in the order of the result's memory, and

    U24(a)    = (a & (2**24 - 1)) * 2**-24                       exact in float32
    W64(a, b) = a << 32 | b                                      the first word drawn is the high half
    U53(a, b) = (W64(a, b) & (2**53 - 1)) * 2**-53               exact in float64
    fma       = multiply and add with one rounding

======================  =======  ============================================================================
call                    words    element i
======================  =======  ============================================================================
uniform float32         n        fma(U24(w[i]), high - low, low), high - low rounded to float32, and `low`
                                 where that gives `high`; for low = 0 and high = 1 simply U24(w[i])
uniform float16, bf16   n        the same in float32, rounded to dtype; `low` where that gives rounded `high`
uniform float64         2n       fma(U53(w[2i], w[2i+1]), high - low, low); `low` where that gives `high`
bernoulli, p a number   2n       U53(w[2i], w[2i+1]) < p, p in float64, for every dtype of the result
bernoulli, p float64    2n       U53(w[2i], w[2i+1]) < p[i]
bernoulli, p narrower   n        U24(w[i]) < p[i], p[i] widened to float32
dropout mask            2n       keep where U53(w[2i], w[2i+1]) < 1 - p, in float64; no words if p is 0 or 1
feature dropout mask    2 N C    the same for each of the N * C channels
integers, range < 2^28  n        low + w[i] % range, where range = high - low
integers, otherwise     2n       low + W64(w[2i], w[2i+1]) % range
integers, no bounds     n or 2n  w[i] % m; int64 and float64: W64(w[2i], w[2i+1]) % m; m: see `integers`
normal float32          n + r    for j = i % 16 < 8, u = U24(w[i]) and v = U24(w[i+8]), all in float32:
(n >= 16)                        radius = sqrt(-2 * log(1 - u)), angle = float32(2 pi) * v,
                                 element i = fma(radius * cos(angle), std, mean),
                                 element i + 8 = fma(radius * sin(angle), std, mean),
                                 with log, sin and cos of `box_muller`. If 16 divides n, r = 0; else r = 16
                                 and elements n-16...n-1 are instead made, the same way, of w[n...n+15]
normal float16, bf16    16q + r  the float32 numbers rounded to dtype; the q = n // 16 whole groups come of
(n >= 16)                        w[0...16q-1]; if 16 does not divide n, elements n-16...n-1 are instead
                                 made of w[16q...16q+15], r = 16
normal float64          2(n+r)   as float32 with U53(w[2i], w[2i+1]) in place of U24(w[i]), in float64 and
(n >= 16)                        with the C library's log, sin and cos
normal, one by one      4 per    (n < 16 or not contiguous; log_normal always) float64 whatever the dtype:
                        pair     u = U53(w[0], w[1]), v = U53(w[2], w[3]), radius = sqrt(-2 * log1p(-v)),
                                 angle = 2 pi u; gives fma(radius * cos(angle), std, mean) and keeps
                                 radius * sin(angle), scaled by the std and mean of the call that takes it
exponential             2n       (-1 / rate) * log1p(-U53(w[2i], w[2i+1])), in float64, rounded to dtype
geometric               2n       ceil(log(U53(w[2i], w[2i+1])) / log1p(-p)), in float64
cauchy                  2n       fma(sigma, tan(pi * (U53(w[2i], w[2i+1]) - 0.5)), median), in float64
permutation             n - 1    for i in 0...n-2: swap element i with element i + w[i] % (n - i)
multinomial, several,   2 per    row by row: the first category whose share of the cumulated weights is not
with replacement        sample   less than U53(w[2i], w[2i+1])
multinomial, else       2 per    weights / exponential(1) in the weights' dtype; arg max or top k of them
                        weight
======================  =======  ============================================================================

Order of elements: PyTorch fills a dense tensor in the order of its memory, whatever its strides, so a
transposed or channels-last destination gets these values along its memory; a sliced one is filled by
ascending stride.

Agreement with PyTorch 2.13 on x86-64 with AVX2 or AVX-512 is bit for bit, with the C library's log, log1p,
exp, sin, cos and tan. PyTorch itself gives other numbers elsewhere: on Intel processors its
`bernoulli_(number)`, and so dropout, takes one word to seed a generator of MKL's (this module does what it
does on all others); without AVX2 its float32 normals use the C library and differ in the last bits, and so
may the fused multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from torturous.core import dtypes
from torturous.core.box_muller import (
    GROUP,
    by_library,
    fused_multiply_add32,
    fused_multiply_add64,
    normal_groups32,
    normal_groups64,
    normal_pairs64,
)
from torturous.core.dtypes import DType
from torturous.core.mersenne import MersenneTwister

if TYPE_CHECKING:
    from numpy.typing import NDArray

Words: TypeAlias = "NDArray[np.uint32]"
Shape = Sequence[int]

SIGNIFICAND_BITS = {dtypes.float16: 11, dtypes.bfloat16: 8, dtypes.float32: 24, dtypes.float64: 53}
C_NAMES = {
    dtypes.bool_: "bool", dtypes.uint8: "unsigned char", dtypes.int32: "int", dtypes.int64: "long int",
    dtypes.float16: "c10::Half", dtypes.bfloat16: "c10::BFloat16", dtypes.float32: "float",
    dtypes.float64: "double",
}  # fmt: skip


# ---- from words to numbers ---------------------------------------------------------------------------------


def unit_float32(words: Words) -> NDArray[np.float32]:
    """U24 of every word: multiples of 2**-24 in [0, 1)."""
    return (words & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)


def pairs(words: Words) -> NDArray[np.uint64]:
    """W64 of every two successive words; an even number of them."""
    return words[0::2].astype(np.uint64) << np.uint64(32) | words[1::2]


def unit_float64(words: Words) -> NDArray[np.float64]:
    """U53 of every two successive words: multiples of 2**-53 in [0, 1)."""
    return (pairs(words) & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53


def uniform_from_words(words: Words, low: float, high: float, dtype: DType) -> NDArray[Any]:
    """Numbers in [low, high): one word each, two for float64."""
    if dtype is dtypes.float64:
        values = fused_multiply_add64(unit_float64(words), high - low, low)
    else:
        first, last = np.float32(low), np.float32(high)
        values = fused_multiply_add32(unit_float32(words), last - first, first).astype(dtype.numpy)
    bounds = rounded(np.array([low, high]), dtype)
    return np.where(values == bounds[1], bounds[0], values)


def normal_from_words(words: Words, count: int, mean: float, std: float, dtype: DType) -> NDArray[Any]:
    """`count` >= 16 normals made in groups of 16 (see the module's table)."""
    group_normals = normal_groups64 if dtype is dtypes.float64 else normal_groups32
    uniforms: Any = unit_float64(words) if dtype is dtypes.float64 else unit_float32(words)
    whole = count - count % GROUP
    values = np.empty(count, dtype.numpy)
    values[:whole] = group_normals(uniforms[:whole].reshape(-1, GROUP), mean, std).ravel()
    if whole < count:
        values[-GROUP:] = group_normals(uniforms[-GROUP:].reshape(1, GROUP), mean, std).ravel()
    return values


def normal_group_words(count: int, dtype: DType) -> int:
    """Words that `normal` draws for `count` >= 16 contiguous elements."""
    remade = GROUP if count % GROUP else 0
    if dtype is dtypes.float64:
        return 2 * (count + remade)
    return (count - count % GROUP if dtype.is_half else count) + remade


def rounded(values: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """float64 or int64 values as `dtype`; into sixteen bits by way of float32, as PyTorch converts them."""
    if dtype.is_half:
        values = values.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype.numpy)


# ---- the distributions -------------------------------------------------------------------------------------


def uniform(
    generator: MersenneTwister, shape: Shape, dtype: DType, low: float = 0.0, high: float = 1.0
) -> NDArray[Any]:
    """`rand` and `uniform_(low, high)`. One word per element, two for float64.

    Raises NotImplementedError for a dtype that is not floating, RuntimeError for bounds that are out of the
    dtype's range, the wrong way round or too far apart.
    """
    _require_floating("check_uniform_bounds", dtype)
    low, high = float(low), float(high)
    greatest = greatest_finite(dtype)
    for name, bound in (("from", low), ("to", high)):
        if not abs(bound) <= greatest:
            raise RuntimeError(f"{name} is out of bounds for {C_NAMES[dtype]}")
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    if high - low > greatest:
        raise RuntimeError(
            f"uniform_ expects to-from <= the greatest {dtype.name}, but found to={high} and from={low} "
            "which result in to-from to exceed the limit"
        )
    count = math.prod(shape)
    words = generator.words(2 * count if dtype is dtypes.float64 else count)
    return uniform_from_words(words, low, high, dtype).reshape(shape)


def normal(
    generator: MersenneTwister,
    shape: Shape,
    dtype: DType,
    mean: float = 0.0,
    std: float = 1.0,
    contiguous: bool = True,
) -> NDArray[Any]:
    """`randn` and `normal_(mean, std)`.

    From 16 elements on, if the destination is contiguous, in groups of 16; otherwise one by one in float64,
    every second one out of the generator's `next_double_normal`. Raises NotImplementedError for a dtype that
    is not floating, RuntimeError for a negative std.
    """
    if not std >= 0.0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    _require_floating("normal_kernel_cpu", dtype)
    count = math.prod(shape)
    if count >= GROUP and contiguous:
        words = generator.words(normal_group_words(count, dtype))
        return normal_from_words(words, count, float(mean), float(std), dtype).reshape(shape)
    return rounded(_normals_one_by_one(generator, count, mean, std), dtype).reshape(shape)


def _normals_one_by_one(
    generator: MersenneTwister, count: int, mean: float, std: float
) -> NDArray[np.float64]:
    """Normals in pairs, beginning with the one the generator kept, if any, and leaving it an odd last one."""
    kept = generator.next_double_normal
    before = np.array([] if kept is None or count == 0 else [kept])
    pair_count = (count - before.size + 1) // 2
    uniforms = unit_float64(generator.words(4 * pair_count)).reshape(-1, 2)
    fresh = np.stack(normal_pairs64(uniforms[:, 0], uniforms[:, 1]), axis=1).ravel()
    normals = np.concatenate([before, fresh])
    if count:
        generator.next_double_normal = float(normals[count]) if normals.size > count else None
    return fused_multiply_add64(normals[:count], float(std), float(mean))


def log_normal(
    generator: MersenneTwister, shape: Shape, dtype: DType, mean: float = 1.0, std: float = 2.0
) -> NDArray[Any]:
    """`log_normal_(mean, std)`: exp of normals drawn one by one, whatever their number.

    Raises NotImplementedError for a dtype that is not floating, RuntimeError for a std that is not positive.
    """
    if not std > 0.0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    _require_floating("log_normal_cpu", dtype)
    normals = _normals_one_by_one(generator, math.prod(shape), mean, std)
    return rounded(by_library(_exp, normals), dtype).reshape(shape)


def bernoulli(
    generator: MersenneTwister, shape: Shape, dtype: DType, probability: float | NDArray[Any] = 0.5
) -> NDArray[Any]:
    """`bernoulli_(p)` and `torch.bernoulli(p)`: 1 with the given probability, else 0.

    An array of probabilities broadcasts to the shape. Two words per element for a number or a float64 array,
    one for a narrower floating array. Raises RuntimeError for a probability outside [0, 1].
    """
    count = math.prod(shape)
    if isinstance(probability, np.ndarray):
        wide = probability.dtype == np.float64
        threshold = np.broadcast_to(probability, shape).astype(np.float64 if wide else np.float32).ravel()
        if not np.all((threshold >= 0) & (threshold <= 1)):
            raise RuntimeError("bernoulli expects every probability to be in [0, 1]")
        drawn = unit_float64(generator.words(2 * count)) if wide else unit_float32(generator.words(count))
        return (drawn < threshold).astype(dtype.numpy).reshape(shape)
    if not 0 <= probability <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={probability}")
    return (unit_float64(generator.words(2 * count)) < probability).astype(dtype.numpy).reshape(shape)


def dropout_mask(generator: MersenneTwister, shape: Shape, probability: float) -> NDArray[np.bool_]:
    """Which elements dropout in training keeps; `dropout`, `alpha_dropout`: two words per element.

    A probability of 0 (keep all) or 1 (keep none) draws nothing. For the feature dropouts (1, 2 and 3
    dimensions, and `feature_alpha_dropout`) pass `feature_shape(shape)`. Raises ValueError for a probability
    outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {probability}")
    if probability in (0, 1):
        return np.full(shape, probability == 0)
    return bernoulli(generator, shape, dtypes.bool_, 1.0 - probability)


def feature_shape(shape: Shape) -> tuple[int, ...]:
    """The shape of a feature dropout's mask, which drops whole channels: (N, C, 1, ...).

    Raises RuntimeError for fewer than two dimensions.
    """
    if len(shape) < 2:
        raise RuntimeError(
            f"Feature dropout requires at least 2 dimensions in the input, got shape {tuple(shape)}"
        )
    return (*shape[:2], *(1 for _ in shape[2:]))


def exponential(generator: MersenneTwister, shape: Shape, dtype: DType, rate: float = 1.0) -> NDArray[Any]:
    """`exponential_(rate)`. Raises RuntimeError for a rate that is not positive or a dtype that is not
    floating."""
    if not rate > 0.0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={rate}")
    if not dtype.is_floating_point:
        raise RuntimeError(
            f"exponential_ is a continuous distribution and needs a floating dtype, got {dtype.name}"
        )
    drawn = unit_float64(generator.words(2 * math.prod(shape)))
    return rounded((-1.0 / rate) * by_library(math.log1p, -drawn), dtype).reshape(shape)


def geometric(generator: MersenneTwister, shape: Shape, dtype: DType, probability: float) -> NDArray[Any]:
    """`geometric_(p)`: the number of trials up to the first success.

    Raises RuntimeError for a probability outside (0, 1), NotImplementedError for bool.
    """
    if not 0 < probability < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={probability}")
    if dtype is dtypes.bool_:
        raise NotImplementedError("\"geometric_cpu\" not implemented for 'Bool'")
    drawn = unit_float64(generator.words(2 * math.prod(shape)))
    trials = np.ceil(by_library(_log, drawn) / math.log1p(-probability))
    if dtype is dtypes.uint8:
        trials = trials.astype(np.int32)  # as x86-64 converts: the low byte of a wider integer
    return rounded(trials, dtype).reshape(shape)


def cauchy(
    generator: MersenneTwister, shape: Shape, dtype: DType, median: float = 0.0, sigma: float = 1.0
) -> NDArray[Any]:
    """`cauchy_(median, sigma)`. Raises RuntimeError for a sigma that is not positive or a dtype not
    floating."""
    if not sigma > 0.0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    if not dtype.is_floating_point:
        raise RuntimeError(
            f"cauchy_ is a continuous distribution and needs a floating dtype, got {dtype.name}"
        )
    drawn = unit_float64(generator.words(2 * math.prod(shape)))
    tangent = by_library(math.tan, math.pi * (drawn - 0.5))
    return rounded(fused_multiply_add64(float(sigma), tangent, float(median)), dtype).reshape(shape)


# ---- limits and special values -----------------------------------------------------------------------------


def _exp(x: float) -> float:
    """The C library's exp, infinite where Python's raises."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _log(x: float) -> float:
    """The C library's log, minus infinity at 0, where Python's raises."""
    return math.log(x) if x else -math.inf


def _require_floating(kernel: str, dtype: DType) -> None:
    if not dtype.is_floating_point:
        raise NotImplementedError(f'"{kernel}" not implemented for {dtype.name}: it needs a floating dtype')


def greatest_finite(dtype: DType) -> float:
    """The greatest finite number of a floating dtype: all significand bits set, greatest exponent."""
    exponent = {dtypes.float16: 15, dtypes.float64: 1023}.get(dtype, 127)
    return math.ldexp(2.0 - 2.0 ** (1 - SIGNIFICAND_BITS[dtype]), exponent)
