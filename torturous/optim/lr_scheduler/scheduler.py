"""The base of all learning-rate schedules. Each recurrence is computed in PyTorch's order, so the rates are equal to
the bit.

`scheduler.step()` is called after `optimizer.step()`, once per epoch (or whatever the schedule counts).
"""

from __future__ import annotations

import warnings
from typing import Any

from torturous.optim.optimizer import Group, Optimizer
from torturous.optim.options import as_number
from torturous.tensor import Tensor

EPOCH_DEPRECATED = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. "
    "Please use `scheduler.step()` to step the scheduler."
)


def rates_of(optimizer: Optimizer, key: str = "lr") -> list[float]:
    """The learning rates of all groups, or what else they hold under a name."""
    return [as_number(group[key]) for group in optimizer.param_groups]


def set_rate(group: Group, rate: float) -> None:
    """Sets a group's learning rate, in place where it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(as_number(rate))
    else:
        group["lr"] = rate


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """`value` for each parameter group: a list gives one each."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"expected {groups} values for {name}, got {len(value)}")
    return list(value)


def check_optimizer(optimizer: Any) -> None:
    """TypeError for what is no optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


class LRScheduler:
    """The base of the schedules; a subclass defines `get_lr`, the rates of all groups at `last_epoch`.

    `last_epoch` is -1 for a fresh start; otherwise the optimizer's groups hold `initial_lr` already, or
    `KeyError` is raised. A subclass may define `_get_closed_form_lr`, the same without recurrence.
    """

    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for position, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", as_number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{position}] when resuming a "
                    "scheduler with last_epoch >= 0; load the optimizer's state first, or start at -1"
                )
        self.base_lrs = rates_of(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The rates at `last_epoch`, from the ones before; use `get_last_lr` to look at the current ones."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Advance by one (or, deprecated, to `epoch`) and set the optimizer's rates."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite "
                "order: otherwise the first value of the learning rate schedule is skipped.",
                UserWarning,
                stacklevel=2,
            )
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            warnings.warn(EPOCH_DEPRECATED, UserWarning, stacklevel=2)
            self.last_epoch = epoch
            rates = getattr(self, "_get_closed_form_lr", self.get_lr)()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, rate)
        self._last_lr = rates_of(self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """All fields but the optimizer."""
        return {name: value for name, value in self.__dict__.items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the fields that `state_dict` gave."""
        self.__dict__.update(state_dict)
