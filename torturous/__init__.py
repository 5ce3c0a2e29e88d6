"""PyTorch's API in pure Python, on NumPy and LLVM."""

from __future__ import annotations

from torturous import (
    accelerator,
    amp,
    autograd,
    backends,
    cpu,
    cuda,
    distributions,
    func,
    jit,
    linalg,
    mps,
    nn,
    optim,
    serialization,
    testing,
    utils,
    version,
    xpu,
)
from torturous.interop import load, save
from torturous.nn.compiling import compile
from torturous.runtime.threads import get_num_threads, set_num_threads
from torturous.tensor import *  # noqa: F403
from torturous.tensor import __all__ as _tensor_names
from torturous.version import __version__

__all__ = [
    *_tensor_names,
    "__version__", "accelerator", "amp", "autograd", "backends", "compile", "cpu", "cuda", "distributions", "func",
    "get_num_threads", "jit", "linalg", "load", "mps", "nn", "optim", "save", "serialization", "set_num_threads",
    "testing", "utils", "version", "xpu",
]
