"""Every kernel against its op's meaning in NumPy, and against itself under every setting, bit for bit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from compiler.oracle import CONFIGURATIONS, Case, Program, assert_same, configured, ulps

from torturous.compiler.graph import Sizes, unify
from torturous.compiler.sizes import MANY
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.mersenne import MersenneTwister
from torturous.ir import contraction, creation, elementwise, indexing, macros, movement, reduction
from torturous.ir.interpret import FUNCTIONS
from torturous.ir.op import BY_NAME, Kind, Op
from torturous.ir.value import Value
from torturous.runtime import build, planning, realize

FLOATS = [dtype for dtype in dtypes.ALL if dtype.is_floating_point]


def check(case: Case, *sizes: tuple[int, ...], tolerance: float = 0.0) -> None:
    """Runs a case at three sizes under every setting.

    The first size is compiled with constants, the second makes a symbolic plan and the third must use it (on
    other instruction sets than the native one, the first alone). Results must be those of the interpreter
    (within `tolerance` units of the last place) and the same for all settings, and for the third size also the same
    with constants.
    """
    first: list[list[np.ndarray]] = []
    for name, configuration in CONFIGURATIONS.items():
        with configured(**configuration):
            for number, size in enumerate(sizes[:1] if "target" in configuration else sizes):
                before = realize.statistics.plans_made, build.statistics.kernels_compiled
                program = Program(number)
                outputs = case(program, *size)
                got = program.compiled(outputs)
                if number == 2:
                    after = realize.statistics.plans_made, build.statistics.kernels_compiled
                    assert before == after, f"{name}: the plan did not serve a third size {size}"
                label = f"{name}, sizes {size}"
                if len(first) <= number:
                    first.append(got)
                    agree(label, got, program.interpreted(outputs), outputs, tolerance)
                if number == 2 and not configuration:
                    realize.forget_plans()
                    assert_same(f"{label}, as constants", program.compiled(outputs), got, described(outputs))
                assert_same(
                    f"{label}, against {next(iter(CONFIGURATIONS))}", got, first[number], described(outputs)
                )


def described(outputs: Sequence[Value]) -> list[str]:
    """The last row of each output, as messages name it."""
    lines = str(outputs[0].record).splitlines()
    return [lines[value.index] for value in outputs]


def agree(
    label: str,
    got: Sequence[np.ndarray],
    want: Sequence[np.ndarray],
    outputs: Sequence[Value],
    tolerance: float,
) -> None:
    names = described(outputs)
    if not tolerance:
        assert_same(f"{label}, against NumPy", got, want, names)
        return
    wrong = [
        (ulps(g, w), name) for g, w, name in zip(got, want, names, strict=True) if ulps(g, w) > tolerance
    ]
    assert not wrong, f"{label}: units of the last place: {wrong[:10]}"


# Elementwise ------------------------------------------------------------------------------------------------
RAW = (elementwise.UNIFORM53, elementwise.UNIFORM24, elementwise.NORMAL24)
ELEMENTWISE = [
    op for op in BY_NAME.values() if op.kind is Kind.ELEMENTWISE and op.lower is not None and op not in RAW
]
NO_BOOL = (elementwise.SIGN, elementwise.POW)
"""Ops whose meaning NumPy does not have for bool."""


def arity(op: Op) -> int:
    assert op.lower is not None
    return len(inspect.signature(op.lower).parameters) - 1


def recorded(p: Program, op: Op, *operands: Value) -> list[Value]:
    """The op's row, or nothing if it refuses these dtypes, as PyTorch does."""
    if op in NO_BOOL and operands[0].dtype is dtypes.bool_:
        return []
    try:
        return [p.apply(op, *operands)]
    except (RuntimeError, TypeError):
        return []


def rounded(op: Op, dtype: DType) -> bool:
    """Whether kernels must give the very bits of the meaning."""
    return op not in FUNCTIONS or (op is elementwise.POW and not dtype.is_floating_point)


def elementwise_case(exact: bool) -> Case:
    def case(p: Program, *shape: int) -> list[Value]:
        outputs = []
        for dtype in dtypes.ALL if exact else (*FLOATS, dtypes.int32):
            a, b = p.any(*shape, dtype=dtype), p.any(*shape, dtype=dtype)
            condition = p.any(*shape, dtype=dtypes.bool_)
            for op in ELEMENTWISE:
                if rounded(op, dtype) != exact:
                    continue
                operands = [condition, a, b] if op is elementwise.WHERE else [a, b, a][: arity(op)]
                if op is elementwise.POW and not dtype.is_floating_point:
                    operands[1] = p.leaf(p.random.integers(0, 9, shape).astype(dtype.numpy))
                outputs += recorded(p, op, *operands)
        return outputs

    return case


