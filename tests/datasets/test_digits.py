from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import numpy as np
import pytest

from torturous.datasets import Digits
from torturous.datasets.digits_data import LEVELS, TRAIN_COUNT, load_digits
from torturous.datasets.pixels import enlarged


def test_the_file_is_the_published_one() -> None:
    # Checksums of scikit-learn's load_digits(), as bytes, taken when the file was made.
    images, targets = load_digits()
    assert images.shape == (1797, 8, 8) and images.dtype == np.uint8 and images.max() == LEVELS
    assert targets.shape == (1797,) and targets.dtype == np.int64
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    )
    assert (
        hashlib.sha256(targets.astype(np.uint8).tobytes()).hexdigest()
        == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"
    )


def test_attribution_lies_beside_the_file() -> None:
    notice = resources.files("torturous.datasets").joinpath("DIGITS.md").read_text("utf-8")
    licence = "Creative Commons Attribution 4.0"
    for part in ("E. Alpaydin", "C. Kaynak", "10.24432/C50P49", licence, "resizes"):
        assert part in notice


def test_split_is_a_partition() -> None:
    images, targets = load_digits()
    train, test = Digits(), Digits(train=False)
    assert len(train) == TRAIN_COUNT == 1438 and len(test) == 359
    assert (np.concatenate([train.targets, test.targets]) == targets).all()
    assert (np.concatenate([train.data, test.data]) == enlarged(images, LEVELS)).all()
    assert np.bincount(train.targets).min() >= 141 and np.bincount(test.targets).min() >= 33


def test_images_lie_where_those_of_mnist_do() -> None:
    data = Digits().data
    assert data.shape == (1438, 28, 28) and data.dtype == np.uint8 and data.max() == 255
    inside = np.zeros((28, 28), bool)
    inside[2:26, 2:26] = True
    assert not data[:, ~inside].any()
    assert data[:, 4:24, 4:24].sum() > 0.95 * data.sum()


def test_mean_and_std_are_those_of_the_training_images() -> None:
    unit = Digits().data / 255
    assert abs(unit.mean() - Digits.mean) < 1e-4 and abs(unit.std() - Digits.std) < 1e-4


@pytest.mark.parametrize("index", [0, 1, 17, 358, -1, -359, np.int64(5)])
def test_items(index: int) -> None:
    digits = Digits(train=False)
    image, target = digits[index]
    assert type(target) is int and target == digits.targets[index]
    assert tuple(image.shape) == (1, 28, 28)
    assert image.numpy().tobytes() == (digits.data[index] / np.float32(255)).astype(np.float32).tobytes()


@pytest.mark.parametrize("index", [359, -360])
def test_no_such_item(index: int) -> None:
    with pytest.raises(IndexError):
        Digits(train=False)[index]


def test_transforms_get_their_own_copy() -> None:
    def blacken(image: np.ndarray[Any, Any]) -> float:
        assert image.shape == (28, 28) and image.dtype == np.uint8
        total = float(image.sum())
        image[:] = 0
        return total

    digits = Digits(transform=blacken, target_transform=lambda target: target + 100)
    before = digits.data.copy()
    for index in range(20):
        assert digits[index] == (before[index].sum(), int(digits.targets[index]) + 100)
    assert (digits.data == before).all()


@pytest.mark.parametrize("train", [True, False])
def test_tensors(train: bool) -> None:
    digits = Digits(train)
    images, targets = digits.tensors()
    assert images.numpy().dtype == np.float32 and targets.numpy().dtype == np.int64
    assert tuple(images.shape) == (len(digits), 1, 28, 28) and tuple(targets.shape) == (len(digits),)
    for index in range(0, len(digits), 97):
        assert images.numpy()[index].tobytes() == digits[index][0].numpy().tobytes()
    assert (targets.numpy() == digits.targets).all()
    normalized = Digits(train).tensors(normalize=True)[0].numpy()
    np.testing.assert_allclose(normalized * digits.std + digits.mean, images.numpy(), atol=1e-6)
    if train:
        assert abs(normalized.mean()) < 1e-3 and abs(normalized.std() - 1) < 1e-3
