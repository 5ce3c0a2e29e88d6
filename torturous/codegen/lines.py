"""Products that are consecutive in both operands, line by line, of any number: for the gradient of weights (`dots`).

Product k belongs to lane k mod LANES, wherever lines begin. So vectors are counted over all lines, and one that begins
at the end of a line ends in the next: there two steps are made, each for its lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as combinations

from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, KernelWriter
from torturous.codegen.side import Loops, Side
from torturous.compiler.sizes import ONE, Size, product

Step = Callable[[list[Integer], list[str], str | None], list[str]]
"""`step(places, state, mask)`: the accumulators after LANES products that lie at these places of the operands, in
bytes; where there is a mask, those of its lanes."""


@dataclass(frozen=True)
class Stretch:
    """Vectors from `first` to `last`: lines from `line` on, whose first is at `offset`, up to `past`."""

    first: Integer
    last: Integer
    line: Integer
    offset: Integer
    past: Integer


class Lines:
    """The lines of one kernel's reduced loops, and where its rows begin."""

    def __init__(self, writer: KernelWriter, sides: Sequence[Side]) -> None:
        self.writer = writer
        self.b = writer.builder
        self.sides = sides
        kernel = writer.kernel
        axes = [axis for axis, size in enumerate(kernel.reduced) if size != 1]
        sizes = [kernel.reduced[axis] for axis in axes]
        first = len(kernel.axes)
        factors = [[side.load.address.factor(first + axis) for axis in axes] for side in sides]
        assert all(factor[-1] == 1 for factor in factors), "products of a line are consecutive"
        merged = len(axes) - 1
        while merged and all(f[merged - 1] == f[merged] * sizes[merged] for f in factors):
            merged -= 1
        length = product(sizes[merged:])
        self.whole = length.constant is not None and length.constant % LANES == 0
        """Whether no vector crosses the end of a line."""
        self.length = writer.size(length)
        self.count = writer.size(product(sizes[:merged]))
        self.total = writer.size(product(sizes))
        self.vectors = self.b.ceil_div(self.total, LANES)
        self.loops = [Loops(sizes[:merged], factor[:merged]) for factor in factors]
        self.unit = next((size for size in sizes if size.is_many), ONE)
        """What rows lie a multiple of apart."""

    def stretch(self, first: Integer, most: int) -> Stretch:
        """At most so many vectors from the `first` on."""
        b = self.b
        last = b.minimum(b.add(first, most), self.vectors)
        start, end = b.mul(first, LANES), b.minimum(b.mul(last, LANES), self.total)
        line = b.div(start, self.length)
        past = b.add(b.div(b.sub(end, 1), self.length), 1)
        return Stretch(first, last, line, b.sub(start, b.mul(line, self.length)), past)

    def feed(self, stretch: Stretch, kind: str, item: int, state: Sequence[str], step: Step) -> list[str]:
        """The accumulators, values of this kind, after a stretch; elements have `item` bytes."""
        b = self.b
        places: list[tuple[str, Integer]] = [("i64", stretch.first), ("i64", stretch.offset)]
        lines = b.begin_loop(stretch.line, stretch.past, 1, [*places, *((kind, value) for value in state)])
        vector: Integer = lines.carried[0]
        offset: Integer = lines.carried[1]
        starts = [b.mul(side.place(loops, lines.index), item)
                  for side, loops in zip(self.sides, self.loops, strict=True)]
        full = b.minimum(b.div(b.sub(self.length, offset), LANES), b.sub(stretch.last, vector))
        begin, step_bytes = b.mul(offset, item), LANES * item
        end = b.add(begin, b.mul(full, step_bytes))
        inside = b.begin_loop(begin, end, step_bytes, [(kind, value) for value in lines.carried[2:]])
        state = b.end_loop(inside, step([b.add(start, inside.index) for start in starts], inside.carried, None))
        vector, offset = b.add(vector, full), b.add(offset, b.mul(full, LANES))
        if self.whole:
            offset = 0
        else:
            crosses = b.value(f"and i1 {b.compare('slt', vector, stretch.last)}, "
                              f"{b.compare('slt', offset, self.length)}")
            left = b.sub(self.length, offset)
            here = [b.add(start, b.mul(offset, item)) for start in starts]
            state = self._cross(crosses, lines.index, here, left, kind, item, state, step)
            vector = b.add(vector, b.value(f"zext i1 {crosses} to i64"))
            offset = b.choose(crosses, b.sub(LANES, left), 0)
        return b.end_loop(lines, [vector, offset, *state])[2:]

    def _cross(self, crosses: str, line: Integer, here: list[Integer], left: Integer, kind: str, item: int,
               state: Sequence[str], step: Step) -> list[str]:
        """The vector, if there is one, whose first `left` lanes end a line; the others begin the next, if there is one.
        """
        b = self.b
        following = b.add(line, 1)
        parts = b.choose(crosses, b.choose(b.compare("slt", following, self.count), 2, 1), 0)
        there = [b.mul(b.sub(side.place(loops, following), left), item)
                 for side, loops in zip(self.sides, self.loops, strict=True)]
        part = b.begin_loop(0, parts, 1, [(kind, value) for value in state])
        ends = b.compare("eq", part.index, 0)
        places: list[Integer] = [b.choose(ends, *both) for both in zip(here, there, strict=True)]
        first, past = b.choose(ends, 0, left), b.choose(ends, left, LANES)
        mask = b.value(f"and <{LANES} x i1> {self._lanes('sge', first)}, {self._lanes('slt', past)}")
        return b.end_loop(part, step(places, part.carried, mask))

    def _lanes(self, predicate: str, bound: Integer) -> str:
        """Which lanes' numbers compare so."""
        b, kind = self.b, f"<{LANES} x i64>"
        numbers = ", ".join(f"i64 {lane}" for lane in range(LANES))
        first = b.value(f"insertelement {kind} poison, i64 {bound}, i64 0")
        spread = b.value(f"shufflevector {kind} {first}, {kind} poison, <{LANES} x i32> zeroinitializer")
        return b.value(f"icmp {predicate} {kind} <{numbers}>, {spread}")

    # Rows ------------------------------------------------------------------------------------------------------------
    def rows(self, which: int, axes: Sequence[int], at_once: int) -> Callable[[Integer], list[Integer]]:
        """Lists where the rows of a side begin: a function that reads so many of them, in bytes, from a row on. Past
        the last row it is the last one again."""
        b, kernel = self.b, self.writer.kernel
        side = self.sides[which]
        steps = [_in_units(side.load.address.factor(axis), self.unit) for axis in axes]
        offsets = [
            sum(index * step for index, step in zip(place, steps, strict=True))
            for place in combinations(*[range(kernel.axes[axis].constant or 0) for axis in axes])
        ]
        small = max(map(abs, offsets)) < 1 << 31
        kind, width = ("i32", 4) if small else ("i64", 8)
        table = b.constants(offsets + offsets[-1:] * (at_once - 1), kind)
        unit = b.mul(self.writer.size(self.unit), side.item)

        def read(first: Integer) -> list[Integer]:
            line = b.offset(table, b.mul(first, width))
            places = [b.load(kind, b.offset(line, row * width), width) for row in range(at_once)]
            return [b.mul(b.value(f"sext i32 {place} to i64") if small else place, unit) for place in places]

        return read


def _in_units(size: Size, unit: Size) -> int:
    quotient = size.over(unit) if unit is not ONE else size
    assert quotient is not None and quotient.constant is not None, "rows lie a multiple of the samples apart"
    return quotient.constant
