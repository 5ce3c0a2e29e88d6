"""The MNIST net: training steps and inference at three batch sizes.

    python -m benchmarks.mnist        (the same as python -m benchmarks mnist)
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from benchmarks.models.net import make_net
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program

BATCHES = (1, 64, 512)


def images(side: Side, batch: int):
    random = np.random.default_rng(0)
    return (side.tensor(random.standard_normal((batch, 1, 28, 28))),
            side.torch.tensor(random.integers(0, 10, batch)))


def training(side: Side, batch: int) -> Program:
    net = make_net(side.torch)
    optimizer = side.optimizer("SGD", net.parameters(), lr=0.01, momentum=0.5)
    nll_loss = side.torch.nn.functional.nll_loss
    return Program(training_step(side, net, optimizer, lambda x, y: nll_loss(net(x), y), images(side, batch)))


def inference(side: Side, batch: int) -> Program:
    net = make_net(side.torch).eval()
    x, _ = images(side, batch)
    call = side.compile(net)

    def infer():
        with side.torch.no_grad():
            return call(x)

    return Program(infer, net, (x,))


def cases(tiny: bool) -> list[Case]:
    batches = (2,) if tiny else BATCHES
    return [
        *[Case(f"training step, batch {batch}", partial(training, batch=batch), training=True, random=True,
               tolerance=1e-4, bars=(Bar(eager=3) if batch == 1 else Bar(eager=6, better=4),)) for batch in batches],
        *[Case(f"inference, batch {batch}", partial(inference, batch=batch), inference=True,
               bars=(Bar(onnxruntime=3),) if batch == 64 else ()) for batch in batches],
    ]


if __name__ == "__main__":
    from benchmarks.suite.command import main

    main(["mnist", *sys.argv[1:]])
