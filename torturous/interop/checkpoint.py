"""Checkpoints: PyTorch's files of any objects, a ZIP archive of a pickle and the storages that its tensors look at.

Records of the archive, under one folder: `data.pkl` (`pickling.py`), `byteorder`, `version`, and `data/KEY` with a
storage's bytes, uncompressed and aligned, so that they can be mapped into memory. Before version 1.6 PyTorch wrote
several pickles one after another, and then the storages; such files can be read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from torturous.core.errors import UnsupportedError
from torturous.core.shapes import contiguous_strides
from torturous.interop.pickling import Pickler, StorageType, Unpickler
from torturous.runtime.storage import Storage
from torturous.tensor import Tensor, from_numpy
from torturous.tensor.sharing import strided_view
from torturous.tensor.values import compute_values, of_array

ALIGNMENT = 64
HEAD = 30
"""Bytes of a record's head before its name, at whose end stand the lengths of the name and of a field behind it."""
VERSION, BYTE_ORDER = "3\n", "little"
OLD = 0x1950A86A20F9469CFC6C, 1001
"""What the first two pickles of an old file hold."""
Placed = Callable[[str], None]
"""Says, or raises, where a storage that was saved on some device is to be loaded."""


class Damaged(RuntimeError):
    """A file that is no whole checkpoint."""


def write_checkpoint(obj: Any, file: BinaryIO, folder: str) -> None:
    """Writes an object and all tensors in it; those that share memory still do when they are loaded."""
    kept: dict[int, tuple[str, Storage]] = {}

    def keep(t: Tensor) -> str:
        compute_values(t)
        return kept.setdefault(id(t.storage), (str(len(kept)), t.storage))[0]

    pickled = io.BytesIO()
    Pickler(pickled, keep).dump(obj)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{folder}/data.pkl", pickled.getvalue())
        _add(archive, f"{folder}/byteorder", BYTE_ORDER.encode())
        for key, storage in kept.values():
            assert storage.buffer is not None
            nbytes = int(np.prod(storage.shape)) * storage.dtype.itemsize
            _add(archive, f"{folder}/data/{key}", storage.buffer.array(np.uint8, (nbytes,)))
        _add(archive, f"{folder}/version", VERSION.encode())


def _add(archive: zipfile.ZipFile, name: str, content: bytes | np.ndarray) -> None:
    """A record, whose content begins at a multiple of the alignment: a field that nobody reads goes before it."""
    record = zipfile.ZipInfo(name)
    assert archive.fp is not None
    begin = archive.fp.tell() + HEAD + len(name.encode()) + 4
    room = -begin % ALIGNMENT
    record.extra = b"FB" + room.to_bytes(2, "little") + bytes(room)
    archive.writestr(record, memoryview(content))  # type: ignore[arg-type]


class Storages:
    """The storages of an archive, read when a tensor first asks for them."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, place: Placed, memory: np.ndarray | None) -> None:
        self.archive, self.folder, self.place, self.memory = archive, folder, place, memory
        self.known: dict[str, _Whole] = {}

    def __call__(self, pid: tuple) -> _Whole:
        storage_type, key, location, count = _parsed(pid)
        if key not in self.known:
            self.place(location)
            self.known[key] = _Whole(self._bytes(f"{self.folder}/data/{key}"), storage_type, count,
                                     self.memory is not None)
        return self.known[key]

    def _bytes(self, name: str) -> np.ndarray:
        if self.memory is None:
            return np.frombuffer(self.archive.read(name), np.uint8)
        record = self.archive.getinfo(name)
        if record.compress_type != zipfile.ZIP_STORED:
            raise UnsupportedError("load(mmap=True): the file's storages are compressed")
        head = self.memory[record.header_offset:record.header_offset + HEAD]
        begin = record.header_offset + HEAD + sum(map(int, head[-4:].view("<u2")))
        return self.memory[begin:begin + record.file_size]


def _parsed(pid: tuple) -> tuple[StorageType, str, str, int]:
    """What is held, the key, where it was, how many elements: of a storage's persistent id."""
    kind, storage_type, key, location, count, *view = pid
    if kind != "storage" or not isinstance(storage_type, StorageType) or view not in ([], [None]):
        raise UnsupportedError(f"load(): the file holds a {kind} of {storage_type}, which is not supported")
    return storage_type, key, location, count


