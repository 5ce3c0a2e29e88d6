"""What a file that may hold nothing but weights can name beside them, as programs have registered it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

registered: dict[tuple[str, str], Any] = {}
"""Classes and functions, by the module and the name that they go by in files."""


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Lets `load` make objects of these classes (call these functions) though it reads weights only; a pair gives an
    object and the full name that it goes by."""
    for each in safe_globals:
        if isinstance(each, tuple):
            module, _, name = each[1].rpartition(".")
            registered[module, name] = each[0]
        else:
            registered[each.__module__, each.__qualname__] = each


def get_safe_globals() -> list[Any]:
    """What was added."""
    return list(registered.values())


def clear_safe_globals() -> None:
    """Forgets all that was added."""
    registered.clear()


class safe_globals:
    """As `add_safe_globals`, within a `with` block."""

    def __init__(self, safe_globals: Iterable[Any]) -> None:
        self._added = list(safe_globals)

    def __enter__(self) -> None:
        self._before = dict(registered)
        add_safe_globals(self._added)

    def __exit__(self, *error: object) -> None:
        registered.clear()
        registered.update(self._before)
