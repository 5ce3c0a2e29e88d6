"""Bags of rows of a table: sums, means and maxima over groups of indices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import describe
from torturous.ir import elementwise as ops
from torturous.ir import reduction
from torturous.ir.indexing import TAKE
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.positions import check_within, index_tensor
from torturous.tensor.values import computed_values

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _bags(name: str, input: TensorBase, offsets: Any, include_last_offset: bool) -> list[tuple[int, int]]:
    """Where each bag begins and ends in the flat indices."""
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if len(offsets.shape) != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    starts = [int(value) for value in computed_values(offsets)]
    total = input.shape[0]
    if starts and starts[0] != 0:
        raise RuntimeError("offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
                           f"position 0. However, got {starts[0]} ({name})")
    if starts and starts[-1] > total:
        raise RuntimeError(f"offsets[-1] can not be greater than input's length {total}, but got offsets[-1] of "
                           f"{starts[-1]} ({name})")
    ends = starts[1:] if include_last_offset else [*starts[1:], total]
    return list(zip(starts, ends, strict=False))


def embedding_bag(
    input: TensorBase, weight: TensorBase, offsets: TensorBase | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: TensorBase | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:
    """The sum, mean or maximum of rows of weight (V, D) for each bag of indices: (B, L), or flat with the `offsets` at
    which bags begin, to (B, D). Bags of nothing give 0; `padding_idx` is never counted.

    `per_sample_weights`, shaped as the input, weigh the rows of a sum. UnsupportedError for `max_norm`,
    `scale_grad_by_freq` and `sparse`.
    """
    for name, asked in (("max_norm", max_norm is not None), ("scale_grad_by_freq", scale_grad_by_freq),
                        ("sparse", sparse)):
        if asked:
            raise UnsupportedError(f"embedding_bag: {name} is not supported")
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None:
        if tuple(per_sample_weights.shape) != tuple(input.shape):
            raise ValueError(f"embedding_bag: If per_sample_weights ({describe(per_sample_weights.shape)}) is not "
                             f"None, then it must have the same shape as the input ({describe(input.shape)})")
        if mode != "sum":
            raise NotImplementedError("embedding_bag: per_sample_weights was not None. per_sample_weights is only "
                                      f"supported for mode='sum' (got mode='{mode}'). Please open a feature request on "
                                      "GitHub.")
    if input.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError("Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, "
                           f"Int; but got {input.dtype.name} instead (while checking arguments for embedding_bag)")
    count = weight.shape[0]
    check_within(input, count, lambda least, greatest: RuntimeError(
        f"embedding_bag: Expected idx >= 0 && idx < num_embeddings but found idx to be "
        f"{least if least < 0 else greatest} (the table has {count} rows)"))
    if padding_idx is not None and not -count <= padding_idx < count:
        raise RuntimeError(f"padding_idx must be within the number of embeddings, -{count} through {count - 1}, but "
                           f"got {padding_idx}")
    ids: Any = input
    shares: Any = per_sample_weights
    present: Any = None if padding_idx is None else apply(ops.NE, ids, padding_idx % count)
    if len(ids.shape) == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch of "
                             "fixed length sequences. However, found offsets of type <class 'torch.Tensor'>")
    elif len(ids.shape) == 1:
        bags = _bags("embedding_bag", ids, offsets, include_last_offset)
        longest = max((end - start for start, end in bags), default=0)
        places = np.array([[min(start + k, end - 1) if k < end - start else -1 for k in range(longest)]
                           for start, end in bags], np.int64).reshape(len(bags), longest)
        if longest == 0:
            return weight.new_zeros(len(bags), weight.shape[1])  # type: ignore[attr-defined]
        chosen = index_tensor(np.maximum(places, 0))
        inside = index_tensor((places >= 0).astype(np.int64)) != 0
        present = inside if present is None else inside & present[chosen]
        ids = ids[chosen]
        shares = None if shares is None else shares[chosen]
    else:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {len(ids.shape)}")
    return _reduced(weight, ids, present, shares, mode)


def _reduced(weight: Any, ids: Any, present: Any, shares: Any, mode: str) -> Tensor:
    """Rows (B, L, D) of what is present, reduced over L."""
    rows: Any = apply(TAKE, weight, ids, attributes=(0,))
    if mode == "max":
        if present is None:
            return rows.max(1).values if ids.shape[1] else rows.sum(1)
        lowest = apply(ops.WHERE, present.unsqueeze(-1), rows, float("-inf")).max(1).values
        return apply(ops.WHERE, present.any(1).unsqueeze(-1), lowest, 0.0)
    if shares is not None:
        rows = rows * shares.unsqueeze(-1)
    if present is not None:
        rows = apply(ops.WHERE, present.unsqueeze(-1), rows, 0.0)
    total: Any = apply(reduction.SUM, rows, attributes=((1,), False))
    if mode == "sum":
        return total
    if present is None:
        return total / max(ids.shape[1], 1)
    return total / apply(ops.MAXIMUM, present.sum(1), 1).to(total.dtype).unsqueeze(-1)


__all__ = ["embedding_bag"]
