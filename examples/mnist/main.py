"""Trains the classic small convolutional net on handwritten digits.

`python examples/mnist/main.py` uses the digits that come with torturous and needs no network;
`--data mnist --root DIR` reads the MNIST files under DIR (with `--download` it fetches them first).
"""

from __future__ import annotations

import argparse
import time

from tqdm import tqdm

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
import torturous.optim as optim
from torturous.datasets import MNIST, Digits
from torturous.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
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
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def train(args, model, loader, optimizer, epoch):
    model.train()
    bar = tqdm(loader, desc=f"epoch {epoch}", unit="batch")
    for batch, (data, target) in enumerate(bar):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch % args.log_interval == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if args.dry_run:
            break


def test(model, loader):
    model.eval()
    count = len(loader.dataset)
    loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in loader:
            output = model(data)
            loss += F.nll_loss(output, target, reduction="sum")
            correct += output.argmax(dim=1).eq(target).sum()
    loss, correct = loss.item(), correct.item()
    print(f"test: average loss {loss / count:.4f}, accuracy {correct}/{count} ({100 * correct / count:.2f} %)")
    return correct / count


def main():
    parser = argparse.ArgumentParser(description="handwritten digits with torturous")
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits", help="which images (default: digits)")
    parser.add_argument("--root", default="data", help="folder of the MNIST files (default: data)")
    parser.add_argument("--download", action="store_true", help="fetch the MNIST files if they are not there")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="training batch (default: 64)")
    parser.add_argument("--test-batch-size", type=int, default=1000, metavar="N", help="test batch (default: 1000)")
    parser.add_argument("--epochs", type=int, default=None, metavar="N", help="default: 20 for digits, 3 for mnist")
    parser.add_argument("--lr", type=float, default=None, metavar="LR", help="default: 0.05 for digits, 0.01 for mnist")
    parser.add_argument("--momentum", type=float, default=0.5, metavar="M", help="SGD momentum (default: 0.5)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="random seed (default: 1)")
    parser.add_argument("--log-interval", type=int, default=10, metavar="N", help="batches between losses shown")
    parser.add_argument("--dry-run", action="store_true", help="one batch an epoch, to see that everything works")
    parser.add_argument("--save-model", default="mnist.safetensors", metavar="FILE", nargs="?",
                        const="mnist.safetensors", help="where to save the parameters (default: mnist.safetensors)")
    args = parser.parse_args()
    epochs = args.epochs or (20 if args.data == "digits" else 3)
    rate = args.lr or (0.05 if args.data == "digits" else 0.01)

    torch.manual_seed(args.seed)
    if args.data == "digits":
        parts = [Digits(train=part) for part in (True, False)]
    else:
        parts = [MNIST(args.root, train=part, download=args.download) for part in (True, False)]
    train_data, test_data = (TensorDataset(*part.tensors(normalize=True)) for part in parts)
    train_loader = DataLoader(train_data, batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(test_data, batch_size=args.test_batch_size)

    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=args.momentum)
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        train(args, model, train_loader, optimizer, epoch)
        seconds = time.perf_counter() - started
        test(model, test_loader)
        print(f"epoch {epoch}: {seconds:.2f} s")
    torch.save(model.state_dict(), args.save_model)
    print(f"saved {args.save_model}")


if __name__ == "__main__":
    main()
