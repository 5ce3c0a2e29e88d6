"""One plan inside an exported library: its kernels for each instruction set, and the functions that lay out a run.

What `runtime.bound.Bound` does in Python when a plan meets its sizes is done here by instructions, with the batch as
the only variable. `fill` writes the table of entries, every kernel with all its items as one piece; `divide` then cuts
them into pieces for several workers, by the rule that Python uses.

Kernels that read nothing but weights run once, in `prepare`: their results lie in the prepared block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torturous.codegen.builder import Builder, Integer, looping
from torturous.codegen.emitter import literal
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated, generate
from torturous.codegen.table import ARGUMENTS, BARRIER, ENTRY_BYTES, KERNEL, PIECES
from torturous.codegen.target import Target
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Repetition
from torturous.compiler.memory import read_by, written_by
from torturous.compiler.plan import Plan
from torturous.compiler.sizes import Size, Variable, product
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.core.unknowns import Unknown
from torturous.ir.record import describe_place, slot_ordinal
from torturous.native.batches import EVERY, Batches
from torturous.native.formulas import Formulas
from torturous.native.recording import InBatch, Program, Ratio
from torturous.native.sharing import write_shares
from torturous.native.stretches import Called, Stretch, behind_steps, pointers_at, stretches, written_in_loops
from torturous.native.walker import ERROR, SCRATCH, STRIDE
from torturous.native.workspace import BATCH, Places, Workspace, candidates, polynomial
from torturous.runtime.slots import converter, pack_format

ALL_ITEMS = 1 << 62
"""Items per piece, more than any kernel has: one piece is everything."""


@dataclass(frozen=True)
class Place:
    """Where a value lies: so many bytes into the block that pointer number `pointer` of the call leads to. While
    weights are prepared, pointers below zero lead to tensors of the file."""

    pointer: int
    offset: int = 0


def kernels_of(name: str, plan: Plan, target: Target) -> list[Called]:
    """A plan's kernels for a target, in order."""
    kernels = []
    repeated = {level: each.repetition for each in plan.memory.repeated for level in range(each.first, each.past)}
    for level, group in enumerate(plan.memory.levels):
        for kernel in group:
            generated = generate(kernel, target)
            description = f"{'+'.join(kernel.names)} at {describe_place(kernel.places[0])}"
            kernels.append(Called(generated, f"{name}_{generated.symbol}", description, level,
                                  frozenset(read_by(kernel)), frozenset(written_by(kernel)), repeated.get(level)))
    return kernels


