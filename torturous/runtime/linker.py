"""Loading finished objects into this process.

One ORC engine lives as long as the process, and so does what it has loaded: a kernel's address stays valid.
ORC refuses an object with an unresolved symbol, where LLVM's older engine hands out an address that crashes.
"""
from __future__ import annotations

import os
import threading
from itertools import count
from typing import Any

from torturous.codegen import objectfile
from torturous.codegen.target import host_target


class LinkError(RuntimeError):
    """An object that cannot be loaded: damaged, without the wanted symbol, or in need of one nobody has."""


class _Linker:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Any = None
        self._loaded: list[Any] = []  # llvmlite unloads what nobody refers to
        self._numbers = count()
        if hasattr(os, "register_at_fork"):
            # A child must not find the engine, or llvmlite's own lock, in the middle of something.
            os.register_at_fork(
                before=self._lock.acquire,
                after_in_parent=self._lock.release,
                after_in_child=self._lock.release,
            )

    def link(self, data: bytes, symbol: str) -> int:
        import llvmlite.binding as llvm

        with self._lock:
            if self._engine is None:
                self._engine = self._create_engine()
            # A library of its own for each object: names cannot clash, even with those of one that failed.
            library = llvm.JITLibraryBuilder().add_object_img(data).export_symbol(symbol)
            try:
                loaded = library.link(self._engine, f"object-{next(self._numbers)}")
            except RuntimeError as error:
                raise LinkError(_explanation(data, symbol, str(error))) from None
            self._loaded.append(loaded)
            return loaded[symbol]

    @staticmethod
    def _create_engine() -> Any:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = host_target()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, reloc="pic", codemodel="small", jit=True
        )
        # Errors are raised; without `suppress_errors` they would be printed as well.
        return llvm.create_lljit_compiler(machine, use_jit_link=True, suppress_errors=True)


def _explanation(data: bytes, symbol: str, reason: str) -> str:
    try:
        if symbol not in objectfile.defined_symbols(data):
            return f"the object does not define {symbol}"
        missing = objectfile.undefined_symbols(data) - objectfile.ALLOWED
    except objectfile.ObjectFileError as error:
        return f"cannot load {symbol}: {error}"
    hint = f" (it needs {', '.join(sorted(missing))})" if missing else ""
    return f"cannot load {symbol}: {reason}{hint}"


_linker = _Linker()


def link(data: bytes, symbol: str) -> int:
    """Loads a relocatable object for this machine and returns the address of the function `symbol` in it.

    The address stays valid until the process ends. Safe to call from several threads. `memcpy`, `memset` and
    `memmove` are resolved to this process's own. Raises LinkError if the object cannot be loaded.
    """
    return _linker.link(data, symbol)
