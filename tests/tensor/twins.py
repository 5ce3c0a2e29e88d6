"""One program run twice, by PyTorch and by this package, and everything that can be seen of it compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from torturous.core import dtypes
from torturous.tensor import gathering, joining, movement, rearranging, splitting
from torturous.tensor.tensor import from_array, from_numpy

OURS = SimpleNamespace(
    **{name: getattr(module, name) for module in (gathering, joining, movement, rearranging, splitting)
       for name in module.FUNCTIONS},
    pad=joining.pad, from_numpy=from_numpy, tensor=lambda data: from_array(np.asarray(data)),
    **{dtype.name: dtype for dtype in dtypes.ALL},
)
THEIRS = torch
THEIRS.pad = torch.nn.functional.pad

Program = Callable[..., Any]
"""A program gets the package it runs in, then its operands; it gives a tensor or several."""


def integers(*shape: int, low: int = -9, high: int = 10, seed: int = 0) -> np.ndarray:
    """Whole numbers as float32: sums and products of a few are exact in any order."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)


def counted(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """0, 1, 2, … : every element tells where it comes from."""
    return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)


def tensors(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def array(t: Any) -> np.ndarray:
    return (t.detach() if t.requires_grad else t).numpy()


def seen(theirs: Any, ours: Any, strides: bool = True) -> None:
    """Compares two tensors: dtype, shape, strides and offset, values."""
    assert str(ours.dtype) == str(theirs.dtype)
    assert tuple(ours.shape) == tuple(theirs.shape)
    if strides:
        assert ours.stride() == theirs.stride()
        assert ours.storage_offset() == theirs.storage_offset()
        assert ours.is_contiguous() == theirs.is_contiguous()
    np.testing.assert_array_equal(array(ours), array(theirs))


def _attempt(program: Program, library: Any, operands: Sequence[Any]) -> tuple[list[Any], Exception | None]:
    try:
        results = tensors(program(library, *operands))
        for result in results:
            array(result)  # Whatever can fail has failed now.
        return results, None
    except Exception as error:
        return [], error


def agree(program: Program, *arrays: np.ndarray, strides: bool = True, gradients: bool = True) -> None:
    """Runs a program on both sides: equal results and gradients, or errors of one type."""
    wanted = [gradients and a.dtype.kind == "f" for a in arrays]
    theirs = [torch.tensor(a).requires_grad_(want) for a, want in zip(arrays, wanted, strict=True)]
    ours = [from_array(a).requires_grad_(want) for a, want in zip(arrays, wanted, strict=True)]
    expected, their_error = _attempt(program, THEIRS, theirs)
    results, our_error = _attempt(program, OURS, ours)
    if their_error is not None or our_error is not None:
        assert type(our_error) is type(their_error), (our_error, their_error)
        return
    assert len(results) == len(expected)
    for a, b in zip(expected, results, strict=True):
        seen(a, b, strides)
    if not any(wanted):
        return
    for a, b in zip(expected, results, strict=True):
        assert b.requires_grad == a.requires_grad
        if a.requires_grad and a.numel():
            weights = integers(*a.shape, seed=1)
            a.backward(torch.tensor(weights, dtype=a.dtype), retain_graph=True)
            b.backward(from_array(weights), retain_graph=True)
    for a, b, want in zip(theirs, ours, wanted, strict=True):
        if want:
            assert (a.grad is None) == (b.grad is None)
            if a.grad is not None:
                np.testing.assert_array_equal(b.grad.numpy(), a.grad.numpy())
