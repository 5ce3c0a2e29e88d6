"""Random integers, permutations and choices from the words of PyTorch's CPU generator.

How many words an element takes, and in which order, is in the table of `distributions`.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.distributions import (
    C_NAMES,
    SIGNIFICAND_BITS,
    Shape,
    Words,
    exponential,
    greatest_finite,
    pairs,
    rounded,
    unit_float64,
)
from torturous.core.dtypes import DType
from torturous.core.mersenne import MersenneTwister

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONG_RANGE = 2**28
"""From this range on, an integer takes two words."""
_SMALL_PERMUTATION = (2**32 - 1) // 20
"""Below this length a permutation takes one word per element."""


def integers_from_words(words: Words, low: int, extent: int, dtype: DType) -> NDArray[Any]:
    """Integers in [low, low + extent): one word each, two from an extent of 2**28."""
    drawn = pairs(words) if extent >= _LONG_RANGE else words.astype(np.uint64)
    # Two's complement wraps the sum into place when low is negative, as in PyTorch.
    return rounded((drawn % np.uint64(extent) + np.uint64(low % 2**64)).view(np.int64), dtype)


def integers(
    generator: MersenneTwister, shape: Shape, dtype: DType, low: int | None = None, high: int | None = None
) -> NDArray[Any]:
    """`randint(low, high)`, `random_(low, high)`, `random_(low, None)` and `random_()`.

    With both bounds: [low, high). With `low` only: from low to the dtype's greatest value, 2**significand
    bits for a floating dtype, inclusive; low = -2**63 means all 64 bits. Without bounds: w % m with m = 2 for
    bool, the greatest value + 1 for other integers, 2**significand bits + 1 for floating dtypes.

    Raises RuntimeError for an empty range or a bound out of the dtype's range, ValueError for a bound beyond
    64 bits, NotImplementedError for all 64 bits of a dtype that has no kernel for it; warns (UserWarning)
    where a floating dtype cannot represent every integer.
    """
    count = math.prod(shape)
    for bound in (low, high):
        if bound is not None and not -(2**63) <= bound < 2**63:
            raise ValueError(f"Overflow: a bound of random integers must fit into 64 bits, got {bound}")
    if low is None:
        if high is not None:
            raise TypeError("random_ with an upper bound needs a lower bound too; use low=0")
        return _unbounded_integers(generator, count, dtype).reshape(shape)
    if high is None and low == -(2**63):
        return _all_64_bits(generator, count, dtype).reshape(shape)
    if high is None:
        last = 2 ** SIGNIFICAND_BITS[dtype] if dtype.is_floating_point else _greatest_integer(dtype)
        if dtype.is_floating_point:
            low = _representable_low(low, dtype)
            if low >= last:
                raise RuntimeError(
                    "random_ expects 'from' casted to dtype to be less than or equal to 'to_inc' casted "
                    f"to dtype, but got from={low} > to_inc={last}"
                )
    else:
        if low >= high:
            raise RuntimeError(
                f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
            )
        if dtype.is_floating_point:
            low, high = _representable_low(low, dtype), _representable_high(high, dtype)
            if low >= high:
                raise RuntimeError(
                    "random_ expects 'from' casted to dtype to be less than 'to' casted to dtype, "
                    f"but got from={low} >= to={high}"
                )
        last = high - 1
    _check_integer_bounds(low, last, dtype)
    extent = last - low + 1
    words = generator.words(2 * count if extent >= _LONG_RANGE else count)
    return integers_from_words(words, low, extent, dtype).reshape(shape)


def _unbounded_integers(generator: MersenneTwister, count: int, dtype: DType) -> NDArray[Any]:
    if dtype is dtypes.bool_:
        modulus = 2
    elif dtype.is_floating_point:
        modulus = 2 ** SIGNIFICAND_BITS[dtype] + 1
    else:
        modulus = _greatest_integer(dtype) + 1
    if dtype in (dtypes.int64, dtypes.float64):
        drawn = pairs(generator.words(2 * count))
    else:
        drawn = generator.words(count).astype(np.uint64)
    return rounded((drawn % np.uint64(modulus)).view(np.int64), dtype)


def _all_64_bits(generator: MersenneTwister, count: int, dtype: DType) -> NDArray[Any]:
    if dtype not in (dtypes.int64, dtypes.float64, dtypes.float32, dtypes.bfloat16):
        raise NotImplementedError(
            "random_full_64_bits_range_kernel_cpu handles only int64, double, float and bfloat16, "
            f"not {dtype.name}"
        )
    return rounded(pairs(generator.words(2 * count)).view(np.int64), dtype)


def permutation(generator: MersenneTwister, count: int, dtype: DType = dtypes.int64) -> NDArray[Any]:
    """`randperm(count)`: the numbers 0...count-1 shuffled (Fisher and Yates).

    One word per element but the last; from 214,748,364 elements on, two words per element and the inside-out
    form of the shuffle. Raises RuntimeError for a negative count or one whose numbers the dtype cannot hold,
    NotImplementedError for bool.
    """
    if count < 0:
        raise RuntimeError(f"randperm expects a count that is not negative, got {count}")
    if dtype is dtypes.bool_:
        raise NotImplementedError("\"randperm\" not implemented for 'Bool'")
    most = 2 ** SIGNIFICAND_BITS[dtype] + 1 if dtype.is_floating_point else _greatest_integer(dtype)
    if count > most and dtype is not dtypes.bfloat16:  # PyTorch does not check bfloat16
        raise RuntimeError(f"n cannot be greater than {most} for {dtype.name} type, got {count}")
    order = list(range(count))
    if count < _SMALL_PERMUTATION:
        words = generator.words(max(count - 1, 0))
        partners = np.arange(count - 1) + words % np.arange(count, 1, -1) if count > 1 else np.arange(0)
        for index, partner in enumerate(partners.tolist()):
            order[index], order[partner] = order[partner], order[index]
    else:
        for index in range(count):
            partner = int(pairs(generator.words(2))[0]) % (index + 1)
            order[index] = order[partner]
            order[partner] = index
    return rounded(np.array(order, np.int64), dtype)


def multinomial(
    generator: MersenneTwister, probabilities: NDArray[Any], samples: int, replacement: bool = False
) -> NDArray[np.int64]:
    """`torch.multinomial`: indices drawn with the given weights, shape (samples,) or (rows, samples).

    `probabilities` is a floating array of 1 or 2 dimensions whose rows need not sum to one. With replacement
    and more than one sample, every sample is the first category whose cumulated weight reaches U53 of its two
    words. Otherwise every weight is divided by an exponential number (two words per weight) and the largest
    quotients win, largest first; among equal quotients (weights of zero, rounding to sixteen bits) the lowest
    index goes first, where PyTorch's order is unspecified.

    Raises RuntimeError for shapes, weights or numbers of samples that PyTorch refuses.
    """
    dtype = dtypes.from_numpy(probabilities.dtype)
    if probabilities.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, got shape {probabilities.shape}")
    if not dtype.is_floating_point:
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {dtype.name}")
    if samples <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples, got {samples}")
    categories = probabilities.shape[-1]
    if not replacement and samples > categories:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement, "
            f"got {samples} of {categories}"
        )
    if categories > 2**24:
        raise RuntimeError(f"number of categories cannot exceed 2^24, got {categories}")
    result_shape = (*probabilities.shape[:-1], samples)
    rows = probabilities.reshape(math.prod(probabilities.shape[:-1]), categories)
    if math.prod(result_shape) == 0:
        return np.empty(result_shape, np.int64)
    wide = rows.astype(np.float64)
    if not np.all(np.isfinite(wide) & (wide >= 0)):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not np.all(wide.max(axis=1, initial=0.0) > 0):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement or samples == 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            quotients = (rows / exponential(generator, rows.shape, dtype)).astype(np.float64)
        quotients[np.isnan(quotients)] = np.inf  # 0 / 0: the greatest, as in PyTorch
        chosen = np.argsort(-quotients, axis=1, kind="stable")[:, :samples]
        return chosen.astype(np.int64).reshape(result_shape)
    cumulated = np.cumsum(rows if dtype is dtypes.float64 else rows.astype(np.float32), axis=1)
    cumulated /= cumulated[:, -1:].copy()
    cumulated[:, -1] = 1
    drawn = unit_float64(generator.words(2 * len(rows) * samples)).reshape(-1, samples)
    chosen = np.stack(
        [np.searchsorted(row.astype(np.float64), u) for row, u in zip(cumulated, drawn, strict=True)]
    )
    return chosen.astype(np.int64).reshape(result_shape)


def _greatest_integer(dtype: DType) -> int:
    return 1 if dtype is dtypes.bool_ else int(np.iinfo(dtype.numpy).max)


def _step(magnitude: int, dtype: DType) -> int:
    """The spacing of the dtype's numbers at an integer beyond its significand."""
    return 1 << max(magnitude.bit_length() - SIGNIFICAND_BITS[dtype], 0)


