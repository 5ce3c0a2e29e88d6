"""The record: what has been asked for and not yet computed.

A record is a list of flat rows `(op, attributes, type, *operands)` of small integers and structural tuples.
The list is at once the tape that `backward` walks and the key under which its plan is remembered. An operand
is a row's index, or, below zero, a *slot*: a Python number whose value stays outside the key (see
`slot_code`).
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import Any

from torturous.core.dtypes import Category
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Op, Type, define, type_number

Row = tuple
Place = tuple[CodeType, int] | None
"""Where in the user's program a row was recorded: code object and instruction offset, never a frame."""

LEAF = define(Op("leaf", Kind.LEAF, document="a value that exists in memory before the plan runs"))


def slot_code(ordinal: int, category: Category) -> int:
    """The operand that stands for slot number `ordinal`, a Python number of this category."""
    return ~(ordinal * 4 + category)


def slot_ordinal(code: int) -> int:
    return ~code >> 2


def slot_category(code: int) -> Category:
    return Category(~code & 3)


def number_category(number: bool | int | float) -> Category:
    if isinstance(number, bool):
        return Category.BOOL
    return Category.INTEGRAL if isinstance(number, int) else Category.FLOATING


inferred: dict[tuple, int] = {}
"""Result types by op, attributes and operand types (below zero: categories of numbers), as they were first
worked out."""

getframe = sys._getframe
_package = __name__.partition(".")[0] + "."
places_of: dict[CodeType, dict[int, Place] | None] = {}
"""For all code that has been asked about: None if it belongs to this package, else its places so far."""


def _ask(code: CodeType, module: str) -> dict[int, Place] | None:
    ours = module.startswith(_package) and not module.startswith((_package + "datasets", _package + "models"))
    known: dict[int, Place] | None = None if ours else {}
    places_of[code] = known
    return known


def user_place(depth: int = 2) -> Place:
    """The innermost frame outside this package: the user's line."""
    frame = getframe(depth)
    while frame is not None:
        code = frame.f_code
        places = places_of[code] if code in places_of else _ask(code, frame.f_globals.get("__name__", ""))
        if places is not None:
            return places.get(frame.f_lasti) or places.setdefault(frame.f_lasti, (code, frame.f_lasti))
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def describe_place(place: Place) -> str:
    """`file.py:12 in forward` for a place, as errors name it."""
    if place is None:
        return "an unknown line"
    code, offset = place
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if number is not None and start <= offset < end:
            line = number
            break
    return f"{code.co_filename}:{line} in {code.co_name}"


