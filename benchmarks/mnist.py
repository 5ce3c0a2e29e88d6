"""The MNIST net: one training step and inference, beside PyTorch eager and torch.compile.

    python -m benchmarks.mnist [--batch 64] [--no-compile]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch as reference

import torturous
from benchmarks.net import contestant
from benchmarks.timing import interleaved, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    reference.set_num_threads(torturous.get_num_threads())
    random = np.random.default_rng(0)
    images = random.standard_normal((args.batch, 1, 28, 28), dtype=np.float32)
    labels = random.integers(0, 10, args.batch)
    entries = {name: contestant(library, images, labels)
               for name, library in (("torturous", torturous), ("PyTorch eager", reference))}
    if not args.no_compile:
        entries["torch.compile"] = contestant(reference, images, labels, reference.compile)
    print(f"{torturous.get_num_threads()} threads, batch {args.batch}")
    for name, (_, step, _) in entries.items():
        started = time.perf_counter()
        step()
        print(f"  first step, {name}: {time.perf_counter() - started:.2f} s")
    report("training step", interleaved({name: step for name, (_, step, _) in entries.items()}, args.rounds))
    for model, _, _ in entries.values():
        model.eval()
    report("inference", interleaved({name: infer for name, (_, _, infer) in entries.items()}, args.rounds))


if __name__ == "__main__":
    main()
