"""Memory: buffers and the caching allocator behind them.

A small block (up to 32 KiB) is carved from a 2 MiB region and belongs to a *bin*, the list of free blocks of
its size class; it never leaves it. A large block is a mapping of its own, from 2 MiB on (or a little less, made up
to that) aligned to 2 MiB and advised to be in huge pages: page faults on freshly mapped memory cost more than most
kernels that would write it. Freed blocks are reused last in, first out, while they may still be in a cache.

Free large blocks are kept as long as all memory held stays below 1.25 times the recent high-water mark of
memory in use plus 64 MiB: a training loop that frees its activations after each step finds them again in the
next one, and a program whose sizes wander does not grow.

Buffers may be dropped by any thread, at any time (also inside the garbage collector while this module holds
its lock) and at interpreter exit: dropping one only appends to a list, and takes the lock only where it is
free.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torturous.runtime.flight import await_writer, land

if TYPE_CHECKING:
    import numpy.typing as npt

ALIGNMENT = 64
PADDING = 64
"""Bytes that can be read (not written) past the end of any buffer that is not foreign."""

SMALL = 32 << 10
HUGE_PAGE = 2 << 20
CACHE_ALLOWANCE = 64 << 20
WINDOW = 1024
"""Large allocations over which a high-water mark counts as recent (the present window and the one before)."""

_REFILL = 32 << 10  # bytes of blocks that a bin carves at once


class Bounds(NamedTuple):
    """Between which integers the elements of a buffer lie."""

    least: int
    greatest: int
    exact: bool
    """Whether there are such elements."""

    def inside(self, lowest: int, past: int) -> bool:
        """Whether all elements are among `lowest` … `past` − 1."""
        return lowest <= self.least and self.greatest < past


@dataclass(frozen=True)
class Statistics:
    """Memory in bytes, in whole blocks: used by buffers, free but kept, and the most ever held of both."""

    live_bytes: int
    cached_bytes: int
    peak_bytes: int


def size_class(nbytes: int) -> int:
    """The size of the block that serves `nbytes`: a multiple of 64, and four classes to each power of two."""
    if nbytes <= 4 * ALIGNMENT:
        return max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT
    step = 1 << ((nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


class _Mapping:
    """Private anonymous memory from the operating system, `nbytes` usable from `address` on."""

    __slots__ = ("_pages", "address")

    def __init__(self, nbytes: int) -> None:
        whole = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
        if (whole - nbytes) * 8 <= whole:
            nbytes = whole  # Little more memory, and no small pages, which take long to be found.
        alignment = HUGE_PAGE if nbytes >= HUGE_PAGE else mmap.PAGESIZE
        # What alignment skips is never touched, hence takes no memory; PADDING is part of the mapping.
        length = nbytes + PADDING + (alignment if alignment > mmap.PAGESIZE else 0)
        if hasattr(mmap, "MAP_ANONYMOUS"):
            # Shared, mmap's default, would let a forked child write into its parent's tensors.
            self._pages = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._pages = mmap.mmap(-1, length)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self.address = -(-start // alignment) * alignment
        if alignment == HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self._pages.madvise(mmap.MADV_HUGEPAGE, self.address - start, nbytes)
            except OSError:  # a kernel without huge pages
                pass


class _Bin(list[int]):
    """The addresses of the free blocks of one size class, last freed last.

    A buffer refers to its bin, and a bin to the mappings that its blocks lie in, so memory outlives its last
    buffer even while the interpreter takes modules apart.
    """

    __slots__ = ("allocator", "blocks", "last_use", "mappings", "size")

    def __init__(self, allocator: _Allocator, size: int) -> None:
        super().__init__()
        self.allocator = allocator
        self.size = size
        self.blocks = 0  # free and in use
        self.last_use = 0
        self.mappings: dict[int, _Mapping] = {}

    def recycle(self, address: int) -> None:
        """Takes back a large block. May run anywhere, also within another method of the same allocator."""
        allocator = self.allocator
        if not allocator.lock.acquire(blocking=False):
            # Another thread is at it: that thread, or the next allocation, will take the block.
            allocator.returned.append((self, address))
            return
        try:
            self.append(address)
            allocator.free_large += self.size
            allocator.settle()
            allocator.evict()
        finally:
            allocator.lock.release()


class _Allocator:
    """The bins and the accounts of memory. Everything here but `returned` is changed under `lock` only."""

    def __init__(self) -> None:
        sizes = sorted({size_class(units * ALIGNMENT) for units in range(1, SMALL // ALIGNMENT + 1)})
        self.small = [_Bin(self, size) for size in sizes]
        self.large: dict[int, _Bin] = {}
        self.returned: list[tuple[_Bin, int]] = []
        self.region: _Mapping | None = None
        self.region_used = 0
        self.held = 0
        self.free_large = 0
        self.peak = 0
        self.allowance = CACHE_ALLOWANCE  # not read from the module, whose names may be gone at exit
        self.requests = 0
        self.high_water = [0, 0]  # of large bytes in use: in this window of requests, in the one before
        self.renew_lock()

    def renew_lock(self) -> None:
        """Makes a new lock: in a forked child, a thread that does not exist there may hold the old one."""
        # Re-entrant, because a garbage collection may start anywhere and run code that allocates.
        self.lock = threading.RLock()

    def refill(self, small: _Bin) -> int:
        """Carves blocks for an empty bin; returns the address of one of them."""
        with self.lock:
            count = max(1, _REFILL // small.size)
            nbytes = count * small.size
            if self.region is None or self.region_used + nbytes > HUGE_PAGE:
                self.region = self.map(HUGE_PAGE)
                self.region_used = 0
            first = self.region.address + self.region_used
            self.region_used += nbytes
            small.mappings[self.region.address] = self.region
            small.blocks += count
            small.extend(range(first + nbytes - small.size, first, -small.size))
        return first

    def take_large(self, nbytes: int) -> tuple[_Bin, int]:
        """A large block of at least `nbytes` bytes and its bin."""
        size = size_class(nbytes)
        with self.lock:
            self.settle()
            bin = self.large.get(size)
            if bin is None:
                bin = self.large[size] = _Bin(self, size)
            self.requests += 1
            bin.last_use = self.requests
            if self.requests % WINDOW == 0:
                self.high_water = [0, self.high_water[0]]
            if bin:
                address = bin.pop()
                self.free_large -= size
            else:
                mapping = self.map(size)
                address = mapping.address
                bin.mappings[address] = mapping
                bin.blocks += 1
            self.evict()
        return bin, address

    def map(self, nbytes: int) -> _Mapping:
        """New memory from the operating system; where it has none, free blocks are given up first."""
        try:
            mapping = _Mapping(nbytes)
        except (OSError, OverflowError, ValueError):
            self.release(self.free_large)
            try:
                mapping = _Mapping(nbytes)
            except (OSError, OverflowError, ValueError):
                raise RuntimeError(
                    f"not enough memory: tried to allocate {nbytes} bytes with "
                    f"{self.held - self.free_large} bytes in use; smaller batches, or dropping tensors "
                    "that are no longer needed, would help"
                ) from None
        self.held += nbytes
        self.peak = max(self.peak, self.held)
        return mapping

    def settle(self) -> None:
        """Puts returned large blocks into their bins."""
        while self.returned:
            bin, address = self.returned.pop(0)
            bin.append(address)
            self.free_large += bin.size

    def evict(self) -> None:
        """Returns free large blocks to the system that exceed what the recent high-water mark allows."""
        used = self.held - self.free_large
        recent, before = self.high_water
        if used > recent:
            recent = self.high_water[0] = used
        high_water = recent if recent > before else before
        excess = self.held - (high_water + high_water // 4 + self.allowance)
        if excess > 0:
            self.release(excess)

    def release(self, nbytes: int) -> None:
        """Returns at least `nbytes` bytes of free large blocks, or all, to the system; stalest first."""
        if nbytes <= 0:
            return
        for bin in sorted(self.large.values(), key=lambda bin: bin.last_use):
            while bin and nbytes > 0:
                del bin.mappings[bin.pop(0)]
                bin.blocks -= 1
                self.free_large -= bin.size
                self.held -= bin.size
                nbytes -= bin.size

    def statistics(self) -> Statistics:
        with self.lock:
            self.settle()
            bins = [*self.small, *self.large.values()]
            live = sum((bin.blocks - len(bin)) * bin.size for bin in bins)
            return Statistics(live, self.held - live, self.peak)


_allocator = _Allocator()
_SMALL_BINS = [
    next(bin for bin in _allocator.small if bin.size >= units * ALIGNMENT)
    for units in range(SMALL // ALIGNMENT + 1)
]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_allocator.renew_lock)


class Export:
    """Someone outside who can see a buffer's memory: lives as long as an array, a view or a capsule."""

    __slots__ = ("__array_interface__", "__weakref__", "buffer")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.__array_interface__: dict[str, Any] = {
            "data": (buffer.address, False), "shape": (buffer.nbytes,), "typestr": "|u1", "version": 3,
        }