class Record:
    """Pending rows with what belongs to them, one list each, all of the same length.

    `owners` holds the object (a Tensor or a Storage) that would want the row's value; a row is alive while
    somebody besides this list refers to its owner. `tracked` says whether gradients flow through a row.
    """

    __slots__ = ("rows", "owners", "places", "tracked", "slots", "leaves", "values", "versions", "sources",
                 "hooks", "freed", "tape", "cut", "urgent", "__weakref__")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.owners: list[Any] = []
        self.places: list[Place] = []
        self.tracked = bytearray()
        self.slots: list[bool | int | float] = []
        self.leaves: dict[Any, int] = {}
        """Rows of leaves already entered, by (storage identity, version) or saved value."""
        self.values: dict[int, Any] = {}
        """After realization: buffers by row, of leaves and of what was stored."""
        self.versions: dict[int, tuple[weakref.ref[Any], int]] = {}
        """Rows in storages: a weak reference to the storage, and its version when the row was its value."""
        self.sources: dict[int, Any] = {}
        """Rows whose gradient goes on outside this record: to the tensor in which it accumulates, or to a row
        of an older tape, given as (record, row)."""
        self.hooks: dict[int, Any] = {}
        """What autograd calls when a row's gradient is complete."""
        self.freed = bytearray()
        """Rows whose saved values a backward pass has given up."""
        self.tape: weakref.ref[Record] | None = None
        """Once realized: where the rows are now, for as long as a backward pass could still need them."""
        self.cut: Place = None
        self.urgent = False
        """Whether a leaf entered was memory that others can write: realize as soon as its reader is
        recorded."""

    def slot(self, number: bool | int | float) -> int:
        """Appends a Python number; gives the operand that stands for it."""
        slots = self.slots
        slots.append(number)
        return ~((len(slots) - 1) * 4 + number_category(number))

    def append(self, row: Row, tracked: int, place: Place, owner: Any = None) -> int:
        index = len(self.rows)
        self.rows.append(row)
        self.tracked.append(tracked)
        self.places.append(place)
        self.owners.append(owner)
        return index

    def leaf(self, type_index: int, tracked: bool | int, owner: Any) -> int:
        return self.append((LEAF.number, (), type_index), tracked, None, owner)

    def type_of(self, operand: int) -> Type:
        return TYPES[self.rows[operand][2]]

    def apply(
        self, op: Op, attributes: Attributes, operands: Sequence[int], place: Place, tracking: bool
    ) -> int:
        """Records an op whose result type follows from its operands; raises the op's own errors."""
        rows = self.rows
        key = (op.number, attributes, *[rows[o][2] if o >= 0 else ~(~o & 3) for o in operands])
        type_index = inferred.get(key)
        if type_index is None:
            kinds = [TYPES[rows[o][2]] if o >= 0 else slot_category(o) for o in operands]
            assert op.infer is not None
            result = op.infer(attributes, kinds)
            type_index = inferred[key] = type_number(result.shape, result.dtype)
        return self.apply_typed(op, attributes, type_index, operands, place, tracking)

    def apply_typed(
        self, op: Op, attributes: Attributes, type_index: int, operands: Sequence[int], place: Place,
        tracking: bool,
    ) -> int:
        """Records an op whose result type the caller has worked out."""
        flag = 0
        if tracking and op.gradients and TYPES[type_index].dtype.category is Category.FLOATING:
            tracked = self.tracked
            for operand in operands:
                if operand >= 0 and tracked[operand]:
                    flag = 1
                    break
        return self.append((op.number, attributes, type_index, *operands), flag, place)

    def reads_of(self, index: int) -> Iterator[int]:
        """Rows whose values the gradient rules of a tracked row would read."""
        row, tracked = self.rows[index], self.tracked
        saves = OPS[row[0]].saves
        if not any(saves):
            return
        operands = row[3:]
        for operand, saved in zip(operands, saves, strict=False):
            if saved and operand >= 0 and tracked[operand]:
                for position in saved:
                    if position < 0:
                        yield index
                    elif position < len(operands) and operands[position] >= 0:
                        yield operands[position]

    def read_rows(self, indices: Iterable[int]) -> set[int]:
        """Rows whose values the gradient rules of some tracked rows would read."""
        return {read for index in indices for read in self.reads_of(index)}

    def close(self) -> Record:
        """Moves everything to a new record, the tape, and leaves this one empty.

        Tensors remember the pending record that they were entered into; it must not keep a history alive that
        only tensors with gradients should keep.
        """
        tape = Record()
        for name in ("rows", "places", "tracked", "slots", "values", "versions", "sources", "hooks", "freed"):
            kept, empty = getattr(self, name), getattr(tape, name)
            setattr(tape, name, kept)
            setattr(self, name, empty)
        self.owners, self.leaves = [], {}
        self.tape = weakref.ref(tape)
        return tape

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        lines = []
        for index, (number, attributes, type_index, *operands) in enumerate(self.rows):
            names = [f"%{o}" if o >= 0 else f"slot{slot_ordinal(o)}" for o in operands]
            extra = f" {attributes}" if attributes else ""
            lines.append(f"%{index} = {OPS[number].name}({', '.join(names)}){extra} : {TYPES[type_index]}")
        return "\n".join(lines)


class Context(threading.local):
    """What belongs to one thread: its pending record and whether operations are tracked for gradients."""

    def __init__(self) -> None:
        self.record = Record()
        self.tracking = True


context = Context()
