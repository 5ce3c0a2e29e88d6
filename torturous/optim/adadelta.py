"""Adadelta (Zeiler, 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges
from torturous.optim.options import as_number, learning_rate, not_negative, within
from torturous.tensor import Tensor, multi_tensor


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
        super().__init__(
            params, lr=learning_rate(lr), rho=within("rho value", rho, 0.0, 1.0),
            eps=not_negative("epsilon value", eps), weight_decay=not_negative("weight_decay value", weight_decay),
            maximize=maximize, capturable=capturable, foreach=foreach, differentiable=differentiable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        _, states = self._buffers(params, changes, square_avg=0.0, acc_delta=0.0)
        multi_tensor.adadelta([params, grads, *states], as_number(group["lr"]), group["rho"], group["eps"],
                              group["weight_decay"], group["maximize"])
