"""The driver: who does which pieces, in what order, and for whom nobody waits."""

from __future__ import annotations

import itertools
import os
import threading
import time

import llvmlite.binding as llvm
import numpy as np
import pytest
from crews import KERNEL, address, make_workers, me, run, script, table

from torturous.codegen import driver
from torturous.runtime import workers as module


def test_every_piece_is_done_once(workers, kernels):
    random = np.random.default_rng(0)
    for _ in range(100):
        pieces = random.integers(0, 40, random.integers(0, 8))
        counters = [np.zeros(number + 1, np.int64) for number in pieces]
        rows = table(*(
            (kernels["count"], counter.ctypes.data, number, random.integers(0, 2))
            for counter, number in zip(counters, pieces, strict=True)
        ))
        run(workers, rows)
        workers.run_serial(rows.ctypes.data, len(rows))
        for counter, number in zip(counters, pieces, strict=True):
            assert counter.tolist() == [2] * number + [0]


def test_who_claims_what(workers):
    """Chunks shrink as the level empties; the calling thread takes them from the front, others from the back."""
    random = np.random.default_rng(1)
    workers.reserve(100)
    stride = workers.scratch_bytes
    assert stride >= 100
    claimed: list[tuple[int, int, int, int, int]] = []

    def kernel(arguments, first, last, scratch):
        claimed.append((me(), arguments or 0, first, last, scratch))
        time.sleep(0.0005)

    native = KERNEL(kernel)
    for _ in range(20):
        pieces = random.integers(0, 12, random.integers(1, 5)).tolist()
        starts = np.cumsum([0, *pieces]).tolist()
        rows = table(*(
            (address(native), index, number, False) for index, number in enumerate(pieces)
        ))
        claimed.clear()
        run(workers, rows)
        shares: dict[int, list[int]] = {}
        for worker, index, first, last, scratch in claimed:
            assert 0 <= first < last <= pieces[index]
            assert (scratch - claimed[0][-1]) == (worker - claimed[0][0]) * stride
            assert scratch % 64 == 0
            shares.setdefault(worker, []).extend(range(starts[index] + first, starts[index] + last))
        assert sorted(sum(shares.values(), [])) == list(range(starts[-1]))
        if workers.count == 1 or starts[-1] <= 1:
            assert list(shares) in ([0], [])
            continue
        border = len(shares.get(0, []))
        assert shares.pop(0, []) == list(range(border))
        for share in shares.values():
            for piece, following in zip(share, share[1:], strict=False):
                assert following == piece + 1 or following < piece
        owner = {piece: worker for worker, share in shares.items() for piece in share}
        sizes = chunk_sizes(starts[-1], workers.count)
        assert any(
            all(len({owner[piece] for piece in range(first, last)}) == 1 for first, last in back)
            for back in splits(sizes, border, starts[-1])
        ), (sizes, border, shares)


