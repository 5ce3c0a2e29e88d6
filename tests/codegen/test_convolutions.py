"""Convolutions whose lanes are channels of the result, or pixels beside each other: every way they are cut up."""

from __future__ import annotations

import pytest
from codegen.test_kernels import check
from compiler.oracle import Program

from torturous.compiler import layout
from torturous.compiler.graph import Node
from torturous.core import dtypes
from torturous.ir import macros
from torturous.ir.value import Value
from torturous.runtime.realize import forget_plans

CASES = [
    # transposed, kernel, stride, padding, dilation, groups, then batch, channels in and out, sizes
    (False, (3,), (1,), (1,), (1,), 1, 2, 8, 16, 41),
    (False, (3,), (2,), (1,), (1,), 1, 1, 9, 32, 30),
    (False, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, 32, 32, 8, 8),
    (False, (3, 3), (2, 2), (1, 1), (1, 1), 1, 2, 16, 48, 7, 9),
    (False, (2, 3), (1, 3), (1, 0), (2, 1), 1, 2, 16, 16, 5, 17),
    (False, (5, 5), (1, 1), (4, 3), (1, 2), 1, 1, 16, 64, 3, 4),
    (False, (3, 3), (2, 1), (1, 1), (1, 1), 2, 2, 64, 32, 4, 5),
    (False, (1, 1), (1, 1), (0, 0), (1, 1), 1, 2, 300, 16, 3, 19),
    (False, (1, 1), (2, 2), (0, 0), (1, 1), 1, 2, 16, 32, 5, 7),
    (False, (5, 5, 5), (1, 1, 1), (2, 2, 2), (1, 1, 1), 1, 1, 16, 16, 2, 2, 2),
    (False, (5, 3, 5), (1, 1, 1), (2, 1, 2), (1, 1, 1), 1, 2, 8, 16, 3, 4, 5),
    (True, (3, 3), (2, 2), (1, 1), (1, 1), 1, 2, 32, 16, 4, 5),
    (True, (2, 2), (3, 3), (0, 0), (1, 1), 1, 1, 16, 16, 3, 4),
    (True, (3, 3), (1, 2), (2, 1), (1, 2), 2, 1, 32, 32, 4, 5),
    # The gradient of weights tap by tap: lines cut by blocks, rows that reach back, windows beside each other.
    (False, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2, 48, 37, 6, 7),
    (False, (3, 3), (2, 2), (1, 1), (1, 1), 1, 3, 64, 33, 21, 23),
    (False, (5, 5, 5), (1, 1, 1), (2, 2, 2), (1, 1, 1), 1, 1, 48, 3, 4, 4, 5),
    (False, (3, 2), (1, 2), (2, 0), (2, 1), 2, 2, 96, 70, 6, 14),
    (False, (4,), (1,), (3,), (1,), 1, 1, 48, 34, 300),
    (False, (1, 1), (2, 2), (0, 0), (1, 1), 1, 2, 128, 9, 15, 17),
    (False, (2, 2), (2, 2), (0, 0), (1, 1), 1, 5, 48, 2, 12, 10),
    (True, (3, 3), (2, 2), (1, 1), (1, 1), 1, 2, 34, 48, 7, 8),
    # Few rows: taps are shared out.
    (False, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2, 32, 2, 9, 11),
    (False, (5, 5, 5), (1, 1, 1), (2, 2, 2), (1, 1, 1), 1, 1, 16, 3, 4, 5, 6),
    # Pixels as lanes: several blocks of products, and lanes left over.
    (False, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, 32, 24, 8, 8),
    (False, (3, 3), (1, 1), (1, 1), (1, 1), 1, 2, 40, 6, 4, 21),
    (False, (5,), (1,), (0,), (1,), 1, 1, 70, 5, 55),
]


