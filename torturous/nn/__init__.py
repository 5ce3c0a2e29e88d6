"""Layers, losses, initialisation: PyTorch's `torch.nn` under the same names."""

from __future__ import annotations

from torturous.nn import attention, functional, init, modules, parallel, utils
from torturous.nn.modules import *  # noqa: F403
from torturous.nn.modules.module import on_outermost_call
from torturous.nn.modules.nested import Nested
from torturous.nn.parallel import DataParallel
from torturous.nn.parameter import Parameter, UninitializedParameter
from torturous.tensor.applying import cut_before_first_use, cut_here


def _cut(module: Nested) -> None:
    """Realizes before a module's first call, and where a program's iterations begin, past the soft limit of rows."""
    if not module._called:
        module._called = True
        cut_before_first_use(module.parameters())
    cut_here()


on_outermost_call.append(_cut)

__all__ = [
    "DataParallel", "Parameter", "UninitializedParameter", "attention", "functional", "init", "modules", "parallel",
    "utils", *modules.__all__,
]
