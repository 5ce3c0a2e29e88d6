"""Tensors whose values are at hand: looking at them without exporting, and making tensors of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torturous.core.dtypes import DType
from torturous.ir.op import TYPES
from torturous.runtime.buffers import allocate
from torturous.runtime.realize import compute
from torturous.runtime.storage import Storage
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def of_array(array: NDArray[Any], dtype: DType) -> Tensor:
    """A new tensor with a copy of an array's elements, in row-major order."""
    buffer = allocate(array.size * dtype.itemsize)
    buffer.array(dtype.numpy, array.shape)[...] = array
    storage = Storage.of(array.shape, dtype, buffer)
    return TensorBase._make(storage, storage.type_index)


def known_values(t: TensorBase) -> NDArray[Any] | None:
    """A tensor's present values if they have been computed, to be read at once and dropped; else None."""
    storage = t.storage
    if storage.pending or storage.buffer is None:
        return None
    shape, dtype = TYPES[t._type]
    if t.base is None:
        return storage.buffer.array(dtype.numpy, shape)
    count = storage.buffer.nbytes // dtype.itemsize
    flat = storage.buffer.array(dtype.numpy, (count,))[t._offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, [stride * dtype.itemsize for stride in t.strides])


def computed_values(t: TensorBase) -> NDArray[Any]:
    """The same, computing them first if need be; raises what computing them raises."""
    if t.storage.failure is not None:
        t.row()
    if t.storage.pending:
        compute(t.storage)
    values = known_values(t)
    assert values is not None
    return values