def test_elementwise() -> None:
    check(elementwise_case(True), (53,), (7,), (200,))


def test_functions() -> None:
    check(elementwise_case(False), (53,), (7,), (200,), tolerance=4.0)


def test_operands_of_several_dtypes_and_numbers() -> None:
    def case(p: Program, n: int) -> list[Value]:
        outputs = []
        ops = elementwise.ADD, elementwise.MUL, elementwise.MAXIMUM, elementwise.LT, elementwise.DIV
        for number, (mine, other) in enumerate(combinations(dtypes.ALL, 2)):
            a, b, scalar = p.any(n, dtype=mine), p.any(n, dtype=other), p.any(dtype=other)
            outputs += [p.apply(ops[number % 5], a, b), p.apply(ops[(number + 1) % 5], scalar, a)]
        for dtype in dtypes.ALL:
            a = p.any(n, dtype=dtype)
            for number in (True, 3, -2, 300, 0.1, -1e39):
                if dtype is dtypes.uint8 and number == -2:
                    continue
                op = (elementwise.ADD, elementwise.MUL, elementwise.GE)[len(outputs) % 3]
                outputs += [p.apply(op, a, number), p.apply(elementwise.WHERE, a.ne(0), number, a)]
        return outputs

    check(case, (19,), (33,), (48,))


def test_casts() -> None:
    def case(p: Program, n: int) -> list[Value]:
        values = [p.any(n, dtype=dtype) for dtype in dtypes.ALL]
        return [value.to(dtype) for value in values for dtype in dtypes.ALL if value.dtype is not dtype]

    check(case, (99,), (17,), (300,))


def test_broadcasting() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        a, b, row, column = p.normal(n, m), p.normal(n, m), p.normal(m), p.normal(n, 1)
        scalar, cube, empty = p.normal(), p.normal(2, 1, m), p.normal(0, m)
        return [
            a + row,
            column * row,
            scalar - a,
            cube + a,
            (a + column) * (b - row) + scalar,
            cube.maximum(column),
            empty + row,
            scalar * scalar,
            p.normal(1) + p.normal(1, 1),
            a.gt(row).where(column, scalar),
        ]

    check(case, (3, 40), (5, 17), (33, 9))


def test_rows_round_one_by_one() -> None:
    """A chain in half precision rounds at every row, and multiply-adds are not contracted."""

    def case(p: Program, n: int) -> list[Value]:
        outputs = []
        for dtype in FLOATS:
            a, b, c = (p.normal(n, dtype=dtype) for _ in range(3))
            outputs.append((a * b + c) * a - b / (c * c + 1.5))
        return outputs

    check(case, (100,), (31,), (1000,))


def test_uniforms_and_normals() -> None:
    def case(p: Program, n: int) -> list[Value]:
        words = p.leaf(p.random.integers(-(2**31), 2**31, n).astype(np.int32))
        high = p.leaf(p.random.integers(-(2**31), 2**31, n).astype(np.int32))
        second = high.apply(elementwise.UNIFORM24)
        sine = p.leaf(p.random.integers(0, 2, n).astype(np.float32))
        return [words.apply(elementwise.UNIFORM53, high), words.apply(elementwise.UNIFORM24),
                words.apply(elementwise.UNIFORM24).apply(elementwise.NORMAL24, second, sine)]

    check(case, (50,), (2,), (77,))


# Creation and random words ----------------------------------------------------------------------------------
def test_creation() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        outputs = []
        for dtype in dtypes.ALL:
            outputs.append(p.apply_typed(creation.FULL, (n, m), dtype, 0.6 if dtype is dtypes.bool_ else 7.6))
            if dtype is not dtypes.bool_:
                outputs.append(p.apply_typed(creation.IOTA, (n,), dtype, 2, 3))
        outputs.append(p.apply_typed(creation.IOTA, (n,), dtypes.float32, 0.1, 0.3))
        outputs.append(p.apply_typed(creation.IOTA, (n,), dtypes.int64, 0, 1).reshape((n, 1)) + p.normal(m))
        return outputs

    check(case, (20, 3), (7, 16), (40, 5))


