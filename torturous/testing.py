"""`torch.testing`: comparison of values, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import from_numpy, tensor
from torturous.tensor.values import computed_values

_TOLERANCES = {dtypes.float16: (1e-3, 1e-5), dtypes.bfloat16: (1.6e-2, 1e-5), dtypes.float32: (1.3e-6, 1e-5),
               dtypes.float64: (1e-7, 1e-7)}
"""PyTorch's rtol and atol by dtype; anything else is compared exactly."""


def assert_close(
    actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None, atol: float | None = None,
    equal_nan: bool = False, check_device: bool = True, check_dtype: bool = True, check_layout: bool = True,
    check_stride: bool = False, msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raises AssertionError unless two tensors, numbers, or sequences or mappings of them, are close and alike.

    Close is |actual − expected| ≤ atol + rtol · |expected|; both tolerances or none must be given (else ValueError),
    and by default depend on the dtypes. Dtypes must be equal unless `check_dtype` is false, strides need not. There is
    one device and one layout, so these are. TypeError for what cannot be compared.
    """
    if (rtol is None) != (atol is None):
        raise ValueError("Both 'rtol' and 'atol' must be either specified or unspecified, but got no "
                         f"{'rtol' if rtol is None else 'atol'}.")
    settings = (rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses)
    trouble = _compare(actual, expected, "", settings)
    if trouble:
        raise AssertionError(msg(trouble) if callable(msg) else msg or trouble)


def _compare(actual: Any, expected: Any, at: str, settings: tuple[Any, ...]) -> str:
    """What is wrong, or nothing."""
    where = f"\n\nThe failure occurred for item {at}" if at else ""
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            names = " and ".join(str(sorted(map(str, side))) for side in (actual, expected))
            return f"The keys of the mappings do not match: {names}{where}"
        parts = [(f"{at}[{key!r}]", actual[key], expected[key]) for key in expected]
    elif all(isinstance(side, Sequence) and not isinstance(side, str) for side in (actual, expected)):
        if len(actual) != len(expected):
            return f"The length of the sequences mismatch: {len(actual)} != {len(expected)}{where}"
        parts = [(f"{at}[{k}]", a, b) for k, (a, b) in enumerate(zip(actual, expected, strict=True))]
    else:
        trouble = _compare_values(actual, expected, settings)
        return trouble and trouble + where
    return next((trouble for name, a, b in parts if (trouble := _compare(a, b, name, settings))), "")


def _as_tensor(value: Any) -> TensorBase:
    if isinstance(value, TensorBase):
        return value
    if isinstance(value, np.ndarray):
        return from_numpy(value)
    if isinstance(value, (bool, int, float)):
        return tensor(value, dtype=dtypes.float64 if isinstance(value, float) else None)
    raise TypeError(f"No comparison pair was able to handle inputs of type {type(value)}.")


def _compare_values(actual: Any, expected: Any, settings: tuple[Any, ...]) -> str:
    rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses = settings
    if actual is None and expected is None:
        return ""
    if not allow_subclasses and type(actual) is not type(expected):
        raise AssertionError(f"The types do not match: {type(actual)} and {type(expected)}")
    numbers = not isinstance(expected, (TensorBase, np.ndarray))
    if numbers != (not isinstance(actual, (TensorBase, np.ndarray))):
        raise TypeError(f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}.")
    if numbers and check_dtype and type(actual) is not type(expected):
        return f"The (d)types do not match: {type(actual)} != {type(expected)}."
    a, b = _as_tensor(actual), _as_tensor(expected)
    if a.shape != b.shape:
        return f"The values for attribute 'shape' do not match: {a.shape} != {b.shape}."
    if check_dtype and a.dtype is not b.dtype:
        return f"The values for attribute 'dtype' do not match: {a.dtype} != {b.dtype}."
    if check_stride and tuple(a.strides) != tuple(b.strides):
        return f"The values for attribute 'stride()' do not match: {tuple(a.strides)} != {tuple(b.strides)}."
    if rtol is None:
        rtol, atol = (max(pair) for pair in zip(_tolerance(a.dtype), _tolerance(b.dtype), strict=True))
    what = "Scalars" if numbers else "Tensor-likes"
    return _describe(computed_values(a), computed_values(b), rtol, atol, equal_nan, what)


def _tolerance(dtype: DType) -> tuple[float, float]:
    return _TOLERANCES.get(dtype, (0.0, 0.0))


def _describe(a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool, what: str) -> str:
    exact = rtol == atol == 0
    if a.dtype.kind not in "bui" or b.dtype.kind not in "bui":
        a, b = a.astype(np.float64), b.astype(np.float64)
    elif not exact or a.dtype != b.dtype:
        a, b = a.astype(object), b.astype(object)
    with np.errstate(all="ignore"):
        distance = np.abs(a - b) if a.dtype != bool else (a != b).astype(int)
        close = (a == b) | (np.asarray(distance <= atol + rtol * np.abs(b)) & (_finite(a) & _finite(b)))
        if equal_nan and a.dtype.kind == "f":
            close |= np.isnan(a) & np.isnan(b)
        if close.all():
            return ""
        wrong = ~close
        worst = np.unravel_index(int(np.argmax(np.where(wrong, np.nan_to_num(distance.astype(float), nan=np.inf), -1))),
                                 a.shape)
        relative = np.nan_to_num(distance.astype(float) / np.abs(b.astype(float)), nan=np.inf)
    place = f" at index {tuple(map(int, worst))}" if a.ndim else ""
    head = f"{what} are not {'equal' if exact else 'close'}!\n\n"
    if a.ndim:
        head += f"Mismatched elements: {int(wrong.sum())} / {a.size} ({100 * wrong.mean():.1f}%)\n"
    return (f"{head}Greatest absolute difference: {float(distance[worst])}{place} (up to {atol} allowed)\n"
            f"Greatest relative difference: {float(relative[wrong].max())} (up to {rtol} allowed)")


def _finite(x: np.ndarray) -> Any:
    return np.isfinite(x) if x.dtype.kind == "f" else True


__all__ = ["assert_close"]
