"""Classifies digits with the exported net. Needs NumPy only:

    PYTHONPATH=build/embed/net python examples/embed/python/classify.py build/embed/digits.bin
"""

from __future__ import annotations

import sys

import net
import numpy as np


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        content = file.read()
    count = int.from_bytes(content[:4], "little")
    end = 4 + count * 784 * 4
    images = np.frombuffer(content[4:end], "<f4").reshape(count, 1, 28, 28)
    labels = np.frombuffer(content[end:], np.uint8)
    model = net.Model()
    correct = 0
    for first in range(0, count, 64):
        scores = model(images[first:first + 64])
        correct += int((scores.argmax(1) == labels[first:first + 64]).sum())
    print(f"{correct} of {count} digits are right")


if __name__ == "__main__":
    main()
