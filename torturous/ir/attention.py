"""Attention (Vaswani et al., 2017): the weights as one row between two contractions.

`attention_weights` is the softmax over the last axis of scores (…, L, S) times a scale, with what a mask hides left
out. Attributes: whether row l sees columns 0 … l only; what mask there is ('' for none, 'bool' where true is seen,
'float' to be added); whether rows that see nothing are 0 rather than not a number.
"""

from __future__ import annotations

from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir.contraction import lone
from torturous.ir.op import Attributes, Kind, Op, Type, define


def scores_product(batch: int) -> Attributes:
    """(…, L, E) · (…, S, E)ᵀ as a contraction's attributes."""
    lead = tuple(lone(loop) for loop in range(batch))
    row, column, inner = (lone(batch + position) for position in range(3))
    return 1, (*lead, row, inner), (*lead, column, inner)


def _wide(dtype: DType) -> DType:
    return dtypes.float32 if dtype.is_half else dtype


def _last(shape: tuple[int, ...]) -> tuple[int]:
    return (len(shape) - 1,)


def _expand_weights(out: Type, at: Attributes, scores: Any, scale: Any, *mask: Any) -> Any:
    causal, kind, safe = at
    last = _last(out.shape)
    x = scores.to(_wide(out.dtype)) * scale
    if causal:
        rows, columns = (scores.iota(size, dtypes.int64) for size in out.shape[-2:])
        x = rows.reshape((out.shape[-2], 1)).ge(columns).where(x, float("-inf"))
    if kind:
        x = mask[0].where(x, float("-inf")) if kind == "bool" else x + mask[0].to(x.dtype)
    top = x.amax(last, True)
    if safe:
        top = top.eq(float("-inf")).where(0.0, top)
    raised = (x - top).exp()
    total = raised.sum(last, True)
    if safe:
        total = total.eq(0.0).where(1.0, total)
    return (raised / total).to(out.dtype)


def _expand_scores(out: Type, at: Attributes, g: Any, weights: Any, scale: Any) -> Any:
    g, weights = g.to(_wide(out.dtype)), weights.to(_wide(out.dtype))
    return (weights * (g - (g * weights).sum(_last(out.shape), True)) * scale).to(out.dtype)


def _scores_rule(g: Any, out: Any, at: Attributes, scores: Any, scale: Any, *mask: Any) -> Any:
    return g.apply_typed(ATTENTION_SCORES, scores.shape, scores.dtype, out, scale)


def _mask_rule(g: Any, out: Any, at: Attributes, scores: Any, scale: Any, mask: Any) -> Any:
    return g.apply_typed(ATTENTION_SCORES, scores.shape, scores.dtype, out, 1.0)


def _of_scores_by_weights(gg: Any, out: Any, at: Attributes, g: Any, weights: Any, scale: Any) -> Any:
    last = _last(g.shape)
    return (gg * (g - (g * weights).sum(last, True)) - g * (gg * weights).sum(last, True)) * scale


ATTENTION_WEIGHTS: Op = define(Op(
    "attention_weights", Kind.MACRO, None, None, (_scores_rule, None, _mask_rule), ((-1,), (), (-1,)), None,
    _expand_weights, document="operands: scores (…, L, S), scale, mask?"))
ATTENTION_SCORES: Op = define(Op(
    "attention_scores", Kind.MACRO, None, None,
    (lambda gg, out, at, g, weights, scale: gg.apply_typed(ATTENTION_SCORES, g.shape, g.dtype, weights, scale),
     _of_scores_by_weights, None),
    ((1,), (0, 1), ()), None, _expand_scores,
    document="the gradient of the scores: operands the weights' gradient, the weights, scale"))
