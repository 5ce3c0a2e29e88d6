"""Whether operations are tracked for gradients: a switch of each thread, as context managers and
decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from torturous.ir.record import context

F = TypeVar("F", bound=Callable[..., Any])


def is_grad_enabled() -> bool:
    """Whether operations of this thread are tracked for gradients."""
    return context.tracking


class _Switch:
    """Sets the switch within a `with` block, or within a decorated function or generator."""

    def __init__(self, tracking: bool) -> None:
        self._tracking = tracking
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(context.tracking)
        context.tracking = self._tracking

    def __exit__(self, *error: object) -> None:
        context.tracking = self._before.pop()

    def __call__(self, function: F) -> F:
        tracking = self._tracking
        if inspect.isgeneratorfunction(function):
            @functools.wraps(function)
            def generate(*arguments: Any, **named: Any) -> Any:
                return _switched(function(*arguments, **named), tracking)

            return generate  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            with _Switch(tracking):
                return function(*arguments, **named)

        return call  # type: ignore[return-value]


def _switched(generator: Generator[Any, Any, Any], tracking: bool) -> Generator[Any, Any, Any]:
    """A generator whose own steps run with the switch set, and its consumer's with the consumer's setting."""
    sent: Any = None
    resume: Callable[[Any], Any] = generator.send
    while True:
        with _Switch(tracking):
            try:
                value = resume(sent)
            except StopIteration as stop:
                return stop.value
        try:
            sent, resume = (yield value), generator.send
        except GeneratorExit:
            with _Switch(tracking):
                generator.close()
            raise
        except BaseException as error:
            sent, resume = error, generator.throw


class no_grad(_Switch):
    """Within it nothing is tracked: `with no_grad():`, or as a decorator, with or without parentheses."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(False)


class enable_grad(_Switch):
    """Within it operations are tracked, also inside `no_grad`."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)

    def __init__(self, function: None = None) -> None:
        super().__init__(True)


class set_grad_enabled(_Switch):
    """Sets the switch at once, and back at the end if used as a context manager."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._at_creation = context.tracking
        context.tracking = bool(mode)

    def __enter__(self) -> None:
        self._before.append(self._at_creation)
        context.tracking = self._tracking

    def __call__(self, function: F) -> F:
        context.tracking = self._at_creation
        return super().__call__(function)


class inference_mode(_Switch):
    """As `no_grad` (`inference_mode(False)`: as `enable_grad`).

    PyTorch also forbids later use of what was made within for gradients; here that is allowed, since tracking
    costs an untracked tensor nothing.
    """

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        return super().__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode)


__all__ = ["enable_grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]
