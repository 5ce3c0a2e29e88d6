"""Attention (Vaswani et al., 2017): the weights as one row between two contractions.

`attention_weights` is the softmax over the last axis of scores (…, L, S) times a scale, with what a mask hides left
out. Attributes: whether row l sees columns 0 … l only; what mask there is ('' for none, 'bool' where true is seen,
'float' to be added); whether rows that see nothing are 0 rather than not a number.

`attention` is the whole of it where nobody asks for the weights: they are never stored, neither for the result nor for
its gradients (see `ir.attending`). Where gradients have gradients, and for that of the mask, weights are rows after
all.
"""

from __future__ import annotations

from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir.attending import ATTEND, ATTEND_BACK, gradients_shape, packed_shape
from torturous.ir.contraction import CONTRACT, lone, matrix_product
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


# Without storing weights ------------------------------------------------------------------------------------------
# operands: q(…, L, E), k(…, S, E), v(…, S, V), scale, ATTEND's value, mask?; attributes: causal, what mask there is
def _rows(whole: Any, shape: tuple[int, ...], first: int) -> Any:
    """The rows from `first` on of something packed, as wide as the shape says."""
    rank = len(shape)
    if whole.shape[-1] == shape[-1]:
        return whole.slice(shape, (rank - 2,), (1,), (first,))
    return whole.slice(shape, (rank - 2, rank - 1), (1, 1), (first, 0))


def _expand_attention(out: Type, at: Attributes, q: Any, k: Any, v: Any, scale: Any, packed: Any, *mask: Any) -> Any:
    return packed.slice(out.shape, (len(out.shape) - 2,), (1,), (0,))


def _product(left: Any, right: Any, turned: bool) -> Any:
    """left · right, or leftᵀ · right."""
    lead = len(left.shape) - 2
    rows = left.shape[-1] if turned else left.shape[-2]
    reduced, (*batch, m, k), of_right = matrix_product(lead)
    attributes = reduced, (*batch, k, m) if turned else (*batch, m, k), of_right
    return left.apply_typed(CONTRACT, (*left.shape[:-2], rows, right.shape[-1]), left.dtype, right,
                            attributes=attributes)


def _stored_weights(at: Attributes, q: Any, k: Any, scale: Any, mask: tuple[Any, ...]) -> Any:
    """The weights as a row."""
    shape = (*q.shape[:-1], k.shape[-2])
    scores = q.apply_typed(CONTRACT, shape, q.dtype, k, attributes=scores_product(len(shape) - 2))
    return scores.apply_typed(ATTENTION_WEIGHTS, shape, q.dtype, scale, *mask, attributes=(*at, True))


def _of_scores(at: Attributes, g: Any, q: Any, k: Any, v: Any, scale: Any, mask: tuple[Any, ...], share: Any) -> Any:
    """The gradient of the scores, times `share`."""
    weights = _stored_weights(at, q, k, scale, mask)
    of_weights = g.apply_typed(CONTRACT, weights.shape, g.dtype, v, attributes=scores_product(len(g.shape) - 2))
    return of_weights.apply_typed(ATTENTION_SCORES, weights.shape, g.dtype, weights, share)


def _attention_rule(position: int) -> Any:
    """The gradient of queries, keys or values."""

    def rule(g: Any, out: Any, at: Attributes, q: Any, k: Any, v: Any, scale: Any, packed: Any, *mask: Any) -> Any:
        if g.tracking:  # It will be differentiated in turn.
            if position == 2:
                return _product(_stored_weights(at, q, k, scale, mask), g, True)
            scores = _of_scores(at, g, q, k, v, scale, mask, scale)
            return _product(scores, k, False) if position == 0 else _product(scores, q, True)
        whole = q.apply_typed(ATTEND_BACK, gradients_shape(q.shape, k.shape, v.shape), q.dtype, k, v, scale, g, packed,
                              *mask, attributes=at)
        length, size = q.shape[-2], k.shape[-2]
        return _rows(whole, (q, k, v)[position].shape, (0, length, length + size)[position])

    return rule


def _attention_mask_rule(g: Any, out: Any, at: Attributes, q: Any, k: Any, v: Any, scale: Any, packed: Any,
                         mask: Any) -> Any:
    return _of_scores(at, g, q, k, v, scale, (mask,), 1.0)


ATTENTION: Op = define(Op(
    "attention", Kind.MACRO, None, None,
    (_attention_rule(0), _attention_rule(1), _attention_rule(2), None, None, _attention_mask_rule),
    ((0, 1, 2, 4, 5), (0, 1, 2, 4, 5), (0, 1, 2, 4, 5), (), (), (0, 1, 2, 5)), None, _expand_attention,
    document="softmax(q · kᵀ · scale + mask) · v: operands q, k, v, scale, the value of `attend`, mask?"))


def attend(query: Any, key: Any, value: Any, apply: Any, *numbers: Any, attributes: Attributes) -> Any:
    """Records both rows of attention; `apply(op, shape, dtype, *operands, attributes=…)` records one."""
    scale, *mask = numbers
    packed = apply(ATTEND, packed_shape(query.shape, value.shape), query.dtype, query, key, value, scale, *mask,
                   attributes=attributes)
    shape = (*query.shape[:-1], value.shape[-1])
    return apply(ATTENTION, shape, query.dtype, query, key, value, scale, packed, *mask, attributes=attributes)
