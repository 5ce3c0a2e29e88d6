"""`Module`: a tree of layers that knows its parameters, buffers and children.

Traversal and saving follow PyTorch's order (registration order, depth first), so that state dicts and seeds
are interchangeable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from torturous.nn.modules import state
from torturous.nn.modules.calling import calls, note_path, on_outermost_call
from torturous.nn.modules.conversion import parse_to
from torturous.nn.modules.hooks import ForwardHook, ModuleHooks, call_with_hooks
from torturous.nn.modules.members import offer
from torturous.nn.modules.printing import indent, tree
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, bfloat16, float16, float32, float64, no_grad
from torturous.tensor import dtype as DType
from torturous.utils.hooks import RemovableHandle, add_hook

__all__ = ["Module", "on_outermost_call"]

Self = TypeVar("Self", bound="Module")


class Module:
    """The base of all layers and models; a subclass calls `super().__init__()` and defines `forward`.

    Assigning a `Parameter` or a `Module` to an attribute registers it; a tensor is registered with
    `register_buffer`; every other value is a plain attribute. `training` says which of the two modes
    (`train()`, `eval()`) the module is in.
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _non_persistent_buffers: set[str]
    _modules: dict[str, Module | None]
    # Most modules never have a hook: the class attribute serves them, and a call asks for nothing else.
    _hooks: ModuleHooks | None = None
    # Whether it was the outermost module of a call (see `nn`).
    _called = False

    def __init__(self) -> None:
        self.__dict__.update(
            training=True, _parameters={}, _buffers={}, _non_persistent_buffers=set(), _modules={}
        )

    # Calling -----------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        depth = calls.depth
        if depth == 0 and on_outermost_call:
            for callback in on_outermost_call:
                callback(self)
        calls.depth = depth + 1
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return call_with_hooks(self, self._hooks, args, kwargs)
        except Exception as error:
            note_path(error, self, depth == 0)
            raise
        finally:
            calls.depth = depth

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass that is called defines it."""
        raise NotImplementedError(f'Module [{self._get_name()}] is missing the required "forward" function')

    # Registration ------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if isinstance(value, Parameter):
            if "_parameters" not in tables:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, keep=self._parameters)
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            if "_modules" not in tables:
                raise AttributeError("cannot assign module before Module.__init__() call")
            self._forget(name, keep=self._modules)
            self._modules[name] = value
            offer(type(self), "_modules", name)
        elif name in tables.get("_parameters", ()):
            if value is not None:
                raise _wrong_kind(value, "parameter", name, "torch.nn.Parameter")
            self._parameters[name] = None
        elif name in tables.get("_modules", ()):
            if value is not None:
                raise _wrong_kind(value, "child module", name, "torch.nn.Module")
            self._modules[name] = None
        elif name in tables.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise _wrong_kind(value, "buffer", name, "torch.nn.Buffer, torch.Tensor")
            self._buffers[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        tables = self.__dict__
        # Before `Module.__init__` there is none of the tables.
        if "_parameters" in tables:
            if name in (parameters := tables["_parameters"]):
                return parameters[name]
            if name in (modules := tables["_modules"]):
                return modules[name]
            if name in (buffers := tables["_buffers"]):
                return buffers[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers.discard(name)
                return
        super().__delattr__(name)

    def __dir__(self) -> list[str]:
        names = {*super().__dir__(), *self._parameters, *self._buffers, *self._modules}
        return sorted(name for name in names if not name[0].isdigit())

    def _forget(self, name: str, keep: Mapping[str, Any]) -> None:
        """Drop what `name` was, so that it can become something of the kind that `keep` holds."""
        self.__dict__.pop(name, None)
        for table in (self._parameters, self._buffers, self._modules):
            if table is not keep:
                table.pop(name, None)
        self._non_persistent_buffers.discard(name)

    def _check_name(self, kind: str, name: Any, table: Mapping[str, Any]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type(name).__name__}")
        if hasattr(self, name) and name not in table:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register `param` (or reserve the name, with `None`) as the parameter `name`."""
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name("parameter", name, self._parameters)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{type(param).__name__}' object to parameter '{name}' "
                "(torch.nn.Parameter or None required)"
            )
        if param is not None and param.grad_fn is not None:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. A parameter is created explicitly; "
                f"to make '{name}' a function of another tensor, compute it in forward()."
            )
        self._parameters[name] = param
        offer(type(self), "_parameters", name)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that belongs to the module but is not trained; `persistent` ones are saved."""
        if "_buffers" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name("buffer", name, self._buffers)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' "
                "(torch Tensor or None required)"
            )
        self._buffers[name] = tensor
        offer(type(self), "_buffers", name)
        if persistent:
            self._non_persistent_buffers.discard(name)
        else:
            self._non_persistent_buffers.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Register `module` (or reserve the name, with `None`) as the child `name`."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, self._modules)
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as `add_module`."""
        self.add_module(name, module)

    # Traversal ---------------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted paths; each once unless `remove_duplicate=False`."""
        if memo is None:
            memo = set()
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                path = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, path, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        for _, module in self.named_children():
            yield module

    def _named_members(
        self,
        members: Callable[[Module], Mapping[str, Any]],
        prefix: str,
        recurse: bool,
        remove_duplicate: bool,
    ) -> Iterator[tuple[str, Any]]:
        # By identity: comparing tensors with == compares their elements.
        seen: set[int] = set()
        modules = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in members(module).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names."""
        yield from self._named_members(lambda module: module._parameters, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names."""
        yield from self._named_members(lambda module: module._buffers, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target`; raises `AttributeError` where the path leads nowhere."""
        module: Module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at the dotted path `target`; raises `AttributeError` if there is none."""
        return self._get_member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at the dotted path `target`; raises `AttributeError` if there is none."""
        return self._get_member(target, "_buffers", "a buffer")

    def _get_member(self, target: str, table: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{owner._get_name()} has no attribute `{name}`")
        if getattr(owner, table).get(name) is None:
            raise AttributeError(f"`{name}` is not {kind}")
        return getattr(owner, name)

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` with every module of the tree, children before their parent."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # Modes, gradients and dtypes ---------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Put the whole tree into training (or, with `False`, evaluation) mode."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Put the whole tree into evaluation mode."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether the parameters are trained."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or with `set_to_none=False` fill them with zeros."""
        for parameter in self.parameters():
            if parameter.grad is None:
                continue
            if set_to_none:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad.detach()
                parameter.grad.zero_()

    def _apply(self: Self, convert: Callable[[Tensor], Tensor]) -> Self:
        """Convert every parameter (in place, through `data`), gradient and buffer of the tree."""
        for module in self.children():
            module._apply(convert)
        with no_grad():
            for parameter in self._parameters.values():
                if parameter is None:
                    continue
                parameter.data = convert(parameter.data)
                if parameter.grad is not None:
                    parameter.grad.data = convert(parameter.grad.data)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = convert(buffer)
        return self

    def _to_floating(self: Self, target: DType) -> Self:
        return self._apply(lambda tensor: tensor.to(target) if tensor.is_floating_point() else tensor)

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """`to(device)`, `to(dtype)`, `to(device, dtype)` or `to(tensor)`; changes the module itself.

        Only floating-point parameters and buffers change their dtype. Raises `TypeError` for a dtype that is
        not a floating-point one.
        """
        target_device, target_dtype, non_blocking = parse_to(*args, **kwargs)
        if target_dtype is not None and not target_dtype.is_floating_point:
            raise TypeError(
                "nn.Module.to only accepts floating point or complex dtypes, "
                f"but got desired dtype={target_dtype}"
            )

        def convert(tensor: Tensor) -> Tensor:
            if target_device is not None:
                tensor = tensor.to(target_device, non_blocking=non_blocking)
            if target_dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(target_dtype)
            return tensor

        return self._apply(convert)

    def type(self: Self, dst_type: DType | str) -> Self:
        """Cast all parameters and buffers, floating-point or not, to `dst_type`."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def double(self: Self) -> Self:
        """Cast the floating-point parameters and buffers to float64."""
        return self._to_floating(float64)

    def float(self: Self) -> Self:
        """Cast the floating-point parameters and buffers to float32."""
        return self._to_floating(float32)

    def half(self: Self) -> Self:
        """Cast the floating-point parameters and buffers to float16."""
        return self._to_floating(float16)

    def bfloat16(self: Self) -> Self:
        """Cast the floating-point parameters and buffers to bfloat16."""
        return self._to_floating(bfloat16)

    def cpu(self: Self) -> Self:
        """Move the module to the CPU."""
        return self._apply(lambda tensor: tensor.cpu())

    def cuda(self: Self, device: Any = None) -> Self:
        """Raises AssertionError, as PyTorch without CUDA, for a module that has tensors: there is only the CPU."""
        return self._apply(lambda tensor: tensor.cuda(device))

    # Saving and loading ------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The parameters and persistent buffers by dotted name, sharing memory with the module.

        They are detached unless `keep_vars`. A module with `get_extra_state` adds its result as
        `<path>._extra_state`.
        """
        if destination is None:
            destination = OrderedDict()
        state.save_own(self, destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return destination

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> state._IncompatibleKeys:
        """Copy the tensors of `state_dict` into the module, or with `assign` put them in its place.

        Returns the missing and the unexpected names. Raises one `RuntimeError` that names every missing and
        unexpected (if `strict`) and every wrong-shaped entry; the module is then unchanged.
        """
        return state.load(self, state_dict, strict, assign)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)

    # Hooks -------------------------------------------------------------------------------------------------

    def _own_hooks(self) -> ModuleHooks:
        if self._hooks is None:
            self._hooks = ModuleHooks()
        return self._hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)`, which returns `None` or `(args, kwargs)`.
        """
        return add_hook(self._own_hooks().before_forward, ForwardHook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`. With `always_call` it also runs when
        `forward` raises.
        """
        return add_hook(self._own_hooks().after_forward, ForwardHook(hook, with_kwargs, always_call), prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the outputs' gradients are known; it may replace them."""
        return add_hook(self._own_hooks().before_backward, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the inputs' gradients are known.

        What it returns replaces `grad_input`, the gradients of the positional arguments: zeros for a tensor
        that has none, `None` for anything else. An output that was not used shows zeros where several
        outputs require gradients (PyTorch: `None`).
        """
        return add_hook(self._own_hooks().after_backward, hook, prepend)

    # Printing ----------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed module."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        child_lines = [f"({name}): {indent(repr(module))}" for name, module in self._modules.items()]
        return tree(self._get_name(), extra_lines, child_lines)


def _wrong_kind(value: Any, kind: str, name: str, wanted: str) -> TypeError:
    return TypeError(f"cannot assign '{type(value).__name__}' as {kind} '{name}' ({wanted} or None expected)")
