"""The body of a loop's gradient: one walk back over the rows of a body.

The gradient of a loop is a loop that runs the other way. It carries the gradients of the carried values; at each
step it is given slices of the stacked results' gradients and of what the forward steps saved, and stacks the
gradients of the stacked operands. The gradient of a fixed operand is a sum over all steps. Where what is summed is a
contraction, the sum is one contraction over what the steps have stacked, with the steps as its outermost
reduced loop; a sum over axes likewise becomes one with an axis more. That is where most of the time of a recurrent
layer's backward pass would go otherwise. Whatever else is summed is carried.

A `Reversal` says what such a loop is given and where the gradients are found; `ir.loop` records it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from torturous.core.dtypes import Category
from torturous.ir import movement
from torturous.ir.body import BODIES, Body, body_number, close, flowing
from torturous.ir.contraction import CONTRACT, Map, lone
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Type, type_number
from torturous.ir.record import Record, slot_category, slot_ordinal
from torturous.ir.reduction import SUM
from torturous.ir.value import Number, Typed, Value

RECOMPUTED_COST = 1
"""Values that cost no more than this to compute from others that are saved are not saved themselves."""

Source = tuple[str, int]
"""("gradient", of which value), ("value", which value of the forward loop), ("operand", which), ("stack", which result
of the backward loop)."""


@dataclass(frozen=True)
class Contracted:
    """A contraction over all steps of two stacked values."""

    attributes: Attributes
    kind: Type
    left: Source
    right: Source
    after: tuple[tuple[int, Attributes, Type], ...]
    """Movement that follows: op, attributes, type."""


@dataclass(frozen=True)
class Summed:
    """A sum over all steps, and over some axes of each."""

    attributes: Attributes
    of: Source
    after: tuple[tuple[int, Attributes, Type], ...]


@dataclass(frozen=True)
class Final:
    """A carried value of the backward loop, after its last step."""

    which: int


Term = Contracted | Summed | Final | Source


@dataclass(frozen=True)
class Reversal:
    """A backward loop: what it is given and where each forward operand's gradient is found."""

    body: int
    numbers: tuple[Number | None, ...]
    """Literals; None where `copied` says which slot of the forward loop is meant."""
    copied: tuple[int, ...]
    carried: tuple[Source | Type, ...]
    """Where gradients of carried values start: at those of the final values, or (a type) at zeros."""
    stacked: tuple[Source, ...]
    fixed: tuple[Source, ...]
    gradients: tuple[tuple[Term, ...], ...]
    """Per operand of the forward loop, terms to be added up; none where nothing flows."""


@cache
def saving(number: int, needs: tuple[bool, ...]) -> int:
    """The body that besides stacks what a walk back over it reads."""
    body = BODIES[number]
    walk = _Walk(number, needs, (True,) * len(body.results), everything=True)
    walk.run()
    kept: list[int] = []

    def at_hand(row: int) -> bool:
        return row in kept or body.carried <= row < body.leaves

    for row in sorted(walk.read):
        op = OPS[body.rows[row][0]]
        cheap = op.kind is Kind.MOVEMENT or (op.kind is Kind.ELEMENTWISE and op.cost <= RECOMPUTED_COST)
        if row >= body.leaves and cheap and all(o < 0 or at_hand(o) for o in body.rows[row][3:]):
            continue
        if not body.carried <= row < body.leaves:
            kept.append(row)
    results = body.results + tuple(row for row in kept if row not in body.results[body.carried:])
    return body_number(Body(body.rows, body.carried, body.stacked, body.fixed, results, body.slots))


@cache
def reversal(number: int, needs: tuple[bool, ...], given: tuple[bool, ...]) -> Reversal:
    """The backward loop of a body for the operands that need gradients and the values that have been given one."""
    walk = _Walk(number, needs, given, everything=False)
    walk.run()
    return walk.reversal()


def reads(number: int, needs: tuple[bool, ...]) -> tuple[list[int], list[int]]:
    """What the backward loop reads of the forward one at most: operands and values, by their positions."""
    body = BODIES[number]
    found = reversal(number, needs, (True,) * len(body.results))
    sources = [*found.stacked, *found.fixed]
    return (sorted({which for kind, which in sources if kind == "operand"}),
            sorted({which for kind, which in sources if kind == "value"}))


@dataclass(frozen=True)
class _Part:
    """A contribution to one of equal parts of an axis."""

    axis: int
    which: int
    count: int
    value: Value


