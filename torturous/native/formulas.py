"""Numbers that are worked out when a library runs (`core.unknowns`), as instructions."""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.builder import Builder
from torturous.codegen.emitter import literal
from torturous.core import dtypes
from torturous.core.unknowns import Condition, Expression

_COMPARES = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


class Formulas:
    """Writes expressions over doubles that lie one after the other in memory, in the order in which Python works them
    out. `power` is the symbol of a function double (double, double)."""

    def __init__(self, b: Builder, variables: Callable[[], str], power: str) -> None:
        self.b = b
        self.variables = variables
        self.power = power

    def value(self, expression: Expression) -> str:
        """Writes what works out an expression, a double."""
        b = self.b
        kind, *parts = expression
        if kind == "number":
            return literal(dtypes.float64, parts[0])
        if kind == "variable":
            return b.load("double", b.offset(self.variables(), 8 * parts[0]), 8)
        values = [self.value(part) for part in parts]
        if kind == "single":
            return b.value(f"fpext float {b.value(f'fptrunc double {values[0]} to float')} to double")
        if kind == "pow":
            return b.value(f"call double @{self.power}(double {values[0]}, double {values[1]})")
        return b.value(f"f{kind} double {values[0]}, {values[1]}")

    def holds(self, condition: Condition) -> str:
        """Writes a comparison; gives the answer, an i1."""
        operation, left, right = condition
        return self.b.value(f"fcmp {_COMPARES[operation]} double {self.value(left)}, {self.value(right)}")
