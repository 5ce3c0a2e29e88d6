"""Rows of a product are read where they lie, and nothing is read that is past them."""
from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, mmap
import numpy as np
import torturous as torch

PAGE = mmap.PAGESIZE
library = ctypes.CDLL(None, use_errno=True)
kept = []

def before_a_wall(values):
    # A copy whose last byte is the last one before memory that nobody may read.
    length = -(-values.nbytes // PAGE) * PAGE
    memory = mmap.mmap(-1, length + PAGE)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert library.mprotect(ctypes.c_void_p(start + length), ctypes.c_size_t(PAGE), 0) == 0
    array = np.frombuffer(memory, values.dtype, values.size, length - values.nbytes).reshape(values.shape)
    array[...] = values
    return torch.from_numpy(array)

random = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for m, n, k in ((1, 40, 300), (5, 7, 9), (15, 33, 257), (29, 48, 300), (71, 64, 513), (300, 257, 40)):
        a, b = random.standard_normal((m, k)).astype(dtype), random.standard_normal((k, n)).astype(dtype)
        for left in (before_a_wall(a), before_a_wall(np.ascontiguousarray(a.T)).t()):
            for right in (before_a_wall(b), before_a_wall(np.ascontiguousarray(b.T)).t()):
                found = (left @ right).numpy()
                assert np.abs(found - a.astype(np.float64) @ b).max() < (1e-3 if dtype == np.float32 else 1e-10)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect is called as on Linux")
def test_nothing_past_an_operand_is_read() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert run.stdout == "done\n", (run.returncode, run.stderr[-2000:])