class _Walk:
    """One walk back. With `everything`, all forward values are at hand, and `read` tells which were asked for."""

    def __init__(self, number: int, needs: tuple[bool, ...], given: tuple[bool, ...], everything: bool) -> None:
        self.body = BODIES[number]
        self.needs = needs
        self.given = given
        self.flow = flowing(number, needs)
        self.everything = everything
        self.read: set[int] = set()
        self.record = Record()
        self.carried: list[int] = []
        self.starts: list[Source | Type] = []
        self.following: list[Value] = []
        self.stacked: dict[Source, Value] = {}
        self.fixed: dict[Source, Value] = {}
        self.stacks: list[Value] = []
        self.copied: dict[int, int] = {}
        """Slots of the record that are slots of the forward loop."""
        self.adjoints: dict[int, list[Value | _Part]] = {}
        self.gradients: list[tuple[Term, ...]] = [()] * self.body.leaves
        self._values: dict[int, Value] = {}

    # What there is to read ----------------------------------------------------------------------------------------
    def _leaf(self, kind: Type) -> Value:
        return Value(self.record, self.record.leaf(type_number(*kind), False), None, False)

    def _entered(self, table: dict[Source, Value], source: Source, kind: Type) -> Value:
        known = table.get(source)
        if known is None:
            known = table[source] = self._leaf(kind)
        return known

    def value(self, row: int) -> Value:
        """A value of the forward step: saved, given to it as well, or computed again from such."""
        known = self._values.get(row)
        if known is None:
            known = self._values[row] = self._value(row)
        return known

    def _value(self, row: int) -> Value:
        body, kind = self.body, self.body.type_of(row)
        if self.everything:
            self.read.add(row)
            return self._leaf(kind)
        if body.carried <= row < body.leaves:
            stacked = row < body.carried + body.stacked
            return self._entered(self.stacked if stacked else self.fixed, ("operand", row), kind)
        if row in body.results[body.carried:]:
            return self._entered(self.stacked, ("value", body.results.index(row, body.carried)), kind)
        assert row >= body.leaves, "a carried value that was not saved"
        number, attributes, type_index, *operands = body.rows[row]
        codes = [self._operand(o).index for o in operands]
        return Value(self.record, self.record.append((number, attributes, type_index, *codes), 0, None), None, False)

    def _operand(self, operand: int) -> Value:
        return self.value(operand) if operand >= 0 else self._slot(operand)

    def _slot(self, code: int) -> Value:
        """A slot of the forward loop, handed over to the backward one."""
        record = self.record
        self.copied[len(record.slots)] = slot_ordinal(code)
        number = (False, 0, 0.0)[slot_category(code)]
        return Value(record, record.slot(number), None, False)

    # The walk -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        body = self.body
        for k in range(body.carried):
            if self.flow[k]:
                adjoint = self._leaf(body.type_of(k))
                self.carried.append(adjoint.index)
                self.starts.append(("gradient", k) if self.given[k] else body.type_of(k))
                self._add(body.results[k], adjoint)
        for j in range(body.carried, len(body.results)):
            row = body.results[j]
            if self.given[j] and self.flow[row]:
                self._add(row, self._entered(self.stacked, ("gradient", j), body.type_of(row)))
        for index in range(len(body.rows) - 1, body.leaves - 1, -1):
            if index in self.adjoints and self.flow[index]:
                self._step(index, self._total(index))
        self._finish()

    def _add(self, row: int, contribution: Value | _Part) -> None:
        if self.flow[row]:
            self.adjoints.setdefault(row, []).append(contribution)

    def _total(self, row: int) -> Value:
        """The sum of all contributions; parts that make up an axis are joined."""
        contributions = self.adjoints.pop(row)
        total: Value | None = None
        parts: dict[tuple[int, int], dict[int, Value]] = {}
        for contribution in contributions:
            if isinstance(contribution, _Part):
                table = parts.setdefault((contribution.axis, contribution.count), {})
                before = table.get(contribution.which)
                table[contribution.which] = contribution.value if before is None else before + contribution.value
            else:
                total = contribution if total is None else total + contribution
        for (axis, count), table in parts.items():
            shape = next(iter(table.values())).shape
            dtype = self.body.type_of(row).dtype
            pieces = [table[n] if n in table else self._zeros(Type(shape, dtype)) for n in range(count)]
            joined = pieces[0].concatenate(axis, *pieces[1:])
            total = joined if total is None else total + joined
        assert total is not None
        return total

    def _zeros(self, kind: Type) -> Value:
        return Typed(self.record, kind).zeros()

    def _step(self, index: int, gradient: Value) -> None:
        """Carries the gradient of one row on to its operands."""
        body = self.body
        number, attributes, _, *operands = body.rows[index]
        op = OPS[number]
        for position, operand in enumerate(operands):
            rule = op.gradients[position] if position < len(op.gradients) else None
            if operand < 0 or rule is None or not self.flow[operand]:
                continue
            if op is movement.PART:
                axis, which, count = attributes
                self._add(operand, _Part(axis, which, count, gradient))
                continue
            shape, dtype = body.type_of(operand)
            if op is movement.CONCATENATE and all(body.type_of(o).shape == shape for o in operands):
                self._add(operand, gradient.part(attributes[0], position, len(operands)).to(dtype))
                continue
            saves = op.saves[position]
            values: list[Any] = [
                self._operand(o) if o < 0 or k in saves else Typed(self.record, body.type_of(o))
                for k, o in enumerate(operands)
            ]
            out: Any = self.value(index) if -1 in saves else Typed(self.record, body.type_of(index))
            self._add(operand, rule(gradient, out, attributes, *values).sum_to(shape).to(dtype))

    # Where gradients end up ---------------------------------------------------------------------------------------
    def _finish(self) -> None:
        body = self.body
        which = 0
        for k in range(body.carried):
            if self.flow[k]:
                self.following.append(self._total(k) if k in self.adjoints else self._zeros(body.type_of(k)))
                self.gradients[k] = (Final(which),)
                which += 1
        for leaf in range(body.carried, body.carried + body.stacked):
            if leaf in self.adjoints:
                self.gradients[leaf] = (self._stacked(self._total(leaf)),)
        for leaf in range(body.carried + body.stacked, body.leaves):
            if leaf in self.adjoints:
                self.gradients[leaf] = self._over_steps(leaf)

    def _over_steps(self, leaf: int) -> tuple[Term, ...]:
        """The gradient of a fixed operand."""
        terms: list[Term] = []
        rest: list[Value | _Part] = []
        for contribution in self.adjoints[leaf]:
            term = self._deferred(contribution) if isinstance(contribution, Value) else None
            if term is None:
                rest.append(contribution)
            else:
                terms.append(term)
        if rest:
            self.adjoints[leaf] = rest
            so_far = self._leaf(self.body.type_of(leaf))
            self.carried.append(so_far.index)
            self.starts.append(self.body.type_of(leaf))
            self.following.append(so_far + self._total(leaf))
            terms.append(Final(len(self.following) - 1))
        return tuple(terms)

    def _deferred(self, contribution: Value) -> Term | None:
        """A contribution as something to be done once, after the last step; None if it is of no such kind."""
        rows = self.record.rows
        index, after = contribution.index, []
        while OPS[rows[index][0]] in (movement.RESHAPE, movement.PERMUTE):
            number, attributes, type_index, operand = rows[index]
            after.append((number, attributes, type_index))
            index = operand
        number, attributes, _, *operands = rows[index]
        kind, op = self.record.type_of(index), OPS[number]
        fixed = {value.index for value in self.fixed.values()}
        movements = tuple((n, at, TYPES[t]) for n, at, t in reversed(after))
        if kind.dtype.category is not Category.FLOATING or any(o in fixed for o in operands):
            return None
        values = [Value(self.record, o, None, False) for o in operands]
        if op is CONTRACT and len(attributes) == 3:
            reduced, *maps = attributes
            rank = len(kind.shape)
            moved = tuple(
                (lone(rank), *(Map(tuple((loop + (loop >= rank), c) for loop, c in terms), offset, divisor)
                               for terms, offset, divisor in operand_maps))
                for operand_maps in maps
            )
            left, right = map(self._stacked, values)
            return Contracted((reduced + 1, *moved), kind, left, right, movements)
        if op is SUM:
            axes, keep = attributes
            if keep:
                return None
            return Summed(((0, *(axis + 1 for axis in axes)), False), self._stacked(values[0]), movements)
        return None

    def _stacked(self, value: Value) -> Source:
        """Where all steps' values of a row of the backward body are found."""
        for source, leaf in self.stacked.items():
            if leaf.index == value.index:
                return source
        for position, known in enumerate(self.stacks):
            if known.index == value.index:
                return "stack", position
        self.stacks.append(value)
        return "stack", len(self.stacks) - 1

    def reversal(self) -> Reversal:
        results = [value.index for value in [*self.following, *self.stacks]]
        stacked, fixed = list(self.stacked), list(self.fixed)
        leaves = [self.carried, [self.stacked[s].index for s in stacked], [self.fixed[s].index for s in fixed]]
        body, slots = close(self.record, leaves, results)
        numbers = [None if ordinal in self.copied else self.record.slots[ordinal] for ordinal in slots]
        copied = [self.copied[ordinal] for ordinal in slots if ordinal in self.copied]
        return Reversal(body, tuple(numbers), tuple(copied), tuple(self.starts), tuple(stacked), tuple(fixed),
                        tuple(self.gradients))
