"""The machine, the versions, and a process's peak memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torturous", "numpy", "llvmlite", "torch", "onnxruntime", "onnx")
STILL = 5
"""Tenths of a second without work after which a process counts as idle."""


def describe() -> dict[str, Any]:
    """Processor, cores, system, and the versions of everything that takes part."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(), "versions": versions}


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def await_helpers(most: float = 20.0) -> None:
    """Returns when the processes that this one has started are idle (on Linux; elsewhere at once).

    torch.compile's are still importing PyTorch when the first compiled function returns.
    """
    until, before, still = time.monotonic() + most, _helpers_ticks(), 0
    while before is not None and still < STILL and time.monotonic() < until:
        time.sleep(0.1)
        now = _helpers_ticks()
        still = still + 1 if now == before else 0
        before = now


def _helpers_ticks() -> int | None:
    """Processor time of all processes below this one, in clock ticks; None if there are none."""
    times: dict[int, int] = {}
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_and_rest = entry.read_text().rpartition(")")
        except OSError:
            continue
        fields = name_and_rest[2].split()  # from the third on: state, parent, …, user time, system time
        process = int(entry.parent.name)
        times[process] = int(fields[11]) + int(fields[12])
        below.setdefault(int(fields[1]), []).append(process)
    total, pending = 0, list(below.get(os.getpid(), ()))
    if not pending:
        return None
    while pending:
        process = pending.pop()
        total += times[process]
        pending += below.get(process, ())
    return total


def peak_memory() -> float:
    """The most memory this process has had, in megabytes.

    On Linux from VmHWM, which belongs to the program: ru_maxrss also counts what the parent was before `exec`.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found.group(1)) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1024)
