"""Reading relocatable objects: which symbols one defines and which it leaves to others.

ELF, 32 and 64 bits, little-endian, after the System V ABI's chapters "Object Files" and "Symbol Table". Code
for this machine is made as ELF on every system (see `target.py`); WebAssembly's objects are read in `wasmfile.py`.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from torturous.codegen import wasmfile

#: The only symbols that a kernel may leave undefined. Every system has them, with and without a C library.
ALLOWED = frozenset({"memcpy", "memset", "memmove"}) | {
    f"__aeabi_mem{name}{width}" for name in ("cpy", "set", "move", "clr") for width in ("", "4", "8")}
"""The latter are the same on Arm's microcontrollers (Run-time ABI for the Arm Architecture, 4.3.4)."""
DOUBLES = frozenset(f"__aeabi_{name}" for name in (
    "dadd", "dsub", "drsub", "dmul", "ddiv", "dcmpeq", "dcmplt", "dcmple", "dcmpge", "dcmpgt", "dcmpun",
    "d2f", "f2d", "d2iz", "d2uiz", "d2lz", "d2ulz", "i2d", "ui2d", "l2d", "ul2d"))
"""Double precision in software, exact to the last bit, which every toolchain for Arm has (there, 4.1.2). Nothing may
call them by accident: they are `others` of `check` for a training step, which counts and draws in doubles."""

_MAGIC = b"\x7fELF"
_LITTLE_ENDIAN = 1
_RELOCATABLE = 1
_SYMBOL_TABLE = 2
_NOTE = 7
_ALLOCATED = 2
_UNDEFINED_SECTION = 0
_LOCAL_BINDING = 0


class ObjectFileError(RuntimeError):
    """An object that cannot be read, or that needs something which will not be there."""


class _Layout(NamedTuple):
    """Where a class of ELF keeps what we read: formats, and positions in the unpacked tuples."""

    header: struct.Struct  # section table offset, section entry size, section count
    section: struct.Struct  # type, flags, offset, size, linked section, entry size
    symbol: struct.Struct
    name: int
    info: int
    section_index: int


_LAYOUTS = {
    1: _Layout(
        header=struct.Struct("<32xI10xHH2x"),
        section=struct.Struct("<4xII4xIII8xI"),
        symbol=struct.Struct("<IIIBBH"),
        name=0,
        info=3,
        section_index=5,
    ),
    2: _Layout(
        header=struct.Struct("<40xQ10xHH2x"),
        section=struct.Struct("<4xIQ8xQQI12xQ"),
        symbol=struct.Struct("<IBBHQQ"),
        name=0,
        info=1,
        section_index=3,
    ),
}


def undefined_symbols(data: bytes) -> set[str]:
    """Names that the object uses and does not define. Raises ObjectFileError if `data` is not an object."""
    if data[:4] == wasmfile.MAGIC:
        return {name for name, defined, _ in _wasm_symbols(data) if not defined}
    return {name for name, section, _ in _symbols(data) if section == _UNDEFINED_SECTION}


def defined_symbols(data: bytes) -> set[str]:
    """Names that the object offers to others, global and weak. Raises as `undefined_symbols`."""
    if data[:4] == wasmfile.MAGIC:
        return {name for name, defined, seen in _wasm_symbols(data) if defined and seen}
    return {
        name
        for name, section, binding in _symbols(data)
        if section != _UNDEFINED_SECTION and binding != _LOCAL_BINDING
    }


def code_bytes(data: bytes) -> int:
    """Bytes of instructions and constants: what a program grows by that links the object."""
    if data[:4] == wasmfile.MAGIC:
        return wasmfile.code_bytes(data)
    layout = _layout(data)
    table, entry_size, count = layout.header.unpack_from(data)
    sections = [layout.section.unpack_from(data, table + i * entry_size) for i in range(count)]
    return sum(size for kind, flags, _, size, _, _ in sections if flags & _ALLOCATED and kind != _NOTE)


def check(data: bytes, description: str, others: frozenset[str] = frozenset()) -> None:
    """Raises ObjectFileError if the object made for `description` needs a symbol that is not in `ALLOWED`, nor one
    of `others`.

    LLVM turns what a machine lacks into calls of library functions, silently; here they are noticed.
    """
    try:
        missing = sorted(undefined_symbols(data) - ALLOWED - others)
    except ObjectFileError as error:
        raise ObjectFileError(f"{description}: {error}") from None
    if missing:
        raise ObjectFileError(
            f"the code for {description} calls {', '.join(missing)}, which is not part of it; only "
            f"{', '.join(sorted(ALLOWED))} may be left to the system, so the emitter has to lower this itself"
        )


def _wasm_symbols(data: bytes) -> list[tuple[str, bool, bool]]:
    try:
        return list(wasmfile.symbols(data))
    except (IndexError, ValueError):
        raise ObjectFileError("the object is damaged: its symbol table cannot be read") from None


def _symbols(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yields (name, section index, binding) of every named symbol."""
    layout = _layout(data)
    try:
        table, entry_size, count = layout.header.unpack_from(data)
        sections = [layout.section.unpack_from(data, table + i * entry_size) for i in range(count)]
        for kind, _, offset, size, strings, step in sections:
            if kind != _SYMBOL_TABLE:
                continue
            _, _, names_start, names_size, _, _ = sections[strings]
            names = data[names_start : names_start + names_size]
            for position in range(offset, offset + size, step):
                symbol = layout.symbol.unpack_from(data, position)
                start = symbol[layout.name]
                name = names[start : names.index(b"\0", start)].decode()
                if name:
                    yield name, symbol[layout.section_index], symbol[layout.info] >> 4
    except (struct.error, IndexError, ValueError, OverflowError):
        raise ObjectFileError("the object is damaged: its symbol table cannot be read") from None


def _layout(data: bytes) -> _Layout:
    if data[:4] != _MAGIC:
        raise ObjectFileError(f"not an ELF object: it begins with {data[:4]!r}")
    if len(data) < 20 or data[4] not in _LAYOUTS or data[5] != _LITTLE_ENDIAN:
        raise ObjectFileError("not a little-endian ELF object of 32 or 64 bits")
    if int.from_bytes(data[16:18], "little") != _RELOCATABLE:
        raise ObjectFileError("an ELF file, but not a relocatable object")
    return _LAYOUTS[data[4]]
