"""Numbers that remember how they were worked out from what is known only later.

A learning rate is an argument of an exported step, and the count of steps lies in its state; what an optimizer makes
of them in Python (Adam's bias corrections) must be made of them there, in the same order, in double precision.

Such a number has no value: it counts as NaN wherever one asks, so that what is done with it other than by arithmetic
cannot go unnoticed. A comparison is answered either way, and the program run once for each answer (`every_way`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Expression = tuple
"""("variable", position), ("number", value), ("single", expression) or (operation, expression, expression)."""
Condition = tuple[str, Expression, Expression]
"""A comparison: lt, le, gt, ge, eq or ne, and what it compares."""
Path = tuple[tuple[Condition, bool], ...]
"""What a program asked, in order, and the answers that it got."""

MOST_WAYS = 32

Result = TypeVar("Result")


class TooManyWaysError(RuntimeError):
    """A program asks so much that there are more than MOST_WAYS ways through it."""


class Answers:
    """The answers to what one run of a program asks: first those given, then yes."""

    def __init__(self, given: Path = ()) -> None:
        self._given = dict(given)
        self._asked: dict[Condition, bool] = {}

    @property
    def path(self) -> Path:
        """What was asked so far."""
        return tuple(self._asked.items())

    def variable(self, position: int) -> Unknown:
        """A number that becomes known later."""
        return _unknown(("variable", position), self)

    def compare(self, operation: str, left: Any, right: Any) -> bool:
        """The answer to a question; asked again, it is the same."""
        a, b = _expression(left), _expression(right)
        if a == b:
            return operation in ("le", "ge", "eq")
        condition = (operation, a, b)
        if len(self._asked) > MOST_WAYS:
            raise TooManyWaysError(f"it compares more than {MOST_WAYS} times")
        return self._asked.setdefault(condition, self._given.get(condition, True))


def every_way(run: Callable[[Answers], Result]) -> Iterator[tuple[Path, Result]]:
    """Runs a program, which must ask the same after the same answers, once for each way through it."""
    pending: list[Path] = [()]
    for _ in range(MOST_WAYS):
        given = pending.pop()
        answers = Answers(given)
        result = run(answers)
        path = answers.path
        pending += [(*path[:place], (path[place][0], False)) for place in range(len(given), len(path))]
        yield path, result
        if not pending:
            return
    raise TooManyWaysError(f"its comparisons lead more than {MOST_WAYS} ways")


class Unknown(float):
    """A float whose arithmetic is recorded, made by `Answers.variable`."""

    expression: Expression
    answers: Answers

    def __add__(self, other: Any) -> Any:
        return self._with("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._with("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._with("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._with("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with("div", other, self)

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        return self._with("pow", self, other)

    def __rpow__(self, other: Any, modulus: None = None) -> Any:
        return self._with("pow", other, self)

    def __neg__(self) -> Unknown:
        return _unknown(("sub", ("number", -0.0), self.expression), self.answers)

    def __lt__(self, other: Any) -> bool:
        return self.answers.compare("lt", self, other)

    def __le__(self, other: Any) -> bool:
        return self.answers.compare("le", self, other)

    def __gt__(self, other: Any) -> bool:
        return self.answers.compare("gt", self, other)

    def __ge__(self, other: Any) -> bool:
        return self.answers.compare("ge", self, other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (int, float)) and self.answers.compare("eq", self, other)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, (int, float)) or self.answers.compare("ne", self, other)

    def __bool__(self) -> bool:
        return self.answers.compare("ne", self, 0.0)

    def __hash__(self) -> int:
        return hash(self.expression)

    def single(self) -> Unknown:
        """The number rounded to float32."""
        return _unknown(("single", self.expression), self.answers)

    def _with(self, operation: str, left: Any, right: Any) -> Any:
        if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            return NotImplemented
        return _unknown((operation, _expression(left), _expression(right)), self.answers)


def single(number: float) -> float:
    """A number rounded to float32."""
    return number.single() if isinstance(number, Unknown) else struct.unpack("f", struct.pack("f", number))[0]


def _expression(number: int | float) -> Expression:
    return number.expression if isinstance(number, Unknown) else ("number", float(number))


def _unknown(expression: Expression, answers: Answers) -> Unknown:
    number = float.__new__(Unknown, "nan")
    number.expression = expression
    number.answers = answers
    return number
