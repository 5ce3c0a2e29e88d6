"""Numbers that remember how they were worked out from what is known only when a library runs.

A learning rate is an argument of an exported step, and the count of steps lies in its state; what an optimizer makes
of them in Python (Adam's bias corrections) must be made of them there, in the same order, in double precision.
"""

from __future__ import annotations

from typing import Any

Expression = tuple
"""("variable", position), ("number", value) or (operation, expression, expression)."""


class Traced(float):
    """A float whose arithmetic is recorded. It counts as its value wherever one asks."""

    expression: Expression

    @staticmethod
    def variable(position: int, value: float) -> Traced:
        return _traced(value, ("variable", position))

    def __add__(self, other: Any) -> Any:
        return _binary("add", self, other, float(self) + other)

    def __radd__(self, other: Any) -> Any:
        return _binary("add", other, self, other + float(self))

    def __sub__(self, other: Any) -> Any:
        return _binary("sub", self, other, float(self) - other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("sub", other, self, other - float(self))

    def __mul__(self, other: Any) -> Any:
        return _binary("mul", self, other, float(self) * other)

    def __rmul__(self, other: Any) -> Any:
        return _binary("mul", other, self, other * float(self))

    def __truediv__(self, other: Any) -> Any:
        return _binary("div", self, other, float(self) / other)

    def __rtruediv__(self, other: Any) -> Any:
        return _binary("div", other, self, other / float(self))

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        return _binary("pow", self, other, float(self) ** other)

    def __rpow__(self, other: Any, modulus: None = None) -> Any:
        return _binary("pow", other, self, other ** float(self))

    def __neg__(self) -> Traced:
        return _traced(-float(self), ("sub", ("number", -0.0), self.expression))

    def __float__(self) -> float:
        return float.__add__(self, 0.0)


def _binary(operation: str, a: Any, b: Any, value: Any) -> Any:
    if not isinstance(a, (int, float)) or not isinstance(b, (int, float)):
        return NotImplemented
    return _traced(value, (operation, _expression(a), _expression(b)))


def _expression(number: int | float) -> Expression:
    return number.expression if isinstance(number, Traced) else ("number", float(number))


def _traced(value: float, expression: Expression) -> Traced:
    number = float.__new__(Traced, value)
    number.expression = expression
    return number
