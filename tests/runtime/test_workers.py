"""Workers: their number, their scratch memory, and what they survive."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time

import numpy as np
import pytest
from crews import KERNEL, address, make_workers, me, run, script, table

from torturous.runtime import threads


def test_scratch_grows_and_is_private(workers, kernels):
    for nbytes in (64, 5000, 3 << 20):
        workers.reserve(nbytes)
        assert workers.scratch_bytes >= nbytes
        everyone = threading.Barrier(workers.count)
        places: dict[int, int] = {}

        def kernel(arguments, first, last, scratch, everyone=everyone, places=places):
            places[me()] = scratch
            everyone.wait(30)

        native = KERNEL(kernel)
        # As many chunks as workers, and nobody comes back from one until all have one.
        run(workers, table((address(native), 0, workers.count, False)))
        assert not everyone.broken and sorted(places) == list(range(workers.count))
        for place in places.values():
            ctypes.memset(place, 0, nbytes)
        signatures = np.zeros(workers.count, np.int64)
        for _ in range(50):
            run(workers, table((kernels["sign"], signatures.ctypes.data, workers.count, False)))
            assert set(signatures.tolist()) <= set(places.values())
        sums = [ctypes.c_int64.from_address(place).value for place in places.values()]
        assert sum(sums) == 50 * workers.count
    kept = workers.scratch_bytes
    workers.reserve(64)
    assert workers.scratch_bytes == kept


@pytest.mark.skipif(sys.platform != "linux", reason="processors are chosen on Linux only")
def test_a_worker_leaves_the_processor_of_the_leader(kernels):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two processors")
    mine = min(allowed)
    others = {thread.native_id for thread in threading.enumerate()}  # of other crews, in this very process
    workers = make_workers(2)
    counters = np.zeros(8, np.int64)
    rows = table((kernels["count"], counters.ctypes.data, 8, True))
    run(workers, rows)
    found = {thread.native_id for thread in threading.enumerate() if thread.name == "torturous-worker-1"}
    (worker,) = found - others
    moved = 0
    try:
        os.sched_setaffinity(0, {mine})  # the leader, in Linux's words a thread of its own
        for turn in range(20):
            os.sched_setaffinity(worker, {mine})
            os.sched_setaffinity(worker, allowed)
            if turn % 2:
                time.sleep(0.005)  # so that it sleeps
            run(workers, rows)
            time.sleep(0.002)  # nobody waits for it, so it may not have had the processor yet
            with open(f"/proc/self/task/{worker}/stat") as file:
                processor = int(file.read().rsplit(")", 1)[1].split()[36])
            moved += processor != mine
            assert os.sched_getaffinity(worker) in (allowed, allowed - {mine})  # It sleeps aside, or is on its way.
        deadline = time.monotonic() + 30
        while os.sched_getaffinity(worker) != allowed and time.monotonic() < deadline:
            run(workers, rows)  # Awake, it may go where it likes.
        assert os.sched_getaffinity(worker) == allowed
        # A mask that somebody gives it while it sleeps is not overridden.
        time.sleep(0.02)
        os.sched_setaffinity(worker, {mine})
        for _ in range(50):
            run(workers, rows)
            time.sleep(0.0002)
            assert os.sched_getaffinity(worker) == {mine}
    finally:
        os.sched_setaffinity(0, allowed)
        workers.close()
    assert moved >= 15


def test_resize(kernels):
    workers = make_workers(1)
    counters = np.zeros(30, np.int64)
    rows = table((kernels["count"], counters.ctypes.data, 30, True))
    before = threading.active_count()
    for turn, count in enumerate([1, 2, 4, 3, 3, 1, 2], start=1):
        workers.resize(count)
        run(workers, rows)
        assert workers.count == count
        assert threading.active_count() == before + count - 1
        assert (counters == turn).all()
    workers.close()
    assert threading.active_count() == before
    run(workers, rows)
    assert (counters == 8).all()


def test_number_of_threads():
    def outcome(function, value):
        try:
            return function(value)
        except RuntimeError as error:
            return type(error)

    import torch  # not above: the programs that `script` runs import this file, and PyTorch takes seconds

    before, theirs = threads.get_num_threads(), torch.get_num_threads()
    workers = make_workers(before)
    try:
        for value in (0, -1, "two", 2.0, True, 3, 1):
            assert outcome(threads.set_num_threads, value) == outcome(torch.set_num_threads, value), value
            assert threads.get_num_threads() == workers.count
        assert threads.get_num_threads() == torch.get_num_threads() == 1
    finally:
        threads.set_num_threads(before)
        torch.set_num_threads(theirs)
    with pytest.raises(RuntimeError, match="positive"):
        workers.resize(0)


def test_environment_variable():
    ask = "print(threads.get_num_threads())"
    assert int(script(ask, TORTUROUS_NUM_THREADS="7")) == 7
    assert int(script(ask, TORTUROUS_NUM_THREADS="")) == threads.physical_cores()
    with pytest.raises(AssertionError, match="TORTUROUS_NUM_THREADS='many'"):
        script(ask, TORTUROUS_NUM_THREADS="many")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_and_exit():
    # Also: the interpreter ends cleanly although workers are parked, in the parent as in the child.
    printed = script("""
        kernel = load(COUNT, "count")
        workers = make_workers(3)
        counters = np.zeros(9, np.int64)
        rows = table((kernel, counters.ctypes.data, 9, True))
        run(workers, rows)
        child = os.fork()
        for _ in range(100):
            run(workers, rows)
        if child:
            print(os.waitpid(child, 0)[1])
        print(threading.active_count(), counters.tolist() == [101] * 9)
    """)
    assert printed.splitlines() == ["3 True", "0", "3 True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX timers")
def test_interrupts():
    printed = script("""
        import signal
        kernel = load(COUNT, "count")
        workers = make_workers(2)
        counters = np.zeros(9, np.int64)
        rows = table(*[(kernel, counters.ctypes.data, 9, True)] * 2)
        def interrupt(number, frame):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        interrupts = 0
        for turn in range(300):
            try:
                # Python swallows an interrupt in a callback of a weak reference, so the timer repeats.
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.00001 * (turn % 100), 0.2)
                while True:
                    run(workers, rows)
                    if turn % 3 == 0:
                        workers.resize(3 - workers.count)
                        workers.reserve(64 * turn)
            except (KeyboardInterrupt, RuntimeError) as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                # What Python's own Thread.start makes of some interrupts.
                assert not isinstance(error, RuntimeError) or str(error) == "release unlocked lock"
                interrupts += 1
            counters[:] = 0
            run(workers, rows)
            assert counters.tolist() == [2] * 9
        print(interrupts)
    """)
    assert int(printed) == 300
