"""IDX files for the tests: written ones, and where the real ones are."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

REAL_ROOT = Path(__file__).parents[3] / "shared" / "data"
"""Holds `MNIST/raw` with the real files, on machines that have them."""

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: npt.NDArray[Any]) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist_files(train: int, test: int, seed: int = 0) -> dict[str, npt.NDArray[np.uint8]]:
    """Random contents for the four files, by name."""
    random = np.random.default_rng(seed)
    return {
        "train-images-idx3-ubyte": random.integers(0, 256, (train, 28, 28), np.uint8),
        "train-labels-idx1-ubyte": random.integers(0, 10, train, np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (test, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, test, np.uint8),
    }


def write(folder: Path, files: dict[str, npt.NDArray[np.uint8]], compressed: bool) -> None:
    folder.mkdir(parents=True)
    for name, array in files.items():
        content = idx_bytes(array)
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
