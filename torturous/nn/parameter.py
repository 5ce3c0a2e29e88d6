"""`Parameter`: a tensor that a `Module` registers when it is assigned as an attribute."""

from __future__ import annotations

from typing import Any

from torturous.tensor import Tensor, empty, no_grad


class Parameter(Tensor):
    """A leaf tensor that belongs to a module and, unless told otherwise, is trained.

    `data` is any tensor; the parameter shares its memory. Operations on a parameter give plain tensors.
    Raises `TypeError` for anything that is not a tensor.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = empty(0)
        if not isinstance(data, Tensor):
            raise TypeError(f"Parameter() needs a Tensor as its data, but got {type(data).__name__}")
        return Tensor._make_subclass(cls, data.detach(), requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        # `__new__` has done everything; this only keeps `Tensor.__init__` from seeing our arguments.
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) in memo:
            return memo[id(self)]
        with no_grad():
            copied = type(self)(self.detach().clone(), self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__(**options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.detach(), self.requires_grad)


class UninitializedParameter(Parameter):
    """A parameter that has no shape yet: `materialize` gives it one, and makes it an ordinary parameter."""

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        made = Tensor._make_subclass(cls, empty(0, device=device, dtype=dtype), requires_grad)
        return made

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        pass

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Make this an ordinary parameter of a shape; its values are undefined."""
        self.data = empty(shape, device=device, dtype=self.dtype if dtype is None else dtype)
        self.__class__ = Parameter  # type: ignore[assignment]

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return "<UninitializedParameter>"

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, dtype=self.dtype)
        return memo[id(self)]
