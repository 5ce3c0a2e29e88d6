"""The functions of an exported training step, as LLVM IR.

All that changes from step to step lies in the *state*, a block of the caller's: parameters, buffers, the optimizer's
tensors, its count of steps, the random generator. `grad` computes a loss and gradients, `apply` changes parameters by
gradients, `step` does both. A call that fails leaves the state as it was (but a pool that leaves out pieces of the
second half of `step` leaves it after the first).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torturous.codegen.builder import Builder
from torturous.core.mersenne import BLOCK
from torturous.core.unknowns import Expression, Path
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
from torturous.native.codes import Code
from torturous.native.describe import Value
from torturous.native.entry import Library, alignments, common, refuse_workers
from torturous.native.execution import Execution, define
from torturous.native.formulas import Formulas
from torturous.native.reader import bytes_constant
from torturous.native.routine import move
from torturous.native.walker import MOST_WORKERS
from torturous.native.weights import ALIGNMENT, SUM_DIGITS, Weight, state_file

STEP = "torturous.step"
GENERATOR = "torturous.generator"
_MULTIPLIER = 1812433253


@dataclass(frozen=True)
class Way:
    """One way through the optimizer's step."""

    path: Path
    """The comparisons that lead to it."""
    execution: Execution
    numbers: Sequence[Expression]
    """What the optimizer's numbers are afterwards."""


