"""A labelled set of small grey images, held in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from torturous.datasets.pixels import normalized, scaled
from torturous.tensor import Tensor, from_numpy

ImageTransform = Callable[[npt.NDArray[np.uint8]], Any]
TargetTransform = Callable[[int], Any]


class ImageDataset:
    """Images and their classes; what `Digits`, `MNIST` and its relatives share.

    `data` is a uint8 array (n, height, width), `targets` an int64 array (n,) of indices into `classes`.
    `mean` and `std` are those of the training images' pixels, scaled to 0...1.
    """

    classes: ClassVar[tuple[str, ...]]
    mean: ClassVar[float]
    std: ClassVar[float]

    def __init__(
        self,
        data: npt.NDArray[np.uint8],
        targets: npt.NDArray[np.int64],
        transform: ImageTransform | None,
        target_transform: TargetTransform | None,
    ) -> None:
        self.data = data
        self.targets = targets
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Image and target number `index`.

        The image is a float32 tensor (1, height, width) of 0...1, or what `transform` makes of a copy of the
        uint8 array (height, width); the target is an int, or what `target_transform` makes of it.

        Raises IndexError if there is no such image.
        """
        image = self.data[index]
        target = int(self.targets[index])
        return (
            from_numpy(scaled(image)) if self.transform is None else self.transform(image.copy()),
            target if self.target_transform is None else self.target_transform(target),
        )

    def tensors(self, normalize: bool = False) -> tuple[Tensor, Tensor]:
        """The whole set at once, for a `TensorDataset`, without the transforms.

        Images are float32 (n, 1, height, width) of 0...1, or of mean 0 and standard deviation 1 if
        `normalize`; targets are int64 (n,). Both are copies.
        """
        images = normalized(self.data, self.mean, self.std) if normalize else scaled(self.data)
        return from_numpy(images), from_numpy(self.targets.copy())

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}

    def __repr__(self) -> str:
        height, width = self.data.shape[1:]
        return f"{type(self).__name__}({len(self)} images of {height}x{width}, {len(self.classes)} classes)"
