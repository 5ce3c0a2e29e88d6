"""Elementwise operations against PyTorch: a table of operations × dtypes × kinds of operands."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor.against_torch import DTYPES, FLOATS, Pair, attempt, check, check_all, sample, values

import torturous

UNARY = """
    neg abs sign exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan sinh cosh tanh
    asin acos atan asinh acosh atanh
    sigmoid erf floor ceil round trunc frac relu isnan isinf isfinite logical_not bitwise_not positive sgn
    """.split()
BINARY = """
    add sub mul div floor_divide remainder fmod pow maximum minimum eq ne lt le gt ge logical_and logical_or
    logical_xor bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift clamp_min clamp_max atan2
    """.split()
OPERATORS = [getattr(operator, name) for name in """
    add sub mul truediv floordiv mod pow eq ne lt le gt ge and_ or_ xor lshift rshift
    """.split()]
PROMOTING = """
    add div floor_divide fmod pow maximum lt logical_and bitwise_xor bitwise_left_shift clamp_min
    """.split()
"""One of each way to find the type of a result, for operands of different dtypes."""
SHAPES = {
    "same": ((3, 5), (3, 5)), "broadcast": ((3, 1, 5), (4, 1)), "empty": ((3, 0), (1, 1)), "0-d": ((), ()),
    "0-d right": ((3, 5), ()), "0-d left": ((), (3, 5)),
}


def nonzero(array: np.ndarray) -> np.ndarray:
    """Without zeros: an integer divisor of zero is an error of its own."""
    return np.where(array == 0, np.ones_like(array), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unary(dtype):
    outcomes = []
    views = (((3, 5), None), ((), None), ((0, 2), None), ((4, 6), lambda t: t[1:, ::2].transpose(0, 1)))
    for shape, view in views:
        x = Pair(sample(shape, dtype), dtype, view=view)
        for name in UNARY:
            mine = attempt(getattr(torturous, name), x.mine)
            theirs = attempt(getattr(torch, name), x.theirs)
            outcomes.append((f"{name} {shape}", mine, theirs))
    check_all(outcomes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", ["same", "bool", "int64", "float16", -1, 2.5, True])
def test_binary(dtype, other):
    outcomes = []
    mixed = ["same", "0-d left", "0-d right"] if isinstance(other, str) else ["same"]
    kinds = list(SHAPES) if other == "same" else mixed
    for kind in kinds:
        shape, other_shape = SHAPES[kind]
        x = Pair(sample(shape, dtype, 1), dtype)
        if isinstance(other, str):
            wanted = dtype if other == "same" else other
            y = Pair(nonzero(sample(other_shape, wanted, 2)), wanted)
        else:
            y = None
        for name in BINARY if other == "same" else PROMOTING:
            if name == "pow" and dtype not in FLOATS and other in ("same", "int64"):
                continue  # Negative powers of integers: see below.
            if name == "pow" and dtype == "bool" and other == -1:
                continue
            right = (y.mine, y.theirs) if y else (other, other)
            mine = attempt(getattr(torturous, name), x.mine, right[0])
            theirs = attempt(getattr(torch, name), x.theirs, right[1])
            outcomes.append((f"{name} {kind}", mine, theirs))
    check_all(outcomes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_with_numbers_on_either_side(dtype):
    x = Pair(nonzero(sample((7,), dtype, 3)), dtype)
    outcomes = []
    for function in OPERATORS:
        for number in (3, 2.5, True):
            if function is operator.pow and (number is True or dtype == "bool"):
                continue
            for label, swap in (("t·n", False), ("n·t", True)):
                mine, theirs = (attempt(function, *((number, t) if swap else (t, number)))
                                for t in (x.mine, x.theirs))
                outcomes.append((f"{function.__name__} {number} {label}", mine, theirs))
    for function in (operator.neg, operator.pos, operator.abs, operator.invert):
        outcomes.append((function.__name__, *(attempt(function, t) for t in (x.mine, x.theirs))))
    check_all(outcomes)


NO_GRADIENT = ("is", "logical", "bitwise", "positive", "sgn")
GRADIENT_UNARY = [name for name in UNARY if not name.startswith(NO_GRADIENT)]
SMALL = {"log1p", "asin", "acos", "atanh"}
POSITIVE = {"log", "log2", "log10", "sqrt", "rsqrt", "reciprocal"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_unary_gradients(dtype):
    weight = Pair(sample((3, 5), "float32", 9), dtype)
    outcomes, pairs = [], []
    totals: list[Any] = [0, 0]
    for name in GRADIENT_UNARY:
        array = sample((3, 5), dtype, 4)
        array = abs(array) + 0.25 if name in POSITIVE else array / 4 if name in SMALL else array
        array = abs(array) + 1.25 if name == "acosh" else array
        x = Pair(array, dtype, requires_grad=True)
        for k, (t, w) in enumerate(((x.mine, weight.mine), (x.theirs, weight.theirs))):
            totals[k] = totals[k] + (getattr(t, name)() * w).sum()
        pairs.append((name, x))
    for total in totals:
        total.backward()
    for name, x in pairs:
        outcomes.append((name, x.mine.grad, x.theirs.grad))
    check_all(outcomes)


GRADIENT_BINARY = {
    "add": lambda lib, a, b: lib.add(a, b, alpha=2), "sub": lambda lib, a, b: lib.sub(a, b, alpha=0.5),
    "mul": lambda lib, a, b: a * b, "div": lambda lib, a, b: a / b, "remainder": lambda lib, a, b: a % b,
    "fmod": lambda lib, a, b: lib.fmod(a, b), "pow": lambda lib, a, b: a.abs() ** b,
    "floor": lambda lib, a, b: lib.div(a, b, rounding_mode="floor") + a,
    "trunc": lambda lib, a, b: lib.div(a, b, rounding_mode="trunc") + b,
    "maximum": lambda lib, a, b: lib.maximum(a, b), "minimum": lambda lib, a, b: lib.minimum(a, b),
    "clamp": lambda lib, a, b: lib.clamp(a, -1, 1) + lib.clamp(a, min=b) + lib.clamp(b, max=a),
    "where": lambda lib, a, b: lib.where(a > 0, a, b * 2), "lerp": lambda lib, a, b: lib.lerp(a, a * 2, b),
    "lerp number": lambda lib, a, b: lib.lerp(a, a * b, 0.75) + a.lerp(a * b, 0.25),
    "addcmul": lambda lib, a, b: lib.addcmul(a, a, b, value=0.5),
    "addcdiv": lambda lib, a, b: lib.addcdiv(a, a, b, value=0.5),
    "masked_fill": lambda lib, a, b: a.masked_fill(b > 0, 3.0) * b,
    "whole powers": lambda lib, a, b: a ** 2 + a ** 3 + a ** 1 + a ** 0 + b ** -1 + 2 ** a,
    "roots": lambda lib, a, b: b.abs() ** 0.5 + b.abs() ** -0.5 + a * 1,
}


@pytest.mark.parametrize("shapes", [((3, 5), (3, 5)), ((3, 1, 5), (4, 1)), ((), (2, 3))], ids=str)
def test_binary_gradients(shapes):
    totals: list[Any] = [0, 0]
    pairs = []
    for name, function in GRADIENT_BINARY.items():
        arrays = [nonzero(sample(shape, "float64", seed)) for seed, shape in enumerate(shapes)]
        x, y = (Pair(array, "float64", requires_grad=True) for array in arrays)
        for k, (library, a, b) in enumerate(((torturous, x.mine, y.mine), (torch, x.theirs, y.theirs))):
            totals[k] = totals[k] + (function(library, a, b) * 1.5).sum()
        pairs.append((name, x, y))
    for total in totals:
        total.backward()
    check_all([(f"{name} {which}", p.mine.grad, p.theirs.grad) for name, x, y in pairs
               for which, p in (("first", x), ("second", y))])


IN_PLACE = {
    "add_": (2,), "sub_": (2,), "mul_": (3,), "div_": (2,), "floor_divide_": (2,), "remainder_": (2,),
    "fmod_": (2,), "pow_": (2,), "clamp_": (0, 1), "fill_": (2.5,), "eq_": (1,), "lt_": (1.5,),
    **dict.fromkeys("""
        neg_ abs_ exp_ log1p_ sqrt_ zero_ relu_ sigmoid_ tanh_ floor_ round_ sign_ square_
        logical_not_ reciprocal_
        """.split(), ()),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_place(dtype):
    outcomes = []
    for name, arguments in IN_PLACE.items():
        x = Pair(abs(sample((4, 6), dtype, 5)), dtype)
        mine, theirs = (attempt(getattr(t[1:3], name), *arguments) for t in (x.mine, x.theirs))
        outcomes += [(name, mine, theirs), (f"base of {name}", x.mine, x.theirs)]
    check_all(outcomes)


@pytest.mark.parametrize("dtype", ["int64", "float16", "float32"])
@pytest.mark.parametrize("other", ["bool", "int64", "float32", "float64"])
def test_in_place_with_tensors(dtype, other):
    outcomes = []
    for name in "add_ sub_ mul_ div_ copy_ addcmul_ addcdiv_ lerp_ masked_fill_ pow_".split():
        x, y = Pair(sample((3, 4), dtype, 6), dtype), Pair(abs(nonzero(sample((4,), other, 7))), other)
        results = []
        for t, u in ((x.mine, y.mine), (x.theirs, y.theirs)):
            special = {"addcmul_": (u, u), "addcdiv_": (u, u), "lerp_": (u, 0.25), "masked_fill_": (u, 2)}
            more = special.get(name, (u,))
            results.append(attempt(getattr(t, name), *more))
        outcomes += [(name, *results), (f"{name} target", x.mine, x.theirs)]
    check_all(outcomes)


def test_in_place_returns_self_and_rejects_wrong_shapes():
    x = torturous.ones(3)
    assert x.add_(1) is x and x.mul_(2).exp_() is x and x.clamp_(0, 1) is x
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        x.add_(torturous.ones(2, 3))
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        torturous.ones(3, dtype=torturous.int64).mul_(1.5)
    x += 1
    x *= 2
    x -= 0.5
    x /= 2
    np.testing.assert_allclose(x.numpy(), [1.75] * 3)


@pytest.mark.parametrize("expression", [
    "t([1]) // 0", "t([1]) % 0", "lib.fmod(t([1]), 0)", "lib.div(t([1]), t([0]), rounding_mode='trunc')",
    "t([2]) ** -1", "1 // t([0, 1])", "lib.add(t([1]), t([1]), alpha=0.5)",
    "lib.add(t([1.0]), 1, alpha=True)", "t([1]) - True", "lib.isclose(t([1.0]), t([1]))",
    "t([1]).masked_fill(t([1]), 2)", "t([1.0]).masked_fill(t([True]), t([2.0]))", "lib.where(t([1]), 1, 2)",
    "lib.where(t([True]), 'a', 2)", "t([1.0]).clamp()", "lib.eq(t([1]), 'a')", "lib.maximum(t([1]), 2)",
    "lib.div(t([1]), 2, rounding_mode='up')", "lib.lerp(t([1.0]), t([2]), 0.5)", "~t([1.0])", "t([1.0]) & 1",
    "t([1.0]) << 1", "lib.exp(1.0)", "t([1.0]) + None", "t([1.0]) + 'a'",
    "t([1.0, 2.0]) + t([1.0, 2.0, 3.0])", "lib.logical_and(t([1]), True)", "lib.round(t([125]), decimals=-1)",
    "lib.addcdiv(t([1]), t([1]), t([1]))", "lib.isclose(t([1.0]), t([1.0]), rtol=-1)",
])
def test_errors(expression):
    mine, theirs = (attempt(eval, expression, {"lib": library, "t": library.tensor})
                    for library in (torturous, torch))
    assert isinstance(theirs, Exception)
    check(mine, theirs, expression)


@pytest.mark.parametrize("expression", [
    "t([2]) ** t([-1])", "lib.add(2, t([1]))", "lib.mul(2.5, t([1]))", "lib.sub(2, t([1.0]))",
    "lib.pow(2, t([1.0, 3]))", "lib.where(t([True, False]), 1, 2.5)", "lib.where(t([True, False]), 1, 0)",
    "lib.round(t([1.25, 0.375]), decimals=1)", "t([1, 2]).masked_fill(t([True, False]), 2.5)",
    "t([1, 2]).masked_fill(t([True, False]), t(2.5))", "t([1.0]) == None",
    "t([1.0, math.nan, math.inf]).isclose(t([1.0, math.nan, math.inf]))",
    "t([1.0, math.nan]).isclose(t([1.0 + 1e-7, math.nan]), equal_nan=True)",
    "lib.allclose(t([1.0]), t([1.0001]))", "lib.equal(t([1, 2]), t([1, 2]))",
    "lib.equal(t([1, 2]), t([1, 2, 3]))", "t([1]).isclose(t([2]), rtol=1.0)",
    "lib.clamp(t([1, 2]), min=t([1.5]))", "lib.clamp(t([True]), 0, 1)", "lib.rsub(t([1.0, 2.0]), 1, alpha=2)",
    "lib.clamp(t([1.0, math.nan]), 2, 1)", "t([3, -3]) >> 1", "t([3, -3]) << 70", "t([3, -3]) >> 70",
    "t([1.0]) * np.float32(2)", "t([1]) * np.int64(2)", "t([1.0, 2.0]) + np.ones(2)", "lib.square(t([True]))",
])
def test_particular_results(expression):
    mine, theirs = (attempt(eval, expression, {"lib": library, "t": library.tensor, "math": math, "np": np})
                    for library in (torturous, torch))
    assert not isinstance(theirs, Exception)
    check(mine, theirs, expression)


SPECIAL = [
    0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-40, 1e30, -1e30, 88.8, -88.8, 89.2, 0.5, 1e-8,
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_numbers(dtype):
    left, right = (np.array(part) for part in zip(*[(a, b) for a in SPECIAL for b in SPECIAL], strict=True))
    x, y, z = Pair(left, dtype), Pair(right, dtype), Pair(np.array(SPECIAL), dtype)
    outcomes = [(name, getattr(z.mine, name)(), getattr(z.theirs, name)()) for name in UNARY
                if name not in ("bitwise_not", "positive", "sgn", "sin", "cos", "tan")]
    for name in ("add", "mul", "div", "maximum", "minimum", "eq", "lt", "ge"):
        outcomes.append((name, getattr(x.mine, name)(y.mine), getattr(x.theirs, name)(y.theirs)))
    check_all(outcomes)
    with np.errstate(all="ignore"):  # PyTorch's own fmod gives NaN where the quotient overflows.
        exact = np.fmod(*[side.astype(dtype) for side in (left, right)])
    np.testing.assert_array_equal(x.mine.fmod(y.mine).numpy(), exact)
    for label, mine, theirs in outcomes:
        a, b = values(mine), values(theirs)
        if a.dtype.kind == "f" and label != "relu":
            zeros = (a == 0) & (b == 0)
            assert (np.signbit(a[zeros]) == np.signbit(b[zeros])).all(), f"{label}: signs of zeros"


INTEGERS = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=25)
@given(INTEGERS, INTEGERS, st.sampled_from(["int64", "int32", "uint8"]))
def test_integer_division_follows_python(a, b, dtype):
    info = torturous.iinfo(getattr(torturous, dtype))
    a, b = (info.min + (n - info.min) % (info.max - info.min + 1) for n in (a, b))
    if b == 0 or (a, b) == (info.min, -1):
        return
    # Tensors of one shape in every example, so that they all share one plan.
    x, y = (torturous.tensor([n], dtype=getattr(torturous, dtype)) for n in (a, b))
    results = [x // y, x % y, torturous.div(x, y, rounding_mode="trunc"), torturous.fmod(x, y)]
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    assert [r.item() for r in results] == [a // b, a % b, quotient, a - quotient * b]


def test_halves_are_rounded_once_per_operation():
    for dtype in FLOATS[:2]:
        x = Pair(sample((257,), dtype, 11) * 0.37, dtype)
        check((x.mine * 3 + 1) / 7, (x.theirs * 3 + 1) / 7, dtype, tolerance=0.0)
