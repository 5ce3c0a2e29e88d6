"""Python state that a function may read: everything its code can reach by names, attributes and elements.

What is reached is remembered with the places it was found in. Nothing has changed as long as every place holds the
same object, or an equal number or text; that takes one look over all places. Objects that cannot be looked into
(files, locks, iterators, arrays of NumPy) make a call that can reach them one that has to be made each time.
"""

from __future__ import annotations

import dis
import functools
import struct
from collections.abc import Iterable
from enum import Enum
from itertools import chain
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any

import numpy as np

from torturous.core.devices import device
from torturous.core.dtypes import DType
from torturous.ir.record import of_this_package
from torturous.nn.compiling.watching import Watch, is_library
from torturous.tensor.base import Size, TensorBase
from torturous.tensor.traces import NotRepeatable

_SIMPLE = (NoneType, bool, int, float, complex, str, bytes, Size, range, slice, type(...), type(NotImplemented))
_ATOMS = (*_SIMPLE, DType, device, Enum, BuiltinFunctionType, np.generic, np.ufunc, np.dtype)
"""What holds no further state."""
_CONTAINERS = (dict, list, tuple, set, frozenset)
_MOST_OBJECTS = 20_000
_MISSING = object()


def same(a: Any, b: Any) -> bool:
    """Whether two objects are one, or equal numbers or texts of one type."""
    return a is b or (type(a) is type(b) and isinstance(a, _SIMPLE) and bool(a == b))