def chunk_sizes(pieces: int, workers: int) -> list[int]:
    """The chunks of a level, in the order in which they are claimed."""
    sizes = []
    while pieces:
        sizes.append(max(1, pieces // (2 * workers)))
        pieces -= sizes[-1]
    return sizes


def splits(sizes, border, pieces):
    """The ways in which the calling thread may have claimed the first chunk and others, `border` pieces in all: the
    ranges of pieces that were claimed from the back."""
    for taken in itertools.product((False, True), repeat=len(sizes) - 1):
        if sizes[0] + sum(itertools.compress(sizes[1:], taken)) == border:
            back, end = [], pieces
            for size, mine in zip(sizes[1:], taken, strict=True):
                if not mine:
                    back.append((end - size, end))
                    end -= size
            yield back


@pytest.mark.parametrize("patience", [(driver.SPINS, driver.YIELDS), (1, 1)])
def test_entries_of_a_level_run_side_by_side(patience, monkeypatch):
    # Hangs, until the barrier breaks, if not, or if a sleeper is not woken up.
    monkeypatch.setattr(driver, "SPINS", patience[0])
    monkeypatch.setattr(driver, "YIELDS", patience[1])
    workers = make_workers(2)
    both = threading.Barrier(2)
    native = KERNEL(lambda *_: both.wait(30))
    rows = table(*[(address(native), 0, 1, turn % 2) for turn in range(4)])
    for _ in range(500):
        run(workers, rows)
        assert not both.broken
    workers.close()


def test_order_across_barriers(workers, kernels):
    pieces, rounds = 11, 30
    counters = np.zeros(pieces, np.int64)
    arguments = np.zeros((rounds, 4), np.int64)
    entries = []
    for index in range(rounds):
        arguments[index, :3] = counters.ctypes.data, pieces, index + 1
        entries.append((kernels["count"], counters.ctypes.data, pieces, True))
        entries.append((kernels["expect"], arguments[index].ctypes.data, 5, True))
    rows = table(*entries)
    for _ in range(50):
        counters[:] = 0
        run(workers, rows)
        assert counters.tolist() == [rounds] * pieces
    assert arguments[:, 3].tolist() == [0] * rounds


def test_a_run_ends_when_all_is_done(workers, kernels):
    # Without a barrier flag anywhere, and with workers asleep, awake or about to fall asleep.
    counters = np.zeros(64, np.int64)
    rows = table(*[(kernels["count"], counters.ctypes.data, 64, False)] * 3)
    for turn, pause in enumerate([0, 0.02, 0, 0.0005, 0.001, 0.0015, 0.002, 0.05] * 5, start=1):
        time.sleep(pause)
        run(workers, rows)
        assert (counters == 3 * turn).all()


def test_nobody_waits_for_an_absent_worker(kernels, monkeypatch):
    crews = []
    monkeypatch.setattr(module._Crew, "start", lambda crew: crews.append(crew))
    workers = make_workers(3)
    counters = np.zeros(20, np.int64)
    rows = table(*[(kernels["count"], counters.ctypes.data, 20, True) for _ in range(3)])
    for turn in range(1, 101):
        run(workers, rows)
        assert (counters == 3 * turn).all()
    # One arrives late, with many runs behind it that it has never seen; the other one only after the end.
    (crew,) = crews
    crew.threads[0].start()
    both = threading.Barrier(2)
    native = KERNEL(lambda *_: both.wait(30))
    run(workers, table(*[(address(native), 0, 1, False) for _ in range(2)]))
    assert not both.broken
    run(workers, rows)
    assert (counters == 303).all()
    workers.close()
    crew.threads[1].start()
    for thread in crew.threads:
        thread.join(30)
        assert not thread.is_alive()
    assert (counters == 303).all()


def test_a_level_ends_with_its_last_piece(kernels):
    """A follower that is slow with what it has claimed is waited for, in the next level as well as at the end."""
    workers = make_workers(2)
    events: list[str] = []
    both = threading.Barrier(2)

    def meet(arguments, first, last, scratch):
        both.wait(30)
        if me():
            time.sleep(0.03)  # by now, the leader sleeps
        events.append(f"met {me()}")

    meeting, noting = KERNEL(meet), KERNEL(lambda *_: events.append("after"))
    meet_twice = (address(meeting), 0, 2, True)
    for _ in range(5):
        events.clear()
        run(workers, table(meet_twice, (address(noting), 0, 1, True), meet_twice))
        assert events == ["met 0", "met 1", "after", "met 0", "met 1"]
    workers.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs to choose a processor")
def test_a_busy_machine_does_not_hold_up_the_leader():
    """Two workers and a busy process on one processor: a run takes hardly longer than without the other worker.

    Medians, because what the busy process takes from the leader in the middle of a run is nobody's fault.
    """
    serial, together = map(float, script("""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            workers = make_workers(2)
            workers.reserve(64)
            rounds = np.array([5000], np.int64)
            rows = table(*[(load(SPEND, "spend"), rounds.ctypes.data, 2, True)] * 25)
            def median(run):
                times = []
                for _ in range(200):
                    begin = time.perf_counter()
                    run(rows.ctypes.data, len(rows))
                    times.append(time.perf_counter() - begin)
                return np.median(times)
            workers.run(rows.ctypes.data, len(rows))
            print(median(workers.run_serial), median(workers.run))
        finally:
            busy.kill()
            busy.wait()
    """).split())
    assert together < 2 * serial + 0.0005


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("patience", ["driver.SPINS", "1"])
def test_tables_may_go_when_a_run_is_over(count, patience):
    """50,000 runs, each with a table and arguments that no longer exist after it: who reads them late, crashes."""
    runs = int(os.environ.get("STRESS_RUNS", 50000 if count == 2 and patience != "1" else 5000))
    printed = script(f"""
        import mmap
        driver.SPINS = {patience}
        driver.YIELDS = min(driver.YIELDS, driver.SPINS)
        kernel = load(COUNT, "count")
        workers = make_workers({count})
        random = np.random.default_rng(2)
        shapes = [
            [(int(pieces), int(barrier)) for pieces, barrier in zip(
                random.choice([0, 1, 2, 3, 7, 30], length), random.integers(0, 2, length))]
            for length in random.integers(1, 9, 40)
        ]
        tables = []
        for shape in shapes:
            offset, entries = layout.ENTRY_BYTES * len(shape), []
            for pieces, barrier in shape:
                entries.append((kernel, offset, pieces, barrier))
                offset += 8 * pieces
            rows = table(*entries)
            done = np.concatenate([rows.ravel(), np.ones((offset - rows.nbytes) // 8, np.int64)])
            tables.append((rows, done))
        pauses = random.integers(0, 3000, 1000).tolist()
        pages = mmap.PAGESIZE * 2
        for turn in range({runs}):
            rows, done = tables[turn * 7 % len(tables)]
            memory = mmap.mmap(-1, pages)
            words = np.frombuffer(memory, np.int64)
            here = words.ctypes.data
            words[:rows.size] = rows.ravel()
            words[layout.ARGUMENTS:rows.size:layout.ENTRY_BYTES // 8] += here
            if turn % 3:
                workers.run(here, len(rows))
            else:
                workers.offer(here, len(rows))
                for _ in range(pauses[turn % 1000] if turn % 9 == 0 else 0):
                    pass
                workers.join()
            words[layout.ARGUMENTS:rows.size:layout.ENTRY_BYTES // 8] -= here
            assert (words[:done.size] == done).all(), turn
            del words
            memory.close()
            for _ in range(pauses[turn % 1000] if turn % 16 == 0 else 0):
                pass
        workers.close()
        print("done")
    """)
    assert printed == "done\n"


# Offers -------------------------------------------------------------------------------------------------------
def test_an_offer_returns_at_once_and_a_join_helps():
    workers = make_workers(2)
    released, both, events = threading.Event(), threading.Barrier(2), []

    def wait(arguments, first, last, scratch):
        assert released.wait(30)
        events.append(f"waited {me()}")

    waiting, meeting = KERNEL(wait), KERNEL(lambda *_: both.wait(30))
    rows = table((address(waiting), 0, 1, True), (address(meeting), 0, 2, True))
    for _ in range(20):
        released.clear()
        events.clear()
        workers.offer(rows.ctypes.data, len(rows))
        assert events == []
        released.set()
        workers.join()  # The second level ends only if both workers are at it.
        assert events in (["waited 0"], ["waited 1"])
        assert not both.broken
    workers.close()


def test_what_nobody_takes_the_join_does(kernels, monkeypatch):
    monkeypatch.setattr(module._Crew, "start", lambda crew: None)
    workers = make_workers(3)
    counters = np.zeros(20, np.int64)
    rows = table(*[(kernels["count"], counters.ctypes.data, 20, True) for _ in range(3)])
    for turn in range(1, 101):
        workers.offer(rows.ctypes.data, len(rows))
        assert (counters == 3 * (turn - 1)).all()
        workers.join()
        workers.join()  # Nothing is left to join.
        assert (counters == 3 * turn).all()
    workers.close()


@pytest.mark.parametrize("count", [2, 3])
def test_offers_and_runs_in_turns(count, kernels):
    workers = make_workers(count)
    counters = np.zeros(8, np.int64)
    rows = table(*[(kernels["count"], counters.ctypes.data, 8, turn != 1) for turn in range(4)])
    for turn in range(1, 3001 if count == 2 else 301):
        if turn % 5 == 0:
            run(workers, rows)
        else:
            workers.offer(rows.ctypes.data, len(rows))
            if turn % 50 == 0:
                time.sleep(0.003 * (turn % 3))
            workers.join()
        assert counters.tolist() == [4 * turn] * 8
    workers.close()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_many_runs(count, kernels):
    workers = make_workers(count)
    counters = np.zeros(8, np.int64)
    rows = table(
        (kernels["count"], counters.ctypes.data, 8, True),
        (kernels["count"], counters.ctypes.data, 8, True),
    )
    runs = 20000 if count < 3 else 500  # three spinning on fewer cores have to wait for the scheduler
    for _ in range(runs):
        run(workers, rows)
    assert counters.tolist() == [2 * runs] * 8
    workers.close()


def test_portable_waiting(kernels):
    """The driver for systems without a futex, with everyone asleep at times."""
    if os.name != "posix":
        pytest.skip("sched_yield and usleep are POSIX functions")
    workers = make_workers(2, "posix")
    counters = np.zeros(8, np.int64)
    rows = table(*[(kernels["count"], counters.ctypes.data, 8, True)] * 4)
    for turn in range(1, 301):
        run(workers, rows)
        if turn % 100 == 0:
            time.sleep(0.02)
        assert (counters == 4 * turn).all()
    workers.close()


@pytest.mark.parametrize("architecture, system", [
    (architecture, system)
    for architecture in ("x86_64", "aarch64", "riscv64", "ppc64le")
    for system in ("linux", "darwin", "windows", "posix", "freebsd")
])
def test_driver_is_valid_and_alone_everywhere(architecture, system):
    # Not compiled: llvmlite has an assembler, which inline assembly needs, for its own architecture only.
    parts = driver.driver(architecture, system)
    with llvm.parse_assembly(parts.text, llvm.create_context()) as parsed:
        parsed.verify()
        assert [f.name for f in parsed.functions if f.is_declaration] == []
        assert [f.name for f in parsed.functions if f.linkage == llvm.Linkage.external] == [driver.SYMBOL]
    calls_kernel = system == "linux" and architecture != "ppc64le"
    assert ("driver_call_linux" in parts.text) == calls_kernel
    assert (parts.functions == ()) == calls_kernel

