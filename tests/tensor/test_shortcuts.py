"""Functions that are recorded by a shortcut record what they recorded the first time, where they are called now."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np
import pytest

import torturous as torch
import torturous.nn.functional as F
from torturous.core.unknowns import Answers
from torturous.ir import elementwise
from torturous.ir.record import context, describe_place
from torturous.runtime.realize import realize
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.shortcuts import shortcut

calls: list[tuple[Any, ...]] = []


def ours(function: Any) -> Any:
    """The function as one of the package, whose lines are not the user's."""
    return FunctionType(function.__code__, {**globals(), "__name__": "torturous.tensor.for_tests"}, function.__name__,
                        function.__defaults__)


@shortcut(operands=2)
@ours
def scaled(a: Any, b: Any, factor: Any, times: Any = 1) -> Any:
    """(a + b) · factor, so many times."""
    calls.append((factor, times))
    result = a if b is None else apply(elementwise.ADD, a, b)
    for _ in range(times):
        result = apply(elementwise.MUL, result, factor)
    return result


@shortcut(operands=1)
@ours
def sum_and_square(a: Any) -> Any:
    calls.append(())
    return apply(elementwise.ADD, a, a), apply(elementwise.MUL, a, a)


@pytest.fixture(autouse=True)
def _begin() -> None:
    realize()
    calls.clear()


def recorded(program: Any) -> tuple[str, list[Any], list[Any]]:
    """The rows, numbers and values that a program records from scratch, twice: they must be the same."""
    seen = []
    for _ in range(2):
        realize()
        results = program()
        record = context.record
        seen.append((str(record), list(record.slots), [t.detach().numpy().tolist() for t in results]))
    assert seen[0] == seen[1]
    return seen[1]


def test_a_call_that_comes_again_is_not_made() -> None:
    x = torch.arange(4.0)
    rows, slots, values = recorded(lambda: [scaled(x, x, 3.0, 2)])
    assert calls == [(3.0, 2)]
    assert slots == [3.0, 3.0] and rows.count("mul") == 2
    assert values == [[0.0, 18.0, 36.0, 54.0]]


def test_options_that_are_equal_are_not_the_same() -> None:
    x = torch.arange(3)
    for factor, dtype in ((2, torch.int64), (2.0, torch.float32), (True, torch.int64), (2, torch.int64)):
        realize()
        result = scaled(x, None, factor, 1)
        assert result.dtype is dtype and result.tolist() == [0, factor, 2 * factor]
    assert len(calls) == 3


def test_zeros_have_signs() -> None:
    x = torch.ones(2)
    for factor in (0.0, -0.0, 0.0, -0.0):
        realize()
        assert np.signbit(scaled(x, None, factor).numpy()).tolist() == [np.signbit(factor)] * 2


def test_operands_are_their_rows() -> None:
    x, y = torch.arange(3.0), torch.ones(3)
    for a, b in ((x, y), (y, x), (x, None), (x, x), (x, y)):
        realize()
        want = 2 * (a.numpy() + (0 if b is None else b.numpy()))
        realize()
        assert np.array_equal(scaled(a, b, 2.0).numpy(), want)


def test_whether_gradients_are_tracked_is_part_of_the_call() -> None:
    x = torch.ones(3, requires_grad=True)
    for _ in range(2):
        realize()
        result = scaled(x, x, 2.0)
        assert result.requires_grad
        with torch.no_grad():
            assert not scaled(x, x, 2.0).requires_grad
        (gradient,) = torch.autograd.grad(result.sum(), x)
        assert gradient.tolist() == [4.0] * 3


def test_rows_belong_to_the_line_of_the_call() -> None:
    x = torch.ones(3)
    realize()

    def places() -> list[str]:
        record = context.record
        return [describe_place(record.place_of(index)) for index in range(1, len(record))]

    first = scaled(x, None, 2.0, 3)
    one = places()
    assert first.tolist() == [8.0] * 3
    realize()
    second = scaled(x, None, 2.0, 3)
    other = places()
    assert second.tolist() == [8.0] * 3 and len(calls) == 1
    assert len(one) == len(other) == 3 and len({*one}) == len({*other}) == 1 and one[0] != other[0]


def test_several_results() -> None:
    x = torch.arange(3.0)
    _, _, values = recorded(lambda: sum_and_square(x))
    assert values == [[0.0, 2.0, 4.0], [0.0, 1.0, 4.0]]
    assert len(calls) == 1


def test_unhashable_options_are_looked_at_each_time() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    for _ in range(2):
        realize()
        assert x.mean([0, 1]).item() == 2.5  # type: ignore[arg-type]
        assert F.layer_norm(x, [3]).shape == (2, 3)


def test_memory_that_others_write_is_read_anew() -> None:
    array = np.zeros(3, np.float32)
    x = torch.from_numpy(array)
    for value in (1.0, 2.0, 3.0):
        array[...] = value
        result = scaled(x, x, 2.0, 2)
        array[...] = 0.0
        assert result.tolist() == [8 * value] * 3


def test_unknown_numbers_stay_unknown() -> None:
    number = Answers().variable(0)
    x = torch.ones(2)
    for _ in range(2):
        realize()
        scaled(x, None, 2.0, 1)
        realize()
        kept = scaled(x, None, number, 1)
        assert context.record.slots[-1] is number
        del kept
        context.renew()


def test_errors_come_again() -> None:
    x, weight = torch.ones(2, 3), torch.ones(4, 3, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="layer_norm"):
            F.layer_norm(x, (2,))
        with pytest.raises(RuntimeError, match="conv1d"):
            F.conv1d(torch.ones(1, 2, 5), weight)
        with pytest.raises(TypeError, match="must be Tensor"):
            F.layer_norm(3, (2,))  # type: ignore[arg-type]


def test_many_rows_are_not_cut_within_a_call() -> None:
    before = torch.ones(2)
    assert isinstance(before, TensorBase)
    record = context.record
    record.urgent, record.room = True, 0
    first, second = sum_and_square(before)
    assert first._record is second._record is record
    realize()
    assert first.tolist() == [2.0, 2.0] and second.tolist() == [1.0, 1.0]
