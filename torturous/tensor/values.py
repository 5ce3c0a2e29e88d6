"""Tensors whose values are at hand: looking at them without exporting, and making tensors of arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from torturous.core.dtypes import DType
from torturous.ir.op import TYPES
from torturous.ir.record import context
from torturous.runtime.buffers import allocate
from torturous.runtime.realize import compute
from torturous.runtime.storage import Storage
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torturous.tensor.tensor import Tensor


def of_array(array: NDArray[Any], dtype: DType) -> Tensor:
    """A new tensor with a copy of an array's elements, in row-major order."""
    buffer = allocate(array.size * dtype.itemsize)
    buffer.brief(dtype.numpy, array.shape)[...] = array
    storage = Storage.of(array.shape, dtype, buffer)
    return TensorBase._make(storage, storage.type_index)


Checking = TypeVar("Checking", bound=Callable[..., Any])


def repeated_check(check: Checking) -> Checking:
    """Marks a check of a tensor's values, if they are known, that records nothing.

    When a captured call is repeated its checks are made again, and have to come out as they did.
    """

    @wraps(check)
    def checking(t: TensorBase, *arguments: Any, **named: Any) -> Any:
        looks = context.record.looks
        if looks is None or t.storage.pending:
            return check(t, *arguments, **named)
        count = len(looks)
        result = check(t, *arguments, **named)
        del looks[count:]
        looks.append((t, lambda again: check(again, *arguments, **named) == result))
        return result

    return checking  # type: ignore[return-value]


def look(t: TensorBase | None) -> None:
    """Says that what is recorded next may depend on the values of a tensor, or on the host's state."""
    looks = context.record.looks
    if looks is not None:
        looks.append((t, None))


def known_values(t: TensorBase) -> NDArray[Any] | None:
    """A tensor's present values if they have been computed, to be read at once and dropped; else None."""
    storage = t.storage
    if storage.pending or storage.buffer is None:
        return None
    look(t)
    shape, dtype = TYPES[t._type]
    if t.base is None:
        return storage.buffer.brief(dtype.numpy, shape)
    count = storage.buffer.nbytes // dtype.itemsize
    flat = storage.buffer.brief(dtype.numpy, (count,))[t._offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, [stride * dtype.itemsize for stride in t.strides])


def compute_values(t: TensorBase) -> None:
    """Computes a tensor's values if they have not been; raises what computing them raises."""
    storage = t.storage
    if storage.failure is not None:
        t.row()
    if storage.pending:
        compute(storage)


def computed_values(t: TensorBase) -> NDArray[Any]:
    """The same, computing them first if need be; raises what computing them raises."""
    compute_values(t)
    values = known_values(t)
    assert values is not None
    return values
