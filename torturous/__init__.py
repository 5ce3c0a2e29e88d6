"""PyTorch's API in pure Python, on NumPy and LLVM."""

from __future__ import annotations

from torturous import nn, optim, utils
from torturous.tensor import *  # noqa: F403
from torturous.tensor import __all__ as _tensor_names

__version__ = "0.1.0"
__all__ = ["__version__", "nn", "optim", "utils", *_tensor_names]
