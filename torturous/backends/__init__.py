"""`torch.backends`: the libraries that PyTorch leans on, none of which is used here.

Their switches can be read and set as in PyTorch without them, and steer nothing: there is nothing to steer.
"""

from __future__ import annotations

from torturous.backends import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
