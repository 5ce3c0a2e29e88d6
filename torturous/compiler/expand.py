"""First pass: macros become rows of simpler ops, and rows that nobody wants disappear.

The result is a record again, with concrete sizes; what is symbolic is decided after it, by comparing records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.compiler.macro import expansion
from torturous.ir import movement
from torturous.ir.body import BODIES, Body
from torturous.ir.listing import Listing
from torturous.ir.loop import INPUT, REPEAT
from torturous.ir.op import OPS, TYPES, Attributes, Kind, type_number
from torturous.ir.record import ITEM, LEAF, Place, Record, Row, slot_category, slot_code, slot_ordinal
from torturous.ir.value import Value


@dataclass(frozen=True)
class Expanded:
    """A record without macros; `outputs` are the rows to be stored, in the order they were asked for."""

    record: Record
    outputs: tuple[int, ...]
    leaves: tuple[int, ...]
    """Original indices of the leaf rows, in order of appearance in `record`."""
    renewing: frozenset[int] = frozenset()
    """Outputs that take the place of what a leaf holds, in memory too if nobody else wants that."""


def wanted_rows(record: Record, outputs: Sequence[int]) -> list[int]:
    """Rows that the outputs depend on, in order."""
    wanted = bytearray(len(record.rows))
    for output in outputs:
        wanted[output] = 1
    for index in range(len(record.rows) - 1, -1, -1):
        if wanted[index]:
            for operand in _read(record.rows[index], index):
                if operand >= 0:
                    wanted[operand] = 1
    return [index for index, flag in enumerate(wanted) if flag]


def _read(row: Row, index: int) -> Sequence[int]:
    """The rows whose values row `index` needs: of some operands it only has the history."""
    op = OPS[row[0]]
    if op is REPEAT:
        return (*row[3:], *range(index - row[1][0], index))
    value = STANDS_FOR.get(op)
    return row[3:] if value is None else row[3 + value:4 + value]


STANDS_FOR = {movement.ALIAS: 0, movement.WRITE: 0, movement.FUNCTION: 0, movement.REPLACE: 1}
"""Ops whose value is that of one operand, by its position."""


def numbers_read(record: Record, outputs: Sequence[int]) -> int:
    """How many of the record's first numbers the rows up to the last output have: those after them may be more or fewer
    the next time that these rows are recorded."""
    codes = (code for row in record.rows[:max(outputs) + 1] for code in row[3:] if code < 0)
    return max(map(slot_ordinal, codes), default=-1) + 1


def expand(record: Record, outputs: Sequence[int], numbers: int | None = None, renewing: Sequence[int] = ()
           ) -> Expanded:
    """Expands every macro, keeping only what the outputs need; numbers of expansions follow the first `numbers` of the
    record's, by default all. Those of the outputs that are `renewing` take the place of a leaf."""
    result = Listing()
    result.slots.extend(record.slots if numbers is None else record.slots[:numbers])
    new: dict[int, int] = {}
    several: dict[int, dict[int, int]] = {}
    leaves = []
    wanted = wanted_rows(record, outputs)
    for index in wanted:
        number, attributes, type_index, *operands = record.rows[index]
        op = OPS[number]
        place = record.places[index]
        if op.kind is Kind.LEAF:
            leaves.append(index)
        if op in STANDS_FOR:
            new[index] = new[operands[STANDS_FOR[op]]]
            continue
        if op.kind is Kind.ITEM and operands[0] in several:
            new[index] = several[operands[0]][attributes[0]]
            continue
        mapped = [new.get(operand, operand) if operand >= 0 else operand for operand in operands]
        if op.kind is Kind.LOOP:
            asked = {record.rows[row][1][0] for row in wanted
                     if OPS[record.rows[row][0]].kind is Kind.ITEM and record.rows[row][3] == index}
            values = _expand_loop(result, attributes, type_index, mapped, place, asked)
            several[index] = {which: value.index for which, value in values.items()}
        elif op.kind is Kind.MACRO:
            made = expansion(result, number, attributes, type_index, mapped)
            results = made.write(result, mapped, place)
            if made.several:
                several[index] = dict(enumerate(results))
            else:
                (new[index],) = results
        else:
            new[index] = result.append((number, attributes, type_index, *mapped), 0, place)
    nested = any(OPS[row[0]].kind is Kind.MACRO for row in result.rows)
    expanded = Expanded(result, tuple(new[output] for output in outputs), tuple(leaves),
                        frozenset(new[output] for output in renewing))
    if not nested:
        return expanded
    # A macro's expansion may use macros in turn.
    again = expand(result, expanded.outputs, None, sorted(expanded.renewing))
    entered = tuple(leaves[_position(result, leaf)] for leaf in again.leaves)
    return Expanded(again.record, again.outputs, entered, again.renewing)


