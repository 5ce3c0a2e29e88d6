"""What a library says of itself at run time: constants behind `net_describe`, as LLVM IR and as C declarations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.compiler.sizes import Size
from torturous.core.dtypes import DType
from torturous.native.reader import bytes_constant
from torturous.native.workspace import BATCH

ABI = 1
C_TYPES = {"bool": "uint8_t", "uint8": "uint8_t", "int32": "int32_t", "int64": "int64_t",
           "float16": "uint16_t", "bfloat16": "uint16_t", "float32": "float", "float64": "double"}
"""Bools are bytes of 0 or 1; the sixteen-bit types are their bit patterns."""


@dataclass(frozen=True)
class Value:
    """An input or output as callers see it: row-major, its sizes polynomials in the batch."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]

    def describe(self) -> dict[str, object]:
        """As `net.json` lists it."""
        sizes = [size_text(size) if size.constant is None else size.constant for size in self.shape]
        return {"name": self.name, "dtype": self.dtype.name, "shape": sizes}

    @property
    def text(self) -> str:
        return f"[{', '.join(map(size_text, self.shape))}]"

    @property
    def c_type(self) -> str:
        return C_TYPES[self.dtype.name]


def size_text(size: Size) -> str:
    """A size as an expression in `batch`, which many languages read."""
    added: list[str] = []
    taken: list[str] = []
    for monomial, factor in size.terms.items():
        parts = [str(abs(factor))] * (abs(factor) != 1 or not monomial) + ["batch"] * len(monomial)
        (added if factor > 0 else taken).append(" * ".join(parts))
    return " - ".join([" + ".join(added) or "0", *taken])


def count_text(value: Value) -> str:
    """A value's number of elements as such an expression."""
    return " * ".join(f"({size_text(size)})" for size in value.shape) or "1"


def size_number(size: Size) -> int:
    """A size; −1 for the batch, −2 for another function of it."""
    if size.constant is not None:
        return size.constant
    return -1 if size == BATCH else -2


@dataclass(frozen=True)
class Description:
    """All that `net_describe` gives."""

    name: str
    targets: tuple[str, ...]
    weights: str
    """SHA-256 of the weights file that the export wrote, in hexadecimal digits."""
    max_batch: int
    block_bytes: int
    inputs: Sequence[Value]
    outputs: Sequence[Value]


C_DECLARATIONS = """\
/* An input or output. Sizes: -1 is the batch, -2 another function of it, which `text` tells. */
typedef struct ${name}_value {
    const char *name, *dtype, *text;
    int64_t rank;
    const int64_t *shape;
} ${name}_value;

typedef struct ${name}_info {
    int64_t abi, max_batch, block_bytes, inputs, outputs;
    const char *name, *targets, *weights_sha256;
    const ${name}_value *input, *output;
} ${name}_info;"""


def constants(d: Description) -> str:
    """The constants and the function `name_describe`."""
    parts: list[str] = []
    name = d.name

    def text(symbol: str, content: str) -> str:
        parts.append(bytes_constant(f"{name}_{symbol}", content.encode() + b"\0"))
        return f"ptr @{name}_{symbol}"

    def values(kind: str, described: Sequence[Value]) -> str:
        rows = []
        for number, value in enumerate(described):
            sizes = ", ".join(f"i64 {size_number(size)}" for size in value.shape)
            shape = f"{name}_{kind}{number}_shape"
            parts.append(f"@{shape} = private unnamed_addr constant [{len(value.shape)} x i64] [{sizes}]")
            texts = [text(f"{kind}{number}_{part}", content) for part, content in (
                ("name", value.name), ("dtype", value.dtype.name), ("text", value.text))]
            rows.append(f"%{name}_value_type {{ {', '.join(texts)}, i64 {len(value.shape)}, ptr @{shape} }}")
        body = ", ".join(rows)
        parts.append(f"@{name}_{kind}s = internal constant [{len(rows)} x %{name}_value_type] [{body}]")
        return f"ptr @{name}_{kind}s"

    parts.append(f"%{name}_value_type = type {{ ptr, ptr, ptr, i64, ptr }}")
    numbers = (ABI, d.max_batch, d.block_bytes, len(d.inputs), len(d.outputs))
    fields = [f"i64 {number}" for number in numbers]
    fields += [text("own_name", name), text("targets", " ".join(d.targets)), text("weights_hash", d.weights)]
    fields += [values("input", d.inputs), values("output", d.outputs)]
    kinds = ", ".join(field.split()[0] for field in fields)
    parts.append(f"@{name}_about = internal constant {{ {kinds} }} {{ {', '.join(fields)} }}")
    parts.append(f"define ptr @{name}_describe() #0 {{\n  ret ptr @{name}_about\n}}\n")
    return "\n".join(parts)
