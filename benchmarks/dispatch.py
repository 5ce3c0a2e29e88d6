"""What an operation costs when there is almost nothing to compute: 1,000 chained ops on 4×4 tensors.

    python -m benchmarks.dispatch     (the same as python -m benchmarks dispatch)
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side
from benchmarks.suite.workload import Case, Program


def chain(x, w, count):
    y = x
    for number in range(count):
        y = y * w if number & 1 else y + w
    return y


def dispatch(side: Side, count: int, gradients: bool, compiled: bool) -> Program:
    """`compiled`: under either framework's `compile`; else as written, torch.compile's own side excepted."""
    x = side.tensor(np.random.default_rng(0).standard_normal((4, 4)), requires_grad=gradients)
    w = side.tensor(np.full((4, 4), 0.999))
    call = (side.compile_in_both if compiled else side.compile)(lambda x, w: chain(x, w, count))

    def both():
        x.grad = None
        call(x, w).sum().backward()
        return x.grad

    return Program(both if gradients else lambda: call(x, w))


def cases(tiny: bool) -> list[Case]:
    count = 10 if tiny else 1000
    return [Case(f"{count} chained ops{', with gradients' * gradients}{', under compile' * compiled}",
                 partial(dispatch, count=count, gradients=gradients, compiled=compiled),
                 bars=(Bar(eager=4 if compiled else 2.5 if gradients else 1.2),))
            for compiled in (False, True) for gradients in (False, True)]


if __name__ == "__main__":
    from benchmarks.suite.command import main

    main(["dispatch", *sys.argv[1:]])
