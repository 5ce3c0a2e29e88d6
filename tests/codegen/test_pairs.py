"""bfloat16 products taken two at a time: the same bits as one at a time, however operands lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from compiler.oracle import Program, assert_same, configured, lane_targets

from torturous.codegen import kernels
from torturous.codegen.target import host_target, x86_target
from torturous.core import dtypes, settings
from torturous.ir import contraction
from torturous.ir.contraction import BLOCK, CONTRACT, lone
from torturous.ir.op import Attributes
from torturous.ir.value import Value
from torturous.runtime import planning

BFLOAT16 = dtypes.bfloat16
PAIRED = getattr(host_target(settings.target.value), "has_avx512_bf16", False)
needs_pairs = pytest.mark.skipif(not PAIRED, reason="the target has no AVX512-BF16")


def lying(p: Program, shape: Sequence[int], order: Sequence[int], step: int = 1) -> Value:
    """Normal numbers whose axes lie in this order in memory, the last of them `step` apart."""
    stored = [shape[axis] for axis in order]
    value = p.normal(*stored[:-1], stored[-1] * step, dtype=BFLOAT16)
    if step > 1:
        value = value.slice(tuple(stored), (len(stored) - 1,), (step,), (1,))
    return value.permute(tuple(order.index(axis) for axis in range(len(shape))))


def results(case, sizes: Sequence[Sequence[int]], **configuration) -> tuple[list, list]:
    """What a case gives at several sizes in turn, compiled and interpreted."""
    compiled, interpreted = [], []
    with configured(**configuration):
        for number, size in enumerate(sizes):
            program = Program(number)
            outputs = case(program, *size)
            compiled += program.compiled(outputs)
            interpreted += program.interpreted(outputs)
    return compiled, interpreted


def check(case, *sizes: Sequence[int]) -> None:
    """Compiled as the interpreter has it, also where products are taken one at a time, unfused, and in small pieces."""
    got, want = results(case, sizes)
    assert_same("against NumPy", got, want)
    for configuration in (*({"target": name} for name in lane_targets()[:1]), {"fuse": False},
                          {"pieces": True, "threads": 2}):
        assert_same(f"{configuration}", results(case, sizes, **configuration)[0], got)


def product_of(p: Program, a: Value, b: Value) -> Value:
    shape = (*a.shape[:-1], b.shape[-1])
    return p.apply_typed(CONTRACT, shape, BFLOAT16, a, b, attributes=contraction.matrix_product(len(shape) - 2))


ORDERS = ((0, 1), (1, 0))


def in_all_orders(p: Program, m: int, k: int, n: int) -> list[Value]:
    """NN, NT, TN, TT."""
    return [product_of(p, lying(p, (m, k), a), lying(p, (k, n), b)) for a in ORDERS for b in ORDERS]


@pytest.mark.parametrize("products", [1, 2, 31, 33, BLOCK - 1, BLOCK + 1, 2 * BLOCK + 34])
def test_matrices_in_any_order(products):
    """Lanes and rows beside each other, or products; odd counts; more rows and lanes than a panel has."""
    check(in_all_orders, (31, products, 50))


def test_sizes_that_are_not_known():
    """The second and third size are served by one plan."""
    check(in_all_orders, (5, 40, 18), (20, 37, 33), (3, 301, 61), (40, 1, 2))


def test_elements_that_lie_apart():
    def case(p: Program, m: int, k: int, n: int) -> list[Value]:
        return [product_of(p, lying(p, (m, k), a, step), lying(p, (k, n), b, other))
                for a, b, step, other in ((*ORDERS, 2, 1), (*ORDERS, 1, 3), (*ORDERS[::-1], 2, 2))]

    check(case, (4, 35, 19))


def test_batches():
    check(lambda p, m, k, n: [product_of(p, lying(p, (3, m, k), order), lying(p, (3, k, n), other))
                              for order in ((0, 1, 2), (2, 0, 1)) for other in ((0, 2, 1), (1, 0, 2))],
          (5, 37, 18))


@pytest.mark.parametrize("extents", [(3, 5), (5, 6), (9, 33), (7, 96), (2, 300), (129, 2)])
def test_sums_over_two_loops(extents):
    """Products in stretches that are odd or even, few or many, whole blocks or not; listed in tables or not."""

    def summed(p: Program, m: int, n: int, orders) -> Value:
        maps = ((lone(0), lone(2), lone(3)), (lone(2), lone(3), lone(1)))
        a, b = lying(p, (m, *extents), orders[0]), lying(p, (*extents, n), orders[1])
        return p.apply_typed(CONTRACT, (m, n), BFLOAT16, a, b, attributes=(2, *maps))

    lefts, rights = ((0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)), ((0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0))
    check(lambda p, m, n: [summed(p, m, n, orders) for orders in zip(lefts, rights, strict=True)], (4, 18))


def test_sums_over_two_loops_that_are_not_known():
    def case(p: Program, m: int, n: int, k: int, others: int) -> list[Value]:
        maps = ((lone(0), lone(2), lone(3)), (lone(2), lone(3), lone(1)))
        return [p.apply_typed(CONTRACT, (m, n), BFLOAT16, lying(p, (m, k, others), order),
                              lying(p, (k, others, n), other), attributes=(2, *maps))
                for order, other in (((1, 0, 2), (1, 0, 2)), ((2, 1, 0), (2, 0, 1)))]

    check(case, (4, 18, 3, 5), (5, 20, 7, 33), (2, 3, 90, 3), (3, 40, 2, 64))


def convolved(p: Program, x: Value, weight: Value, stride: int, padding: int) -> list[Value]:
    """A convolution and what flows back through it."""
    attributes: Attributes = contraction.convolution((stride,) * 2, (padding,) * 2, (1, 1), False)
    n, o = x.shape[0], weight.shape[0]
    size = tuple((extent + 2 * padding - taps) // stride + 1
                 for extent, taps in zip(x.shape[2:], weight.shape[2:], strict=True))
    out = p.apply_typed(CONTRACT, (n, o, *size), x.dtype, x, weight, attributes=attributes)
    upstream = p.normal(n, o, *size, dtype=x.dtype)
    return [out, *(gradient(upstream, out, attributes, x, weight) for gradient in CONTRACT.gradients)]


@pytest.mark.parametrize("dtype", [BFLOAT16, dtypes.float16], ids=str)
@pytest.mark.parametrize(("channels", "samples", "width"), [(1, 2, 6), (3, 16, 6), (6, 2, 20), (40, 16, 5)])
def test_convolutions(dtype, channels, samples, width):
    """Packed; and from copies in words or in float32, where lanes are samples or pixels beside each other."""
    def case(p: Program, size: int) -> list[Value]:
        x = p.normal(samples, channels, size, width, dtype=dtype)
        return [*convolved(p, x, p.normal(8, channels, 3, 3, dtype=dtype), 1, 1),
                *convolved(p, x, p.normal(6, channels, 2, 2, dtype=dtype), 2, 0),
                *convolved(p, x, p.normal(5, channels, 1, 1, dtype=dtype), 1, 0)]

    check(case, (4,))


@pytest.mark.parametrize(("samples", "width"), [(2, 52), (3, 35), (16, 17)])
def test_gradients_of_weights_over_many_products(samples, width):
    """Products dealt out to lanes, in several blocks and a part of a vector."""
    check(lambda p, size: convolved(p, p.normal(samples, 1, size, width, dtype=BFLOAT16),
                                    p.normal(2, 1, 2, 3, dtype=BFLOAT16), 1, 0)[2:], (4400 // samples // width + 3,))


@needs_pairs
def test_subnormal_numbers_are_zero():
    """Elements and sums, but not products on their way into a sum, and not results that are sums of blocks."""
    tiny, smallest, one = 2.0 ** -130, 2.0 ** -126, 1.0

    def product(left: Sequence[float], right: Sequence[float]) -> float:
        program = Program()
        a, b = (np.array(side).astype(ml_dtypes.bfloat16) for side in (left, right))
        out = product_of(program, program.leaf(a.reshape(1, -1)), program.leaf(b.reshape(-1, 1)))
        return float(program.compiled([out])[0].item())

    assert product([tiny, one], [one, 0.5]) == 0.5
    assert product([tiny], [2.0 ** 20]) == 0
    assert product([2.0 ** -70], [2.0 ** -60]) == 0
    assert product([2.0 ** -70, smallest], [2.0 ** -60, one]) == smallest
    assert product([smallest, 2.0 ** -70], [one, 2.0 ** -60]) == 1.0625 * smallest
    assert product([*[0.0] * BLOCK, smallest], [*[0.0] * BLOCK, one]) == smallest


def test_words_are_for_machines_that_have_the_instruction():
    """And float16 is not for it."""
    texts: dict[tuple[str, bool], str] = {}
    for dtype in (dtypes.bfloat16, dtypes.float16):
        for paired in (False, True):
            target = replace(x86_target("avx512", "x86_64-unknown-linux-gnu"), has_avx512_bf16=paired)
            program = Program()
            out = program.apply_typed(
                CONTRACT, (3, 20), dtype, program.normal(3, 9, dtype=dtype), program.normal(9, 20, dtype=dtype),
                attributes=contraction.matrix_product(0))
            plan = planning.bind(program.record, (out.index,)).loaded.plan
            [kernel] = [kernel for level in plan.memory.levels for kernel in level]
            texts[dtype.name, paired] = kernels.generate(kernel, target).text
    assert {key for key, text in texts.items() if "dpbf16ps" in text} == {("bfloat16", True)}
    assert {key for key, text in texts.items() if "+avx512bf16" in text} == {("bfloat16", True)}


def test_sums_are_as_exact_as_float32():
    """What is rounded to bfloat16 is a float32 sum: units of its last place, not of bfloat16's for every product."""
    program = Program()
    a, b = program.normal(30, 700, dtype=BFLOAT16), program.normal(700, 40, dtype=BFLOAT16)
    [got] = program.compiled([product_of(program, a, b)])
    wide = [program.arrays[value.index].astype(np.float64) for value in (a, b)]
    want = wide[0] @ wide[1]
    assert np.abs(got.astype(np.float64) - want).max() <= 2.0 ** -8 * np.abs(want).max() * 1.001
