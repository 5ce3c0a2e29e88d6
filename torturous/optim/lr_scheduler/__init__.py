"""Learning-rate schedules: PyTorch's `torch.optim.lr_scheduler` under the same names."""

from __future__ import annotations

from torturous.optim.lr_scheduler.composed import ChainedScheduler, SequentialLR
from torturous.optim.lr_scheduler.cyclic import CosineAnnealingWarmRestarts, CyclicLR
from torturous.optim.lr_scheduler.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

_LRScheduler = LRScheduler
"""The older name of the base class."""

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR",
    "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]
