"""First pass: macros become rows of simpler ops, and rows that nobody wants disappear.

The result is a record again, with concrete sizes; what is symbolic is decided after it, by comparing records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.ir import movement
from torturous.ir.op import OPS, TYPES, Kind
from torturous.ir.record import Record, Row
from torturous.ir.value import Value


@dataclass(frozen=True)
class Expanded:
    """A record without macros; `outputs` are the rows to be stored, in the order they were asked for."""

    record: Record
    outputs: tuple[int, ...]
    leaves: tuple[int, ...]
    """Original indices of the leaf rows, in order of appearance in `record`."""


def wanted_rows(record: Record, outputs: Sequence[int]) -> list[int]:
    """Rows that the outputs depend on, in order."""
    wanted = bytearray(len(record.rows))
    for output in outputs:
        wanted[output] = 1
    for index in range(len(record.rows) - 1, -1, -1):
        if wanted[index]:
            for operand in _read(record.rows[index]):
                if operand >= 0:
                    wanted[operand] = 1
    return [index for index, flag in enumerate(wanted) if flag]


def _read(row: Row) -> Row:
    """The operands whose values a row needs: of some it only has the history."""
    value = STANDS_FOR.get(OPS[row[0]])
    return row[3:] if value is None else row[3 + value:4 + value]


STANDS_FOR = {movement.ALIAS: 0, movement.FUNCTION: 0, movement.REPLACE: 1}
"""Ops whose value is that of one operand, by its position."""


def expand(record: Record, outputs: Sequence[int]) -> Expanded:
    """Expands every macro, keeping only what the outputs need."""
    result = Record()
    result.slots.extend(record.slots)
    new: dict[int, int] = {}
    several: dict[int, list[Value]] = {}
    leaves = []
    for index in wanted_rows(record, outputs):
        number, attributes, type_index, *operands = record.rows[index]
        op = OPS[number]
        place = record.places[index]
        if op.kind is Kind.LEAF:
            leaves.append(index)
        if op in STANDS_FOR:
            new[index] = new[operands[STANDS_FOR[op]]]
            continue
        if op.kind is Kind.ITEM:
            new[index] = several[operands[0]][attributes[0]].index
            continue
        mapped = [new.get(operand, operand) if operand >= 0 else operand for operand in operands]
        if op.kind is Kind.MACRO:
            values = [Value(result, operand, place, False) for operand in mapped]
            assert op.expand is not None
            made = op.expand(TYPES[type_index], attributes, *values)
            if isinstance(made, list):
                several[index] = made
            else:
                new[index] = made.index
        else:
            new[index] = result.append((number, attributes, type_index, *mapped), 0, place)
    nested = any(OPS[row[0]].kind is Kind.MACRO for row in result.rows)
    expanded = Expanded(result, tuple(new[output] for output in outputs), tuple(leaves))
    if not nested:
        return expanded
    # A macro's expansion may use macros in turn.
    again = expand(result, expanded.outputs)
    entered = tuple(leaves[_position(result, leaf)] for leaf in again.leaves)
    return Expanded(again.record, again.outputs, entered)


def _position(record: Record, row: int) -> int:
    """How many leaves come before this leaf row."""
    return sum(1 for other in record.rows[:row] if OPS[other[0]].kind is Kind.LEAF)
