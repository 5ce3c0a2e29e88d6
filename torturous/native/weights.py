"""The block of weights that an exported plan reads: a header, then every tensor at an aligned offset.

    offset   bytes
    0        8       "TORTNETW"
    8        4       version of this layout
    12       4       zero
    16       8       length of the whole block
    24       24      what the tensors are: the start of a SHA-256 over names, data types, shapes and offsets
    48       8       Σ word
    56       8       Σ (2·index + 1)·word, both over the rest as little-endian 64-bit words, modulo 2⁶⁴
    64               the tensors

A library knows the first 48 bytes that it needs; other values for the same tensors are welcome, another net's
are not.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape

ALIGNMENT = 64
"""Bytes: of the block, of every tensor in it, and of its length."""
HEADER_BYTES = 64
CHECKED_BYTES = 48
"""The part of the header that depends on what the tensors are, not on their values."""
VERSION = 1

_MAGIC = b"TORTNETW"
_HEADER = struct.Struct("<8sIIQ24s")


@dataclass(frozen=True)
class Weight:
    """One tensor of the block; `offset` counts from the block's start."""

    name: str
    shape: Shape
    dtype: DType
    offset: int
    nbytes: int

    def describe(self) -> dict[str, object]:
        """As `net.json` lists it."""
        return {"name": self.name, "dtype": self.dtype.name, "shape": list(self.shape), "offset": self.offset,
                "bytes": self.nbytes}


@dataclass(frozen=True)
class Layout:
    """Where each tensor lies, and the length of the whole."""

    weights: tuple[Weight, ...]
    nbytes: int

    def offset(self, name: str) -> int:
        return next(weight.offset for weight in self.weights if weight.name == name)

    def identity(self) -> bytes:
        """The first bytes of every block with this layout."""
        described = json.dumps([weight.describe() for weight in self.weights], separators=(",", ":"))
        digest = hashlib.sha256(described.encode()).digest()[:24]
        return _HEADER.pack(_MAGIC, VERSION, 0, self.nbytes, digest)

    def block(self, contents: Mapping[str, bytes]) -> bytes:
        """The block with these contents, by name, each of its weight's length."""
        data = bytearray(self.nbytes)
        for weight in self.weights:
            data[weight.offset:weight.offset + weight.nbytes] = contents[weight.name]
        words = np.frombuffer(data, "<u8", offset=HEADER_BYTES)
        odd = np.arange(len(words), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        sums = int(words.sum(dtype=np.uint64)), int((words * odd).sum(dtype=np.uint64))
        return self.identity() + struct.pack("<QQ", *sums) + data[HEADER_BYTES:]


def lay_out(tensors: Sequence[tuple[str, Shape, DType]]) -> Layout:
    """Places tensors, given as (name, shape, dtype), one after the other."""
    weights = []
    end = HEADER_BYTES
    for name, shape, dtype in tensors:
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        weights.append(Weight(name, shape, dtype, end, nbytes))
        end += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(weights), end)
