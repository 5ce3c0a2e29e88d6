"""Adamax, the form of Adam with the largest gradient in place of the mean square (Kingma and Ba, 2015)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative, shares
from torturous.tensor import Tensor, multi_tensor


class Adamax(GroupOptimizer):
    """Steps along the mean of the gradients over the largest of them, which fades by the second beta."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), betas=shares(betas), eps=not_negative("epsilon value", eps),
            weight_decay=not_negative("weight_decay value", weight_decay), foreach=foreach, maximize=maximize,
            differentiable=differentiable, capturable=capturable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        beta1, beta2 = group["betas"]
        steps, states = self._buffers(params, changes, exp_avg=0.0, exp_inf=0.0)
        for step, kinds in by_step(steps, params, grads, *states):
            rate = as_number(group["lr"]) / (1 - beta1**step)
            multi_tensor.adamax(kinds, rate, beta1, beta2, group["eps"], group["weight_decay"], group["maximize"])
