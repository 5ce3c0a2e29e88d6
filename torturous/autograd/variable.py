"""`Variable`, what PyTorch called tensors with gradients, once."""

from __future__ import annotations

from typing import Any

from torturous.tensor import Tensor, empty
from torturous.tensor.base import TensorBase
from torturous.tensor.warn import warn_user


class _Kind(type):
    """Calling the class gives a tensor, and every tensor is an instance of it."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, TensorBase)

    def __call__(cls, data: Any = None, requires_grad: bool = False, volatile: Any = None) -> Tensor:
        if data is None:
            data = empty(0)
        if not isinstance(data, TensorBase):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        if volatile is not None:
            warn_user("volatile was removed and now has no effect. Use `with torch.no_grad():` instead.")
        return data.detach().requires_grad_(requires_grad)


class Variable(metaclass=_Kind):
    """`Variable(data, requires_grad=False)`: a tensor that shares the data's memory, without its history.

    TypeError where `data` is no tensor. `volatile` has no effect, as PyTorch warns.
    """


__all__ = ["Variable"]
