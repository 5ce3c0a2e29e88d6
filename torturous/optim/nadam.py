"""NAdam, Adam with Nesterov's momentum (Dozat, 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torturous.core.unknowns import single
from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative, shares
from torturous.tensor import Tensor, multi_tensor


class NAdam(GroupOptimizer):
    """Adam whose mean looks one step ahead; the first beta rises from its half, as `momentum_decay` says."""

    numbers: ClassVar[frozenset[str]] = frozenset({"step", "mu_product"})

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), betas=shares(betas), eps=not_negative("epsilon value", eps),
            weight_decay=not_negative("weight_decay value", weight_decay),
            momentum_decay=not_negative("momentum_decay value", momentum_decay),
            decoupled_weight_decay=decoupled_weight_decay, maximize=maximize, foreach=foreach, capturable=capturable,
            differentiable=differentiable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        beta1, beta2 = group["betas"]
        rate, decay = as_number(group["lr"]), group["weight_decay"]
        shrunk = 1 - rate * decay if group["decoupled_weight_decay"] and decay else None
        products = {id(param): self.state[param].get("mu_product", 1.0) for param in params}
        for param in params:  # PyTorch's order of a state: step, mu_product, then tensors.
            changes.set(self.state[param], "step", self.state[param].get("step", 0) + 1)
            changes.set(self.state[param], "mu_product", products[id(param)])
        steps, states = self._buffers(params, changes, exp_avg=0.0, exp_avg_sq=0.0)
        for step, kinds in by_step(steps, params, grads, *states):
            mu, ahead = (beta1 * (1.0 - 0.5 * 0.96 ** (at * group["momentum_decay"])) for at in (step, step + 1))
            product = single(products[id(kinds[0][0])] * single(mu))
            for param in kinds[0]:
                changes.set(self.state[param], "mu_product", product)
            multi_tensor.nadam(
                kinds, rate * (1 - mu) / (1 - product), rate * ahead / (1 - product * ahead), beta1, beta2,
                1 - beta2**step, group["eps"], 0.0 if shrunk is not None else decay, shrunk, group["maximize"])
