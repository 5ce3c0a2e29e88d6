"""Saving a module's tensors under their dotted names, and loading them back whole or not at all."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torturous.nn.modules.nested import Nested
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, no_grad

EXTRA_STATE = "_extra_state"


class _IncompatibleKeys(namedtuple("_IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `load_state_dict` found: names the module lacks a value for, and names it does not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


def own_tensors(module: Nested) -> Iterator[tuple[str, Tensor]]:
    """The parameters and persistent buffers that `module` itself (not its children) holds."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers:
            yield name, buffer


def save_own(module: Nested, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
    """Put the tensors of `module` itself, and its extra state if it has some, into `destination`."""
    for name, tensor in own_tensors(module):
        destination[prefix + name] = tensor if keep_vars else tensor.detach()
    extra_state = getattr(module, "get_extra_state", None)
    if extra_state is not None:
        destination[prefix + EXTRA_STATE] = extra_state()


def load(module: Nested, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> _IncompatibleKeys:
    """Check every entry of `state_dict` first; only if all is well, copy (or assign) them all."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    missing: list[str] = []
    misfits: list[str] = []
    expected: set[str] = set()
    actions: list[Callable[[], Any]] = []

    for path, owner in module.named_modules(remove_duplicate=False):
        prefix = path + "." if path else ""
        for name, current in own_tensors(owner):
            key = prefix + name
            expected.add(key)
            if key not in state_dict:
                missing.append(key)
            elif problem := _misfit(key, current, state_dict[key]):
                misfits.append(problem)
            else:
                actions.append(_loading(owner, name, current, state_dict[key], assign))
        set_extra_state = getattr(owner, "set_extra_state", None)
        if set_extra_state is not None:
            key = prefix + EXTRA_STATE
            expected.add(key)
            if key not in state_dict:
                missing.append(key)
            else:
                actions.append(_calling(set_extra_state, state_dict[key]))

    unexpected = [key for key in state_dict if key not in expected]
    problems = list(misfits)
    if strict and unexpected:
        problems.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
    if strict and missing:
        problems.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
    if problems:
        raise RuntimeError(
            f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(problems)
        )
    with no_grad():
        for action in actions:
            action()
    return _IncompatibleKeys(missing, unexpected)


def _misfit(key: str, current: Tensor, value: Any) -> str | None:
    """Why `value` cannot become the tensor `key`, or `None` if it can."""
    if not isinstance(value, Tensor):
        return (
            f'While copying the parameter named "{key}", expected torch.Tensor or Tensor-like object from '
            f"checkpoint but received {type(value)}"
        )
    if tuple(value.shape) != tuple(current.shape):
        return (
            f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
            f"the shape in current model is {current.shape}."
        )
    return None


def _loading(owner: Nested, name: str, current: Tensor, value: Tensor, assign: bool) -> Callable[[], Any]:
    if not assign:
        return lambda: current.copy_(value)
    if isinstance(current, Parameter) and not isinstance(value, Parameter):
        value = Parameter(value, requires_grad=current.requires_grad)
    return lambda: setattr(owner, name, value)


def _calling(set_extra_state: Callable[[Any], Any], state: Any) -> Callable[[], Any]:
    return lambda: set_extra_state(state)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)
