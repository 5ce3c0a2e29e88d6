"""Runs a user's program as Python itself would."""

from __future__ import annotations

import io
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Runs a file as `__main__`, with these arguments and its folder first on the path. OSError if it cannot be read.

    The module stays in place afterwards: exit handlers, threads and worker processes look for it.
    """
    with io.open_code(str(Path(path).resolve())) as file:
        code = compile(file.read(), path, "exec")
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv[:] = [path, *arguments]
    sys.path[0] = str(Path(path).resolve().parent)
    exec(code, module.__dict__)


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Runs a module or package as `__main__`, as `python -m` does."""
    sys.argv[:] = [name, *arguments]
    sys.path[0] = str(Path.cwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)
