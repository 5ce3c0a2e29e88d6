"""The worker threads of a `DataLoader`: they fetch batches ahead, and hand them over in order.

PyTorch's workers are processes. Ours are threads: NumPy, decoding and file access let go of Python's lock,
and nothing needs to be pickled. A worker sees a shallow copy of the dataset. The default random generator is
shared with the main thread; code that draws in a worker makes its own `Generator` from
`get_worker_info().seed`.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torturous.utils.data.dataset import Dataset
from torturous.utils.data.fetch import Fetch


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker knows of itself: its number of `num_workers`, its seed and its copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Dataset[Any]


class _Current(threading.local):
    info: WorkerInfo | None = None


_current = _Current()


def get_worker_info() -> WorkerInfo | None:
    """In a worker of a `DataLoader`, what it is; elsewhere `None`."""
    return _current.info


class _Exhausted:
    """Answers a task after the end of a worker's stream."""


@dataclass(frozen=True)
class _Failed:
    """Answers a task that raised."""

    error: Exception


_AGAIN = object()
_STOP = object()


class WorkerPool:
    """Workers that fetch batches ahead: at most `prefetch_factor` each."""

    def __init__(
        self,
        dataset: Dataset[Any],
        num_workers: int,
        prefetch_factor: int,
        seed: int,
        make_fetch: Callable[[Dataset[Any]], Fetch],
        worker_init_fn: Callable[[int], Any] | None,
        timeout: float,
    ) -> None:
        self._ahead = num_workers * prefetch_factor
        self._timeout = timeout or None
        self._answers: queue.Queue[tuple[int, int, Any]] = queue.Queue()
        self._tasks: list[queue.Queue[Any]] = [queue.Queue() for _ in range(num_workers)]
        # Tasks are numbered for the life of the pool, so that answers left from an abandoned epoch are known.
        self._asked = 0
        self._given = 0
        for number, tasks in enumerate(self._tasks):
            info = WorkerInfo(number, num_workers, seed + number, copy.copy(dataset))
            threading.Thread(
                target=_work,
                args=(info, tasks, self._answers, make_fetch, worker_init_fn),
                name=f"DataLoader worker {number}",
                daemon=True,
            ).start()

    def start_epoch(self, indices: Iterator[Any], afresh: bool) -> None:
        """Fetch the batches of `indices`; `afresh` restarts workers that have done an epoch before."""
        if afresh:
            for tasks in self._tasks:
                tasks.put(_AGAIN)
        self._indices = indices
        self._given = self._asked
        self._owner: dict[int, int] = {}
        self._ready: dict[int, Any] = {}
        self._active = [True] * len(self._tasks)
        self._turn = 0
        for _ in range(self._ahead):
            self._ask()

    def _ask(self) -> None:
        """Give the next batch to the next worker whose stream has not ended."""
        if not any(self._active):
            return
        try:
            index = next(self._indices)
        except StopIteration:
            return
        while not self._active[self._turn]:
            self._turn = (self._turn + 1) % len(self._tasks)
        self._owner[self._asked] = self._turn
        self._tasks[self._turn].put((self._asked, index))
        self._turn = (self._turn + 1) % len(self._tasks)
        self._asked += 1

    def next(self) -> Any:
        """The next batch in order.

        Raises `StopIteration` at the end of the epoch, what the dataset raised, and `RuntimeError` after the
        timeout.
        """
        while self._given < self._asked:
            number = self._given
            if number not in self._ready:
                self._receive()
                continue
            answer = self._ready.pop(number)
            worker = self._owner.pop(number)
            self._given += 1
            if isinstance(answer, _Exhausted):
                self._active[worker] = False
                self._ask()
                continue
            self._ask()
            if isinstance(answer, _Failed):
                if hasattr(answer.error, "add_note"):
                    answer.error.add_note(f"in DataLoader worker thread {worker}")
                raise answer.error
            return answer
        raise StopIteration

    def _receive(self) -> None:
        try:
            number, worker, answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise RuntimeError(f"DataLoader timed out after {self._timeout} seconds") from None
        if number in self._owner:
            self._ready[number] = answer

    def stop(self) -> None:
        """Let the workers end once they have finished what they are doing."""
        for tasks in self._tasks:
            tasks.put(_STOP)


def _work(
    info: WorkerInfo,
    tasks: queue.Queue[Any],
    answers: queue.Queue[tuple[int, int, Any]],
    make_fetch: Callable[[Dataset[Any]], Fetch],
    worker_init_fn: Callable[[int], Any] | None,
) -> None:
    """What a worker thread does; it knows the queues but not the pool, which thus can be collected."""
    _current.info = info
    fetch: Fetch | None = None
    failure: Exception | None = None
    try:
        if worker_init_fn is not None:
            worker_init_fn(info.id)
    except Exception as error:
        failure = error
    while True:
        task = tasks.get()
        if task is _STOP:
            return
        if task is _AGAIN:
            fetch = None
            continue
        number, index = task
        answer: Any
        try:
            if failure is not None:
                raise failure
            if fetch is None:
                fetch = make_fetch(info.dataset)
            answer = fetch(index)
        except StopIteration:
            answer = _Exhausted()
        except Exception as error:
            answer = _Failed(error)
        answers.put((number, info.id, answer))
        # Held on to, the batch would live until the next one is asked for.
        del answer