def _representable_low(low: int, dtype: DType) -> int:
    """The least bound from `low` upwards below which no draw falls when rounded to the dtype."""
    after = _as_integer(low + 1, dtype)
    return after + _step(abs(low + 1), dtype) if after < low else low


def _representable_high(high: int, dtype: DType) -> int:
    """The greatest bound up to `high` that no draw reaches when rounded to the dtype."""
    before = _as_integer(high - 1, dtype)
    return before - _step(abs(high - 1), dtype) if before >= high else high


def _as_integer(value: int, dtype: DType) -> int:
    """The integer rounded to a floating dtype and back; -2**63, as on x86-64, if it is then too large."""
    number = float(rounded(np.array([value], np.int64), dtype)[0])
    return int(number) if abs(number) < 2.0**63 else -(2**63)


def _check_integer_bounds(low: int, last: int, dtype: DType) -> None:
    if dtype.is_floating_point:
        least, greatest = -greatest_finite(dtype), greatest_finite(dtype)
    else:
        greatest = _greatest_integer(dtype)
        least = -greatest - 1 if dtype.is_signed else 0
    bits = SIGNIFICAND_BITS.get(dtype)
    for name, bound in (("from", low), ("to - 1", last)):
        if not least <= bound <= greatest:
            raise RuntimeError(f"{name} is out of bounds for {C_NAMES[dtype]}: {bound}")
        if bits is not None and abs(bound) > 2**bits:
            warnings.warn(
                f"{name} is out of bounds [-(2^{bits}), 2^{bits}]: "
                f"{dtype.name} cannot represent every integer there",
                UserWarning,
                stacklevel=3,
            )
