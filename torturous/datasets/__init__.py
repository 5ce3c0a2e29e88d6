"""Data sets: `Digits`, embedded in the package, and `MNIST` with its relatives, read from IDX files."""

from __future__ import annotations

from torturous.datasets.digits import Digits
from torturous.datasets.mnist import KMNIST, MNIST, FashionMNIST

__all__ = ["KMNIST", "MNIST", "Digits", "FashionMNIST"]