@pytest.mark.parametrize("position", [0, 5, 623, 624])
def test_random_words(position: int) -> None:
    def case(p: Program, n: int) -> list[Value]:
        state = np.append(p.random.integers(0, 2**32, 624), position).astype(np.uint32)
        words = p.leaf(state.view(np.int32)).apply_typed(
            creation.RANDOM, (creation.STATE_WORDS + n,), dtypes.int32
        )
        return [words, words.slice((n,), (0,), (1,), (creation.STATE_WORDS,)) + 1]

    check(case, (10,), (700,), (2000,))


def test_random_words_are_those_of_the_generator() -> None:
    p = Program()
    state = np.append(p.random.integers(0, 2**32, 624), 600).astype(np.uint32)
    value = p.leaf(state.view(np.int32)).apply_typed(
        creation.RANDOM, (creation.STATE_WORDS + 1000,), dtypes.int32
    )
    [got] = p.compiled([value])
    words = MersenneTwister(state.copy()).words(1000)
    assert np.array_equal(got[creation.STATE_WORDS :].view(np.uint32), words)


# Movement ---------------------------------------------------------------------------------------------------
def movements(p: Program, x: Value, y: Value, n: int, m: int) -> list[Value]:
    """Every movement op of values of shape (n, m)."""
    wide = p.apply(movement.CONCATENATE, x, y, x, attributes=(0,))
    long = p.apply(movement.CONCATENATE, x, y, attributes=(1,))
    return [
        x.permute((1, 0)),
        x.reshape((m * n,)),
        x.reshape((n, 1, m)),
        x.permute((1, 0)).reshape((m * n,)),
        x.expand((3, n, m)),
        x.reshape((n, 1, m)).expand((n, 2, m)).reshape((2 * n, m)),
        x.apply(movement.FLIP, attributes=(1,)),
        x.apply(movement.FLIP, attributes=(0, 1)),
        x.slice((n - 1, m - 2), (0, 1), (1, 1), (1, 0)),
        x.slice((n, 2), (1,), (2,), (1,)),
        x.pad((n + 3, m), 0, (0,), (1,), (2,)),
        x.pad((n, 2 * m + 1), 1.5, (1,), (2,), (1,)),
        x.insert(y.slice((n, 2), (1,), (1,), (0,)), (1,), (2,), (1,)),
        x.insert(y.slice((1, m), (0,), (1,), (0,)), (0,), (1,), (n - 1,)),
        wide,
        long,
        wide.permute((1, 0)),
        long.slice((n, m), (1,), (1,), (2,)),
        x.apply(movement.ALIAS),
        x.apply(movement.REPLACE, y),
    ]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_movement(dtype: DType) -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        return movements(p, p.any(n, m, dtype=dtype), p.any(n, m, dtype=dtype), n, m)

    check(case, (3, 20), (5, 17), (18, 7))


def test_movement_of_what_is_computed() -> None:
    """Movement ops between elementwise ones become addresses; nothing is stored in between."""

    def case(p: Program, n: int, m: int) -> list[Value]:
        x, y = p.normal(n, m), p.normal(n, m)
        outputs = [moved * 2.0 - 1.0 for moved in movements(p, x + y, x * y, n, m)]
        for moved in movements(p, x * 3.0, y - x, n, m)[::3]:
            if moved.shape == (n, m):
                outputs += [again + moved for again in movements(p, moved, x, n, m) if again.shape == (n, m)]
        return outputs

    check(case, (4, 18), (6, 33), (19, 5))


def test_movement_of_nothing() -> None:
    def case(p: Program, n: int) -> list[Value]:
        x = p.normal(0, n)
        return [
            x.permute((1, 0)) + 1,
            x.reshape((n, 0)),
            x.pad((2, n), 4, (0,), (1,), (1,)),
            x.sum((0,)),
            x.sum((1,)),
            p.apply(movement.CONCATENATE, x, p.normal(2, n), attributes=(0,)),
            x.expand((3, 0, n)),
            p.normal(n).slice((0,), (0,), (1,), (0,)) * 2.0,
        ]

    check(case, (4,), (9,), (17,))


# Reductions -------------------------------------------------------------------------------------------------
REDUCTIONS = [op for op in BY_NAME.values() if op.kind is Kind.REDUCE]


