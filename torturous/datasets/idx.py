"""Reading IDX files, the format of MNIST and its relatives.

An IDX file is a magic number (two zero bytes, a byte for the element type, a byte for the number of axes),
one big-endian 32-bit extent per axis, and the elements, big-endian, last axis fastest. The format is
described where MNIST was first published: http://yann.lecun.com/exdb/mnist. Files may be gzip-compressed;
that is recognised by content, not by name.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ELEMENT_TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}

_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(
    path: str | os.PathLike[str],
    dtype: npt.DTypeLike | None = None,
    shape: tuple[int, ...] | None = None,
) -> npt.NDArray[Any]:
    """The array in an IDX file, in the machine's byte order and writable.

    `dtype` and `shape`, where given, are what the caller expects to find.

    Raises ValueError, naming the file, what was expected and what was found, if the file is damaged
    (truncated, too long, not an IDX file, a broken gzip stream) or is not of the expected dtype or shape;
    FileNotFoundError if there is none.
    """
    path = Path(path)
    content = _decompressed(path)
    stored, extents = _header(path, content)
    if dtype is not None and stored.newbyteorder("=") != np.dtype(dtype):
        raise damaged(path, f"elements of {np.dtype(dtype)}", f"{stored.newbyteorder('=')}")
    if shape is not None and extents != shape:
        raise damaged(path, f"shape {shape}", f"shape {extents}")
    start = 4 + 4 * len(extents)
    expected = start + math.prod(extents) * stored.itemsize
    if content.size != expected:
        raise damaged(path, f"{expected:,} bytes for shape {extents} of {stored}", f"{content.size:,} bytes")
    elements = content[start:].view(stored).reshape(extents)
    return elements.astype(stored.newbyteorder("="), copy=False)


def damaged(path: Path, expected: str, found: str) -> ValueError:
    """The error for a data file that is not what it should be."""
    return ValueError(
        f"{path}: expected {expected}, found {found}. The file is damaged or is not the one that belongs "
        "here. It was left as it is; to download it anew, remove it and pass download=True."
    )


def _decompressed(path: Path) -> npt.NDArray[np.uint8]:
    content = np.fromfile(path, dtype=np.uint8)
    if content[:2].tobytes() != _GZIP_MAGIC:
        return content
    try:
        # A bytearray, because an array over bytes would be read-only.
        return np.frombuffer(bytearray(gzip.decompress(content.tobytes())), dtype=np.uint8)
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(path, "a complete gzip stream", f"a broken one ({error})") from error


def _header(path: Path, content: npt.NDArray[np.uint8]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and extents."""
    magic = content[:4].tobytes()
    if len(magic) < 4:
        raise damaged(path, "a magic number of 4 bytes", f"a file of {len(magic)} bytes")
    if magic[:2] != b"\0\0" or magic[2] not in ELEMENT_TYPES:
        known = ", ".join(f"0x{code:02x}" for code in ELEMENT_TYPES)
        raise damaged(path, f"an IDX magic number 0x0000TTNN with type TT one of {known}", f"0x{magic.hex()}")
    axes = magic[3]
    extents = content[4 : 4 + 4 * axes]
    if extents.size < 4 * axes:
        raise damaged(path, f"a header of {4 + 4 * axes} bytes for {axes} axes", f"{content.size} bytes")
    return ELEMENT_TYPES[magic[2]], tuple(int(extent) for extent in extents.view(">u4"))