class Buffer:
    """`nbytes` bytes of memory at `address`, not initialised; the block is reused once the buffer is dropped.

    Made by `allocate` and `Buffer.wrap`. An allocated buffer's address is a multiple of 64 (of 2 MiB, from 2
    MiB on), and PADDING bytes past its end can be read. Nothing of this is promised for a foreign buffer.
    """

    __slots__ = ("__weakref__", "_export", "_recycle", "address", "bounds", "nbytes", "owner")

    def __init__(
        self,
        address: int,
        nbytes: int,
        recycle: Callable[[int], None] | None,
        owner: np.ndarray | None = None,
    ) -> None:
        self.address = address
        self.nbytes = nbytes
        self.owner = owner
        self._recycle = recycle
        self._export: weakref.ref[Export] | None = None
        self.bounds: Bounds | None = None
        """Between which integers its elements are known to lie, until it is written anew or shown to anyone."""

    def __del__(self) -> None:
        # Bound when the buffer was made, because the module's own names may be gone at exit.
        try:
            recycle = self._recycle
        except AttributeError:  # interrupted (KeyboardInterrupt) before it was made
            return
        if recycle is not None:
            recycle(self.address)

    def __repr__(self) -> str:
        return f"Buffer({self.nbytes} bytes at {self.address:#x}{', foreign' if self.foreign else ''})"

    @classmethod
    def wrap(cls, array: np.ndarray) -> Buffer:
        """A buffer over the bytes from the first to the last element of a NumPy array, which it keeps alive.

        With negative strides, `address` is below the address of the array's first element.
        """
        first = array.__array_interface__["data"][0]
        if array.flags.c_contiguous:
            return cls(first, array.nbytes, None, array)
        if array.size == 0:
            return cls(first, 0, None, array)
        reach = [stride * (extent - 1) for stride, extent in zip(array.strides, array.shape, strict=True)]
        low = sum(step for step in reach if step < 0)
        high = sum(step for step in reach if step > 0)
        return cls(first + low, high - low + array.itemsize, None, array)

    @property
    def foreign(self) -> bool:
        """Whether the memory belongs to `owner`, a NumPy array, rather than to the allocator."""
        return self.owner is not None

    def export(self) -> Export:
        """An object that keeps the buffer alive and, as long as it lives, marks it as exported."""
        export = None if self._export is None else self._export()
        if export is None:
            export = Export(self)
            self._export = weakref.ref(export)
            self.bounds = None
        return export

    def array(self, dtype: npt.DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """A writable, C-contiguous NumPy array of the given dtype (also of ml_dtypes) and shape on the
        buffer's start.

        The array, and any view of it, keeps the buffer alive and exported; no plan in the air reads or writes it.
        ValueError if the buffer is too small.
        """
        land()
        return self._array(dtype, shape, self.export())

    def brief(self, dtype: npt.DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """`array`, to be read, or written for the first time, at once and then dropped: a plan in the air that does
        not write the memory stays there."""
        await_writer(self)
        return self._array(dtype, shape, Export(self))

    def _array(self, dtype: npt.DTypeLike, shape: Sequence[int], seen: Export) -> np.ndarray:
        dtype = np.dtype(dtype)
        shape = tuple(shape)
        wanted = dtype.itemsize
        for extent in shape:
            wanted *= extent
        if wanted > self.nbytes or wanted < 0:
            raise ValueError(
                f"an array of {dtype} and shape {shape} needs {wanted} bytes; the buffer has {self.nbytes}"
            )
        # The array's base is the array of bytes, whose base is the export: views of views keep both alive.
        return np.asarray(seen)[:wanted].view(dtype).reshape(shape)

    @property
    def exported(self) -> bool:
        """Whether anyone outside may see the memory. Where that cannot be decided, True."""
        if self._export is not None and self._export() is not None:
            return True
        return self.owner is not None and _seen_by_others(self, _ALONE)

    def written_by_others(self) -> bool:
        """`exported`, asked of many that nearly all never were."""
        return (self._export is not None or self.owner is not None) and self.exported


def _seen_by_others(buffer: Buffer, alone: int) -> bool:
    """Whether the array of a foreign buffer, or one that it is a view of, is referred to by anything else.

    `alone` is the reference count seen here of an array that only the buffer refers to. An array of
    which a view exists is referred to by that view; whoever owns memory without being a NumPy array (bytes, a
    memory-mapped file, a C library) may have shown it to anyone.
    """
    owner = buffer.owner
    assert owner is not None
    while True:
        if sys.getrefcount(owner) > alone or weakref.getweakrefcount(owner) > 0:
            return True
        if owner.base is None:
            return not owner.flags.owndata
        if not isinstance(owner.base, np.ndarray):
            return True
        owner = owner.base


def _count_when_alone() -> int:
    """The smallest `alone` for which an array that nobody else refers to counts as such."""
    # Interpreters differ in how many temporary references a local variable makes, hence an experiment.
    buffer = Buffer.wrap(np.empty(1))
    alone = 1
    while _seen_by_others(buffer, alone):
        alone += 1
    return alone


_ALONE = _count_when_alone()


def allocate(nbytes: int) -> Buffer:
    """A buffer of `nbytes` bytes (0 is allowed). RuntimeError if memory is short; ValueError if negative."""
    if 0 <= nbytes <= SMALL:
        small = _SMALL_BINS[(nbytes + 63) >> 6]
        try:
            address = small.pop()
        except IndexError:
            address = _allocator.refill(small)
        return Buffer(address, nbytes, small.append)
    if nbytes < 0:
        raise ValueError(f"cannot allocate {nbytes} bytes")
    bin, address = _allocator.take_large(nbytes)
    return Buffer(address, nbytes, bin.recycle)


def trim() -> None:
    """Returns all free large blocks to the system (small ones stay) and forgets the high-water mark."""
    with _allocator.lock:
        _allocator.settle()
        _allocator.release(_allocator.free_large)
        _allocator.high_water = [_allocator.held, 0]


def statistics() -> Statistics:
    """Memory in use, cached, and the most ever held. Foreign memory is not counted."""
    return _allocator.statistics()
