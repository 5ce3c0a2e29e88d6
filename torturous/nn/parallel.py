"""Wrappers that PyTorch programs put around a model to use several devices. There is one device here: the CPU."""

from __future__ import annotations

from typing import Any

from torturous.nn.modules.module import Module


class DataParallel(Module):
    """Calls `module`; what PyTorch's does where there are no GPUs. Saved names begin with `module.`, as there.

    `device_ids`, `output_device` and `dim` say how a batch is divided among GPUs; there are none to divide it among.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim
        self.module = module
        self.device_ids: list[Any] = []
        self.output_device = output_device

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


__all__ = ["DataParallel"]
