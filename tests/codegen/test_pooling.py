"""Convolutions that pool their own results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from codegen.test_kernels import check
from compiler.oracle import Program
from compiler.verify import verify

from torturous.compiler.expand import expand
from torturous.compiler.graph import dimensions, unify
from torturous.compiler.plan import make_plan
from torturous.compiler.schedule import loads
from torturous.core import dtypes
from torturous.ir import contraction, macros
from torturous.ir.value import Value

PLAIN = {"stride": 1, "padding": 0, "groups": 1, "transposed": False}
CASES = [
    # kernel, window, channels in and out, size of the results, how the convolution is made
    ((3, 3), (2, 2), (3, 5), (8, 6), {}),
    ((5, 5), (2, 2), (1, 10), (6, 6), {"padding": 2}),
    ((3, 3), (2, 2), (40, 7), (6, 4), {"padding": 1, "stride": 2}),
    ((2, 2), (3, 2), (4, 33), (7, 5), {}),  # Results that belong to no window.
    ((3, 3), (4, 4), (2, 3), (8, 8), {"transposed": True}),
    ((4, 4), (1, 3), (20, 20), (3, 9), {"transposed": True, "stride": 2, "padding": 1}),
    ((3,), (2,), (9, 4), (12,), {}),
    ((2, 2, 2), (2, 1, 2), (2, 4), (4, 3, 2), {"padding": 1}),
    ((3, 3), (1, 2), (32, 64), (4, 4), {"groups": 2}),
]


def pool(p: Program, x: Value, window: Sequence[int], op: object = macros.MAX_POOL,
         dtype: dtypes.DType | None = None) -> Value:
    """Windows beside each other."""
    space = len(window)
    out = (*x.shape[:2], *(n // k for n, k in zip(x.shape[2:], window, strict=True)))
    at = (tuple(window), tuple(window), (0,) * space, (1,) * space)
    return p.apply_typed(op, out, dtype or x.dtype, x, attributes=at)


def convolved(p: Program, batch: int, what: tuple, dtype: dtypes.DType = dtypes.float32) -> Value:
    """Results of a convolution of whole numbers, many of them equal, and some what is no number."""
    kernel, _, (entering, leaving), size, how = what
    transposed, stride, padding, groups = (
        (PLAIN | how)[name] for name in ("transposed", "stride", "padding", "groups"))
    space = len(kernel)
    if transposed:
        before = [(n + 2 * padding - k) // stride + 1 for n, k in zip(size, kernel, strict=True)]
        size = [(n - 1) * stride - 2 * padding + k for n, k in zip(before, kernel, strict=True)]
    else:
        before = [(n - 1) * stride - 2 * padding + k for n, k in zip(size, kernel, strict=True)]
    shape = (entering, leaving // groups) if transposed else (leaving, entering // groups)
    x = p.random.integers(-2, 3, (batch, entering, *before)).astype(dtype.numpy)
    x[p.random.random(x.shape) < 0.003] = float("nan")
    weight = p.random.integers(-1, 2, (*shape, *kernel)).astype(dtype.numpy)
    bias = p.random.integers(-1, 2, leaving).astype(dtype.numpy)
    at = (transposed, (stride,) * space, (padding,) * space, (1,) * space, groups)
    leaves = [p.leaf(array) for array in (x, weight, bias)]
    return p.apply_typed(macros.CONVOLUTION, (batch, leaving, *size), dtype, *leaves, attributes=at)


@pytest.mark.parametrize("what", CASES, ids=str)
def test_pools_of_convolutions(what: tuple) -> None:
    """Extremes of either way with where they were, sums, what follows them, and what is pooled itself."""
    def case(p: Program, batch: int, kept: int) -> list[Value]:
        y = convolved(p, batch, what) * p.normal(batch, 1, *[1] * len(what[0]))
        tap = pool(p, y, what[1], macros.MAX_POOL_TAP, dtypes.int32)
        found = [pool(p, y, what[1]).relu(), tap, pool(p, y.relu(), what[1], macros.WINDOW_SUM) * 0.25]
        return [*found, y] if kept else found

    check(case, (16, 0), (48, 0))
    check(case, (33, 1))


@pytest.mark.parametrize("what", CASES[:2], ids=str)
def test_wide_numbers(what: tuple) -> None:
    def case(p: Program, batch: int) -> list[Value]:
        y = convolved(p, batch, what, dtypes.float64)
        return [pool(p, y, what[1]), pool(p, y, what[1], macros.MAX_POOL_TAP, dtypes.int64)]

    check(case, (600,))


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("what", [
    ((5, 5), (2, 2), (1, 10), (8, 8)), ((3, 3), (2, 1), (3, 7), (6, 5)), ((3,), (4,), (9, 2), (24,)),
    ((2, 2, 2), (2, 2, 2), (1, 3), (4, 2, 6)), ((3, 3), (2, 2), (70, 6), (4, 4)),
], ids=str)
def test_gradients_of_weights_through_pools(what: tuple, dtype: dtypes.DType) -> None:
    """What was pooled is spread while products are gone through; the sum over pixels spreads it for itself."""
    kernel, window, (entering, leaving), size = what

    def case(p: Program, batch: int) -> list[Value]:
        space = len(kernel)
        pooled = [n // k for n, k in zip(size, window, strict=True)]
        tap = p.leaf(p.random.integers(0, np.prod(window), (batch, leaving, *pooled)).astype(np.uint8))
        g = p.normal(batch, leaving, *pooled, dtype=dtype)
        at = (window, window, (0,) * space, (1,) * space)
        spread = p.apply_typed(macros.MAX_UNPOOL, (batch, leaving, *size), dtype, g, tap, attributes=at)
        x = p.normal(batch, entering, *(n + k - 1 for n, k in zip(size, kernel, strict=True)), dtype=dtype)
        plain = (False, (1,) * space, (0,) * space, (1,) * space, 1)
        weights = p.apply_typed(
            macros.CONVOLUTION_WEIGHT, (leaving, entering, *kernel), dtype, spread, x, attributes=plain)
        return [weights * 2.0, spread.sum((0, *range(2, space + 2)))]

    check(case, (32,))
    check(case, (16,), (48,), (80,))


@pytest.mark.parametrize("shape", [(0, 1, 1, 1), (1, 7, 1, 1), (1, 1, 1, 1), (0, 1, 6, 1)], ids=str)
def test_gradients_of_weights_of_what_is_repeated(shape: tuple[int, ...]) -> None:
    """A gradient that is the same along samples, channels or pixels, as those of sums are; 0 stands for the samples."""
    def case(p: Program, batch: int) -> list[Value]:
        g = p.normal(*(size or batch for size in shape)).expand((batch, 7, 6, 5))
        return [p.apply_typed(macros.CONVOLUTION_WEIGHT, (7, 2, 3, 3), g.dtype, g, p.normal(batch, 2, 8, 7),
                              attributes=(False, (1, 1), (0, 0), (1, 1), 1))]

    check(case, (32,))


def test_which_factors_are_computed_on_the_way() -> None:
    """Thin ones that only the gradient of weights reads, of samples in whole vectors."""
    def sources(batch: int, wanted: bool) -> set[str]:
        p = Program()
        g, tap = p.normal(batch, 4, 3, 3), p.leaf(p.random.integers(0, 4, (batch, 4, 3, 3)).astype(np.uint8))
        at = ((2, 2), (2, 2), (0, 0), (1, 1))
        spread = p.apply_typed(macros.MAX_UNPOOL, (batch, 4, 6, 6), g.dtype, g, tap, attributes=at)
        weights = p.apply_typed(macros.CONVOLUTION_WEIGHT, (4, 2, 3, 3), g.dtype, spread, p.normal(batch, 2, 8, 8),
                                attributes=(False, (1, 1), (0, 0), (1, 1), 1))
        expanded = expand(p.record, [value.index for value in ([weights, spread] if wanted else [weights])])
        plan = make_plan(expanded, unify([dimensions(expanded)]), (), True)
        verify(plan)
        (kernel,) = [kernel for level in plan.memory.levels for kernel in level if kernel.product]
        return {load.dtype.name for load in loads(kernel)}

    assert sources(16, False) == {"float32", "uint8"}
    assert sources(16, True) == {"float32"}
    assert sources(24, False) == {"float32"}


def kernels_of(outputs: Sequence[Value]) -> list[tuple[bool, list[str]]]:
    """Whether the convolutions of a plan pool, and what they store."""
    expanded = expand(outputs[0].record, [value.index for value in outputs])
    plan = make_plan(expanded, unify([dimensions(expanded)]), (), True)
    verify(plan)
    return [(kernel.pooled > 0, [store.buffer.op.name for store in kernel.stores])
            for level in plan.memory.levels for kernel in level
            if kernel.accumulators and kernel.accumulators[0].op is contraction.CONTRACT]


def test_which_convolutions_pool() -> None:
    """Those of samples that fill vectors, whose windows lie beside each other; results that nobody else reads are not
    stored."""
    def kernels(batch: int, window: tuple, stride: tuple, size: int, kept: bool = False) -> list:
        p = Program()
        y = convolved(p, batch, ((3, 3), None, (2, 4), (size, size), {}))
        out = (batch, 4, *((size - k) // s + 1 for k, s in zip(window, stride, strict=True)))
        x = p.apply_typed(macros.MAX_POOL, out, y.dtype, y, attributes=(window, stride, (0, 0), (1, 1)))
        return kernels_of([x.relu(), *([(y * 2.0).exp()] if kept else [])])

    assert kernels(16, (2, 2), (2, 2), 8) == [(True, ["relu"])]
    assert kernels(16, (1, 2), (1, 2), 8) == [(True, ["relu"])]
    assert kernels(16, (2, 2), (2, 2), 7) == [(True, ["relu"])]
    assert kernels(16, (2, 2), (2, 2), 8, kept=True) == [(True, ["add", "relu"])]
    assert kernels(16, (2, 2), (2, 2), 7, kept=True) == [(False, ["add"])]  # Not every result belongs to a window.
    assert kernels(16, (3, 3), (2, 2), 7) == [(False, ["add"])]  # Some belong to two.
    assert kernels(16, (5, 4), (5, 4), 8) == [(False, ["add"])]  # Too many to be written out.
    assert kernels(8, (2, 2), (2, 2), 8) == [(False, ["add"])]
