"""Optimizers and learning-rate schedules: PyTorch's `torch.optim` under the same names."""

from __future__ import annotations

from torturous.optim import lr_scheduler
from torturous.optim.adadelta import Adadelta
from torturous.optim.adagrad import Adagrad
from torturous.optim.adam import Adam, AdamW
from torturous.optim.adamax import Adamax
from torturous.optim.asgd import ASGD
from torturous.optim.lbfgs import LBFGS
from torturous.optim.nadam import NAdam
from torturous.optim.optimizer import Optimizer
from torturous.optim.radam import RAdam
from torturous.optim.rmsprop import RMSprop
from torturous.optim.rprop import Rprop
from torturous.optim.sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop",
    "Rprop", "SGD", "lr_scheduler",
]
