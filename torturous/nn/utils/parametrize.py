"""A layer's tensor as a function of other parameters: PyTorch's `torch.nn.utils.parametrize`.

A parametrized tensor is a property of a class made for the layer; what it is computed from lies in
`layer.parametrizations.<name>.original` (`original0`, `original1`, … where a parametrization takes several).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torturous.nn.modules.container import ModuleDict, ModuleList
from torturous.nn.modules.module import Module
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, no_grad


class _Cache(threading.local):
    """Values within `cached()`, by parametrization list; None outside."""

    values: dict[int, Tensor] | None = None
    depth = 0


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Within the block every parametrized tensor is computed once."""
    _cache.depth += 1
    if _cache.values is None:
        _cache.values = {}
    try:
        yield
    finally:
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values = None


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, applied one after another to what they are computed from."""

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        parts = self._inverse(original)
        self.is_tensor = isinstance(parts, Tensor)
        self.ntensors = 1 if self.is_tensor else len(parts)
        trained = isinstance(original, Parameter)
        for name, part in zip(self._names(), [parts] if self.is_tensor else parts, strict=True):
            if trained:
                kept = original if part is original else Parameter(part.detach(), original.requires_grad)
                self.register_parameter(name, kept)
            else:
                self.register_buffer(name, part)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{position}" for position in range(self.ntensors)]

    def _inverse(self, value: Tensor) -> Any:
        """What the tensor would have to be computed from to have a value, as far as inverses are known."""
        parts: Any = value
        with no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    parts = inverse(parts)
        if not isinstance(parts, Tensor) and not isinstance(parts, Sequence):
            raise ValueError("'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). Got "
                             f"{type(parts).__name__}")
        return parts

    def right_inverse(self, value: Tensor) -> None:
        """Give what the tensor is computed from new values, so that the tensor is `value`."""
        parts = self._inverse(value)
        with no_grad():
            for name, part in zip(self._names(), [parts] if self.is_tensor else parts, strict=True):
                getattr(self, name).copy_(part)

    def forward(self) -> Tensor:
        if not len(self):
            raise RuntimeError("a parametrization list without parametrizations")
        first, *others = self
        value = first(*(getattr(self, name) for name in self._names()))
        for module in others:
            value = module(value)
        return value


def _property(name: str) -> property:
    def get(self: Module) -> Tensor:
        chain = self.parametrizations[name]
        if _cache.values is None:
            return chain()
        if id(chain) not in _cache.values:
            _cache.values[id(chain)] = chain()
        return _cache.values[id(chain)]

    def put(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def _parametrized_class(module: Module) -> None:
    """Gives the module a class of its own, on which properties can be put."""
    ordinary = type(module)

    def set_attribute(self: Module, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            ordinary.__setattr__(self, name, value)

    module.__class__ = type(f"Parametrized{ordinary.__name__}", (ordinary,), {"__setattr__": set_attribute})
    module.parametrizations = ModuleDict()


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or one tensor of it, has parametrizations."""
    chains = module._modules.get("parametrizations")
    if not isinstance(chains, ModuleDict):
        return False
    return len(chains) > 0 if tensor_name is None else tensor_name in chains


def type_before_parametrizations(module: Module) -> type:
    """The module's class without its parametrizations."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
                             ) -> Module:
    """Compute a parameter or buffer of `module` by `parametrization` from what it was.

    The `right_inverse` of the first one, if it has one, gives what the present value is computed from; further ones
    are applied to what the others give. ValueError, unless `unsafe`,
    where shape or dtype would change, or where there is no such tensor.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        before = getattr(module, tensor_name)
        _check(before, parametrization(before), tensor_name, unsafe or chain.unsafe)
        chain.append(parametrization)
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise ValueError(f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name "
                         f"'{tensor_name}'")
    original = getattr(module, tensor_name)
    chain = ParametrizationList([parametrization], original, unsafe)
    _check(original, chain(), tensor_name, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        _parametrized_class(module)
    module.parametrizations[tensor_name] = chain
    setattr(type(module), tensor_name, _property(tensor_name))
    return module


def _check(before: Tensor, after: Any, name: str, unsafe: bool) -> None:
    if not isinstance(after, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(after).__name__}.")
    if unsafe:
        return
    if after.dtype != before.dtype:
        raise ValueError(f"Registering a parametrization may not change the dtype of the tensor, unless `unsafe` flag "
                         f"is enabled.\nmodule.{name}.dtype: {before.dtype}\n"
                         f"parametrization(module.{name}).dtype: {after.dtype}")
    if tuple(after.shape) != tuple(before.shape):
        raise ValueError(f"Registering a parametrization may not change the shape of the tensor, unless `unsafe` flag "
                         f"is enabled.\nmodule.{name}.shape: {before.shape}\n"
                         f"parametrization(module.{name}).shape: {after.shape}")


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a tensor ordinary again: with its present value, or with what that was computed from."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    if not leave_parametrized and not chain.is_tensor:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in "
                         "terms of a sequence of tensors.")
    first = getattr(chain, chain._names()[0])
    with no_grad():
        value = getattr(module, tensor_name).detach().clone() if leave_parametrized else first
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not isinstance(first, Parameter):
        module.register_buffer(tensor_name, value)
    elif chain.is_tensor:
        # The parameter that an optimizer knows stays.
        if leave_parametrized:
            first.data = value
        module.register_parameter(tensor_name, first)
    else:
        module.register_parameter(tensor_name, Parameter(value))
    if not len(module.parametrizations):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


__all__ = [
    "ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations",
    "type_before_parametrizations",
]
