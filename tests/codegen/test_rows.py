"""Kernels that go through rows in stages: the same bits as one kernel for each row of the record."""

from __future__ import annotations

import pytest
from codegen.test_kernels import check
from compiler.oracle import Program

from torturous.core import dtypes
from torturous.ir import contraction, macros, movement, reduction
from torturous.ir.value import Value

CANCELLED = 1 << 14
"""Units of the last place that differences of nearly equal numbers may be off NumPy's; settings agree bit for bit."""


def normalized(x: Value, axes: tuple[int, ...], count: int) -> list[Value]:
    """Layer norm and what its gradient is made of: several reductions that wait for each other."""
    mean = x.sum(axes, True) / float(count)
    centred = x - mean
    spread = ((centred * centred).sum(axes, True) / float(count) + 1e-5).rsqrt()
    y = centred * spread
    rest = x - y * ((x * y).sum(axes, True) / float(count))
    return [y, rest - x.sum(axes, True), mean, x.amax(axes, False)]


@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), (0, 2), (1, 2), (0, 2, 3)], ids=str)
def test_what_follows_reductions_along_the_same_rows(axes: tuple[int, ...]) -> None:
    def case(p: Program, *shape: int) -> list[Value]:
        x = p.normal(*shape[:max(2, axes[-1] + 1)])
        soft = p.apply(macros.SOFTMAX, x, attributes=axes)
        back = p.apply(macros.SOFTMAX_BACKWARD, x, soft, attributes=axes)
        return [soft, back, *normalized(x, axes, 7), p.apply(macros.LOG_SOFTMAX, x, attributes=axes)]

    check(case, (5, 19, 3, 33), (6, 33, 4, 16), (9, 64, 5, 18), tolerance=CANCELLED)


@pytest.mark.parametrize("shape", [(3, 4096), (9, 4100), (2, 5000), (70, 16)], ids=str)
def test_long_rows_gone_through_several_times(shape: tuple[int, int]) -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        x = p.normal(n, m)
        soft = p.apply(macros.SOFTMAX, x, attributes=(1,))
        other = p.apply(macros.SOFTMAX, x.permute((1, 0)), attributes=(0,))
        return [soft, other, *normalized(x, (1,), m)]

    n, m = shape
    check(case, shape, (n + 1, m + 1), (n + 9, m + 18), tolerance=CANCELLED)


def test_siblings_share_a_pass_and_leave_alone_what_waits_for_others() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        x, weight = p.normal(n, m), p.normal(m, m)
        largest, place = x.amax((1,), True), x.reduce(reduction.ARGMAX, (1,), True)
        # A product between two sums over the same rows: the second cannot join the first.
        total = x.sum((1,), True)
        product = (x - total).apply_typed(
            contraction.CONTRACT, (n, m), x.dtype, weight, attributes=contraction.matrix_product(0))
        late = (x * product).sum((1,), True)
        turned = x.apply(movement.FLIP, attributes=(0,)) - largest  # Reads other rows of its neighbours.
        return [largest, place, late, x - late, x.apply(movement.FLIP, attributes=(1,)) - largest, turned,
                (x - largest).apply(movement.FLIP, attributes=(0,)) + x]

    check(case, (12, 20), (20, 33), (33, 40), tolerance=CANCELLED)


def test_kernels_of_one_space_do_not_wait_for_each_other() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        x, y = p.normal(n, m), p.normal(n, m)
        a, b = x.sum((1,), True), y.sum((0,), True)
        c, d = (x * b).sum((1,), True), (y * a).sum((0,), True)
        return [a, b, c, d, x - d, y - c, (x + c).amax((0,), True), (y + d).amax((1,), True)]

    check(case, (12, 20), (20, 33), (33, 40), tolerance=CANCELLED)


@pytest.mark.parametrize("shape", [(4500, 150), (100, 290), (70, 16), (8200, 40)], ids=str)
def test_sums_of_columns_in_strips(shape: tuple[int, int]) -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        x, y = p.normal(n, m), p.normal(n, 1)
        shifted = (x + y.exp()) * 0.5
        return [shifted.sum((0,)), (x * y).sum((0,)) + 1.0, x.amax((0,)), x.reduce(reduction.ARGMIN, (0,), False),
                x.gt(2.0).reduce(reduction.ANY, (0,), False), x.reshape((n, m, 1)).sum((0, 2))]

    n, m = shape
    check(case, shape, (n + 1, m + 1), (n + 90, m + 18), tolerance=CANCELLED)


@pytest.mark.parametrize("shape", [(32, 3, 20), (64, 5, 49), (20, 4, 300), (128, 2, 64)], ids=str)
def test_rows_that_lie_across_memory_are_turned(shape: tuple[int, int, int]) -> None:
    """Sums over (N, …) of what lies samples innermost, as batch normalization takes them."""
    def case(p: Program, n: int, c: int, m: int) -> list[Value]:
        x = p.normal(c, m, n).permute((2, 0, 1))
        mean = x.sum((0, 2), True) / 40.0
        centred = x - mean
        y = centred * ((centred * centred).sum((0, 2), True) + 1.0).rsqrt()
        return [y.permute((1, 2, 0)), mean, (x * 2.0).sum((0, 2)), x.amax((0, 2)), y]

    n, c, m = shape
    check(case, shape, (n + 16, c + 1, m + 1), (n + 3, c + 2, m + 40), tolerance=CANCELLED)


@pytest.mark.parametrize("elements", [65536, 70001, 16 * 4096 * 5], ids=str)
def test_long_reductions_to_one_result_are_split(elements: int) -> None:
    """Split where the size is known, and the same bits as where it is not."""
    def case(p: Program, n: int) -> list[Value]:
        x, y = p.normal(n), p.normal(n)
        total = (x * y).sum((0,))
        return [total, total * 0.5 + 1.0, x.sum((0,), True), x.amax((0,)), x.reduce(reduction.ARGMAX, (0,), False),
                x.gt(4.0).reduce(reduction.ANY, (0,), False), y - y.sum((0,))]

    check(case, (elements,), (elements + 1,), (elements + 4096,), tolerance=CANCELLED)


@pytest.mark.parametrize("shape", [(64, 3, 20), (5, 8, 49), (33, 17, 16)], ids=str)
def test_maps_between_layouts_are_turned_in_squares(shape: tuple[int, int, int]) -> None:
    def case(p: Program, n: int, c: int, m: int) -> list[Value]:
        x, y = p.normal(n, c, m), p.leaf(p.random.integers(0, 2, (n, m)).astype(bool))
        half = p.normal(m, n).to(dtypes.bfloat16)
        return [x.permute((1, 2, 0)) * 1.0, x.permute((2, 1, 0)) + 2.0, y.permute((1, 0)).logical_not(),
                half.permute((1, 0)) * 2.0, x.permute((0, 2, 1)) * half.permute((1, 0)).reshape((n, m, 1)),
                x.reshape((n, c * m)).permute((1, 0)) * 1.0]

    n, c, m = shape
    check(case, shape, (n + 16, c + 1, m + 1), (n + 3, c + 2, m + 40))
