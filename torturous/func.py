"""`torch.func`: functions of functions. Each takes a function of tensors and gives one that computes its derivative.

Results have a history where what they are derived by has one. Tensors that a function captures, rather than takes, are
constants for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torturous.autograd import grad as gradients
from torturous.nn import Module
from torturous.tensor import Tensor, enable_grad, stack, zeros_like


def _places(argnums: int | Sequence[int]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _inner(t: Any) -> Any:
    """A tensor to differentiate by, with the history of what was given, so that derivatives may be nested."""
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = getattr(t, "dtype", type(t).__name__)
        raise ValueError(f"functions are differentiated by floating tensors, not by {kind}")
    return t.clone() if t.requires_grad else t.detach().requires_grad_()


def _outer(results: Any, given: Sequence[Any]) -> Any:
    """Results as the caller sees them: with a history only if what was given has one."""
    if any(isinstance(t, Tensor) and t.requires_grad for t in given):
        return results
    if isinstance(results, tuple):
        return tuple(_outer(part, given) for part in results)
    return results.detach() if isinstance(results, Tensor) else results


def _zeros_for_none(grads: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(zeros_like(x) if g is None else g for g, x in zip(grads, inputs, strict=True))


def grad_and_value(func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Any:
    """A function that gives the gradient by the arguments `argnums`, and the value, of one that gives a number.

    With `has_aux` the function gives `(number, others)`, and the others come with the value.
    """
    places = _places(argnums)

    def call(*arguments: Any, **named: Any) -> Any:
        inputs = {place: _inner(arguments[place]) for place in places}
        with enable_grad():
            value = func(*[inputs.get(place, argument) for place, argument in enumerate(arguments)], **named)
            value, others = value if has_aux else (value, None)
            if not isinstance(value, Tensor) or value.shape.numel() != 1 or value.shape:  # type: ignore[attr-defined]
                raise RuntimeError("Expected f(*args) to return a scalar tensor, got "
                                   f"{list(value.shape) if isinstance(value, Tensor) else type(value).__name__}")
            grads: Any = (None,) * len(places)
            if value.requires_grad:
                grads = gradients(value, list(inputs.values()), create_graph=True, allow_unused=True)
            found = _outer(_zeros_for_none(grads, list(inputs.values())), arguments)
        result = found[0] if isinstance(argnums, int) else found
        value = _outer(value, arguments)
        return (result, (value, _outer(others, arguments))) if has_aux else (result, value)

    return call


def grad(func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Any:
    """A function that gives the gradient, by the arguments `argnums`, of one that gives a number."""
    both = grad_and_value(func, argnums, has_aux)

    def call(*arguments: Any, **named: Any) -> Any:
        result, value = both(*arguments, **named)
        return (result, value[1]) if has_aux else result

    return call


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """`(func(*primals), f)`: f takes a cotangent of the output and gives the gradients by the primals."""
    inputs = [_inner(primal) for primal in primals]
    with enable_grad():
        output = func(*inputs)
    output, others = output if has_aux else (output, None)
    outputs = output if isinstance(output, tuple) else (output,)

    def pull(*cotangents: Any) -> tuple[Any, ...]:
        given = cotangents[0] if isinstance(output, tuple) and len(cotangents) == 1 else cotangents
        grads = gradients(list(outputs), inputs, list(given), retain_graph=True, create_graph=True, allow_unused=True)
        return _outer(_zeros_for_none(grads, inputs), (*primals, *given))

    seen = _outer(output, primals)
    return (seen, pull, others) if has_aux else (seen, pull)


def jvp(func: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """`(func(*primals), its derivative along the tangents)`, by differentiating the gradient by its cotangent."""
    inputs = [_inner(primal) for primal in primals]
    with enable_grad():
        output = func(*inputs)
        probe = zeros_like(output).requires_grad_()
        grads = gradients(output, inputs, probe, create_graph=True, allow_unused=True)
        along = sum((g * t).sum() for g, t in zip(grads, tangents, strict=True) if g is not None)
        result = gradients(along, probe, create_graph=True)[0]
    return _outer((output, result), (*primals, *tangents))


def jacrev(func: Callable[..., Any], argnums: int = 0) -> Any:
    """A function that gives all derivatives of the output's elements by one argument: output shape + input shape."""

    def call(*arguments: Any, **named: Any) -> Any:
        x = _inner(arguments[argnums])
        with enable_grad():
            output = func(*[x if place == argnums else argument for place, argument in enumerate(arguments)], **named)
            rows: list[Any] = [gradients(element, x, retain_graph=True, create_graph=True, allow_unused=True)[0]
                               for element in output.reshape(-1).unbind(0)]
            rows = [zeros_like(x) if row is None else row for row in rows]
            return _outer(stack(rows).reshape(*output.shape, *x.shape), arguments)

    return call


def hessian(func: Callable[..., Any], argnums: int = 0) -> Any:
    """A function that gives all second derivatives of a number by one argument."""
    return jacrev(jacrev(func, argnums), argnums)


def functional_call(module: Module, parameter_and_buffer_dicts: Any, args: Any = None,
                    kwargs: dict[str, Any] | None = None) -> Any:
    """What a module gives with other parameters and buffers, by their dotted names, in the place of its own.

    Names that are left out keep the module's own. KeyError for a name that it has not.
    """
    dictionaries = parameter_and_buffer_dicts
    given = dict(dictionaries) if isinstance(dictionaries, dict) else {k: v for d in dictionaries for k, v in d.items()}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for path, value in given.items():
            owner, _, name = path.rpartition(".")
            holder = module.get_submodule(owner)
            store = next((s for s in (holder._parameters, holder._buffers) if name in s), None)
            if store is None:
                raise KeyError(f"functional_call(): {type(module).__name__} has no parameter or buffer {path!r}")
            replaced.append((store, name, store[name]))
            store[name] = value
        arguments = () if args is None else args if isinstance(args, tuple) else (args,)
        return module(*arguments, **(kwargs or {}))
    finally:
        for store, name, value in reversed(replaced):
            store[name] = value


__all__ = ["functional_call", "grad", "grad_and_value", "hessian", "jacrev", "jvp", "vjp"]
