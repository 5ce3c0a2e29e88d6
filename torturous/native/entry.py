"""The functions of an exported library besides its kernels, as LLVM IR.

What `runtime.bound.Bound` lays out when a plan meets its sizes in Python is done here by instructions, with
the batch as the only variable: argument tables, sizes, places in the arena. The kernels are then called one
after the other, each with all its items as one piece. Everything that changes lies in the caller's workspace:

    argument tables | error words | scratch | arena

each part at a multiple of 64 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated
from torturous.codegen.target import Target
from torturous.compiler.graph import Node
from torturous.compiler.memory import ALIGNMENT, PADDING
from torturous.compiler.plan import Plan
from torturous.compiler.sizes import Size, Variable, product
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.ir.record import describe_place, slot_ordinal
from torturous.native.recording import InBatch, Program
from torturous.native.weights import CHECKED_BYTES, HEADER_BYTES, Layout
from torturous.runtime.slots import converter, pack_format

BATCH = Size.variable(("batch", 0))
ALL_ITEMS = 1 << 62
"""Items per piece, more than any kernel has: one piece is everything."""


class Code(IntEnum):
    """What the functions of a library return."""

    OK = 0
    ENULL = 1
    EALIGN = 2
    EBATCH = 3
    ESIZE = 4
    EWEIGHTS = 5
    EINDEX = 6


MESSAGES = {
    Code.OK: "success",
    Code.ENULL: "a pointer is null",
    Code.EALIGN: "a pointer is not aligned (weights, workspace: 64 bytes; inputs, outputs: their elements)",
    Code.EBATCH: "the batch is below 1 or above the largest that the library was made for",
    Code.ESIZE: "the memory given is too small",
    Code.EWEIGHTS: "the weights are damaged or belong to another model",
    Code.EINDEX: "an index in an input is out of range",
}


@dataclass(frozen=True)
class Workspace:
    """The parts of the workspace, in bytes; several sizes mean the largest of them."""

    tables: int
    errors: int
    scratch: tuple[Size, ...]
    slots: tuple[tuple[Size, ...], ...]
    """Of the arena."""

    def nbytes(self, batch: int) -> int:
        """The whole for a batch: what the library's `…_workspace_bytes` gives."""

        def largest(sizes: tuple[Size, ...]) -> int:
            return max((size.evaluate(lambda variable: batch) for size in sizes), default=0)

        def aligned(count: int) -> int:
            return -(-count // ALIGNMENT) * ALIGNMENT

        arena = sum(aligned(largest(sizes) + PADDING) for sizes in self.slots)
        return aligned(self.tables) + aligned(self.errors) + aligned(largest(self.scratch)) + arena


class EntryWriter:
    """Writes the module with everything that a program calls."""

    def __init__(
        self, name: str, program: Program, plan: Plan, kernels: Sequence[tuple[Generated, str]],
        layout: Layout, max_batch: int, target: Target,
    ) -> None:
        """`kernels` are in the order in which they run, each with its symbol."""
        self.name = name
        self.program = program
        self.plan = plan
        self.kernels = kernels
        self.layout = layout
        self.max_batch = max_batch
        self.target = target
        arguments = [argument for kernel, _ in kernels for argument in kernel.arguments]
        self.checks: list[Any] = list(dict.fromkeys(a.what for a in arguments if a.kind == "errors"))
        self.workspace = Workspace(
            tables=8 * len(arguments),
            errors=8 * len(self.checks),
            scratch=_candidates(self.in_batch(kernel.scratch) for kernel, _ in kernels),
            slots=tuple(_candidates(map(self.in_batch, slot.sizes)) for slot in plan.memory.slots),
        )
        self.inputs = [f"%input{position}" for position in range(len(program.inputs))]
        self.outputs = [f"%output{position}" for position in range(len(plan.outputs))]

    def write(self) -> str:
        """The whole module."""
        parts = [self._execute(), self._run(), self._workspace_bytes(), self._prepare(), self._error_text()]
        symbols = sorted({symbol for _, symbol in self.kernels})
        declarations = [f"declare hidden void @{symbol}(ptr, i64, i64, ptr)" for symbol in symbols]
        declarations.append("declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)")
        return "\n".join([*declarations, *parts, f"attributes #0 = {{ {self.target.attributes()} }}", ""])

    # Sizes --------------------------------------------------------------------------------------------------
    def in_batch(self, size: Size) -> Size:
        """A size of the plan as a polynomial in the batch; slots count as 0, as they do in `Bound`."""

        def value(variable: Variable) -> Size:
            kind, number = variable
            if kind != "size":
                return Size.of(0)
            function = self.program.variables[number]
            return BATCH * function.factor + function.constant

        total = Size.of(0)
        for monomial, factor in size.terms.items():
            total = total + product(map(value, monomial)) * factor
        return total

    # Functions ----------------------------------------------------------------------------------------------
    def _define(self, head: str, b: Builder, result: str) -> str:
        body = [*b.prologue, *b.lines, f"  ret {result}"]
        return "\n".join([f"define {head} #0 {{", "entry:", *body, "}", ""])

    def _parameters(self) -> str:
        pointers = ["%weights", *self.inputs, *self.outputs]
        return ", ".join([*(f"ptr {pointer}" for pointer in pointers), "i64 %batch", "ptr %workspace"])

    def _execute(self) -> str:
        """Fills the argument tables and calls the kernels; everything has been checked."""
        body = _Body(self)
        for kernel, symbol in self.kernels:
            body.call(kernel, symbol)
        body.copy_outputs()
        return self._define(f"internal void @{self.name}_execute({self._parameters()})", body.b, "void")

    def _workspace_bytes(self) -> str:
        """0 for a batch out of range."""
        b = Builder(self.target)
        *_, end = places(b, self.workspace)
        low, high = b.compare("slt", "%batch", 1), b.compare("sgt", "%batch", self.max_batch)
        valid = b.choose(b.value(f"or i1 {low}, {high}"), 0, end)
        # The function that programs see is another name for it, so that calls from here need no indirection.
        alias = f"@{self.name}_workspace_bytes = alias i64 (i64), ptr @{self.name}_needed"
        return self._define(f"internal i64 @{self.name}_needed(i64 %batch)", b, f"i64 {valid}") + alias

    def _run(self) -> str:
        b = Builder(self.target)
        _refuse_null(b, ["%weights", *self.inputs, *self.outputs, "%workspace"])
        alignments = [("%weights", ALIGNMENT), ("%workspace", ALIGNMENT)]
        for pointer, kind in zip(self.inputs, self.program.inputs, strict=True):
            alignments.append((pointer, kind.dtype.itemsize))
        for pointer, node in zip(self.outputs, self.plan.outputs, strict=True):
            alignments.append((pointer, node.dtype.itemsize))
        _refuse_misaligned(b, alignments)
        _refuse(b, b.compare("slt", "%batch", 1), Code.EBATCH)
        _refuse(b, b.compare("sgt", "%batch", self.max_batch), Code.EBATCH)
        needed = b.value(f"call i64 @{self.name}_needed(i64 %batch)")
        _refuse(b, b.compare("ult", "%workspace_bytes", needed), Code.ESIZE)
        self._refuse_foreign(b, "%weights")
        errors = -(-self.workspace.tables // ALIGNMENT) * ALIGNMENT
        words = [b.offset("%workspace", errors + 8 * index) for index in range(len(self.checks))]
        for word in words:
            b.store("i64", 0, word, 8)
        b.emit(f"call void @{self.name}_execute({self._parameters()})")
        for word in words:
            _refuse(b, b.compare("ne", b.load("i64", word, 8), 0), Code.EINDEX)
        head = f"i32 @{self.name}_run({self._parameters()}, i64 %workspace_bytes)"
        return self._define(head, b, f"i32 {Code.OK:d}")

    def _refuse_foreign(self, b: Builder, block: str) -> None:
        """Compares the head of a block of weights with what this library needs."""
        wrong = "false"
        for position, (word,) in enumerate(struct.iter_unpack("<q", self.layout.identity())):
            found = b.load("i64", b.offset(block, 8 * position), 1)
            wrong = b.value(f"or i1 {wrong}, {b.compare('ne', found, word)}")
        _refuse(b, wrong, Code.EWEIGHTS)

    def _prepare(self) -> str:
        """Checks a block of weights, its sums included, and copies it to where it will be used."""
        b = Builder(self.target)
        _refuse_null(b, ["%file", "%prepared"])
        _refuse_misaligned(b, [("%prepared", ALIGNMENT)])
        _refuse(b, b.compare("ne", "%file_bytes", self.layout.nbytes), Code.EWEIGHTS)
        _refuse(b, b.compare("ult", "%prepared_bytes", self.layout.nbytes), Code.ESIZE)
        self._refuse_foreign(b, "%file")
        words = (self.layout.nbytes - HEADER_BYTES) // 8
        first = b.offset("%file", HEADER_BYTES)
        loop = b.begin_loop(0, words, 1, [("i64", 0), ("i64", 0)])
        plain, weighted = loop.carried
        word = b.load("i64", b.offset(first, b.mul(loop.index, 8)), 1)
        odd = b.add(b.mul(loop.index, 2), 1)
        b.end_loop(loop, [b.add(plain, word), b.add(weighted, b.mul(odd, word))])
        for position, total in enumerate((plain, weighted)):
            stated = b.load("i64", b.offset("%file", CHECKED_BYTES + 8 * position), 1)
            _refuse(b, b.compare("ne", stated, total), Code.EWEIGHTS)
        _move(b, "%prepared", "%file", self.layout.nbytes)
        head = f"i32 @{self.name}_prepare(ptr %file, i64 %file_bytes, ptr %prepared, i64 %prepared_bytes)"
        return self._define(head, b, f"i32 {Code.OK:d}")

    def _error_text(self) -> str:
        b = Builder(self.target)
        chosen = f"@{self.name}_text_unknown"
        constants = [_text(chosen, "unknown error code")]
        for code, message in MESSAGES.items():
            symbol = f"@{self.name}_text{code:d}"
            constants.append(_text(symbol, message))
            chosen = b.choose(b.value(f"icmp eq i32 %code, {code:d}"), symbol, chosen, "ptr")
        function = self._define(f"ptr @{self.name}_strerror(i32 %code)", b, f"ptr {chosen}")
        return "\n".join([*constants, function])


class _Body:
    """The straight line of one run."""

    def __init__(self, writer: EntryWriter) -> None:
        self.writer = writer
        self.b = Builder(writer.target)
        plan, program = writer.plan, writer.program
        self.errors, self.scratch, offsets, _ = places(self.b, writer.workspace)
        self.table = 0
        self._sizes: dict[Size, Integer] = {}
        self._words: dict[Argument, Integer] = {}
        self.pointers: dict[Node, str] = {}
        for node, leaf in zip(plan.leaves, program.leaves, strict=True):
            if isinstance(leaf, str):
                self.pointers[node] = self.b.offset("%weights", writer.layout.offset(leaf))
            else:
                self.pointers[node] = writer.inputs[leaf]
        self.copies: list[tuple[str, Node]] = []
        for pointer, node in zip(writer.outputs, plan.outputs, strict=True):
            if node in self.pointers:  # An input as it is, or the same value once more.
                self.copies.append((pointer, node))
            else:
                self.pointers[node] = pointer
        for node, slot in plan.memory.slot_of.items():
            self.pointers[node] = self.b.offset("%workspace", offsets[slot])

    def call(self, kernel: Generated, symbol: str) -> None:
        """One kernel, its argument table filled just before."""
        b = self.b
        start = self.table
        for argument in kernel.arguments:
            word = b.offset("%workspace", self.table)
            if argument.kind == "buffer":
                b.store("ptr", self.pointers[argument.what], word, 8)
            elif argument.kind == "errors":
                index = self.writer.checks.index(argument.what)
                b.store("ptr", b.offset("%workspace", b.add(self.errors, 8 * index)), word, 8)
            else:
                b.store("i64", self._number(argument), word, 8)
            self.table += 8
        table, scratch = b.offset("%workspace", start), b.offset("%workspace", self.scratch)
        b.emit(f"call void @{symbol}(ptr {table}, i64 0, i64 1, ptr {scratch})")

    def copy_outputs(self) -> None:
        for pointer, node in self.copies:
            length = self.writer.in_batch(product(node.shape) * node.dtype.itemsize)
            _move(self.b, pointer, self.pointers[node], size(self.b, length, self._sizes))

    def _number(self, argument: Argument) -> Integer:
        if argument.kind == "granule":
            return ALL_ITEMS
        if argument.kind == "size":
            return self._function(self.writer.program.variables[argument.what])
        assert argument.kind == "slot" and argument.dtype is not None
        known = self._words.get(argument)
        if known is None:
            known = self._words[argument] = self._slot(argument.what, argument.dtype)
        return known

    def _function(self, function: InBatch) -> Integer:
        return size(self.b, BATCH * function.factor + function.constant, self._sizes)

    def _slot(self, code: int, dtype: DType) -> Integer:
        """A slot's eight bytes, as `Bound` packs them."""
        number = self.writer.program.slots[slot_ordinal(code)]
        if number is None or (isinstance(number, InBatch) and dtype is dtypes.bool_):
            raise UnsupportedError(
                f"cannot export: a number that {self._users(code)} is given depends on the batch in a way "
                "that is not affine; compute it from tensors")
        if not isinstance(number, InBatch):
            packed = struct.pack("<" + pack_format(dtype), converter(dtype)(number))
            return int.from_bytes(packed, "little", signed=True)
        b = self.b
        whole = self._function(number)
        if not dtype.is_floating_point:
            return whole
        # By way of double, as Python's numbers go.
        value = b.value(f"sitofp i64 {whole} to double")
        if dtype is dtypes.float64:
            return b.value(f"bitcast double {value} to i64")
        bits = b.value(f"bitcast float {b.value(f'fptrunc double {value} to float')} to i32")
        return b.value(f"zext i32 {bits} to i64")

    def _users(self, code: int) -> str:
        """The operations that read a slot."""
        nodes = [node for node in self.writer.plan.graph.nodes if code in node.operands]
        return " and ".join(f"{node.op.name} at {describe_place(node.place)}" for node in nodes)


# Sizes as instructions --------------------------------------------------------------------------------------
def _candidates(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """Sizes of which one is the largest at every batch from 1 on; what another one always exceeds is left
    out."""
    chosen: list[Size] = []
    for size_ in sorted(set(sizes), key=repr):
        if not any(_exceeds(other, size_) for other in chosen):
            chosen = [other for other in chosen if not _exceeds(size_, other)] + [size_]
    return tuple(chosen)


def _exceeds(a: Size, b: Size) -> bool:
    """Whether a ≥ b follows from the factors alone."""
    return all(factor >= 0 for factor in (a - b).terms.values())


def size(b: Builder, polynomial: Size, known: dict[Size, Integer]) -> Integer:
    """A polynomial in the batch, worked out once."""
    value = known.get(polynomial)
    if value is None:
        value = 0
        for monomial, factor in polynomial.terms.items():
            part: Integer = factor
            for _ in monomial:
                part = b.mul(part, "%batch")
            value = b.add(value, part)
        known[polynomial] = value
    return value


def places(b: Builder, workspace: Workspace) -> tuple[Integer, Integer, list[Integer], Integer]:
    """Offsets in the workspace: error words, scratch, each slot of the arena, the end."""
    known: dict[Size, Integer] = {}

    def largest(sizes: tuple[Size, ...]) -> Integer:
        value: Integer = 0
        for candidate in sizes:
            value = size(b, candidate, known) if value == 0 else b.maximum(value, size(b, candidate, known))
        return value

    errors = _aligned(b, workspace.tables)
    scratch = b.add(errors, _aligned(b, workspace.errors))
    end = b.add(scratch, _aligned(b, largest(workspace.scratch)))
    slots = []
    for sizes in workspace.slots:
        slots.append(end)
        end = b.add(end, _aligned(b, b.add(largest(sizes), PADDING)))
    return errors, scratch, slots, end


def _aligned(b: Builder, count: Integer) -> Integer:
    raised = b.add(count, ALIGNMENT - 1)
    return raised & -ALIGNMENT if isinstance(raised, int) else b.value(f"and i64 {raised}, {-ALIGNMENT}")


# Instructions that recur ------------------------------------------------------------------------------------
def _refuse(b: Builder, condition: str, code: Code) -> None:
    """Returns the code where the condition holds."""
    refuse, go_on = b.label("refuse"), b.label("go_on")
    b.emit(f"br i1 {condition}, label %{refuse}, label %{go_on}")
    b.start_block(refuse)
    b.emit(f"ret i32 {code:d}")
    b.start_block(go_on)


def _move(b: Builder, target: str, source: str, nbytes: Integer) -> None:
    b.emit(f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)")


def _text(symbol: str, message: str) -> str:
    return f'{symbol} = private unnamed_addr constant [{len(message) + 1} x i8] c"{message}\\00"'


def _refuse_null(b: Builder, pointers: Sequence[str]) -> None:
    for pointer in pointers:
        _refuse(b, b.value(f"icmp eq ptr {pointer}, null"), Code.ENULL)


def _refuse_misaligned(b: Builder, pointers: Sequence[tuple[str, int]]) -> None:
    for pointer, alignment in pointers:
        if alignment > 1:
            address = b.value(f"ptrtoint ptr {pointer} to i64")
            _refuse(b, b.compare("ne", b.value(f"and i64 {address}, {alignment - 1}"), 0), Code.EALIGN)


