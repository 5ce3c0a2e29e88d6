"""Shapes that change: a small transformer on 60 sequences of 60 different lengths, twice.

    python -m benchmarks shapes
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models.gpt import make_gpt
from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side
from benchmarks.suite.workload import Case, Program


def inference(side: Side, sizes: dict[str, int], lengths: list[int]) -> Program:
    """A pass over all sequences: logits of each one's last token."""
    model = make_gpt(side.torch, **sizes).eval()
    call = side.compile(model)
    random = np.random.default_rng(1)
    sequences = [side.torch.tensor(random.integers(0, sizes["vocabulary"], (1, length))) for length in lengths]

    def over_all():
        with side.torch.no_grad():
            return [call(each).numpy() for each in sequences]

    return Program(over_all)


def cases(tiny: bool) -> list[Case]:
    sizes = {"vocabulary": 100, "context": 128, "layers": 2, "heads": 4, "width": 128}
    if tiny:
        sizes = {"vocabulary": 11, "context": 16, "layers": 1, "heads": 2, "width": 8}
    count = 4 if tiny else 60
    lengths = np.random.default_rng(0).permutation(np.arange(3, sizes["context"]))[:count].tolist()
    return [Case(f"{count} sequences of {count} lengths", partial(inference, sizes=sizes, lengths=lengths), passes=True,
                 tolerance=1e-4, bars=(Bar(eager=1.0), Bar(eager=1.5)))]
