"""Gradients compared with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.tensor import Tensor
from torturous.tensor.autograd import run_grad
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import tensor, zeros_like
from torturous.tensor.grad_mode import enable_grad, no_grad
from torturous.tensor.random import randn_like


class GradcheckError(RuntimeError):
    """Raised by `gradcheck` and `gradgradcheck` where the two gradients differ."""


def _outputs(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Any]:
    result = function(*inputs)
    listed = list(result) if isinstance(result, (tuple, list)) else [result]
    return [t for t in listed if isinstance(t, TensorBase) and t.dtype.is_floating_point]


def _array(t: Any) -> np.ndarray:
    return np.array(t.detach().to(dtypes.float64).numpy())


def _numeric(function: Callable[..., Any], inputs: list[Any], position: int, eps: float) -> list[np.ndarray]:
    """Per output, the Jacobian (elements of the input, elements of the output) by central differences."""
    point = _array(inputs[position])
    columns: list[list[np.ndarray]] = []
    with no_grad():
        for place in np.ndindex(point.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = point.copy()
                moved[place] += sign * eps
                changed = list(inputs)
                changed[position] = tensor(moved, dtype=inputs[position].dtype)
                ends.append([_array(t).reshape(-1) for t in _outputs(function, changed)])
            columns.append([(ahead - behind) / (2 * eps) for ahead, behind in zip(*ends, strict=True)])
    return [np.array([column[k] for column in columns]) for k in range(len(columns[0]) if columns else 0)]


def _analytic(output: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
    """Per input, the Jacobian (elements of the input, elements of the output) by backward passes."""
    count = output.numel()
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for k in range(count):
        direction = np.zeros(count)
        direction[k] = 1.0
        seed = tensor(direction.reshape(tuple(output.shape)), dtype=output.dtype)
        for row, t, g in zip(rows, inputs, run_grad([output], [seed], True, False, inputs), strict=True):
            row.append(_array(zeros_like(t) if g is None else g).reshape(-1))
    return [np.array(row).T.reshape(t.numel(), count) for row, t in zip(rows, inputs, strict=True)]


def gradcheck(
    func: Callable[..., Any], inputs: Any, *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
    raise_exception: bool = True, nondet_tol: float = 0.0,
) -> bool:
    """Compares the gradients of `func` with central differences of step `eps`.

    `inputs` should be float64; those that require gradients are varied. True if every element of every
    Jacobian agrees within atol + rtol·|numeric|, and two backward passes agree within `nondet_tol`; else
    GradcheckError, or False without `raise_exception`. ValueError where no input requires gradients.
    """
    listed: list[Any] = [inputs] if isinstance(inputs, TensorBase) else list(inputs)
    varied = [k for k, t in enumerate(listed) if isinstance(t, Tensor) and t.requires_grad]
    if not varied:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of the them have "
            "requires_grad=True.")
    try:
        with enable_grad():
            outputs = _outputs(func, listed)
        numeric = {k: _numeric(func, listed, k, eps) for k in varied}
        for number, output in enumerate(outputs):
            if not output.requires_grad:
                analytic = again = [np.zeros((listed[k].numel(), output.numel())) for k in varied]
            else:
                analytic, again = (_analytic(output, [listed[k] for k in varied]) for _ in range(2))
            for k, jacobian, repeated in zip(varied, analytic, again, strict=True):
                if np.abs(jacobian - repeated).max(initial=0.0) > nondet_tol:
                    raise GradcheckError(
                        "Backward is not reentrant, i.e., running backward with same input and grad_output "
                        f"multiple times gives different values (output {number} with respect to input {k})")
                expected = numeric[k][number] if numeric[k] else np.zeros_like(jacobian)
                if not np.allclose(jacobian, expected, rtol, atol):
                    raise GradcheckError(
                        f"Jacobian mismatch for output {number} with respect to input "
                        f"{k},\nnumerical:{expected}\nanalytical:{jacobian}")
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any], inputs: Any, grad_outputs: Any = None, *, eps: float = 1e-6, atol: float = 1e-5,
    rtol: float = 1e-3, raise_exception: bool = True, nondet_tol: float = 0.0,
) -> bool:
    """`gradcheck` of the gradients of `func`, with respect to its inputs and to `grad_outputs` (random if
    not given)."""
    listed: list[Any] = [inputs] if isinstance(inputs, TensorBase) else list(inputs)
    seeds: list[Any]
    if grad_outputs is None:
        with no_grad():
            seeds = [randn_like(t).requires_grad_() for t in _outputs(func, listed)]
    else:
        seeds = [grad_outputs] if isinstance(grad_outputs, TensorBase) else list(grad_outputs)
    varied = [k for k, t in enumerate(listed) if isinstance(t, Tensor) and t.requires_grad]

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        points, directions = list(arguments[:len(listed)]), arguments[len(listed):]
        with enable_grad():
            for k in varied:
                if not points[k].requires_grad:
                    points[k] = points[k].detach().requires_grad_()
            outputs = _outputs(func, points)
            tracked = [(t, d) for t, d in zip(outputs, directions, strict=True) if t.requires_grad]
            results = run_grad(
                [t for t, _ in tracked], [d for _, d in tracked], True, True, [points[k] for k in varied])
        return tuple(zeros_like(points[k]) if g is None else g for k, g in zip(varied, results, strict=True))

    return gradcheck(gradients, (*listed, *seeds), eps=eps, atol=atol, rtol=rtol,
                     raise_exception=raise_exception, nondet_tol=nondet_tol)


__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]
