"""Attention that stores no weights, against PyTorch's: masks, causality, sizes, gradients of two orders."""

from __future__ import annotations

import numpy as np
import pytest
from nn.agreement import agree, values_of
from nn.test_attention import attention, plain_attention  # noqa: F401
from torch.nn.attention import SDPBackend, sdpa_kernel

import torturous
import torturous.nn.functional as F
from torturous.core import dtypes
from torturous.ir.attending import serves
from torturous.runtime import realize
from torturous.runtime.watching import PlanRun, watching

INFINITY = float("inf")


def operands(
    length: int, size: int, width: int = 16, depth: int = 32, lead: tuple[int, ...] = (2, 3)
) -> list[np.ndarray]:
    shapes = ((length, width), (size, width), (size, depth))
    return [values_of(*lead, *shape, seed=seed) for seed, shape in enumerate(shapes)]


def same(make, *inputs, twice: bool = True) -> None:
    agree(make, *inputs, dtype="float32", tolerance=5e-5, twice=twice)
    if twice:
        agree(make, *inputs, dtype="float32", tolerance=2e-5, twice=False)


HIDING = np.random.default_rng(4).random((2, 1, 26, 69)) < 0.6
HIDING[0, 0, 3] = False


@pytest.mark.parametrize("sizes", [(24, 64), (33, 131), (70, 66)])
def test_sizes(sizes: tuple[int, int]) -> None:
    same(attention(scale=0.3), *operands(*sizes))


@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (7, 40), (15, 9), (16, 16), (20, 35), (70, 5), (33, 150)])
def test_causal(sizes: tuple[int, int]) -> None:
    same(attention(is_causal=True), *operands(*sizes))


def test_which_are_served() -> None:
    """Whether weights are stored is a matter of sizes: what this file is about does not store them."""
    q, k, v = ((2, 3, 24, 16), (2, 3, 64, 16), (2, 3, 64, 32))
    assert serves(False, q, k, v, dtypes.float32) and serves(True, q, k, v, dtypes.float32)
    assert not serves(False, q, (2, 3, 63, 16), (2, 3, 63, 32), dtypes.float32)
    assert serves(True, (2, 3, 1, 16), k, v, dtypes.float32) and not serves(True, q, k, v, dtypes.float64)
    assert not serves(True, q, k, v, dtypes.bfloat16)
    assert not serves(True, (2, 3, 24, 17), (2, 3, 64, 17), v, dtypes.float32)


def test_heads() -> None:
    same(attention(), *operands(24, 70, lead=()))
    same(attention(is_causal=True), *operands(24, 70, lead=(3,)))
    same(attention(), operands(24, 70)[0], *operands(24, 70, lead=(1, 3))[1:])
    same(attention(enable_gqa=True, is_causal=True), operands(24, 70, lead=(2, 6))[0], *operands(24, 70)[1:])
    for width, depth in ((64, 64), (80, 16), (128, 128), (144, 48)):
        same(attention(is_causal=True), *operands(40, 40, width, depth, (1, 2)), twice=False)


@pytest.mark.parametrize("mask", [
    HIDING, HIDING[0, 0], HIDING[:, :, 3:4], HIDING[..., :1], np.where(HIDING, 0.5, -INFINITY),
    np.where(HIDING[:, :, 5:6], 0.0, -INFINITY)], ids=["full", "shared", "one row", "one column", "float", "padding"])
def test_masks(mask: np.ndarray) -> None:
    same(attention(mask if mask.dtype == bool else mask.astype(np.float32)), *operands(26, 69))


def test_mask_with_a_gradient() -> None:
    same(attention(), *operands(26, 69), values_of(26, 69, seed=5))
    same(attention(), *operands(26, 69), values_of(2, 1, 1, 69, seed=5))


def test_against_flash_attention() -> None:
    """PyTorch's own fused kernel."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        agree(attention(is_causal=True), *operands(300, 300, 64, 64, (1, 2)), dtype="float32", tolerance=1e-5,
              twice=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits(dtype: str) -> None:
    assert serves(True, (1, 1, 24, 16), (1, 1, 1024, 16), (1, 1, 1024, 16), getattr(dtypes, dtype))
    agree(attention(is_causal=True), *operands(1040, 1030, 16, 16, (1, 1)), dtype=dtype, tolerance=4e-2, twice=False)


def test_views_are_read_where_they_lie() -> None:
    """Queries, keys and values are parts of one projection, as in most models: nothing is copied before attention."""
    def projected(library):
        def call(x):
            parts = x.split(32, dim=2)
            q, k, v = (part.view(2, 24, 2, 16).transpose(1, 2) for part in parts)
            return library.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        return call

    same(projected, values_of(2, 24, 96))
    events: list = []
    x = torturous.tensor(values_of(2, 24, 96).astype(np.float32))
    with watching(events.append):
        projected(torturous)(x).numpy()
    ran = [event for event in events if isinstance(event, PlanRun)]
    assert [kernel.names for event in ran for kernel in event.bound.kernels] == [["attend"], ["slice"]]


def test_one_plan_serves_other_lengths() -> None:
    made = []
    for length in (40, 48, 57, 90):
        q = torturous.tensor(operands(length, length)[0].astype(np.float32)).requires_grad_()
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        q.grad.numpy()
        made.append(realize.statistics.plans_made)
    assert made[1] == made[2] == made[3]


def test_looking_between_forward_and_backward_changes_no_bit() -> None:
    results = []
    for look in (False, True):
        parts = [torturous.tensor(part.astype(np.float32)).requires_grad_() for part in operands(40, 66)]
        out = F.scaled_dot_product_attention(*parts, torturous.tensor(values_of(40, 66).astype(np.float32)))
        if look:
            out.tolist()
        gradients = torturous.autograd.grad(out, parts, torturous.ones_like(out))
        results.append([gradient.numpy().copy() for gradient in gradients])
    for plain, looked_at in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, looked_at)


def test_gradients_of_some_operands() -> None:
    for chosen in range(3):
        def make(library, chosen=chosen):
            def call(x):
                parts = [library.tensor(o.astype(np.float32)) for o in operands(30, 66, 16, 16)]
                parts[chosen] = x
                return library.nn.functional.scaled_dot_product_attention(*parts)

            return call

        same(make, values_of(2, 3, 30 if chosen == 0 else 66, 16, seed=7))


@pytest.mark.parametrize("causal", [False, True])
def test_multihead_attention_without_weights(causal: bool) -> None:
    def make(library):
        layer = library.nn.MultiheadAttention(32, 2, batch_first=True)
        numbers = np.random.default_rng(3)
        with library.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(library.tensor(numbers.standard_normal(tuple(parameter.shape)).astype(np.float32) / 6))
        mask = library.nn.Transformer.generate_square_subsequent_mask(66) if causal else None
        return lambda x: layer(x, x, x, need_weights=False, attn_mask=mask, is_causal=causal)[0]

    same(make, values_of(2, 66, 32))
