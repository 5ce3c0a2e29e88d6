"""Adam (Kingma and Ba, 2015), AMSGrad (Reddi et al., 2018) and AdamW (Loshchilov and Hutter, 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges
from torturous.optim.options import as_number, learning_rate, not_negative, shares
from torturous.tensor import Tensor, multi_tensor


class Adam(GroupOptimizer):
    """Steps along the mean of the gradients over the root of the mean of their squares, bias-corrected.

    `weight_decay` is added to the gradient, or with `decoupled_weight_decay` shrinks the parameter itself;
    `amsgrad` divides by the largest mean square so far; `maximize` goes up the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params, lr=learning_rate(lr), betas=shares(betas), eps=not_negative("epsilon value", eps),
            weight_decay=not_negative("weight_decay value", weight_decay), amsgrad=amsgrad, maximize=maximize,
            foreach=foreach, capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=decoupled_weight_decay)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        entries = ["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * bool(group["amsgrad"])]
        steps, states = self._buffers(params, changes, **dict.fromkeys(entries, 0.0))
        means, squares, largest = (*states, None)[:3]
        beta1, beta2 = group["betas"]
        multi_tensor.adam(
            params, grads, means, squares, largest, steps, as_number(group["lr"]), beta1, beta2, group["eps"],
            group["weight_decay"], group["decoupled_weight_decay"], group["maximize"])


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters themselves."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        super().__setstate__(attributes)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
