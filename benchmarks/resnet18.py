"""ResNet-18 in its form for 32×32 images, batch 16: a training step and inference.

    python -m benchmarks resnet18
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models.resnet import make_resnet18
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program

WIDTHS = (64, 128, 256, 512)
TINY = (4, 6, 8, 10)


def training(side: Side, widths: tuple[int, ...], batch: int, size: int) -> Program:
    model = make_resnet18(side.torch, widths)
    optimizer = side.optimizer("SGD", model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    random = np.random.default_rng(0)
    x = side.tensor(random.standard_normal((batch, 3, size, size)))
    y = side.torch.tensor(random.integers(0, 10, batch))
    cross_entropy = side.torch.nn.functional.cross_entropy
    return Program(training_step(side, model, optimizer, lambda x, y: cross_entropy(model(x), y), (x, y)))


def inference(side: Side, widths: tuple[int, ...], batch: int, size: int) -> Program:
    model = make_resnet18(side.torch, widths).eval()
    x = side.tensor(np.random.default_rng(0).standard_normal((batch, 3, size, size)))
    call = side.compile(model)

    def infer():
        with side.torch.no_grad():
            return call(x)

    return Program(infer, model, (x,))


def cases(tiny: bool) -> list[Case]:
    widths, batch, size = (TINY, 2, 16) if tiny else (WIDTHS, 16, 32)
    sizes = {"widths": widths, "batch": batch, "size": size}
    return [
        # A ReLU whose input is a rounding error away from 0 has either gradient, and the next steps' losses show it: in
        # float64, where that does not happen, they agree to 1e-15.
        Case(f"training step, batch {batch}", partial(training, **sizes), training=True, tolerance=1e-2,
             bars=(Bar(better=1.15, cold=5, warm=1, memory=True),)),
        Case(f"inference, batch {batch}", partial(inference, **sizes), inference=True, tolerance=1e-4),
    ]
