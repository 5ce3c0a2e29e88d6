"""Attention without its matrix of weights: rows that take in keys and values block by block, and their gradients.

The softmax of a row is worked out as it passes over its keys (Milakov and Gimelshein, "Online normalizer calculation
for softmax", 2018; Dao et al., "FlashAttention", 2022). Its order, for queries q(…, L, E), keys k(…, S, E) and values
v(…, S, V):

- A score is one chain of fused multiply-adds over E, times the scale, plus the mask (−inf where a bool mask hides).
- Keys come in blocks of KEYS. The greatest score so far is taken, what there was is multiplied by exp(before − now),
  and the block's weights exp(score − greatest) are added up key by key. A block's part of the result is a chain over
  its keys, to which the rescaled result so far is added in a multiply-add. At the end comes the reciprocal of the sum.
- `causal`: row l sees keys 0 … l. What it does not see has weight 0 up to the end of l's stretch of QUERIES rows, and
  is not looked at beyond that: infinite values there change nothing.
- Gradients work weights out again from the greatest score and the reciprocal sum, which the rows' result carries. That
  of queries is added up block of keys by block of keys, those of keys and values stretch of queries by stretch of
  queries, each a chain from zero.

All of it is a function of L and S alone. Rows that see nothing give 0. A row has one value, so several things are
packed: see the two ops.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.box_muller import fused_multiply_add32, fused_multiply_add64
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import Attributes, Kind, Op, Type, define

QUERIES = 32
KEYS = 128
WIDTH = 16
"""Heads are served whose sizes are multiples of this."""
FEWEST_QUERIES = 24
"""Fewer rows than this would waste too many lanes: for them weights are rows of their own (`ir.attention`). Causal rows
that are few see few keys as well, so that there is little to waste, and lengths that change share a structure."""
FEWEST_KEYS_BY_WIDTH = 4
"""A row of weights is worth storing while it is at most so many rows of queries long, unless half of it is not seen:
to work it out again takes as many operations as storing it saves time."""
FEWEST_HALF_KEYS = 1024
"""Sixteen-bit operands are widened for it, which pays where rows are causal and at least so long: otherwise weights
are soon multiplied, where the machine takes their products in pairs."""


def serves(causal: bool, query: Shape, key: Shape, value: Shape, dtype: DType) -> bool:
    """Whether attention over such operands is computed this way; otherwise weights are stored."""
    (length, width), size, depth = query[-2:], key[-2], value[-1]
    if not (dtype is dtypes.float32 or dtype.is_half) or width % WIDTH or depth % WIDTH:
        return False
    if 0 in (*query, *key, *value) or (dtype.is_half and not (causal and size >= FEWEST_HALF_KEYS)):
        return False
    return causal or (length >= FEWEST_QUERIES and size >= FEWEST_KEYS_BY_WIDTH * width)


def packed_shape(query: Shape, value: Shape) -> Shape:
    """Of ATTEND's value: per head L rows of V, then the greatest scores and reciprocal sums in as many rows as those
    take, an even number: L + 1 would be taken for the length of a sequence that grows by one."""
    length, depth = query[-2], value[-1]
    return (*query[:-2], length + 2 * -(-length // depth), depth)


def gradients_shape(query: Shape, key: Shape, value: Shape) -> Shape:
    """Of ATTEND_BACK's value: per head the rows of the gradients of queries, keys and values, as wide as the widest."""
    return (*query[:-2], query[-2] + 2 * key[-2], max(query[-1], value[-1]))


# Meaning --------------------------------------------------------------------------------------------------------
# In the operands' dtype: kernels have float32 alone, tests of rules want digits to spare.
def _exp(x: np.ndarray) -> np.ndarray:
    return np.exp(x.astype(np.float64)).astype(x.dtype)


def _multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (fused_multiply_add32 if c.dtype == np.float32 else fused_multiply_add64)(a, b, c)


