"""`torch.version`: this version, and those of the libraries that PyTorch may be built with, none of which is here."""

from __future__ import annotations

__version__ = "0.1.0"
debug = False
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
