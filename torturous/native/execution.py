"""One thing that an exported library can be asked to compute: which plan serves the call, for which instruction set.

`name_execute(frame, variant, batch, workers, workspace, run, pool)` lays out the run, walks it and gives a code.
Several routines may serve one execution: plans for some batches each, in front of the one for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.target import Target
from torturous.native.batches import Batches
from torturous.native.codes import Code
from torturous.native.routine import Routine
from torturous.native.walker import CONTROL_BYTES, ERROR, SCRATCH, WORKERS
from torturous.native.workspace import Workspace


class Execution:
    """Routines for the same inputs and outputs, and the functions that run them."""

    def __init__(self, name: str, library: str, routines: Sequence[Routine], targets: Sequence[Target]) -> None:
        """`name` prefixes this execution's symbols, `library` the walker's. The last routine serves every batch.
        `targets`: widest first; the code here is for the last one."""
        self.name = name
        self.library = library
        self.routines = routines
        self.targets = targets
        self.workspaces: list[tuple[Batches, Workspace]] = [(r.batches, r.workspace()) for r in routines]

    # Memory -------------------------------------------------------------------------------------------------
    def _parts(self) -> list[tuple[int, int, Workspace]]:
        """Workspaces from one batch to before another (0: to the last): what is enough for a batch and for all smaller
        ones, whichever routines serve these, is the largest of those at it."""
        last, first = self.workspaces[-1][1], 1
        parts: list[tuple[int, int, Workspace]] = []
        until = 0
        for batches, workspace in self.workspaces[:-1]:
            if batches.only is not None:
                parts.append((batches.only, 0, workspace.at(batches.only)))
                first = 2 if batches.only == 1 else first
            elif batches.fillings is not None:
                parts.append((1, 0, workspace))
            else:
                parts.append((batches.least, 0, workspace))
                until = batches.least
        if until > 1:
            parts.append((until, 0, last.at(until - 1)))
        return [*parts, (first, until, last)]

    def nbytes(self, batch: int, workers: int) -> int:
        """Bytes of workspace for a call, or one of a smaller batch."""
        return max(workspace.nbytes(batch, workers) for first, until, workspace in self._parts()
                   if batch >= first and (not until or batch < until))

    def c_expression(self, prefix: str) -> str:
        """The same as a C expression in `batch` and `workers`."""
        texts = []
        for first, until, workspace in self._parts():
            tests = [f"(batch) >= {first}"] * (first > 1) + [f"(batch) < {until}"] * (until > 0)
            text = workspace.c_expression(prefix)
            texts.append(f"({' && '.join(tests)} ? {text} : 0)" if tests else text)
        return reduce(lambda one, other: f"{prefix}_LARGER_({one}, {other})", texts)

    def needed(self, b: Builder) -> str:
        """Writes what works out the same at `%batch` and `%workers`, both known to be in range."""
        value: Integer = 0
        for first, until, workspace in self._parts():
            total = workspace.total(b, "%workers")
            if until:
                total = b.choose(b.compare("slt", "%batch", until), total, 0)
            if first > 1:
                total = b.choose(b.compare("sge", "%batch", first), total, 0)
            value = b.maximum(value, total) if value != 0 else total
        return str(value)

    # Functions ----------------------------------------------------------------------------------------------
    def write(self) -> str:
        """All functions of this execution."""
        parts = []
        for routine in self.routines:
            for number, target in enumerate(self.targets):
                b = self.builder()
                routine.fill(b, target.name)
                symbol = f"internal void @{routine.symbol}_fill{number}(ptr %frame, i64 %batch, ptr %workspace)"
                parts.append(define(symbol, b, "void"))
                b = self.builder()
                routine.divide(b, target.name)
                symbol = f"internal void @{routine.symbol}_divide{number}(i64 %batch, ptr %workspace)"
                parts.append(define(symbol, b, "void"))
        parts.append(self._needed())
        parts.append(self._execute())
        return "\n".join(parts)

    def builder(self) -> Builder:
        return Builder(self.targets[-1])

    def _needed(self) -> str:
        b = self.builder()
        result = self.needed(b)
        return define(f"internal i64 @{self.name}_needed(i64 %batch, i64 %workers)", b, f"i64 {result}")

    def _execute(self) -> str:
        b = self.builder()
        b.store("i64", 0, b.offset("%workspace", ERROR), 8)
        b.store("i64", "%workers", b.offset("%workspace", WORKERS), 8)
        alone = b.value("icmp eq ptr %run, null")
        ready = b.label("ready")
        counts = []
        for routine in self.routines:
            following = None
            if routine is not self.routines[-1]:
                here, following = b.label("here"), b.label("other")
                b.emit(f"br i1 {routine.batches.condition(b)}, label %{here}, label %{following}")
                b.start_block(here)
            cases = [b.label("variant") for _ in self.targets]
            table = " ".join(f"i64 {number}, label %{label}" for number, label in enumerate(cases[:-1]))
            b.emit(f"switch i64 %variant, label %{cases[-1]} [ {table} ]")
            for number, (label, target) in enumerate(zip(cases, self.targets, strict=True)):
                b.start_block(label)
                b.emit(f"call void @{routine.symbol}_fill{number}(ptr %frame, i64 %batch, ptr %workspace)")
                divide, done = b.label("divide"), b.label("divided")
                b.emit(f"br i1 {alone}, label %{done}, label %{divide}")
                b.start_block(divide)
                b.emit(f"call void @{routine.symbol}_divide{number}(i64 %batch, ptr %workspace)")
                b.emit(f"br label %{done}")
                b.start_block(done)
                b.emit(f"br label %{ready}")
                counts.append(f"[ {routine.entries(target.name)}, %{done} ]")
            if following is not None:
                b.start_block(following)
        b.start_block(ready)
        entries = b.value(f"phi i64 {', '.join(counts)}")
        table_place = b.offset("%workspace", CONTROL_BYTES)
        walk, share, over = b.label("walk"), b.label("share"), b.label("over")
        b.emit(f"br i1 {alone}, label %{walk}, label %{share}")
        b.start_block(walk)
        scratch = b.load("ptr", b.offset("%workspace", SCRATCH), 8)
        b.emit(f"call void @{self.library}_walk(ptr {table_place}, i64 {entries}, ptr {scratch})")
        b.emit(f"br label %{over}")
        b.start_block(share)
        shared = b.value(
            f"call i32 @{self.library}_share(ptr %workspace, ptr {table_place}, i64 {entries}, ptr %run, ptr %pool)")
        b.emit(f"br label %{over}")
        b.start_block(over)
        code = b.value(f"phi i32 [ 0, %{walk} ], [ {shared}, %{share} ]")
        wrong = b.compare("ne", b.load("i64", b.offset("%workspace", ERROR), 8), 0)
        code = b.value(f"select i1 {wrong}, i32 {Code.EINDEX:d}, i32 {code}")
        if any(routine.kept for routine in self.routines):
            self._commit(b, code)
        head = (f"internal i32 @{self.name}_execute(ptr %frame, i64 %variant, i64 %batch, i64 %workers, "
                "ptr %workspace, ptr %run, ptr %pool)")
        return define(head, b, f"i32 {code}")

    def _commit(self, b: Builder, code: str) -> None:
        """Where all has gone well, copies what was kept back."""
        def copies() -> None:
            after = b.label("committed")
            for routine in self.routines:
                following = None
                if routine is not self.routines[-1]:
                    here, following = b.label("here"), b.label("other")
                    b.emit(f"br i1 {routine.batches.condition(b)}, label %{here}, label %{following}")
                    b.start_block(here)
                routine.commit(b)
                b.emit(f"br label %{after}")
                if following is not None:
                    b.start_block(following)
            b.start_block(after)

        b.when(b.value(f"icmp eq i32 {code}, 0"), copies)

    def symbols(self) -> list[str]:
        """Kernels that the functions here or `prepare` call."""
        return sorted({
            called.symbol for routine in self.routines for target in self.targets
            for called in routine.kernels[target.name]
        })


def define(head: str, b: Builder, result: str) -> str:
    """The text of a finished function."""
    body = [*b.prologue, *b.lines, f"  ret {result}"]
    return "\n".join([f"define {head} #0 {{", "entry:", *body, "}", ""])
