"""`torch.autograd`: gradients asked for by function, functions of one's own, and checks by finite
differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torturous.autograd import function, functional
from torturous.autograd.check import GradcheckError, gradcheck, gradgradcheck
from torturous.autograd.function import Function
from torturous.autograd.variable import Variable
from torturous.tensor import Tensor
from torturous.tensor.autograd import run_backward, run_grad
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import zeros_like
from torturous.tensor.differentiable import checked_inputs
from torturous.tensor.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled

Tensors = Tensor | Sequence[Tensor]
Gradients = Tensor | None | Sequence["Tensor | None"]


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, TensorBase) else list(value)


def _gradients(given: Gradients, count: int, name: str) -> list[Any]:
    gradients = [None] * count if given is None else _listed(given)
    if len(gradients) != count:
        raise RuntimeError(f"got {count} tensors and {len(gradients)} gradients ({name})")
    return gradients


def backward(
    tensors: Tensors, grad_tensors: Gradients = None, retain_graph: bool | None = None,
    create_graph: bool = False, grad_variables: Gradients = None, inputs: Tensors | None = None,
) -> None:
    """Adds the gradients of some tensors to the `.grad` of the leaves they were computed from, or of
    `inputs`.

    `grad_tensors` has, for each tensor, its own gradient, of its shape; None will do for one of a single
    element. Raises RuntimeError where PyTorch does.
    """
    if grad_variables is not None:
        if grad_tensors is not None:
            raise RuntimeError(
                "`grad_tensors` and `grad_variables` (deprecated) arguments both passed to `backward()`. "
                "Please only use `grad_tensors`.")
        grad_tensors = grad_variables
    listed = _listed(tensors)
    retain = create_graph if retain_graph is None else bool(retain_graph)
    run_backward(listed, _gradients(grad_tensors, len(listed), "grad_tensors"), retain, create_graph,
                 checked_inputs(inputs))


def grad(
    outputs: Tensors, inputs: Tensors, grad_outputs: Gradients = None, retain_graph: bool | None = None,
    create_graph: bool = False, only_inputs: bool = True, allow_unused: bool | None = None,
    is_grads_batched: bool = False, materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The sum of the gradients of `outputs` with respect to each of `inputs`, which may be leaves or not.

    An input that the outputs do not depend on raises RuntimeError, unless `allow_unused` (None is given for
    it) or `materialize_grads` (zeros are).
    """
    if not only_inputs:
        raise RuntimeError("only_inputs=False is not supported: use backward(), which serves all leaves")
    if is_grads_batched:
        raise NotImplementedError(
            "is_grads_batched=True is not supported: call grad once for each row of grad_outputs")
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False.")
    listed, wanted = _listed(outputs), _listed(inputs)
    if not wanted:
        raise ValueError("grad requires non-empty inputs.")
    for t in wanted:
        if not isinstance(t, TensorBase):
            raise TypeError(f"inputs of grad must be Tensors, but got {type(t).__name__}")
        if not t.requires_grad:  # type: ignore[attr-defined]
            raise RuntimeError("One of the differentiated Tensors does not require grad")
    retain = create_graph if retain_graph is None else bool(retain_graph)
    seeds = _gradients(grad_outputs, len(listed), "grad_outputs")
    results = run_grad(listed, seeds, retain, create_graph, wanted)
    for position, result in enumerate(results):
        if result is None and materialize_grads:
            results[position] = zeros_like(wanted[position])
        elif result is None and not allow_unused:
            raise RuntimeError(
                f"The differentiated Tensor at index {position} appears to not have been used in the graph. "
                "Set allow_unused=True if this is the desired behavior.")
    return tuple(results)


__all__ = ["Function", "GradcheckError", "Variable", "backward", "enable_grad", "function", "functional", "grad",
           "gradcheck", "gradgradcheck", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]
