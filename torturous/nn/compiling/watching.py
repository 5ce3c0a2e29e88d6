"""Watching a call: which code of the user's runs, and which functions written in C it calls."""

from __future__ import annotations

import builtins
import cmath
import gc
import math
import operator
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from torturous.ir.record import of_this_package
from torturous.tensor.traces import NotRepeatable

_VALUES: tuple[type, ...] = (
    str, bytes, bool, int, float, complex, tuple, list, dict, set, frozenset, range, slice, type({}.keys()),
    type({}.values()), type({}.items()))
"""Types whose methods depend on nothing but their operands. What they change is state like any other."""
_PURE = frozenset("""abs all any ascii bin bool bytes callable chr complex dict divmod enumerate filter float format
    frozenset getattr hasattr hex int isinstance issubclass iter len list map max min next oct ord pow range repr
    reversed round set setattr delattr slice sorted str sum super tuple type zip __build_class__""".split())
_PURE_MODULES = (math, cmath, operator, sys.modules["_operator"])


def is_library(module: str) -> bool:
    """Whether a module is part of Python, or of what this package is built on."""
    name = module.partition(".")[0]
    ours = name in ("numpy", "ml_dtypes", "llvmlite") or name.startswith("namedtuple_")
    return ours or name in sys.stdlib_module_names


def _is_pure(function: Any) -> bool:
    """Whether what a C function gives depends on its arguments alone, and all it changes is them."""
    of = getattr(function, "__self__", None)
    if of is builtins:
        return function.__name__ in _PURE
    if any(of is module for module in _PURE_MODULES) or isinstance(of, _VALUES):
        return True
    return any(kind is of or kind is getattr(function, "__objclass__", None) for kind in _VALUES)


class Watch:
    """One call being watched. Code is known by its identity, for hashing it takes long."""

    def __init__(self) -> None:
        self.codes: dict[int, tuple[CodeType, dict[str, Any]]] = {}
        """The user's code that has run, with its global names."""
        self._library: dict[int, CodeType] = {}
        """This package's own code, and that of libraries which it has called."""
        self.reason: str | None = None
        """Why the call cannot be left out, if something of this kind was seen."""

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        identity = id(code)
        if event == "call":
            if identity not in self._library and identity not in self.codes:
                name = frame.f_globals.get("__name__", "")
                if of_this_package(name) or self._serves_us(name, frame.f_back):
                    self._library[identity] = code
                else:
                    self.codes[identity] = (code, frame.f_globals)
        elif event == "c_call" and identity in self.codes and self.reason is None and not _is_pure(argument):
            self.reason = f"it calls {getattr(argument, '__qualname__', argument)} ({code.co_name})"

    def _serves_us(self, name: str, caller: FrameType | None) -> bool:
        """Whether code of a module is called by us, not by the user: as a library, or to find a module to import."""
        if caller is None or id(caller.f_code) not in self._library:
            return False
        return is_library(name) or caller.f_globals.get("__name__", "").startswith("importlib.")

    def call(self, function: Callable[[], Any]) -> Any:
        if sys.getprofile() is not None:
            self.reason = "a profiler is at work"
            return function()
        collecting = gc.isenabled()
        gc.disable()  # Callbacks of a collection that happens to come by are nothing the call does.
        sys.setprofile(self._see)
        try:
            return function()
        finally:
            sys.setprofile(None)
            if collecting:
                gc.enable()

    def check(self) -> None:
        if self.reason is not None:
            raise NotRepeatable(self.reason)
