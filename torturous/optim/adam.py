"""Adam (Kingma and Ba, 2015), AMSGrad (Reddi et al., 2018) and AdamW (Loshchilov and Hutter, 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torturous.optim.optimizer import (
    Group,
    GroupOptimizer,
    StateChanges,
    as_number,
    check_betas,
    check_implementation,
    check_learning_rate,
    check_range,
)
from torturous.tensor import Tensor, multi_tensor, zeros_like


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
        check_learning_rate(lr)
        check_range("epsilon value", eps)
        betas = check_betas(betas)
        check_range("weight_decay value", weight_decay)
        check_implementation(foreach, fused, differentiable, capturable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        names = ["exp_avg", "exp_avg_sq"]
        if group["amsgrad"]:
            names.append("max_exp_avg_sq")
        buffers: dict[str, list[Tensor]] = {name: [] for name in names}
        steps = []
        for param in params:
            state = self.state[param]
            step = state.get("step", 0) + 1
            changes.set(state, "step", step)
            steps.append(step)
            for name in names:
                buffers[name].append(changes.buffer(state, name, partial(zeros_like, param)))
        beta1, beta2 = group["betas"]
        multi_tensor.adam(
            params,
            grads,
            buffers["exp_avg"],
            buffers["exp_avg_sq"],
            buffers.get("max_exp_avg_sq"),
            steps,
            as_number(group["lr"]),
            beta1,
            beta2,
            group["eps"],
            group["weight_decay"],
            group["decoupled_weight_decay"],
            group["maximize"],
        )


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
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        super().__setstate__(attributes)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
