"""From kernel expressions to vector instructions.

A `KernelWriter` holds what all kinds of kernels share: the argument table, sizes worked out once in the entry block,
and the evaluation of an expression at a `Point` of the loops.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Builder, Integer
from torturous.codegen.emitter import scalar_kind, suffix
from torturous.codegen.target import Target
from torturous.codegen.words import word
from torturous.compiler.graph import Node
from torturous.compiler.kernel import (
    Accumulated,
    Choose,
    Compute,
    Convert,
    DataPosition,
    Digit,
    Expression,
    Guard,
    Kernel,
    Literal,
    Load,
    Position,
    Quotient,
    SlotNumber,
    Store,
    Word,
)
from torturous.compiler.schedule import children, depends
from torturous.compiler.sizes import Affine, Size, Variable
from torturous.core import dtypes
from torturous.core.dtypes import DType

LANES = 16
"""Elements per vector value, on every target; the code generator splits them into what registers hold."""


@dataclass(frozen=True)
class Argument:
    """One entry of eight bytes in a kernel's argument table.

    kind: "buffer" (an address), "size" (a size variable), "slot" (a number in `dtype`), "granule" (work items per
    piece), "group" (how much of what is divided an item takes, by its number there), "errors" (address of the error
    words).
    """

    kind: str
    what: Any = None
    dtype: DType | None = None


@dataclass
class Point:
    """A place in the loops: a scalar per axis, and the axis along which `lanes` consecutive places are meant."""

    axes: dict[int, Integer]
    lane_axis: int | None
    lanes: int
    mask: str | None = None
    """Lanes that exist, where not all do."""
    tail: int | None = None
    """How many lanes exist, where that is known when generating."""
    memo: dict[int, str] = field(default_factory=dict)
    outer: Point | None = None
    """A point that this one lies in, whose lane-independent values hold here too."""
    derived: dict[int, tuple[Integer, str | None]] = field(default_factory=dict)
    accumulated: list[str] = field(default_factory=list)


class KernelWriter:
    """Evaluates a kernel's expressions into a function under construction."""

    def __init__(self, kernel: Kernel, target: Target, in_process: bool = False) -> None:
        """`in_process` as in `kernels.generate`."""
        self.kernel = kernel
        self.target = target
        self.in_process = in_process
        self.streamed: frozenset[Node] = kernel.streamed if in_process else frozenset()
        self.streams = False
        """Whether anything is."""
        self.builder = Builder(target)
        self.arguments: list[Argument] = []
        self._argument_values: dict[Argument, str] = {}
        self._sizes: dict[Size, Integer] = {}

    # Arguments and sizes -------------------------------------------------------------------------------------------
    def argument(self, argument: Argument, llvm: str) -> str:
        """The value of an entry of the argument table."""
        known = self._argument_values.get(argument)
        if known is None:
            position = len(self.arguments)
            self.arguments.append(argument)
            b = self.builder
            place = b.hoisted(f"getelementptr i8, ptr %arguments, i64 {8 * position}")
            known = self._argument_values[argument] = b.hoisted(f"load {llvm}, ptr {place}, align 8")
        return known

    def pointer(self, buffer: Node) -> str:
        return self.argument(Argument("buffer", buffer), "ptr")

    def _variable(self, variable: Variable) -> str:
        name, number = variable
        if name != "slot":
            return self.argument(Argument("size", number), "i64")
        return self.argument(Argument("slot", number, dtypes.int64), "i64")

    def size(self, size: Size) -> Integer:
        """A size's value, worked out in the entry block."""
        constant = size.constant
        if constant is not None:
            return constant
        known = self._sizes.get(size)
        if known is None:
            total: Integer = 0
            b = self.builder
            for monomial, factor in size.terms.items():
                part: Integer = factor
                for variable in monomial:
                    value = self._variable(variable)
                    part = value if part == 1 else b.hoisted(f"mul i64 {part}, {value}")
                total = part if total == 0 else b.hoisted(f"add i64 {total}, {part}")
            known = self._sizes[size] = total
        return known

    # Affine positions ------------------------------------------------------------------------------------------------
    def affine(self, affine: Affine, point: Point) -> tuple[Integer, Integer, str | None]:
        """An affine function at a point: scalar part, step from lane to lane, and a vector part if there is one."""
        b = self.builder
        base, step, vector = self.size(affine.constant), 0, None
        step_value: Integer = step
        for axis, factor in affine.terms.items():
            scale = self.size(factor)
            if axis >= 0:
                base = b.add(base, b.mul(point.axes[axis], scale))
                if axis == point.lane_axis and point.lanes > 1:
                    step_value = b.add(step_value, scale)
                continue
            scalar, lanes = self.derived(axis, point)
            base = b.add(base, b.mul(scalar, scale))
            if lanes is not None:
                e = Arithmetic(b, dtypes.int64, point.lanes)
                scaled = lanes if scale == 1 else e.mul(lanes, self.splat(scale, point))
                vector = scaled if vector is None else e.add(vector, scaled)
        return base, step_value, vector

    def splat(self, value: Integer, point: Point) -> str:
        e = Arithmetic(self.builder, dtypes.int64, point.lanes)
        return e.constant(value) if isinstance(value, int) else e.splat(value)

    def lane_numbers(self, point: Point) -> str:
        return "<" + ", ".join(f"i64 {lane}" for lane in range(point.lanes)) + ">"

    def vector(self, affine: Affine, point: Point) -> str:
        """An affine function at every lane, as i64s."""
        base, step, vector = self.affine(affine, point)
        return self._spread(base, step, vector, point)

    def _spread(self, base: Integer, step: Integer, vector: str | None, point: Point) -> str:
        e = Arithmetic(self.builder, dtypes.int64, point.lanes)
        total = self.splat(base, point)
        if step != 0:
            total = e.add(total, e.mul(self.lane_numbers(point), self.splat(step, point)))
        return total if vector is None else e.add(total, vector)

    def derived(self, axis: int, point: Point) -> tuple[Integer, str | None]:
        """A derived position: a scalar where it is the same for all lanes, else a vector beside a zero."""
        known = point.derived.get(axis)
        if known is None:
            known = point.derived[axis] = self._derive(axis, point)
        return known

    def _derive(self, axis: int, point: Point) -> tuple[Integer, str | None]:
        b = self.builder
        what = self.kernel.derived[~axis]
        e = Arithmetic(b, dtypes.int64, point.lanes)
        if isinstance(what, DataPosition):
            return 0, self._checked(what, point)
        assert isinstance(what, (Quotient, Digit))
        base, step, vector = self.affine(what.affine, point)
        uniform = step == 0 and vector is None
        if isinstance(what, Digit):
            inner, extent = self.size(what.inner), self.size(what.extent)
            if uniform:
                return b.rem(b.div(base, inner), extent), None
            value = self._spread(base, step, vector, point)
            if inner != 1:
                value = self.divide("udiv", value, self.splat(inner, point), point.lanes)
            return 0, self.divide("urem", value, self.splat(extent, point), point.lanes)
        # A quotient that is not whole becomes −1, which no guard lets through.
        divisor = what.divisor
        if uniform and isinstance(base, int):
            return (base // divisor if base % divisor == 0 else -1), None
        if uniform:
            quotient = self.scalar_quotient(base, divisor)
            whole = b.compare("eq", b.mul(quotient, divisor), base)
            return b.choose(whole, quotient, -1), None
        value = self._spread(base, step, vector, point)
        d = self.splat(divisor, point)
        if divisor & (divisor - 1) == 0:
            shift = self.splat(divisor.bit_length() - 1, point)
            quotient = e.binary("ashr", value, shift)
        else:
            quotient = self.divide("sdiv", value, d, point.lanes)
        whole = e.compare("eq", e.mul(quotient, d), value)
        return 0, e.select(whole, quotient, e.constant(-1))

    def divide(self, instruction: str, a: str, b: str, lanes: int) -> str:
        """A quotient or remainder of positions at every lane."""
        e = Arithmetic(self.builder, dtypes.int64, lanes)
        if self.target.has_wide_division:
            return e.binary(instruction, a, b)
        narrow = Arithmetic(self.builder, dtypes.int32, lanes)
        parts = [self.builder.value(f"trunc {e.kind} {value} to {narrow.kind}") for value in (a, b)]
        widen = "sext" if instruction == "sdiv" else "zext"
        return self.builder.value(f"{widen} {narrow.kind} {narrow.binary(instruction, *parts)} to {e.kind}")

    def scalar_quotient(self, a: Integer, divisor: int) -> str:
        """The quotient of a position, possibly negative, toward zero."""
        b = self.builder
        if self.target.has_wide_division:
            return b.value(f"sdiv i64 {a}, {divisor}")
        part = b.value(f"sdiv i32 {b.value(f'trunc i64 {a} to i32')}, {divisor}")
        return b.value(f"sext i32 {part} to i64")

    def _checked(self, what: DataPosition, point: Point) -> str:
        """Positions from an index tensor; one out of range is reported and read as 0."""
        b = self.builder
        e = Arithmetic(b, dtypes.int64, point.lanes)
        value = self.emit(what.expression, point)
        extent = self.splat(self.size(what.extent), point)
        bad = b.value(f"icmp uge {e.kind} {value}, {extent}")
        if point.mask is not None:
            bad = b.value(f"and {e.mask} {bad}, {point.mask}")
        any_bad = b.call("i1", f"llvm.vector.reduce.or.v{point.lanes}i1", (e.mask, bad))
        errors = self.argument(Argument("errors", what.node), "ptr")

        def report() -> None:
            b.emit(f"store atomic i32 1, ptr {errors} monotonic, align 8")

        b.when(any_bad, report)
        return e.select(bad, e.constant(0), value)

    # Guards --------------------------------------------------------------------------------------------------------
    def guard(self, guards: tuple[Guard, ...], point: Point) -> str | None:
        """The lanes where all guards hold; None for all lanes."""
        b = self.builder
        mask_kind = f"<{point.lanes} x i1>"
        result = None
        for guard in guards:
            base, step, vector = self.affine(guard.position, point)
            extent = self.size(guard.extent)
            if step == 0 and vector is None:
                if isinstance(base, int) and isinstance(extent, int):
                    if 0 <= base < extent:
                        continue
                    test = "zeroinitializer"
                else:
                    scalar = b.compare("ult", base, extent)
                    first = b.value(f"insertelement {mask_kind} poison, i1 {scalar}, i32 0")
                    test = b.value(
                        f"shufflevector {mask_kind} {first}, {mask_kind} poison, <{point.lanes} x i32> zeroinitializer"
                    )
            else:
                positions = self._spread(base, step, vector, point)
                test = b.value(f"icmp ult <{point.lanes} x i64> {positions}, {self.splat(extent, point)}")
            result = test if result is None else b.value(f"and {mask_kind} {result}, {test}")
        return result

    def both(self, first: str | None, second: str | None, lanes: int) -> str | None:
        """The conjunction of two optional masks."""
        if first is None or second is None or first == second:
            return first or second
        return self.builder.value(f"and <{lanes} x i1> {first}, {second}")

    # Expressions -----------------------------------------------------------------------------------------------------
    def emit(self, expression: Expression, point: Point) -> str:
        """The value of an expression at every lane of a point, in registers."""
        key = id(expression)
        place: Point | None = point
        while place is not None:
            known = place.memo.get(key)
            if known is not None:
                return known
            place = place.outer
        value = point.memo[key] = self._emit(expression, point)
        return value

    def hoist(self, expressions: list[Expression], point: Point, *axes: int) -> None:
        """Evaluates now, at a point outside the loops over these axes, whatever does not vary along any of them."""
        pending, seen = list(expressions), set()
        while pending:
            expression = pending.pop()
            if isinstance(expression, (Accumulated, Literal)) or id(expression) in seen:
                continue
            seen.add(id(expression))
            if not any(depends(self.kernel, expression, axis) for axis in axes):
                self.emit(expression, point)
            else:
                pending += children(expression)

    def arithmetic(self, dtype: DType, point: Point) -> Arithmetic:
        return Arithmetic(self.builder, dtype, point.lanes)

    def _emit(self, expression: Expression, point: Point) -> str:
        b = self.builder
        match expression:
            case Load():
                return self._load(expression, point)
            case SlotNumber(dtype, code):
                return self._slot(dtype, code, point)
            case Literal(dtype, number):
                working = dtypes.float32 if dtype.is_half else dtype
                return convert(b, self.arithmetic(working, point).constant(number), working, dtype, point.lanes)
            case Position(_, affine):
                return self.vector(affine, point)
            case Convert(dtype, operand):
                return convert(b, self.emit(operand, point), operand.dtype, dtype, point.lanes)
            case Compute(dtype, op, compute, operands):
                values = [self.emit(operand, point) for operand in operands]
                e = self.arithmetic(compute, point)
                assert op.lower is not None
                value = op.lower(e, *values)
                result = dtypes.bool_ if op.compares else dtype if op.operands_as is not None else compute
                return convert(b, value, result, dtype, point.lanes)
            case Choose(dtype, guards, inside, outside):
                mask = self.guard(guards, point)
                if mask is None:
                    return self.emit(inside, point)
                chosen, other = self.emit(inside, point), self.emit(outside, point)
                return self.arithmetic(dtype, point).select(mask, chosen, other)
            case Word(_, first, second):
                return word(b, self.emit(first, point), self.emit(second, point), point.lanes)
            case Accumulated(_, index):
                return point.accumulated[index]
        raise AssertionError(expression)

    def _slot(self, dtype: DType, code: int, point: Point) -> str:
        """A slot in every lane. Sixteen-bit types take a float32 number: their arithmetic is done in float32."""
        working = dtypes.float32 if dtype.is_half else dtype
        if working is dtypes.bool_:
            word = self.argument(Argument("slot", code, dtypes.bool_), "i64")
            scalar = self.builder.hoisted(f"icmp ne i64 {word}, 0")
        else:
            scalar = self.argument(Argument("slot", code, working), scalar_kind(working))
        value = self.arithmetic(working, point).splat(scalar)
        return convert(self.builder, value, working, dtype, point.lanes)

    # Memory ----------------------------------------------------------------------------------------------------------
    def _load(self, load: Load, point: Point) -> str:
        b = self.builder
        lanes = point.lanes
        base, step, vector = self.affine(load.address, point)
        guards = self.guard(load.guards, point)
        pointer, dtype = self.pointer(load.buffer), load.dtype
        if vector is None and step == 0 and guards is None:
            return self._repeated(pointer, base, dtype, lanes)
        mask = self.both(point.mask, guards, lanes)
        base = self._mapped(load.guards, base, point)
        start = b.offset(pointer, b.mul(base, dtype.itemsize))
        if vector is None and step == 1:
            return self._contiguous(start, dtype, lanes, mask)
        if vector is None and isinstance(step, int) and 2 <= step <= 4 and guards is None and (
            mask is None or point.tail is not None
        ):
            return self._strided(start, dtype, lanes, step, point.tail if mask is not None else None)
        place = self._spread(0, step, vector, point)
        return self._gathered(start, place, dtype, lanes, mask)

    def _mapped(self, guards: tuple[Guard, ...], base: Integer, point: Point) -> Integer:
        """A load's place, or its buffer's beginning where a guard fails for all lanes: a load that reaches where no
        memory is takes a hundred times as long, although its lanes are masked."""
        b = self.builder
        for guard in guards:
            position, step, vector = self.affine(guard.position, point)
            if step == 0 and vector is None and not isinstance(position, int):
                base = b.choose(b.compare("ult", position, self.size(guard.extent)), base, 0)
        return base

    def memory_kind(self, dtype: DType) -> str:
        return "i8" if dtype is dtypes.bool_ else scalar_kind(dtype)

    def from_memory(self, value: str, dtype: DType, lanes: int) -> str:
        """Bytes of a bool become bits."""
        if dtype is not dtypes.bool_:
            return value
        return self.builder.value(f"icmp ne <{lanes} x i8> {value}, zeroinitializer")

    def to_memory(self, value: str, dtype: DType, lanes: int) -> str:
        if dtype is not dtypes.bool_:
            return value
        return self.builder.value(f"zext <{lanes} x i1> {value} to <{lanes} x i8>")

    def _repeated(self, pointer: str, base: Integer, dtype: DType, lanes: int) -> str:
        b, scalar = self.builder, self.memory_kind(dtype)
        value = b.load(scalar, b.offset(pointer, b.mul(base, dtype.itemsize)), dtype.itemsize)
        wide = f"<{lanes} x {scalar}>"
        first = b.value(f"insertelement {wide} poison, {scalar} {value}, i32 0")
        if lanes > 1:
            first = b.value(f"shufflevector {wide} {first}, {wide} poison, <{lanes} x i32> zeroinitializer")
        return self.from_memory(first, dtype, lanes)

    def _contiguous(self, start: str, dtype: DType, lanes: int, mask: str | None) -> str:
        b, scalar = self.builder, self.memory_kind(dtype)
        wide = f"<{lanes} x {scalar}>"
        if mask is None:
            value = b.load(wide, start, dtype.itemsize)
        else:
            value = b.call(
                wide, f"llvm.masked.load.{suffix(scalar, lanes)}.p0", ("ptr", start), ("i32", dtype.itemsize),
                (f"<{lanes} x i1>", mask), (wide, "zeroinitializer"))
        return self.from_memory(value, dtype, lanes)

    def _strided(self, start: str, dtype: DType, lanes: int, step: int, tail: int | None) -> str:
        """Every step-th element: one wide load and a shuffle."""
        b, scalar = self.builder, self.memory_kind(dtype)
        count = lanes * step
        wide = f"<{count} x {scalar}>"
        exists = ((tail if tail is not None else lanes) - 1) * step + 1
        if exists == count:
            value = b.load(wide, start, dtype.itemsize)
        else:
            bits = "<" + ", ".join(f"i1 {'true' if n < exists else 'false'}" for n in range(count)) + ">"
            value = b.call(
                wide, f"llvm.masked.load.{suffix(scalar, count)}.p0", ("ptr", start), ("i32", dtype.itemsize),
                (f"<{count} x i1>", bits), (wide, "zeroinitializer"))
        picked = "<" + ", ".join(f"i32 {lane * step}" for lane in range(lanes)) + ">"
        value = b.value(f"shufflevector {wide} {value}, {wide} poison, <{lanes} x i32> {picked}")
        return self.from_memory(value, dtype, lanes)

    def _gathered(self, start: str, place: str, dtype: DType, lanes: int, mask: str | None) -> str:
        b, scalar = self.builder, self.memory_kind(dtype)
        wide = f"<{lanes} x {scalar}>"
        pointers = b.value(f"getelementptr {scalar}, ptr {start}, <{lanes} x i64> {place}")
        value = b.call(
            wide, f"llvm.masked.gather.{suffix(scalar, lanes)}.v{lanes}p0", (f"<{lanes} x ptr>", pointers),
            ("i32", dtype.itemsize), (f"<{lanes} x i1>", mask or "splat (i1 true)"), (wide, "zeroinitializer"))
        return self.from_memory(value, dtype, lanes)

    def store_all(self, stores: Iterable[Store], point: Point) -> None:
        """Computes what several stores write, then writes: one of them may replace what another one reads."""
        values = [(store, self.emit(store.expression, point)) for store in stores]
        for store, value in values:
            self.store(value, store.buffer, store.address, point)

    def store(self, value: str, buffer: Node, address: Affine, point: Point) -> None:
        """Writes a vector of the buffer's dtype to its places."""
        b, dtype, lanes = self.builder, buffer.dtype, point.lanes
        base, step, vector = self.affine(address, point)
        scalar = self.memory_kind(dtype)
        wide = f"<{lanes} x {scalar}>"
        value = self.to_memory(value, dtype, lanes)
        start = b.offset(self.pointer(buffer), b.mul(base, dtype.itemsize))
        if vector is None and step == 1 and point.mask is None:
            if buffer in self.streamed and self._is_aligned(address, point):
                self.streams = True
                b.stream(wide, value, start, lanes * dtype.itemsize)
            else:
                b.store(wide, value, start, dtype.itemsize)
        elif vector is None and (step == 1 or lanes == 1):
            if lanes == 1 and point.mask is None:
                b.store(wide, value, start, dtype.itemsize)
            else:
                b.call("void", f"llvm.masked.store.{suffix(scalar, lanes)}.p0", (wide, value), ("ptr", start),
                       ("i32", dtype.itemsize), (f"<{lanes} x i1>", point.mask or "splat (i1 true)"))
        else:
            place = self._spread(0, step, vector, point)
            pointers = b.value(f"getelementptr {scalar}, ptr {start}, <{lanes} x i64> {place}")
            b.call("void", f"llvm.masked.scatter.{suffix(scalar, lanes)}.v{lanes}p0", (wide, value),
                   (f"<{lanes} x ptr>", pointers), ("i32", dtype.itemsize),
                   (f"<{lanes} x i1>", point.mask or "splat (i1 true)"))

    def _is_aligned(self, address: Affine, point: Point) -> bool:
        """Whether whole vectors of a buffer of our own start at multiples of their size."""
        steps = [address.constant, *(f for axis, f in address.terms.items() if axis != point.lane_axis)]
        return point.lanes == LANES and all(
            step.constant is not None and step.constant % LANES == 0 for step in steps)

    def tail_mask(self, count: Integer, lanes: int) -> str:
        """Lanes below a count."""
        if isinstance(count, int):
            return "<" + ", ".join(f"i1 {'true' if lane < count else 'false'}" for lane in range(lanes)) + ">"
        b = self.builder
        wide = f"<{lanes} x i64>"
        first = b.value(f"insertelement {wide} poison, i64 {count}, i32 0")
        spread = b.value(f"shufflevector {wide} {first}, {wide} poison, <{lanes} x i32> zeroinitializer")
        numbers = "<" + ", ".join(f"i64 {lane}" for lane in range(lanes)) + ">"
        return b.value(f"icmp slt {wide} {numbers}, {spread}")
