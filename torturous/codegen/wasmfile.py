"""Reading relocatable WebAssembly objects, as `objectfile` reads ELF.

After the WebAssembly core specification, chapter 5 (binary format), and "WebAssembly Object File Linking" of the
tool-conventions repository: symbols are listed in the custom section "linking", and what is undefined and has no name
of its own is called as it is imported.
"""
from __future__ import annotations

from collections.abc import Iterator

MAGIC = b"\0asm"

_CUSTOM, _IMPORT, _CODE, _DATA = 0, 2, 10, 11
_SYMBOL_TABLE = 8
_FUNCTION, _DATUM, _GLOBAL, _SECTION, _TAG, _TABLE = range(6)
_LOCAL, _UNDEFINED, _NAMED = 2, 0x10, 0x40


class _Reader:
    """A position in some bytes. IndexError and ValueError where they end or make no sense."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def number(self) -> int:
        """An unsigned LEB128 integer."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number is too long")

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise IndexError("the data ends early")
        part = self.data[self.at:self.at + count]
        self.at += count
        return part

    def text(self) -> str:
        return self.take(self.number()).decode()


def sections(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each section's number and content."""
    reader = _Reader(data, 8)
    while reader.at < len(data):
        kind = reader.take(1)[0]
        yield kind, reader.take(reader.number())


def symbols(data: bytes) -> Iterator[tuple[str, bool, bool]]:
    """(name, whether it is defined here, whether others see it) of every function and datum."""
    imported: list[str] = []
    for kind, content in sections(data):
        if kind == _IMPORT:
            imported = list(_imported_functions(_Reader(content)))
        elif kind == _CUSTOM:
            reader = _Reader(content)
            if reader.text() != "linking":
                continue
            reader.number()  # version
            while reader.at < len(content):
                part = reader.take(1)[0]
                body = _Reader(reader.take(reader.number()))
                if part == _SYMBOL_TABLE:
                    yield from _table(body, imported)


def _imported_functions(reader: _Reader) -> Iterator[str]:
    for _ in range(reader.number()):
        reader.text()
        name, kind = reader.text(), reader.take(1)[0]
        if kind == 0:
            reader.number()
            yield name
        elif kind == 1:  # a table: element type, limits
            reader.take(1)
            _limits(reader)
        elif kind == 2:  # a memory
            _limits(reader)
        elif kind == 3:  # a global: type, mutability
            reader.take(2)
        else:  # a tag: attribute, type
            reader.take(1)
            reader.number()


def _limits(reader: _Reader) -> None:
    flags = reader.number()
    reader.number()
    if flags & 1:
        reader.number()


def _table(reader: _Reader, imported: list[str]) -> Iterator[tuple[str, bool, bool]]:
    for _ in range(reader.number()):
        kind, flags = reader.take(1)[0], reader.number()
        defined, seen = not flags & _UNDEFINED, not flags & _LOCAL
        if kind in (_FUNCTION, _GLOBAL, _TAG, _TABLE):
            index = reader.number()
            name = reader.text() if defined or flags & _NAMED else imported[index] if kind == _FUNCTION else ""
            if kind == _FUNCTION:
                yield name, defined, seen
        elif kind == _DATUM:
            name = reader.text()
            if defined:
                for _ in range(3):
                    reader.number()
            yield name, defined, seen
        elif kind == _SECTION:
            reader.number()
        else:
            raise ValueError(f"there is no symbol of kind {kind}")


def code_bytes(data: bytes) -> int:
    """Bytes of instructions and constants."""
    return sum(len(content) for kind, content in sections(data) if kind in (_CODE, _DATA))
