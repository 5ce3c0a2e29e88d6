"""Reductions and what is computed along the same rows: passes over the reduced loops at each place of the kept ones.

Either the lanes run along the inner reduced run, and one row is worked on at a time; or they run along a kept axis,
and LANES rows are. The order of every sum is the one that `ir.reduction` defines, both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import Combiner, State, flatten, regroup, tree
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.lanes import rarely
from torturous.codegen.turning import turned
from torturous.compiler.kernel import Derived, Digit, Expression, Load
from torturous.compiler.schedule import walk
from torturous.compiler.sizes import ONE, ZERO, Size
from torturous.compiler.stages import Stage, Staging
from torturous.ir import reduction

UNROLLED = 64
"""A reduction across lanes of at most this many elements, if known when generating, is written out."""
UNROLLED_ALONG = 8
"""The same along lanes, in vectors; a kernel of several stages is written out only if all its rows are one vector."""


class Rows:
    """Writes the body of a kernel with reduced loops, for one row or for LANES rows."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.kernel = writer.kernel
        self.inner_axis = len(self.kernel.axes) + len(self.kernel.reduced) - 1
        self.along = self.kernel.lane_axis == self.inner_axis
        self.turned = self._to_be_turned()
        """Loads whose elements follow each other along the outer run, while lanes run along the inner one."""
        self.staging = Staging(writer.kernel, apart=bool(self.turned))
        self.stages = self.staging.stages
        self.places: dict[int, Size] = {}
        """Where in scratch memory a held expression's row begins, in bytes, by identity."""
        end = ZERO
        for stage in self.stages:
            for expression in stage.held:
                self.places[id(expression)] = end
                end = end + self._held_row() * expression.dtype.itemsize
        for load in self.turned:
            self.places[id(load)] = end
            end = end + (self.kernel.reduced[-1] + (LANES - 1)) * (LANES * load.dtype.itemsize)
        self.scratch = end
        self.tile_start: Integer = 0

    @property
    def outer(self) -> Integer:
        return self.writer.size(self.kernel.reduced[0]) if self.kernel.outer_runs else 1

    @property
    def inner(self) -> Integer:
        return self.writer.size(self.kernel.reduced[-1])

    @property
    def is_written_out(self) -> bool:
        """Whether a reduction across lanes is short enough to be written element by element."""
        outer, inner = self.outer, self.inner
        return isinstance(outer, int) and isinstance(inner, int) and outer * inner <= UNROLLED

    def _to_be_turned(self) -> list[Load]:
        kernel = self.kernel
        if not self.along or not kernel.outer_runs:
            return []
        found = []
        for expression in walk([accumulator.expression for accumulator in kernel.accumulators]):
            if isinstance(expression, Load) and not expression.guards:
                along, across = (expression.address.factor(axis) for axis in (self.inner_axis, self.inner_axis - 1))
                digits = [self.kernel.derived[~term] for term in expression.address.terms if term < 0]
                if across == 1 and (along != 0 or digits) and all(map(self._is_digit_of_the_inner_run, digits)):
                    found.append(expression)
        return found

    def _is_digit_of_the_inner_run(self, derived: Derived) -> bool:
        return isinstance(derived, Digit) and set(derived.affine.terms) == {self.inner_axis}

    # Points --------------------------------------------------------------------------------------------------------
    def at(self, row: Point, outer: Integer, inner: Integer, mask: str | None = None, tail: int | None = None) -> Point:
        """A place of the reduced loops; `row` holds what does not vary along them."""
        axes = dict(row.axes)
        first = len(self.kernel.axes)
        if self.kernel.outer_runs:
            axes[first] = outer
        axes[self.inner_axis] = inner
        if not self.along:
            mask, tail = row.mask, row.tail
        return Point(axes, row.lane_axis, row.lanes, mask, tail, outer=row, accumulated=row.accumulated)

    def _hoist(self, stage: Stage, row: Point) -> None:
        """Evaluates whatever a stage needs that is the same all along the row."""
        pending = list(self.staging.roots(stage))
        seen = {id(expression) for expression in stage.recalled}
        while pending:
            expression = pending.pop()
            if id(expression) in seen:
                continue
            seen.add(id(expression))
            if self.staging.varies(expression):
                pending += self.staging.parts(expression)
            else:
                self.writer.emit(expression, row)

    # What is held from stage to stage ------------------------------------------------------------------------------
    def _held_row(self) -> Size:
        """Elements of scratch memory that a held expression takes."""
        outer = self.kernel.reduced[0] if self.kernel.outer_runs else ONE
        inner = self.kernel.reduced[-1]
        return outer * (inner + (LANES - 1)) if self.along else outer * inner * LANES

    def _held_place(self, expression: Expression, point: Point) -> tuple[str, str]:
        """Type and address of a held expression's vector at a point."""
        b, size = self.builder, expression.dtype.itemsize
        index = point.axes[self.inner_axis]
        row = self.inner
        if self.along:
            row = b.add(row, LANES - 1)
        if self.kernel.outer_runs:
            index = b.add(b.mul(point.axes[self.inner_axis - 1], row), index)
        if not self.along:
            index = b.mul(index, LANES)
        start = b.add(b.mul(index, size), self.writer.size(self.places[id(expression)]))
        memory = f"<{point.lanes} x {self.writer.memory_kind(expression.dtype)}>"
        return memory, b.offset("%scratch", start)

    def _recall(self, stage: Stage, point: Point) -> None:
        for expression in stage.recalled:
            memory, place = self._held_place(expression, point)
            value = self.builder.load(memory, place, expression.dtype.itemsize)
            point.memo[id(expression)] = self.writer.from_memory(value, expression.dtype, point.lanes)
        for load in self.turned:
            if not self.staging.is_read(load, stage):
                continue
            memory, place = self._tile_place(load, point.axes[self.inner_axis - 1], point.axes[self.inner_axis])
            value = self.builder.load(memory, place, load.dtype.itemsize)
            point.memo[id(load)] = self.writer.from_memory(value, load.dtype, point.lanes)

    # Tiles ---------------------------------------------------------------------------------------------------------
    def _tile_place(self, load: Load, outer: Integer, inner: Integer) -> tuple[str, str]:
        """Type and address of a turned load's vector in the present tile."""
        b = self.builder
        row = b.mul(b.ceil_div(self.inner, LANES), LANES)
        index = b.add(b.mul(b.sub(outer, self.tile_start), row), inner)
        start = b.add(b.mul(index, load.dtype.itemsize), self.writer.size(self.places[id(load)]))
        return f"<{LANES} x {self.writer.memory_kind(load.dtype)}>", b.offset("%scratch", start)

    def _fill_tile(self, stage: Stage, row: Point) -> None:
        """Turns what a stage reads of the LANES places of the outer run from `tile_start` on."""
        b, first = self.builder, self.tile_start
        outer, inner = self.outer, self.inner
        mask = None
        if not (isinstance(outer, int) and outer % LANES == 0):
            mask = self.writer.tail_mask(b.sub(outer, first), LANES)
        with looping(b, 0, self.inner, LANES) as start:
            for load in self.turned:
                if not self.staging.is_read(load, stage):
                    continue
                vectors = []
                for lane in range(LANES):
                    k = b.add(start, lane)
                    if not (isinstance(inner, int) and inner % LANES == 0):
                        k = b.choose(b.compare("slt", k, inner), k, start)  # What is past the end is left out later.
                    axes = row.axes | {self.inner_axis - 1: first, self.inner_axis: k}
                    point = Point(axes, self.inner_axis - 1, LANES, mask)
                    vectors.append(self.writer.to_memory(self.writer.emit(load, point), load.dtype, LANES))
                memory, _ = self._tile_place(load, first, start)
                for position, vector in enumerate(turned(b, memory, vectors)):
                    _, place = self._tile_place(load, b.add(first, position), start)
                    b.store(memory, vector, place, load.dtype.itemsize)

    def _finish_point(self, stage: Stage, point: Point) -> None:
        """Holds and stores what a stage computes at a point."""
        writer = self.writer
        for expression in stage.held:
            value = writer.to_memory(writer.emit(expression, point), expression.dtype, point.lanes)
            memory, place = self._held_place(expression, point)
            self.builder.store(memory, value, place, expression.dtype.itemsize)
        for store in stage.stores:
            writer.store(writer.emit(store.expression, point), store.buffer, store.address, point)

    # Stages --------------------------------------------------------------------------------------------------------
    def write(self, item: Point) -> None:
        """All stages, and the stores that follow them."""
        row = item
        if self.along:
            axes = {axis: 0 for axis in range(self.inner_axis + 1)} | item.axes
            row = Point(axes, self.inner_axis, LANES, accumulated=item.accumulated)
        finished = [""] * len(self.kernel.accumulators)
        row.accumulated = finished
        for stage in self.stages:
            self._hoist(stage, row)
            lanes = LANES if self.along else row.lanes
            combiners = [Combiner(self.writer, self.kernel.accumulators[n], lanes) for n in stage.accumulators]
            if not combiners:
                self._visit(stage, row)
                continue
            results = self._along(stage, row, combiners) if self.along else self._across(stage, row, combiners)
            for number, combiner, state in zip(stage.accumulators, combiners, results, strict=True):
                one = combiner.resized(1) if self.along else combiner
                value = one.result(state)
                finished[number] = combiner.in_every_lane(value) if self.along else value
        for store in self.kernel.stores:
            if not store.inside:
                value = self.writer.emit(store.expression, row)
                if self.along:
                    # The same in every lane.
                    value = self.builder.value(
                        f"shufflevector {kind(store.buffer.dtype, LANES)} {value}, "
                        f"{kind(store.buffer.dtype, LANES)} poison, <1 x i32> zeroinitializer")
                self.writer.store(value, store.buffer, store.address, item)

    def _visit(self, stage: Stage, row: Point) -> None:
        """A stage without reductions."""
        b = self.builder

        if self.turned:
            self._visit_turned(stage, row)
            return

        def visit(point: Point) -> None:
            self._recall(stage, point)
            self._finish_point(stage, point)

        def visit_row(outer: Integer) -> None:
            if not self.along:
                with looping(b, 0, self.inner) as index:
                    visit(self.at(row, outer, index))
                return
            full = self._full_vectors(self.inner)
            if full == LANES:
                visit(self.at(row, outer, 0))
            elif full != 0:
                with looping(b, 0, full, LANES) as index:
                    visit(self.at(row, outer, index))
            self._tail(self.inner, full, lambda mask, tail: visit(self.at(row, outer, full, mask, tail)))

        if self.outer == 1:
            visit_row(0)
        else:
            with looping(b, 0, self.outer) as outer:
                visit_row(outer)

    def _visit_turned(self, stage: Stage, row: Point) -> None:
        """A stage without reductions, whose lanes may as well run along the outer run."""
        b = self.builder

        def visit(inner: Integer, outer: Integer, mask: str | None = None, tail: int | None = None) -> None:
            axes = row.axes | {self.inner_axis - 1: outer, self.inner_axis: inner}
            self._finish_point(stage, Point(axes, self.inner_axis - 1, LANES, mask, tail, outer=row,
                                            accumulated=row.accumulated))

        full = self._full_vectors(self.outer)
        with looping(b, 0, self.inner) as inner:
            with looping(b, 0, full, LANES) as outer:
                visit(inner, outer)
            self._tail(self.outer, full, lambda mask, tail: visit(inner, full, mask, tail))

    def _full_vectors(self, extent: Integer) -> Integer:
        """How much of a run fills whole vectors."""
        return extent - extent % LANES if isinstance(extent, int) else self.builder.value(f"and i64 {extent}, {-LANES}")

    def _tail(self, extent: Integer, full: Integer, body: Callable[[str, int | None], None]) -> None:
        """The last, partial vector of a run, if there is one."""
        b = self.builder
        left = b.sub(extent, full)
        if isinstance(left, int):
            if left:
                body(self.writer.tail_mask(left, LANES), left)
            return
        b.when(b.compare("sgt", left, 0), lambda: body(self.writer.tail_mask(left, LANES), None))

    # Lanes along the inner run -------------------------------------------------------------------------------------
    def _along(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """One-lane states of a stage's accumulators."""
        b = self.builder
        outer, inner = self.outer, self.inner
        chunks = b.ceil_div(inner, LANES)

        def feed(states: Sequence[State], o: Integer, start: Integer, mask: str | None, tail: int | None
                 ) -> list[State]:
            point = self.at(row, o, start, mask, tail)
            self._recall(stage, point)
            new = []
            for combiner, state in zip(combiners, states, strict=True):
                new.append(combiner.masked(mask, state, combiner.feed(state, combiner.element(point))))
            self._finish_point(stage, point)
            return new

        most = 0 if self.turned else UNROLLED_ALONG if len(self.stages) == 1 else 1
        if isinstance(outer, int) and isinstance(inner, int) and outer * int(chunks) <= most:
            states = [combiner.identity() for combiner in combiners]
            for o in range(outer):
                for start in range(0, inner, LANES):
                    tail = min(LANES, inner - start)
                    mask = self.writer.tail_mask(tail, LANES) if tail < LANES else None
                    states = feed(states, o, start, mask, tail if mask else None)
            return [combiner.folded(state) for combiner, state in zip(combiners, states, strict=True)]
        if outer == 1 and not self.turned:
            return self._blocks_of_one_run(combiners, feed, chunks)
        return self._blocks_of_runs(stage, row, combiners, feed, chunks)

    def _blocks_of_one_run(self, combiners: Sequence[Combiner], feed: Callable[..., list[State]], chunks: Integer
                           ) -> list[State]:
        """`_along` where nothing but the inner run is reduced: its last vector is peeled off."""
        b, inner = self.builder, self.inner
        kinds = [k for combiner in combiners for k in combiner.kinds()]
        initial = list(zip(kinds, flatten([combiner.identity() for combiner in combiners]), strict=True))
        full = self._full_vectors(self.inner)

        def block(first: Integer, last: Integer) -> list[State]:
            """Elements from `first` to `last`, which is past the end of the run in its last block; known if it is
            the only one."""
            loop = b.begin_loop(first, b.minimum(last, full), LANES, initial)
            states = feed(regroup(loop.carried, combiners), 0, loop.index, None, None)
            states = regroup(b.end_loop(loop, flatten(states)), combiners)
            left = b.sub(inner, full)
            if left == 0:
                return states

            def rest() -> list[State]:
                tail = left if isinstance(left, int) else None
                return feed(states, 0, full, self.writer.tail_mask(left, LANES), tail)

            if isinstance(last, int):
                return rest()
            usual = list(zip(kinds, flatten(states), strict=True))
            is_last = b.compare("sgt", last, inner)
            if not isinstance(left, int):
                is_last = b.value(f"and i1 {is_last}, {b.compare('sgt', left, 0)}")
            return regroup(rarely(combiners[0].e, is_last, usual, lambda: flatten(rest())), combiners)

        steps = reduction.BLOCK * LANES
        if isinstance(inner, int) and (inner <= steps or self.kernel.unblocked):
            states = block(0, inner + 1)
            return [combiner.folded(state) for combiner, state in zip(combiners, states, strict=True)]
        blocks = b.ceil_div(chunks, reduction.BLOCK)
        loop = b.begin_loop(0, blocks, 1, initial)
        first = b.mul(loop.index, steps)
        states = block(first, b.add(first, steps))
        second = self._second_level(combiners, loop.index, regroup(loop.carried, combiners), states)
        after = regroup(b.end_loop(loop, flatten(second)), combiners)
        return [combiner.folded(state) for combiner, state in zip(combiners, after, strict=True)]

    def _second_level(self, combiners: Sequence[Combiner], block: Integer, level: Sequence[State],
                      states: Sequence[State]) -> list[State]:
        """A block's states, folded, entering lane (block mod LANES) of level two."""
        b = self.builder
        lane = b.value(f"and i64 {block}, {LANES - 1}")
        wide = f"<{LANES} x i64>"
        one = b.value(f"insertelement {wide} poison, i64 {lane}, i32 0")
        spread = b.value(f"shufflevector {wide} {one}, {wide} poison, <{LANES} x i32> zeroinitializer")
        numbers = "<" + ", ".join(f"i64 {n}" for n in range(LANES)) + ">"
        mask = b.value(f"icmp eq {wide} {numbers}, {spread}")
        return [
            combiner.masked(mask, old, combiner.combine(old, combiner.widened(combiner.folded(state))))
            for combiner, old, state in zip(combiners, level, states, strict=True)
        ]

    def _blocks_of_runs(self, stage: Stage, row: Point, combiners: Sequence[Combiner],
                        feed: Callable[..., list[State]], chunks: Integer) -> list[State]:
        """`_along` over outer runs too: blocks of reduction.BLOCK steps may begin and end within a run."""
        b, inner = self.builder, self.inner
        kinds = [k for combiner in combiners for k in combiner.kinds()]
        identities = flatten([combiner.identity() for combiner in combiners])
        steps = b.mul(self.outer, chunks)
        full = self._full_vectors(self.inner)
        left = b.sub(inner, full)
        two_levels = not (isinstance(steps, int) and steps <= reduction.BLOCK)
        width = len(kinds)
        carried = list(zip(kinds * 2, identities * 2, strict=True)) if two_levels else list(
            zip(kinds, identities, strict=True))

        def after(values: list[str], o: Integer, start: Integer) -> list[str]:
            """What goes on after a step: a block that is full enters level two."""
            if not two_levels:
                return values
            step = b.add(b.mul(o, chunks), b.div(start, LANES))
            last = b.compare("eq", b.value(f"and i64 {step}, {reduction.BLOCK - 1}"), reduction.BLOCK - 1)
            usual = list(zip(kinds * 2, values, strict=True))

            def flush() -> list[str]:
                return identities + self._entered(combiners, b.div(step, reduction.BLOCK), values)

            return rarely(combiners[0].e, last, usual, flush)

        def fed(values: list[str], o: Integer, start: Integer, mask: str | None, tail: int | None) -> list[str]:
            states = feed(regroup(values[:width], combiners), o, start, mask, tail)
            return after(flatten(states) + values[width:], o, start)

        def run(values: list[str], o: Integer) -> list[str]:
            """One run of the inner axis."""
            if full != 0:
                loop = b.begin_loop(0, full, LANES, list(zip([k for k, _ in carried], values, strict=True)))
                values = b.end_loop(loop, fed(loop.carried, o, loop.index, None, None))
            if left == 0:
                return values
            if isinstance(left, int):
                return fed(values, o, full, self.writer.tail_mask(left, LANES), left)
            usual = list(zip([k for k, _ in carried], values, strict=True))
            return rarely(combiners[0].e, b.compare("sgt", left, 0), usual,
                          lambda: fed(values, o, full, self.writer.tail_mask(left, LANES), None))

        def runs(values: list[str], first: Integer, past: Integer) -> list[str]:
            loop = b.begin_loop(first, past, 1, list(zip([k for k, _ in carried], values, strict=True)))
            return b.end_loop(loop, run(loop.carried, loop.index))

        if self.turned:
            tiles = b.begin_loop(0, self.outer, LANES, carried)
            self.tile_start = tiles.index
            self._fill_tile(stage, row)
            values = runs(tiles.carried, tiles.index, b.minimum(b.add(tiles.index, LANES), self.outer))
            values = b.end_loop(tiles, values)
        else:
            values = runs([value for _, value in carried], 0, self.outer)
        if two_levels:
            values = self._entered(combiners, b.div(steps, reduction.BLOCK), values)
        return [combiner.folded(state) for combiner, state in zip(combiners, regroup(values, combiners), strict=True)]

    def _entered(self, combiners: Sequence[Combiner], block: Integer, values: list[str]) -> list[str]:
        """Level two after a block, whose states come first in `values`."""
        width = len(values) // 2
        states, level = regroup(values[:width], combiners), regroup(values[width:], combiners)
        return flatten(self._second_level(combiners, block, level, states))

    # Lanes along a kept axis ---------------------------------------------------------------------------------------
    def _across(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """States of LANES rows at a time, each made of its LANES partial results."""
        outer, inner = self.outer, self.inner
        if not self.is_written_out:
            return self._blocks_across(stage, row, combiners)
        assert isinstance(outer, int) and isinstance(inner, int)
        partial: list[list[State | None]] = [[None] * LANES for _ in combiners]
        for o in range(outer):
            for k in range(inner):
                point = self.at(row, o, k)
                self._recall(stage, point)
                for number, combiner in enumerate(combiners):
                    state = partial[number][k % LANES] or combiner.identity()
                    partial[number][k % LANES] = combiner.feed(state, combiner.element(point))
                self._finish_point(stage, point)
        return [tree(combiner, states) for combiner, states in zip(combiners, partial, strict=True)]

    def _blocks_across(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """Blocks of steps with LANES accumulators each; the second level's accumulators lie on the stack."""
        b, inner = self.builder, self.inner
        chunks = b.ceil_div(inner, LANES)
        steps = b.mul(self.outer, chunks)
        per_lane = [combiner for combiner in combiners for _ in range(LANES)]
        kinds = [k for combiner in per_lane for k in combiner.kinds()]
        initial = list(zip(kinds, flatten([combiner.identity() for combiner in per_lane]), strict=True))

        def block(first: Integer, last: Integer, o: Integer, c: Integer) -> tuple[list[State], Integer, Integer]:
            loop = b.begin_loop(first, last, 1, [("i64", o), ("i64", c), *initial])
            o_now, c_now, *values = loop.carried
            states = regroup(values, per_lane)
            start = b.mul(c_now, LANES)
            for lane in range(LANES):
                k = b.add(start, lane)
                exists = None
                if not (isinstance(inner, int) and inner % LANES == 0):
                    # A lane past the end comes by a place that exists once more, and is then left out.
                    test = b.compare("slt", k, inner)
                    k = b.choose(test, k, start)
                    bits = f"<{row.lanes} x i1>"
                    one = b.value(f"insertelement {bits} poison, i1 {test}, i32 0")
                    exists = b.value(f"shufflevector {bits} {one}, {bits} poison, <{row.lanes} x i32> zeroinitializer")
                point = self.at(row, o_now, k)
                self._recall(stage, point)
                for number, combiner in enumerate(combiners):
                    position = number * LANES + lane
                    new = combiner.feed(states[position], combiner.element(point))
                    states[position] = combiner.masked(exists, states[position], new)
                self._finish_point(stage, point)
            c_next = b.add(c_now, 1)
            wrapped = b.compare("eq", c_next, chunks)
            o_next = b.choose(wrapped, b.add(o_now, 1), o_now)
            after = b.end_loop(loop, [o_next, b.choose(wrapped, 0, c_next), *flatten(states)])
            folded = regroup(after[2:], per_lane)
            results = [tree(c, folded[n * LANES:(n + 1) * LANES]) for n, c in enumerate(combiners)]
            return results, after[0], after[1]

        if isinstance(steps, int) and steps <= reduction.BLOCK:
            return block(0, steps, 0, 0)[0]
        slots = [_Slots(self.writer, combiner) for combiner in combiners]
        blocks = b.ceil_div(steps, reduction.BLOCK)
        loop = b.begin_loop(0, blocks, 1, [("i64", 0), ("i64", 0)])
        first = b.mul(loop.index, reduction.BLOCK)
        last = b.minimum(b.add(first, reduction.BLOCK), steps)
        results, o_next, c_next = block(first, last, loop.carried[0], loop.carried[1])
        lane_now = b.value(f"and i64 {loop.index}, {LANES - 1}")
        for combiner, result, mine in zip(combiners, results, slots, strict=True):
            mine.put(lane_now, combiner.combine(mine.get(lane_now), result))
        b.end_loop(loop, [o_next, c_next])
        return [
            tree(combiner, [mine.get(lane) for lane in range(LANES)])
            for combiner, mine in zip(combiners, slots, strict=True)
        ]


class _Slots:
    """The second level's LANES states of one accumulator, on the stack."""

    def __init__(self, writer: KernelWriter, combiner: Combiner) -> None:
        self.builder = writer.builder
        self.combiner = combiner
        self.arrays = [
            writer.builder.hoisted(f"alloca [{LANES} x {kind}], align 64") for kind in combiner.memory_kinds()
        ]
        for lane in range(LANES):
            self.put(lane, combiner.identity())

    def _place(self, memory: str, array: str, lane: Integer) -> str:
        return self.builder.value(f"getelementptr {memory}, ptr {array}, i64 {lane}")

    def put(self, lane: Integer, state: State) -> None:
        values = self.combiner.to_memory(state)
        for memory, array, value in zip(self.combiner.memory_kinds(), self.arrays, values, strict=True):
            self.builder.store(memory, value, self._place(memory, array, lane), 8)

    def get(self, lane: Integer) -> State:
        return self.combiner.from_memory([
            self.builder.load(memory, self._place(memory, array, lane), 8)
            for memory, array in zip(self.combiner.memory_kinds(), self.arrays, strict=True)
        ])
