"""RMSprop (Hinton's lecture 6e, 2012), centred as in Graves (2013)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges
from torturous.optim.options import as_number, learning_rate, not_negative
from torturous.tensor import Tensor, multi_tensor


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
        super().__init__(
            params, lr=learning_rate(lr), momentum=not_negative("momentum value", momentum),
            alpha=not_negative("alpha value", alpha), eps=not_negative("epsilon value", eps), centered=centered,
            weight_decay=not_negative("weight_decay value", weight_decay), capturable=capturable, foreach=foreach,
            maximize=maximize, differentiable=differentiable)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        optional = {"momentum_buffer": group["momentum"] > 0, "grad_avg": group["centered"]}
        entries = ["square_avg", *(entry for entry, wanted in optional.items() if wanted)]
        _, states = self._buffers(params, changes, **dict.fromkeys(entries, 0.0))
        buffers = dict(zip(entries, states, strict=True))
        multi_tensor.rmsprop(
            params, grads, buffers["square_avg"], buffers.get("momentum_buffer"), buffers.get("grad_avg"),
            as_number(group["lr"]), group["alpha"], group["eps"], group["weight_decay"], group["momentum"],
            group["centered"], group["maximize"])
