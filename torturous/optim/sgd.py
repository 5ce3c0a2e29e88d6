"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.optim.optimizer import Group, GroupOptimizer, StateChanges, by_step
from torturous.optim.options import as_number, learning_rate, not_negative
from torturous.tensor import Tensor, multi_tensor

NOTHING = -0.0
"""What momentum begins as: added to a gradient it changes no bit, so that the first step is like all others."""


class SGD(GroupOptimizer):
    """p ← p - lr · b, where b ← momentum · b + (1 - dampening) · (g + weight_decay · p) (b ← g at first).

    `nesterov` steps along g + momentum · b instead; `maximize` goes up the gradient. Formulas as in PyTorch,
    after Sutskever et al. (2013).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params, lr=learning_rate(lr), momentum=not_negative("momentum value", momentum), dampening=dampening,
            weight_decay=not_negative("weight_decay value", weight_decay), nesterov=nesterov, maximize=maximize,
            foreach=foreach, differentiable=differentiable, fused=fused)

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        if group["momentum"] == 0:
            _call(group, params, grads, None, False)
            return
        buffers = [changes.buffer(self.state[param], "momentum_buffer", NOTHING, param) for param in params]
        if group["dampening"] == 0:
            _call(group, params, grads, buffers, False)
            return
        # A parameter's first step is not dampened.
        started = [int(self.state[param].get("momentum_buffer") is not None) for param in params]
        for has_started, (own, slopes, means) in by_step(started, params, grads, buffers):
            _call(group, own, slopes, means, not has_started)


def _call(
    group: Group, params: list[Tensor], grads: list[Tensor], buffers: list[Tensor] | None, first_step: bool
) -> None:
    multi_tensor.sgd(
        params,
        grads,
        buffers,
        as_number(group["lr"]),
        group["momentum"],
        group["dampening"],
        group["weight_decay"],
        group["nesterov"],
        group["maximize"],
        first_step,
    )
