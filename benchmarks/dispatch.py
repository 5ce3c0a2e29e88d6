"""What an operation costs when there is almost nothing to compute: 1,000 chained ops on 4×4 tensors.

    python -m benchmarks.dispatch
"""

from __future__ import annotations

import argparse

import numpy as np
import torch as reference

import torturous
from benchmarks.timing import interleaved, report

COUNT = 1000


def chain(torch, x, w):
    y = x
    for number in range(COUNT):
        y = y * w if number & 1 else y + w
    return y


def contestant(torch, gradients: bool, wrap=lambda function: function):
    random = np.random.default_rng(0)
    x = torch.tensor(random.standard_normal((4, 4)).astype(np.float32), requires_grad=gradients)
    w = torch.tensor(np.full((4, 4), 0.999, np.float32))
    call = wrap(lambda x, w: chain(torch, x, w))

    def forward():
        return call(x, w).numpy()

    def both():
        x.grad = None
        call(x, w).sum().backward()
        return x.grad.numpy()

    return both if gradients else forward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    reference.set_num_threads(torturous.get_num_threads())
    for gradients in (False, True):
        entries = {"torturous": contestant(torturous, gradients), "PyTorch eager": contestant(reference, gradients)}
        title = f"{COUNT} chained ops {'with' if gradients else 'without'} gradients"
        report(title, interleaved(entries, args.rounds))


if __name__ == "__main__":
    main()
