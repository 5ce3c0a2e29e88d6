"""Attention's kernels against their meaning in NumPy, and against themselves under every setting, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from compiler.oracle import CONFIGURATIONS, Program, assert_same, configured

from torturous.core import dtypes
from torturous.ir.attending import ATTEND, ATTEND_BACK, gradients_shape, packed_shape
from torturous.ir.value import Value
from torturous.runtime import realize

Sizes = tuple[int, int, int, int]
"""Queries, keys, width, depth."""


def rows(program: Program, sizes: Sizes, causal: bool, masked: str, still: str = "") -> list[Value]:
    """The rows' value without what fills it up, and its gradients; operands named in `still` are 0."""
    length, size, width, depth = sizes
    shapes = {"q": (2, 3, length, width), "k": (2, 3, size, width), "v": (2, 3, size, depth)}
    q, k, v = (program.leaf(np.zeros(shape, np.float32)) if name in still else program.normal(*shape)
               for name, shape in shapes.items())
    g = program.normal(2, 3, length, depth)
    mask = []
    if masked == "bool":
        seen = program.random.random((2, 3, length, size)) < 0.7
        seen[0, 1, length // 2] = False
        mask = [program.leaf(seen)]
    elif masked:
        mask = [program.normal(2, 3, length, size)]
    at = (causal, masked)
    packed = program.apply_typed(ATTEND, packed_shape(q.shape, v.shape), dtypes.float32, q, k, v, 0.3, *mask,
                                 attributes=at)
    found = program.apply_typed(ATTEND_BACK, gradients_shape(q.shape, k.shape, v.shape), dtypes.float32, q, k, v, 0.3,
                                g, packed, *mask, attributes=at)
    of_queries = found.slice(q.shape, (2, 3), (1, 1), (0, 0))
    of_keys = found.slice(k.shape, (2, 3), (1, 1), (length, 0))
    of_values = found.slice(v.shape, (2, 3), (1, 1), (length + size, 0))
    return [packed.slice((2, 3, length, depth), (2,), (1,), (0,)), of_queries, of_keys, of_values]


def check(*several: Sizes, causal: bool = False, masked: str = "", still: str = "", tolerance: float = 0.0) -> None:
    """Sizes after the first are served by a symbolic plan. With `tolerance` 0 the bits are those of the meaning."""
    first: list[list[np.ndarray]] = []
    for name, configuration in CONFIGURATIONS.items():
        with configured(**configuration):
            for number, sizes in enumerate(several[:1] if "target" in configuration else several):
                before = realize.statistics.plans_made
                program = Program(number)
                outputs = rows(program, sizes, causal, masked, still)
                got = program.compiled(outputs)
                assert number < 2 or realize.statistics.plans_made == before, f"no plan served {sizes} too"
                if len(first) <= number:
                    first.append(got)
                    wanted = program.interpreted(outputs)
                    if tolerance:
                        for mine, theirs in zip(got, wanted, strict=True):
                            np.testing.assert_allclose(mine, theirs, tolerance, tolerance, err_msg=f"{name} {sizes}")
                    else:
                        assert_same(f"{name} {sizes}, against the meaning", got, wanted)
                assert_same(f"{name} {sizes}", got, first[number])


@pytest.mark.parametrize("causal", [False, True])
def test_values(causal: bool) -> None:
    check((16, 5, 16, 32), (33, 40, 16, 32), (50, 131, 16, 32), causal=causal, tolerance=3e-6)
    check((32, 70, 48, 32), (32, 33, 16, 16), (32, 34, 32, 48), causal=causal, tolerance=3e-6)


@pytest.mark.parametrize("masked", ["bool", "float"])
def test_masks(masked: str) -> None:
    check((17, 133, 16, 16), (32, 40, 16, 16), (50, 7, 16, 16), masked=masked, tolerance=3e-6)


@pytest.mark.parametrize("still", ["q", "k"])
def test_order_of_sums(still: str) -> None:
    """Scores are 0 and weights equal, so no exponential is rounded: every bit is the order's."""
    check((37, 261, 16, 32), still=still)
    check((70, 150, 32, 16), causal=True, still=still)


def test_values_that_are_not_seen_change_nothing() -> None:
    """Beyond the stretch of queries that a row lies in, keys are not looked at."""
    results = []
    for strange in (0.0, np.nan):
        program = Program()
        q, k, v = (program.random.standard_normal((1, 1, 64, 16)).astype(np.float32) for _ in range(3))
        k[:, :, 32:] += np.float32(strange)
        v[:, :, 32:] += np.float32(strange)
        leaves = [program.leaf(x) for x in (q, k, v)]
        packed = program.apply_typed(ATTEND, packed_shape(q.shape, v.shape), dtypes.float32, *leaves, 0.3,
                                     attributes=(True, ""))
        results.append(program.compiled([packed])[0])
    np.testing.assert_array_equal(results[0][:, :, :32], results[1][:, :, :32])
    assert np.isnan(results[1][:, :, 32:64]).all()
