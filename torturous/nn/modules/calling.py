"""What surrounds a module's `forward`: the nesting depth and the module's path in error messages."""

from __future__ import annotations

import threading
from collections.abc import Callable

from torturous.nn.modules.nested import Nested

on_outermost_call: list[Callable[[Nested], None]] = []
"""Called with the module whenever a `Module.__call__` begins that no other one surrounds (in its thread)."""


class Calls(threading.local):
    """How many module calls surround the current line of this thread."""

    depth = 0


calls = Calls()


def note_path(error: Exception, module: Nested, outermost: bool) -> None:
    """Add to `error` the path of the module it came from, as in `net.block.conv2 (Conv2d)`.

    Every call that the error leaves adds its module to a list on the error itself, so an error that is caught
    half-way leaves nothing behind; the outermost call turns the list into one line of the message.
    """
    failed = getattr(error, "_failed_modules", None)
    if failed is None:
        failed = error._failed_modules = []  # type: ignore[attr-defined]
    failed.append(module)
    if not outermost:
        return
    del error._failed_modules  # type: ignore[attr-defined]
    note = f"in module {module_path(failed[::-1])} ({type(failed[0]).__name__})"
    if hasattr(error, "add_note"):
        error.add_note(note)
    elif error.args and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}\n{note}", *error.args[1:])


def module_path(nested: list[Nested]) -> str:
    """The dotted path of the last of `nested`, modules of which each was called inside the one before it."""
    names = [type(nested[0]).__name__.lower()]
    for parent, child in zip(nested, nested[1:], strict=False):
        found = (name for name, module in parent.named_modules() if module is child and name)
        names.append(next(found, type(child).__name__.lower()))
    return ".".join(names)
