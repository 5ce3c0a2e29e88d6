"""Layers, losses, initialisation: PyTorch's `torch.nn` under the same names."""

from __future__ import annotations

from torturous.nn import functional, init, modules, utils
from torturous.nn.modules import *  # noqa: F403
from torturous.nn.parameter import Parameter

__all__ = ["Parameter", "functional", "init", "modules", "utils", *modules.__all__]
