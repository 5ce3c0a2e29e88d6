"""PyTorch's API in pure Python, on NumPy and LLVM."""

from __future__ import annotations

from torturous import autograd, nn, optim, utils
from torturous.interop import load, save
from torturous.runtime.workers import get_num_threads, set_num_threads
from torturous.tensor import *  # noqa: F403
from torturous.tensor import __all__ as _tensor_names

__version__ = "0.1.0"
__all__ = [
    "__version__", "autograd", "get_num_threads", "load", "nn", "optim", "save", "set_num_threads", "utils",
    *_tensor_names,
]
