"""Hook tables and the handles that take a hook out of its table again."""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import Any, TypeVar

Entry = TypeVar("Entry")


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook out, and so does leaving a `with` block.

    The handle holds its table strongly, so it survives copying and pickling together with the table's owner.
    """

    def __init__(self, table: OrderedDict[int, Any], identifier: int) -> None:
        self.id = identifier
        self._table: OrderedDict[int, Any] | None = table

    def remove(self) -> None:
        """Take the hook out of its table; a second call does nothing."""
        if self._table is not None:
            self._table.pop(self.id, None)
            self._table = None

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


def add_hook(table: OrderedDict[int, Entry], entry: Entry, prepend: bool = False) -> RemovableHandle:
    """Put `entry` last (or first, with `prepend`) in `table` and return its handle."""
    identifier = max(table, default=-1) + 1
    table[identifier] = entry
    if prepend:
        table.move_to_end(identifier, last=False)
    return RemovableHandle(table, identifier)
