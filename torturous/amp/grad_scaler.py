"""Scaling of losses, so that gradients of float16 do not vanish: `GradScaler`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from torturous.core.devices import device as Device
from torturous.tensor import Tensor, no_grad

UNSCALED, STEPPED = "unscaled", "stepped"


class GradScaler:
    """Multiplies losses by a scale, divides gradients by it, and leaves out steps whose gradients are not finite.

    After such a step `update` multiplies the scale by `backoff_factor`; after `growth_interval` good ones in a row by
    `growth_factor`. For a GPU it warns and does nothing, as PyTorch's does on a CPU: a training loop written with it
    runs unchanged.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True) -> None:
        self._device = Device(device).type
        if enabled and self._device != "cpu":
            warnings.warn(f"torch.{device}.amp.GradScaler is enabled, but there is no such device, only the CPU. "
                          "Disabling.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        if enabled and not growth_factor > 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if enabled and not backoff_factor < 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._scale = float(init_scale)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._states: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """What has been done for each optimizer since the last update."""
        self._not_finite: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

    def scale(self, outputs: Any) -> Any:
        """Losses times the scale: a tensor, or tensors in lists or tuples."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Any) -> None:
        """Divides an optimizer's gradients by the scale; once between updates, as RuntimeError says."""
        if not self._enabled:
            return
        state = self._states.get(optimizer)
        if state is UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if state is STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        finite: Any = None
        with no_grad():
            for g in gradients:
                g.mul_(1.0 / self._scale)
                here = g.isfinite().all()
                finite = here if finite is None else finite & here
        self._not_finite[optimizer] = not bool(finite)
        self._states[optimizer] = UNSCALED

    def step(self, optimizer: Any, *arguments: Any, **named: Any) -> Any:
        """`optimizer.step()` where all gradients are finite, else nothing; unscales first if that has not been done."""
        if not self._enabled:
            return optimizer.step(*arguments, **named)
        if "closure" in named:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        if self._states.get(optimizer) is STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if self._states.get(optimizer) is None:
            self.unscale_(optimizer)
        result = None if self._not_finite[optimizer] else optimizer.step(*arguments, **named)
        self._states[optimizer] = STEPPED
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Makes the scale larger or smaller, by what steps since the last update have met, or what is given."""
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._not_finite:
            raise AssertionError("No inf checks were recorded prior to update.")
        elif any(self._not_finite.values()):
            self._scale *= self._backoff_factor
            self._growth_tracker = 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker == self._growth_interval:
                self._scale *= self._growth_factor
                self._growth_tracker = 0
        self._states.clear()
        self._not_finite.clear()

    # What it is set to --------------------------------------------------------------------------------------
    def get_scale(self) -> float:
        """The scale; 1 where disabled."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        return self._enabled

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on; empty where disabled."""
        if not self._enabled:
            return {}
        return {"scale": self._scale, "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
                "growth_interval": self._growth_interval, "_growth_tracker": self._growth_tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a saved state; RuntimeError for an empty one."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled instance "
                               "of GradScaler.")
        self._scale, self._growth_factor = state_dict["scale"], state_dict["growth_factor"]
        self._backoff_factor, self._growth_interval = state_dict["backoff_factor"], state_dict["growth_interval"]
        self._growth_tracker = state_dict["_growth_tracker"]
