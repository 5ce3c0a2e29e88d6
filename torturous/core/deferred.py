"""Modules that are imported when they are first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    """Stands for a module; each question to it goes to the module itself, which the first one imports."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def deferred(name: str) -> ModuleType:
    """The module of this name, imported when something of it is first asked for.

    For what a program may never need, or not before it has long started: importing the package must not cost what
    compiling costs. Imports stay at the top of files, and checkers see them, for they are written once more under
    `TYPE_CHECKING`.
    """
    return _Deferred(name)
