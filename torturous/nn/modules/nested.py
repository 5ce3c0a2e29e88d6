"""What the parts of `Module` that have files of their own know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor


class Nested(Protocol):
    """Something with tensors of its own that is called, and that holds others like it."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _non_persistent_buffers: set[str]
    _called: bool

    @property
    def forward(self) -> Callable[..., Any]: ...

    def parameters(self) -> Iterable[Parameter]: ...

    def named_modules(self, *, remove_duplicate: bool = True) -> Iterable[tuple[str, Nested]]: ...
