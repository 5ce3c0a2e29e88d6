"""Elements of a tensor as the host reads them: for shapes that depend on values, for printing, for checks."""

from __future__ import annotations

import numpy as np

from torturous.runtime.realize import realize
from torturous.tensor.base import TensorBase


def realized(t: TensorBase) -> None:
    """Computes the tensor's present value if it is pending."""
    storage = t.storage
    if storage.failure is not None:
        t.row()  # Raises, with the reason.
    if storage.pending:
        assert storage.record is not None
        realize(storage.record)


def known(t: TensorBase) -> np.ndarray | None:
    """The elements if they need no computing, in place; not for keeping, and not for writing."""
    storage = t.storage
    if storage.pending or storage.buffer is None:
        return None
    return strided(t, storage.buffer.array(storage.dtype.numpy, storage.shape))


def elements(t: TensorBase) -> np.ndarray:
    """The elements, computed if need be; not for keeping, and not for writing."""
    realized(t)
    array = known(t)
    assert array is not None
    return array


def strided(t: TensorBase, memory: np.ndarray) -> np.ndarray:
    """A tensor's elements within the memory of its storage."""
    if t.base is None:
        return memory
    item = t.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        memory.reshape(-1)[t._offset:], tuple(t.shape), [stride * item for stride in t.strides])


__all__ = ["elements", "known", "realized", "strided"]
