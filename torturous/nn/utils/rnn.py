"""Sequences of different lengths in one tensor: padded, or packed step by step, as in PyTorch.

*Packed* data has the first elements of all sequences, then the second elements of those that have one, and so on;
sequences are in the order of falling length, so that those still running at a step are the first `batch_sizes[step]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.tensor import Tensor, cat, tensor


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Packed):
    """What `pack_padded_sequence` and `pack_sequence` give and recurrent layers take.

    `data` (elements of all sequences, …) and `batch_sizes` (steps), how many sequences run at each step;
    `sorted_indices` says which sequence each of the sorted ones was, `unsorted_indices` the reverse; None where they
    were sorted already.
    """

    __slots__ = ()

    def __new__(
        cls, data: Tensor, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        if batch_sizes is None:
            raise ValueError("batch_sizes: a tensor with the number of sequences at each step is needed")
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def _with(self, data: Tensor) -> PackedSequence:
        return self if data is self.data else PackedSequence(data, *self[1:])

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With `data.to(...)`."""
        return self._with(self.data.to(*args, **kwargs))

    def _cast(self, dtype: DType) -> PackedSequence:
        return self._with(self.data.to(dtype))

    def double(self) -> PackedSequence:
        """With data in float64."""
        return self._cast(dtypes.float64)

    def float(self) -> PackedSequence:
        """With data in float32."""
        return self._cast(dtypes.float32)

    def half(self) -> PackedSequence:
        """With data in float16."""
        return self._cast(dtypes.float16)

    def long(self) -> PackedSequence:
        """With data in int64."""
        return self._cast(dtypes.int64)

    def int(self) -> PackedSequence:
        """With data in int32."""
        return self._cast(dtypes.int32)

    def byte(self) -> PackedSequence:
        """With data in uint8."""
        return self._cast(dtypes.uint8)

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Itself: everything is in the computer's memory."""
        return self

    @property
    def is_cuda(self) -> bool:
        return False


class Packing:
    """Where packed elements lie when they are padded, as index tensors."""

    def __init__(self, batch_sizes: Tensor) -> None:
        sizes = np.array(batch_sizes.tolist(), np.int64)
        self.shape = len(sizes), int(sizes[0])
        running = np.arange(self.shape[1])[None, :] < sizes[:, None]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        places = np.where(running, starts[:, None] + np.arange(self.shape[1])[None, :], 0)
        self._running = running
        self._of_padded = tensor(places.reshape(-1))
        self._of_packed = tensor(np.flatnonzero(running.reshape(-1)))

    def mask(self) -> Tensor:
        """(steps, batch, 1): true where a sequence has not ended."""
        return tensor(self._running[:, :, None])

    def padded(self, data: Any) -> Tensor:
        """(elements, …) to (steps, batch, …); what a sequence does not have is some other element."""
        return data.index_select(0, self._of_padded).reshape(*self.shape, *data.shape[1:])

    def packed(self, data: Any) -> Tensor:
        """(steps, batch, …) to (elements, …)."""
        return data.reshape(self.shape[0] * self.shape[1], *data.shape[2:]).index_select(0, self._of_packed)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes one, an index tensor."""
    if permutation is None:
        return None
    return tensor(np.argsort(np.array(permutation.tolist(), np.int64), kind="stable"))


def pack_padded_sequence(
    input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs (steps, batch, …), or (batch, steps, …), whose sequences have these lengths, all above 0.

    With `enforce_sorted` lengths must fall; RuntimeError where they do not, or do not fit the input.
    """
    wanted = [int(length) for length in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    values = input.transpose(0, 1) if batch_first else input
    steps, batch = values.shape[0], values.shape[1]
    order = None
    if not enforce_sorted:
        order = np.argsort(-np.array(wanted, np.int64), kind="stable")
        wanted = [wanted[position] for position in order]
    if not batch:
        raise RuntimeError("Cannot pack empty tensors.")
    if len(wanted) != batch:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(wanted)} (batch_size={batch})")
    if any(longer < shorter for longer, shorter in zip(wanted, wanted[1:], strict=False)):
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability.")
    if wanted[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0")
    if wanted[0] > steps:
        raise RuntimeError(f"lengths go up to {wanted[0]}, but the sequences have {steps} steps")
    sizes = [sum(length > step for length in wanted) for step in range(wanted[0])]
    if order is None:
        order_tensor, columns = None, np.arange(batch)
    else:
        order_tensor, columns = tensor(order), order
    places = np.concatenate([step * batch + columns[:size] for step, size in enumerate(sizes)])
    flat: Any = values.reshape(steps * batch, *values.shape[2:])
    return PackedSequence(flat.index_select(0, tensor(places)), tensor(sizes), order_tensor)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The padded sequences, in their first order, and their lengths.

    ValueError if `total_length` is less than the longest sequence.
    """
    data, batch_sizes, _, unsorted_indices = sequence
    sizes = np.array(batch_sizes.tolist(), np.int64)
    longest, batch = len(sizes), int(sizes[0])
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {longest}")
    steps = longest if total_length is None else total_length
    lengths = (sizes[:, None] > np.arange(batch)[None, :]).sum(0)
    columns = np.arange(batch) if unsorted_indices is None else np.array(unsorted_indices.tolist(), np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1], np.zeros(steps - longest, np.int64)]).astype(np.int64)
    lengths = lengths[columns]
    running = np.arange(steps)[:, None] < lengths[None, :]
    places = np.where(running, starts[:, None] + columns[None, :], 0)
    if batch_first:
        running, places = running.T, places.T
    values: Any = data.index_select(0, tensor(places.reshape(-1))).reshape(*places.shape, *data.shape[1:])
    mask = tensor(running.reshape(*places.shape, *(1 for _ in data.shape[1:])))
    return values.masked_fill(mask.logical_not(), padding_value), tensor(lengths)


def pad_sequence(
    sequences: Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Tensors (steps, …) of different lengths as one (longest, batch, …), or (batch, longest, …)."""
    given = list(sequences)
    if not given:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    longest = max(sequence.shape[0] for sequence in given)
    padded = []
    for sequence in given:
        if sequence.shape[1:] != given[0].shape[1:]:
            raise RuntimeError(
                f"pad_sequence: sequences may differ in their first axis only, got {list(given[0].shape)} and "
                f"{list(sequence.shape)}")
        missing = longest - sequence.shape[0]
        if missing:
            filling: Any = sequence.new_full((missing, *sequence.shape[1:]), padding_value)
            sequence = cat([sequence, filling] if padding_side == "right" else [filling, sequence])
        padded.append(sequence.unsqueeze(0 if batch_first else 1))
    return cat(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded tensor, each at its own length."""
    values = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [values[position, :int(length)] for position, length in enumerate(lengths.tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs tensors (steps, …) of different lengths."""
    lengths = [sequence.shape[0] for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed one, each at its own length."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
