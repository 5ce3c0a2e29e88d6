"""In-place forms of views: the tensor itself looks at its memory in another way from now on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from torturous.tensor.movement import Movement

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def turning(method: Callable[..., Any]) -> Callable[..., Any]:
    """`t_ = turning(t)`: the tensor becomes the view of itself that the method makes.

    RuntimeError for a leaf that requires grad while gradients are tracked, as for any in-place operation.
    """

    @wraps(method)
    def turn(self: Any, *arguments: Any, **named: Any) -> Any:
        self._changeable()
        before = self._alias_tensor()
        before._requires_grad = self._requires_grad
        view = method(before, *arguments, **named)
        for name in ("base", "steps", "_type", "_strides", "_offset", "_record", "_index", "_seen"):
            setattr(self, name, getattr(view, name))
        return self

    turn.__name__ += "_"
    turn.__qualname__ += "_"
    return turn


class Turning(Movement):
    """Methods that change how a tensor looks at its memory."""

    __slots__ = ()

    t_, transpose_, swapaxes_ = turning(Movement.t), turning(Movement.transpose), turning(Movement.swapaxes)
    swapdims_, squeeze_, unsqueeze_ = turning(Movement.swapdims), turning(Movement.squeeze), turning(Movement.unsqueeze)

    def resize(self, *sizes: Any) -> Tensor:
        """PyTorch's deprecated `resize`: the same elements under another shape, whose sizes multiply up to as many."""
        return self.contiguous().view(*sizes)

    def sum_to_size(self, *size: Any) -> Tensor:
        """Summed over what broadcasting from a shape would have repeated; RuntimeError where it does not broadcast."""
        t: Any = self
        wanted = tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else size
        lead = len(t.shape) - len(wanted)
        if lead < 0 or any(a not in (1, b) for a, b in zip(wanted, t.shape[lead:], strict=True)):
            raise RuntimeError(f"size {{{list(wanted)}}} is not expandable to size {{{list(t.shape)}}}.")
        t = t.sum(list(range(lead))) if lead else t
        axes = [axis for axis, size in enumerate(wanted) if size == 1 and t.shape[axis] != 1]
        return t.sum(axes, True) if axes else t

    def narrow_copy(self, dim: int, start: int, length: int) -> Tensor:
        """`narrow` as a copy."""
        return self.narrow(dim, start, length).clone()


__all__ = ["Turning", "turning"]
