"""Trains the small net on the digits that come with torturous, and exports it for the programs of this folder.

    python examples/embed/make.py build/embed

writes bundles `net` (for this machine), `train` (a training step), `wasm` (a page's module with its weights), and
`digits.bin` and `training.bin`: a count, images and labels of the test and the training set.
"""

from __future__ import annotations

import argparse
import shutil
import struct
from pathlib import Path

import numpy as np

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
import torturous.optim as optim
from torturous import native
from torturous.datasets import Digits
from torturous.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, image):
        x = F.relu(F.max_pool2d(self.conv1(image), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, training=self.training)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def train(epochs: int) -> Net:
    torch.manual_seed(1)
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.5)
    loader = DataLoader(TensorDataset(*Digits(train=True).tensors(normalize=True)), batch_size=64, shuffle=True)
    for epoch in range(epochs):
        for image, target in loader:
            optimizer.zero_grad()
            F.nll_loss(model(image), target).backward()
            optimizer.step()
        print(f"epoch {epoch + 1} of {epochs}")
    return model


def write(path: Path, images: torch.Tensor, labels: torch.Tensor) -> None:
    with open(path, "wb") as file:
        file.write(struct.pack("<i", len(labels)))
        file.write(np.ascontiguousarray(images.numpy(), "<f4").tobytes())
        file.write(labels.numpy().astype(np.uint8).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="default: 10")
    args = parser.parse_args()
    model = train(args.epochs)
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder / "training.bin", *Digits(train=True).tensors(normalize=True))
    images, labels = Digits(train=False).tensors(normalize=True)
    write(args.folder / "digits.bin", images, labels)
    example = images[:64].clone()
    # A new net begins the training that the C program goes on with.
    torch.manual_seed(2)
    fresh = Net()
    sgd = optim.SGD(fresh.parameters(), lr=0.05, momentum=0.5)
    bundles = [
        native.export(model.eval(), (example,), args.folder / "net"),
        native.export(model, (example,), args.folder / "wasm", target="wasm32", embed_weights=True, max_batch=8),
        native.export_training(fresh, F.nll_loss, sgd, (example, labels[:64].clone()), args.folder / "train",
                               name="train", max_batch=64),
    ]
    # python -m http.server --directory build/embed/wasm
    shutil.copy(Path(__file__).parent / "wasm" / "index.html", args.folder / "wasm")
    for bundle in bundles:
        print(f"{bundle.directory}: {bundle.code_bytes} bytes of code for {', '.join(bundle.targets)}")


if __name__ == "__main__":
    main()
