"""`Optimizer`: parameter groups, per-parameter state, hooks; and `GroupOptimizer`, whose step is fused."""

from __future__ import annotations

import functools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from itertools import chain
from typing import Any, ClassVar

from torturous.optim.options import as_number, check_implementation
from torturous.tensor import Tensor, enable_grad, float32, multi_tensor, no_grad, realize_step, tensor
from torturous.utils.hooks import RemovableHandle, add_hook

Group = dict[str, Any]
IMPLEMENTATIONS = frozenset({"foreach", "fused", "differentiable", "capturable"})


class _Required:
    """Stands in `defaults` for an option that every parameter group must give."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """`step` with the optimizer's step hooks around it."""

    @functools.wraps(step)
    def stepping(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        # As in PyTorch, the arguments that hooks see begin with the optimizer.
        args = (self, *args)
        for before in list(self._step_pre_hooks.values()):
            replaced = before(self, args, kwargs)
            if replaced is None:
                continue
            if not (isinstance(replaced, tuple) and len(replaced) == 2):
                raise RuntimeError(
                    f"{before} must return None or a tuple of (new_args, new_kwargs), but got {replaced}."
                )
            args, kwargs = replaced
        # Set first: the learning-rate schedulers ask whether a step was asked for, not how it went.
        self._opt_called = True
        result = step(*args, **kwargs)
        for after in list(self._step_post_hooks.values()):
            after(self, args, kwargs)
        return result

    return stepping


class Optimizer:
    """The base of all optimizers.

    `params` is an iterable of leaf tensors, of (name, tensor) pairs, or of dictionaries with the key `params`
    and options of their own; `defaults` gives the options of groups that do not.
    """

    _opt_called = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Every subclass, a user's too, gets its hooks around the `step` it defines.
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.step)  # type: ignore[method-assign]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[Group] = []
        self._make_hook_tables()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                f"{type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def _make_hook_tables(self) -> None:
        self._step_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._step_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()

    def add_param_group(self, param_group: Group) -> None:
        """Add a group: a dictionary with `params` and, where they differ from the defaults, its options."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = dict(param_group)
        params = group["params"]
        if isinstance(params, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of "
                "tensors in sets will change between runs. Please use a list instead."
            )
        group["params"] = [params] if isinstance(params, Tensor) else list(params)
        _split_names(group)
        _check_params(group["params"])
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {name}"
                )
            group.setdefault(name, default)
        self._check_against_groups(group)
        self.param_groups.append(group)

    def _check_against_groups(self, group: Group) -> None:
        identities = [id(param) for param in group["params"]]
        if len(identities) != len(set(identities)):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this will cause "
                "an error",
                stacklevel=4,
            )
        if self.param_groups and ("param_names" in group) != ("param_names" in self.param_groups[0]):
            kind = "with names" if "param_names" in group else "without names"
            raise ValueError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group {kind} to the optimizer"
            )
        known = {id(param) for other in self.param_groups for param in other["params"]}
        if not known.isdisjoint(identities):
            raise ValueError("some parameters appear in more than one parameter group")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or with `set_to_none=False` fill them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if set_to_none:
                    param.grad = None
                else:
                    param.grad = param.grad.detach()
                    param.grad.zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; `closure`, if given, computes the loss and its gradients first."""
        raise NotImplementedError

    # Saving and loading ------------------------------------------------------------------------------------

    def _pack(self, param_state: dict[str, Any]) -> dict[str, Any]:
        """The state of one parameter as `state_dict` shows it."""
        return param_state

    def _unpack(self, param_state: dict[str, Any]) -> dict[str, Any]:
        """The state of one parameter as this optimizer keeps it, from what `state_dict` showed."""
        return param_state

    def state_dict(self) -> dict[str, Any]:
        """`{'state': {position: state}, 'param_groups': [options with 'params': positions]}`.

        Tensors are shared with the optimizer, not copied.
        """
        positions: dict[int, int] = {}
        for param in chain.from_iterable(group["params"] for group in self.param_groups):
            positions.setdefault(id(param), len(positions))
        groups = [
            {
                **{name: value for name, value in group.items() if name != "params"},
                "params": [positions[id(param)] for param in group["params"]],
            }
            for group in self.param_groups
        ]
        packed = {
            (positions[id(key)] if isinstance(key, Tensor) else key): (
                self._pack(value) if isinstance(key, Tensor) else value
            )
            for key, value in self.state.items()
        }
        return {"state": packed, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over options and state (copied) from a `state_dict` of the same groups.

        Floating-point state gets the dtype of its parameter. Raises `ValueError`, and changes nothing, if the
        groups differ in number or size.
        """
        saved_groups = deepcopy(state_dict["param_groups"])
        if len(saved_groups) != len(self.param_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of "
                    "optimizer's group"
                )
        param_at: dict[int, Tensor] = {}
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            param_at.update(zip(saved["params"], group["params"], strict=True))

        loaded: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            if key in param_at:
                param = param_at[key]
                loaded[param] = self._unpack(
                    {name: _copied(entry, name, param) for name, entry in value.items()}
                )
            else:
                loaded[key] = deepcopy(value)
        for group, saved in zip(self.param_groups, saved_groups, strict=True):
            saved["params"] = group["params"]
            if "param_names" in group:
                saved.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": loaded, "param_groups": saved_groups})

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        if "_step_pre_hooks" not in self.__dict__:
            self._make_hook_tables()
        # A state dict saved by a version with fewer options.
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    # Hooks and printing ------------------------------------------------------------------------------------

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step; it may return new `(args, kwargs)`.

        `args` begins with the optimizer.
        """
        return add_hook(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return add_hook(self._step_post_hooks, hook)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for position, group in enumerate(self.param_groups):
            options = (f"    {name}: {group[name]}\n" for name in sorted(group) if name != "params")
            text += f"\nParameter Group {position}\n" + "".join(options)
        return text + ")"


def _split_names(group: Group) -> None:
    """Where parameters came as (name, tensor) pairs, keep the names beside them."""
    params = group["params"]
    named = [isinstance(param, tuple) for param in params]
    if not any(named):
        return
    if not all(named):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    group["params"] = [param for _, param in params]
    group["param_names"] = [name for name, _ in params]


def _check_params(params: list[Any]) -> None:
    for param in params:
        if not isinstance(param, Tensor):
            raise TypeError(
                f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}"
            )
        if not param.is_leaf and not param.retains_grad:
            raise ValueError("can't optimize a non-leaf Tensor")


def _copied(value: Any, name: str, param: Tensor) -> Any:
    """A copy of one entry of a parameter's saved state, in the parameter's dtype."""
    if not isinstance(value, Tensor):
        return deepcopy(value)
    if name != "step" and param.is_floating_point():
        return value.detach().to(param.dtype).clone()
    return value.detach().clone()


class GroupOptimizer(Optimizer):
    """An optimizer whose step is one multi-tensor call per parameter group.

    A subclass defines `_update`. The number of steps of a parameter is a plain integer in `state` and a 0-d
    float32 tensor in `state_dict`, as PyTorch saves it.

    `defaults` are options and their values for groups that do not give their own. Those that choose among PyTorch's
    implementations (`foreach`, `fused`, `differentiable`, `capturable`) are checked here.
    """

    numbers: ClassVar[frozenset[str]] = frozenset({"step"})
    """Entries of a parameter's state that are plain numbers here, and 0-d tensors in `state_dict`."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        check_implementation(**{name: defaults[name] for name in IMPLEMENTATIONS & defaults.keys()})
        super().__init__(params, defaults)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient; `closure` computes the loss and its gradients first.

        If the step fails, the optimizer's state is what it was before.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        params: list[Tensor] = []
        grads: list[Tensor] = []
        changes = StateChanges()
        with no_grad():
            for group in self.param_groups:
                have = [(param, grad) for param in group["params"] if (grad := param.grad) is not None]
                if have:
                    group_params, group_grads = map(list, zip(*have, strict=True))
                    self._update(group, group_params, group_grads, changes)
                    params += group_params
                    grads += group_grads
        realize_step(params, changes.tensors, grads)
        changes.commit()
        return loss

    def _update(
        self, group: Group, params: list[Tensor], grads: list[Tensor], changes: StateChanges
    ) -> None:
        """Update one group's parameters and state in place, noting the state in `changes`."""
        raise NotImplementedError

    def _buffers(
        self, params: list[Tensor], changes: StateChanges, **initial: float
    ) -> tuple[list[int], list[list[Tensor]]]:
        """The number of the step that each parameter takes now, and its state tensors, which begin as these numbers."""
        steps: list[int] = []
        buffers: list[list[Tensor]] = [[] for _ in initial]
        for param in params:
            state = self.state[param]
            steps.append(state.get("step", 0) + 1)
            changes.set(state, "step", steps[-1])
            for found, (name, number) in zip(buffers, initial.items(), strict=True):
                found.append(changes.buffer(state, name, number, param))
        return steps, buffers

    def _pack(self, param_state: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor(float(value), dtype=float32) if name in self.numbers else value
                for name, value in param_state.items()}

    def _unpack(self, param_state: dict[str, Any]) -> dict[str, Any]:
        unpacked = dict(param_state)
        for name in self.numbers & unpacked.keys():
            value = as_number(unpacked[name])
            unpacked[name] = int(value) if name == "step" else float(value)
        return unpacked


class StateChanges:
    """What a step changes in the optimizer's state, applied only once its values exist."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._entries: list[tuple[dict[str, Any], str, Any]] = []

    def set(self, param_state: dict[str, Any], name: str, value: Any) -> None:
        """Set an entry when the step has succeeded."""
        self._entries.append((param_state, name, value))

    def buffer(self, param_state: dict[str, Any], name: str, initial: float, param: Tensor) -> Tensor:
        """The state tensor `name` of a parameter, made for it where it has none yet."""
        value = param_state.get(name)
        if value is None:
            value = multi_tensor.state_of(param, initial)
            self.set(param_state, name, value)
        self.tensors.append(value)
        return value

    def commit(self) -> None:
        """Apply all changes."""
        for param_state, name, value in self._entries:
            param_state[name] = value


def by_step(steps: list[int], *kinds: list[Tensor]) -> Iterator[tuple[int, list[list[Tensor]]]]:
    """The tensors of all kinds, those of parameters with the same step together."""
    for step in sorted(set(steps)):
        chosen = [position for position, count in enumerate(steps) if count == step]
        yield step, [[tensors[position] for position in chosen] for tensors in kinds]
