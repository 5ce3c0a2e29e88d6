"""V-Net on volumes of 32³ and 64³: a training step.

    python -m benchmarks vnet
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models.vnet import make_vnet
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program


def training(side: Side, size: int, width: int, depths: tuple[int, ...]) -> Program:
    model = make_vnet(side.torch, width, depths)
    optimizer = side.optimizer("SGD", model.parameters(), lr=1e-3, momentum=0.9)
    random = np.random.default_rng(0)
    x = side.tensor(random.standard_normal((1, 1, size, size, size)))
    y = side.torch.tensor(random.integers(0, 2, (1, size, size, size)))
    cross_entropy = side.torch.nn.functional.cross_entropy
    return Program(training_step(side, model, optimizer, lambda x, y: cross_entropy(model(x), y), (x, y)))


def cases(tiny: bool) -> list[Case]:
    sizes, width, depths = ((8,), 2, (1, 1, 2)) if tiny else ((32, 64), 16, (1, 2, 3, 3, 3))
    return [Case(f"training step, {size}³", partial(training, size=size, width=width, depths=depths), training=True,
                 random=True, tolerance=1e-3, bars=(Bar(better=1.15),)) for size in sizes]
