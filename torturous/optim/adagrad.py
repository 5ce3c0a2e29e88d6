"""Adagrad (Duchi et al., 2011)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative
from torturous.tensor import Tensor, multi_tensor


class Adagrad(GroupOptimizer):
    """Steps along the gradient over the root of the sum of its squares; the rate falls by `lr_decay`."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), lr_decay=not_negative("lr_decay value", lr_decay),
            eps=not_negative("epsilon value", eps), weight_decay=not_negative("weight_decay value", weight_decay),
            initial_accumulator_value=not_negative("initial_accumulator_value value", initial_accumulator_value),
            foreach=foreach, maximize=maximize, differentiable=differentiable, fused=fused)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its accumulators exist from the beginning, as in PyTorch."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for param in group["params"]:
            self.state[param] = {"step": 0, "sum": multi_tensor.state_of(param, group["initial_accumulator_value"])}

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        steps, (sums,) = self._buffers(params, changes, sum=group["initial_accumulator_value"])
        for step, kinds in by_step(steps, params, grads, sums):
            rate = as_number(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
            multi_tensor.adagrad(kinds, rate, group["eps"], group["weight_decay"], group["maximize"])
