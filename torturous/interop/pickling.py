"""Objects as pickles in which tensors go by PyTorch's names, so that each side reads the other's.

A tensor is pickled as a call of `torch._utils._rebuild_tensor_v2` with its storage, and a storage as a *persistent
id*: its bytes lie elsewhere (`checkpoint.py`). Names are written and read through one table and need no such modules.
"""

from __future__ import annotations

import builtins
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO, NamedTuple

from torturous.core import dtypes
from torturous.core.devices import device
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.interop import trust
from torturous.nn import Parameter
from torturous.runtime.storage import Storage
from torturous.tensor import Size, Tensor

PROTOCOL = 2
Name = tuple[str, str]


class StorageType(NamedTuple):
    """What PyTorch's `FloatStorage` and the like say of a storage: what it holds."""

    dtype: DType


def rebuild_tensor(storage: Callable[..., Tensor], offset: int, size: tuple[int, ...], stride: tuple[int, ...],
                   requires_grad: bool, hooks: Any, metadata: Any = None) -> Tensor:
    """A tensor of a storage's elements: what each pickled tensor calls."""
    t = storage(offset, tuple(size), tuple(stride))
    return t.requires_grad_() if requires_grad else t


def rebuild_parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Parameter:
    return Parameter(data, requires_grad)


def rebuild_parameter_with_state(data: Tensor, requires_grad: bool, hooks: Any, state: Mapping[str, Any]) -> Parameter:
    """A parameter that a program has given attributes of its own: none of those that all have, which say where its
    memory is and what it may be read as."""
    parameter = Parameter(data, requires_grad)
    for name, value in state.items():
        if hasattr(Parameter, name):
            raise pickle.UnpicklingError(f"load(): the file sets {name} of a parameter, which all have")
        setattr(parameter, name, value)
    return parameter


def own_attributes(parameter: Parameter) -> dict[str, Any]:
    """What a program has given it."""
    return {name: value for name, value in vars(parameter).items() if not hasattr(Parameter, name)}


def encode(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of PyTorch's protocol hold them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are written as latin1, not {encoding}")
    return text.encode(encoding)


_STORAGES = {
    "Bool": dtypes.bool_, "Byte": dtypes.uint8, "Int": dtypes.int32, "Long": dtypes.int64, "Half": dtypes.float16,
    "BFloat16": dtypes.bfloat16, "Float": dtypes.float32, "Double": dtypes.float64,
}
STORAGE_TYPES = {dtype: StorageType(dtype) for dtype in _STORAGES.values()}
_NAMES: dict[Name, Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter_with_state,
    ("torch", "Size"): Size,
    ("torch", "device"): device,
    **{("torch", f"{name}Storage"): STORAGE_TYPES[dtype] for name, dtype in _STORAGES.items()},
    **{("torch", dtype.name): dtype for dtype in dtypes.ALL},
}
"""What PyTorch's names mean here."""
_NAME_OF = {id(meaning): name for name, meaning in _NAMES.items()}
_PLAIN: dict[Name, Any] = {
    ("collections", "OrderedDict"): OrderedDict, ("collections", "Counter"): Counter,
    ("_codecs", "encode"): encode,
    **{(module, name): getattr(builtins, name) for module in ("builtins", "__builtin__")
       for name in ("set", "frozenset", "complex", "bytearray", "list", "dict", "int", "float", "str", "tuple")},
}
"""Harmless types that a file with nothing but weights may name as well."""


class _Stored(NamedTuple):
    """A storage, and the key by which the reader finds its bytes."""

    storage: Storage
    key: str


# Python's own, written in Python: the other pickler imports what it names, and the other unpickler hides its stack.
_Pickling: Any = pickle._Pickler
_Unpickling: Any = pickle._Unpickler


class Pickler(_Pickling):
    """Writes PyTorch's names."""

    def __init__(self, file: BinaryIO, keep: Callable[[Tensor], str]) -> None:
        super().__init__(file, PROTOCOL)
        self._keep = keep
        """Takes in a tensor's storage, and says by which key it will be found."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Parameter):
            parts: tuple[Any, ...] = (obj.detach(), obj.requires_grad, OrderedDict())
            own = own_attributes(obj)
            return (rebuild_parameter_with_state, (*parts, own)) if own else (rebuild_parameter, parts)
        if isinstance(obj, Tensor):
            stored = _Stored(obj.storage, self._keep(obj))
            return rebuild_tensor, (
                stored, obj.storage_offset(), tuple(obj.shape), obj.stride(), obj.requires_grad, OrderedDict())
        if isinstance(obj, Size):
            return Size, (tuple(obj),)
        if isinstance(obj, device):
            return device, (str(obj),)
        return _NAME_OF[id(obj)][1] if id(obj) in _NAME_OF else NotImplemented

    def persistent_id(self, obj: Any) -> Any:
        if type(obj) is not _Stored:
            return None
        return "storage", STORAGE_TYPES[obj.storage.dtype], obj.key, "cpu", prod(obj.storage.shape)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if id(obj) not in _NAME_OF:
            super().save_global(obj, name)
            return
        self.write(pickle.GLOBAL + "{}\n{}\n".format(*_NAME_OF[id(obj)]).encode())
        self.memoize(obj)


class Unpickler(_Unpickling):
    """Reads what PyTorch or `Pickler` wrote. Unless the file is trusted, nothing but tensors, Python's own types and
    what was registered as safe is made, and nothing else is called: pickles can name any function there is."""

    def __init__(self, file: BinaryIO, find: Callable[[tuple], Any], trusted: bool) -> None:
        super().__init__(file)
        self._find = find
        """Gives the storage of a persistent id."""
        self._trusted = trusted

    def persistent_load(self, pid: Any) -> Any:
        return self._find(pid)

    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module, name)) or _PLAIN.get((module, name))
        if known is not None:
            # A class or a function itself could be changed by what follows in the pickle.
            return known if self._trusted or not callable(known) else _Callable(known)
        if (module, name) in trust.registered:
            return trust.registered[module, name]
        if not self._trusted:
            raise pickle.UnpicklingError(
                f"Weights only load failed: the file names {module}.{name}, which is no weight. If you trust the file, "
                "which can then run any code, load(…, weights_only=False), or register the class with "
                "torch.serialization.add_safe_globals")
        if module.partition(".")[0] == "torch":
            raise UnsupportedError(f"load(): the file names PyTorch's {module}.{name}, which does not exist here; a "
                                   "file of the module's state_dict() can be read")
        return super().find_class(module, name)

    dispatch = dict(_Unpickling.dispatch)

    def load_build(self) -> None:
        """Gives the object made last a state: of others than ordered dicts (and of what is registered) it could hold
        anything."""
        target = self.stack[-2]
        if not (self._trusted or type(target) is OrderedDict or type(target) in trust.registered.values()):
            raise pickle.UnpicklingError(f"Weights only load failed: the file sets the state of a "
                                         f"{type(target).__name__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


class _Callable:
    """What a name in an untrusted pickle stands for: it can be called, and nothing else be done to it."""

    __slots__ = ("_function",)

    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("Weights only load failed: the file changes a function")

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)
