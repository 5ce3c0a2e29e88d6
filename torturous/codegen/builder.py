"""Writes the text of one LLVM function: values, blocks, loops. Knows nothing of tensors.

Values are strings (`%12`, or a literal); integers may stay Python ints and fold. Loops are header-tested with
phi nodes for what they carry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torturous.codegen.target import Target

Integer = int | str
"""An i64: a Python int where it is known when the kernel is generated, else a value."""


@dataclass
class Loop:
    """A loop being written: its counter, and the carried values as they stand in the body."""

    index: str
    carried: list[str]
    header: str
    body: str
    after: str
    step: Integer
    _counter_line: int
    _carried_lines: list[tuple[int, str, str]]
    _entry: str
    _start: Integer


@dataclass
class Runs:
    """A loop over stretches of differing length, being written."""

    carried: list[str]
    header: str
    after: str
    entry: str
    lines: list[tuple[int, Integer]]


class Builder:
    """The body of a function under construction."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.lines: list[str] = []
        self.prologue: list[str] = []
        """Instructions of the entry block: arguments, sizes, whatever every block may use."""
        self.declarations: dict[str, str] = {}
        self.features: set[str] = set()
        """What the function asks of the machine beyond its level (see `Target.attributes`)."""
        self.block = "entry"
        self._count = 0
        self._label = 0

    # Values ------------------------------------------------------------------------------------------------------
    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def value(self, text: str) -> str:
        """An instruction that gives a value."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def hoisted(self, text: str) -> str:
        """An instruction that gives a value in the entry block, valid everywhere."""
        self._count += 1
        name = f"%v{self._count}"
        self.prologue.append(f"  {name} = {text}")
        return name

    def call(self, result: str, name: str, *arguments: tuple[str, Integer]) -> str:
        """A call of an intrinsic or function, declared on first use; arguments as (type, value)."""
        text = ", ".join(f"{kind} {value}" for kind, value in arguments)
        self.declare(result, name, [kind for kind, _ in arguments])
        if result == "void":
            self.emit(f"call void @{name}({text})")
            return ""
        return self.value(f"call {result} @{name}({text})")

    def declare(self, result: str, name: str, kinds: Sequence[str]) -> None:
        self.declarations.setdefault(name, f"declare {result} @{name}({', '.join(kinds)})")

    def constants(self, words: Sequence[int], kind: str = "i64") -> str:
        """The address of constant data: these integers."""
        text = ", ".join(f"{kind} {word}" for word in words)
        kind = f"[{len(words)} x {kind}]"
        name = f"words{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.declarations.setdefault(name, f"@{name} = internal unnamed_addr constant {kind} [{text}], align 64")
        return f"@{name}"

    # Integers ----------------------------------------------------------------------------------------------------
    def add(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        if b == 0:
            return a
        return self.value(f"add i64 {a}, {b}")

    def sub(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if b == 0:
            return a
        return self.value(f"sub i64 {a}, {b}")

    def mul(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        if b == 1:
            return a
        return self.value(f"mul i64 {a}, {b}")

    def div(self, a: Integer, b: Integer) -> Integer:
        """Quotient of non-negative integers."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if b == 1:
            return a
        return self._divide("udiv", a, b)

    def rem(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        if b == 1:
            return 0
        return self._divide("urem", a, b)

    def _divide(self, instruction: str, a: Integer, b: Integer) -> str:
        if self.target.has_wide_division:
            return self.value(f"{instruction} i64 {a}, {b}")
        narrow = [value if isinstance(value, int) else self.value(f"trunc i64 {value} to i32") for value in (a, b)]
        return self.value(f"zext i32 {self.value(f'{instruction} i32 {narrow[0]}, {narrow[1]}')} to i64")

    def ceil_div(self, a: Integer, b: Integer) -> Integer:
        return self.div(self.add(a, self.sub(b, 1)), b)

    def minimum(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.choose(self.compare("slt", a, b), a, b)

    def maximum(self, a: Integer, b: Integer) -> Integer:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.choose(self.compare("sgt", a, b), a, b)

    def compare(self, predicate: str, a: Integer, b: Integer) -> str:
        return self.value(f"icmp {predicate} i64 {a}, {b}")

    def choose(self, condition: str, a: Integer, b: Integer, kind: str = "i64") -> str:
        return self.value(f"select i1 {condition}, {kind} {a}, {kind} {b}")

    # Memory ------------------------------------------------------------------------------------------------------
    def offset(self, pointer: str, bytes_: Integer) -> str:
        """The pointer that many bytes on."""
        if bytes_ == 0:
            return pointer
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {bytes_}")

    def load(self, kind: str, pointer: str, align: int) -> str:
        return self.value(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: Integer, pointer: str, align: int) -> None:
        self.emit(f"store {kind} {value}, ptr {pointer}, align {align}")

    def prefetch(self, pointer: str, write: bool = False, level: int = 1) -> None:
        """Has memory that is soon to be read or written brought into a cache: no address is wrong."""
        near = ("i32", 4 - level)
        self.call("void", "llvm.prefetch.p0", ("ptr", pointer), ("i32", int(write)), near, ("i32", 1))

    def stream(self, kind: str, value: str, pointer: str, align: int) -> None:
        """A store past the caches. Others see it only after `end_streams`."""
        self.declarations.setdefault("!0", "!0 = !{i32 1}")
        self.emit(f"store {kind} {value}, ptr {pointer}, align {align}, !nontemporal !0")

    def end_streams(self) -> None:
        """Makes what was streamed visible before anything that is stored later."""
        if self.target.architecture in ("x86_64", "i686"):
            self.call("void", "llvm.x86.sse.sfence")
        else:
            self.emit("fence seq_cst")

    # Control -----------------------------------------------------------------------------------------------------
    def label(self, hint: str) -> str:
        self._label += 1
        return f"{hint}{self._label}"

    def start_block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def begin_loop(
        self, start: Integer, stop: Integer, step: Integer = 1, carried: Sequence[tuple[str, Integer]] = ()
    ) -> Loop:
        """Opens a loop while index < stop; `carried` gives type and initial value of what goes round."""
        header, body, after = self.label("loop"), self.label("body"), self.label("done")
        entry = self.block
        self.emit(f"br label %{header}")
        self.start_block(header)
        self._count += 1
        index = f"%v{self._count}"
        counter_line = len(self.lines)
        self.lines.append("")
        names, lines = [], []
        for kind, initial in carried:
            self._count += 1
            names.append(f"%v{self._count}")
            lines.append((len(self.lines), kind, str(initial)))
            self.lines.append("")
        condition = self.compare("slt", index, stop)
        self.emit(f"br i1 {condition}, label %{body}, label %{after}")
        self.start_block(body)
        return Loop(index, names, header, body, after, step, counter_line, lines, entry, start)

    def end_loop(self, loop: Loop, new: Sequence[Integer] = ()) -> list[str]:
        """Closes the loop with the carried values' next state; gives their state after it."""
        following = self.add(loop.index, loop.step)
        latch = self.block
        self.emit(f"br label %{loop.header}")
        self.lines[loop._counter_line] = (
            f"  {loop.index} = phi i64 [ {loop._start}, %{loop._entry} ], [ {following}, %{latch} ]"
        )
        for name, (line, kind, initial), value in zip(loop.carried, loop._carried_lines, new, strict=True):
            self.lines[line] = f"  {name} = phi {kind} [ {initial}, %{loop._entry} ], [ {value}, %{latch} ]"
        self.start_block(loop.after)
        return loop.carried

    def begin_runs(self, start: Integer, stop: Integer, carried: Sequence[Integer]) -> Runs:
        """Opens a loop while the first of its carried i64s is below `stop`; its body decides how far it moves on."""
        header, body, after = self.label("runs"), self.label("run"), self.label("ran")
        entry = self.block
        self.emit(f"br label %{header}")
        self.start_block(header)
        names, lines = [], []
        for initial in [start, *carried]:
            self._count += 1
            names.append(f"%v{self._count}")
            lines.append((len(self.lines), initial))
            self.lines.append("")
        self.emit(f"br i1 {self.compare('slt', names[0], stop)}, label %{body}, label %{after}")
        self.start_block(body)
        return Runs(names, header, after, entry, lines)

    def end_runs(self, runs: Runs, new: Sequence[Integer]) -> None:
        latch = self.block
        self.emit(f"br label %{runs.header}")
        for name, (line, initial), value in zip(runs.carried, runs.lines, new, strict=True):
            self.lines[line] = f"  {name} = phi i64 [ {initial}, %{runs.entry} ], [ {value}, %{latch} ]"
        self.start_block(runs.after)

    def when(self, condition: str, body: Callable[[], None]) -> None:
        """Runs `body`'s code where the condition holds."""
        inside, after = self.label("then"), self.label("end")
        self.emit(f"br i1 {condition}, label %{inside}, label %{after}")
        self.start_block(inside)
        body()
        self.emit(f"br label %{after}")
        self.start_block(after)

    def function(self, name: str, parameters: str, attributes: str = "#0", linkage: str = "") -> str:
        """The finished text of a function returning nothing."""
        head = f"define {linkage + ' ' if linkage else ''}void @{name}({parameters}) {attributes} {{"
        return "\n".join([head, "entry:", *self.prologue, *self.lines, "  ret void", "}"]) + "\n"


@contextmanager
def looping(builder: Builder, start: Integer, stop: Integer, step: Integer = 1) -> Iterator[str]:
    """A loop that carries nothing, as a `with` block over its index."""
    loop = builder.begin_loop(start, stop, step)
    yield loop.index
    builder.end_loop(loop)
