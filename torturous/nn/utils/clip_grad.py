"""Limiting gradients, by their norm or by their values. Gradients are changed in place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from types import GeneratorType

from torturous.tensor import Tensor, multi_tensor, no_grad, tensor


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm (0-d) of all tensors taken as one vector, as the norm of their norms.

    `foreach` chooses between PyTorch's implementations; here there is one, and it fuses.
    Raises `RuntimeError` for a norm that is not finite if `error_if_nonfinite`.
    """
    order = float(norm_type)
    parts = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not parts:
        return tensor(0.0)
    with no_grad():
        total = multi_tensor.total_norm(parts, order)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def _as_list(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        return [parameters]
    listed = list(parameters)
    if not listed and isinstance(parameters, GeneratorType):
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3
        )
    return listed


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients of `parameters` down so that their total norm is at most `max_norm`.

    Returns the total norm before (0-d). See `get_total_norm` for the other arguments.
    """
    gradients = [parameter.grad for parameter in _as_list(parameters) if parameter.grad is not None]
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    if gradients:
        multi_tensor.scale_to_norm(gradients, total, max_norm)
    return total


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor,
                          foreach: bool | None = None) -> None:
    """Scale the gradients, whose total norm is given, down so that it is at most `max_norm`."""
    gradients = [parameter.grad for parameter in _as_list(parameters) if parameter.grad is not None]
    if gradients:
        multi_tensor.scale_to_norm(gradients, total_norm, max_norm)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Cut off the elements of the gradients of `parameters` to [-clip_value, clip_value]."""
    limit = float(clip_value)
    gradients = [parameter.grad for parameter in _as_list(parameters) if parameter.grad is not None]
    multi_tensor.clamp(gradients, -limit, limit)
