"""Averaged stochastic gradient descent (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torturous.core.unknowns import single
from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative
from torturous.tensor import Tensor, multi_tensor


class ASGD(GroupOptimizer):
    """Steps along the gradient at a falling rate; the state `ax` is the average of the parameters from step `t0` on."""

    numbers: ClassVar[frozenset[str]] = frozenset({"step", "eta", "mu"})

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), lambd=lambd, alpha=alpha, t0=t0,
            weight_decay=not_negative("weight_decay value", weight_decay), foreach=foreach, maximize=maximize,
            differentiable=differentiable, capturable=capturable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        rate, lambd = as_number(group["lr"]), group["lambd"]
        present = {id(param): (self.state[param].get("eta", single(rate)), self.state[param].get("mu", 1.0))
                   for param in params}
        for param in params:  # PyTorch's order of a state: numbers, then the average.
            changes.set(self.state[param], "step", self.state[param].get("step", 0) + 1)
            for name, number in zip(("eta", "mu"), present[id(param)], strict=True):
                changes.set(self.state[param], name, number)
        steps, (averages,) = self._buffers(params, changes, ax=0.0)
        for step, kinds in by_step(steps, params, grads, averages):
            eta, mu = present[id(kinds[0][0])]
            multi_tensor.asgd(kinds, eta, lambd, mu, group["weight_decay"], group["maximize"])
            for param in kinds[0]:
                changes.set(self.state[param], "eta", single(rate / (1 + lambd * rate * step) ** group["alpha"]))
                changes.set(self.state[param], "mu", single(1 / max(1, step - group["t0"])))
