"""Shortcuts: what a function has recorded is recorded again in one step.

Many functions check their operands, work out shapes and record a few rows, all of which follows from the rows that
their operands are and from their options. So where a record has come to a prefix at which the function was called
before, with the same rows and options, it goes on to the prefix that the call led to then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torturous.core.unknowns import Unknown
from torturous.ir.prefix import Prefix, tree
from torturous.ir.record import LEAF, Record, context, user_place
from torturous.tensor.applying import wrap
from torturous.tensor.base import TensorBase

F = TypeVar("F", bound=Callable[..., Any])
_NONE: dict[tuple, Any] = {}


def shortcut(operands: int) -> Callable[[F], F]:
    """A decorator for functions whose first arguments, so many, are tensors or None, and the others options: all
    arguments but the last n where `operands` is −n.

    Such a function is called with positions alone. Its result must be a new tensor, and what it records must follow
    from its operands' rows and its options: not from strides, values or the state of anything. The options of a call
    that cannot be hashed are looked at each time.
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
            start, slots = record.end, record.slots
            key = (function, record.tracking, len(slots), *codes, options, kinds)
            try:
                known = (start.shortcuts or _NONE).get(key)
            except TypeError:
                return function(*arguments)
            if known is None:
                result = function(*arguments)
                if Unknown not in kinds:
                    _remember(key, record, start, result)
                return result
            end, numbers = known
            place = user_place()
            if end.place is not place:
                record.moved.update(dict.fromkeys(range(start.index + 1, end.index + 1), place))
            slots += numbers
            record.end = end
            return wrap(record, end.index)

        return call  # type: ignore[return-value]

    return decorate


def _remember(key: tuple, record: Record, start: Prefix, result: Any) -> None:
    """Keeps where a call has led to, if that is all there is to it."""
    end = record.end
    if context.record is not record or result._record is not record or result._storage is not None:
        return
    added = end.since(start.index + 1)
    if result._index != end.index or not added or any(
            prefix.row[0] == LEAF.number or prefix.place is not end.place for prefix in added):
        return
    tree.size += 1
    if start.shortcuts is None:
        start.shortcuts = {}
    start.shortcuts[key] = end, tuple(record.slots[key[2]:])


__all__ = ["shortcut"]
