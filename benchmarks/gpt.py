"""A character model with 6 layers, 384 wide, 6 heads: a training step with AdamW, and generation with growing context.

    python -m benchmarks gpt
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models.gpt import generate, make_gpt
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side, training_step
from benchmarks.suite.workload import Case, Program

FULL = {"vocabulary": 65, "context": 256, "layers": 6, "heads": 6, "width": 384}
TINY = {"vocabulary": 11, "context": 12, "layers": 2, "heads": 2, "width": 8}


def training(side: Side, sizes: dict[str, int], batch: int) -> Program:
    model = make_gpt(side.torch, **sizes)
    optimizer = side.optimizer("AdamW", model.parameters(), lr=1e-3)
    text = np.random.default_rng(0).integers(0, sizes["vocabulary"], (batch, sizes["context"] + 1))
    tokens, targets = side.torch.tensor(text[:, :-1]), side.torch.tensor(text[:, 1:])
    return Program(training_step(side, model, optimizer, model, (tokens, targets)))


def generation(side: Side, sizes: dict[str, int], count: int) -> Program:
    model = make_gpt(side.torch, **sizes).eval()
    call = side.compile(model)
    start = side.torch.tensor(np.random.default_rng(0).integers(0, sizes["vocabulary"], (1, 1)))
    return Program(lambda: generate(side.torch, call, start, count, sizes["context"]).numpy())


def cases(tiny: bool) -> list[Case]:
    sizes, batch, count = (TINY, 2, 6) if tiny else (FULL, 4, 200)
    return [
        Case(f"training step, batch {batch}", partial(training, sizes=sizes, batch=batch), training=True,
             tolerance=1e-4, bars=(Bar(better=1.15, cold=5, warm=1, memory=True),)),
        # Equal tokens, unless two are equally likely but for rounding.
        Case(f"generation of {count} tokens", partial(generation, sizes=sizes, count=count), passes=True,
             tolerance=0, bars=(Bar(eager=1.0), Bar(eager=1.5))),
    ]