class State:
    """What the user's code that ran in a call can read."""

    def __init__(self, roots: Iterable[Any], watch: Watch) -> None:
        self.codes = {identity: code for identity, (code, _) in watch.codes.items()}
        self.tensors: list[TensorBase] = []
        """The tensors reached, in the order in which they were."""
        self._views: list[Iterable[Any]] = []
        """Elements of lists, values of dictionaries."""
        self._names: list[tuple[Any, str]] = []
        self._cells: list[CellType] = []
        self._sets: list[tuple[set[Any], set[Any]]] = []
        self._visited: dict[int, Any] = {}
        self._classes: dict[int, type] = {}
        self._found: set[int] = set()
        for root in roots:
            self._walk(root, "the function")
        for code, names in watch.codes.values():
            self._read_names(code, names)
        self._check_closures()
        self._kept = self._values()
        self._identities = list(map(id, self._kept))

    # Comparing --------------------------------------------------------------------------------------------------
    def _values(self) -> list[Any]:
        values = list(chain.from_iterable(self._views))
        values += [table.get(name, _MISSING) for table, name in self._names]
        values += [cell.cell_contents for cell in self._cells]
        return values

    def holds(self) -> bool:
        """Whether all of it is as it was."""
        try:
            values = self._values()
        except ValueError:  # An empty cell.
            return False
        if list(map(id, values)) != self._identities:
            if len(values) != len(self._kept) or not all(map(same, values, self._kept)):
                return False
            self._kept, self._identities = values, list(map(id, values))
        return all(live == copy for live, copy in self._sets)

    # Reaching ---------------------------------------------------------------------------------------------------
    def _walk(self, value: Any, path: str) -> None:
        if isinstance(value, _ATOMS) or isinstance(value, ModuleType) or id(value) in self._visited:
            return
        self._visited[id(value)] = value
        if len(self._visited) > _MOST_OBJECTS:
            raise NotRepeatable("it can reach too many objects to watch them")
        if isinstance(value, TensorBase):
            self.tensors.append(value)
        elif isinstance(value, type):
            self._class(value, path)
        elif isinstance(value, FunctionType):
            self._function(value, path)
        elif isinstance(value, MethodType):
            self._walk(value.__self__, path)
            self._walk(value.__func__, path)
        elif isinstance(value, (functools.partial, functools._lru_cache_wrapper)):
            parts = (value.__wrapped__,) if hasattr(value, "__wrapped__") else (value.func, value.args, value.keywords)
            for part in parts:
                self._walk(part, path)
        else:
            self._object(value, path)

    def _object(self, value: Any, path: str) -> None:
        """A container, or an object of a class written in Python, all of whose state are attributes."""
        kind = type(value)
        base = next((each for each in _CONTAINERS if isinstance(value, each)), object)
        # An instance may have a dictionary and weak references besides: more room is there for something else.
        slots = {name for each in kind.__mro__ for name in _slots(each)} - {"__dict__", "__weakref__"}
        if slots or kind.__basicsize__ > base.__basicsize__ + 2 * _POINTER:
            raise NotRepeatable(f"{path} is a {kind.__name__}, whose state cannot be watched")
        if base is dict:
            self._views.append(value.values())
            for name, element in value.items():
                self._walk(name, f"a key of {path}")
                self._walk(element, f"{path}[{name!r}]")
        elif base is not object:
            if base is list:
                self._views.append(value)
            elif base is set:
                self._sets.append((value, set(value)))
            for position, element in enumerate(value):
                self._walk(element, f"{path}[{position}]")
        elif not hasattr(value, "__dict__"):
            raise NotRepeatable(f"{path} is a {kind.__name__}, whose state cannot be watched")
        if hasattr(value, "__dict__"):
            self._class(kind, path)
            self._views.append(vars(value).values())
            for name, attribute in vars(value).items():
                self._walk(attribute, f"{path}.{name}")

    def _class(self, kind: type, path: str) -> None:
        """What a class of the user's and those it is derived from know."""
        for each in kind.__mro__:
            if each is object or of_this_package(each.__module__) or is_library(each.__module__):
                continue
            if id(each) in self._classes:
                continue
            self._classes[id(each)] = each
            self._views.append(vars(each).values())
            for name, attribute in vars(each).items():
                function = getattr(attribute, "__func__", None) or getattr(attribute, "fget", None) or attribute
                if isinstance(function, FunctionType):
                    self._walk(function, f"{path}.{name}")
                elif isinstance(attribute, (list, dict, set, tuple, TensorBase)) and not name.startswith("__"):
                    self._walk(attribute, f"{path}.{name}")

    def _function(self, function: FunctionType, path: str) -> None:
        """What a function that has run knows from where it was defined."""
        if id(function.__code__) not in self.codes:
            return
        self._found.add(id(function.__code__))
        self._walk(function.__defaults__, f"a default of {path}")
        self._walk(function.__kwdefaults__, f"a default of {path}")
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name == "__class__":
                continue
            try:
                value = cell.cell_contents
            except ValueError:
                raise NotRepeatable(f"{name} has no value yet") from None
            self._cells.append(cell)
            self._walk(value, name)

    def _read_names(self, code: CodeType, names: dict[str, Any]) -> None:
        """The global names that code reads or writes, and what it may read of modules among them."""
        attributes: set[str] = set()
        read: dict[str, None] = {}
        for instruction in dis.get_instructions(code):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
                read[instruction.argval] = None
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                attributes.add(instruction.argval)
            elif instruction.opname == "IMPORT_NAME":
                raise NotRepeatable(f"{code.co_name} imports {instruction.argval}")
        modules: list[ModuleType] = [names[name] for name in read if isinstance(names.get(name), ModuleType)]
        for name in read:
            self._names.append((names, name))
            if name in names:
                self._walk(names[name], name)
        for cell in self._cells:
            if isinstance(cell.cell_contents, ModuleType):
                modules.append(cell.cell_contents)
        self._read_modules(modules, attributes)

    def _read_modules(self, modules: list[ModuleType], attributes: set[str]) -> None:
        seen: set[int] = set()
        while modules:
            module = modules.pop()
            if id(module) in seen or of_this_package(module.__name__ + "."):
                continue
            seen.add(id(module))
            for name in sorted(attributes & vars(module).keys()):
                value = vars(module)[name]
                self._names.append((vars(module), name))
                if isinstance(value, ModuleType):
                    modules.append(value)
                else:
                    self._walk(value, f"{module.__name__}.{name}")

    def _check_closures(self) -> None:
        """Refuses code with names of an enclosing function that could not be found."""
        made_within = {id(constant) for code in self.codes.values() for constant in code.co_consts}
        for identity, code in self.codes.items():
            known = identity in self._found or identity in made_within
            if not known and set(code.co_freevars) - {"__class__"}:
                raise NotRepeatable(f"{code.co_name} is a function whose closure cannot be watched")


_POINTER = struct.calcsize("P")


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
