"""The functions of an exported library besides its kernels, as LLVM IR: inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Builder
from torturous.codegen.target import Target
from torturous.core import dtypes
from torturous.native.checks import (
    mark_block,
    refuse,
    refuse_batch,
    refuse_code,
    refuse_foreign,
    refuse_misaligned,
    refuse_null,
    sized,
)
from torturous.native.codes import MESSAGES, Code
from torturous.native.describe import Description, Value, constants
from torturous.native.execution import Execution, define
from torturous.native.reader import bytes_constant, reader
from torturous.native.sharing import sharing
from torturous.native.variants import choice
from torturous.native.walker import MOST_WORKERS, walker
from torturous.native.weights import ALIGNMENT, Weight


@dataclass(frozen=True)
class Library:
    """What every library is made of."""

    name: str
    targets: Sequence[Target]
    """Widest first; everything but kernels is for the last one."""
    description: Description
    weights: Sequence[Weight]
    """What is read from a file into the block."""
    identity: bytes
    """The first bytes of a block."""
    block_bytes: int
    max_batch: int

    def builder(self) -> Builder:
        return Builder(self.targets[-1])

    @property
    def size_type(self) -> str:
        """C's size_t."""
        return f"i{self.targets[-1].pointer_bits}"


def common(library: Library, executions: Sequence[Execution], entry: Sequence[str]) -> str:
    """A whole module: what every library has, around its own entry functions."""
    symbols = sorted({symbol for execution in executions for symbol in execution.symbols()})
    parts = [f"declare hidden void @{symbol}(ptr, i64, i64, ptr)" for symbol in symbols]
    parts.append("declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)")
    parts.append("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
    parts += [reader(library.name, library.weights), walker(library.name), constants(library.description)]
    parts += [choice(library.name, library.targets), error_text(library), *entry]
    parts += [execution.write() for execution in executions]
    if any(f"@{library.name}_share_out(" in part for part in parts):
        parts.append(sharing(library.targets[-1], library.name))
    if any(f"@{library.name}_power(" in part for part in parts):
        parts.append(_power(library))
    # Nothing here runs for long: it may as well be small.
    return "\n".join([*parts, f"attributes #0 = {{ minsize optsize {library.targets[-1].attributes()} }}", ""])


def _power(library: Library) -> str:
    """The function `double name_power(double, double)`, a kernel's own power on one lane."""
    b = library.builder()
    e = Arithmetic(b, dtypes.float64, 1)
    result = e.pow(e.splat("%base"), e.splat("%exponent"))
    scalar = b.value(f"extractelement {e.kind} {result}, i32 0")
    function = define(f"internal double @{library.name}_power(double %base, double %exponent)", b, f"double {scalar}")
    return "\n".join([*b.declarations.values(), function])


def inference(library: Library, execution: Execution, embedded: bool) -> str:
    """The module with everything that a program calls to run a model. With `embedded` weights they are the symbol
    `name_block` of another object, and callers may pass null for the block."""
    parts = [
        _prepare(library, execution, embedded),
        _run(library, embedded, parallel=False),
        _run(library, embedded, parallel=True),
        workspace_bytes(library, f"{library.name}_workspace_bytes", execution),
    ]
    if embedded:
        parts.insert(0, f"@{library.name}_block = external hidden constant [{library.block_bytes} x i8], align 64")
    return common(library, [execution], parts)


def workspace_bytes(library: Library, symbol: str, execution: Execution) -> str:
    """A function that gives the bytes for a call, 0 for a batch or a number of workers out of range."""
    b = library.builder()
    wrong = b.compare("slt", "%batch", 1)
    for condition in (b.compare("sgt", "%batch", library.max_batch), b.compare("slt", "%workers", 1),
                      b.compare("sgt", "%workers", MOST_WORKERS)):
        wrong = b.value(f"or i1 {wrong}, {condition}")
    needed = b.value(f"call i64 @{execution.name}_needed(i64 %batch, i64 %workers)")
    result = b.choose(wrong, 0, needed)
    if library.size_type != "i64":
        # What 32 bits cannot count is out of range as well.
        fits = b.compare("ult", result, 1 << 32)
        result = b.value(f"trunc i64 {b.choose(fits, result, 0)} to {library.size_type}")
    return define(f"{library.size_type} @{symbol}(i64 %batch, i64 %workers)", b, f"{library.size_type} {result}")


# Preparing --------------------------------------------------------------------------------------------------
def _prepare(library: Library, execution: Execution, embedded: bool) -> str:
    """Asks the processor, reads a file into the block, and computes what reads only weights."""
    b, name = library.builder(), library.name
    variant = b.value(f"call i64 @{name}_variant()")
    refuse(b, b.compare("slt", variant, 0), Code.ETARGET)
    if embedded:
        neither = b.value(f"and i1 {b.value('icmp eq ptr %file, null')}, {b.value('icmp eq ptr %prepared, null')}")
        refuse(b, neither, Code.OK)  # Nothing to do but to ask whether the library runs here.
    refuse_null(b, ["%file", "%prepared"])
    refuse_misaligned(b, [("%prepared", ALIGNMENT)])
    refuse(b, b.compare("ult", sized(b, "%prepared_bytes"), library.block_bytes), Code.ESIZE)
    unkept = [weight for weight in library.weights if weight.offset < 0]
    sources = b.hoisted(f"alloca [{max(len(unkept), 1)} x ptr], align 8")
    file_bytes = sized(b, "%file_bytes")
    refuse_code(b, b.value(f"call i32 @{name}_read(ptr %file, i64 {file_bytes}, ptr %prepared, ptr {sources})"))
    if b.target.strict_alignment:  # The kernels below read these where they lie in the file.
        for number, weight in enumerate(unkept):
            address = b.load("ptr", b.offset(sources, b.target.pointer_bits // 8 * number), 4)
            refuse_misaligned(b, [(address, weight.dtype.itemsize)])
    frame = b.hoisted("alloca [1 x ptr], align 8")
    b.store("ptr", "%prepared", frame, 4)
    done = b.label("packed")
    cases = [b.label("variant") for _ in library.targets]
    table = " ".join(f"i64 {number}, label %{label}" for number, label in enumerate(cases[:-1]))
    b.emit(f"switch i64 {variant}, label %{cases[-1]} [ {table} ]")
    functions = []
    for number, (label, target) in enumerate(zip(cases, library.targets, strict=True)):
        inner = library.builder()
        for routine in execution.routines:
            routine.prepare(inner, target.name)
        functions.append(define(f"internal void @{name}_pack{number}(ptr %frame, ptr %sources)", inner, "void"))
        b.start_block(label)
        b.emit(f"call void @{name}_pack{number}(ptr {frame}, ptr {sources})")
        b.emit(f"br label %{done}")
    b.start_block(done)
    mark_block(b, "%prepared", library.identity, variant)
    size = library.size_type
    head = f"signext i32 @{name}_prepare(ptr %file, {size} %file_bytes, ptr %prepared, {size} %prepared_bytes)"
    return "\n".join([*functions, define(head, b, f"i32 {Code.OK:d}")])


# Running ----------------------------------------------------------------------------------------------------
def _run(library: Library, embedded: bool, parallel: bool) -> str:
    b, name = library.builder(), library.name
    values = [*library.description.inputs, *library.description.outputs]
    pointers = [f"%value{position}" for position in range(len(values))]
    block = "%prepared"
    if embedded:
        given = b.value("icmp ne ptr %prepared, null")
        block = b.choose(given, "%prepared", f"@{name}_block", "ptr")
    refuse_null(b, [block, *pointers, "%workspace"])
    refuse_misaligned(b, [(block, ALIGNMENT), ("%workspace", ALIGNMENT), *alignments(values, pointers)])
    refuse_batch(b, library.max_batch)
    workers = "%workers" if parallel else "1"
    if parallel:
        refuse_workers(b)
    needed = b.value(f"call i64 @{name}_needed(i64 %batch, i64 {workers})")
    refuse(b, b.compare("ult", sized(b, "%workspace_bytes"), needed), Code.ESIZE)
    variant = refuse_foreign(b, block, library.identity, len(library.targets))
    frame = b.hoisted(f"alloca [{1 + len(pointers)} x ptr], align 8")
    for position, pointer in enumerate([block, *pointers]):
        b.store("ptr", pointer, b.offset(frame, library.targets[-1].pointer_bits // 8 * position), 4)
    pool = "ptr %run, ptr %pool" if parallel else "ptr null, ptr null"
    code = b.value(
        f"call i32 @{name}_execute(ptr {frame}, i64 {variant}, i64 %batch, i64 {workers}, ptr %workspace, {pool})")
    parameters = ["ptr %prepared", *(f"ptr {pointer}" for pointer in pointers), "i64 %batch"]
    parameters += ["i64 %workers"] * parallel + ["ptr %workspace", f"{library.size_type} %workspace_bytes"]
    parameters += ["ptr %run", "ptr %pool"] * parallel
    symbol = f"{name}_run_parallel" if parallel else f"{name}_run"
    return define(f"signext i32 @{symbol}({', '.join(parameters)})", b, f"i32 {code}")


def refuse_workers(b: Builder) -> None:
    """Of a call with a pool."""
    refuse_null(b, ["%run"])
    refuse(b, b.compare("slt", "%workers", 1), Code.EWORKERS)
    refuse(b, b.compare("sgt", "%workers", MOST_WORKERS), Code.EWORKERS)


def alignments(values: Sequence[Value], pointers: Sequence[str]) -> list[tuple[str, int]]:
    """What inputs and outputs must be multiples of."""
    return [(pointer, value.dtype.itemsize) for value, pointer in zip(values, pointers, strict=True)]


def error_text(library: Library) -> str:
    """The function `name_strerror`."""
    b = library.builder()
    chosen = f"@{library.name}_text_unknown"
    texts = [bytes_constant(chosen[1:], b"unknown error code\0")]
    for code, message in MESSAGES.items():
        symbol = f"@{library.name}_text{code:d}"
        texts.append(bytes_constant(symbol[1:], message.encode() + b"\0"))
        chosen = b.choose(b.value(f"icmp eq i32 %code, {code:d}"), symbol, chosen, "ptr")
    return "\n".join([*texts, define(f"ptr @{library.name}_strerror(i32 signext %code)", b, f"ptr {chosen}")])
