"""Limiting gradients, by their norm or by their values. Gradients are changed in place."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from types import GeneratorType

from torturous.tensor import Tensor, clamp, no_grad, stack, tensor


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
        total = _norm(stack([_norm(part, order) for part in parts]), order)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def _norm(values: Tensor, order: float) -> Tensor:
    if order == 2.0:
        return (values * values).sum().sqrt()
    if order == math.inf:
        return values.abs().amax()
    if order == -math.inf:
        return values.abs().amin()
    if order == 0.0:
        return (values != 0).sum().to(values.dtype)
    return values.abs().pow(order).sum().pow(1.0 / order)


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
    with no_grad():
        scale = clamp(float(max_norm) / (total + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
    return total


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Cut off the elements of the gradients of `parameters` to [-clip_value, clip_value]."""
    limit = float(clip_value)
    with no_grad():
        for parameter in _as_list(parameters):
            if parameter.grad is not None:
                parameter.grad.clamp_(min=-limit, max=limit)
