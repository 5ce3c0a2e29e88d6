"""Nested Python data as NumPy arrays, with the dtypes and the errors that PyTorch gives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category, DType
from torturous.tensor.base import TensorBase
from torturous.tensor.values import computed_values


def literal_array(data: Any, wanted: DType | None) -> tuple[np.ndarray, DType]:
    """An array of the elements of `data`, and the dtype that they are to have."""
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        return array, wanted or dtypes.from_numpy(array.dtype)
    shape, leaf = _first(data)
    if 0 in shape:
        return np.zeros(shape), wanted or dtypes.default_float()  # As PyTorch: what follows is not looked at.
    if isinstance(leaf, TensorBase):
        data = _numbers(data)
        _, leaf = _first(data)
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        _check(data)
        raise ValueError(f"expected sequences of equal lengths, but got {str(data)[:80]}") from None
    kind = array.dtype.kind
    if kind not in "biuf" and array.dtype not in (d.numpy for d in dtypes.ALL) and array.size:
        _check(data)
        raise TypeError(f"new(): invalid data type '{type(leaf).__name__}'")
    if kind == "u" and array.dtype.itemsize == 8 and not isinstance(leaf, (np.ndarray, np.generic)):
        raise ValueError("Overflow when unpacking long long")
    dtype = wanted or _dtype_of(array, leaf)
    if not isinstance(leaf, (np.ndarray, np.generic)):
        _fits(array, dtype)
    return array, dtype


def _dtype_of(array: np.ndarray, leaf: Any) -> DType:
    """Python numbers have the dtype of their kind, NumPy's keep their own."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return dtypes.from_numpy(array.dtype)
    category = {"b": Category.BOOL, "i": Category.INTEGRAL, "u": Category.INTEGRAL}.get(array.dtype.kind)
    return dtypes.default_float() if category is None else dtypes.number_type(category)


def _first(data: Any) -> tuple[tuple[int, ...], Any]:
    """The lengths of the first sequences, from outside to inside, and the first element (None if there is none)."""
    shape = []
    while isinstance(data, (list, tuple)):
        shape.append(len(data))
        data = data[0] if data else None
    return tuple(shape), data


def _numbers(data: Any) -> Any:
    """Nested data with 0-d tensors and the like replaced by numbers."""
    if isinstance(data, (list, tuple)):
        return [_numbers(part) for part in data]
    if isinstance(data, TensorBase):
        array = computed_values(data)
        if array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return array.item() if data.dtype is not dtypes.bfloat16 else float(array.reshape(()))
    return data


def _check(data: Any, depth: int = 0) -> None:
    """Raises PyTorch's error for data that is no array of numbers."""
    if isinstance(data, (list, tuple)):
        lengths = [len(part) if isinstance(part, (list, tuple)) else None for part in data]
        for length in lengths:
            if length != lengths[0]:
                if lengths[0] is None:
                    raise TypeError("must be real number, not list")
                if length is None:
                    raise TypeError(
                        f"not a sequence at dim {depth + 1}, where others have length {lengths[0]}"
                    )
                raise ValueError(
                    f"expected sequence of length {lengths[0]} at dim {depth + 1} (got {length})")
        for part in data:
            _check(part, depth + 1)
        return
    if isinstance(data, str):
        if depth:
            raise ValueError("too many dimensions 'str'")
        raise TypeError("new(): invalid data type 'str'")
    if isinstance(data, int) and not -(1 << 63) <= data < 1 << 63:
        raise ValueError("Overflow when unpacking long long")
    if not isinstance(data, (int, float, np.ndarray, np.generic, TensorBase)):
        raise RuntimeError(f"Could not infer dtype of {type(data).__name__}")


def _fits(array: np.ndarray, dtype: DType) -> None:
    """Raises where Python numbers are too large for an integer type."""
    if dtype.category is not Category.INTEGRAL or not array.size or array.dtype.kind == "b":
        return
    limits = np.iinfo(dtype.numpy)
    lowest = limits.min if dtype.signed else -limits.max
    if not np.isfinite(array).all() or array.min() < lowest or array.max() > limits.max:
        raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")


__all__ = ["literal_array"]
