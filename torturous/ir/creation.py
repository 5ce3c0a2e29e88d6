"""Values made from nothing but numbers: fills, sequences, raw random words."""

from __future__ import annotations

from typing import Any

import numpy as np

from torturous.core.intervals import Interval, added, hull, multiplied
from torturous.core.mersenne import MersenneTwister
from torturous.ir.bounds import kept
from torturous.ir.op import Attributes, Kind, Op, Type, define

STATE_WORDS = 625
"""Words of a Mersenne Twister's state: 624 of the recurrence and the position."""


def _random_meaning(out: Type, at: Attributes, state: np.ndarray) -> np.ndarray:
    copy = state.view(np.uint32).copy()
    words = MersenneTwister(copy).words(out.shape[0] - STATE_WORDS)
    return np.concatenate([copy, words]).view(np.int32)


def _reached(out: Type, at: Attributes, types: Any, start: Interval, step: Interval) -> Interval:
    last = max(out.shape[0] - 1, 0)
    return hull(start, added(start, multiplied(step, (last, last))))


FULL = define(Op(
    "full", Kind.CREATE, None, lambda out, at, fill: np.full(out.shape, fill).astype(out.dtype.numpy), (None,),
    bounds=kept, document="every element is the slot"))
IOTA = define(Op(
    "iota", Kind.CREATE, None,
    lambda out, at, start, step: (
        np.asarray(start) + np.arange(out.shape[0]) * np.asarray(step)).astype(out.dtype.numpy),
    (None, None), bounds=_reached, document="start + i·step along the only axis; operands: start, step"))
RANDOM = define(Op(
    "random", Kind.RANDOM, None, _random_meaning, (None,),
    document="int32: the advanced state of a Mersenne Twister (625 words), then raw words; operand: its state"))
