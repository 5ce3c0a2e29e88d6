"""`import torch` means torturous: for programs that are run unchanged."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

THEIRS, OURS = "torch", "torturous"


class _Same(Loader):
    """Gives a module that there is already, under a second name."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        # It has been executed under its own name; the import system has only set its specification to the alias's.
        module.__spec__ = self.spec


class Aliasing(MetaPathFinder):
    """Finds `torch` and its submodules: the modules of torturous that have the same place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        if head != THEIRS:
            return None
        name = f"{OURS}.{rest}" if rest else OURS
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # something that the module itself imports
            raise ModuleNotFoundError(f"torturous has no module {fullname!r} ('torch' means torturous here)",
                                      name=fullname) from None
        return ModuleSpec(fullname, _Same(module), is_package=hasattr(module, "__path__"))


def alias_torch() -> None:
    """From now on, `import torch` in this process gives torturous. RuntimeError if PyTorch has been imported."""
    present = sys.modules.get(THEIRS)
    if present is not None and present is not sys.modules.get(OURS):
        raise RuntimeError("PyTorch has been imported in this process already: 'torch' cannot mean torturous here")
    if not any(isinstance(finder, Aliasing) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliasing())