@dataclass(frozen=True)
class Training:
    """What the functions of a step need to know besides the library."""

    library: Library
    grad: Execution
    ways: Sequence[Way]
    """Through the optimizer's step; at each step the comparisons lead to one of them."""
    numbers: Sequence[str]
    """The optimizer's own numbers, by their names in the state."""
    inputs: Sequence[Value]
    loss: Value
    gradient_bytes: int
    gradient_alignment: int
    rates: int
    """How many learning rates there are: one for each parameter group."""

    def weight(self, name: str) -> Weight:
        return next(weight for weight in self.library.weights if weight.name == name)

    @property
    def executions(self) -> list[Execution]:
        return [self.grad, *(way.execution for way in self.ways)]

    def nbytes(self, batch: int, workers: int) -> int:
        """Bytes of workspace for any of the calls."""
        return max(execution.nbytes(batch, workers) for execution in self.executions) + self.kept_gradients

    @property
    def kept_gradients(self) -> int:
        """Bytes at the workspace's end where `step` keeps gradients."""
        return -(-(self.gradient_bytes + ALIGNMENT) // ALIGNMENT) * ALIGNMENT

    def c_expression(self, prefix: str) -> str:
        text = f"({self.executions[0].c_expression(prefix)})"
        for execution in self.executions[1:]:
            text = f"{prefix}_LARGER_({text}, ({execution.c_expression(prefix)}))"
        return f"{text} + {self.kept_gradients}"

    @property
    def file_bytes(self) -> int:
        """Of the file that `state_export` writes."""
        header, _, offsets = state_file(self.library.weights)
        return len(header) + offsets[-1] + self.library.weights[-1].nbytes


def training(t: Training) -> str:
    """The whole module."""
    parts = [_needed(t), _workspace_bytes(t), _state_bytes(t), _state_init(t), _state_export(t), _seed(t)]
    for parallel in (False, True):
        parts += [_grad(t, parallel), _apply(t, parallel), _step(t, parallel)]
    parts.append(_apply_inside(t))
    return common(t.library, t.executions, parts)


# Memory -----------------------------------------------------------------------------------------------------
def _needed(t: Training) -> str:
    """Bytes of workspace without the gradients that `step` keeps."""
    b = t.library.builder()
    largest = None
    for execution in t.executions:
        needed = b.value(f"call i64 @{execution.name}_needed(i64 %batch, i64 %workers)")
        largest = needed if largest is None else str(b.maximum(largest, needed))
    return define(f"internal i64 @{t.library.name}_needed(i64 %batch, i64 %workers)", b, f"i64 {largest}")


def _workspace_bytes(t: Training) -> str:
    b, library = t.library.builder(), t.library
    wrong = b.compare("slt", "%batch", 1)
    for condition in (b.compare("sgt", "%batch", library.max_batch), b.compare("slt", "%workers", 1),
                      b.compare("sgt", "%workers", MOST_WORKERS)):
        wrong = b.value(f"or i1 {wrong}, {condition}")
    needed = b.add(b.value(f"call i64 @{library.name}_needed(i64 %batch, i64 %workers)"), t.kept_gradients)
    result = b.choose(wrong, 0, needed)
    if library.size_type != "i64":
        result = b.value(f"trunc i64 {b.choose(b.compare('ult', result, 1 << 32), result, 0)} to {library.size_type}")
    head = f"{library.size_type} @{library.name}_workspace_bytes(i64 %batch, i64 %workers)"
    return define(head, b, f"{library.size_type} {result}")


def _state_bytes(t: Training) -> str:
    size = t.library.size_type
    return define(f"{size} @{t.library.name}_state_bytes()", t.library.builder(), f"{size} {t.library.block_bytes}")


def _check_workspace(t: Training, b: Builder, batch: str, workers: str) -> str:
    """Refuses one that is too small; gives the place of kept gradients."""
    needed = b.value(f"call i64 @{t.library.name}_needed(i64 {batch}, i64 {workers})")
    refuse(b, b.compare("ult", sized(b, "%workspace_bytes"), b.add(needed, t.kept_gradients)), Code.ESIZE)
    return b.offset("%workspace", needed)


# State ------------------------------------------------------------------------------------------------------
def _state_init(t: Training) -> str:
    """Reads a file; what it does not hold of the optimizer's state is zero, and of the generator's seeded."""
    b, library = t.library.builder(), t.library
    name, size = library.name, library.size_type
    variant = b.value(f"call i64 @{name}_variant()")
    refuse(b, b.compare("slt", variant, 0), Code.ETARGET)
    refuse_null(b, ["%file", "%state"])
    refuse_misaligned(b, [("%state", ALIGNMENT)])
    refuse(b, b.compare("ult", sized(b, "%state_bytes"), library.block_bytes), Code.ESIZE)
    refuse_code(b, b.value(f"call i32 @{name}_read(ptr %file, i64 {sized(b, '%file_bytes')}, ptr %state, ptr null)"))
    generator = b.offset("%state", t.weight(GENERATOR).offset)
    position = b.value(f"zext i32 {b.load('i32', b.offset(generator, 4 * BLOCK), 4)} to i64")
    refuse(b, b.compare("ugt", position, BLOCK), Code.EWEIGHTS)
    fresh, ready = b.label("seed"), b.label("ready")
    b.emit(f"br i1 {b.compare('sge', '%seed', 0)}, label %{fresh}, label %{ready}")
    b.start_block(fresh)
    b.emit(f"call void @{name}_seed(ptr {generator}, i64 %seed)")
    b.emit(f"br label %{ready}")
    b.start_block(ready)
    mark_block(b, "%state", library.identity, variant)
    head = f"signext i32 @{name}_state_init(ptr %state, {size} %state_bytes, ptr %file, {size} %file_bytes, i64 %seed)"
    return define(head, b, f"i32 {Code.OK:d}")


def _seed(t: Training) -> str:
    """The Mersenne Twister's block for a seed, as `core.mersenne` makes it."""
    b = t.library.builder()
    first = b.value("trunc i64 %seed to i32")
    b.store("i32", first, "%generator", 4)
    loop = b.begin_loop(1, BLOCK, 1, [("i32", first)])
    (previous,) = loop.carried
    mixed = b.value(f"xor i32 {previous}, {b.value(f'lshr i32 {previous}, 30')}")
    product = b.value(f"mul i32 {mixed}, {_MULTIPLIER}")
    word = b.value(f"add i32 {product}, {b.value(f'trunc i64 {loop.index} to i32')}")
    b.store("i32", word, b.offset("%generator", b.mul(loop.index, 4)), 4)
    b.end_loop(loop, [word])
    b.store("i32", 0, b.offset("%generator", 4 * BLOCK), 4)
    return define(f"internal void @{t.library.name}_seed(ptr %generator, i64 %seed)", b, "void")


def _state_export(t: Training) -> str:
    """Writes a safetensors file with everything in the state."""
    b, library = t.library.builder(), t.library
    name, size = library.name, library.size_type
    header, digits, offsets = state_file(library.weights)
    refuse_null(b, ["%state", "%file"])
    refuse_misaligned(b, [("%state", ALIGNMENT)])
    refuse_foreign(b, "%state", library.identity, len(library.targets))
    refuse(b, b.compare("ult", sized(b, "%file_bytes"), t.file_bytes), Code.ESIZE)
    move(b, "%file", f"@{name}_file_header", len(header))
    data = b.offset("%file", len(header))
    for weight, offset in zip(library.weights, offsets, strict=True):
        move(b, b.offset(data, offset), b.offset("%state", weight.offset), weight.nbytes)
    sums = b.value(f"call {{ i64, i64 }} @{name}_sums(ptr {data}, i64 {t.file_bytes - len(header)})")
    for position in range(2):
        word = b.value(f"extractvalue {{ i64, i64 }} {sums}, {position}")
        half = SUM_DIGITS // 2
        place = b.offset("%file", digits + position * half)
        loop = b.begin_loop(0, half, 1, [("i64", word)])
        (left,) = loop.carried
        digit = b.value(f"lshr i64 {left}, 60")
        letter = b.choose(b.compare("ult", digit, 10), b.add(digit, 48), b.add(digit, 87))
        b.store("i8", b.value(f"trunc i64 {letter} to i8"), b.offset(place, loop.index), 1)
        b.end_loop(loop, [b.value(f"shl i64 {left}, 4")])
    constant = bytes_constant(f"{name}_file_header", header)
    head = f"signext i32 @{name}_state_export(ptr %state, ptr %file, {size} %file_bytes)"
    return "\n".join([constant, define(head, b, f"i32 {Code.OK:d}")])


# Steps ------------------------------------------------------------------------------------------------------
def _frame(t: Training, b: Builder, pointers: Sequence[str]) -> str:
    frame = b.hoisted(f"alloca [{len(pointers)} x ptr], align 8")
    for position, pointer in enumerate(pointers):
        b.store("ptr", pointer, b.offset(frame, t.library.targets[-1].pointer_bits // 8 * position), 4)
    return frame


def _data(t: Training) -> tuple[list[Value], list[str]]:
    values = [*t.inputs, t.loss]
    return values, [f"%value{position}" for position in range(len(values))]


def _check_state(t: Training, b: Builder) -> str:
    refuse_null(b, ["%state", "%workspace"])
    refuse_misaligned(b, [("%state", ALIGNMENT), ("%workspace", ALIGNMENT)])
    return refuse_foreign(b, "%state", t.library.identity, len(t.library.targets))


def _head(t: Training, function: str, middle: Sequence[str], parallel: bool) -> str:
    parameters = ["ptr %state", *middle] + ["i64 %workers"] * parallel
    parameters += ["ptr %workspace", f"{t.library.size_type} %workspace_bytes"]
    parameters += ["ptr %run", "ptr %pool"] * parallel
    return f"signext i32 @{t.library.name}_{function}{'_parallel' * parallel}({', '.join(parameters)})"


def _pool(parallel: bool) -> str:
    return "ptr %run, ptr %pool" if parallel else "ptr null, ptr null"


def _grad(t: Training, parallel: bool) -> str:
    b = t.library.builder()
    values, pointers = _data(t)
    variant = _check_state(t, b)
    refuse_null(b, [*pointers, "%gradients"])
    refuse_misaligned(b, [*alignments(values, pointers), ("%gradients", t.gradient_alignment)])
    refuse_batch(b, t.library.max_batch)
    if parallel:
        refuse_workers(b)
    workers = "%workers" if parallel else "1"
    _check_workspace(t, b, "%batch", workers)
    frame = _frame(t, b, ["%state", *pointers, "%gradients"])
    code = b.value(f"call i32 @{t.grad.name}_execute(ptr {frame}, i64 {variant}, i64 %batch, i64 {workers}, "
                   f"ptr %workspace, {_pool(parallel)})")
    middle = [*(f"ptr {pointer}" for pointer in pointers), "ptr %gradients", "i64 %batch"]
    return define(_head(t, "grad", middle, parallel), b, f"i32 {code}")


def _rates(t: Training) -> str:
    return "double %rate" if t.rates == 1 else "ptr %rates"


def _check_rates(t: Training, b: Builder) -> str:
    """Where the learning rates lie."""
    if t.rates == 1:
        place = b.hoisted("alloca double, align 8")
        b.store("double", "%rate", place, 8)
        return place
    refuse_null(b, ["%rates"])
    refuse_misaligned(b, [("%rates", 8)])
    return "%rates"


def _apply_inside(t: Training) -> str:
    """Changes parameters by gradients, and counts the step."""
    b = t.library.builder()
    count_place = b.offset("%state", t.weight(STEP).offset)
    count = b.load("i64", count_place, 8)
    places = [b.offset("%state", t.weight(name).offset) for name in t.numbers]
    known = [b.load("double", b.offset("%rates", 8 * position), 8) for position in range(t.rates)]
    known.append(b.value(f"sitofp i64 {count} to double"))
    known += [b.load("double", place, 8) for place in places]
    numbers = b.hoisted(f"alloca [{len(known)} x double], align 8")
    for position, number in enumerate(known):
        b.store("double", number, b.offset(numbers, 8 * position), 8)
    frame = _frame(t, b, ["%state", "%gradients", numbers])
    formulas = Formulas(b, lambda: numbers, f"{t.library.name}_power")
    after, codes = b.label("applied"), []

    def take(way: Way) -> None:
        code = b.value(f"call i32 @{way.execution.name}_execute(ptr {frame}, i64 %variant, i64 1, i64 %workers, "
                       "ptr %workspace, ptr %run, ptr %pool)")

        def count_step() -> None:
            for place, value in zip(places, [formulas.value(number) for number in way.numbers], strict=True):
                b.store("double", value, place, 8)
            b.store("i64", b.add(count, 1), count_place, 8)

        b.when(b.value(f"icmp eq i32 {code}, 0"), count_step)
        codes.append(f"[ {code}, %{b.block} ]")
        b.emit(f"br label %{after}")

    _choose(b, formulas, t.ways, 0, take)
    b.start_block(after)
    code = b.value(f"phi i32 {', '.join(codes)}")
    head = (f"internal i32 @{t.library.name}_apply_inside(ptr %state, ptr %gradients, ptr %rates, i64 %variant, "
            "i64 %workers, ptr %workspace, ptr %run, ptr %pool)")
    return define(head, b, f"i32 {code}")


def _choose(b: Builder, formulas: Formulas, ways: Sequence[Way], depth: int, take: Callable[[Way], None]) -> None:
    """Writes the comparisons from `depth` on that lead to one of the ways; each ends in `take`'s own branch."""
    if len(ways) == 1:
        take(ways[0])
        return
    (condition, _), yes, no = ways[0].path[depth], b.label("yes"), b.label("no")
    b.emit(f"br i1 {formulas.holds(condition)}, label %{yes}, label %{no}")
    for answer, label in ((True, yes), (False, no)):
        b.start_block(label)
        _choose(b, formulas, [way for way in ways if way.path[depth][1] is answer], depth + 1, take)


def _apply(t: Training, parallel: bool) -> str:
    b = t.library.builder()
    variant = _check_state(t, b)
    refuse_null(b, ["%gradients"])
    refuse_misaligned(b, [("%gradients", t.gradient_alignment)])
    rates = _check_rates(t, b)
    if parallel:
        refuse_workers(b)
    workers = "%workers" if parallel else "1"
    _check_workspace(t, b, "1", workers)
    code = b.value(f"call i32 @{t.library.name}_apply_inside(ptr %state, ptr %gradients, ptr {rates}, i64 {variant}, "
                   f"i64 {workers}, ptr %workspace, {_pool(parallel)})")
    return define(_head(t, "apply", ["ptr %gradients", _rates(t)], parallel), b, f"i32 {code}")


def _step(t: Training, parallel: bool) -> str:
    b = t.library.builder()
    values, pointers = _data(t)
    variant = _check_state(t, b)
    refuse_null(b, pointers)
    refuse_misaligned(b, alignments(values, pointers))
    rates = _check_rates(t, b)
    refuse_batch(b, t.library.max_batch)
    if parallel:
        refuse_workers(b)
    workers = "%workers" if parallel else "1"
    gradients = _check_workspace(t, b, "%batch", workers)
    frame = _frame(t, b, ["%state", *pointers, gradients])
    refuse_code(b, b.value(
        f"call i32 @{t.grad.name}_execute(ptr {frame}, i64 {variant}, i64 %batch, i64 {workers}, ptr %workspace, "
        f"{_pool(parallel)})"))
    code = b.value(f"call i32 @{t.library.name}_apply_inside(ptr %state, ptr {gradients}, ptr {rates}, i64 {variant}, "
                   f"i64 {workers}, ptr %workspace, {_pool(parallel)})")
    middle = [*(f"ptr {pointer}" for pointer in pointers), _rates(t), "i64 %batch"]
    return define(_head(t, "step", middle, parallel), b, f"i32 {code}")