def _position(record: Record, row: int) -> int:
    """How many leaves come before this leaf row."""
    return sum(1 for other in record.rows[:row] if OPS[other[0]].kind is Kind.LEAF)


# Loops --------------------------------------------------------------------------------------------------------
def _expand_loop(
    result: Record, attributes: Attributes, type_index: int, operands: Sequence[int], place: Place, asked: set[int]
) -> dict[int, Value]:
    """Appends the rows of a loop's body and the row that repeats them; gives the loop's values that are asked for.

    Of a carried value that is also stacked, before the steps or after them, all values are kept where the steps
    themselves read and write them, one more than there are steps; what is asked for are slices of that.
    """
    number, reverse = attributes
    (steps,) = TYPES[type_index].shape
    body = BODIES[number]
    carried, stacked = _needed(body, asked)
    following = {body.results[k]: k for k in carried}
    of_history = {
        j: row if row < body.carried else following[row]
        for j, row in ((j, body.results[j]) for j in stacked) if row < body.carried or row in following
    }
    plain = [j for j in stacked if j not in of_history]
    inner = _inner(result, body, operands[body.leaves:])
    made = expand(inner, [body.results[position] for position in (*carried, *plain)])
    result.slots = made.record.slots
    start = len(result.rows)
    for (op, row_attributes, kind, *codes), origin in zip(made.record.rows, made.record.places, strict=True):
        shifted = [code + start if code >= 0 else code for code in codes]
        result.append((INPUT.number if op == LEAF.number else op, row_attributes, kind, *shifted), 0, origin or place)
    length = len(made.record.rows)
    inputs = [row for row, (op, *_) in enumerate(made.record.rows) if op == LEAF.number]
    at = dict(zip(made.leaves, inputs, strict=True))
    slices = [leaf for leaf in range(body.carried, body.carried + body.stacked) if leaf in at]
    fixed = [leaf for leaf in range(body.carried + body.stacked, body.leaves) if leaf in at]
    kept = set(of_history.values())
    repeat = result.append(
        (REPEAT.number,
         (length, reverse, tuple((at.get(k, -1), made.outputs[n], k in kept) for n, k in enumerate(carried)),
          tuple(at[leaf] for leaf in slices), tuple(at[leaf] for leaf in fixed), made.outputs[len(carried):]),
         type_index, *(operands[leaf] for leaf in (*carried, *slices, *fixed))),
        0, place)

    def item(which: int, shape: tuple[int, ...], row: int) -> Value:
        kind = type_number(shape, body.type_of(row).dtype)
        return Value(result, result.append((ITEM.number, (which,), kind, repeat), 0, place), place, False)

    values: dict[int, Value] = {}
    histories: dict[int, Value] = {}
    for n, k in enumerate(carried):
        shape = body.type_of(k).shape
        if k in kept:
            histories[k] = item(n, (steps + 1, *shape), k)
            if k in asked:
                last = histories[k].slice((1, *shape), (0,), (1,), (0 if reverse else steps,))
                values[k] = last.reshape(shape)
        else:
            values[k] = item(n, shape, k)
    for n, j in enumerate(plain):
        values[j] = item(len(carried) + n, (steps, *body.type_of(body.results[j]).shape), body.results[j])
    for j, k in of_history.items():
        after = body.results[j] >= body.carried
        values[j] = histories[k].slice((steps, *body.type_of(k).shape), (0,), (1,), (int(after != reverse),))
    return values


def _needed(body: Body, asked: set[int]) -> tuple[list[int], list[int]]:
    """Carried values without which what is asked for cannot be computed, and the stacked results asked for."""
    stacked = sorted(position for position in asked if position >= body.carried)
    carried = {position for position in asked if position < body.carried}
    while True:
        needed = bytearray(len(body.rows))
        for position in (*carried, *stacked):
            needed[body.results[position]] = 1
        for index in range(len(body.rows) - 1, -1, -1):
            if needed[index]:
                for operand in body.rows[index][3:]:
                    if operand >= 0:
                        needed[operand] = 1
        more = {k for k in range(body.carried) if needed[k]} - carried
        if not more:
            return sorted(carried), stacked
        carried |= more


def _inner(result: Record, body: Body, slots: Sequence[int]) -> Record:
    """A loop's body as a record of its own, which shares the numbers of the record that it is a part of."""
    inner = Listing()
    inner.slots = result.slots
    for number, attributes, kind, *operands in body.rows:
        codes = [o if o >= 0 else slot_code(slot_ordinal(slots[slot_ordinal(o)]), slot_category(o)) for o in operands]
        inner.append((number, attributes, kind, *codes), 0, None)
    return inner
