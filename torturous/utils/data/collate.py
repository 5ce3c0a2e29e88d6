"""Making one batch of a list of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from torturous.tensor import Tensor, as_tensor, float64, stack, tensor

# Kinds of NumPy dtypes that no tensor can hold: text and objects.
_NOT_NUMERIC = "SUOM"


def default_collate(batch: Sequence[Any]) -> Any:
    """Tensors and arrays are stacked, numbers become a tensor, and what holds them keeps its structure.

    Text stays a list; a tuple of a sample's parts becomes a list, as in PyTorch. Raises `TypeError` for
    anything else, and `RuntimeError` for sequences of unequal length.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return stack(batch, 0)
    if isinstance(first, (numpy.ndarray, numpy.generic)):
        return _stacked_arrays(batch)
    if isinstance(first, float):
        return tensor(batch, dtype=float64)
    if isinstance(first, int):
        return tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(part) for part in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        parts = [default_collate(part) for part in zip(*batch, strict=True)]
        return parts if isinstance(first, tuple) else _like(first, parts)
    raise TypeError(_unknown(type(first)))


def _stacked_arrays(batch: Sequence[Any]) -> Tensor:
    first = batch[0]
    if first.dtype.kind in _NOT_NUMERIC:
        raise TypeError(_unknown(first.dtype))
    if first.shape == ():
        return as_tensor(numpy.array(batch))
    return stack([as_tensor(array) for array in batch], 0)


def default_convert(data: Any) -> Any:
    """Arrays become tensors; what holds them keeps its structure; everything else stays as it is."""
    if isinstance(data, (numpy.ndarray, numpy.generic)):
        return data if data.dtype.kind in _NOT_NUMERIC else as_tensor(data)
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(part) for part in data))
    if isinstance(data, tuple):
        return [default_convert(part) for part in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like(data, [default_convert(part) for part in data])
    return data


def _like(original: Any, values: Any) -> Any:
    """`values` in a container of the type of `original`, or as they are if that cannot be made from them."""
    try:
        return type(original)(values)
    except TypeError:
        return values


def _unknown(kind: Any) -> str:
    return f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {kind}"
