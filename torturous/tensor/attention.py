"""Attention over keys and values: the product of softmax(query · keyᵀ · scale) with the values, and its heads."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.shapes import broadcast, describe
from torturous.ir import elementwise as ops
from torturous.ir.attending import serves
from torturous.ir.attention import ATTENTION_WEIGHTS, attend, scores_product
from torturous.ir.contraction import CONTRACT, matrix_product
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import zeros
from torturous.tensor.dropout import dropout
from torturous.tensor.joining import cat, pad
from torturous.tensor.linear import linear
from torturous.tensor.lowering import lowered
from torturous.tensor.recording import cast
from torturous.tensor.shortcuts import shortcut

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _weights(query: Any, key: Any, scale: float, mask: TensorBase | None, causal: bool, safe: bool) -> Tensor:
    """softmax(query · keyᵀ · scale) for (…, L, E) and (…, S, E), whose leading axes are equal."""
    lead, length, size = tuple(query.shape[:-2]), query.shape[-2], key.shape[-2]
    scores = apply_typed(CONTRACT, (*lead, length, size), query.dtype, query, key,
                         attributes=scores_product(len(lead)))
    operands = (scores, float(scale)) if mask is None else (scores, float(scale), mask)
    return apply_typed(ATTENTION_WEIGHTS, tuple(scores.shape), scores.dtype, *operands,
                       attributes=(causal, _kind(mask), safe))


def _kind(mask: TensorBase | None) -> str:
    """What mask there is, as the rows name it."""
    return "" if mask is None else "bool" if mask.dtype is dtypes.bool_ else "float"


def _attended(query: Any, key: Any, value: Any, scale: float, mask: Any, causal: bool) -> Tensor:
    """softmax(query · keyᵀ · scale) · value, whose leading axes are equal; weights are stored only where needed."""
    if serves(causal, tuple(query.shape), tuple(key.shape), tuple(value.shape), query.dtype):
        further = () if mask is None else (mask.expand(*query.shape[:-1], key.shape[-2]),)
        wide = [cast(t, dtypes.float32) for t in (query, key, value)]
        result = attend(*wide, apply_typed, float(scale), *further, attributes=(causal, _kind(mask)))
        return cast(result, query.dtype)
    return _weighed(_weights(query, key, scale, mask, causal, True), value)


def _weighed(weights: Any, value: Any) -> Tensor:
    lead = tuple(weights.shape[:-2])
    return apply_typed(CONTRACT, (*lead, weights.shape[-2], value.shape[-1]), value.dtype, weights, value,
                       attributes=matrix_product(len(lead)))


def _check(query: Any, key: Any, value: Any, mask: Any, causal: bool) -> None:
    for role, t in (("query", query), ("key", key), ("value", value)):
        if not isinstance(t, TensorBase):
            raise TypeError(f"scaled_dot_product_attention(): argument '{role}' must be Tensor, not {type(t).__name__}")
    if not (query.dtype is key.dtype is value.dtype):
        raise RuntimeError("Expected query, key, and value to have the same dtype, but got query.dtype: "
                           f"{query.dtype.name} key.dtype: {key.dtype.name} and value.dtype: {value.dtype.name} "
                           "instead (scaled_dot_product_attention)")
    if not query.dtype.is_floating_point:
        raise RuntimeError(f"scaled_dot_product_attention: expected a floating dtype, but found {query.dtype.name}")
    if min(len(query.shape), len(key.shape), len(value.shape)) < 2:
        raise RuntimeError("Expected query, key, and value to all be at least 2 dimensional, but got query.dim: "
                           f"{len(query.shape)} key.dim: {len(key.shape)} and value.dim: {len(value.shape)} instead "
                           "(scaled_dot_product_attention)")
    if key.shape[-1] != query.shape[-1] or value.shape[-2] != key.shape[-2]:
        raise RuntimeError(
            f"scaled_dot_product_attention: query {describe(query.shape)} and key {describe(key.shape)} must agree in "
            f"their last axis, key and value {describe(value.shape)} in the one before it")
    if mask is None:
        return
    if causal:
        raise RuntimeError("scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if mask.dtype not in (dtypes.bool_, query.dtype, dtypes.float32):
        raise RuntimeError("Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                           f"attn_mask.dtype: {mask.dtype.name} and query.dtype: {query.dtype.name} instead "
                           "(scaled_dot_product_attention)")


@lowered
def scaled_dot_product_attention(
    query: TensorBase, key: TensorBase, value: TensorBase, attn_mask: TensorBase | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """softmax(query · keyᵀ · scale) · value: (…, L, E), (…, S, E) and (…, S, V) to (…, L, V).

    `scale` is 1/√E if not given. A bool mask (…, L, S) says what is seen, one of floats is added; `is_causal` lets row
    l see columns 0 … l. Rows that see nothing give 0. Weights are dropped with probability `dropout_p`. With
    `enable_gqa` axis −3 of key and value, their heads, may be a divisor of the query's.
    """
    if dropout_p == 0.0:
        return _undropped(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    if not 0.0 < dropout_p <= 1.0:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {dropout_p} "
                           "(scaled_dot_product_attention)")
    q, k, v, factor = _ready(query, key, value, attn_mask, is_causal, scale, enable_gqa)
    return _weighed(dropout(_weights(q, k, factor, attn_mask, is_causal, True), dropout_p, True), v)


@shortcut(operands=4)
def _undropped(query: TensorBase, key: TensorBase, value: TensorBase, mask: TensorBase | None, causal: bool,
               scale: float | None, grouped: bool) -> Tensor:
    q, k, v, factor = _ready(query, key, value, mask, causal, scale, grouped)
    return _attended(q, k, v, factor, mask, causal)


def _ready(query: TensorBase, key: TensorBase, value: TensorBase, mask: TensorBase | None, causal: bool,
           scale: float | None, grouped: bool) -> tuple[Any, Any, Any, float]:
    """Operands with the same leading axes, and the scale; RuntimeError where something does not fit."""
    _check(query, key, value, mask, causal)
    operands: Any = _heads_repeated(query, key, value) if grouped else (query, key, value)
    lead = broadcast([tuple(t.shape[:-2]) for t in operands])
    q, k, v = (t if tuple(t.shape[:-2]) == lead else t.expand(*lead, *t.shape[-2:]) for t in operands)
    if mask is not None:
        wanted = (*lead, q.shape[-2], k.shape[-2])
        if broadcast([wanted, tuple(mask.shape)]) != wanted:
            raise RuntimeError(f"scaled_dot_product_attention: attn_mask {describe(mask.shape)} is larger than "
                               f"the scores {describe(wanted)}")
    return q, k, v, 1 / sqrt(q.shape[-1]) if scale is None else scale


def _heads_repeated(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any]:
    heads = query.shape[-3]
    if heads % key.shape[-3] or heads % value.shape[-3]:
        raise RuntimeError("Number of heads in key and value must divide the number of heads in query, got "
                           f"{key.shape[-3]}, {value.shape[-3]} and {heads} (scaled_dot_product_attention)")

    def repeated(t: Any) -> Any:
        times = heads // t.shape[-3]
        if times == 1:
            return t
        wide = t.unsqueeze(-3).expand(*t.shape[:-2], times, *t.shape[-2:])
        return wide.reshape(*t.shape[:-3], heads, *t.shape[-2:])

    return query, repeated(key), repeated(value)


# Heads ------------------------------------------------------------------------------------------------------------
def _added_mask(name: str, mask: TensorBase | None, like: TensorBase) -> Any:
    """A mask of bools, true where nothing is seen, as one to be added; AssertionError for integers."""
    if mask is None:
        return None
    if mask.dtype is dtypes.bool_:
        return cast(apply(ops.WHERE, mask, float("-inf"), 0.0), like.dtype)
    if not mask.dtype.is_floating_point:
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return mask


def _check_shapes(query: TensorBase, key: TensorBase, value: TensorBase, key_padding_mask: TensorBase | None,
                  attn_mask: TensorBase | None) -> bool:
    """Raises AssertionError where ranks do not go together; whether there is a batch axis."""
    rank = len(query.shape)
    if rank not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {rank}-D query tensor")
    kind = "batched (3-D)" if rank == 3 else "unbatched (2-D)"
    if len(key.shape) != rank or len(value.shape) != rank:
        raise AssertionError(f"For {kind} `query`, expected `key` and `value` to be {rank}-D but found "
                             f"{len(key.shape)}-D and {len(value.shape)}-D tensors respectively")
    if key_padding_mask is not None and len(key_padding_mask.shape) != rank - 1:
        raise AssertionError(f"For {kind} `query`, expected `key_padding_mask` to be `None` or {rank - 1}-D but found "
                             f"{len(key_padding_mask.shape)}-D tensor instead")
    if attn_mask is not None and len(attn_mask.shape) not in (2, 3):
        raise AssertionError(f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found "
                             f"{len(attn_mask.shape)}-D tensor instead")
    return rank == 3


def _packed_projections(query: Any, key: Any, value: Any, weight: Any, bias: Any) -> tuple[Any, Any, Any]:
    """Query, key and value through the three parts of one weight, in as few products as the operands allow."""
    size = query.shape[-1]
    if query is key and key is value:
        both = linear(query, weight, bias)
        return tuple(both.sliced(len(both.shape) - 1, part * size, (part + 1) * size, 1) for part in range(3))  # type: ignore[return-value]
    parts = [weight.sliced(0, part * size, (part + 1) * size, 1) for part in range(3)]
    biases = [None if bias is None else bias.sliced(0, part * size, (part + 1) * size, 1) for part in range(3)]
    return tuple(linear(t, w, b) for t, w, b in zip((query, key, value), parts, biases, strict=True))  # type: ignore[return-value]


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None,
    training: bool = True, key_padding_mask: Tensor | None = None, need_weights: bool = True,
    attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None, v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
    static_v: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several heads: (L, N, E), (S, N, ·), (S, N, ·) to (L, N, E) and the weights, as in PyTorch.

    The weights are (N, L, S), or (N, heads, L, S) unless they are averaged; None unless `need_weights`. Operands may
    lack N. Masks hide where they are true, or are added: `attn_mask` (L, S) or (N · heads, L, S), `key_padding_mask`
    (N, S). `is_causal` says that `attn_mask` is the causal one.
    """
    batched = _check_shapes(query, key, value, key_padding_mask, attn_mask)
    if not batched:
        one = key is query
        query, value = query.unsqueeze(1), (None if value is key else value.unsqueeze(1))  # type: ignore[assignment]
        key = query if one else key.unsqueeze(1)
        value = key if value is None else value
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, samples, size = query.shape
    if size != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {size}")
    width = size // num_heads
    if width * num_heads != size:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {num_heads}")
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                           "`generate_square_subsequent_mask` to create this mask.")
    padding = _added_mask("key_padding_mask", key_padding_mask, query)
    # The weights of a causal mask are known without it, unless they are asked for or more is hidden.
    causal = is_causal and padding is None and not need_weights
    mask = None if causal else _added_mask("attn_mask", attn_mask, query)
    if use_separate_proj_weight:
        if tuple(key.shape[:2]) != tuple(value.shape[:2]):
            raise AssertionError(f"key's sequence and batch dims {key.shape[:2]} do not match value's "
                                 f"{value.shape[:2]}")
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        biases = in_proj_bias.chunk(3) if in_proj_bias is not None else (None,) * 3
        q, k, v = (linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases, strict=True))  # type: ignore[arg-type]
    else:
        if tuple(key.shape) != tuple(value.shape):
            raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
        q, k, v = _packed_projections(query, key, value, in_proj_weight, in_proj_bias)
    if mask is not None:
        wanted = (length, key.shape[0]) if len(mask.shape) == 2 else (samples * num_heads, length, key.shape[0])
        if tuple(mask.shape) != wanted:
            raise RuntimeError(f"The shape of the {len(mask.shape)}D attn_mask is {mask.shape}, but should be "
                               f"{wanted}.")
        if len(mask.shape) == 3:
            mask = mask.reshape(samples, num_heads, length, key.shape[0])
    more = 0
    if bias_k is not None and bias_v is not None:
        k, v = (cat([t, b.expand(1, samples, size)]) for t, b in ((k, bias_k), (v, bias_v)))
        more = 1

    def heads(t: Tensor) -> Tensor:
        return t.reshape(t.shape[0], samples, num_heads, width).permute(1, 2, 0, 3)

    def given(t: Tensor | None, otherwise: Tensor, role: str) -> Tensor:
        if t is None:
            return heads(otherwise)
        if t.shape[0] != samples * num_heads or t.shape[2] != width:
            raise AssertionError(f"expecting static_{role} of shape ({samples * num_heads}, S, {width}), but got "
                                 f"{describe(t.shape)}")
        return t.reshape(samples, num_heads, t.shape[1], width)

    q, k, v = heads(q), given(static_k, k, "k"), given(static_v, v, "v")
    if add_zero_attn:
        k, v = (cat([t, zeros((samples, num_heads, 1, width), dtype=t.dtype)], 2) for t in (k, v))
        more += 1
    if more:
        mask, padding = (m if m is None else pad(m, (0, more)) for m in (mask, padding))
    if padding is not None:
        if padding.shape[0] != samples or padding.shape[1] != k.shape[2]:
            raise AssertionError(f"expected key_padding_mask of shape {(samples, k.shape[2] - more)}, but got "
                                 f"{(padding.shape[0], padding.shape[1] - more)}")
        hidden = padding.reshape(samples, 1, 1, k.shape[2])
        mask = hidden if mask is None else mask + hidden
    dropping = training and dropout_p > 0
    shown: Any = None
    if need_weights or dropping:
        chosen = dropout(_weights(q, k, 1 / sqrt(width), mask, causal, not need_weights), dropout_p, dropping)
        shown, attended = chosen if need_weights else None, _weighed(chosen, v)
    else:
        attended = _attended(q, k, v, 1 / sqrt(width), mask, causal)
    joined = attended.permute(2, 0, 1, 3).reshape(length, samples, size)
    out = linear(joined, out_proj_weight, out_proj_bias)
    if shown is not None and average_attn_weights:
        shown = shown.mean(1)
    if not batched:
        out, shown = out.squeeze(1), (None if shown is None else shown.squeeze(0))
    return out, shown


__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]