class Routine:
    """A plan, where its leaves and outputs lie, and its kernels for each target."""

    def __init__(
        self, symbol: str, program: Program, plan: Plan, kernels: Mapping[str, Sequence[Called]],
        inputs: frozenset[Node] | None = None, batches: Batches = EVERY,
    ) -> None:
        """`kernels` are given per target's name. `inputs` are leaves that are no weights; None where nothing is
        prepared."""
        self.symbol = symbol
        self.program = program
        self.plan = plan
        self.kernels = kernels
        self.batches = batches
        self.prepared = [] if inputs is None else self._preparable(inputs)
        """Numbers of the kernels that read nothing but weights."""
        first = next(iter(kernels.values()))
        self.constants = [node for number in self.prepared for node in sorted(first[number].writes, key=_order)]
        """What they compute."""
        self.places: dict[Node, Place] = {}
        self.library = symbol
        """What the symbols begin with that all routines of a library share."""
        self.numbers: Place | None = None
        """Where the doubles lie that a run is given, which numbers are worked out from."""
        self.kept: list[tuple[Node, Place]] = []
        """Outputs that are kept back until the end, and where they go then."""

    # What runs when -----------------------------------------------------------------------------------------
    def _preparable(self, inputs: frozenset[Node]) -> list[int]:
        outputs = set(self.plan.outputs)
        in_loops = written_in_loops(next(iter(self.kernels.values())))
        varying = inputs | in_loops
        chosen = []
        for number, versions in enumerate(zip(*self.kernels.values(), strict=True)):
            first = versions[0]
            fixed = first.repetition is None and not (first.reads & varying) and not first.writes & (outputs | in_loops)
            if fixed and all(self._is_constant(version.generated) for version in versions):
                chosen.append(number)
            else:
                varying |= first.writes
        return chosen

    def _is_constant(self, kernel: Generated) -> bool:
        """Whether a kernel needs neither the batch nor memory to work in, and cannot fail."""
        for argument in kernel.arguments:
            if argument.kind == "size" or argument.kind == "errors":
                return False
            if argument.kind == "slot":
                number = self.program.slots[slot_ordinal(argument.what)]
                if isinstance(number, Unknown) or not isinstance(number, (bool, int, float)):
                    return False
        return kernel.scratch.constant == 0

    def stretches(self, target: str) -> list[Stretch]:
        """The kernels of a run by the loops that they belong to."""
        return list(stretches(self.running(target), self.in_batch))

    def entries(self, target: str) -> int:
        """How many entries a run has."""
        return sum(stretch.steps * len(stretch.kernels) for stretch in self.stretches(target))

    def running(self, target: str) -> list[Called]:
        """The kernels of a run, which begins when weights are prepared."""
        prepared = set(self.prepared)
        return [kernel for number, kernel in enumerate(self.kernels[target]) if number not in prepared]

    def preparing(self, target: str) -> list[Called]:
        return [self.kernels[target][number] for number in self.prepared]

    # Memory -------------------------------------------------------------------------------------------------
    def workspace(self) -> Workspace:
        """What a run needs on any of the targets."""
        runs = [self.running(target) for target in self.kernels]
        laid_out = [self.stretches(target) for target in self.kernels]
        constant = set(self.constants)
        slots = []
        for index, slot in enumerate(self.plan.memory.slots):
            nodes = [node for node, number in self.plan.memory.slot_of.items() if number == index]
            used = any(node not in constant for node in nodes)
            slots.append(candidates(map(self.in_batch, slot.sizes)) if used else ())
        return Workspace(
            kernels=max(map(self.entries, self.kernels)),
            arguments=max(sum(stretch.steps * stretch.words for stretch in run) for run in laid_out),
            slots=tuple(slots),
            kept=tuple(self.nbytes(node) for node, _ in self.kept),
            scratch=candidates(self.in_batch(called.generated.scratch) for run in runs for called in run),
        )

    def nbytes(self, node: Node) -> Size:
        """A value's size as a polynomial in the batch."""
        return self.in_batch(product(node.shape) * node.dtype.itemsize)

    def in_batch(self, size: Size) -> Size:
        """A size of the plan as a polynomial in the batch; slots count as 0, as they do in `Bound`."""

        def value(variable: Variable) -> Size:
            kind, number = variable
            if kind == "slot":
                return Size.of(0)
            function = self.program.variables[number]
            return BATCH * function.factor + function.constant

        total = Size.of(0)
        for monomial, factor in size.terms.items():
            total = total + product(map(value, monomial)) * factor
        return total

    # Instructions -------------------------------------------------------------------------------------------
    def fill(self, b: Builder, target: str) -> None:
        """Writes the body of `void (ptr frame, i64 batch, ptr workspace)`, which lays out a run for one worker."""
        places = self.workspace().places(b)
        b.store("ptr", b.offset("%workspace", places.scratch), b.offset("%workspace", SCRATCH), 8)
        b.store("i64", places.stride, b.offset("%workspace", STRIDE), 8)
        numbers = _Numbers(self, b, self._pointers(b, places))
        table, entry = places.tables, places.entries
        with looping(b, 0, self.entries(target)) as number:
            common = b.offset("%workspace", b.add(entry, b.mul(number, ENTRY_BYTES)))
            b.store("i64", 1, b.offset(common, 8 * PIECES), 8)
            b.store("i64", 1, b.offset(common, 8 * BARRIER), 8)
        for stretch in self.stretches(target):
            if stretch.repetition is None:
                self._fill(b, stretch, numbers, "%workspace", "%workspace", table, entry)
            else:
                with looping(b, 0, stretch.steps) as step:
                    inside = numbers.within(stretch.repetition, stretch.steps, step)
                    tables = b.offset("%workspace", b.mul(step, 8 * stretch.words))
                    entries = b.offset("%workspace", b.mul(step, ENTRY_BYTES * len(stretch.kernels)))
                    self._fill(b, stretch, inside, tables, entries, table, entry)
            table += 8 * stretch.steps * stretch.words
            entry += ENTRY_BYTES * stretch.steps * len(stretch.kernels)

    def _fill(
        self, b: Builder, stretch: Stretch, numbers: _Numbers, tables: str, entries: str, table: int, entry: int
    ) -> None:
        """Lays out one step of a stretch, `table` and `entry` bytes behind where the step counts them from."""
        for number, called in enumerate(stretch.kernels):
            numbers.write(called.generated, tables, table)
            b.store("ptr", f"@{called.symbol}", b.offset(entries, entry + 8 * KERNEL), 8)
            b.store("ptr", b.offset(tables, table), b.offset(entries, entry + 8 * ARGUMENTS), 8)
            if not stretch.ends_level(number):
                b.store("i64", 0, b.offset(entries, entry + 8 * BARRIER), 8)
            table += 8 * len(called.generated.arguments)
            entry += ENTRY_BYTES

    def divide(self, b: Builder, target: str) -> None:
        """Writes the body of `void (i64 batch, ptr workspace)`, which cuts what `fill` laid out into pieces."""
        places = self.workspace().places(Builder(b.target))
        table, entry = places.tables, places.entries
        known: dict[Size, Integer] = {}

        def size(of: Size) -> Integer:
            return polynomial(b, self.in_batch(of), known)

        for stretch in self.stretches(target):
            first, written = table, []
            for number, called in enumerate(stretch.kernels):
                arguments, place = called.generated.arguments, entry + ENTRY_BYTES * number
                if any(argument.kind == "granule" for argument in arguments):
                    words = write_shares(b, called.generated, size, self.library, b.offset("%workspace", place),
                                         b.offset("%workspace", first))
                    written += [(first + 8 * word, 8 * stretch.words) for word in words]
                    written.append((place + 8 * PIECES, ENTRY_BYTES * len(stretch.kernels)))
                first += 8 * len(arguments)
            if stretch.steps > 1:  # A loop's steps are alike.
                with looping(b, 1, stretch.steps) as step:
                    for place, stride in written:
                        word = b.load("i64", b.offset("%workspace", place), 8)
                        b.store("i64", word, b.offset("%workspace", b.add(place, b.mul(step, stride))), 8)
            table += 8 * stretch.steps * stretch.words
            entry += ENTRY_BYTES * stretch.steps * len(stretch.kernels)

    def prepare(self, b: Builder, target: str) -> None:
        """Writes the calls that compute what reads only weights; `%frame` leads to the prepared block."""
        calls = self.preparing(target)
        if not calls:
            return
        longest = max(len(called.generated.arguments) for called in calls)
        table = b.hoisted(f"alloca [{max(longest, 1)} x i64], align 8")
        numbers = _Numbers(self, b, self._pointers(b, None))
        for called in calls:
            numbers.write(called.generated, table, 0)
            b.emit(f"call void @{called.symbol}(ptr {table}, i64 0, i64 1, ptr {table})")

    def _pointers(self, b: Builder, places: Places | None) -> Mapping[Node, str]:
        """Every buffer's address; without `places` only of what lies in the caller's blocks."""
        pointers: dict[Node, str] = {}
        bases: dict[int, str] = {}
        for node, place in self.places.items():
            if place.pointer < 0 and places is not None:
                continue
            if place.pointer not in bases:
                base, number = ("%frame", place.pointer) if place.pointer >= 0 else ("%sources", ~place.pointer)
                bases[place.pointer] = b.load("ptr", b.offset(base, self.pointer_bytes(b) * number), 4)
            pointers[node] = b.offset(bases[place.pointer], place.offset)
        if places is not None:
            for node, slot in self.plan.memory.slot_of.items():
                if node not in pointers:
                    pointers[node] = b.offset("%workspace", places.slots[slot])
            for (node, _), start in zip(self.kept, places.kept, strict=True):
                pointers[node] = b.offset("%workspace", start)
        return pointers

    @staticmethod
    def pointer_bytes(b: Builder) -> int:
        return b.target.pointer_bits // 8

    def read_by_runs(self) -> set[Node]:
        """What kernels of a run read, on any target, loops' whole buffers included."""
        runs = [called for target in self.kernels for called in self.running(target)]
        return {node for called in runs for node in called.reads} | behind_steps(runs)

    def argument_words(self, kernel: Generated, block: int, sources: Sequence[int]) -> list[int]:
        """The argument table of a kernel that reads only weights, with block and unkept tensors at these addresses."""
        words = []
        for argument in kernel.arguments:
            if argument.kind == "buffer":
                place = self.places[argument.what]
                words.append(sources[~place.pointer] if place.pointer < 0 else block + place.offset)
            elif argument.kind == "granule":
                words.append(ALL_ITEMS)
            elif argument.kind == "group":
                words.append(kernel.work.divided[argument.what].most)
            else:
                number = self.program.slots[slot_ordinal(argument.what)]
                assert isinstance(number, (bool, int, float)) and argument.dtype is not None
                words.append(_word(number, argument.dtype))
        return words

    def commit(self, b: Builder) -> None:
        """Writes the copies of what was kept back to where it belongs."""
        places = self.workspace().places(b)
        known: dict[Size, Integer] = {}
        for (node, place), start in zip(self.kept, places.kept, strict=True):
            base = b.load("ptr", b.offset("%frame", self.pointer_bytes(b) * place.pointer), 4)
            length = polynomial(b, self.nbytes(node), known)
            move(b, b.offset(base, place.offset), b.offset("%workspace", start), length)


