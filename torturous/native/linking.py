"""What needs a linker: shared libraries and loadable wasm modules. The system's, or LLVM's lld; never a compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from torturous.codegen.target import Target
from torturous.core.errors import UnsupportedError

_LINKERS = {
    "x86_64": ("ld.lld", "x86_64-linux-gnu-ld", "ld"),
    "aarch64": ("ld.lld", "aarch64-linux-gnu-ld", "ld"),
    "riscv64": ("ld.lld", "riscv64-linux-gnu-ld", "ld"),
}


def find_linker(target: Target) -> str | None:
    """The path of a linker that makes shared libraries (wasm: modules) for a target, if there is one."""
    architecture = target.architecture
    names = ("wasm-ld",) if architecture == "wasm32" else _LINKERS.get(architecture, ())
    return next((path for path in map(shutil.which, names) if path), None)


def require_linker(target: Target) -> str:
    """The same, or UnsupportedError that says what to install."""
    found = find_linker(target)
    if found is None:
        wanted = "wasm-ld (LLVM's lld)" if target.architecture == "wasm32" else "ld or LLVM's ld.lld"
        raise UnsupportedError(
            f"a shared library or module for {target.name} needs a linker, and there is none here: install {wanted}")
    return found


def link_shared(linker: str, library: Path, output: Path) -> None:
    """A shared library of everything in a static one."""
    _run([linker, "-shared", "--whole-archive", str(library), "--no-whole-archive", "-z", "text", "-z", "noexecstack",
          "-s", "-o", str(output)])


def link_wasm(linker: str, library: Path, output: Path, exported: Sequence[str]) -> None:
    """A module that exports these functions, its memory and `__heap_base`, from where the host may place things."""
    _run([linker, "--no-entry", "--strip-all", "--gc-sections", "--export=__heap_base", "-z", "stack-size=65536",
          *(f"--export={symbol}" for symbol in exported), str(library), "-o", str(output)])


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise UnsupportedError(f"{command[0]} failed: {ran.stderr.strip() or ran.stdout.strip()}")