def axes_of(rank: int) -> list[tuple[int, ...]]:
    return [axes for count in range(1, rank + 1) for axes in combinations(range(rank), count)]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_reductions(dtype: DType) -> None:
    """All ops over all choices of axes; NaN, infinities and signed zeros among the elements."""

    def case(p: Program, *shape: int) -> list[Value]:
        x, tame = (
            p.any(*shape, dtype=dtype),
            p.leaf(
                (p.random.integers(-8, 8, shape) if dtype.signed else p.random.integers(0, 5, shape)).astype(
                    dtype.numpy
                )
            ),
        )
        choices = axes_of(3)
        outputs = []
        for number, op in enumerate(REDUCTIONS):
            for axes in (choices[(number + dtype.number) % 7], choices[(number + dtype.number + 3) % 7]):
                outputs += [x.reduce(op, axes, False), tame.reduce(op, axes, bool(number % 2))]
        return outputs

    check(case, (3, 4, 21), (5, 2, 18), (2, 19, 33))


@pytest.mark.parametrize("shape", [(70000,), (2, 4100), (4100, 3), (300, 20, 2), (33, 17, 33)], ids=str)
def test_the_order_of_long_sums(shape: tuple[int, ...]) -> None:
    """Sums that need blocks, with one run of reduced axes and with several."""
    sizes = shape, (*shape[:-1], shape[-1] + 1), (*shape[:-1], shape[-1] + 18)

    def case(p: Program, *shape: int) -> list[Value]:
        x = p.normal(*shape)
        outputs = [x.sum(axes) for axes in axes_of(len(shape))]
        everything = tuple(range(len(shape)))
        return [
            *outputs,
            (x * x + 1.0).sum(everything),
            x.reduce(reduction.ARGMAX, everything, False),
            x.permute(everything[::-1]).sum((0,)),
        ]

    check(case, *sizes)


