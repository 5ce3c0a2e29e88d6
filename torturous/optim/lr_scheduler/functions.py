"""Schedules that are functions of the user's."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torturous.optim.lr_scheduler.scheduler import LRScheduler, check_optimizer, per_group, rates_of
from torturous.optim.optimizer import Optimizer


class LambdaLR(LRScheduler):
    """The initial rate times a function of the epoch; one function, or a list of one per group.

    Plain functions are not saved with the state; callable objects are, by their fields.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.lr_lambdas: list[Callable[[int], float]] = per_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [
            base * function(self.last_epoch)
            for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["lr_lambdas"] = [
            None if isinstance(function, types.FunctionType) else dict(function.__dict__)
            for function in self.lr_lambdas
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        fields = dict(state_dict)
        for function, saved in zip(self.lr_lambdas, fields.pop("lr_lambdas"), strict=True):
            if saved is not None:
                function.__dict__.update(saved)
        super().load_state_dict(fields)


class MultiplicativeLR(LambdaLR):
    """The rate times a function of the epoch, every epoch; one function, or a list of one per group."""

    def get_lr(self) -> list[float]:
        rates = rates_of(self.optimizer)
        if self._is_initial:
            return rates
        return [rate * function(self.last_epoch) for rate, function in zip(rates, self.lr_lambdas, strict=True)]
