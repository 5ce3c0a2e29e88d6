"""Layers, losses, initialisation: PyTorch's `torch.nn` under the same names."""

from __future__ import annotations

from torturous.nn import attention, functional, init, modules, parallel, utils
from torturous.nn.modules import *  # noqa: F403
from torturous.nn.modules.module import on_outermost_call
from torturous.nn.parallel import DataParallel
from torturous.nn.parameter import Parameter, UninitializedParameter
from torturous.tensor.applying import cut_here

# Where a program's iterations begin, past the soft limit of pending rows, is where work is realized.
on_outermost_call.append(cut_here)

__all__ = [
    "DataParallel", "Parameter", "UninitializedParameter", "attention", "functional", "init", "modules", "parallel",
    "utils", *modules.__all__,
]
