"""Random values as macros over raw words, and dropout's factors: the table of `core.distributions`, in rows.

The first operand of each is a RANDOM row as it is, the advanced state before the words, so that a draw costs
few rows: RANDOM, the slice that is the next state, and one of these.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torturous.core import dtypes
from torturous.core.box_muller import GROUP
from torturous.core.intervals import added, remainders
from torturous.ir.creation import STATE_WORDS
from torturous.ir.elementwise import NORMAL24, UNIFORM53
from torturous.ir.op import Attributes, Kind, Op, Type, define


def _words(raw: Any, count: int, first: int = 0, step: int = 1) -> Any:
    """Every `step`-th of the words drawn, from the `first`."""
    return raw.slice((count,), (0,), (step,), (raw.slot(STATE_WORDS + first),))


def _uniform53(raw: Any, count: int) -> Any:
    """float64 in [0, 1) from two words each, of which the first drawn is the high half."""
    return _words(raw, count, 1, 2).apply(UNIFORM53, _words(raw, count, 0, 2))


def _expand_uniform(out: Type, at: Attributes, raw: Any, *bounds: Any) -> Any:
    count = prod(out.shape)
    unit = _uniform53(raw, count) if out.dtype is dtypes.float64 else _words(raw, count).uniform24()
    if bounds:
        extent, low, high = bounds
        value = unit.fused_multiply_add(extent, low).to(out.dtype)
        value = value.eq(high).where(low, value)
    else:
        value = unit.to(out.dtype)
    return value.reshape(out.shape)


def _expand_bernoulli(out: Type, at: Attributes, raw: Any, probability: Any) -> Any:
    return _uniform53(raw, prod(out.shape)).lt(probability).to(out.dtype).reshape(out.shape)


def _expand_integers(out: Type, at: Attributes, raw: Any, extent: Any, low: Any) -> Any:
    word = _words(raw, prod(out.shape)).to(dtypes.int64).bitwise_and(0xFFFFFFFF)
    return (word.remainder(extent) + low).to(out.dtype).reshape(out.shape)


def _expand_noise(out: Type, at: Attributes, raw: Any, keep: Any) -> Any:
    """As PyTorch computes it: 1 where an element stays, else 0, divided by `keep` and then rounded."""
    kept = _uniform53(raw, prod(out.shape)).lt(keep)
    one = raw.full((), dtypes.float32 if out.dtype.is_half else out.dtype, 1)
    return kept.reshape(out.shape).where(one / keep, 0.0).to(out.dtype)


def _expand_normal(out: Type, at: Attributes, raw: Any, mean: Any, std: Any) -> Any:
    """In groups of sixteen, of which the first eight uniforms give radii and the others angles (`core.box_muller`). The
    last sixteen of a count that sixteen does not divide are drawn once more."""
    count = prod(out.shape)
    whole = count - count % GROUP

    def groups(first: int, words: int) -> Any:
        shape = (words // GROUP, 2, GROUP // 2)
        uniforms = _words(raw, words, first).uniform24().reshape(shape)
        radii, angles = (uniforms.part(1, half, 2).expand(shape) for half in (0, 1))
        sine = raw.iota(2, dtypes.float32).reshape((1, 2, 1)).expand(shape)
        return radii.apply(NORMAL24, angles, sine).fused_multiply_add(std, mean).to(out.dtype).reshape((words,))

    values = groups(0, whole)
    if count > whole:
        last = groups(whole if out.dtype.is_half else count, GROUP)
        values = values.slice((count - GROUP,), (0,), (1,), (0,)).concatenate(0, last)
    return values.reshape(out.shape)


def _define(name: str, expand: Any, document: str, bounds: Any = None) -> Op:
    return define(Op(name, Kind.MACRO, None, None, (None,) * 4, (), None, expand, document=document, bounds=bounds))


UNIFORM = _define("uniform", _expand_uniform,
                  "in [low, high); operands: raw, then high − low, low and high unless it is [0, 1)")
BERNOULLI = _define("bernoulli", _expand_bernoulli, "1 with a probability, else 0; operands: raw, it")
INTEGERS = _define("integers", _expand_integers, "low + word mod extent < 2^28; operands: raw, extent, low",
                   lambda out, at, types, raw, extent, low: added(low, remainders(extent)))
NORMAL = _define("normal", _expand_normal, "float32 or narrower, 16 or more; operands: raw, mean, deviation")
NOISE = _define("noise", _expand_noise, "dropout's factors 1/keep and 0; operands: raw, keep = 1 − p")

__all__ = ["BERNOULLI", "INTEGERS", "NOISE", "NORMAL", "UNIFORM"]
