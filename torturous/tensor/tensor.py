"""`Tensor`: all families of operations put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import normalize_axes
from torturous.ir import reduction
from torturous.ir.op import TYPES, Op
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.realize import realize
from torturous.runtime.storage import Storage
from torturous.tensor import autograd
from torturous.tensor.arithmetic import Arithmetic
from torturous.tensor.base import TensorBase, apply, set_class
from torturous.tensor.gathering import Gathering


def reduce(t: TensorBase, op: Op, dim: int | Sequence[int] | None, keepdim: bool) -> Tensor:
    axes = normalize_axes(dim, len(t.shape))
    return apply(op, t, attributes=(axes, keepdim))


class Tensor(Arithmetic, Gathering):
    """A multi-dimensional array with PyTorch's interface, computed when a value is needed."""

    __slots__ = ()

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return reduce(self, reduction.SUM, dim, keepdim)

    def amax(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        return reduce(self, reduction.AMAX, dim, keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return reduce(self, reduction.ARGMAX, dim, keepdim)

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad or self._tracked()

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        self._requires_grad = requires_grad
        self._record = None
        return self

    @property
    def grad(self) -> Tensor | None:
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._grad = value

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None,
                 create_graph: bool = False) -> None:
        retain = create_graph if retain_graph is None else retain_graph
        autograd.backward(self, gradient, retain, create_graph)

    def numpy(self) -> np.ndarray:
        self._realized()
        storage = self.storage
        array = storage.export()
        if self.base is None:
            return array
        item = self.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            array.reshape(-1)[self._offset:], tuple(self.shape), [s * item for s in self.strides])

    def _realized(self) -> None:
        storage = self.storage
        if storage.failure is not None:
            self.row()
        if storage.pending:
            assert storage.record is not None
            realize(storage.record)

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def item(self) -> Any:
        return self.numpy().item()


set_class(Tensor)


def from_array(array: np.ndarray, dtype: DType | None = None) -> Tensor:
    """A tensor with a copy of an array's elements."""
    dtype = dtype or dtypes.from_numpy(array.dtype)
    array = np.ascontiguousarray(array, dtype.numpy).reshape(array.shape)
    buffer = allocate(array.nbytes)
    buffer.array(dtype.numpy, array.shape)[...] = array
    return from_buffer(buffer, array.shape, dtype)


def from_buffer(buffer: Buffer, shape: tuple[int, ...], dtype: DType) -> Tensor:
    storage = Storage(shape, dtype, buffer)
    return TensorBase._make(storage, storage.type_index)


def from_numpy(array: np.ndarray) -> Tensor:
    t = from_buffer(Buffer.wrap(array), array.shape, dtypes.from_numpy(array.dtype))
    t.storage.foreign = t.storage.buffer
    return t


__all__ = ["TYPES", "Tensor", "from_array", "from_numpy"]