def _chain(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, A, K) and (N, B, K) to (N, A, B): a chain of multiply-adds over K."""
    total = np.zeros((left.shape[0], left.shape[1], right.shape[1]), left.dtype)
    for k in range(left.shape[2]):
        total = _multiply_add(left[:, :, None, k], right[:, None, :, k], total)
    return total


def _heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(prod(x.shape[:-2]), *x.shape[-2:])


def _scores(at: Attributes, q: np.ndarray, k: np.ndarray, scale: Any, mask: tuple) -> np.ndarray:
    causal, masked = at
    x = _chain(_heads(q), _heads(k)) * q.dtype.type(scale)
    if causal:
        seen = np.arange(x.shape[1])[:, None] >= np.arange(x.shape[2])
        x = np.where(seen, x, x.dtype.type("-inf"))
    if masked:
        given = _heads(mask[0])
        x = np.where(given, x, x.dtype.type("-inf")) if masked == "bool" else x + given
    return x


def _stretches(at: Attributes, length: int, size: int) -> list[tuple[slice, int]]:
    """Stretches of queries, and how many keys each looks at."""
    starts = range(0, length, QUERIES)
    return [(slice(s, min(s + QUERIES, length)), min(size, s + QUERIES) if at[0] else size) for s in starts]


def _meaning(out: Type, at: Attributes, q: Any, k: Any, v: Any, scale: Any, *mask: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        x, values = _scores(at, q, k, scale, mask), _heads(v)
        heads, length, size = x.shape
        result = np.zeros((heads, length, values.shape[2]), x.dtype)
        statistics = np.zeros((heads, 2, length), x.dtype)
        for rows, bound in _stretches(at, length, size):
            part = x[:, rows]
            top = np.full(part.shape[:2], -np.inf, x.dtype)
            total, sums = np.zeros_like(top), np.zeros((*top.shape, values.shape[2]), x.dtype)
            for start in range(0, bound, KEYS):
                block = part[:, :, start:min(start + KEYS, bound)]
                before, top = top, np.fmax(top, np.fmax.reduce(block, 2))
                safe = np.where(top == -np.inf, x.dtype.type(0), top)
                decay, weights = _exp(before - safe), _exp(block - safe[:, :, None])
                added = np.zeros_like(total)
                for position in range(block.shape[2]):
                    added = added + weights[:, :, position]
                total = _multiply_add(total, decay, added)
                here = _chain(weights, values[:, start:start + block.shape[2]].transpose(0, 2, 1))
                sums = _multiply_add(sums, np.broadcast_to(decay[:, :, None], sums.shape), here)
            inverse = x.dtype.type(1) / np.where(total == 0, x.dtype.type(1), total)
            result[:, rows] = sums * inverse[:, :, None]
            statistics[:, 0, rows], statistics[:, 1, rows] = np.where(top == -np.inf, x.dtype.type(0), top), inverse
        packed = np.zeros((heads, *out.shape[-2:]), x.dtype)
        packed[:, :length] = result
        packed[:, length:].reshape(heads, -1)[:, :2 * length] = statistics.reshape(heads, -1)
    return packed.reshape(out.shape)


def _meaning_back(
    out: Type, at: Attributes, q: Any, k: Any, v: Any, scale: Any, g: Any, packed: Any, *mask: Any
) -> np.ndarray:
    with np.errstate(all="ignore"):
        x = _scores(at, q, k, scale, mask)
        queries, keys, values, upstream, forward = map(_heads, (q, k, v, g, packed))
        heads, length, size = x.shape
        result, rest = forward[:, :length], forward[:, length:].reshape(heads, -1)
        top, inverse = rest[:, :length, None], rest[:, length:2 * length, None]
        of_weights = _chain(upstream, values)
        delta = np.zeros((heads, length, 1), x.dtype)
        for column in range(values.shape[2]):
            delta[:, :, 0] = _multiply_add(upstream[:, :, column], result[:, :, column], delta[:, :, 0])
        weights = _exp(x - top) * inverse
        of_scores = weights * (of_weights - delta) * x.dtype.type(scale)
        found = np.zeros((heads, *out.shape[-2:]), x.dtype)
        width, depth = keys.shape[2], values.shape[2]
        of_queries, of_keys = found[:, :length, :width], found[:, length:length + size, :width]
        of_values = found[:, length + size:, :depth]
        for rows, bound in _stretches(at, length, size):
            for start in range(0, bound, KEYS):
                block = slice(start, min(start + KEYS, bound))
                of_queries[:, rows] += _chain(of_scores[:, rows, block], keys[:, block].transpose(0, 2, 1))
            seen = slice(0, bound)
            for target, factor, other in ((of_keys, of_scores, queries), (of_values, weights, upstream)):
                target[:, seen] += _chain(factor[:, rows, seen].transpose(0, 2, 1), other[:, rows].transpose(0, 2, 1))
    return found.reshape(out.shape)


ATTEND: Op = define(Op(
    "attend", Kind.ATTENTION, None, _meaning,
    document="operands q(…, L, E), k(…, S, E), v(…, S, V), scale, mask(…, L, S)?; attributes: causal, what mask there "
             "is ('', 'bool', 'float'); value: `packed_shape`"))
ATTEND_BACK: Op = define(Op(
    "attend_back", Kind.ATTENTION, None, _meaning_back,
    document="operands q, k, v, scale, the result's gradient, the forward rows' value, mask?; attributes as there; "
             "value: `gradients_shape`"))
