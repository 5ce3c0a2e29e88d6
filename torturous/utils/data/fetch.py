"""From indices to a batch: of a dataset with positions, or of a stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from torturous.utils.data.collate import default_collate
from torturous.utils.data.dataset import Dataset, IterableDataset

Fetch = Callable[[Any], Any]


def make_fetch(dataset: Dataset[Any], collate: Callable[[Any], Any], batched: bool, drop_last: bool) -> Fetch:
    """A function from what the sampler gives to a batch (or, not `batched`, to one converted sample).

    For a stream it raises `StopIteration` at the end.
    """
    if isinstance(dataset, IterableDataset):
        return _stream_fetch(dataset, collate, batched, drop_last)
    if not batched:
        return lambda index: collate(dataset[index])
    at_once = getattr(dataset, "__getitems__", None)

    def fetch(indices: list[Any]) -> Any:
        # Stacking rows one by one is what a batch costs most: a dataset of tensors takes them all at once.
        if collate is default_collate and hasattr(dataset, "collated"):
            batch = dataset.collated(indices)
            if batch is not None:
                return batch
        samples = at_once(indices) if callable(at_once) else [dataset[index] for index in indices]
        return collate(samples)

    return fetch


def _stream_fetch(
    dataset: IterableDataset[Any], collate: Callable[[Any], Any], batched: bool, drop_last: bool
) -> Fetch:
    stream = iter(dataset)

    def fetch(slots: list[Any]) -> Any:
        if not batched:
            return collate(next(stream))
        samples = list(islice(stream, len(slots)))
        if not samples or (drop_last and len(samples) < len(slots)):
            raise StopIteration
        return collate(samples)

    return fetch
