"""The record: what has been asked for and not yet computed.

A record is a sequence of flat rows `(op, attributes, type, *operands)` of small integers and structural tuples. It
is at once the tape that `backward` walks and the key under which its plan is remembered. An operand is a row's
index, or, below zero, a *slot*: a Python number whose value stays outside the key (see `slot_code`).

Programs repeat themselves, so a record is kept as a path in a tree of all that was recorded before (`ir/prefix.py`):
what comes again is neither worked out nor built again, and the key of a thousand rows is one object.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, FrameType
from typing import Any

from torturous.core import settings
from torturous.core.dtypes import Category
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Op, Type, define, type_number
from torturous.ir.prefix import EMPTY, Prefix, root, tree
from torturous.ir.prefix import Place as Place
from torturous.ir.prefix import Row as Row

LEAF = define(Op("leaf", Kind.LEAF, document="a value that exists in memory before the plan runs"))
ITEM = define(Op("item", Kind.ITEM, document="one of several values that a row has: attributes (which,)"))


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


FLOATING = int(Category.FLOATING)

inferred: dict[tuple, int] = {}
"""Result types by op, attributes and operand types (below zero: categories of numbers), as they were first
worked out."""

getframe = sys._getframe
_package = __name__.partition(".")[0] + "."
_places_of: dict[int, tuple[CodeType, dict[int, Place] | None]] = {}
"""For all code that has been asked about, by identity (hashing code takes long): itself, which keeps its identity its
own, and None if it belongs to this package, else its places so far."""


def of_this_package(module: str) -> bool:
    """Whether a module's code is ours, not the user's: errors name no line of it."""
    return module.startswith(_package) and not module.startswith((_package + "datasets", _package + "models"))


def _ask(code: CodeType, module: str) -> tuple[CodeType, dict[int, Place] | None]:
    known = _places_of[id(code)] = (code, None if of_this_package(module) else {})
    return known


def user_place(depth: int = 2) -> Place:
    """The innermost frame outside this package: the user's line. One line's place is always the same object."""
    frame: FrameType | None = getframe(depth)
    while frame is not None:
        code = frame.f_code
        places = (_places_of.get(id(code)) or _ask(code, frame.f_globals.get("__name__", "")))[1]
        if places is not None:
            offset = frame.f_lasti
            return places.get(offset) or places.setdefault(offset, (code, offset))
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


NOBODY = 0
"""No thread has this identifier."""


class Record:
    """Pending rows with what belongs to them.

    `owners` holds, by row, the object (a Tensor or a Storage) that would want the row's value, if there is one; a row
    is alive while somebody besides this table refers to its owner.
    """

    __slots__ = ("end", "thread", "tracking", "room", "owners", "moved", "slots", "leaves", "values", "versions",
                 "sources", "hooks", "freed", "tape", "cut", "patience", "urgent", "doubtful", "visited", "looks",
                 "captured", "_path", "_rows", "_tracked", "_places", "__weakref__")

    def __init__(self, end: Prefix | None = None) -> None:
        """A record that goes on from `end`; without it, one whose rows have nothing to do with any other's."""
        self.end = root() if end is None else end
        """All rows so far."""
        self.thread = NOBODY
        """The identifier of the thread that this is the pending record of."""
        self.tracking = True
        """Whether that thread's operations are tracked for gradients."""
        self.room = 4 * settings.row_limit.value
        """How many rows may gather before each asks whether it is time to realize; 0 if `urgent`."""
        self.owners: dict[int, Any] = {}
        self.moved: dict[int, Place] = {}
        """Places of the rows that were recorded elsewhere than when their prefix was new."""
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
        """Where it is time to realize, once the program comes round to it."""
        self.patience = 16 * settings.row_limit.value
        """How many rows may gather before another place is waited for."""
        self.urgent = False
        """Whether a leaf entered was memory that others can write: realize as soon as its reader is
        recorded."""
        self.doubtful = 0
        """Above zero if a kernel may find a position or class out of range: see `doubt`."""
        self.visited = False
        """Whether another thread has computed one of the storages that are pending here."""
        self.looks: list[tuple[Any, Any]] | None = None
        """While a call is captured (`tensor/traces.py`): tensors whose values were looked at, and how to look again."""
        self.captured = 0
        """While a call is captured: its first row. What comes before it may be something else the next time."""
        self._path: list[Prefix] = []
        self._rows: list[Row] = []
        self._tracked = bytearray()
        self._places: list[Place] = []

    # Reading ------------------------------------------------------------------------------------------------
    @property
    def rows(self) -> list[Row]:
        """The rows as a list, to be read only."""
        if len(self._rows) <= self.end.index:
            self._unfold()
        return self._rows

    @property
    def tracked(self) -> bytearray:
        """Per row, whether gradients flow through it."""
        if len(self._rows) <= self.end.index:
            self._unfold()
        return self._tracked

    @property
    def places(self) -> list[Place]:
        """Per row, where it was recorded."""
        if len(self._rows) <= self.end.index:
            self._unfold()
        return self._places

    def _unfold(self) -> None:
        """Reads the rows added since the last time off the path."""
        start = len(self._rows)
        added = self.end.since(start)
        self._rows += [prefix.row for prefix in added]
        self._tracked += bytes([prefix.tracked for prefix in added])
        self._places += [prefix.place for prefix in added]
        for index, place in self.moved.items():
            if index >= start:
                self._places[index] = place

    def last(self, index: int) -> Prefix:
        """The prefix that ends with a row."""
        end = self.end
        if end.index - index <= 4:
            return end.until(index + 1)
        path = self._path
        if len(path) <= index:
            path += end.since(len(path))
        return path[index]

    def place_of(self, index: int) -> Place:
        return self.moved[index] if index in self.moved else self.last(index).place

    def type_of(self, operand: int) -> Type:
        return TYPES[self.type_number_of(operand)]

    def type_number_of(self, row: int) -> int:
        return self.last(row).type_index

    def until(self, count: int) -> Record:
        """The first rows as a record of their own, for computing them and for gradients."""
        record = Record(self.end.until(count))
        record.slots, record.values, record.freed = list(self.slots), self.values, self.freed[:count]
        for table in ("moved", "versions", "sources", "hooks"):
            # Copied at one go: this may be another thread's.
            entries = getattr(self, table).copy().items()
            setattr(record, table, {index: entry for index, entry in entries if index < count})
        return record

    def __len__(self) -> int:
        return self.end.index + 1

    # Recording ----------------------------------------------------------------------------------------------
    def doubt(self) -> None:
        """Says that positions or classes that the next row reads have no values yet that could be checked.

        Entering its operands may realize this record first: then the row belongs to the next one.
        """
        self.doubtful = 2

    def slot(self, number: bool | int | float) -> int:
        """Appends a Python number; gives the operand that stands for it."""
        slots = self.slots
        slots.append(number)
        category = FLOATING if number.__class__ is float else number_category(number)
        return ~((len(slots) - 1) * 4 + category)

    def _follow(self, following: Prefix, place: Place) -> int:
        """Goes on to a prefix one row longer; gives the index of the row."""
        index = following.index
        if following.place is not place:
            self.moved[index] = place
        self.end = following
        return index

    def append(self, row: Row, tracked: int, place: Place, owner: Any = None) -> int:
        """Adds a row as it is."""
        key = (row, tracked)
        end = self.end
        following = end.following
        if following is None or following.name != key:
            following = end.others.get(key)
        if following is None:
            following = self._extend(key, row, tracked, place)
        index = self._follow(following, place)
        if owner is not None:
            self.owners[index] = owner
        return index

    def leaf(self, type_index: int, tracked: bool | int) -> int:
        """Adds a leaf."""
        # A number is as good a name for an edge as a row, and quicker.
        key = 2 * type_index + 1 if tracked else 2 * type_index
        end = self.end
        following = end.following
        if following is None or following.name != key:
            following = end.others.get(key)
        if following is None:
            following = self._extend(key, (LEAF.number, (), type_index), key & 1, None)
        self.end = following
        return following.index

    def items(self, types: tuple[int, ...], place: Place) -> range:
        """Adds a row for each value, of these types, of the row just added, as untracked as that: all in one step."""
        key = ("items", types)
        whole = self.end
        following = whole.after(key)
        if following is None:
            following = whole
            for number, type_index in enumerate(types):
                following = Prefix(following, (ITEM.number, (number,), type_index, whole.index), 0, place)
            following = whole.lead(key, following)
            if self.thread != NOBODY:
                tree.size += len(types)
        added = range(whole.index + 1, following.index + 1)
        if following.place is not place:
            self.moved.update(dict.fromkeys(added, place))
        self.end = following
        return added

    def apply(
        self, op: Op, attributes: Attributes, operands: Sequence[int], place: Place, tracking: bool
    ) -> int:
        """Records an op whose result type follows from its operands; raises the op's own errors."""
        # The form without attributes is also what operators look up themselves (`tensor/applying.py`).
        key = (op.number, attributes, *operands) if attributes else (op.number, *operands)
        end = self.end
        following = end.following
        if following is None or following.name != key:
            following = end.others.get(key)
        if following is None:
            following = self._first(key, op, attributes, self._result_type(op, attributes, operands), operands, place,
                                    tracking)
        mode = following.mode
        if mode is not None and mode is not tracking:
            return self.append(following.row, int(tracking), place)
        return self._follow(following, place)

    def apply_typed(
        self, op: Op, attributes: Attributes, type_index: int, operands: Sequence[int], place: Place,
        tracking: bool,
    ) -> int:
        """Records an op whose result type the caller has worked out."""
        key = (~op.number, attributes, type_index, *operands)
        end = self.end
        following = end.following
        if following is None or following.name != key:
            following = end.others.get(key)
        if following is None:
            following = self._first(key, op, attributes, type_index, operands, place, tracking)
        mode = following.mode
        if mode is not None and mode is not tracking:
            return self.append(following.row, int(tracking), place)
        return self._follow(following, place)

    # For the first time -------------------------------------------------------------------------------------
    def _result_type(self, op: Op, attributes: Attributes, operands: Sequence[int]) -> int:
        types = [self.type_number_of(o) if o >= 0 else ~(~o & 3) for o in operands]
        key = (op.number, attributes, *types)
        type_index = inferred.get(key)
        if type_index is None:
            kinds = [TYPES[kind] if kind >= 0 else slot_category(kind) for kind in types]
            assert op.infer is not None
            result = op.infer(attributes, kinds)
            type_index = inferred[key] = type_number(result.shape, result.dtype)
        return type_index

    def _first(
        self, key: tuple, op: Op, attributes: Attributes, type_index: int, operands: Sequence[int], place: Place,
        tracking: bool,
    ) -> Prefix:
        """A prefix one row longer, in the present mode."""
        differentiable = op.gradients and TYPES[type_index].dtype.category is Category.FLOATING
        flows = bool(differentiable) and any(o >= 0 and self.last(o).tracked for o in operands)
        row = (op.number, attributes, type_index, *operands)
        return self._extend(key, row, int(flows and tracking), place, tracking if flows else None)

    def _extend(self, key: Any, row: Row, tracked: int, place: Place, mode: bool | None = None) -> Prefix:
        if self.thread != NOBODY:
            tree.size += 1
        return self.end.extend(key, row, tracked, place, mode)

    # What gradients read ------------------------------------------------------------------------------------
    def reads_of(self, index: int) -> Iterator[int]:
        """Rows whose values the gradient rules of a tracked row would read."""
        row, tracked = self.rows[index], self.tracked
        reads, saves = OPS[row[0]].reads, OPS[row[0]].saves
        if reads is not None:
            yield from reads(self, index)
            return
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

    def fails_again(self, index: int) -> bool:
        """Whether gradients cannot pass a row that has given up what its rules read."""
        return OPS[self.rows[index][0]].once or any(True for _ in self.reads_of(index))

    def read_rows(self, indices: Iterable[int]) -> set[int]:
        """Rows whose values the gradient rules of some tracked rows would read."""
        return {read for index in indices for read in self.reads_of(index)}

    def close(self) -> Record:
        """Moves everything to a new record, the tape, and leaves this one empty.

        Tensors remember the pending record that they were entered into; it must not keep a history alive that
        only tensors with gradients should keep.
        """
        tape = Record(self.end)
        tape.moved, self.moved = self.moved, tape.moved
        tape.slots, self.slots = self.slots, tape.slots
        tape.values, self.values = self.values, tape.values
        tape.versions, self.versions = self.versions, tape.versions
        tape.sources, self.sources = self.sources, tape.sources
        tape.hooks, self.hooks = self.hooks, tape.hooks
        tape.freed, self.freed = self.freed, tape.freed
        tape._path, self._path = self._path, tape._path
        tape._rows, self._rows = self._rows, tape._rows
        tape._tracked, self._tracked = self._tracked, tape._tracked
        tape._places, self._places = self._places, tape._places
        self.end, self.thread = EMPTY, NOBODY
        self.owners, self.leaves = {}, {}
        self.tape = weakref.ref(tape)
        return tape

    def __str__(self) -> str:
        lines = []
        for index, (number, attributes, type_index, *operands) in enumerate(self.rows):
            names = [f"%{o}" if o >= 0 else f"slot{slot_ordinal(o)}" for o in operands]
            extra = f" {attributes}" if attributes else ""
            lines.append(f"%{index} = {OPS[number].name}({', '.join(names)}){extra} : {TYPES[type_index]}")
        return "\n".join(lines)


class _Farewell:
    """Dies with a thread, whose pending record is then nobody's: another thread may be given the same identifier."""

    __slots__ = ("record",)

    def __init__(self) -> None:
        self.record: Record | None = None

    def __del__(self) -> None:
        if self.record is not None:
            self.record.thread = 0


class Context(threading.local):
    """What belongs to one thread: its pending record, which knows whether operations are tracked for gradients.

    Asking for it takes as long as recording a row. So who has a tensor's record at hand asks whether that is of this
    thread: `record.thread == get_ident()`.
    """

    def __init__(self) -> None:
        self.farewell = _Farewell()
        self._begin(True)

    def _begin(self, tracking: bool) -> Record:
        record = self.record = self.farewell.record = Record(tree.root)
        record.thread, record.tracking = threading.get_ident(), tracking
        return record

    def renew(self) -> Record:
        """Gives this thread a new pending record; the one before is no longer anybody's."""
        before = self.record
        before.thread = NOBODY
        record = self._begin(before.tracking)
        record.doubtful = max(0, before.doubtful - 1)
        return record

    @property
    def tracking(self) -> bool:
        return self.record.tracking

    @tracking.setter
    def tracking(self, tracking: bool) -> None:
        self.record.tracking = tracking


context = Context()
