"""Training on MNIST from PyTorch's initial weights: how far losses drift from PyTorch's, and where accuracy ends.

    python -m benchmarks.agreement --root DIR      (DIR/MNIST/raw holds the files; --epochs 0 skips the long part)
"""

from __future__ import annotations

import argparse

import numpy as np
import torch as reference

import torturous
from benchmarks.models.net import make_net
from torturous.datasets import MNIST

BATCH = 64


def prepared(data: MNIST) -> tuple[np.ndarray, np.ndarray]:
    images, targets = data.tensors(normalize=True)
    return images.numpy(), targets.numpy()


def started(torch, seed, dtype="float32"):
    """A net with PyTorch's initial weights for a seed, and its optimizer."""
    net = make_net(torch, seed).to(getattr(torch, dtype))
    return net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)


def losses(torch, images, targets, steps, seed, dtype="float32", dropout=False):
    """The losses of the first steps, in the data's order."""
    net, optimizer = started(torch, seed, dtype)
    net.train(dropout)
    found = []
    for number in range(steps):
        part = slice(number * BATCH, (number + 1) * BATCH)
        optimizer.zero_grad()
        x = torch.tensor(images[part].astype(dtype))
        loss = torch.nn.functional.nll_loss(net(x), torch.tensor(targets[part]))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return np.array(found)


def accuracy(torch, train, test, epochs, seed):
    """Percent of the test images that a net trained for some epochs classifies rightly."""
    net, optimizer = started(torch, seed)
    data = torch.utils.data
    dataset = data.TensorDataset(*map(torch.tensor, train))
    for _ in range(epochs):
        net.train()
        for x, y in data.DataLoader(dataset, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.nll_loss(net(x), y).backward()
            optimizer.step()
    net.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(test[1]), 1000):
            x, y = (torch.tensor(part[start:start + 1000]) for part in test)
            right += net(x).argmax(1).eq(y).sum().item()
    return 100 * right / len(test[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    train, test = (prepared(MNIST(args.root, train=part)) for part in (True, False))
    ours, theirs = (losses(torch, *train, 200, 0, "float64") for torch in (torturous, reference))
    print(f"float64, 200 losses: at most {np.max(np.abs(ours - theirs) / theirs):.1e} apart, relative")
    ours, theirs = (losses(torch, *train, 50, 1, dropout=True) for torch in (torturous, reference))
    print(f"float32 with dropout, 50 losses: at most {np.max(np.abs(ours - theirs) / theirs):.1e} apart, relative")
    apart, own = [], []
    for seed in range(8):
        ours, theirs = (losses(torch, *train, 200, seed) for torch in (torturous, reference))
        with reference.backends.mkldnn.flags(enabled=False):
            other = losses(reference, *train, 200, seed)
        apart.append(np.abs(ours - theirs)[-20:].mean())
        own.append(np.abs(other - theirs)[-20:].mean())
        early = np.max((np.abs(ours - theirs) / theirs)[:50])
        print(f"float32, seed {seed}: first 50 losses at most {early:.1e} apart, relative; "
              f"steps 180-200 on average {apart[-1]:.1e} (PyTorch with and without oneDNN: {own[-1]:.1e})")
    print(f"mean over seeds: {np.mean(apart):.1e} (PyTorch's own: {np.mean(own):.1e})")
    for seed in range(3 if args.epochs else 0):
        ours, theirs = (accuracy(torch, train, test, args.epochs, seed) for torch in (torturous, reference))
        print(f"{args.epochs} epochs, seed {seed}: {ours:.2f} % (PyTorch {theirs:.2f} %)")


if __name__ == "__main__":
    main()