@pytest.mark.parametrize("what", CASES, ids=str)
def test_convolutions_and_their_gradients(what: tuple) -> None:
    transposed, kernel, stride, padding, dilation, groups, batch, entering, leaving, *size = what
    at, f32 = (transposed, stride, padding, dilation, groups), dtypes.float32
    axes = list(zip(size, stride, padding, dilation, kernel, strict=True))
    result = tuple((n - 1) * s - 2 * q + d * (k - 1) + 1 if transposed else (n + 2 * q - d * (k - 1) - 1) // s + 1
                   for n, s, q, d, k in axes)

    def case(p: Program, channels: int) -> list[Value]:
        shape = (channels, leaving // groups) if transposed else (leaving, channels // groups)
        x, weight, bias = p.normal(batch, channels, *size), p.normal(*shape, *kernel), p.normal(leaving)
        g = p.normal(batch, leaving, *result)
        y = p.apply_typed(macros.CONVOLUTION, g.shape, f32, x, weight, bias, attributes=at)
        return [
            y, (y.relu() * g).sum((0, *range(2, len(g.shape)))),
            p.apply_typed(macros.CONVOLUTION_INPUT, x.shape, f32, g, weight, attributes=at) * 0.5 + x,
            p.apply_typed(macros.CONVOLUTION_WEIGHT, weight.shape, f32, g, x, attributes=at),
        ]

    check(case, (entering,))


@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.bfloat16, dtypes.float16], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_other_types(dtype: dtypes.DType, stride: int) -> None:
    """Sixteen-bit operands are copied, in words or as float32."""
    at = (False, (stride, stride), (1, 1), (1, 1), 1)

    def case(p: Program, size: int) -> list[Value]:
        x, weight = p.normal(2, 16, 5, size, dtype=dtype), p.normal(32, 16, 3, 3, dtype=dtype)
        shape = (2, 32, (5 - 1) // stride + 1, (size - 1) // stride + 1)
        y = p.apply_typed(macros.CONVOLUTION, shape, dtype, x, weight, attributes=at)
        return [y, p.apply_typed(macros.CONVOLUTION_INPUT, x.shape, dtype, y, weight, attributes=at)]

    check(case, (6,))


def test_which_gradients_of_weights_are_computed_tap_by_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of enough channels to be summed plainly, over enough pixels, samples before them."""
    seen: list[bool] = []
    judged = layout.sums_tap_by_tap

    def noted(node: Node) -> bool:
        seen.append(judged(node))
        return seen[-1]

    monkeypatch.setattr(layout, "sums_tap_by_tap", noted)

    def taps(batch: int, entering: int, leaving: int, size: int) -> bool:
        seen.clear()
        forget_plans()  # One for several sizes would do as well.
        p = Program(0)
        g, x = p.normal(batch, leaving, size, size), p.normal(batch, entering, size, size)
        at = (False, (1, 1), (1, 1), (1, 1), 1)
        weights = (leaving, entering, 3, 3)
        p.compiled([p.apply_typed(macros.CONVOLUTION_WEIGHT, weights, dtypes.float32, g, x, attributes=at)])
        return any(seen)

    assert taps(2, 48, 5, 6)
    assert not taps(1, 48, 5, 6)  # Few pixels.
    assert taps(2, 32, 5, 6)
    assert not taps(2, 49, 5, 6)
    assert not taps(2, 24, 5, 6)  # Products are dealt out to lanes.
    assert not taps(16, 32, 5, 6)
    assert not taps(16, 48, 5, 6)


def test_which_convolutions_have_channels_as_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose result has whole vectors of channels, made of enough of them, at sizes that are known."""
    seen: list[bool] = []
    judged = layout.runs_across_channels

    def noted(node: Node, words: bool = False) -> bool:
        seen.append(judged(node, words))
        return seen[-1]

    monkeypatch.setattr(layout, "runs_across_channels", noted)

    def lanes(batch: int, entering: int, leaving: int, taps: int) -> bool:
        seen.clear()
        p = Program(0)
        x, weight = p.normal(batch, entering, 9, 9), p.normal(leaving, entering, taps, taps)
        at = (False, (1, 1), (0, 0), (1, 1), 1)
        shape = (batch, leaving, 10 - taps, 10 - taps)
        p.compiled([p.apply_typed(macros.CONVOLUTION, shape, dtypes.float32, x, weight, attributes=at)])
        return any(seen)

    assert lanes(2, 8, 16, 3)
    assert not lanes(2, 8, 17, 3)
    assert not lanes(2, 7, 16, 3)
    assert not lanes(16, 8, 16, 3)
    assert not lanes(2, 8, 16, 9)
