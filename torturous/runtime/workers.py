"""Workers: the threads that run plans.

A worker is a daemon thread of Python that calls the driver (`codegen.driver`) once and stays in it, without
the interpreter's lock, until it is dismissed. The calling thread is always worker 0, so one thread fewer is
started than there are workers. The number of workers never changes a result, because a kernel's pieces do not
depend on it.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Sequence

from torturous.codegen import driver
from torturous.codegen.target import Target
from torturous.runtime import threads
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.build import KernelSource, build
from torturous.runtime.flight import land
from torturous.runtime.threads import checked, get_num_threads

_SIGNATURE = (None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
_SCRATCH_STEP = 4096
_EXIT_SECONDS = 1.0

Drive = Callable[[int, int, int, int], None]


def host_system() -> tuple[str, str]:
    """This machine as (architecture, system), in the words that `codegen.driver.driver` takes."""
    machine = platform.machine().lower()
    architecture = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    systems = {"linux": "linux", "darwin": "darwin", "win32": "windows"}
    return architecture, systems.get(sys.platform, "posix")


def driver_functions(functions: Sequence[tuple[str | None, str]]) -> list[int]:
    """The addresses of the C functions that the driver calls on this system (none on Linux)."""
    return [
        ctypes.cast(getattr(ctypes.CDLL(library), symbol), ctypes.c_void_p).value or 0
        for library, symbol in functions
    ]


class _Crew:
    """A control block and the threads parked at it. A crew is never changed, only replaced by another."""

    def __init__(self, drive: Drive, count: int, functions: Sequence[int]) -> None:
        self.drive = drive
        self.count = count
        self.control = allocate(driver.CONTROL_BYTES)
        self.address = self.control.address
        ctypes.memset(self.address, 0, driver.CONTROL_BYTES)
        self._write(driver.WORKERS, count)
        for index, function in enumerate(functions):
            self._write(driver.FUNCTIONS + 8 * index, function)
        self.threads = [
            threading.Thread(
                target=_park,
                args=(drive, self.control, worker),
                name=f"torturous-worker-{worker}",
                daemon=True,
            )
            for worker in range(1, count)
        ]

    def _write(self, offset: int, value: int) -> None:
        ctypes.c_int64.from_address(self.address + offset).value = value

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def set_scratch(self, address: int, stride: int) -> None:
        self._write(driver.SCRATCH, address)
        self._write(driver.SCRATCH_STRIDE, stride)

    def dismiss(self, timeout: float | None = None) -> None:
        """Sends all threads home and waits for them. Right also for a crew that was started only in part."""
        if self.threads:
            self.drive(self.address, driver.DISMISS, 0, 0)
        for thread in self.threads:
            if thread.is_alive():  # else it has not begun, and will find itself dismissed if it ever does
                thread.join(timeout)


def _park(drive: Drive, control: Buffer, worker: int) -> None:
    # The reference to the buffer keeps the control block alive for as long as the thread looks at it.
    drive(control.address, worker, 0, 0)


class Workers:
    """The threads that run plans.

    `run`, `run_serial`, `offer`, `join` and `reserve` may be called from any thread, but by one at a time: the
    caller holds a lock. Between an `offer` and its `join` nothing else is run or reserved. `resize` may be called
    at any time. Threads are started by the first run that needs them, and again in a forked child. An interrupt
    (KeyboardInterrupt) is raised only between runs and leaves everything usable.
    """

    def __init__(
        self, addresses: Sequence[int], functions: Sequence[int] = (), count: int | None = None
    ) -> None:
        """`addresses` holds the address of the compiled driver, as its only item; `functions` is what
        `driver_functions` gives for it. `count` is the number of workers: by default `get_num_threads()`.
        """
        (address,) = addresses
        self._drive: Drive = ctypes.CFUNCTYPE(*_SIGNATURE)(address)
        self._functions = tuple(functions)
        self._count = get_num_threads() if count is None else checked(count)
        self._scratch: list[Buffer] = []
        self._stride = 0
        self._crew: _Crew | None = None
        # Keeps the interpreter's lock: releasing it would cost more than a tiny plan, and milliseconds where
        # another thread of Python takes it.
        self._drive_briefly: Drive = ctypes.PYFUNCTYPE(*_SIGNATURE)(address)
        self._alone = _Crew(self._drive_briefly, 1, self._functions)
        self._offered_to: _Crew | None = None
        _everyone.add(self)

    @property
    def count(self) -> int:
        """The number of workers, counting the calling thread."""
        return self._count

    @property
    def scratch_bytes(self) -> int:
        """The scratch memory that each worker has, in bytes."""
        return self._stride

    def resize(self, count: int) -> None:
        """Changes the number of workers from the next run on. RuntimeError if not a positive integer."""
        self._count = checked(count)

    def reserve(self, nbytes: int) -> None:
        """Makes each worker's scratch memory at least `nbytes` bytes, 64-byte aligned. Contents are lost."""
        if nbytes > self._stride:
            self._place_scratch(-(-nbytes // _SCRATCH_STEP) * _SCRATCH_STEP, self._crew)

    def run(self, table_address: int, entries: int) -> None:
        """Runs a plan table (see `codegen.driver`) with all workers; returns when it is done."""
        crew = self._crew
        if crew is None or crew.count != self._count:
            crew = self._muster()
        self._drive(crew.address, 0, table_address, entries)

    def offer(self, table_address: int, entries: int) -> None:
        """Hands a plan table to the other workers, of which there must be one, and returns at once."""
        crew = self._crew
        if crew is None or crew.count != self._count:
            crew = self._muster()
        self._offered_to = crew
        self._drive_briefly(crew.address, driver.OFFER, table_address, entries)

    def join(self) -> None:
        """Returns when what was offered is done, and helps until then."""
        if self._offered_to is not None:
            self._drive(self._offered_to.address, driver.JOIN, 0, 0)
            self._offered_to = None

    def run_serial(self, table_address: int, entries: int) -> None:
        """Runs a plan table on the calling thread, which keeps the GIL: for plans of microseconds."""
        self._alone.drive(self._alone.address, 0, table_address, entries)

    def close(self) -> None:
        """Ends the threads. A later run is done by the calling thread alone, until `resize`."""
        self._count = 1
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.dismiss(_EXIT_SECONDS)

    def _muster(self) -> _Crew:
        """Replaces the crew by one of the wanted size."""
        # First of all: after an interrupt in here, no run must count on the old crew.
        old, self._crew = self._crew, None
        if old is not None:
            old.dismiss()
        crew = _Crew(self._drive, self._count, self._functions)
        self._place_scratch(self._stride, crew)
        try:
            crew.start()
        except BaseException:
            crew.dismiss()
            raise
        self._crew = crew
        return crew

    def _place_scratch(self, stride: int, crew: _Crew | None) -> None:
        """Gives every worker of a crew, and the lone worker, `stride` bytes of a new scratch buffer."""
        crews = [self._alone] if crew is None else [self._alone, crew]
        # An interrupt anywhere in here leaves all of them with memory that is still kept.
        self._scratch.append(allocate(stride * crews[-1].count))
        for each in crews:
            each.set_scratch(self._scratch[-1].address, stride)
        self._stride = stride
        del self._scratch[:-1]

    def _forget_crew(self) -> None:
        """In a forked child, where the crew's threads do not exist."""
        self._crew = None


def build_workers(target: Target, count: int | None = None) -> Workers:
    """Workers with the driver built for this machine; `count` as in `Workers`."""
    parts = driver.driver(*host_system())
    source = KernelSource(driver.SYMBOL, parts.text, "the plan driver")
    return Workers(build([source], target), driver_functions(parts.functions), count)



_everyone: weakref.WeakSet[Workers] = weakref.WeakSet()


def _resize_everyone(count: int) -> None:
    for workers in list(_everyone):
        workers.resize(count)


threads.followers.append(_resize_everyone)


@atexit.register
def _close_everyone() -> None:
    """Ends the threads before the interpreter frees the machine code that they are waiting in."""
    land()
    for workers in list(_everyone):
        workers.close()


def _forget_crews() -> None:
    for workers in list(_everyone):
        workers._forget_crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_crews)
