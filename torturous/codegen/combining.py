"""How partial results of a reduction are started, fed and combined, lane by lane and across lanes."""

from __future__ import annotations

from collections.abc import Sequence

from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.compiler.kernel import Accumulator, Literal
from torturous.compiler.sizes import product
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import reduction
from torturous.ir.op import Op

State = list[str]
"""One value; for extremes of floats also a NaN if one was seen; for argmax and argmin value and position."""


class Combiner:
    """Instructions for one accumulator's partial results."""

    def __init__(self, writer: KernelWriter, accumulator: Accumulator, lanes: int) -> None:
        self.writer = writer
        self.accumulator = accumulator
        self.op: Op = accumulator.op
        self.dtype: DType = accumulator.dtype
        self.lanes = lanes
        self.indexed = self.op in (reduction.ARGMAX, reduction.ARGMIN)
        self.e = Arithmetic(writer.builder, self.dtype, lanes)
        elements = product(writer.kernel.reduced).constant
        short = elements is not None and elements < 1 << 31
        self.index = Arithmetic(writer.builder, dtypes.int32 if short else dtypes.int64, lanes)
        """Positions: half as many registers where they are known to be small."""
        self.watches_nan = self.op in (reduction.AMAX, reduction.AMIN) and self.e.floating

    def kinds(self) -> list[str]:
        if self.indexed:
            return [self.e.kind, self.index.kind]
        return [self.e.kind] * (2 if self.watches_nan else 1)

    def memory_kinds(self) -> list[str]:
        """The types of a state's values in memory, where a bool is a byte."""
        return [kind.replace("x i1>", "x i8>") for kind in self.kinds()]

    def widths(self) -> list[int]:
        """Bytes per element in memory."""
        return [self.dtype.itemsize, self.index.dtype.itemsize] if self.indexed else (
            [self.dtype.itemsize] * len(self.kinds()))

    def to_memory(self, state: State) -> State:
        b = self.writer.builder
        return [
            value if kind == memory else b.value(f"zext {kind} {value} to {memory}")
            for kind, memory, value in zip(self.kinds(), self.memory_kinds(), state, strict=True)
        ]

    def from_memory(self, values: State) -> State:
        b = self.writer.builder
        return [
            value if kind == memory else b.value(f"icmp ne {memory} {value}, zeroinitializer")
            for kind, memory, value in zip(self.kinds(), self.memory_kinds(), values, strict=True)
        ]

    def resized(self, lanes: int) -> Combiner:
        return Combiner(self.writer, self.accumulator, lanes)

    def identity(self) -> State:
        op = self.op
        if op is reduction.PROD:
            return [self.e.constant(1)]
        if op in (reduction.AMAX, reduction.ARGMAX):
            number = reduction.lowest(self.dtype)
        elif op in (reduction.AMIN, reduction.ARGMIN):
            number = reduction.highest(self.dtype)
        else:
            number = op is reduction.ALL
        first = self.e.constant(number)
        if self.indexed:
            # No position yet: any element is better, even one equal to the identity.
            return [first, self.index.constant(-1)]
        return [first, self.e.constant(0)] if self.watches_nan else [first]

    def begun(self, element: State) -> State:
        """What the first element makes of the identity: itself, but that a sum of −0 is 0."""
        return self.combine(self.identity(), element) if self.op is reduction.SUM else element

    def combine(self, state: State, other: State) -> State:
        """Two partial results as one."""
        e, op = self.e, self.op
        if self.indexed:
            return self._better(state, other)
        a, c = state[0], other[0]
        if op is reduction.SUM:
            return [e.add(a, c)]
        if op is reduction.PROD:
            return [e.mul(a, c)]
        if op in (reduction.AMAX, reduction.AMIN):
            # Of equals (zeros of either sign) the later one.
            better = e.select(e.compare("gt" if op is reduction.AMAX else "lt", a, c), a, c)
            if not self.watches_nan:
                return [better]
            return [better, e.select(e.compare("ne", other[1], other[1]), other[1], state[1])]
        return [e.bit("or" if op is reduction.ANY else "and", a, c)]

    def result(self, state: State) -> str:
        """The finished value."""
        if self.watches_nan:
            return self.e.select(self.e.compare("ne", state[1], state[1]), state[1], state[0])
        if self.indexed and self.index.dtype is not dtypes.int64:
            return convert(self.writer.builder, state[-1], self.index.dtype, dtypes.int64, self.lanes)
        return state[-1]

    def _test(self, operation: str, first: str, second: str) -> str:
        return self.writer.builder.value(f"{operation} {self.e.mask} {first}, {second}")

    def _better(self, state: State, other: State) -> State:
        """Keeps the better value; NaN beats numbers; of equals the lower position; −1 is no position."""
        b, e, i, test = self.writer.builder, self.e, self.index, self._test
        (a, a_at), (c, c_at) = state, other
        better = e.compare("gt" if self.op is reduction.ARGMAX else "lt", c, a)
        equal = e.compare("eq", c, a)
        if e.floating:
            a_nan, c_nan = e.compare("ne", a, a), e.compare("ne", c, c)
            better = test("or", test("and", better, test("xor", a_nan, "splat (i1 true)")),
                          test("and", c_nan, test("xor", a_nan, "splat (i1 true)")))
            equal = test("or", equal, test("and", a_nan, c_nan))
        earlier = b.value(f"icmp ult {i.kind} {c_at}, {a_at}")  # −1 is the largest unsigned number
        better = test("or", better, test("and", equal, earlier))
        exists = i.compare("ne", c_at, i.constant(-1))
        better = test("and", exists, test("or", better, i.compare("eq", a_at, i.constant(-1))))
        return [e.select(better, c, a), i.select(better, c_at, a_at)]

    def feed(self, state: State, element: State, begun: bool = False) -> State:
        """`combine` with an element that comes after all that the state has seen; `begun` says that there are such."""
        if not self.indexed:
            return self.combine(state, element)
        e, i, test = self.e, self.index, self._test
        (a, a_at), (c, c_at) = state, element
        greater = self.op is reduction.ARGMAX
        if e.floating:  # Better, or the first that is not a number.
            better = self.writer.builder.value(f"fcmp {'ugt' if greater else 'ult'} {e.kind} {c}, {a}")
            better = test("and", better, e.compare("eq", a, a))
        else:
            better = e.compare("gt" if greater else "lt", c, a)
        if begun:
            return [e.select(better, c, a), i.select(better, c_at, a_at)]
        better = test("or", better, i.compare("eq", a_at, i.constant(-1)))
        return [e.select(better, c, a), i.select(better, c_at, a_at)]

    def masked(self, mask: str | None, state: State, new: State) -> State:
        """The new state in the lanes of a mask, the old one elsewhere."""
        if mask is None:
            return new
        b = self.writer.builder
        return [
            b.value(f"select <{self.lanes} x i1> {mask}, {k} {n}, {k} {s}")
            for k, n, s in zip(self.kinds(), new, state, strict=True)
        ]

    def element(self, point: Point, number: int | None = None) -> State:
        """One element per lane, at a point of the reduced loops, or of a number among those that are combined."""
        writer, kernel = self.writer, self.writer.kernel
        value = writer.emit(self.accumulator.expression, point)
        if self.watches_nan:
            # What is not a number is carried beside, off the chain of dependent steps.
            missing = self.e.compare("ne", value, value)
            return [self.e.select(missing, self.identity()[0], value), value]
        if not self.indexed:
            return [value]
        if number is not None:
            return [value, self.index.constant(number)]
        inner = len(kernel.axes) + len(kernel.reduced) - 1
        b = writer.builder
        base: Integer = point.axes[inner]
        if kernel.outer_runs:
            base = b.add(b.mul(point.axes[inner - 1], writer.size(kernel.reduced[-1])), base)
        if isinstance(base, int):
            at = self.index.constant(base)
        else:
            narrow = self.index.scalar != "i64"
            at = self.index.splat(b.value(f"trunc i64 {base} to {self.index.scalar}") if narrow else base)
        if point.lane_axis == inner and point.lanes > 1:
            numbers = ", ".join(f"{self.index.scalar} {lane}" for lane in range(point.lanes))
            at = self.index.add(at, f"<{numbers}>")
        return [value, at]

    def folded(self, state: State) -> State:
        """Lanes combined pairwise (l with l+8, +4, +2, +1), as one-lane values."""
        b, current, lanes = self.writer.builder, state, self.lanes
        combiner = self
        while lanes > 1:
            half = lanes // 2
            low = "<" + ", ".join(f"i32 {lane}" for lane in range(half)) + ">"
            high = "<" + ", ".join(f"i32 {half + lane}" for lane in range(half)) + ">"
            parts = []
            for indices in (low, high):
                parts.append([
                    b.value(f"shufflevector {k} {v}, {k} poison, <{half} x i32> {indices}")
                    for k, v in zip(combiner.kinds(), current, strict=True)
                ])
            combiner = combiner.resized(half)
            current = combiner.combine(parts[0], parts[1])
            lanes = half
        return current

    def in_every_lane(self, value: str) -> str:
        """A one-lane result as vectors of this combiner."""
        scalar = "i64" if self.indexed else self.e.scalar
        return self.writer.builder.value(
            f"shufflevector <1 x {scalar}> {value}, <1 x {scalar}> poison, <{self.lanes} x i32> zeroinitializer")

    def widened(self, state: State) -> State:
        """One-lane values in every lane; this combiner's own number of lanes is what they get."""
        b, one = self.writer.builder, self.resized(1)
        return [
            b.value(f"shufflevector {k} {v}, {k} poison, <{self.lanes} x i32> zeroinitializer")
            for k, v in zip(one.kinds(), state, strict=True)
        ]


def folded(writer: KernelWriter, op: Op, dtype: DType, vector: str) -> str:
    """The lanes of one vector combined pairwise, as a one-lane vector."""
    accumulator = Accumulator(op, dtype, Literal(dtype, 0))
    return Combiner(writer, accumulator, LANES).folded([vector])[0]


def tree(combiner: Combiner, states: Sequence[State | None]) -> State:
    """LANES states combined pairwise; None stands for one that has seen no element and changes nothing."""
    while len(states) > 1:
        half = len(states) // 2
        merged: list[State | None] = []
        for low, high in zip(states[:half], states[half:], strict=True):
            merged.append(combiner.combine(low, high) if low is not None and high is not None else low or high)
        states = merged
    return states[0] if states[0] is not None else combiner.identity()


def flatten(states: Sequence[State]) -> State:
    """Several states' values in a row, as a loop carries them."""
    return [value for state in states for value in state]


def regroup(values: Sequence[str], combiners: Sequence[Combiner]) -> list[State]:
    """The inverse of `flatten`, for one state per combiner."""
    result, position = [], 0
    for combiner in combiners:
        width = len(combiner.kinds())
        result.append(list(values[position:position + width]))
        position += width
    return result
