"""Prefixes: what records have in common.

Programs repeat themselves, and a record mostly begins like one before it. All records of all threads are paths in
one tree: from each prefix, edges lead to those one row longer. An edge's name says what was recorded (an op's number
and its operands, say); where it leads, the row with its type and flag is ready made. Following an edge is thus all
the work there is for a row recorded before, and a prefix stands for all rows up to it: as a key it costs nothing.

Nearly every prefix has one edge: a name that is asked for is compared with its name, which is quicker than to hash it,
and only where programs part ways is there a table.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from types import CodeType
from typing import Any, NamedTuple

Row = tuple
"""`(op, attributes, type, *operands)`"""
Place = tuple[CodeType, int] | None
"""Where in the user's program a row was recorded: code object and instruction offset, never a frame."""

MOST = 1 << 17
"""Prefixes remembered, some 80 MB: with more than these the program does not repeat itself, and all are forgotten."""


NONE: dict[Any, Any] = {}
"""Stands for no edges; nothing is ever added to it."""


class Prefix:
    """The rows of a record up to number `index`. Only what follows it is ever changed."""

    __slots__ = ("parent", "index", "row", "type_index", "tracked", "mode", "place", "name", "following", "others",
                 "shortcuts")

    def __init__(self, parent: Prefix | None, row: Row, tracked: int, place: Place, mode: bool | None = None) -> None:
        self.parent = parent
        self.index: int = -1 if parent is None else parent.index + 1
        self.row = row
        """The last row."""
        self.type_index: int = row[2] if row else -1
        self.tracked = tracked
        """Whether gradients flow through it."""
        self.mode = mode
        """Whether gradients were enabled where an operation led here first, if that makes the difference."""
        self.place = place
        """Where it was recorded first."""
        self.name: Any = None
        """What the edge that leads here is called, if it is its parent's first."""
        self.following: Prefix | None = None
        """Where the first edge leads."""
        self.others: dict[Any, Prefix] = NONE
        """Where all other edges lead."""
        self.shortcuts: dict[tuple, Shortcut] | None = None
        """What calls of functions lead to (see `tensor/shortcuts.py`)."""

    def extend(self, key: Any, row: Row, tracked: int, place: Place, mode: bool | None = None) -> Prefix:
        """The prefix that is longer by a row, and from now on is found under `key`."""
        return self.lead(key, Prefix(self, row, tracked, place, mode))

    def after(self, key: Any) -> Prefix | None:
        """Where the edge of this name leads. (What is called for every row has this written out.)"""
        following = self.following
        return following if following is not None and following.name == key else self.others.get(key)

    def lead(self, key: Any, prefix: Prefix) -> Prefix:
        """Adds an edge, unless there is one of that name; gives the prefix that it leads to.

        Nothing is locked: where two threads add at the same moment, one of the edges may be lost, and its rows are
        recorded as new ones once more.
        """
        known = self.after(key)
        if known is not None:
            return known
        if self.following is None:
            prefix.name = key
            self.following = prefix
            return prefix
        if self.others is NONE:
            self.others = {}
        return self.others.setdefault(key, prefix)

    def until(self, count: int) -> Prefix:
        """The first `count` rows of this prefix."""
        prefix = self
        while prefix.index >= count:
            assert prefix.parent is not None
            prefix = prefix.parent
        return prefix

    def since(self, start: int) -> list[Prefix]:
        """The prefixes that end with the rows from number `start` on, in their order."""
        prefix, found = self, []
        while prefix.index >= start:
            found.append(prefix)
            assert prefix.parent is not None
            prefix = prefix.parent
        found.reverse()
        return found


def root() -> Prefix:
    """No rows, followed by nothing so far."""
    return Prefix(None, (), 0, None)


class Shortcut(NamedTuple):
    """What a call of a function leads to."""

    end: Prefix
    usual: Place
    """Where all of its rows were recorded first, if that was one place."""
    numbers: tuple[bool | int | float, ...]
    """The slots that it appends."""
    several: tuple[int, ...]
    """How far behind the start its results are, if they are several."""


EMPTY = root()
"""The end of records that nothing will be added to."""


class Tree:
    """All prefixes of pending records, and the tables that they are keys of."""

    def __init__(self) -> None:
        self.root = root()
        self.size = 0
        self.tables: list[MutableMapping[Any, Any]] = []

    def forget(self) -> None:
        """Forgets all prefixes but those of records in use."""
        self.root = root()
        self.size = 0
        for table in self.tables:
            table.clear()

    def forget_if_large(self) -> None:
        if self.size > MOST:
            self.forget()


tree = Tree()
