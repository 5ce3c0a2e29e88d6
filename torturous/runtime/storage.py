"""A storage: the memory that a tensor and its views share, in all its versions.

A storage knows the row that is its present version. Writing in place records the next version; views, which
are a storage and a chain of movement ops, see it because they ask the storage. A version that has been
realized lies in a buffer; memory that others can see (an array it was made from, or one that was handed out)
stays in place, and new versions are copied into it.
"""

from __future__ import annotations

import weakref

import numpy as np

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import TYPES, type_number
from torturous.ir.record import Place, Record
from torturous.runtime.buffers import Buffer, allocate

SNAPSHOT_BYTES = 1 << 14
"""Memory that others can write is copied when read if it is at most this large, else its reader runs at
once."""


class Storage:
    """Memory of `shape` and `dtype`, row-major. Its present version is pending (a row of `record`) or in
    `buffer`."""

    __slots__ = ("type_index", "buffer", "pending", "record", "index", "version", "unseen", "tracked", "written",
                 "failure", "foreign", "__weakref__")

    def __init__(self, type_index: int, buffer: Buffer | None = None) -> None:
        self.type_index = type_index
        self.buffer = buffer
        """The last realized version's memory, None if there has been none."""
        self.pending = buffer is None
        self.record: Record | None = None
        """Of the present version: where it is pending, or the tape that leads to it."""
        self.index = -1
        self.version = 0
        self.unseen = 0
        """Writes among the versions that autograd was not to see (through `.data`)."""
        self.tracked: bool | int = False
        """Whether the present version has a history that gradients flow back through."""
        self.written: Place = None
        """Where the pending write was recorded, if the present version is one."""
        self.failure: BaseException | None = None
        """Why the value could not be computed, if it was pending when its plan failed."""
        self.foreign: Buffer | None = None
        """Memory that must stay this storage's own because someone outside sees it."""

    @staticmethod
    def of(shape: Shape, dtype: DType, buffer: Buffer) -> Storage:
        """A storage of memory that has values."""
        return Storage(type_number(shape, dtype), buffer)

    @property
    def shape(self) -> Shape:
        return TYPES[self.type_index].shape

    @property
    def dtype(self) -> DType:
        return TYPES[self.type_index].dtype

    @staticmethod
    def pending_row(record: Record, index: int, type_index: int, tracked: bool | int) -> Storage:
        """The storage of a pending row that nobody else looks at."""
        storage = Storage(type_index)
        storage.record = record
        storage.index = index
        storage.tracked = tracked
        record.owners[index] = storage
        return storage

    def shared(self) -> bool:
        """Whether someone outside can read or write the memory."""
        buffer = self.foreign
        if buffer is None:
            buffer = self.buffer
            return buffer is not None and buffer._export is not None and buffer.exported
        return buffer.exported

    def export(self) -> np.ndarray:
        """The memory as a NumPy array that shares it; the storage must be realized."""
        assert self.buffer is not None
        self.foreign = self.buffer
        return self.buffer.array(self.dtype.numpy, self.shape)

    def snapshot(self) -> Buffer:
        """A private copy of the realized memory."""
        assert self.buffer is not None
        copy = allocate(self.buffer.nbytes)
        copy.brief(np.uint8, (copy.nbytes,))[...] = self.buffer.brief(np.uint8, (copy.nbytes,))
        return copy

    def commit(self, buffer: Buffer) -> None:
        """Takes a computed version: the memory changes hands, or is copied to where others see it."""
        home = self.foreign
        if home is not None:
            if home is not buffer and home.exported:
                count = home.nbytes
                home.array(np.uint8, (count,))[...] = buffer.array(np.uint8, (count,))
                buffer = home
            else:
                self.foreign = None
        self.buffer = buffer
        self.pending = False
        self.written = None

    def withdraw(self, failure: BaseException) -> None:
        """Gives up a pending version; what was realized before stands."""
        self.pending = False
        self.record, self.index, self.tracked = None, -1, False
        self.written = None
        if self.buffer is None:
            self.failure = failure

    def watch(self) -> weakref.ref[Storage]:
        return weakref.ref(self)
