"""Long reductions with the lanes along a kept axis: a strip of that axis goes through the reduced loops together.

Each result has LANES partial results (see `ir.reduction`). One of them is fed at a time, for a few vectors of a strip,
so that registers hold it; scratch memory, which stays in the first-level cache, keeps it until all are there.
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import Combiner, State, flatten, regroup, tree
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.visits import Visits
from torturous.compiler.kernel import Load
from torturous.compiler.schedule import walk
from torturous.compiler.sizes import ZERO
from torturous.ir import reduction

STRIP = 256
"""Elements of the lane axis per item at most."""
WIDE = 4
"""Vectors of a strip that are fed together."""
UNIT = WIDE * LANES
"""Strips are multiples of it."""
AHEAD = 8
"""How many steps before it is read an operand is asked for."""


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
        steps = b.mul(visits.outer, b.ceil_div(visits.inner, LANES))
        two_levels = not (isinstance(steps, int) and steps <= reduction.BLOCK)
        if two_levels:
            self._reset(1, length)
            with looping(b, 0, b.ceil_div(steps, reduction.BLOCK)) as block:
                begin = b.mul(block, reduction.BLOCK)
                self._block(line, first, length, begin, b.minimum(b.add(begin, reduction.BLOCK), steps))
                self._flush(block, length)
        else:
            self._block(line, first, length, 0, steps)
        self._vectors(line, first, length, 1,
                      lambda points, start: self._finish(points[0], start, int(two_levels)))

    def _vectors(self, line: Point, first: Integer, length: Integer, wide: int,
                 body: Callable[[list[Point], Integer], None]) -> None:
        """The strip's vectors, `wide` together and then one by one, with their place in the strip; the last masked."""
        b, axis = self.builder, self.axis
        outer = line if line.lanes == LANES else None

        def at(start: Integer, count: int = 1, mask: str | None = None, tail: int | None = None) -> None:
            places = [b.add(b.add(first, start), LANES * number) for number in range(count)]
            body([Point(dict(line.axes) | {axis: place}, axis, LANES, mask, tail, outer=outer) for place in places],
                 start)

        begin: Integer = 0
        for count in sorted({wide, 1}, reverse=True):
            step = count * LANES
            end = length - length % step if isinstance(length, int) else b.value(f"and i64 {length}, {-step}")
            if end != begin:
                with looping(b, begin, end, step) as start:
                    at(start, count)
            begin = end
        left = b.sub(length, begin)
        if isinstance(left, int):
            if left:
                at(begin, 1, self.writer.tail_mask(left, LANES), left)
            return
        b.when(b.compare("sgt", left, 0), lambda: at(begin, 1, self.writer.tail_mask(left, LANES)))

    def _block(self, line: Point, first: Integer, length: Integer, begin: Integer, end: Integer) -> None:
        """The partial results of the steps from `begin` to `end`, into level one."""
        with looping(self.builder, 0, LANES) as lane:
            self._vectors(line, first, length, WIDE,
                          lambda points, start: self._lane(points, start, lane, begin, end))

    def _lane(self, vectors: list[Point], start: Integer, lane: Integer, begin: Integer, end: Integer) -> None:
        """The partial results in one lane of a block, for some vectors of the strip."""
        b, visits = self.builder, self.visits
        kinds = [kind for combiner in self.combiners for kind in combiner.kinds()] * len(vectors)
        combiners = self.combiners * len(vectors)
        values = flatten([combiner.identity() for combiner in combiners])
        # Steps in which the lane has an element.
        existing = b.div(b.add(b.sub(visits.inner, lane), LANES - 1), LANES)

        def run(values: list[str], o: Integer, c_first: Integer, c_past: Integer) -> list[str]:
            loop = b.begin_loop(c_first, b.minimum(c_past, existing), 1, list(zip(kinds, values, strict=True)))
            k = b.add(b.mul(loop.index, LANES), lane)
            states = self._feed(vectors, regroup(loop.carried, combiners), o, k)
            return b.end_loop(loop, flatten(states))

        if visits.outer == 1:
            values = run(values, 0, begin, end)
        else:
            chunks = b.ceil_div(visits.inner, LANES)
            loop = b.begin_loop(b.div(begin, chunks), b.ceil_div(end, chunks), 1, list(zip(kinds, values, strict=True)))
            passed = b.mul(loop.index, chunks)
            c_past = b.minimum(b.sub(end, passed), chunks)
            values = run(loop.carried, loop.index, b.maximum(b.sub(begin, passed), 0), c_past)
            values = b.end_loop(loop, values)
        states = regroup(values, combiners)
        for number, state in enumerate(states):
            vector, accumulator = divmod(number, len(self.combiners))
            self._put(0, accumulator, lane, b.add(start, vector * LANES), state)

    def _feed(self, vectors: list[Point], states: list[State], o: Integer, k: Integer) -> list[State]:
        """One place of the reduced loops: an element for each result of the vectors."""
        axis, inner = self.axis, self.visits.inner_axis
        place = {inner: k} | ({inner - 1: o} if self.kernel.outer_runs else {})
        # What is the same all along the strip.
        here = Point(vectors[0].axes | place, axis, LANES)
        self.writer.hoist(self.visits.staging.roots(self.stage), here, axis)
        new: list[State] = []
        for vector in vectors:
            point = Point(vector.axes | place, axis, LANES, vector.mask, vector.tail, outer=here)
            self._fetch_ahead(point)
            for combiner in self.combiners:
                new.append(combiner.feed(states[len(new)], combiner.element(point)))
            for store in self.stage.stores:
                self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)
        return new

    def _fetch_ahead(self, point: Point) -> None:
        """Asks for what will be read a few steps later, into the second-level cache, which can wait for more lines at
        a time than the first: hardware does not foresee steps over many rows.
        """
        b, inner = self.builder, self.visits.inner_axis
        for expression in walk(self.visits.staging.roots(self.stage)):
            if not isinstance(expression, Load) or expression.guards or any(t < 0 for t in expression.address.terms):
                continue
            step = expression.address.factor(inner)
            if expression.address.factor(self.axis) != 1 or step == 0:
                continue
            base, _, _ = self.writer.affine(expression.address, point)
            ahead = b.add(base, b.mul(self.writer.size(step), AHEAD * LANES))
            place = b.offset(self.writer.pointer(expression.buffer), b.mul(ahead, expression.dtype.itemsize))
            b.prefetch(place, level=2)

    def _flush(self, block: Integer, length: Integer) -> None:
        """A block's results enter lane (block mod LANES) of level two."""
        b = self.builder
        lane = b.rem(block, LANES)
        with looping(b, 0, length, LANES) as start:
            for number, combiner in enumerate(self.combiners):
                level = self._get(1, number, lane, start)
                self._put(1, number, lane, start, combiner.combine(level, self._folded(0, number, start)))

    def _finish(self, point: Point, start: Integer, level: int) -> None:
        """The results of one vector, and what is stored of them."""
        point.accumulated = [
            combiner.result(self._folded(level, number, start)) for number, combiner in enumerate(self.combiners)
        ]
        self.writer.store_all([store for store in self.kernel.stores if not store.inside], point)

