"""Layers, losses, initialisation: PyTorch's `torch.nn` under the same names."""

from __future__ import annotations

from torturous.nn import functional, init, modules, utils
from torturous.nn.modules import *  # noqa: F403
from torturous.nn.modules.module import on_outermost_call
from torturous.nn.parameter import Parameter
from torturous.tensor.base import cut_here

# Where a program's iterations begin, past the soft limit of pending rows, is where work is realized.
on_outermost_call.append(cut_here)

__all__ = ["Parameter", "functional", "init", "modules", "utils", *modules.__all__]
