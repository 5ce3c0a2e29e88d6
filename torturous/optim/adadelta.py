"""Adadelta (Zeiler, 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import (
    Group,
    GroupOptimizer,
    StateChanges,
    as_number,
    check_implementation,
    check_learning_rate,
    check_range,
)
from torturous.tensor import Tensor, multi_tensor, zeros_like


class Adadelta(GroupOptimizer):
    """Steps along the gradient, scaled by the root of the mean square of past changes over that of gradients."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_learning_rate(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        check_range("epsilon value", eps)
        check_range("weight_decay value", weight_decay)
        check_implementation(foreach, None, differentiable, capturable)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        _, states = self._buffers(params, changes, square_avg=zeros_like, acc_delta=zeros_like)
        multi_tensor.adadelta([params, grads, *states], as_number(group["lr"]), group["rho"], group["eps"],
                              group["weight_decay"], group["maximize"])
