"""The 1,797 handwritten digits that are embedded in the package; see DIGITS.md for origin and licence."""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt

LEVELS = 16
"""The largest value a pixel can have; 0 is background."""

TRAIN_COUNT = 1438
"""How many of the digits, from the start, are for training; the other 359 are for testing."""


def load_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All digits as published: images (1797, 8, 8) uint8 of 0...16, targets (1797,) int64 of 0...9."""
    with resources.files(__package__).joinpath("digits.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["images"], arrays["targets"].astype(np.int64)


def part(train: bool) -> slice:
    """Which of the digits belong to the training set, or to the test set."""
    return slice(None, TRAIN_COUNT) if train else slice(TRAIN_COUNT, None)
