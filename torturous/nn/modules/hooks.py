"""The hooks of one module, and a call of `forward` with hooks around it."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torturous.nn.modules.nested import Nested
from torturous.tensor import Tensor, cat, is_grad_enabled, zeros_like


class ForwardHook(NamedTuple):
    """A hook before or after `forward`, with the options it was registered with."""

    function: Callable[..., Any]
    with_kwargs: bool
    always_call: bool = False


class ModuleHooks:
    """The four hook tables of a module that has, or has had, hooks."""

    def __init__(self) -> None:
        self.before_forward: OrderedDict[int, ForwardHook] = OrderedDict()
        self.after_forward: OrderedDict[int, ForwardHook] = OrderedDict()
        self.before_backward: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self.after_backward: OrderedDict[int, Callable[..., Any]] = OrderedDict()


def call_with_hooks(module: Nested, hooks: ModuleHooks, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call `module.forward` with the module's hooks around it."""
    result = None
    already_called: set[int] = set()
    try:
        for before in list(hooks.before_forward.values()):
            args, kwargs = _run_before_forward(module, before, args, kwargs)

        backward = None
        if hooks.before_backward or hooks.after_backward:
            backward = BackwardHooks(module, hooks)
            args = backward.watch_inputs(args)

        result = module.forward(*args, **kwargs)

        for identifier, after in list(hooks.after_forward.items()):
            already_called.add(identifier)
            replaced = _run_after_forward(module, after, args, kwargs, result)
            if replaced is not None:
                result = replaced

        if backward is not None:
            result = backward.watch_outputs(result)
        return result
    except Exception:
        for identifier, after in list(hooks.after_forward.items()):
            if after.always_call and identifier not in already_called:
                try:
                    _run_after_forward(module, after, args, kwargs, result)
                except Exception as silenced:
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception that was "
                        f"silenced as another error was raised in forward: {silenced}",
                        stacklevel=3,
                    )
        raise


def _run_before_forward(
    module: Nested, hook: ForwardHook, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    if hook.with_kwargs:
        replaced = hook.function(module, args, kwargs)
        if replaced is None:
            return args, kwargs
        if not (isinstance(replaced, tuple) and len(replaced) == 2):
            raise RuntimeError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {replaced}."
            )
        return replaced
    replaced = hook.function(module, args)
    if replaced is None:
        return args, kwargs
    return (replaced if isinstance(replaced, tuple) else (replaced,)), kwargs


def _run_after_forward(
    module: Nested, hook: ForwardHook, args: tuple, kwargs: dict[str, Any], result: Any
) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, result)
    return hook.function(module, args, result)


class Junction:
    """One tensor through which the gradients of several tensors pass together.

    `tensors` stand for the originals in what follows; a hook on the junction sees the gradients of all of
    them in one call, which a hook on each could not. Several tensors are joined by flattening and
    concatenating, so one that gets no gradient gives zeros.
    """

    def __init__(self, originals: Sequence[Tensor]) -> None:
        self.shapes = [tuple(tensor.shape) for tensor in originals]
        self.dtypes = [tensor.dtype for tensor in originals]
        if len(originals) == 1:
            self.joined = originals[0].view_as(originals[0])
            self.tensors = [self.joined]
        else:
            self.joined = cat([tensor.reshape(-1) for tensor in originals])
            self.tensors = self._separate(self.joined)

    def _separate(self, joined: Tensor) -> list[Tensor]:
        parts, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            size = 1
            for extent in shape:
                size *= extent
            parts.append(joined[start : start + size].reshape(shape).to(dtype))
            start += size
        return parts

    def on_gradients(self, hook: Callable[[list[Tensor]], list[Tensor] | None]) -> None:
        """Call `hook` with the gradients of all tensors; a list it returns replaces them."""

        def joined_hook(gradient: Tensor) -> Tensor | None:
            alone = len(self.shapes) == 1
            replaced = hook([gradient] if alone else self._separate(gradient))
            if replaced is None:
                return None
            if alone:
                return replaced[0]
            return cat([part.reshape(-1) for part in replaced]).to(gradient.dtype)

        self.joined.register_hook(joined_hook)