def test_reductions_of_views_and_what_follows_them() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        x, y = p.normal(n, m), p.normal(m, n)
        mean = (x.sum((1,), True) / 7.0).expand((n, m))
        centred = x - mean
        spread = (centred * centred).sum((1,), True)
        turned = (x.permute((1, 0)) * y).sum((1,))
        halves = x.slice((n, m // 2), (1,), (2,), (1,)).sum((0, 1))
        flat = (x + y.permute((1, 0))).reshape((n * m,)).sum((0,)) * 0.5
        boxes = x.reshape((n, m, 1)).expand((n, m, 4)).sum((1, 2))
        return [
            mean,
            centred / (spread + 1.0).sqrt(),
            turned + 1.0,
            halves,
            flat,
            boxes,
            x.pad((n + 2, m + 2), 0, (0, 1), (1, 1), (1, 1)).sum((1,)),
            x.sum((0,)).sum((0,)),
            x.amax((0,)) - 1.0,
        ]

    check(case, (4, 30), (6, 18), (20, 40))


def test_argmax_of_ties_and_nothing_smaller() -> None:
    def case(p: Program, n: int, m: int) -> list[Value]:
        same = p.leaf(np.full((n, m), -np.inf, np.float32))
        ties = p.leaf(p.random.integers(0, 2, (n, m)))
        return [
            same.reduce(reduction.ARGMAX, (1,), False),
            same.reduce(reduction.ARGMAX, (0,), False),
            ties.reduce(reduction.ARGMIN, (0, 1), False),
            ties.reduce(reduction.ARGMAX, (0,), False),
        ]

    check(case, (3, 40), (20, 5), (7, 17))


# Contraction ------------------------------------------------------------------------------------------------
def product_of(p: Program, a: Value, b: Value, batch: int) -> Value:
    shape = (*a.shape[:-1], b.shape[-1])
    return p.apply_typed(
        contraction.CONTRACT, shape, a.dtype, a, b, attributes=contraction.matrix_product(batch)
    )


CONTRACTED = [dtype for dtype in dtypes.ALL if dtype is not dtypes.bool_]


@pytest.mark.parametrize("dtype", CONTRACTED, ids=str)
def test_matrix_products(dtype: DType) -> None:
    def case(p: Program, m: int, k: int, n: int) -> list[Value]:
        def some(*shape: int) -> Value:
            if dtype.is_floating_point:
                return p.normal(*shape, dtype=dtype)
            return p.leaf(p.random.integers(0, 9, shape).astype(dtype.numpy))

        a, b, batch = some(m, k), some(k, n), some(3, m, k)
        return [
            product_of(p, a, b, 0),
            product_of(p, b.permute((1, 0)), a.permute((1, 0)), 0),
            product_of(p, batch, some(3, k, n), 1),
            product_of(p, a.reshape((1, m, k)).expand((3, m, k)), batch.permute((0, 2, 1)), 1),
            p.apply_typed(macros.LINEAR, (3, m, n), dtype, batch, some(n, k), some(n)),
        ]

    check(case, (5, 7, 19), (2, 300, 3), (17, 33, 20))


def test_long_products_add_block_by_block() -> None:
    def case(p: Program, m: int, k: int, n: int) -> list[Value]:
        return [product_of(p, p.normal(m, k), p.normal(k, n), 0)]

    check(case, (2, 255, 3), (3, 257, 17), (4, 1030, 2))


def test_products_of_nothing() -> None:
    def case(p: Program, m: int, n: int) -> list[Value]:
        return [
            product_of(p, p.normal(m, 0), p.normal(0, n), 0),
            product_of(p, p.normal(0, n), p.normal(n, m), 0),
        ]

    check(case, (3, 4), (5, 17), (2, 9))


def test_fused_around_products() -> None:
    """Producers are computed where panels are read, consumers while results are in registers."""

    def case(p: Program, m: int, k: int, n: int) -> list[Value]:
        a, b, bias, rest = p.normal(m, k), p.normal(k, n), p.normal(n), p.normal(m, n)
        y = product_of(p, a, b, 0)
        return [
            (y + bias).relu() * 2.0 + rest,
            product_of(p, a * 2.0 - 1.0, b.relu(), 0) - bias,
            product_of(p, a.to(dtypes.float64), b.to(dtypes.float64), 0).to(dtypes.float32),
            product_of(p, rest.permute((1, 0)) + bias.reshape((n, 1)), a, 0),
        ]

    check(case, (6, 20, 9), (18, 3, 33), (5, 40, 17))


CONVOLUTIONS = [
    # spatial rank, transposed, stride, padding, dilation, groups
    (1, False, (1,), (0,), (1,), 1),
    (1, False, (2,), (1,), (2,), 1),
    (1, True, (2,), (1,), (1,), 1),
    (1, False, (3,), (2,), (1,), 2),
    (2, False, (1, 1), (1, 1), (1, 1), 1),
    (2, False, (2, 1), (0, 2), (1, 2), 1),
    (2, False, (1, 2), (1, 0), (1, 1), 2),
    (2, True, (2, 1), (1, 0), (1, 1), 1),
    (2, True, (2, 2), (0, 1), (2, 1), 2),
    (3, False, (1, 2, 1), (1, 0, 1), (1, 1, 1), 1),
    (3, True, (2, 1, 1), (0, 1, 0), (1, 1, 1), 1),
]


def convolved(p: Program, what: tuple, batch: int, channels: int, out_channels: int, *size: int) -> list[Value]:
    """A convolution and its gradients."""
    rank, *at = what
    transposed, stride, padding, dilation, groups = at
    attributes = tuple(at)
    size, kernel = size[:rank], (3, 2, 2)[:rank]
    if transposed:
        result = tuple(
            (n - 1) * s - 2 * q + d * (k - 1) + 1
            for n, s, q, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        )
    else:
        result = tuple(
            (n + 2 * q - d * (k - 1) - 1) // s + 1
            for n, s, q, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        )
    channels, out_channels = channels * groups, out_channels * groups
    x = p.normal(batch, channels, *size)
    shape = (channels, out_channels // groups) if transposed else (out_channels, channels // groups)
    weight, bias = p.normal(*shape, *kernel), p.normal(out_channels)
    g = p.normal(batch, out_channels, *result)
    f32 = dtypes.float32
    return [
        p.apply_typed(macros.CONVOLUTION, g.shape, f32, x, weight, bias, attributes=attributes),
        p.apply_typed(macros.CONVOLUTION_INPUT, x.shape, f32, g, weight, attributes=attributes),
        p.apply_typed(macros.CONVOLUTION_WEIGHT, weight.shape, f32, g, x, attributes=attributes),
    ]


@pytest.mark.parametrize("what", CONVOLUTIONS, ids=str)
def test_convolutions_and_their_gradients(what: tuple) -> None:
    def case(p: Program, batch: int, channels: int, out_channels: int, *size: int) -> list[Value]:
        return convolved(p, what, batch, channels, out_channels, *size)

    check(case, (2, 3, 5, 7, 10, 5), (3, 4, 2, 13, 9, 8), (4, 2, 6, 9, 14, 11))
    check(case, (30, 2, 3, 6, 5, 4))


SEPARATE = [
    # spatial, transposed, kernel, stride, padding, dilation, then sizes: batch, groups, channels in and out of each, …
    (1, False, (3,), (1,), (1,), (1,), (2, 3, 1, 1, 50), (3, 2, 1, 1, 131), (1, 5, 1, 1, 9)),
    (2, False, (3, 3), (1, 1), (1, 1), (1, 1), (2, 3, 1, 1, 5, 7), (3, 2, 1, 1, 9, 40), (1, 5, 1, 1, 33, 6)),
    (2, False, (3, 3), (2, 2), (1, 1), (1, 1), (3, 2, 1, 1, 28, 28), (2, 3, 1, 1, 9, 70), (4, 2, 1, 1, 11, 5)),
    (2, False, (5, 4), (1, 3), (2, 0), (2, 1), (1, 2, 1, 2, 12, 19), (2, 3, 1, 2, 20, 38), (3, 2, 1, 2, 9, 40)),
    (2, True, (3, 2), (2, 3), (1, 0), (1, 2), (2, 3, 1, 1, 5, 20), (1, 2, 1, 1, 9, 8), (3, 4, 1, 1, 4, 33)),
    (2, False, (3, 3), (2, 1), (1, 1), (1, 1), (2, 2, 3, 4, 9, 18), (1, 3, 3, 4, 8, 35), (3, 2, 3, 4, 6, 17)),
    (3, False, (3, 3, 3), (2, 1, 2), (1, 1, 1), (1, 1, 1), (1, 2, 1, 1, 5, 6, 20), (2, 3, 1, 1, 4, 5, 9),
     (1, 3, 1, 1, 6, 7, 33)),
    (2, False, (3, 3), (1, 1), (1, 1), (1, 1), (16, 3, 1, 1, 6, 5)),
    (2, False, (3, 3), (1, 1), (1, 1), (1, 1), (2, 1, 2, 1, 50, 50)),
    (2, False, (3, 3), (1, 1), (1, 1), (1, 1), (0, 2, 1, 1, 5, 5)),
]


SIDE_BY_SIDE = [  # as above: windows that lie side by side, transposed or not
    (2, True, (2, 2), (2, 2), (0, 0), (1, 1), (2, 1, 4, 3, 5, 7), (3, 1, 4, 2, 9, 6), (1, 1, 4, 5, 4, 17)),
    (3, True, (1, 2, 3), (1, 2, 3), (0, 0, 0), (1, 1, 1), (2, 1, 8, 3, 2, 5, 3), (1, 1, 8, 2, 3, 4, 6),
     (3, 1, 8, 5, 4, 2, 5)),
    (2, False, (2, 2), (2, 2), (0, 0), (1, 1), (2, 1, 7, 16, 6, 4), (3, 1, 9, 16, 4, 10), (1, 1, 5, 16, 8, 6)),
    (1, True, (4,), (4,), (0,), (1,), (16, 1, 4, 3, 7)),
    (1, True, (3,), (3,), (0,), (1,), (2, 1, 48, 3, 7)),
]


@pytest.mark.parametrize("what", SEPARATE + SIDE_BY_SIDE, ids=str)
def test_convolutions_of_few_channels_a_group_or_windows_side_by_side(what: tuple) -> None:
    spatial, transposed, kernel, stride, padding, dilation, *sizes = what

    def case(p: Program, batch: int, groups: int, inside: int, outside: int, *size: int) -> list[Value]:
        groups = max(groups, 2) if inside == outside == 1 else groups
        axes = list(zip(size, stride, padding, dilation, kernel, strict=True))
        result = tuple((n - 1) * s - 2 * q + d * (k - 1) + 1 if transposed else (n + 2 * q - d * (k - 1) - 1) // s + 1
                       for n, s, q, d, k in axes)
        x, g = p.normal(batch, groups * inside, *size), p.normal(batch, groups * outside, *result)
        first, second = (inside, outside) if transposed else (outside, inside)
        weight = p.normal(groups * first, second, *kernel)
        at, f32 = (transposed, stride, padding, dilation, groups), dtypes.float32
        y = p.apply_typed(macros.CONVOLUTION, g.shape, f32, x, weight, attributes=at)
        return [
            y, (y + 1.0).relu(),
            p.apply_typed(macros.CONVOLUTION_INPUT, x.shape, f32, g, weight, attributes=at),
            p.apply_typed(macros.CONVOLUTION_WEIGHT, weight.shape, f32, g, x, attributes=at),
        ]

    check(case, *sizes)


def test_a_depthwise_convolution_between_others() -> None:
    """Samples fill vectors, so that what lies between convolutions has them innermost; strided, and not."""

    def case(p: Program, batch: int, channels: int, size: int) -> list[Value]:
        f32 = dtypes.float32
        x = p.normal(batch, 2, size, size)
        wide, narrow = p.normal(channels, 2, 1, 1), p.normal(channels, channels, 1, 1)
        point = (False, (1, 1), (0, 0), (1, 1), 1)
        y = p.apply_typed(macros.CONVOLUTION, (batch, channels, size, size), f32, x, wide, attributes=point).relu()
        for stride in (1, 2):
            taps = p.normal(channels, 1, 3, 3)
            at = (False, (stride, stride), (1, 1), (1, 1), channels)
            below, size = y, (size - 1) // stride + 1
            shape = (batch, channels, size, size)
            y = p.apply_typed(macros.CONVOLUTION, shape, f32, y, taps, attributes=at).relu()
            y = p.apply_typed(macros.CONVOLUTION, shape, f32, y, narrow, attributes=point)
        g = y * 0.5
        return [
            y.sum((0, 2, 3)), y,
            p.apply_typed(macros.CONVOLUTION_INPUT, below.shape, f32, g, taps, attributes=at).sum((0, 2)),
            p.apply_typed(macros.CONVOLUTION_WEIGHT, taps.shape, f32, g, below, attributes=at),
        ]

    check(case, (16, 3, 7), (32, 2, 6), (48, 4, 9))
    for size in ((15, 3, 7), (28, 3, 6), (3, 3, 18)):
        check(case, size)


@pytest.fixture
def many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that were always enough to fill vectors are taken to be so."""

    def taken(seen: Sequence[Sequence[int]]) -> Sizes:
        sizes = unify(seen)
        least = {~want: min(column) for want, column in zip(sizes.template, zip(*seen, strict=True), strict=True)}
        return replace(sizes, many=frozenset(n for n, size in least.items() if n >= 0 and size >= MANY))

    realize.forget_plans()
    monkeypatch.setattr(planning, "unify", taken)


@pytest.mark.parametrize("what", [convolution for convolution in CONVOLUTIONS if convolution[-1] == 1], ids=str)
def test_convolutions_of_any_number_of_samples_in_lanes(many_samples: None, what: tuple) -> None:
    def case(p: Program, batch: int) -> list[Value]:
        return convolved(p, what, batch, 2, 5, 6, 4, 3)

    check(case, (18,), (16,), (37,))
    if what[0] == 1:
        check(case, (18,), (300,), (521,))


@pytest.mark.parametrize("kernel", [(3, 3), (5, 2)], ids=str)
def test_convolutions_with_samples_in_lanes(kernel: tuple[int, int]) -> None:
    """Few channels and enough samples to fill vectors: values in between lie with the batch innermost."""

    def case(p: Program, batch: int, channels: int, hidden: int, size: int) -> list[Value]:
        first, second = size - kernel[0] + 1, size - kernel[1] + 1
        at = (False, (1, 1), (0, 0), (1, 1), 1)
        f32 = dtypes.float32
        x, weight, bias = (
            p.normal(batch, channels, size, size),
            p.normal(hidden, channels, *kernel),
            p.normal(hidden),
        )
        y = p.apply_typed(
            macros.CONVOLUTION, (batch, hidden, first, second), f32, x, weight, bias, attributes=at
        )
        pool = ((2, 2), (2, 2), (0, 0), (1, 1))
        pooled = p.apply_typed(
            macros.MAX_POOL, (batch, hidden, first // 2, second // 2), f32, y.relu(), attributes=pool
        )
        flat = pooled.reshape((batch, hidden * (first // 2) * (second // 2)))
        g = y.relu() * 0.5
        return [
            flat + 1.0,
            y.sum((0, 2, 3)),
            p.apply_typed(macros.CONVOLUTION_WEIGHT, weight.shape, f32, g, x, attributes=at),
            p.apply_typed(macros.CONVOLUTION_INPUT, x.shape, f32, g, weight, attributes=at),
        ]

    check(case, (16, 2, 3, 9), (16, 3, 6, 13), (16, 4, 5, 11))
    check(case, (32, 3, 5, 12))
    check(case, (29, 2, 4, 9))  # The last vector reaches back over the one before it.
    check(case, (45, 1, 2, 17))  # More products than a block, in lines that are no whole vectors.


# Windows ----------------------------------------------------------------------------------------------------
POOLS = [
    ((2,), (2,), (0,), (1,)),
    ((3,), (1,), (1,), (1,)),
    ((2, 2), (2, 2), (0, 0), (1, 1)),
    ((3, 2), (2, 1), (1, 0), (1, 2)),
    ((2, 2, 3), (2, 1, 2), (1, 0, 1), (1, 1, 1)),
]


@pytest.mark.parametrize("at", POOLS, ids=str)
def test_pooling(at: tuple) -> None:
    def case(p: Program, lead: int, *size: int) -> list[Value]:
        kernel, stride, padding, dilation = at
        size = size[: len(kernel)]
        out = tuple(
            (n + 2 * q - d * (k - 1) - 1) // s + 1
            for n, s, q, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        )
        x = p.leaf(p.random.integers(-3, 4, (lead, 2, *size)).astype(np.float32))  # with ties
        g = p.normal(lead, 2, *out)
        f32 = dtypes.float32
        tap = p.apply_typed(macros.MAX_POOL_TAP, g.shape, dtypes.int32, x, attributes=at)
        return [
            p.apply_typed(macros.MAX_POOL, g.shape, f32, x, attributes=at),
            tap,
            p.apply_typed(macros.MAX_UNPOOL, x.shape, f32, g, tap, attributes=at),
            p.apply_typed(macros.MAX_PICK, g.shape, f32, x, tap, attributes=at),
            p.apply_typed(macros.WINDOW_SUM, g.shape, f32, x, attributes=at),
            p.apply_typed(macros.WINDOW_SPREAD, x.shape, f32, g, attributes=at),
        ]

    # Windows that tile their axis are read without a window at all, which is another structure.
    check(case, (2, 9, 8, 7), (3, 7, 10, 5), (4, 13, 6, 11))
    check(case, (2, 8, 6, 12), (3, 12, 10, 6), (4, 6, 8, 9))


# Gather and scatter -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d is not dtypes.bool_], ids=str)
def test_gather_and_scatter(dtype: DType) -> None:
    def case(p: Program, n: int, m: int, k: int) -> list[Value]:
        x = p.leaf(
            p.random.integers(0, 9, (n, m, 3)).astype(dtype.numpy) / dtype.numpy.type(1)
            if dtype.is_floating_point
            else p.random.integers(0, 9, (n, m, 3)).astype(dtype.numpy)
        )
        outputs = []
        for axis, size in enumerate((n, m, 3)):
            for kind in (np.int64, np.int32):
                index = p.leaf(p.random.integers(0, size, (k, 2)).astype(kind))
                taken = x.apply(indexing.TAKE, index, attributes=(axis,))
                outputs += [
                    taken,
                    (x * 2).apply(indexing.TAKE, index, attributes=(axis,)) + 1,
                    x.apply(indexing.TAKE_ADD, index, taken + 1, attributes=(axis,)),
                ]
            shape = [n, m, 3]
            shape[axis] = k
            along = p.leaf(p.random.integers(0, size, shape))
            chosen = x.apply(indexing.TAKE_ALONG, along, attributes=(axis,))
            outputs += [chosen, x.apply(indexing.TAKE_ALONG_ADD, along, chosen * chosen, attributes=(axis,))]
        return outputs

    check(case, (4, 5, 6), (7, 3, 18), (2, 20, 5))


@pytest.mark.parametrize("bad", [-1, 5, 1 << 40])
def test_an_index_out_of_range_is_reported(bad: int) -> None:
    p = Program()
    x = p.normal(5, 3)
    index = p.leaf(np.array([0, 4, bad, 2]))
    with pytest.raises(IndexError, match="out of range"):
        p.compiled([x.apply(indexing.TAKE, index, attributes=(0,))])
    with pytest.raises(IndexError, match="out of range"):
        p.compiled([x.apply(indexing.TAKE_ADD, index, p.normal(4, 3), attributes=(0,))])


# Macros -----------------------------------------------------------------------------------------------------
def test_softmax() -> None:
    """Through functions, so near NumPy and equal to themselves."""

    def case(p: Program, n: int, m: int) -> list[Value]:
        x, g = p.normal(n, m), p.normal(n, m)
        soft, log_soft = (
            p.apply(macros.SOFTMAX, x, attributes=(1,)),
            p.apply(macros.LOG_SOFTMAX, x, attributes=(0,)),
        )
        return [
            soft,
            log_soft,
            p.apply(macros.SOFTMAX_BACKWARD, g, soft, attributes=(1,)) + 100.0,
            p.apply(macros.LOG_SOFTMAX_BACKWARD, g, log_soft, attributes=(0,)) + 100.0,
        ]

    check(case, (4, 10), (9, 33), (20, 17), tolerance=16.0)
