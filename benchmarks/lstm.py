"""A language model with two LSTM layers, 200 wide: a training step with gradient clipping.

    python -m benchmarks lstm
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models.lstm import make_language_model
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program


def training(side: Side, vocabulary: int, width: int, length: int, batch: int) -> Program:
    model = make_language_model(side.torch, vocabulary, width)
    optimizer = side.optimizer("SGD", model.parameters(), lr=1.0)
    text = np.random.default_rng(0).integers(0, vocabulary, (length + 1, batch))
    words, targets = side.torch.tensor(text[:-1]), side.torch.tensor(text[1:].reshape(-1))
    hidden, cell = (side.torch.zeros(2, batch, width) for _ in range(2))
    cross_entropy = side.torch.nn.functional.cross_entropy

    def loss(words, targets, hidden, cell):
        logits, _, _ = model(words, hidden, cell)
        return cross_entropy(logits, targets)

    return Program(training_step(side, model, optimizer, loss, (words, targets, hidden, cell), clip=0.25))


def cases(tiny: bool) -> list[Case]:
    sizes = {"vocabulary": 1000, "width": 200, "length": 35, "batch": 20}
    if tiny:
        sizes = {"vocabulary": 11, "width": 6, "length": 4, "batch": 2}
    return [Case(f"training step, sequence {sizes['length']}, batch {sizes['batch']}", partial(training, **sizes),
                 training=True, bars=(Bar(better=1.3),))]
