"""RAdam, Adam whose first steps wait for the spread to be known (Liu et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative, shares
from torturous.tensor import Tensor, multi_tensor


class RAdam(GroupOptimizer):
    """Steps along the mean of the gradients, once their mean square is of enough of them divided by its root."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), betas=shares(betas), eps=not_negative("epsilon value", eps),
            weight_decay=not_negative("weight_decay value", weight_decay), maximize=maximize, foreach=foreach,
            capturable=capturable, decoupled_weight_decay=decoupled_weight_decay, differentiable=differentiable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        beta1, beta2 = group["betas"]
        rate, decay = as_number(group["lr"]), group["weight_decay"]
        shrunk = 1 - rate * decay if group["decoupled_weight_decay"] and decay else None
        steps, states = self._buffers(params, changes, exp_avg=0.0, exp_avg_sq=0.0)
        for step, kinds in by_step(steps, params, grads, *states):
            multi_tensor.radam(
                kinds, rate / (1 - beta1**step), _rectification(step, beta2), beta1, beta2, group["eps"],
                0.0 if shrunk is not None else decay, shrunk, group["maximize"])


def _rectification(step: int, beta2: float) -> float | None:
    """What the quotient is multiplied by, or None while the mean square is of too few gradients."""
    correction = 1 - beta2**step
    most = 2 / (1 - beta2) - 1
    length = most - 2 * step * beta2**step / correction
    if length <= 5.0:
        return None
    variance = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
    return (variance * correction) ** 0.5
