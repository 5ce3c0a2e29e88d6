"""Kernels that go along an axis in order, against their meaning in NumPy and under every setting, bit for bit."""

from __future__ import annotations

import pytest
from codegen.test_kernels import check
from compiler.oracle import Program

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import ordering
from torturous.ir.value import Value

NUMBERS = [dtype for dtype in dtypes.ALL if dtype is not dtypes.bool_]
SIZES = ((3, 40, 2), (4, 33, 5), (6, 61, 19))


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda dtype: dtype.name)
def test_order(dtype: DType) -> None:
    def case(p: Program, *shape: int) -> list[Value]:
        x = p.any(*shape, dtype=dtype)
        return [
            p.apply_typed(ordering.ORDER, (*shape[:axis], count, *shape[axis + 1:]), dtypes.int64, x,
                          attributes=(axis, descending))
            for axis in range(3) for descending in (False, True) for count in (shape[axis], 2)]

    check(case, *SIZES)


@pytest.mark.parametrize("dtype", NUMBERS, ids=lambda dtype: dtype.name)
def test_running_values(dtype: DType) -> None:
    def case(p: Program, *shape: int) -> list[Value]:
        x, y = p.any(*shape, dtype=dtype), p.any(*shape, dtype=dtype)
        results = []
        for axis in range(3):
            for reverse in (False, True):
                results.append(p.apply(ordering.RUNNING_SUM, x, attributes=(axis, reverse)))
                results.append(p.apply(ordering.RECURRENCE, x, y, attributes=(axis, reverse)))
            results.append(p.apply(ordering.RUNNING_MAX, x, attributes=(axis,)))
            results.append(p.apply(ordering.RUNNING_MIN, x, attributes=(axis,)))
        return results

    check(case, *SIZES)


def test_nothing_and_one() -> None:
    for shape in ((0,), (1,), (3, 0), (0, 3), (2, 1, 0)):
        def case(p: Program, *sizes: int) -> list[Value]:
            x = p.any(*sizes)
            results = []
            for axis in range(len(sizes)):
                results.append(p.apply_typed(ordering.ORDER, sizes, dtypes.int64, x, attributes=(axis, False)))
                results.append(p.apply(ordering.RUNNING_SUM, x, attributes=(axis, False)))
                results.append(p.apply(ordering.RUNNING_MAX, x, attributes=(axis,)))
            return results

        check(case, shape)


def test_computed_operands_and_what_follows() -> None:
    def case(p: Program, *shape: int) -> list[Value]:
        x = p.normal(*shape)
        order = p.apply_typed(ordering.ORDER, shape, dtypes.int64, (x * 2.0).permute((0, 1, 2)), attributes=(1, True))
        total = p.apply(ordering.RUNNING_SUM, x.flip((1,)) + 1.0, attributes=(1, False))
        return [order + 1, total * x, total.sum((1,))]

    check(case, *SIZES)
