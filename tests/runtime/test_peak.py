"""Measuring the machine: the kernels do what is counted."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from torturous.codegen import peak as kernels
from torturous.codegen.service import Service, Source
from torturous.codegen.table import ENTRY_BYTES
from torturous.codegen.target import X86_LEVELS, x86_target
from torturous.runtime import peak
from torturous.runtime.bound import target
from torturous.runtime.build import build
from torturous.runtime.workers import build_workers


def test_both_are_measured(monkeypatch):
    monkeypatch.setattr(peak, "SECONDS", 0.01)
    monkeypatch.setattr(peak, "TRIAD_PIECES", 4)
    found = peak.measure_peak()
    # Of any size: a thread may be off its core all the time.
    assert 0 < found.operations < math.inf and 0 < found.bandwidth < math.inf


def test_the_triad_computes_every_element():
    pieces, elements = 3, 3 * kernels.TRIAD_PIECE
    random = np.random.default_rng(0)
    buffers = [peak._filled(elements) for _ in range(3)]
    a, b, c = (buffer.array(np.float32, (elements,)) for buffer in buffers)
    b[:], c[:] = random.standard_normal((2, elements), np.float32)
    [address] = build([peak._source(kernels.triad(target()), "triad")], target())
    table = np.array([buffer.address for buffer in buffers], np.int64)
    entry = np.zeros((1, ENTRY_BYTES // 8), np.int64)
    entry[0] = address, table.ctypes.data, pieces, 1
    crew = build_workers(target(), 2)
    crew.run(entry.ctypes.data, 1)
    crew.close()
    np.testing.assert_array_equal(a, b + (c + c))


@pytest.mark.parametrize("level", X86_LEVELS)
def test_the_multiply_adds_stay_in_registers(level):
    """The inner loop holds as many vector operations as are counted, and touches no memory."""
    machine = x86_target(level, "x86_64-unknown-linux-gnu")
    text, operations = kernels.multiply_adds(machine)
    service = Service(helpers=1)
    assembly = service.assembly(Source(text.replace("@KERNEL(", "@kernel("), "multiply-adds"), machine)
    service.close()
    loop = re.search(r"^(\.LBB\d+_\d+):(.*?)\bj\w+\s+\1$", assembly, re.M | re.S)[2]
    arithmetic = re.findall(r"vfmadd\w+ps|(?:mul|add)ps", loop)
    per_round = operations / kernels.ROUNDS / machine.lanes
    assert len(arithmetic) * (2 if machine.has_fma else 1) == per_round
    assert "(%r" not in loop
