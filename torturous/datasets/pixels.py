"""What is done to the pixels of small grey images, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def scaled(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey images (..., height, width) of 0...255 as one-channel images (..., 1, height, width) of 0...1.

    A new array; each value is the float32 quotient by 255, as torchvision's `ToTensor` gives it.
    """
    return np.divide(images[..., np.newaxis, :, :], np.float32(255), dtype=np.float32)


def normalized(images: npt.NDArray[np.uint8], mean: float, std: float) -> npt.NDArray[np.float32]:
    """As `scaled`, less `mean`, divided by `std`, in float32, as torchvision's `Normalize` does it."""
    result = scaled(images)
    result -= np.float32(mean)
    result /= np.float32(std)
    return result


def enlarged(images: npt.NDArray[np.uint8], levels: int) -> npt.NDArray[np.uint8]:
    """Images (n, 8, 8) of 0...`levels` as images (n, 28, 28) of 0...255.

    Bilinear interpolation by a factor of 2.5 about the centre, with nothing but zeros outside the 8x8 grid:
    the digit fills the central 20x20 pixels, which is where MNIST puts its digits; its strokes fade out over
    the next two pixels, and the rest is empty. Computed in whole numbers, hence the same on every machine.
    """
    # Output pixel i has its centre at (i - 13.5) / 2.5 + 3.5 on the 8-pixel axis, which is (4 i - 19) / 10.
    # Its weight for input pixel j falls from 1 to 0 over a distance of one pixel. All in tenths.
    output, source = np.ogrid[0:28, 0:8]
    weights = np.maximum(0, 10 - abs(4 * output - 19 - 10 * source)).astype(np.int32)
    hundredths = weights @ images.astype(np.int32) @ weights.T
    full = 100 * levels
    return ((255 * hundredths + full // 2) // full).astype(np.uint8)
