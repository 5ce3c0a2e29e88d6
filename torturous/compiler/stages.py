"""The passes of a reduction's kernel over each row: what needs a finished reduction waits for the next pass.

Softmax goes through a row three times: for the maximum, for the sum of the exponentials, for the quotients. Rows lie
in cache meanwhile. What was costly to compute in one pass and is wanted in a later one is held in scratch memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torturous.compiler.kernel import (
    Accumulated,
    Choose,
    Compute,
    DataPosition,
    Derived,
    Digit,
    Expression,
    Kernel,
    Load,
    Position,
    Quotient,
    Store,
)
from torturous.compiler.schedule import children
from torturous.compiler.sizes import Affine
from torturous.ir.op import Kind

HELD_COST = 6
"""A value of at least this cost (see `Op.cost`) is held rather than computed again."""


@dataclass(eq=False)
class Stage:
    """One pass over the reduced loops."""

    accumulators: list[int] = field(default_factory=list)
    """Those it feeds, by number."""
    stores: list[Store] = field(default_factory=list)
    """What it stores at every point."""
    held: list[Expression] = field(default_factory=list)
    """What it computes for later passes too."""
    recalled: list[Expression] = field(default_factory=list)
    """What earlier passes have held for it."""


class Staging:
    """A kernel's stages, and what they tell of its expressions."""

    def __init__(self, kernel: Kernel, apart: bool = False) -> None:
        """With `apart`, what is stored inside the loops is left to a last pass, and nothing is held."""
        self.kernel = kernel
        self._ready: dict[int, int] = {}
        self._varies: dict[int, bool] = {}
        self._cost: dict[int, int] = {}
        self._loads: dict[Stage, set[Load]] = {}
        self._stage_of: list[int] = []
        for accumulator in kernel.accumulators:
            self._stage_of.append(self.ready(accumulator.expression))
        inside = [store for store in kernel.stores if store.inside]
        count = 1 + max([*self._stage_of, *(self.ready(store.expression) for store in inside)], default=0)
        self.stages = [Stage() for _ in range(count)]
        for number, stage in enumerate(self._stage_of):
            self.stages[stage].accumulators.append(number)
        if apart and inside:
            self.stages = [stage for stage in self.stages if stage.accumulators]
            self.stages.append(Stage(stores=inside))
            return
        for store in inside:
            self.stages[self.ready(store.expression)].stores.append(store)
        if not apart:
            self._hold()

    def roots(self, stage: Stage) -> list[Expression]:
        """What a stage evaluates at every point."""
        accumulators = [self.kernel.accumulators[number].expression for number in stage.accumulators]
        return accumulators + [store.expression for store in stage.stores]

    def is_read(self, load: Load, stage: Stage) -> bool:
        """Whether a stage evaluates a load."""
        loads = self._loads.get(stage)
        if loads is None:
            loads = self._loads[stage] = set()
            pending, seen = list(self.roots(stage)), set()
            while pending:
                expression = pending.pop()
                if id(expression) not in seen:
                    seen.add(id(expression))
                    pending += self.parts(expression)
                    if isinstance(expression, Load):
                        loads.add(expression)
        return load in loads

    def ready(self, expression: Expression) -> int:
        """The first stage in which an expression can be evaluated."""
        known = self._ready.get(id(expression))
        if known is None:
            if isinstance(expression, Accumulated):
                known = self._stage_of[expression.index] + 1
            else:
                known = max(map(self.ready, self.parts(expression)), default=0)
            self._ready[id(expression)] = known
        return known

    def varies(self, expression: Expression) -> bool:
        """Whether an expression differs from point to point of the reduced loops."""
        known = self._varies.get(id(expression))
        if known is None:
            affines = _affines(expression)
            known = any(map(self._steps, affines)) or any(map(self.varies, self.parts(expression)))
            self._varies[id(expression)] = known
        return known

    def _steps(self, affine: Affine) -> bool:
        """Whether a position moves with a reduced loop; what it takes from data is looked at with its parts."""
        first = len(self.kernel.axes)
        for axis in affine.terms:
            if axis >= first:
                return True
            if axis < 0:
                derived = self.kernel.derived[~axis]
                if isinstance(derived, (Quotient, Digit)) and self._steps(derived.affine):
                    return True
        return False

    def parts(self, expression: Expression) -> Iterator[Expression]:
        """What an expression is computed from, positions read from data included."""
        yield from children(expression)
        for affine in _affines(expression):
            yield from self._data(affine)

    def _data(self, affine: Affine) -> Iterator[Expression]:
        for axis in affine.terms:
            if axis < 0:
                derived: Derived = self.kernel.derived[~axis]
                if isinstance(derived, DataPosition):
                    yield derived.expression
                elif isinstance(derived, (Quotient, Digit)):
                    yield from self._data(derived.affine)

    def _hold(self) -> None:
        """Decides what is held from one pass for another."""
        first: dict[int, int] = {}
        for number, stage in enumerate(self.stages):
            pending = self.roots(stage)
            visited: set[int] = set()
            while pending:
                expression = pending.pop()
                key = id(expression)
                if key in visited or not self.varies(expression):
                    continue
                visited.add(key)
                if first.get(key, number) < number and self.costs(expression) >= HELD_COST:
                    source = self.stages[first[key]]
                    if not any(expression is held for held in source.held):
                        source.held.append(expression)
                    stage.recalled.append(expression)
                    continue
                first.setdefault(key, number)
                pending += self.parts(expression)

    def costs(self, expression: Expression) -> int:
        """Machine operations to compute an expression at one point, roughly."""
        known = self._cost.get(id(expression))
        if known is None:
            if not self.varies(expression):
                known = 0
            else:
                own = 1
                if isinstance(expression, Compute) and expression.op.kind is Kind.ELEMENTWISE:
                    own = expression.op.cost
                known = own + sum(map(self.costs, self.parts(expression)))
            self._cost[id(expression)] = known
        return known


def _affines(expression: Expression) -> list[Affine]:
    """The positions that an expression itself names."""
    match expression:
        case Load(_, _, address, guards):
            return [address, *(guard.position for guard in guards)]
        case Position(_, affine):
            return [affine]
        case Choose(_, guards):
            return [guard.position for guard in guards]
    return []
