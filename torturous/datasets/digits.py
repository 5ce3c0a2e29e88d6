"""The data set that needs no download."""

from __future__ import annotations

from torturous.datasets.digits_data import LEVELS, load_digits, part
from torturous.datasets.images import ImageDataset, ImageTransform, TargetTransform
from torturous.datasets.pixels import enlarged


class Digits(ImageDataset):
    """1,797 handwritten digits, enlarged to MNIST's 28x28 pixels, embedded in the package.

    The digits are the test file of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI
    Machine Learning Repository, https://doi.org/10.24432/C50P49; CC BY 4.0), written by 13 people, in the
    order in which it was published.

    The first 1,438 are for training, the last 359 for testing. Neighbours tend to be in the same hand, so
    most hands in the test set are not in the training set. Every class has 141 to 146 digits for training and
    33 to 37 for testing.
    """

    classes = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    mean = 0.1558
    std = 0.2685

    def __init__(
        self,
        train: bool = True,
        transform: ImageTransform | None = None,
        target_transform: TargetTransform | None = None,
    ) -> None:
        images, targets = load_digits()
        chosen = part(train)
        data = enlarged(images[chosen], LEVELS)
        super().__init__(data, targets[chosen].copy(), transform, target_transform)
        self.train = train
