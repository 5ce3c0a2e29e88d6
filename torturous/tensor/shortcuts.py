"""Shortcuts: what a function has recorded is recorded again in one step.

Many functions check their operands, work out shapes and record a few rows, all of which follows from the rows that
their operands are and from their options. So where a record has come to a prefix at which the function was called
before, with the same rows and options, it goes on to the prefix that the call led to then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from torturous.core.unknowns import Unknown
from torturous.ir.prefix import Prefix, Shortcut, tree
from torturous.ir.record import LEAF, Record, context, user_place
from torturous.tensor.applying import note_end, wrap
from torturous.tensor.base import TensorBase

F = TypeVar("F", bound=Callable[..., Any])
_NONE: dict[tuple, Any] = {}


def shortcut(operands: int) -> Callable[[F], F]:
    """A decorator for functions whose first arguments, so many, are tensors or None, and the others options: all
    arguments but the last n where `operands` is −n.

    Such a function is called with positions alone. It gives a new tensor, or several of which none is realized before
    the caller has called `note_end`, and what it records must follow from its operands' rows and its options: not from
    strides, values or the state of anything. The options of a call that cannot be hashed are looked at each time.
    """
    def decorate(function: F) -> F:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            record = context.record
            codes: list[int | None] = []
            for value in arguments[:operands]:
                if value is None:
                    codes.append(None)
                elif not isinstance(value, TensorBase):
                    return function(*arguments)
                else:
                    storage = value._storage
                    codes.append(
                        value._index if value._record is record and (storage is None or value._seen == storage.version)
                        else value.row())
            if context.record is not record:  # Entering an operand has realized what others were entered into.
                return function(*arguments)
            options = arguments[operands:]
            kinds = tuple(map(type, options))  # For 1, 1.0 and True are equal.
            start = record.end
            key = (function, record.tracking, len(record.slots), *codes, options, kinds)
            try:
                known = (start.shortcuts or _NONE).get(key)
            except TypeError:
                return function(*arguments)
            if known is None:
                result = _kept_together(record, function, arguments)
                if _names_itself(options):
                    _remember(key, record, start, result)
                if isinstance(result, TensorBase) and context.record is record:
                    note_end(record)
                return result
            end, usual, numbers, several = known
            place = user_place()
            if usual is not place:
                record.moved.update(dict.fromkeys(range(start.index + 1, end.index + 1), place))
            record.slots += numbers
            record.end = end
            if several:
                return tuple([TensorBase._of_row(record, start.index + distance) for distance in several])
            return wrap(record)

        return call  # type: ignore[return-value]

    return decorate


def _kept_together(record: Record, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Calls a function none of whose rows is realized before all are recorded."""
    room, record.room = record.room, sys.maxsize
    try:
        return function(*arguments)
    finally:
        record.room = min(room, record.room)


def _names_itself(options: Sequence[Any]) -> bool:
    """Whether options are the same as all others that are equal and of the same types: a number that is not known yet
    is not, nor is a zero, which has a sign."""
    return not any(isinstance(option, Unknown) or (isinstance(option, float) and not option) for option in options)


def _remember(key: tuple, record: Record, start: Prefix, result: Any) -> None:
    """Keeps where a call has led to, if that is all there is to it."""
    end, results = record.end, result if isinstance(result, tuple) else (result,)
    if context.record is not record or any(t._record is not record or t._storage is not None for t in results):
        return
    added = end.since(start.index + 1)
    if any(prefix.row[0] == LEAF.number for prefix in added):
        return
    places = tuple(t._index - start.index for t in results)
    if min(places) <= 0 or (result is results[0] and places[0] != len(added)):
        return
    usual = end.place if all(prefix.place is end.place for prefix in added) else None
    tree.size += 1
    if start.shortcuts is None:
        start.shortcuts = {}
    start.shortcuts[key] = Shortcut(
        end, usual, tuple(record.slots[key[2]:]), () if result is results[0] else places)


__all__ = ["shortcut"]
