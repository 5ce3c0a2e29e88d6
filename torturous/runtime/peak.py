"""What this machine can do, measured: float32 multiply-adds and memory bandwidth, with all workers.

Shares of these peaks say how good a kernel is where absolute times would say how good the machine is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torturous.codegen import peak as kernels
from torturous.codegen.table import ENTRY_BYTES
from torturous.runtime.bound import target
from torturous.runtime.buffers import Buffer, allocate, trim
from torturous.runtime.build import KernelSource, build
from torturous.runtime.workers import Workers, build_workers

PIECES = 32
TRIAD_PIECES = 256
"""64 MB an array: far more than caches hold."""
SECONDS = 0.25
"""How long each of the two is measured; the best run counts."""


@dataclass(frozen=True)
class Peak:
    """Floating-point operations a second (a multiply-add is two), and bytes a second of a triad."""

    operations: float
    bandwidth: float


def measure_peak(threads: int | None = None) -> Peak:
    """Measures both, with `threads` threads (by default as many as run plans): half a second."""
    machine = target()
    text, operations = kernels.multiply_adds(machine)
    sources = [_source(text, "multiply-adds"), _source(kernels.triad(machine), "triad")]
    compute, stream = build(sources, machine)
    crew = build_workers(machine, threads)
    crew.reserve(machine.vector_bits // 8)
    try:
        seconds = _best(crew, compute, [_filled(machine.lanes)], PIECES)
        elements = TRIAD_PIECES * kernels.TRIAD_PIECE
        traffic = _best(crew, stream, [_filled(elements) for _ in range(3)], TRIAD_PIECES)
        return Peak(operations * PIECES / seconds, 12 * elements / traffic)
    finally:
        crew.close()
        trim()


def _filled(elements: int) -> Buffer:
    """Memory that has been written: what never was reads as one page of zeros, from the cache."""
    buffer = allocate(4 * elements)
    buffer.array(np.float32, (elements,)).fill(0.5)
    return buffer


def _source(text: str, description: str) -> KernelSource:
    symbol = "peak" + hashlib.sha256(text.encode()).hexdigest()[:24]
    return KernelSource(symbol, text.replace("@KERNEL(", f"@{symbol}("), description)


def _best(crew: Workers, kernel: int, arguments: Sequence[Buffer], pieces: int) -> float:
    """The shortest time of a run of all pieces."""
    addresses = np.array([buffer.address for buffer in arguments], np.int64)
    entry = np.zeros((1, ENTRY_BYTES // 8), np.int64)
    entry[0] = kernel, addresses.ctypes.data, pieces, 1
    crew.run(entry.ctypes.data, 1)
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        crew.run(entry.ctypes.data, 1)
        best = min(best, time.perf_counter() - started)
    return best