class _Numbers:
    """Writes argument tables: addresses, sizes and slots."""

    def __init__(self, routine: Routine, b: Builder, pointers: Mapping[Node, str]) -> None:
        self.routine = routine
        self.b = b
        self.pointers = pointers
        self._sizes: dict[Size, Integer] = {}
        self._words: dict[Argument, Integer] = {}

    def within(self, repetition: Repetition, steps: int, step: Integer) -> _Numbers:
        """The same at a step of a loop. What it works out holds only there."""
        known = dict(self._sizes)

        def size(of: Size) -> Integer:
            return polynomial(self.b, self.routine.in_batch(of), known)

        inside = _Numbers(self.routine, self.b, pointers_at(self.b, repetition, steps, step, self.pointers, size))
        inside._sizes, inside._words = known, dict(self._words)
        return inside

    def write(self, kernel: Generated, base: str, table: int) -> None:
        """A kernel's table at `table` bytes behind `base`, all items being one piece."""
        b = self.b
        for position, argument in enumerate(kernel.arguments):
            word = b.offset(base, table + 8 * position)
            if argument.kind == "buffer":
                b.store("ptr", self.pointers[argument.what], word, 8)
            elif argument.kind == "errors":
                b.store("ptr", b.offset("%workspace", ERROR), word, 8)
            elif argument.kind == "group":
                b.store("i64", kernel.work.divided[argument.what].most, word, 8)
            else:
                b.store("i64", self._number(argument), word, 8)

    def _number(self, argument: Argument) -> Integer:
        if argument.kind == "granule":
            return ALL_ITEMS
        if argument.kind == "size":
            return self._function(self.routine.program.variables[argument.what])
        assert argument.kind == "slot" and argument.dtype is not None
        known = self._words.get(argument)
        if known is None:
            known = self._words[argument] = self._slot(argument.what, argument.dtype)
        return known

    def _function(self, function: InBatch) -> Integer:
        return polynomial(self.b, BATCH * function.factor + function.constant, self._sizes)

    def _slot(self, code: int, dtype: DType) -> Integer:
        """A slot's eight bytes, as `Bound` packs them."""
        number = self.routine.program.slots[slot_ordinal(code)]
        if isinstance(number, Unknown):
            return self._packed(self._formulas().value(number.expression), dtype)
        if number is None or (isinstance(number, InBatch) and dtype is dtypes.bool_):
            raise UnsupportedError(
                f"cannot export: a number that {self._users(code)} is given depends on the batch in a way "
                "that is neither affine nor a quotient of such; compute it from tensors")
        if isinstance(number, Ratio):
            parts = [self.b.value(f"sitofp i64 {self._function(part)} to double")
                     for part in (number.numerator, number.denominator)]
            scale = literal(dtypes.float64, number.scale)
            quotient = self.b.value(f"fdiv double {parts[0]}, {parts[1]}")
            return self._packed(self.b.value(f"fmul double {scale}, {quotient}"), dtype)
        if not isinstance(number, InBatch):
            return _word(number, dtype)
        b = self.b
        whole = self._function(number)
        if not dtype.is_floating_point:
            return whole
        if dtype is dtypes.float64:
            return self._packed(b.value(f"sitofp i64 {whole} to double"), dtype)
        # As by way of double, from which numbers of this size differ in nothing.
        if b.target.pointer_bits == 32:
            value = b.value(f"sitofp i32 {b.value(f'trunc i64 {whole} to i32')} to float")
        else:
            value = b.value(f"sitofp i64 {whole} to float")
        return b.value(f"zext i32 {b.value(f'bitcast float {value} to i32')} to i64")

    def _packed(self, value: str, dtype: DType) -> Integer:
        """A double as a slot's eight bytes."""
        b = self.b
        if dtype is dtypes.float64:
            return b.value(f"bitcast double {value} to i64")
        if not dtype.is_floating_point:
            return b.value(f"fptosi double {value} to i64")
        bits = b.value(f"bitcast float {b.value(f'fptrunc double {value} to float')} to i32")
        return b.value(f"zext i32 {bits} to i64")

    def _formulas(self) -> Formulas:
        """What writes numbers that an optimizer works out for each step."""

        def variables() -> str:
            place = self.routine.numbers
            assert place is not None
            base = self.b.load("ptr", self.b.offset("%frame", Routine.pointer_bytes(self.b) * place.pointer), 4)
            return self.b.offset(base, place.offset)

        return Formulas(self.b, variables, f"{self.routine.library}_power")

    def _users(self, code: int) -> str:
        """The operations that read a slot."""
        nodes = [node for node in self.routine.plan.graph.nodes if code in node.operands]
        return " and ".join(f"{node.op.name} at {describe_place(node.place)}" for node in nodes)


def _word(number: bool | int | float, dtype: DType) -> int:
    """A slot's eight bytes as an integer."""
    packed = struct.pack("<" + pack_format(dtype), converter(dtype)(number))
    return int.from_bytes(packed, "little", signed=True)


def move(b: Builder, target: str, source: str, nbytes: Integer) -> None:
    """Copies memory."""
    b.emit(f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)")


def place_constants(routines: Iterable[Routine], start: int) -> int:
    """Places what the routines' kernels compute from weights in the prepared block, from `start` on; gives the end."""
    for routine in routines:
        for node in routine.constants:
            length = routine.nbytes(node).constant
            assert length is not None
            routine.places[node] = Place(0, start)
            start += -(-(length + 64) // 64) * 64
    return start


def _order(node: Node) -> tuple[int, str]:
    return node.number, node.op.name
