"""The C header of an exported library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from torturous.core.dtypes import DType
from torturous.native.entry import MESSAGES
from torturous.native.weights import ALIGNMENT

ABI = 1
C_TYPES = {"bool": "uint8_t", "uint8": "uint8_t", "int32": "int32_t", "int64": "int64_t",
           "float16": "uint16_t", "bfloat16": "uint16_t", "float32": "float", "float64": "double"}
"""Bools are bytes of 0 or 1; the sixteen-bit types are their bit patterns."""
KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int "
    "long register restrict return short signed sizeof static struct switch typedef union unsigned void "
    "volatile while alignas alignof and asm bool catch class constexpr delete export false friend mutable "
    "namespace new not nullptr operator or private protected public template this throw true try typename "
    "using virtual xor".split()
)
"""Words that C or C++ keeps for itself."""


@dataclass(frozen=True)
class Value:
    """An input or output as C sees it: row-major; a size is a number or an expression in `batch`."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]

    def describe(self) -> dict[str, object]:
        """As `net.json` lists it."""
        return {"name": self.name, "dtype": self.dtype.name, "shape": list(self.shape)}


_TEMPLATE = Template("""\
/* $name.h: a model as a static library, made by torturous.

$values

   Shapes are row-major. Nothing here allocates, does I/O or keeps state: calls that do not share a
   workspace may run at the same time, with the same weights. */
#ifndef ${upper}_H
#define ${upper}_H

#include <stddef.h>
#include <stdint.h>

#define ${upper}_ABI $abi
#define ${upper}_TARGET "$target"
#define ${upper}_MAX_BATCH $max_batch
#define ${upper}_ALIGN $align               /* of weights and workspace, in bytes */
#define ${upper}_WEIGHTS_BYTES $weights    /* the file $name.weights */
#define ${upper}_PREPARED_BYTES $weights

$codes

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of workspace that ${name}_run needs for a batch; 0 if that is not from 1 to ${upper}_MAX_BATCH. */
size_t ${name}_workspace_bytes(int64_t batch);

/* Checks the contents of the file $name.weights and copies them to `prepared`. A file mapped at an
   aligned address may be given to ${name}_run as it is; then only its head is checked. */
int ${name}_prepare(const void *file, size_t file_bytes, void *prepared, size_t prepared_bytes);

/* Runs the model. The workspace need not be initialised and holds nothing afterwards. */
int ${name}_run(const void *weights, $parameters, int64_t batch,
                void *workspace, size_t workspace_bytes);

/* What a return code means, in English. */
const char *${name}_strerror(int code);

#ifdef __cplusplus
}
#endif

#endif
""")


def header(
    name: str, inputs: Sequence[Value], outputs: Sequence[Value], max_batch: int, weights_bytes: int,
    target: str,
) -> str:
    """The text of `<name>.h`."""
    upper = name.upper()
    parameters = [f"const {C_TYPES[value.dtype.name]} *{value.name}" for value in inputs]
    parameters += [f"{C_TYPES[value.dtype.name]} *{value.name}" for value in outputs]
    values = [f"   input  {_line(value)}" for value in inputs]
    values += [f"   output {_line(value)}" for value in outputs]
    codes = [f"#define {upper}_{code.name} {code:d}  /* {text} */" for code, text in MESSAGES.items()]
    return _TEMPLATE.substitute(
        name=name, upper=upper, abi=ABI, target=target, max_batch=max_batch, align=ALIGNMENT,
        weights=weights_bytes, values="\n".join(values), codes="\n".join(codes),
        parameters=", ".join(parameters))


def _line(value: Value) -> str:
    return f"{value.name}: {value.dtype.name} [{', '.join(map(str, value.shape))}]"
