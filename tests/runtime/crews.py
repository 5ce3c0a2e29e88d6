"""What the tests of the driver and of the workers share: kernels, tables, and programs of their own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
import numpy as np

from torturous.codegen import driver
from torturous.codegen import table as layout
from torturous.codegen.target import host_target
from torturous.runtime.linker import link
from torturous.runtime.workers import Workers, driver_functions, host_system

# Adds one to the counter of every piece.
COUNT = """
define void @count(ptr %counters, i64 %first, i64 %last, ptr %scratch) {
begin:
  br label %each
each:
  %piece = phi i64 [ %first, %begin ], [ %next, %each ]
  %counter = getelementptr i64, ptr %counters, i64 %piece
  %old = atomicrmw add ptr %counter, i64 1 monotonic
  %next = add i64 %piece, 1
  %more = icmp ult i64 %next, %last
  br i1 %more, label %each, label %done
done:
  ret void
}
"""

# Stores the address of its scratch memory for every piece, and adds the number of pieces to that memory.
SIGN = """
define void @sign(ptr %signatures, i64 %first, i64 %last, ptr %scratch) {
begin:
  %before = load i64, ptr %scratch
  %pieces = sub i64 %last, %first
  %after = add i64 %before, %pieces
  store i64 %after, ptr %scratch
  br label %each
each:
  %piece = phi i64 [ %first, %begin ], [ %next, %each ]
  %signature = getelementptr ptr, ptr %signatures, i64 %piece
  store ptr %scratch, ptr %signature
  %next = add i64 %piece, 1
  %more = icmp ult i64 %next, %last
  br i1 %more, label %each, label %done
done:
  ret void
}
"""

# The arguments are: a pointer to counters, their number, the value that each must have, and the number of
# counters found with another value.
EXPECT = """
define void @expect(ptr %arguments, i64 %first, i64 %last, ptr %scratch) {
begin:
  %counters = load ptr, ptr %arguments
  %number_field = getelementptr i64, ptr %arguments, i64 1
  %value_field = getelementptr i64, ptr %arguments, i64 2
  %violations = getelementptr i64, ptr %arguments, i64 3
  %number = load i64, ptr %number_field
  %value = load i64, ptr %value_field
  br label %each
each:
  %index = phi i64 [ 0, %begin ], [ %next, %look ], [ %next, %complain ]
  %more = icmp ult i64 %index, %number
  br i1 %more, label %look, label %done
look:
  %next = add i64 %index, 1
  %counter = getelementptr i64, ptr %counters, i64 %index
  %found = load i64, ptr %counter
  %right = icmp eq i64 %found, %value
  br i1 %right, label %each, label %complain
complain:
  %old = atomicrmw add ptr %violations, i64 1 monotonic
  br label %each
done:
  ret void
}
"""


# Spends time: its argument is the number of rounds per piece.
SPEND = """
define void @spend(ptr %arguments, i64 %first, i64 %last, ptr %scratch) {
begin:
  %rounds = load i64, ptr %arguments
  %pieces = sub i64 %last, %first
  %all = mul i64 %rounds, %pieces
  br label %each
each:
  %round = phi i64 [ 0, %begin ], [ %next, %each ]
  %number = phi i64 [ 1, %begin ], [ %product, %each ]
  %product = mul i64 %number, 6364136223846793005
  %next = add i64 %round, 1
  %more = icmp ult i64 %next, %all
  br i1 %more, label %each, label %done
done:
  store volatile i64 %product, ptr %scratch
  ret void
}
"""

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
"""A kernel written in Python, which threads that Python does not know may call too."""


def address(kernel: Callable[..., None]) -> int:
    return ctypes.cast(kernel, ctypes.c_void_p).value or 0


def load(text: str, symbol: str) -> int:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    target = host_target()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, reloc="pic", codemodel="small"
    )
    with llvm.parse_assembly(text, llvm.create_context()) as parsed:
        parsed.triple = target.triple
        parsed.verify()
        return link(machine.emit_object(parsed), symbol)


def make_workers(count: int, system: str = host_system()[1]) -> Workers:
    parts = driver.driver(host_system()[0], system)
    return Workers([load(parts.text, driver.SYMBOL)], driver_functions(parts.functions), count)


def table(*entries: tuple[int, int, int, bool]) -> np.ndarray:
    """A plan table of (kernel, arguments, pieces, barrier)."""
    rows = np.zeros((len(entries), layout.ENTRY_BYTES // 8), np.int64)
    for row, entry in zip(rows, entries, strict=True):
        row[[layout.KERNEL, layout.ARGUMENTS, layout.PIECES, layout.BARRIER]] = entry
    return rows


def run(workers: Workers, rows: np.ndarray) -> None:
    workers.run(rows.ctypes.data, len(rows))


def me() -> int:
    """The worker that calls this."""
    name = threading.current_thread().name
    return int(name.rsplit("-", 1)[1]) if name.startswith("torturous-worker") else 0


IMPORTS = """
import os, subprocess, threading, time
import numpy as np
from crews import *
from torturous.runtime import threads
from torturous.runtime import workers as module
"""


def script(text: str, **environment: str) -> str:
    """Runs a program that has these helpers and returns what it prints."""
    setup = f"import sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n{IMPORTS}"
    result = subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(text)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
