"""Attention and transformers against PyTorch's: masks, causality, dropout, heads, gradients of two orders, errors."""

from __future__ import annotations

import numpy as np
import pytest
from nn.agreement import agree, values_of
from torch.nn.attention import SDPBackend, sdpa_kernel


@pytest.fixture(autouse=True)
def plain_attention():
    """PyTorch's fused kernels cannot be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


INFINITY = float("inf")


def operands(lead=(2, 3), length=4, size=5, width=6, value=7):
    return (values_of(*lead, length, width, seed=1), values_of(*lead, size, width, seed=2),
            values_of(*lead, size, value, seed=3))


def attention(mask=None, **options):
    def make(library):
        def call(q, k, v, *added):
            given = added[0] if added else None if mask is None else library.tensor(mask)
            return library.nn.functional.scaled_dot_product_attention(q, k, v, given, **options)

        return call

    return make


HIDING = np.random.default_rng(4).random((4, 5)) < 0.6
HIDING[1] = False


def test_scaled_dot_product_attention():
    parts = operands()
    agree(attention(), *operands(()))
    agree(attention(), *operands((3,)))
    agree(attention(scale=0.3), *parts)
    agree(attention(is_causal=True), *parts)
    agree(attention(HIDING), *parts)
    agree(attention(), *parts, values_of(4, 5, seed=5))
    agree(attention(np.where(HIDING, 0.5, -INFINITY)), *parts)
    agree(attention(dropout_p=0.4), *parts)


def test_attention_of_other_shapes():
    agree(attention(is_causal=True), *operands(length=7, size=3))
    agree(attention(), values_of(1, 3, 4, 6), *operands()[1:])
    agree(attention(), operands()[0], *(t[:, :1] for t in operands()[1:]))
    agree(attention(enable_gqa=True), values_of(2, 6, 4, 6), *operands()[1:])
    agree(attention(HIDING[:1]), *operands())
    agree(attention(np.broadcast_to(HIDING, (2, 1, 4, 5)).copy()), *operands())
    agree(attention(), *operands(length=0))
    agree(attention(), *operands(size=0))
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 4e-2)):
        agree(attention(is_causal=True), *operands(), dtype=dtype, tolerance=tolerance, twice=False)


def test_attention_errors():
    q, k, v = operands()
    for parts in ((q, k, v[..., :4, :]), (q, k[..., :5], v), (q[0, 0, 0], k, v), (q, k[:, :2], v)):
        agree(attention(), *parts)
    agree(attention(HIDING, is_causal=True), q, k, v)
    agree(attention(HIDING.astype(int)), q, k, v)
    agree(attention(np.ones((3, 5), bool)), q, k, v)
    agree(attention(enable_gqa=True), values_of(2, 5, 4, 6), k, v)
    agree(attention(dropout_p=1.5), q, k, v)
    agree(lambda library: lambda q, k, v: library.nn.functional.scaled_dot_product_attention(q, k.float(), v), q, k, v)


PADDING = np.array([[False, False, True, True, False], [False] * 5, [True, False, False, False, False]])


def once(make, *inputs, **options):
    """Gradients of one order: those of two are tested piece by piece."""
    agree(make, *inputs, twice=False, **options)


def multihead(masks=(), alike=True, call=None, **options):
    def make(library):
        layer = library.nn.MultiheadAttention(8, 2, **options)
        forward = layer.forward
        given = {name: library.tensor(value) for name, value in dict(masks).items()} | (call or {})
        layer.forward = lambda *tensors: forward(*(tensors * 3 if alike else tensors), **given)
        return layer

    return make


@pytest.mark.parametrize("call", [{}, {"need_weights": False}, {"average_attn_weights": False}], ids=str)
def test_multihead_attention(call):
    x = values_of(5, 3, 8)
    causal = np.triu(np.ones((5, 5), bool), 1)
    once(multihead(call=call), x)
    once(multihead({"key_padding_mask": PADDING}, call=call), x)
    once(multihead({"attn_mask": values_of(6, 5, 5), "key_padding_mask": PADDING}, call=call), x)
    once(multihead({"attn_mask": causal}, call=call | {"is_causal": True}), x)
    once(multihead({"attn_mask": causal, "key_padding_mask": PADDING}, call=call | {"is_causal": True}), x)
    once(multihead(call=call, dropout=0.3), x)
    once(multihead(call=call, dropout=0.3), x, training=False)


def test_multihead_attention_options():
    x = values_of(5, 3, 8)
    for options in ({"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True},
                    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True}):
        once(multihead(**options), x)
    once(multihead({"key_padding_mask": PADDING}, add_bias_kv=True, add_zero_attn=True), x)
    once(multihead(), x[:, 0])
    once(multihead({"key_padding_mask": PADDING[0]}, batch_first=True), x[:, 0])
    once(multihead(alike=False), x, values_of(4, 3, 8, seed=1), values_of(4, 3, 8, seed=2))
    once(multihead(alike=False, kdim=6, vdim=4), x, values_of(4, 3, 6, seed=1), values_of(4, 3, 4, seed=2))
    once(multihead(alike=False, kdim=6, bias=False), x, values_of(4, 3, 6, seed=1), values_of(4, 3, 8, seed=2))


def test_multihead_attention_errors():
    x = values_of(5, 3, 8)
    once(multihead(call={"is_causal": True}), x)
    once(multihead({"key_padding_mask": PADDING[:, :4]}), x)
    once(multihead({"key_padding_mask": PADDING.astype(int)}), x)
    once(multihead({"attn_mask": values_of(4, 5)}), x)
    once(multihead({"attn_mask": values_of(4, 5, 5)}), x)
    once(multihead({"attn_mask": values_of(5)}), x)
    once(multihead(), x[..., :7])
    once(multihead(alike=False), x, x[:4], x)
    once(multihead(alike=False), x, x[:, 0], x)
    once(lambda library: library.nn.MultiheadAttention(7, 2), x)


def transformer(name, *arguments, masks=(), **options):
    def make(library):
        layer = getattr(library.nn, name)(*arguments, **options)
        forward = layer.forward
        given = {key: library.tensor(value) for key, value in dict(masks).items()}
        layer.forward = lambda *tensors: forward(*tensors, **given)
        return layer

    return make


@pytest.mark.parametrize("options", [
    {}, {"activation": "gelu", "norm_first": True}, {"batch_first": True, "bias": False, "layer_norm_eps": 1e-3}],
    ids=str)
def test_transformer_layers(options):
    x, memory = values_of(5, 3, 8), values_of(5, 3, 8, seed=1)
    padding = PADDING if not options.get("batch_first") else PADDING[:, :3][[0, 1, 2, 1, 0]] & False
    for training in (True, False):
        once(transformer("TransformerEncoderLayer", 8, 2, 16, **options), x, training=training, tolerance=1e-8)
    once(transformer("TransformerEncoderLayer", 8, 2, 16, 0.0, masks={"src_key_padding_mask": padding}, **options), x,
          tolerance=1e-8)
    once(transformer("TransformerDecoderLayer", 8, 2, 16, **options), x, memory, tolerance=1e-8)


def test_transformer():
    x, y = values_of(4, 3, 8), values_of(5, 3, 8, seed=1)
    causal = np.triu(np.full((5, 5), -INFINITY), 1)
    once(transformer("Transformer", 8, 2, 2, 2, 16, masks={"tgt_mask": causal}), x, y, tolerance=1e-8)
    once(transformer("Transformer", 8, 2, 1, 1, 16), x, y[:, :2])
    once(lambda library: lambda: library.nn.Transformer.generate_square_subsequent_mask(4))

    def stack(library):
        layer = library.nn.TransformerEncoderLayer(8, 2, 16)
        return library.nn.TransformerEncoder(layer, 2, library.nn.LayerNorm(8), enable_nested_tensor=False)

    once(stack, x, tolerance=1e-8)
