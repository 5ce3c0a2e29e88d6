"""Static libraries: the `ar` format, written without any tool.

The layout is the System V / GNU variant, as described in the manual page ar(5) and in "System V Application
Binary Interface", chapter 7: a magic line, then members of even length, each behind a header of 60 ASCII
bytes. The first member, named "/", is the symbol index that linkers search. Times, owners and modes are
fixed, so equal objects give equal archives.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from torturous.codegen.objectfile import defined_symbols

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_LONGEST_NAME = 15


def archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of ELF objects, given as (name, content), with an index of the symbols they define.

    ValueError for a name that is empty, longer than 15 ASCII characters or contains "/", or occurs twice;
    `ObjectFileError` for content that is not an ELF object.
    """
    names = [name for name, _ in members]
    for name in names:
        if not 0 < len(name) <= _LONGEST_NAME or not name.isascii() or "/" in name:
            raise ValueError(
                f"an archive member's name is 1 to {_LONGEST_NAME} ASCII characters, none '/', "
                f"got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"two archive members are called {name!r}")
    symbols = [
        (symbol, index) for index, (_, data) in enumerate(members) for symbol in sorted(defined_symbols(data))
    ]
    strings = b"".join(symbol.encode() + b"\0" for symbol, _ in symbols)
    index_bytes = 4 + 4 * len(symbols) + len(strings)
    position = len(_MAGIC) + _HEADER_BYTES + _even(index_bytes)
    positions = []
    for _, data in members:
        positions.append(position)
        position += _HEADER_BYTES + _even(len(data))
    defined_in = [positions[member] for _, member in symbols]
    index = struct.pack(f">{1 + len(symbols)}I", len(symbols), *defined_in) + strings
    parts = [_MAGIC, _member("/", index, mode=0)]
    parts += [_member(name + "/", data, mode=0o644) for name, data in members]
    return b"".join(parts)


def _even(length: int) -> int:
    return length + length % 2


def _member(name: str, data: bytes, mode: int) -> bytes:
    """Name, time, user, group, mode (octal), length; then the content, padded to an even length."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{mode:<8o}{len(data):<10}`\n".encode()
    assert len(header) == _HEADER_BYTES
    return header + data + b"\n" * (len(data) % 2)
