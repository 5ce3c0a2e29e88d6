"""How many threads run plans."""

from __future__ import annotations

import os
from collections.abc import Callable

VARIABLE = "TORTUROUS_NUM_THREADS"


followers: list[Callable[[int], None]] = []
"""What is told of a new number."""

_requested: int | None = None


def checked(count: int) -> int:
    if type(count) is not int:
        raise RuntimeError(f"set_num_threads expects an int, but got {type(count).__name__}")
    if count < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, but got {count}")
    return count


def get_num_threads() -> int:
    """The number of threads that run plans, as `torch.get_num_threads`.

    By default the number of physical cores that this process may use, or what TORTUROUS_NUM_THREADS says.
    """
    global _requested
    if _requested is None:
        _requested = _default_count()
    return _requested


def set_num_threads(count: int) -> None:
    """Changes the number of threads that run plans, as `torch.set_num_threads`; results do not depend on it.

    RuntimeError unless `count` is a positive integer, as in PyTorch.
    """
    global _requested
    _requested = checked(count)
    for follow in followers:
        follow(count)


def _default_count() -> int:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return physical_cores()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}={text!r} is not a valid value: make it a positive integer or unset it")
    return int(text)


def physical_cores() -> int:
    """The number of physical cores that this process may use: its affinity mask without sibling
    hyper-threads.

    Where the system does not tell which threads share a core, hyper-threads count. A container's CPU quota
    (cgroup 2) is obeyed: workers without a core of their own would only take turns with the others.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = _read_line(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings or str(cpu))
    quota = (_read_line("/sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(len(cores), -(-int(quota[0]) // int(quota[1]))))
    return len(cores)


def _read_line(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return None
