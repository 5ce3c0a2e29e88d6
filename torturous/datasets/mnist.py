"""MNIST and the data sets that were made in its image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from torturous.datasets.download import fetch
from torturous.datasets.idx import damaged, read_idx
from torturous.datasets.images import ImageDataset, ImageTransform, TargetTransform


class MNIST(ImageDataset):
    """The MNIST handwritten digits (Y. LeCun, C. Cortes, C. Burges; http://yann.lecun.com/exdb/mnist).

    Reads the four IDX files, plain or with the ending `.gz`, from `root/MNIST/raw`, the folder layout of
    torchvision. With `download`, files that are missing are fetched first; a file that is there is never
    replaced.

    Raises RuntimeError if files are missing and not to be downloaded, or cannot be; ValueError, naming the
    file, what was expected and what was found, if a file is truncated, damaged, or of the wrong kind or
    count.
    """

    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    checksums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    train_count: ClassVar[int] = 60_000
    test_count: ClassVar[int] = 10_000
    classes = (
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four",
        "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    )  # fmt: skip
    mean = 0.1307
    std = 0.3081

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: ImageTransform | None = None,
        target_transform: TargetTransform | None = None,
        download: bool = False,
    ) -> None:
        self.root = Path(root)
        self.train = train
        if download:
            self.download()
        prefix, count = ("train", self.train_count) if train else ("t10k", self.test_count)
        images_path = self._present(f"{prefix}-images-idx3-ubyte")
        labels_path = self._present(f"{prefix}-labels-idx1-ubyte")
        if images_path is None or labels_path is None:
            raise RuntimeError(
                "Dataset not found. You can use download=True to download it "
                f"({prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte, plain or .gz, "
                f"were looked for in {self.raw_folder})"
            )
        images = read_idx(images_path, np.uint8, (count, 28, 28))
        labels = read_idx(labels_path, np.uint8, (count,))
        if labels.max(initial=0) >= len(self.classes):
            raise damaged(labels_path, f"labels below {len(self.classes)}", f"{labels.max()}")
        super().__init__(images, labels.astype(np.int64), transform, target_transform)

    @property
    def raw_folder(self) -> Path:
        """Where the files are: `root/<name of the class>/raw`."""
        return self.root / type(self).__name__ / "raw"

    def download(self) -> None:
        """Fetch those of the four files that are there neither plain nor compressed."""
        for name, md5 in self.checksums.items():
            if self._present(name.removesuffix(".gz")) is None:
                fetch(self.mirrors, self.raw_folder / name, md5)

    def _present(self, name: str) -> Path | None:
        """The file `name`, or else its compressed form, if there is one."""
        plain, compressed = self.raw_folder / name, self.raw_folder / f"{name}.gz"
        return plain if plain.is_file() else compressed if compressed.is_file() else None


class FashionMNIST(MNIST):
    """Zalando's clothing (H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747), in `root/FashionMNIST/raw`."""

    mirrors = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    )
    checksums = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    mean = 0.2860
    std = 0.3530


class KMNIST(MNIST):
    """Cursive Japanese characters, Kuzushiji (T. Clanuwat et al., arXiv:1812.01718), in `root/KMNIST/raw`."""

    mirrors = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
    checksums = {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    }
    classes = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    mean = 0.1918
    std = 0.3483
