"""The options of optimizers, checked: each function gives what it was given, or raises what PyTorch raises."""

from __future__ import annotations

import math
from typing import Any

from torturous.tensor import Tensor


def as_number(value: Any) -> Any:
    """A hyperparameter as a Python number: PyTorch takes one-element tensors as well."""
    return value.item() if isinstance(value, Tensor) else value


def learning_rate(lr: Any) -> Any:
    """`ValueError` for a negative learning rate, or one given as a tensor of several elements."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not 0.0 <= as_number(lr):
        raise ValueError(f"Invalid learning rate: {lr}")
    return lr


def not_negative(name: str, value: float) -> float:
    """`ValueError`, naming the option, unless 0 <= value."""
    return within(name, value, 0.0, math.inf)


def within(name: str, value: float, least: float, most: float) -> float:
    """`ValueError`, naming the option, unless least <= value <= most."""
    if not least <= value <= most:
        raise ValueError(f"Invalid {name}: {value}")
    return value


def shares(betas: tuple[float, float]) -> tuple[float, float]:
    """The two as numbers; `ValueError` unless each is in [0, 1)."""
    for position, beta in enumerate(map(as_number, betas)):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {position}: {beta}")
    return as_number(betas[0]), as_number(betas[1])


def check_implementation(
    foreach: bool | None = None, fused: bool | None = None, differentiable: bool = False, capturable: bool = False
) -> None:
    """Check the options that choose among PyTorch's implementations of a step.

    `foreach` and `fused` change no result, and a step is fused here in any case. The other two ask for what
    there is not: a step that is itself differentiated, and a CUDA graph.
    """
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if differentiable:
        raise NotImplementedError("differentiable=True is not supported: steps are not recorded for autograd")
    if capturable:
        raise NotImplementedError("capturable=True is not supported: there are no CUDA graphs")
