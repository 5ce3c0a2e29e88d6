"""The body of a loop: a closed tape that is recorded once and repeated.

Its leaves are what it is given at each step: *carried* values, which are what the step before made of them; one
slice each of *stacked* operands; and *fixed* operands, the same at every step. What it makes are the next carried
values and any number of results, which the loop stacks along a new leading axis. See `ir.loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from torturous.core.dtypes import Category
from torturous.core.errors import UnsupportedError
from torturous.ir.op import OPS, TYPES, Kind, Type, type_number
from torturous.ir.record import LEAF, Record, Row, slot_category, slot_code, slot_ordinal
from torturous.ir.value import Number, Value


@dataclass(frozen=True)
class Body:
    """A tape whose first rows are leaves: `carried` values, then `stacked` slices, then `fixed` operands.

    `results` are the rows of the next carried values, then of what is stacked. Slots are numbered in the order in
    which the loop's operands give them.
    """

    rows: tuple[Row, ...]
    carried: int
    stacked: int
    fixed: int
    results: tuple[int, ...]
    slots: int

    @property
    def leaves(self) -> int:
        return self.carried + self.stacked + self.fixed

    def type_of(self, row: int) -> Type:
        return TYPES[self.rows[row][2]]


BODIES: list[Body] = []
_numbers: dict[Body, int] = {}


def body_number(body: Body) -> int:
    """The number under which rows name a body; like types, bodies are few and live as long as the process."""
    number = _numbers.get(body)
    if number is None:
        number = _numbers[body] = len(BODIES)
        BODIES.append(body)
    return number


class Traced(NamedTuple):
    """A body and the Python numbers that it was recorded with, in the order of its slots."""

    body: int
    numbers: tuple[Number, ...]


Step = Callable[[list[Value], list[Value], list[Value]], tuple[Sequence[Value], Sequence[Value]]]
"""`step(carried, slices, fixed)` records one step and gives the next carried values and what is to be stacked."""


def trace(step: Step, carried: Sequence[Type], slices: Sequence[Type], fixed: Sequence[Type]) -> Traced:
    """The body that a function records, given values of these types.

    RuntimeError where a carried value changes its type, UnsupportedError for a loop within a loop.
    """
    record = Record()
    groups = [
        [Value(record, record.leaf(type_number(*kind), False), None, False) for kind in kinds]
        for kinds in (carried, slices, fixed)
    ]
    following, stacked = step(*groups)
    for position, (before, after) in enumerate(zip(carried, following, strict=True)):
        if after.type != before:
            raise RuntimeError(
                f"loop: carried value {position} is {before} before a step and {after.type} after it; a step must "
                "keep its type")
    body, slots = close(record, [[value.index for value in group] for group in groups],
                        [value.index for value in [*following, *stacked]])
    return Traced(body, tuple(record.slots[ordinal] for ordinal in slots))


def close(record: Record, leaves: Sequence[Sequence[int]], results: Sequence[int]) -> tuple[int, list[int]]:
    """The body made of what some rows of a record need, and the record's slots that it reads, in its order."""
    needed = bytearray(len(record.rows))
    for row in results:
        needed[row] = 1
    for index in range(len(record.rows) - 1, -1, -1):
        if needed[index]:
            for operand in record.rows[index][3:]:
                if operand >= 0:
                    needed[operand] = 1
    first = [row for group in leaves for row in group]
    order = [*first, *(row for row, flag in enumerate(needed) if flag and row not in set(first))]
    new = {row: position for position, row in enumerate(order)}
    slots: dict[int, int] = {}
    rows: list[Row] = []
    for index in order:
        number, attributes, type_index, *operands = record.rows[index]
        if OPS[number].kind in (Kind.LOOP, Kind.ITEM):
            raise UnsupportedError("loop: a loop (or a macro of several values) within a loop is not supported")
        if number == LEAF.number and index not in first:
            raise UnsupportedError("loop: a step reads a value that it was not given; pass it as a fixed operand")
        codes = [
            new[o] if o >= 0 else slot_code(slots.setdefault(slot_ordinal(o), len(slots)), slot_category(o))
            for o in operands
        ]
        rows.append((number, attributes, type_index, *codes))
    carried, stacked, fixed = map(len, leaves)
    body = Body(tuple(rows), carried, stacked, fixed, tuple(new[row] for row in results), len(slots))
    return body_number(body), list(slots)


# Which values gradients flow through --------------------------------------------------------------------------
@cache
def flowing(number: int, needs: tuple[bool, ...]) -> tuple[bool, ...]:
    """Per row of a body, whether gradients flow through it if they do through these of its leaves.

    A carried value is reached through where it starts or through what a step makes of it.
    """
    body = BODIES[number]
    flow = [False] * len(body.rows)
    flow[:body.leaves] = needs
    while True:
        for index in range(body.leaves, len(body.rows)):
            op, out = OPS[body.rows[index][0]], body.type_of(index)
            flow[index] = bool(op.gradients) and out.dtype.category is Category.FLOATING and any(
                flow[o] for o in body.rows[index][3:] if o >= 0)
        again = [k for k in range(body.carried) if flow[body.results[k]] and not flow[k]]
        if not again:
            return tuple(flow)
        for k in again:
            flow[k] = True
