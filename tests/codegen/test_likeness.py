"""Kernels that are alike are written once, and what is found written is what would have been written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from codegen.corpus import ordinary

import torturous as torch
from benchmarks.models.gpt import make_gpt
from benchmarks.models.net import make_net
from torturous.codegen import kernels
from torturous.codegen.likeness import likeness
from torturous.compiler.kernel import Kernel
from torturous.compiler.sizes import Size
from torturous.runtime import planning, realize

F = torch.nn.functional


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For every kernel of every plan made meanwhile, whether it was found written; each is compared with its text
    written anew."""
    found: list[bool] = []

    def generate(kernel: Any, *options: Any, **named: Any) -> kernels.Generated:
        before = len(kernels._written)
        result = kernels.generate(kernel, *options, **named)
        assert result == kernels._generate(kernel, *options, **named), kernel
        found.append(kernels.likeness(kernel) is not None and len(kernels._written) == before)
        return result

    monkeypatch.setattr(planning, "generate", generate)
    monkeypatch.setattr(kernels, "_written", {})
    realize.forget_plans()
    yield found
    realize.forget_plans()


def training(model: Any, *inputs: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    out = model(*inputs)
    out.square().mean().backward()
    optimizer.step()


def test_whatever_a_kernel_says_of_itself_counts() -> None:
    plain = Kernel([Size.of(2), Size.of(16)])
    alike, *_ = likeness(plain) or (None,)
    assert alike is not None
    for field in fields(Kernel):
        value = getattr(plain, field.name)
        if isinstance(value, int):
            changed, *_ = likeness(replace(plain, **{field.name: value + 1})) or (None,)
            assert changed != alike, field.name


def test_layers_of_one_kind(generated: list[bool]) -> None:
    model = make_gpt(torch, vocabulary=11, context=32, layers=3, heads=2, width=32)
    realize.realize()
    del generated[:]
    for length in (20, 21):  # Of known sizes, then of symbols.
        tokens = torch.tensor(np.arange(length)[None] % 11)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(tokens, tokens).backward()
        optimizer.step()
    assert sum(generated) > len(generated) // 3


def test_convolutions(generated: list[bool]) -> None:
    for batch in (3, 16, 17):
        training(make_net(torch), ordinary(batch, batch, 1, 28, 28))
    for groups, size in ((1, 9), (2, 9), (8, 9), (8, 12)):
        layers = [torch.nn.Conv2d(8, 8, 3, padding=1, groups=groups) for _ in range(3)]
        training(torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(8, 4, 2, 2)), ordinary(0, 2, 8, size, size))
    assert any(generated)


def test_what_differs(generated: list[bool]) -> None:
    """Products that differ in an epilogue, a type, a buffer read twice, an operand's order."""
    a, b = ordinary(0, 33, 33), ordinary(1, 33, 33)
    results = [a @ b, b @ a, a @ a, (a @ b).relu(), a @ b.mT, a.mT @ b, (a @ b) * 2, (a @ b) * 3, (a @ b) + a,
               (a @ b) + b, a.to(torch.bfloat16) @ b.to(torch.bfloat16), a.double() @ b.double()]
    for result in results:
        result.numpy() if result.dtype != torch.bfloat16 else result.float().numpy()
    q, k, v = (ordinary(seed, 2, 3, 40, 16, requires_grad=True) for seed in range(3))
    for options in ({"is_causal": True}, {"attn_mask": a.new_zeros(40, 40)}, {}):
        F.scaled_dot_product_attention(q, k, v, **options).sum().backward()
        q.grad.numpy()
    assert any(generated) and not all(generated)


def test_places_that_are_slots(generated: list[bool]) -> None:
    """Slices from anywhere are alike; from one place or from two are not, nor are places that have changed parts."""
    x, y = ordinary(0, 9, 40), ordinary(1, 9, 40)
    expected = []
    for a, b in ((3, 7), (7, 3), (5, 5), (0, 2)):
        found = [x[:, a:a + 20] * y[:, b:b + 20], x[:, a:a + 20] - y[:, a:a + 20], (x[1:, a:] * 2.5)[:, b:] + a,
                 x[:, a:a + 20] @ y[:, b:b + 20].mT]
        expected.append([each.numpy() for each in found])
    assert sum(generated) >= 8
    with torch.no_grad():
        for (a, b), (product, *_) in zip(((3, 7), (7, 3), (5, 5), (0, 2)), expected, strict=True):
            assert np.array_equal(product, x.numpy()[:, a:a + 20] * y.numpy()[:, b:b + 20])
