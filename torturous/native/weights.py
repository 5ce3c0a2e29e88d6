"""Weights as files and in memory.

The file is a safetensors file (an eight-byte length, a JSON header, then the tensors): what any tool writes for the
same names, data types and shapes is welcome. Ours carries two sums over its tensors in the header's metadata, so that
damage does not go unnoticed.

The *block* is what the functions of a library read: a head of HEAD_BYTES, then tensors at multiples of 64 bytes.

    offset  bytes
    0       8       "TORTNETB"
    8       8       length of the whole block
    16      24      what lies where: the start of a SHA-256
    40      8       which of the library's instruction sets to use
    48      16      zero
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape

ALIGNMENT = 64
"""Bytes: of a block, and of every tensor in it."""
HEAD_BYTES = 64
IDENTITY_BYTES = 40
VARIANT = 40
"""Byte offset of the instruction set's number."""
SUM_KEY = "torturous.sum"
SUM_DIGITS = 32

CODES = {"bool": "BOOL", "uint8": "U8", "int32": "I32", "int64": "I64", "float16": "F16", "bfloat16": "BF16",
         "float32": "F32", "float64": "F64"}
"""Names of data types in a safetensors header."""


@dataclass(frozen=True)
class Weight:
    """One tensor of a file; `offset` is its place in the block. One with a negative offset is only read while the
    block is made, and where it lies in the file: it is number ~offset of these. One that is not `required` may be
    missing, and is then filled with zeros."""

    name: str
    shape: Shape
    dtype: DType
    offset: int
    nbytes: int
    required: bool = True

    def describe(self) -> dict[str, object]:
        """As `net.json` lists it."""
        return {"name": self.name, "dtype": self.dtype.name, "shape": list(self.shape),
                "offset": self.offset if self.offset >= 0 else None, "bytes": self.nbytes}

    @property
    def key(self) -> str:
        """The name as it stands in a header, without quotes."""
        return json.dumps(self.name, ensure_ascii=False)[1:-1]


def place(
    tensors: Sequence[tuple[str, Shape, DType, bool]], unkept: frozenset[str] = frozenset()
) -> tuple[list[Weight], int]:
    """Tensors, given as (name, shape, dtype, required), one after the other behind a head; and where they end. Those
    `unkept` are left in their file.

    64 bytes are left free behind the last one, as kernels may read a little past what they need.
    """
    weights: list[Weight] = []
    start, left = HEAD_BYTES, 0
    for name, shape, dtype, required in tensors:
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        if name in unkept:
            weights.append(Weight(name, shape, dtype, ~left, nbytes, required))
            left += 1
            continue
        weights.append(Weight(name, shape, dtype, start, nbytes, required))
        start += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return weights, start + ALIGNMENT


def identity(weights: Sequence[Weight], nbytes: int, rest: object = None) -> bytes:
    """The first IDENTITY_BYTES of a block with these tensors; `rest` is what else its layout depends on."""
    described = json.dumps([[weight.describe() for weight in weights], rest], separators=(",", ":"))
    digest = hashlib.sha256(described.encode()).digest()[:24]
    return struct.pack("<8sQ24s", b"TORTNETB", nbytes, digest)


# Files ------------------------------------------------------------------------------------------------------
def sums(data: bytes) -> tuple[int, int]:
    """Σ word and Σ (2·index + 1)·word over `data` as little-endian 64-bit words, the last one filled up with zeros,
    both modulo 2⁶⁴."""
    words = np.frombuffer(data + bytes(-len(data) % 8), "<u8")
    odd = np.arange(len(words), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return int(words.sum(dtype=np.uint64)), int((words * odd).sum(dtype=np.uint64))


def weights_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file with sums."""
    plain = save(dict(tensors))
    header = int.from_bytes(plain[:8], "little")
    total = "".join(f"{word:016x}" for word in sums(plain[8 + header:]))
    return save(dict(tensors), {SUM_KEY: total})


def state_file(weights: Sequence[Weight]) -> tuple[bytes, int, list[int]]:
    """The header of the file that a library itself writes, where in it the sums' digits stand, and each tensor's
    offset in what follows. Tensors are in the order given, without gaps."""
    described: dict[str, object] = {"__metadata__": {SUM_KEY: "0" * SUM_DIGITS}}
    offsets, end = [], 0
    for weight in weights:
        offsets.append(end)
        described[weight.name] = {
            "dtype": CODES[weight.dtype.name], "shape": list(weight.shape), "data_offsets": [end, end + weight.nbytes]}
        end += weight.nbytes
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, header.index(b"0" * SUM_DIGITS), offsets
