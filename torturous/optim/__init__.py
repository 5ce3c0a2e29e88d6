"""Optimizers and learning-rate schedules: PyTorch's `torch.optim` under the same names."""

from __future__ import annotations

from torturous.optim import lr_scheduler
from torturous.optim.adagrad import Adagrad
from torturous.optim.adam import Adam, AdamW
from torturous.optim.optimizer import Optimizer
from torturous.optim.rmsprop import RMSprop
from torturous.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
