"""`torch.jit`, for programs that call it: here everything is compiled already, so functions stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torturous.core.errors import UnsupportedError

F = TypeVar("F", bound=Callable[..., Any])


def script(obj: F, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> F:
    """The function or module itself: its Python is run as it is, and what it computes is compiled in any case.

    It is not made a program of PyTorch's own, so it has no `save`, `graph` or `code`; to leave Python, export it with
    `torturous.native`. AssertionError for what cannot be called.
    """
    if not callable(obj):
        raise AssertionError(f"script(): a function, class or module is wanted, not {type(obj).__name__}")
    return obj


def trace(func: Any, example_inputs: Any = None, **options: Any) -> Any:
    """UnsupportedError: programs are not frozen into PyTorch's own form here."""
    raise UnsupportedError("torch.jit.trace: call the function or module itself, which is compiled in any case; to "
                           "leave Python, export it with torturous.native")


def ignore(drop: Any = False, **options: Any) -> Any:
    """Marks what a script leaves to Python: everything is left to Python here, so it changes nothing."""
    return drop if callable(drop) else lambda function: function


def unused(fn: F) -> F:
    """Marks what a script never calls; changes nothing."""
    return fn


def export(fn: F) -> F:
    """Marks what a script keeps; changes nothing."""
    return fn


def is_scripting() -> bool:
    """Whether this code is being made a script: never."""
    return False


def is_tracing() -> bool:
    """Whether this code is being traced: never."""
    return False


__all__ = ["export", "ignore", "is_scripting", "is_tracing", "script", "trace", "unused"]