class BackwardHooks:
    """The backward hooks of one call of a module: they run when the gradients pass its outputs and inputs."""

    def __init__(self, module: Nested, hooks: ModuleHooks) -> None:
        self.module = module
        self.before = list(hooks.before_backward.values())
        self.after = list(hooks.after_backward.values())
        self.input_positions: list[int] = []
        self.inputs: tuple = ()
        self.grad_outputs: tuple[Tensor | None, ...] = ()

    def watch_inputs(self, args: tuple) -> tuple:
        """Replace the positional tensors that require gradients by ones whose gradients we see."""
        # Without their history, which would keep the graph alive: only shapes are asked for.
        self.inputs = tuple(value.detach() if isinstance(value, Tensor) else None for value in args)
        watched, self.input_positions, junction = _watch(args)
        if junction is not None:
            junction.on_gradients(self._at_inputs)
        return watched

    def watch_outputs(self, result: Any) -> Any:
        """Replace the output tensors that require gradients by ones whose gradients we see."""
        if not isinstance(result, (Tensor, tuple)):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors"
                f" but received {type(result)}",
                stacklevel=4,
            )
            return result
        alone = isinstance(result, Tensor)
        outputs: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
        watched, positions, junction = _watch(outputs)
        if junction is not None:
            junction.on_gradients(lambda gradients: self._at_outputs(positions, len(outputs), gradients))
        return watched[0] if alone else watched

    def _at_outputs(self, positions: list[int], count: int, gradients: list[Tensor]) -> list[Tensor] | None:
        self.grad_outputs = _scatter(positions, count, gradients)
        changed = False
        for hook in self.before:
            replaced = hook(self.module, self.grad_outputs)
            if replaced is not None:
                self.grad_outputs = _as_gradients(replaced, count, "grad_output")
                changed = True
        if not self.input_positions:
            self._without_inputs()
        return _gather(positions, self.grad_outputs, gradients) if changed else None

    def _without_inputs(self) -> None:
        """No input requires a gradient: the hooks run all the same, and have nothing to replace."""
        for hook in self.after:
            replaced = hook(self.module, (None,) * len(self.inputs), self.grad_outputs)
            if replaced is not None and not (
                isinstance(replaced, tuple) and all(gradient is None for gradient in replaced)
            ):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always return None "
                    "or None for all gradients."
                )

    def _at_inputs(self, gradients: list[Tensor]) -> list[Tensor] | None:
        # As in PyTorch, the other tensors show zeros.
        shown = [None if value is None else zeros_like(value) for value in self.inputs]
        for position, gradient in zip(self.input_positions, gradients, strict=True):
            shown[position] = gradient
        grad_inputs: tuple[Tensor | None, ...] = tuple(shown)
        changed = False
        for hook in self.after:
            replaced = hook(self.module, grad_inputs, self.grad_outputs)
            if replaced is not None:
                grad_inputs = _as_gradients(replaced, len(self.inputs), "grad_input")
                changed = True
        return _gather(self.input_positions, grad_inputs, gradients) if changed else None


def _watch(values: tuple) -> tuple[tuple, list[int], Junction | None]:
    """`values` with its differentiable tensors behind a junction, their positions, and the junction."""
    positions = [
        position
        for position, value in enumerate(values)
        if isinstance(value, Tensor) and value.requires_grad and is_grad_enabled()
    ]
    if not positions:
        return values, [], None
    junction = Junction([values[position] for position in positions])
    watched = list(values)
    for position, tensor in zip(positions, junction.tensors, strict=True):
        watched[position] = tensor
    return _like_tuple(values, watched), positions, junction


def _like_tuple(original: tuple, values: list[Any]) -> tuple:
    """`values` as a tuple of the kind of `original`, which may be a named tuple."""
    make = getattr(type(original), "_make", tuple)
    return make(values)


def _scatter(positions: list[int], count: int, gradients: list[Tensor]) -> tuple[Tensor | None, ...]:
    spread: list[Tensor | None] = [None] * count
    for position, gradient in zip(positions, gradients, strict=True):
        spread[position] = gradient
    return tuple(spread)


def _gather(
    positions: list[int], spread: tuple[Tensor | None, ...], originals: list[Tensor]
) -> list[Tensor]:
    """The gradients at `positions`; `None` means no gradient, which a junction writes as zeros."""
    return [
        zeros_like(original) if (gradient := spread[position]) is None else gradient
        for position, original in zip(positions, originals, strict=True)
    ]


def _as_gradients(replaced: Any, count: int, kind: str) -> tuple[Tensor | None, ...]:
    gradients = replaced if isinstance(replaced, tuple) else (replaced,)
    if len(gradients) != count:
        raise RuntimeError(
            f"Backward hook returned an invalid number of {kind}, got {len(gradients)}, but expected {count}"
        )
    return gradients
