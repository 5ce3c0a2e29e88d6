"""Learning-rate schedules: PyTorch's `torch.optim.lr_scheduler` under the same names."""

from __future__ import annotations

from torturous.optim.lr_scheduler.composed import ChainedScheduler, SequentialLR
from torturous.optim.lr_scheduler.cyclic import CosineAnnealingWarmRestarts, CyclicLR
from torturous.optim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from torturous.optim.lr_scheduler.one_cycle import OneCycleLR
from torturous.optim.lr_scheduler.plateau import ReduceLROnPlateau
from torturous.optim.lr_scheduler.scheduler import LRScheduler
from torturous.optim.lr_scheduler.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)

_LRScheduler = LRScheduler
"""The older name of the base class."""

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "ExponentialLR",
    "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]
