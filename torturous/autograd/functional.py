"""`torch.autograd.functional`: derivatives of functions at given inputs.

Inputs and outputs are a tensor or a tuple of them. Results have no history unless `create_graph`. What does not depend
on an input has derivatives of 0; with `strict` that is a RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torturous.core.errors import UnsupportedError
from torturous.tensor import Tensor, enable_grad, ones_like, stack, zeros_like
from torturous.tensor.autograd import run_grad


def _tuple(value: Any, name: str) -> tuple[Any, ...]:
    values = value if isinstance(value, tuple) else (value,)
    for t in values:
        if not isinstance(t, Tensor):
            raise TypeError(f"The {name} must be either a Tensor or a tuple of Tensors, but got {type(t).__name__}")
    return values


def _like(values: Sequence[Any], given: Any) -> Any:
    """One tensor, or a tuple, as what was given."""
    return tuple(values) if isinstance(given, tuple) else values[0]


def _called(func: Callable[..., Any], inputs: Any, create_graph: bool) -> tuple[tuple[Any, ...], Any, tuple[Any, ...]]:
    """The inputs to derive by, the output as it came, and its tensors."""
    own = tuple(t.clone() if create_graph and t.requires_grad else t.detach().requires_grad_()
                for t in _tuple(inputs, "inputs given to the function"))
    output = func(*own)
    return own, output, _tuple(output, "outputs of the user-provided function")


def _derived(outputs: Sequence[Any], seeds: Sequence[Any], inputs: Sequence[Any], create_graph: bool,
             strict: bool) -> list[Any]:
    pairs = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.requires_grad]
    grads: Sequence[Any] = [None] * len(inputs)
    if pairs:
        grads = run_grad([o for o, _ in pairs], [s for _, s in pairs], True, create_graph, list(inputs))
    if strict and any(g is None for g in grads):
        raise RuntimeError("The output of the user-provided function is independent of an input. This is not allowed "
                           "in strict mode.")
    return [zeros_like(x) if g is None else g for g, x in zip(grads, inputs, strict=True)]


def _finished(results: Any, create_graph: bool) -> Any:
    if create_graph:
        return results
    return tuple(_finished(part, False) for part in results) if isinstance(results, tuple) else results.detach()


def _seeds(v: Any, outputs: Sequence[Any], what: str) -> tuple[Any, ...]:
    """The vectors given, of the shapes of what they multiply; 1 for a single number."""
    if v is None:
        if len(outputs) != 1 or outputs[0].shape.numel() != 1:
            raise RuntimeError(f"The vector v can only be None if the {what} single element Tensor")
        return (ones_like(outputs[0]),)
    vectors = _tuple(v, "vectors v")
    if len(vectors) != len(outputs) or any(a.shape != b.shape for a, b in zip(vectors, outputs, strict=False)):
        raise RuntimeError(f"v must have the shapes of what it multiplies: {[list(t.shape) for t in vectors]} for "
                           f"{[list(t.shape) for t in outputs]}")
    return vectors


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """`(func(*inputs), v · Jacobian)`."""
    with enable_grad():
        own, output, outputs = _called(func, inputs, create_graph)
        seeds = _seeds(v, outputs, "user-provided function returns a Tensor with a")
        grads = _derived(outputs, seeds, own, create_graph, strict)
    return _finished(output, create_graph), _finished(_like(grads, inputs), create_graph)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """`(func(*inputs), Jacobian · v)`, by differentiating the gradient by its seed."""
    with enable_grad():
        own, output, outputs = _called(func, inputs, create_graph)
        vectors = _seeds(v, own, "input to the user-provided function is a Tensor with a")
        probes = [zeros_like(o).requires_grad_() for o in outputs]
        grads = _derived(outputs, probes, own, True, strict)
        result = _derived(grads, vectors, probes, create_graph, False)
    return _finished(output, create_graph), _finished(_like(result, output), create_graph)


def jacobian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
             vectorize: bool = False, strategy: str = "reverse-mode") -> Any:
    """All derivatives: output shape + input shape, in tuples of tuples where outputs or inputs are tuples.

    UnsupportedError for the forward strategy; `vectorize` asks for what recording does anyway.
    """
    if strategy != "reverse-mode":
        raise UnsupportedError(f"jacobian(strategy={strategy!r}): only 'reverse-mode' is supported")
    with enable_grad():
        own, output, outputs = _called(func, inputs, create_graph)
        tables = []
        for o in outputs:
            rows = [_derived([element], [ones_like(element)], own, create_graph, strict)
                    for element in o.reshape(-1).unbind(0)]
            tables.append(_like([
                stack([row[k] for row in rows]).reshape(*o.shape, *x.shape) if rows else x.new_zeros(*o.shape, *x.shape)
                for k, x in enumerate(own)], inputs))
    return _finished(_like(tables, output), create_graph)


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False,
            vectorize: bool = False, outer_jacobian_strategy: str = "reverse-mode") -> Any:
    """All second derivatives of a function that gives one number."""
    def gradient(*own: Any) -> Any:
        output = func(*own)
        if not isinstance(output, Tensor) or output.numel() != 1:
            raise RuntimeError("The function given to hessian should return a single Tensor with a single element")
        return tuple(_derived([output.reshape(())], [ones_like(output.reshape(()))], own, True, strict))

    tables = jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)
    return tables if isinstance(inputs, tuple) else tables[0]


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """`(func(*inputs), v · Hessian)` of a function that gives one number."""
    with enable_grad():
        own, output, outputs = _called(func, inputs, create_graph)
        if len(outputs) != 1 or outputs[0].shape.numel() != 1:
            raise RuntimeError("The function given to vhp should return a single Tensor with a single element")
        grads = _derived(outputs, [ones_like(outputs[0])], own, True, strict)
        vectors = _seeds(v, own, "input to the user-provided function is a Tensor with a")
        result = _derived(grads, vectors, own, create_graph, strict)
    return _finished(output, create_graph), _finished(_like(result, inputs), create_graph)


hvp = vhp

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
