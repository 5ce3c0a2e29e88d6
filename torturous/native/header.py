"""The C header of an exported library."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from torturous.native.codes import MESSAGES
from torturous.native.describe import ABI, C_DECLARATIONS, Value
from torturous.native.entry import Library
from torturous.native.execution import Execution
from torturous.native.walker import MOST_WORKERS
from torturous.native.weights import ALIGNMENT
from torturous.native.workspace import C_MACROS

KEYWORDS = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int "
    "long register restrict return short signed sizeof static struct switch typedef union unsigned void "
    "volatile while alignas alignof and asm bool catch class constexpr delete export false friend mutable "
    "namespace new not nullptr operator or private protected public template this throw true try typename "
    "using virtual xor".split()
)
"""Words that C or C++ keeps for itself."""

_TOP = Template("""\
/* $name.h: $what as a static library, made by torturous.

$values

   Shapes are row-major. Nothing here allocates, does I/O, starts threads or keeps state: calls that do not share
   a workspace$sharing may run at the same time. */
#ifndef ${upper}_H
#define ${upper}_H

#include <stddef.h>
#include <stdint.h>

#define ${upper}_ABI $abi
#define ${upper}_TARGETS "$targets"
#define ${upper}_MAX_BATCH $max_batch
#define ${upper}_MAX_WORKERS $max_workers
#define ${upper}_ALIGN $align  /* of blocks and workspaces, in bytes */
$sizes

$codes

#ifdef __cplusplus
extern "C" {
#endif

/* Runs body(context, piece, worker) for every piece from 0 to pieces - 1, in any order, on any threads, and comes
   back when all are done. Workers are numbered from 0; no two pieces may run at the same time with the same one. */
typedef void (*${name}_parallel_for)(void *pool, int64_t pieces,
                                     void (*body)(void *context, int64_t piece, int64_t worker), void *context);

""" + C_DECLARATIONS + """

const ${name}_info *${name}_describe(void);

/* What a return code means, in English. */
const char *${name}_strerror(int code);

""")

_INFERENCE = Template("""\
/* Checks the contents of a safetensors file with this model's tensors, which may lie anywhere, and writes to
   `prepared` what runs read, in the form that this processor wants. The block may be shared by all threads; it is
   for this machine only. $embedded*/
int ${name}_prepare(const void *file, size_t file_bytes, void *prepared, size_t prepared_bytes);

/* The workspace need not be initialised and holds nothing afterwards; one for a batch is enough for smaller ones. */
int ${name}_run(const void *prepared, $parameters, int64_t batch,
                void *workspace, size_t workspace_bytes);

/* The same on several threads of the caller's; it also gives the same bits. */
int ${name}_run_parallel(const void *prepared, $parameters, int64_t batch, int64_t workers,
                         void *workspace, size_t workspace_bytes, ${name}_parallel_for run, void *pool);

/* ${upper}_WORKSPACE_BYTES as a function; 0 for arguments out of range. */
size_t ${name}_workspace_bytes(int64_t batch, int64_t workers);
""")

BOTTOM = """
#ifdef __cplusplus
}
#endif

#endif
"""


def inference_header(library: Library, execution: Execution, embedded: bool) -> str:
    """The text of `<name>.h` for a library that runs a model."""
    d, upper = library.description, library.name.upper()
    sizes = "\n".join([
        f"#define {upper}_PREPARED_BYTES {library.block_bytes}",
        Template(C_MACROS).substitute(upper=upper),
        f"#define {upper}_WORKSPACE_BYTES(batch, workers) ({execution.c_expression(upper)})",
    ])
    note = ("Weights are part of\n   the library: runs take null for `prepared`. With null for file and block, this "
            "only asks whether\n   the processor is right. ")
    return (
        top(library, "a model", sizes, "", d.inputs, d.outputs)
        + _INFERENCE.substitute(name=library.name, upper=upper, parameters=parameters(d.inputs, d.outputs),
                                embedded=note if embedded else "")
        + BOTTOM)


def top(library: Library, what: str, sizes: str, sharing: str, inputs: Sequence[Value], outputs: Sequence[Value]
        ) -> str:
    """What every header begins with; `sharing` names what else calls must not share."""
    upper = library.name.upper()
    values = [f"   input  {line(value)}" for value in inputs] + [f"   output {line(value)}" for value in outputs]
    codes = [f"#define {upper}_{code.name} {code:d}  /* {text} */" for code, text in MESSAGES.items()]
    return _TOP.substitute(
        name=library.name, upper=upper, what=what, abi=ABI, targets=" ".join(library.description.targets),
        max_batch=library.max_batch, max_workers=MOST_WORKERS, align=ALIGNMENT, sizes=sizes, sharing=sharing,
        values="\n".join(values), codes="\n".join(codes))


def parameters(inputs: Sequence[Value], outputs: Sequence[Value]) -> str:
    """Pointers as C parameters."""
    return ", ".join([*(f"const {value.c_type} *{value.name}" for value in inputs),
                      *(f"{value.c_type} *{value.name}" for value in outputs)])


def line(value: Value) -> str:
    return f"{value.name}: {value.dtype.name} {value.text}"
