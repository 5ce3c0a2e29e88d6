"""`torch.compile`, for programs that call it: here everything is compiled already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.core.errors import UnsupportedError


def compile(model: Callable[..., Any] | None = None, *, fullgraph: bool = False, dynamic: bool | None = None,
            backend: str | Callable[..., Any] = "inductor", mode: str | None = None,
            options: dict[str, Any] | None = None, disable: bool = False) -> Any:
    """The module or function itself, or a decorator that gives it.

    All operations are recorded and compiled together with or without this call, whatever control flow and sizes there
    are, so there is nothing for the options to choose. UnsupportedError for a backend of the caller's own, which would
    want PyTorch's graphs; RuntimeError where both mode and options are given, AssertionError for what cannot be called.
    """
    if not isinstance(backend, str):
        raise UnsupportedError("compile(): a backend of your own cannot be called: there is no graph of PyTorch's here")
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if model is None:
        return lambda function: compile(function, backend=backend)
    if not callable(model):
        raise AssertionError(f"compile(): a module or function is wanted, not {type(model).__name__}")
    return model
