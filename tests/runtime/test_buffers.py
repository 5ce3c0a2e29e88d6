"""Buffers and the caching allocator: where blocks lie, when they are reused, and who can see them."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import subprocess
import sys
import textwrap
import threading
import weakref

import ml_dtypes
import numpy as np
import pytest

from torturous.runtime import buffers
from torturous.runtime.buffers import Buffer, allocate, size_class, statistics, trim
from torturous.runtime.flight import land

SIZES = [0, 1, 63, 64, 65, 1000, 4096, 32768, 32769, 100_000]
SIZES += [2**20, 2**21 - 1, 2**21, 2**21 + 1, 3 * 2**20, 2**24]


@pytest.fixture(autouse=True)
def nothing_cached():
    trim()


def unseen(buffer: Buffer) -> bool:
    """Whether a buffer is not exported, as soon as reference cycles are collected."""
    if buffer.exported:
        gc.collect()
    return not buffer.exported


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def test_size_classes():
    sizes = sorted({size_class(nbytes) for nbytes in range(1, 70_000)} | {size_class(n) for n in SIZES})
    assert all(size % 64 == 0 for size in sizes)
    for nbytes in [*range(70_000), *SIZES]:
        size = size_class(nbytes)
        assert nbytes <= size and size == size_class(size)
        assert size <= max(64, nbytes * 1.25 + 64)


@pytest.mark.parametrize("nbytes", SIZES)
def test_alignment_content_and_padding(nbytes):
    held = [allocate(nbytes) for _ in range(5)]
    for index, buffer in enumerate(held):
        assert buffer.nbytes == nbytes and not buffer.foreign
        assert buffer.address % (2**21 if nbytes >= 2**21 else 64) == 0
        ctypes.memset(buffer.address, index + 1, nbytes)
        ctypes.string_at(buffer.address + nbytes, buffers.PADDING)
    for index, buffer in enumerate(held):
        assert ctypes.string_at(buffer.address, nbytes) == bytes([index + 1]) * nbytes


def test_blocks_never_overlap():
    draw = random.Random(0)
    held: list[Buffer] = []
    for _ in range(3000):
        if held and draw.random() < 0.45:
            del held[draw.randrange(len(held))]
        else:
            held.append(allocate(int(2 ** draw.uniform(0, 22))))
    spans = sorted((buffer.address, buffer.address + buffer.nbytes) for buffer in held)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    assert statistics().live_bytes >= sum(end - start for start, end in spans)


@pytest.mark.parametrize("nbytes", SIZES)
def test_last_freed_is_first_reused(nbytes):
    first, second = allocate(nbytes), allocate(nbytes)
    one, two = first.address, second.address
    assert one != two
    del first
    del second
    again = allocate(nbytes), allocate(nbytes)
    assert [buffer.address for buffer in again] == [two, one]


def test_a_dropped_buffer_is_gone():
    buffer = allocate(100)
    seen = weakref.ref(buffer)
    del buffer
    assert seen() is None


def test_statistics_and_trim():
    land()
    gc.collect()  # What earlier tests have left is not to go meanwhile.
    before = statistics()
    large = [allocate(2**22) for _ in range(8)]
    small = [allocate(64) for _ in range(1000)]
    during = statistics()
    assert during.live_bytes - before.live_bytes == 8 * 2**22 + 64_000
    assert during.peak_bytes >= during.live_bytes + during.cached_bytes
    del large, small
    after = statistics()
    assert after.live_bytes == before.live_bytes
    assert after.cached_bytes >= 8 * 2**22
    trim()
    assert statistics().cached_bytes <= after.cached_bytes - 8 * 2**22
    assert statistics().peak_bytes == after.peak_bytes


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads resident memory from /proc")
def test_trim_returns_memory():
    buffer = allocate(2**26)
    ctypes.memset(buffer.address, 1, buffer.nbytes)
    full = resident_bytes()
    del buffer
    trim()
    assert resident_bytes() < full - 0.9 * 2**26


def test_steady_loop_does_not_grow():
    def step():
        kept = [allocate(size) for size in (10, 5000, 2**18, 2**22, 3 * 2**22)]
        return [allocate(buffer.nbytes) for buffer in kept]

    step()
    held = statistics()
    for _ in range(500):
        step()
    now = statistics()
    assert now.live_bytes + now.cached_bytes == held.live_bytes + held.cached_bytes
    assert now.cached_bytes >= 2 * 2**24  # and nothing went back to the system in between


def test_wandering_sizes_do_not_grow():
    base = statistics().live_bytes + statistics().cached_bytes
    draw = random.Random(1)
    for _ in range(400):
        buffer = allocate(int(2 ** draw.uniform(20, 26)))
        now = statistics()
        assert now.live_bytes + now.cached_bytes <= base + 1.25 * (2**26 + base) + 2**26 + 2 * 2**26
        del buffer
    assert statistics().cached_bytes <= base + 1.25 * (2**26 + base) + 2**26


def test_an_old_high_water_mark_is_forgotten():
    del [allocate(2**28)][:]
    assert statistics().cached_bytes >= 2**28
    for _ in range(2 * buffers.WINDOW + 1):
        allocate(2**20)
    assert statistics().cached_bytes < 2**28


def test_dropping_while_the_allocator_is_busy():
    """As the garbage collector does: in a thread that holds the lock, and in one that cannot have it."""
    dropped = [allocate(2**21) for _ in range(4)]
    addresses = {buffer.address for buffer in dropped}
    with buffers._allocator.lock:
        dropped.pop()
        other = threading.Thread(target=lambda: dropped.clear())
        other.start()
        other.join(5)
        assert not other.is_alive()
    assert {buffer.address for buffer in [allocate(2**21) for _ in range(4)]} == addresses


def test_cycles_are_collected_within_allocations():
    class Node:
        def __init__(self) -> None:
            self.buffer = allocate(random.choice([64, 2**17]))
            self.cycle = self

    before = statistics().live_bytes
    for _ in range(5000):
        Node()
    gc.collect()
    assert statistics().live_bytes <= before


def test_threads():
    failures: list[str] = []
    before = statistics().live_bytes

    def work(seed: int) -> None:
        draw = random.Random(seed)
        held: list[np.ndarray] = []
        for turn in range(1500):
            array = allocate(8 * draw.choice([1, 100, 1000, 20_000])).array(np.int64, (1,))
            array[0] = seed * 10_000 + turn
            held.append(array)
            if len(held) > 20:
                values = [int(array[0]) for array in held]
                if values != list(range(values[0], values[0] + len(held))):
                    failures.append(str(values))
                del held[: draw.randrange(20)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert statistics().live_bytes <= before


def test_errors():
    with pytest.raises(ValueError, match="-1"):
        allocate(-1)
    for nbytes in (2**62, 2**70):
        with pytest.raises(RuntimeError, match=f"allocate .*{size_class(nbytes)} bytes"):
            allocate(nbytes)
    with pytest.raises(ValueError, match="needs 12 bytes"):
        allocate(8).array(np.float32, (3,))
    with pytest.raises(ValueError):
        allocate(8).array(np.float32, (-1,))


DTYPES = [
    np.bool_, np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64,
    np.complex64, np.complex128, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 0, 2), (2, 1, 4)])
def test_arrays(dtype, shape):
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = allocate(nbytes)
    array = buffer.array(dtype, shape)
    assert array.dtype == dtype and array.shape == shape
    assert array.flags.c_contiguous and array.flags.writeable and not array.flags.owndata
    array[...] = np.ones(shape, dtype)
    assert ctypes.string_at(buffer.address, nbytes) == np.ones(shape, dtype).tobytes()
    if nbytes:
        assert array.ctypes.data == buffer.address


VIEWS = {
    "itself": lambda array: array,
    "slice": lambda array: array[1:],
    "slice of a slice": lambda array: array[1:][::2],
    "reshaped": lambda array: array.reshape(3, 4).T,
    "view": lambda array: array.view(np.uint16).view(np.int8),
    "real part": lambda array: array.view(np.complex64).real,
    "strided": lambda array: np.lib.stride_tricks.as_strided(array, (3, 3), (4, 4)),
    "broadcast": lambda array: np.broadcast_to(array, (5, 12)),
    "memoryview": lambda array: memoryview(array)[2:],
    "array of a memoryview": lambda array: np.asarray(memoryview(array)),
    "frombuffer": lambda array: np.frombuffer(array, np.int16),
    "subclass": lambda array: array.view(np.matrix),
    "masked": lambda array: np.ma.masked_array(array),
    "iterator": lambda array: array.flat,
    "ctypes": lambda array: np.ctypeslib.as_ctypes(array),
    "dlpack": lambda array: np.from_dlpack(array),
    "attribute": lambda array: type("Holder", (), {"array": array})(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_exported_while_any_view_lives(view):
    buffer = allocate(48)
    assert not buffer.exported
    array = buffer.array(np.float32, (12,))
    other = buffer.array(np.int64, (6,))
    assert buffer.exported
    seen = VIEWS[view](array)
    del array
    assert buffer.exported
    del other
    assert buffer.exported
    del seen
    assert unseen(buffer)
    again = buffer.array(np.int8, (48,))
    assert buffer.exported
    del again
    assert not buffer.exported


@pytest.mark.parametrize("view", VIEWS)
def test_arrays_keep_memory(view):
    buffer = allocate(48)
    address = buffer.address
    seen = VIEWS[view](buffer.array(np.float32, (12,)))
    alive = weakref.ref(buffer)
    del buffer
    assert alive() is not None
    other = allocate(48)
    assert other.address != address
    del seen
    if alive() is not None:
        gc.collect()
    assert alive() is None
    another = allocate(48)
    assert another.address == address


def test_export_object():
    buffer = allocate(8)
    export = buffer.export()
    assert export is buffer.export() and buffer.exported
    array = buffer.array(np.int8, (8,))
    del export
    assert buffer.exported
    del array
    assert not buffer.exported


@pytest.mark.parametrize("view", VIEWS)
def test_foreign_arrays(view):
    array = np.arange(12, dtype=np.float32)
    buffer = Buffer.wrap(array)
    assert buffer.foreign and buffer.nbytes == 48 and buffer.address == array.ctypes.data
    assert buffer.exported
    seen = VIEWS[view](array)
    del array
    assert buffer.exported
    del seen
    assert unseen(buffer)
    ours = buffer.array(np.float32, (12,))
    assert ours.tolist() == list(range(12)) and buffer.exported
    del ours
    assert not buffer.exported


@pytest.mark.parametrize("view", ["slice", "slice of a slice", "reshaped", "view", "broadcast"])
def test_foreign_views(view):
    base = np.zeros(12, np.float32)
    buffer = Buffer.wrap(VIEWS[view](base))
    assert buffer.exported
    sibling = base[3:]
    del base
    assert buffer.exported
    del sibling
    assert not buffer.exported


def test_foreign_memory_of_other_owners(tmp_path):
    (tmp_path / "file").write_bytes(bytes(64))
    owned = allocate(64)
    for array in (
        np.frombuffer(bytearray(64), np.uint8),
        np.memmap(tmp_path / "file", np.uint8),
        np.ctypeslib.as_array((ctypes.c_uint8 * 64)()),
        owned.array(np.uint8, (64,)),
    ):
        buffer = Buffer.wrap(array)
        del array
        assert buffer.exported
    array = np.zeros(3)
    seen = weakref.ref(array)
    buffer = Buffer.wrap(array)
    del array
    assert buffer.exported  # the weak reference can make it visible at any time
    assert seen() is not None


@pytest.mark.parametrize("index", [
    np.s_[::-1], np.s_[:, ::2], np.s_[::2, ::-3], np.s_[3:, 2], np.s_[0:0], np.s_[2, 3, ...],
    np.s_[..., None, 1:5],
])
def test_wrapped_bytes(index):
    base = np.arange(60, dtype=np.int32).reshape(6, 10)
    array = base[index]
    for shown in (array, array.T):
        buffer = Buffer.wrap(shown)
        offsets = (shown.ravel() * 4).tolist()  # every element holds its own position
        if offsets:
            assert buffer.address == base.ctypes.data + min(offsets)
            assert buffer.nbytes == max(offsets) - min(offsets) + 4
        else:
            assert buffer.nbytes == 0


def program(text: str) -> str:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    setup = f"import sys; sys.path.insert(0, {root!r})\nfrom torturous.runtime.buffers import *\n"
    result = subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(text)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout


def test_interpreter_exit():
    printed = program("""
        import builtins, os
        class Last:
            def __init__(self, nbytes):
                self.array = allocate(nbytes).array("int64", (nbytes // 8,))
                self.array[:] = 1
                self.more = [allocate(nbytes) for _ in range(3)]
            def __del__(self, write=os.write, sum=sum, str=str):
                write(1, (str(sum(self.array.tolist())) + "\\n").encode())
        sys.kept = Last(1 << 23)
        builtins.kept = Last(64)
        globals()["also"] = Last(1 << 16)
        loop = Last(1 << 17); loop.loop = loop
    """)
    assert sorted(map(int, printed.split())) == [8, 1 << 13, 1 << 14, 1 << 20]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    printed = program("""
        import os, threading
        from torturous.runtime import buffers
        array = allocate(1 << 22).array("int64", (1 << 19,))
        array[:] = 1
        held = threading.Event(); done = threading.Event()
        def hold():
            with buffers._allocator.lock:
                held.set(); done.wait()
        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if child == 0:
            array[:] = 2
            allocate(1 << 22)
            print(int(array.sum()), flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], int(array.sum()))
        done.set()
    """)
    assert printed.split() == [str(2 << 19), "0", str(1 << 19)]
