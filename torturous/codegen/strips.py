"""Long reductions with the lanes along a kept axis: a strip of that axis goes through the reduced loops together.

Each result has LANES partial results (see `ir.reduction`); those of a whole strip lie in scratch memory, which stays
in the first-level cache, so that the reduced operands are read along their rows and every row of a strip is short.
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import Combiner, State, tree
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.visits import Visits
from torturous.compiler.kernel import Load
from torturous.compiler.schedule import walk
from torturous.compiler.sizes import ZERO
from torturous.ir import reduction

STRIP = 256
"""Elements of the lane axis per item at most."""
UNIT = 32
"""Strips are multiples of it."""
AHEAD = 8
"""How many rows before it is read an operand is asked for."""


class Strips:
    """Writes the body of a kernel of one stage for strips."""

    def __init__(self, writer: KernelWriter, visits: Visits) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.kernel = writer.kernel
        self.visits = visits
        self.stage = visits.stages[0]
        self.axis = self.kernel.lane_axis
        self.combiners = [Combiner(writer, accumulator, LANES) for accumulator in self.kernel.accumulators]
        self.levels: list[list[list[str]]] = []
        """Per level and accumulator, where its states' values lie: LANES × STRIP elements each."""
        end = 0
        for _ in range(2):
            places: list[list[str]] = []
            for combiner in self.combiners:
                places.append([])
                for element in combiner.widths():
                    places[-1].append(self.builder.hoisted(f"getelementptr i8, ptr %scratch, i64 {end}"))
                    end += LANES * STRIP * element
            self.levels.append(places)
        self.scratch = ZERO + end

    # States in scratch memory --------------------------------------------------------------------------------------
    def _place(self, level: int, number: int, lane: Integer, start: Integer) -> list[tuple[str, str]]:
        """Memory types and addresses of an accumulator's state for the vector at `start` of the strip."""
        b, combiner = self.builder, self.combiners[number]
        index = b.add(b.mul(lane, STRIP), start)
        return [
            (memory, b.offset(place, b.mul(index, width)))
            for memory, width, place in zip(
                combiner.memory_kinds(), combiner.widths(), self.levels[level][number], strict=True)
        ]

    def _get(self, level: int, number: int, lane: Integer, start: Integer) -> State:
        values = [self.builder.load(memory, at, 8) for memory, at in self._place(level, number, lane, start)]
        return self.combiners[number].from_memory(values)

    def _put(self, level: int, number: int, lane: Integer, start: Integer, state: State) -> None:
        values = self.combiners[number].to_memory(state)
        for (memory, at), value in zip(self._place(level, number, lane, start), values, strict=True):
            self.builder.store(memory, value, at, 8)

    def _reset(self, level: int, length: Integer) -> None:
        b = self.builder
        identities = [combiner.identity() for combiner in self.combiners]
        with looping(b, 0, LANES) as lane, looping(b, 0, length, LANES) as start:
            for number, identity in enumerate(identities):
                self._put(level, number, lane, start, identity)

    def _folded(self, level: int, number: int, start: Integer) -> State:
        return tree(self.combiners[number], [self._get(level, number, lane, start) for lane in range(LANES)])

    # Writing -------------------------------------------------------------------------------------------------------
    def write(self, line: Point, first: Integer, past: Integer) -> None:
        """Elements `first` to `past` of the lane axis at a place of the other kept axes."""
        b, visits = self.builder, self.visits
        length = b.sub(past, first)
        outer, inner = visits.outer, visits.inner
        chunks = b.ceil_div(inner, LANES)
        steps = b.mul(outer, chunks)
        two_levels = not (isinstance(steps, int) and steps <= reduction.BLOCK)
        self._reset(0, length)
        if two_levels:
            self._reset(1, length)
        with looping(b, 0, outer) as o, looping(b, 0, chunks) as c:
            start = b.mul(c, LANES)
            with looping(b, 0, b.minimum(LANES, b.sub(inner, start))) as lane:
                self._feed(line, first, length, o, b.add(start, lane), lane)
            if two_levels:
                step = b.add(b.mul(o, chunks), c)
                last = b.value(f"and i64 {step}, {reduction.BLOCK - 1}")
                b.when(b.compare("eq", last, reduction.BLOCK - 1), lambda: self._flush(b.div(step, reduction.BLOCK),
                                                                                      length))
        if two_levels:
            self._flush(b.div(steps, reduction.BLOCK), length)
        self._vectors(line, first, length, lambda point, start: self._finish(point, start, int(two_levels)))

    def _vectors(self, line: Point, first: Integer, length: Integer, body: Callable[[Point, Integer], None]) -> None:
        """The strip's vectors, with their place in the strip; the last one masked."""
        b, axis = self.builder, self.axis
        full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")

        def at(start: Integer, mask: str | None, tail: int | None) -> None:
            axes = dict(line.axes)
            axes[axis] = b.add(first, start)
            outer = line if line.lanes == LANES else None
            body(Point(axes, axis, LANES, mask, tail, outer=outer), start)

        if full != 0:
            with looping(b, 0, full, LANES) as start:
                at(start, None, None)
        left = b.sub(length, full)
        if isinstance(left, int):
            if left:
                at(full, self.writer.tail_mask(left, LANES), left)
            return
        b.when(b.compare("sgt", left, 0), lambda: at(full, self.writer.tail_mask(left, LANES), None))

    def _feed(self, line: Point, first: Integer, length: Integer, o: Integer, k: Integer, lane: Integer) -> None:
        """One place of the reduced loops: an element for each of the strip's results."""
        axes = dict(line.axes)
        axes[self.axis] = first
        if self.kernel.outer_runs:
            axes[self.visits.inner_axis - 1] = o
        axes[self.visits.inner_axis] = k
        here = Point(axes, self.axis, LANES)
        self.writer.hoist(self.visits.staging.roots(self.stage), here, self.axis)

        def feed(point: Point, start: Integer) -> None:
            self._fetch_ahead(point)
            for number, combiner in enumerate(self.combiners):
                state = self._get(0, number, lane, start)
                self._put(0, number, lane, start, combiner.feed(state, combiner.element(point)))
            for store in self.stage.stores:
                self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)

        self._vectors(here, first, length, feed)

    def _fetch_ahead(self, point: Point) -> None:
        """Asks for what will be read a few rows later: hardware does not foresee steps from row to row."""
        b, inner = self.builder, self.visits.inner_axis
        for expression in walk(self.visits.staging.roots(self.stage)):
            if not isinstance(expression, Load) or expression.guards or any(t < 0 for t in expression.address.terms):
                continue
            step = expression.address.factor(inner)
            if expression.address.factor(self.axis) != 1 or step == 0:
                continue
            base, _, _ = self.writer.affine(expression.address, point)
            ahead = b.add(base, b.mul(self.writer.size(step), AHEAD))
            place = b.offset(self.writer.pointer(expression.buffer), b.mul(ahead, expression.dtype.itemsize))
            b.call("void", "llvm.prefetch.p0", ("ptr", place), ("i32", 0), ("i32", 3), ("i32", 1))

    def _flush(self, block: Integer, length: Integer) -> None:
        """A block's results enter lane (block mod LANES) of level two."""
        b = self.builder
        lane = b.rem(block, LANES)
        with looping(b, 0, length, LANES) as start:
            for number, combiner in enumerate(self.combiners):
                level = self._get(1, number, lane, start)
                self._put(1, number, lane, start, combiner.combine(level, self._folded(0, number, start)))
        self._reset(0, length)

    def _finish(self, point: Point, start: Integer, level: int) -> None:
        """The results of one vector, and what is stored of them."""
        point.accumulated = [
            combiner.result(self._folded(level, number, start)) for number, combiner in enumerate(self.combiners)
        ]
        for store in self.kernel.stores:
            if not store.inside:
                self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)

