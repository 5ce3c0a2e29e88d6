"""Rprop, steps whose sizes follow the signs of the gradients only (Riedmiller and Braun, 1993)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges
from torturous.optim.options import as_number, learning_rate
from torturous.tensor import Tensor, multi_tensor


class Rprop(GroupOptimizer):
    """Every element has a step size: times the larger of `etas` while its gradient keeps its sign, else the smaller."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(
            params, lr=learning_rate(lr), etas=etas, step_sizes=step_sizes, foreach=foreach, maximize=maximize,
            differentiable=differentiable, capturable=capturable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        _, states = self._buffers(params, changes, prev=0.0, step_size=as_number(group["lr"]))
        multi_tensor.rprop([params, grads, *states], *group["etas"], *group["step_sizes"], group["maximize"])