class _Whole:
    """A storage that has been read: makes tensors that look at it."""

    def __init__(self, content: np.ndarray, storage_type: StorageType, count: int, mapped: bool) -> None:
        self.dtype = storage_type.dtype
        if content.size < count * self.dtype.itemsize:
            raise Damaged(f"a storage of {count} elements of {self.dtype} has {content.size} bytes")
        self.content = content[:count * self.dtype.itemsize]
        self.count, self.mapped = count, mapped
        self.first: Tensor | None = None

    def __call__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        if len(size) != len(stride) or offset < 0 or any(each < 0 for each in (*size, *stride)):
            raise Damaged(f"a tensor of shape {size} with strides {stride} at {offset} is none")
        last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
        if 0 not in size and last >= self.count:
            raise Damaged(f"a tensor of shape {size} with strides {stride} at {offset} reaches beyond the "
                          f"{self.count} elements of its storage")
        whole = stride == contiguous_strides(size) and int(np.prod(size)) == self.count
        if self.first is None:
            array = self.content.view(self.dtype.numpy).reshape(size if whole else (self.count,))
            self.first = from_numpy(array) if self.mapped else of_array(array, self.dtype)
            if whole:
                return self.first
        if 0 in size:
            return of_array(np.empty(size, self.dtype.numpy), self.dtype)
        return strided_view(self.first.view(-1), size, stride, offset).detach()

    def fill(self, content: bytes) -> None:
        """Gives the tensors that look at it their values."""
        if len(content) != self.content.size:
            raise Damaged(f"a storage of {self.content.size} bytes ends after {len(content)}")
        if self.first is not None:
            buffer = self.first.storage.buffer
            assert buffer is not None
            buffer.array(np.uint8, (len(content),))[...] = np.frombuffer(content, np.uint8)


def read_checkpoint(content: np.ndarray, place: Placed, trusted: bool, mapped: bool) -> Any:
    """The object in a file that is given as its bytes; with `mapped`, tensors look at these themselves.

    Damaged for an archive that is not whole; pickle.UnpicklingError for what a file that is not trusted must not hold.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))  # type: ignore[arg-type]
        [pickled] = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        folder = pickled.partition("/")[0]
        order = f"{folder}/byteorder"
        if order in archive.namelist() and archive.read(order).decode() != BYTE_ORDER:
            raise UnsupportedError("load(): the file was written on a big-endian machine")
        return Unpickler(io.BytesIO(archive.read(pickled)),
                         Storages(archive, folder, place, content if mapped else None), trusted).load()
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError) as error:
        raise Damaged(str(error)) from error


def read_old_checkpoint(content: np.ndarray, place: Placed, trusted: bool) -> Any:
    """The object in a file that PyTorch has written before 1.6 (or been told to write so); raises as above."""
    file, storages = io.BytesIO(content), dict[str, _Whole]()  # type: ignore[arg-type]

    def find(pid: tuple) -> _Whole:
        storage_type, key, location, count = _parsed(pid)
        if key not in storages:
            place(location)
            storages[key] = _Whole(np.zeros(count * storage_type.dtype.itemsize, np.uint8), storage_type, count, False)
        return storages[key]

    def read() -> Any:
        return Unpickler(file, find, trusted).load()

    def read_bytes(count: int) -> bytes:
        found = file.read(count)
        if len(found) < count:
            raise Damaged("it ends within a storage")
        return found

    try:
        if (read(), read()) != OLD:
            raise Damaged("it does not begin as one")
        if not read()["little_endian"]:
            raise UnsupportedError("load(): the file was written on a big-endian machine")
        result = read()
        for key in read():
            whole = storages[key]
            if int.from_bytes(read_bytes(8), "little") != whole.count:
                raise Damaged(f"storage {key} is not as long as it is said to be")
            whole.fill(read_bytes(whole.content.size))
        return result
    except (KeyError, IndexError, EOFError, ValueError, TypeError) as error:
        raise Damaged(str(error)) from error
