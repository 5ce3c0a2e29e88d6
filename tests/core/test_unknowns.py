"""Numbers that are known only later: their formulas, and every way through what is asked of them."""
from __future__ import annotations

import math
import struct

import pytest

from torturous.core.unknowns import Answers, TooManyWaysError, Unknown, every_way, single


def test_arithmetic_is_written_down() -> None:
    x, y = (Answers().variable(position) for position in (0, 1))
    a, b = ("variable", 0), ("variable", 1)
    assert (x + y).expression == ("add", a, b)
    assert (1 - 2 * x).expression == ("sub", ("number", 1.0), ("mul", ("number", 2.0), a))
    assert (-(x / 3) ** 2).expression == (
        "sub", ("number", -0.0), ("pow", ("div", a, ("number", 3.0)), ("number", 2.0)))
    assert (0.9 ** x).expression == ("pow", ("number", 0.9), a)
    assert single(x).expression == ("single", a)  # type: ignore[attr-defined]
    assert single(0.1) == struct.unpack("f", struct.pack("f", 0.1))[0] != 0.1


def test_it_has_no_value() -> None:
    x = Answers().variable(0)
    assert isinstance(x, float) and math.isnan(float(x * 2)) and math.isnan(math.sqrt(x))
    with pytest.raises(ValueError, match="NaN"):
        int(x)
    with pytest.raises(TypeError):
        x + "1"  # type: ignore[operator]


def test_every_way_is_taken_once() -> None:
    def program(answers: Answers) -> str:
        x, y = answers.variable(0), answers.variable(1)
        if x <= 5.0:
            return "small" if x <= 5.0 else "never"  # What was asked before has the same answer.
        if x + 0.0 != y:
            return "far" if max(1, y) == 1 else "near"
        return "same"

    ways = {result: path for path, result in every_way(program)}
    assert set(ways) == {"small", "far", "near", "same"}
    small = ("le", ("variable", 0), ("number", 5.0))
    assert ways["small"] == ((small, True),)
    assert [answer for _, answer in ways["same"]] == [False, False]
    assert ways["near"][0] == (small, False) and len(ways["near"]) == 4


def test_the_same_number_is_itself() -> None:
    answers = Answers()
    x, again = answers.variable(0) + 1, answers.variable(0) + 1
    assert x == again and {x, again} == {x} and not x < again and x <= again and not x != again
    assert answers.path == ()
    assert x and answers.path == ((("ne", x.expression, ("number", 0.0)), True),)
    assert x != "x" and not x == "x"


def test_ways_have_an_end() -> None:
    def long(answers: Answers) -> None:
        x: Unknown = answers.variable(0)
        while x > 0:
            x = x - 1

    def wide(answers: Answers) -> None:
        for position in range(6):
            bool(answers.variable(position))

    for program in (long, wide):
        with pytest.raises(TooManyWaysError):
            list(every_way(program))
