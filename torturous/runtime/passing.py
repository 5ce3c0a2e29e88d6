"""Records and plans on their way to another process and back.

Pickle does it, but for what has to be the same object on the other side: ops go by name, code objects (of the user's
program, in places) by number, and nodes by number too, which refer to each other in chains of any length.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, fields
from types import CodeType
from typing import Any

from torturous.codegen.kernels import Generated
from torturous.compiler.expand import Expanded
from torturous.compiler.graph import Node
from torturous.compiler.plan import Plan
from torturous.ir.listing import Listing
from torturous.ir.op import BY_NAME, OPS, TYPES, Op, type_number


@dataclass(frozen=True)
class Wanted:
    """What another process is asked for: a plan of constant sizes, under settings."""

    expanded: Expanded
    fuse: bool
    target: str
    default_float: str


@dataclass(frozen=True)
class Made:
    """What it answers: the plan, its kernels' text, and the object of each kernel's symbol."""

    plan: Plan
    generated: list[list[Generated]]
    objects: dict[str, bytes]


@dataclass(frozen=True)
class Code:
    """Stands for code that only the other process has."""

    number: int


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, codes: list[CodeType]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.codes = codes
        self.numbers: dict[Any, int] = {code: number for number, code in enumerate(codes)}
        self.nodes: list[Node] = []

    def persistent_id(self, value: Any) -> Any:
        kind = value.__class__
        if kind is Node:
            number = self.numbers.get(value)
            if number is None:
                number = self.numbers[value] = len(self.nodes)
                self.nodes.append(value)
            return "node", number
        if kind is Op:
            return "op", value.name
        if kind is Code:
            return "code", value.number
        if kind is CodeType:
            number = self.numbers.get(value)
            if number is None:
                number = self.numbers[value] = len(self.codes)
                self.codes.append(value)
            return "code", number
        return None


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, codes: list[CodeType] | None) -> None:
        super().__init__(file)
        self.codes = codes
        self.nodes: list[Node] = []

    def persistent_load(self, identifier: Any) -> Any:
        kind, which = identifier
        if kind == "node":
            while len(self.nodes) <= which:
                self.nodes.append(Node.__new__(Node))
            return self.nodes[which]
        if kind == "op":
            return BY_NAME[which]
        return Code(which) if self.codes is None else self.codes[which]


# Questions --------------------------------------------------------------------------------------------------------
def write_wanted(wanted: Wanted) -> tuple[bytes, list[CodeType]]:
    """A question as bytes, and the code that its places name, for whoever reads the answer.

    Raises whatever pickle raises if a row holds what cannot be sent.
    """
    record, file = wanted.expanded.record, io.BytesIO()
    codes: list[CodeType] = []
    rows = [(OPS[number], attributes, *TYPES[kind], operands) for number, attributes, kind, *operands in record.rows]
    settings = wanted.fuse, wanted.target, wanted.default_float
    _Writer(file, codes).dump((rows, record.places, wanted.expanded.outputs, wanted.expanded.renewing, settings))
    return file.getvalue(), codes


def read_wanted(data: bytes) -> Wanted:
    rows, places, outputs, renewing, settings = _Reader(io.BytesIO(data), None).load()
    record = Listing()
    for (op, attributes, shape, dtype, operands), place in zip(rows, places, strict=True):
        record.append((op.number, attributes, type_number(shape, dtype), *operands), 0, place)
    return Wanted(Expanded(record, outputs, (), renewing), *settings)


# Answers ----------------------------------------------------------------------------------------------------------
_FIELDS = [field.name for field in fields(Node)]


def write_made(made: Made) -> bytes:
    """Nodes follow what refers to them, until none is left."""
    file = io.BytesIO()
    writer = _Writer(file, [])
    writer.dump((made.plan, made.generated, made.objects))
    written = 0
    while written < len(writer.nodes):
        node = writer.nodes[written]
        writer.dump([getattr(node, name) for name in _FIELDS])
        written += 1
    return file.getvalue()


def read_made(data: bytes, codes: list[CodeType]) -> Made:
    reader = _Reader(io.BytesIO(data), codes)
    made = Made(*reader.load())
    read = 0
    while read < len(reader.nodes):
        for name, value in zip(_FIELDS, reader.load(), strict=True):
            setattr(reader.nodes[read], name, value)
        read += 1
    return made
