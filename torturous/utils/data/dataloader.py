"""`DataLoader`: batches of a dataset, in PyTorch's order for the same seed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, Generic, TypeVar

from torturous.tensor import Generator
from torturous.utils.data.collate import default_collate, default_convert
from torturous.utils.data.dataset import Dataset, IterableDataset
from torturous.utils.data.fetch import make_fetch
from torturous.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler, draw_seed
from torturous.utils.data.workers import WorkerPool

Sample = TypeVar("Sample", covariant=True)

on_next: list[Callable[[DataLoader[Any]], None]] = []
"""Called with the loader whenever a batch is asked for, unless while fetching another one (per thread)."""


class _Nesting(threading.local):
    depth = 0


_nesting = _Nesting()

# What decides which batches there are; the samplers are made from it once.
_FIXED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")


class _Forever(Sampler[None]):
    """Stands for the positions of a stream, which has none."""

    def __iter__(self) -> Iterator[None]:
        return repeat(None)


class DataLoader(Generic[Sample]):
    """Iterates over a dataset in batches.

    `batch_size=None` gives single samples. `shuffle`, `sampler` or `batch_sampler` choose the order;
    `collate_fn` makes a batch of a list of samples. With `num_workers` above 0, that many threads (PyTorch:
    processes) fetch `prefetch_factor` batches each ahead; `timeout` is in seconds. `pin_memory` has a meaning
    for accelerators only: as in PyTorch without one, it warns and does nothing. An iteration takes one seed
    from `generator` (or the default one), and shuffling takes another, as in PyTorch.
    """

    _initialized = False

    def __init__(
        self,
        dataset: Dataset[Sample],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.persistent_workers = persistent_workers

        streaming = isinstance(dataset, IterableDataset)
        if streaming:
            _check_stream(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                    "drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
            )
        if sampler is None:
            if streaming:
                sampler = _Forever()
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)  # type: ignore[arg-type]
            else:
                sampler = SequentialSampler(dataset)  # type: ignore[arg-type]
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn
        self._reported_length: int | None = None
        self._persistent: _LoaderIterator | None = None
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in _FIXED:
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    @property
    def index_sampler(self) -> Iterable[Any]:
        """What decides on the batches: the batch sampler, or without batches the sampler."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[Any]:
        if not self.persistent_workers:
            return _LoaderIterator(self)
        if self._persistent is None:
            self._persistent = _LoaderIterator(self)
        else:
            self._persistent.restart()
        return self._persistent

    def __len__(self) -> int:
        if not isinstance(self.dataset, IterableDataset):
            return len(self.index_sampler)  # type: ignore[arg-type]
        samples = len(self.dataset)  # type: ignore[arg-type]
        self._reported_length = samples
        if self.batch_size is not None:
            extra = 0 if self.drop_last else self.batch_size - 1
            return (samples + extra) // self.batch_size
        return samples


class _LoaderIterator:
    """One pass over a loader's batches, or with persistent workers every pass."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        if loader.num_workers == 0 and loader.timeout != 0:
            raise AssertionError("timeout needs num_workers > 0")
        if loader.pin_memory:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device pinned memory "
                "won't be used.",
                stacklevel=3,
            )
        self._loader = loader
        # In this order, which is part of the order of draws: a sampler may draw when its iteration begins.
        self._indices = iter(loader.index_sampler)
        seed = draw_seed(loader.generator)
        fetch = partial(
            make_fetch,
            collate=loader.collate_fn,
            batched=loader.batch_sampler is not None,
            drop_last=loader.drop_last,
        )
        self._pool: WorkerPool | None = None
        self._length = loader._reported_length
        self._count = 0
        if loader.num_workers == 0:
            self._fetch = fetch(loader.dataset)
        else:
            self._pool = WorkerPool(
                loader.dataset,
                loader.num_workers,
                loader.prefetch_factor or 0,
                seed,
                fetch,
                loader.worker_init_fn,
                loader.timeout,
            )
            self._pool.start_epoch(self._indices, afresh=False)

    def restart(self) -> None:
        """Begin the next pass with the workers there are."""
        assert self._pool is not None
        self._indices = iter(self._loader.index_sampler)
        self._length = self._loader._reported_length
        self._count = 0
        self._pool.start_epoch(self._indices, afresh=True)

    def __iter__(self) -> _LoaderIterator:
        return self

    def __next__(self) -> Any:
        depth = _nesting.depth
        if depth == 0 and on_next:
            for callback in on_next:
                callback(self._loader)
        _nesting.depth = depth + 1
        try:
            batch = self._pool.next() if self._pool is not None else self._fetch(next(self._indices))
        except StopIteration:
            self._finish()
            raise
        finally:
            _nesting.depth = depth
        self._count += 1
        if self._length is not None and self._count > self._length:
            warnings.warn(
                f"Length of IterableDataset {self._loader.dataset} was reported to be {self._length} (when "
                f"accessing len(dataloader)), but {self._count} samples have been fetched.",
                stacklevel=2,
            )
        return batch

    def __len__(self) -> int:
        return len(self._loader.index_sampler)  # type: ignore[arg-type]

    def _finish(self) -> None:
        if self._pool is not None and not self._loader.persistent_workers:
            self._pool.stop()

    def __del__(self) -> None:
        # `_pool` is missing if making the iterator failed.
        pool = getattr(self, "_pool", None)
        if pool is not None:
            pool.stop()


def _check_workers(
    num_workers: int,
    timeout: float,
    prefetch_factor: int | None,
    persistent_workers: bool,
    multiprocessing_context: Any,
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable worker threads."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError("prefetch_factor option needs num_workers > 0")
    if prefetch_factor is not None and prefetch_factor <= 0:
        raise ValueError("prefetch_factor option should be positive")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
    if multiprocessing_context is not None:
        raise ValueError("multiprocessing_context has no meaning: workers are threads, leave it out")


def _check_stream(shuffle: bool | None, sampler: Any, batch_sampler: Any) -> None:
    given = {"sampler": sampler, "batch_sampler": batch_sampler}
    if shuffle:
        raise ValueError(
            f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}"
        )
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
            )
