"""The MNIST net: one training step and inference, beside PyTorch eager and torch.compile.

    python -m benchmarks.mnist [--batch 64] [--no-compile]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch as reference

import torturous
from benchmarks.timing import interleaved, report


def make_net(torch):
    """The classic net, written once for either framework."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
            self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
            self.conv2_drop = nn.Dropout2d()
            self.fc1 = nn.Linear(320, 50)
            self.fc2 = nn.Linear(50, 10)

        def forward(self, x):
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
            x = x.view(-1, 320)
            x = F.relu(self.fc1(x))
            x = F.dropout(x, training=self.training)
            return F.log_softmax(self.fc2(x), dim=1)

    torch.manual_seed(0)
    return Net()


def contestant(torch, images, labels, wrap=lambda model: model):
    """A training step and an inference call."""
    model = make_net(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    call = wrap(model)
    x, y = torch.tensor(images), torch.tensor(labels)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.nll_loss(call(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def infer():
        with torch.no_grad():
            return call(x).numpy()

    return model, step, infer


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
