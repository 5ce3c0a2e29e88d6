"""What becomes of a product's tiles whose lanes lie apart in the results: they are turned, and no bit changes."""

from __future__ import annotations

import pytest
from codegen.test_kernels import check
from compiler.oracle import Case, Program

from torturous.codegen import kernels
from torturous.codegen.target import Target, x86_target
from torturous.compiler.kernel import Kernel
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import contraction, elementwise, macros
from torturous.ir.value import Value
from torturous.runtime import planning, realize

FLOATS = [dtypes.float32, dtypes.float64, dtypes.bfloat16, dtypes.float16]
TEXTS = [(5,), (33,), (64,), (1,), (49,), (70,)]
"""How many rows of text: the first known, the others not."""


def linear(p: Program, x: Value, columns: int, *bias: Value) -> Value:
    weight = p.normal(columns, x.shape[-1], dtype=x.dtype)
    return p.apply_typed(macros.LINEAR, (*x.shape[:-1], columns), x.dtype, x, weight, *bias)


def check_texts(case: Case) -> None:
    """Plans that know everything but the number of rows, wherever they know that."""
    realize.forget_plans()
    check(case, *TEXTS[:3])
    check(case, *TEXTS[3:])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("columns", "products"), [(40, 100), (14, 300), (9, 530), (131, 257)], ids=str)
def test_ragged_edges(dtype: DType, columns: int, products: int) -> None:
    """Tiles that are not whole along rows, lanes or both; one block of products, and several that are waited for."""
    def case(p: Program, rows: int) -> list[Value]:
        return [linear(p, p.normal(rows, products, dtype=dtype), columns, p.normal(columns, dtype=dtype))]

    check_texts(case)


def test_integers() -> None:
    """Lanes of rows that do not exist take part in divisions, too."""
    def case(p: Program, rows: int) -> list[Value]:
        x, weight, divisor = (p.leaf(p.random.integers(1, 9, shape)) for shape in ((rows, 300), (300, 37), (37,)))
        product = contraction.matrix_product(0)
        y = p.apply_typed(contraction.CONTRACT, (rows, 37), x.dtype, x, weight, attributes=product)
        return [y.apply(elementwise.FLOOR_DIVIDE, divisor)]

    check_texts(case)


@pytest.mark.parametrize("dtype", FLOATS[:3], ids=str)
def test_epilogues_that_read(dtype: DType) -> None:
    """A residual, a number per column, a number per row, and one that lies along the lanes."""
    def case(p: Program, rows: int) -> list[Value]:
        y = linear(p, p.normal(rows, 200, dtype=dtype), 45, p.normal(45, dtype=dtype))
        rest, each, turned = (p.normal(*shape, dtype=dtype) for shape in ((rows, 45), (rows, 1), (45, rows)))
        return [(y.relu() * each + rest - turned.permute((1, 0))).maximum(rest)]

    check_texts(case)


def test_several_results() -> None:
    """Of which some lie along the lanes, or are of another size."""
    def case(p: Program, rows: int) -> list[Value]:
        y = linear(p, p.normal(rows, 300), 30)
        return [y, y.relu(), y.to(dtypes.bfloat16), y.gt(0.0), (y * 2.0).permute((1, 0))]

    check_texts(case)


def test_several_axes_of_lanes() -> None:
    """Samples and their texts, of which only some are read."""
    def case(p: Program, rows: int) -> list[Value]:
        y = linear(p, p.normal(3, rows, 300), 30)
        return [y + p.normal(rows, 30), y * p.normal(3, 1, 30)]

    check_texts(case)


@pytest.mark.parametrize("products", [40, 300])
def test_last_panels_of_any_width(products: int) -> None:
    """Lanes that lie side by side, as many as there happen to be."""
    def case(p: Program, lanes: int) -> list[Value]:
        attributes = contraction.matrix_product(0)
        return [p.apply_typed(contraction.CONTRACT, (rows, lanes), dtypes.float32, p.normal(rows, products),
                              p.normal(products, lanes), attributes=attributes) for rows in (3, 70)]

    for lanes in (32, 48, 63):
        check_texts(case)
        check(case, (lanes,))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("products", [90, 520])
def test_half_a_vector_of_lanes(dtype: DType, products: int) -> None:
    """What is left over is half a vector or less, or just more than that; the number of lanes is known, or not."""
    def texts(p: Program, rows: int) -> list[Value]:
        return [linear(p, p.normal(rows, products, dtype=dtype), 37, p.normal(37, dtype=dtype))]

    def columns(p: Program, lanes: int) -> list[Value]:
        x = p.normal(70, products, dtype=dtype)
        return [p.apply_typed(contraction.CONTRACT, (70, lanes), dtype, x, p.normal(products, lanes, dtype=dtype),
                              attributes=contraction.matrix_product(0)).relu()]

    realize.forget_plans()
    for case in (texts, columns):
        check(case, *[(count,) for count in (4, 8, 9, 16, 20, 24, 25, 40, 41)])
        for count in (8, 24, 200):
            realize.forget_plans()
            check(case, (count,))


def kernel_of(case: Case) -> Kernel:
    """The only one of a plan for any number of rows."""
    realize.forget_plans()
    for rows in (41, 43):
        p = Program()
        plan = planning.bind(p.record, tuple(value.index for value in case(p, rows))).loaded.plan
    [kernel] = [kernel for level in plan.memory.levels for kernel in level]
    return kernel


AVX512 = x86_target("avx512", "x86_64-unknown-linux-gnu")


@pytest.mark.parametrize("in_process", [False, True])
def test_results_are_stored_in_vectors(in_process: bool) -> None:
    """Where registers hold enough rows, in libraries as well."""
    def text(columns: int, target: Target) -> str:
        kernel = kernel_of(lambda p, rows: [linear(p, p.normal(rows, 1000), columns, p.normal(columns))])
        return kernels.generate(kernel, target, in_process).text

    assert "masked.scatter" not in text(192, AVX512)
    assert "masked.scatter" in text(5, AVX512)
    assert "masked.scatter" in text(192, x86_target("sse2", AVX512.triple))


def test_code_for_libraries_is_shorter() -> None:
    """Where the number of lanes is not known, other tiles for the last ones are for this process."""
    kernel = kernel_of(lambda p, lanes: [p.apply_typed(
        contraction.CONTRACT, (70, lanes), dtypes.float32, p.normal(70, 300), p.normal(300, lanes),
        attributes=contraction.matrix_product(0))])
    library, process = (kernels.generate(kernel, AVX512, in_process).text for in_process in (False, True))
    assert library.count("fma") < process.count("fma")
