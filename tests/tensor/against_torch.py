"""The same expression here and in PyTorch: same values, dtypes, shapes and gradients, or the same kind of
exception."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import torturous

DTYPES = ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64")
FLOATS = DTYPES[4:]
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 4e-6, "float64": 1e-12}


class Pair:
    """A tensor here and the same in PyTorch."""

    def __init__(self, array: np.ndarray, dtype: str, requires_grad: bool = False, view: Any = None) -> None:
        self.mine, self.theirs = (self._make(library, array, dtype) for library in (torturous, torch))
        if requires_grad:
            self.mine.requires_grad_()
            self.theirs.requires_grad_()
        self.leaves = (self.mine, self.theirs)
        if view is not None:
            self.mine, self.theirs = view(self.mine), view(self.theirs)

    @staticmethod
    def _make(library: Any, array: np.ndarray, dtype: str) -> Any:
        return library.tensor(array).to(getattr(library, dtype))


def sample(shape: tuple[int, ...], dtype: str, seed: int = 0, low: float = -3, high: float = 3) -> np.ndarray:
    """Numbers that every dtype holds: quarters for floats, so that ties and zeros occur."""
    numbers = np.random.default_rng(seed).integers(int(low * 4), int(high * 4) + 1, shape)
    if dtype in FLOATS:
        return numbers / 4.0
    return abs(numbers) % 2 == 1 if dtype == "bool" else abs(numbers) if dtype == "uint8" else numbers


def attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A result, or the exception raised in its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments, **named)
    except Exception as error:
        return error


def values(t: Any) -> np.ndarray:
    """A tensor's elements as a NumPy array (bfloat16 as float32)."""
    if isinstance(t, (torch.Tensor, torturous.Tensor)):
        t = t.detach()
        return (t.float() if str(t.dtype) == "torch.bfloat16" else t).numpy()
    return np.asarray(t)


def check(mine: Any, theirs: Any, label: str = "", tolerance: float | None = None) -> None:
    """Raises AssertionError unless two outcomes agree."""
    if isinstance(theirs, Exception):
        assert isinstance(mine, Exception), f"{label}: PyTorch raises {theirs!r}, here {mine}"
        # PyTorch's NotImplementedError is a RuntimeError, and so is ours.
        kinds = (RuntimeError, TypeError, IndexError, ValueError)
        same = any(isinstance(mine, kind) and isinstance(theirs, kind) for kind in kinds)
        assert same, f"{label}: {mine!r}, not {theirs!r}"
        return
    assert not isinstance(mine, Exception), f"{label}: {mine!r}"
    if isinstance(theirs, (tuple, list)):
        assert len(mine) == len(theirs), label
        for part, other in zip(mine, theirs, strict=True):
            check(part, other, label, tolerance)
        return
    if not isinstance(theirs, torch.Tensor):
        assert mine == theirs or (mine != mine and theirs != theirs), f"{label}: {mine}, not {theirs}"
        return
    assert str(mine.dtype) == str(theirs.dtype), f"{label}: {mine.dtype}, not {theirs.dtype}"
    assert tuple(mine.shape) == tuple(theirs.shape), f"{label}: {mine.shape}, not {theirs.shape}"
    assert mine.requires_grad == theirs.requires_grad, f"{label}: requires_grad {mine.requires_grad}"
    a, b = values(mine), values(theirs)
    allowed = TOLERANCE.get(str(theirs.dtype)[6:], 0.0) if tolerance is None else tolerance
    np.testing.assert_allclose(a, b, rtol=allowed, atol=allowed if allowed else 0, err_msg=label)


def check_all(outcomes: list[tuple[str, Any, Any]], tolerance: float | None = None) -> None:
    """Compares many outcomes, which were recorded together and so are computed together."""
    failures = []
    for label, mine, theirs in outcomes:
        try:
            check(mine, theirs, label, tolerance)
        except AssertionError as error:
            failures.append(f"{label}: {str(error)[:600]}")
        except RuntimeError as error:
            raise AssertionError(f"{label}: {error}") from error
    assert not failures, f"{len(failures)} of {len(outcomes)} differ:\n" + "\n".join(failures)
