"""A perceptron 784-128-10: a training step with Adam at batch 32.

    python -m benchmarks mlp
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program


def training(side: Side, sizes: tuple[int, int, int], batch: int) -> Program:
    nn = side.torch.nn
    model = nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[2]))
    optimizer = side.optimizer("Adam", model.parameters())
    random = np.random.default_rng(0)
    x = side.tensor(random.standard_normal((batch, sizes[0])))
    y = side.torch.tensor(random.integers(0, sizes[2], batch))
    return Program(training_step(side, model, optimizer, lambda x, y: nn.functional.cross_entropy(model(x), y), (x, y)))


def cases(tiny: bool) -> list[Case]:
    sizes, batch = ((6, 5, 3), 4) if tiny else ((784, 128, 10), 32)
    return [Case(f"training step, batch {batch}", partial(training, sizes=sizes, batch=batch), training=True,
                 bars=(Bar(better=3),))]
