"""The loop: a body of rows that is repeated along the leading axis of its stacked operands.

    finals, stacks = record_loop(body, steps, numbers, carried, stacked, fixed, reverse)

is one row, with an ITEM row for each value, however many steps there are: their number is a size like any other.
Numbers that the body reads are slots, handed over as the row's last operands. With `reverse`, steps run from the end
of the stacked operands to their beginning; what is stacked keeps its place.

The gradient of a loop is a loop that runs the other way (`ir.reversal`). What it reads of the forward steps, the
forward loop makes as further stacked results; the compiler drops them where nobody asks for a gradient.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torturous.core import dtypes
from torturous.ir.body import BODIES, Body, flowing
from torturous.ir.contraction import CONTRACT
from torturous.ir.movement import ALIAS
from torturous.ir.op import OPS, Attributes, Kind, Op, Type, define, type_number
from torturous.ir.record import ITEM, Record
from torturous.ir.reduction import SUM
from torturous.ir.reversal import Contracted, Final, Source, Summed, reads, reversal, saving
from torturous.ir.value import Value

INPUT = define(Op("input", Kind.INPUT, document="what the body of a repeat row is given at each step"))
REPEAT = define(Op(
    "repeat", Kind.REPEAT,
    document="an expanded loop; the rows before it are its body. Attributes: how many rows, whether it runs from the "
             "end; per carried value its place among those rows (−1: never read), that of the next value, and whether "
             "all its values are kept; places of slices; of fixed operands; of results. Its items are the carried "
             "values' ends (or all they ever were, one more than steps), then stacked results. Type: the steps"))



# Recording ----------------------------------------------------------------------------------------------------
def record_loop(
    body: int, steps: int, numbers: Sequence[Value], carried: Sequence[Value], stacked: Sequence[Value],
    fixed: Sequence[Value], reverse: bool = False,
) -> tuple[list[Value], list[Value]]:
    """Records a loop; gives the carried values after the last step and what was stacked.

    `stacked` operands have a leading axis of `steps` (at least 1) before the shape that the body was recorded for.
    `numbers` are the slots of the body, in its order. RuntimeError where an operand is of another type.
    """
    operands = [*carried, *stacked, *fixed]
    _check(BODIES[body], steps, operands)
    record, place, tracking = operands[0].record, operands[0].place, operands[0].tracking
    needs = tuple(tracking and bool(record.tracked[operand.index]) for operand in operands)
    wanted = len(BODIES[body].results)
    flow: Sequence[bool] = ()
    if any(needs):
        body = saving(body, needs)
        flow = flowing(body, needs)
    prepared = BODIES[body]
    codes = [value.index for value in [*operands, *numbers]]
    row = record.apply_typed(LOOP, (body, reverse), type_number((steps,), dtypes.float32), codes, place, tracking)
    items = []
    for position, result in enumerate(prepared.results):
        shape, dtype = prepared.type_of(result)
        kind = type_number(shape if position < prepared.carried else (steps, *shape), dtype)
        tracked = int(bool(flow) and flow[result])
        item = record.append((ITEM.number, (position,), kind, row), tracked, place)
        items.append(Value(record, item, place, tracking))
    # What a backward pass will read must not be what the user may write to.
    for position in reads(body, needs)[1] if flow else ():
        if position < wanted:
            items[position] = items[position].apply(ALIAS)
    return items[:prepared.carried], items[prepared.carried:wanted]


def _check(body: Body, steps: int, operands: Sequence[Value]) -> None:
    """Raises where an operand is not what the body was recorded for."""
    if steps < 1:
        raise RuntimeError("loop: the stacked operands' leading size is 0; there must be at least one step")
    for position, operand in enumerate(operands):
        shape, dtype = body.type_of(position)
        if body.carried <= position < body.carried + body.stacked:
            shape = (steps, *shape)
        if operand.type != Type(shape, dtype):
            raise RuntimeError(
                f"loop: operand {position} is {operand.type}, but its body was recorded for {Type(shape, dtype)}")


# The gradient -------------------------------------------------------------------------------------------------
def _needs(record: Record, index: int) -> tuple[int, tuple[bool, ...], list[int]]:
    """The body of a loop, which of its operands need gradients, and those operands' rows."""
    _, (number, _), _, *operands = record.rows[index]
    operands = operands[:BODIES[number].leaves]
    return number, tuple(bool(record.tracked[operand]) for operand in operands), operands


def _reads(record: Record, index: int) -> Iterator[int]:
    number, needs, operands = _needs(record, index)
    from_operands, from_values = reads(number, needs)
    yield from (operands[position] for position in from_operands)
    yield from (index + 1 + position for position in from_values)


def _rule(
    gradients: Mapping[int, Value], at: Attributes, out: Type, needs: Sequence[bool],
    operand: Callable[[int], Value], value: Callable[[int], Value],
) -> list[Value | None]:
    """The gradients of all operands; `gradients` are those of the loop's values, by position."""
    number, reverse = at
    (steps,) = out.shape
    body = BODIES[number]
    given = tuple(which in gradients for which in range(len(body.results)))
    found = reversal(number, tuple(needs[:body.leaves]), given)
    some = next(iter(gradients.values()))

    def source(source: Source) -> Value:
        kind, which = source
        return gradients[which] if kind == "gradient" else value(which) if kind == "value" else operand(which)

    copied = iter(found.copied)
    numbers = [
        operand(body.leaves + next(copied)) if literal is None else some.slot(literal) for literal in found.numbers
    ]
    starts = [some.full(*start, 0) if isinstance(start, Type) else source(start) for start in found.carried]
    stacked = [source(each) for each in found.stacked]
    finals: list[Value] = []
    stacks: list[Value] = []
    if starts or stacked:
        fixed = [source(each) for each in found.fixed]
        finals, stacks = record_loop(found.body, steps, numbers, starts, stacked, fixed, not reverse)

    def over_all(source_: Source) -> Value:
        kind, which = source_
        return stacks[which] if kind == "stack" else source(source_)

    def term(each: Any) -> Value:
        if isinstance(each, Final):
            return finals[each.which]
        if isinstance(each, Contracted):
            left, right = over_all(each.left), over_all(each.right)
            result = left.apply_typed(CONTRACT, *each.kind, right, attributes=each.attributes)
        elif isinstance(each, Summed):
            result = over_all(each.of).apply(SUM, attributes=each.attributes)
        else:
            return over_all(each)
        for op, attributes, kind in each.after:
            result = result.apply_typed(OPS[op], *kind, attributes=attributes)
        return result

    return [functools.reduce(operator.add, map(term, terms)) if terms else None for terms in found.gradients]


LOOP = define(Op(
    "loop", Kind.LOOP, gradients=(None,), reads=_reads, whole_rule=_rule,
    document="attributes: the body's number, whether steps run from the end; type: the steps; operands: where carried "
             "values start, stacked and fixed operands, slots; its values are ITEM rows right behind it"))
