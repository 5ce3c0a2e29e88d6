"""RMSprop (Hinton's lecture 6e, 2012), centred as in Graves (2013)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torturous.optim.optimizer import (
    Group,
    GroupOptimizer,
    StateChanges,
    as_number,
    check_implementation,
    check_learning_rate,
)
from torturous.tensor import Tensor, multi_tensor, zeros_like


class RMSprop(GroupOptimizer):
    """Steps along the gradient over the root of the mean of its squares.

    `centered` subtracts the squared mean of the gradients under the root; with `momentum` the quotient is
    accumulated; `maximize` goes up the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_learning_rate(lr)
        if not 0.0 <= eps:
            raise ValueError(f"Invalid epsilon value: {eps}")
        if not 0.0 <= momentum:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if not 0.0 <= weight_decay:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if not 0.0 <= alpha:
            raise ValueError(f"Invalid alpha value: {alpha}")
        check_implementation(foreach, None, differentiable, capturable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        names = ["square_avg"]
        if group["momentum"] > 0:
            names.append("momentum_buffer")
        if group["centered"]:
            names.append("grad_avg")
        buffers: dict[str, list[Tensor]] = {name: [] for name in names}
        for param in params:
            state = self.state[param]
            changes.set(state, "step", state.get("step", 0) + 1)
            for name in names:
                buffers[name].append(changes.buffer(state, name, partial(zeros_like, param)))
        multi_tensor.rmsprop(
            params,
            grads,
            buffers["square_avg"],
            buffers.get("momentum_buffer"),
            buffers.get("grad_avg"),
            as_number(group["lr"]),
            group["alpha"],
            group["eps"],
            group["weight_decay"],
            group["momentum"],
            group["centered"],
            group["maximize"],
        )
