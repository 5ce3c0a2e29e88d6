"""Reductions with the vector lanes along a kept axis: of LANES rows at a time, each with its LANES partial results."""

from __future__ import annotations

from collections.abc import Sequence

from torturous.codegen.builder import Integer
from torturous.codegen.combining import Combiner, State, flatten, regroup, tree
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.visits import Visits
from torturous.compiler.stages import Stage
from torturous.ir import reduction

UNROLLED = 64
"""A reduction of at most this many elements, if known when generating, is written out."""


class Across:
    """Writes the reductions of one stage after the other."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits
        self.writer = visits.writer
        self.builder = visits.builder

    @property
    def is_written_out(self) -> bool:
        """Whether reductions are short enough to be written element by element."""
        outer, inner = self.visits.outer, self.visits.inner
        return isinstance(outer, int) and isinstance(inner, int) and outer * inner <= UNROLLED

    def states(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """States of a stage's accumulators, for LANES rows."""
        if not self.is_written_out:
            return self._blocks(stage, row, combiners)
        outer, inner = self.visits.outer, self.visits.inner
        assert isinstance(outer, int) and isinstance(inner, int)
        partial: list[list[State | None]] = [[None] * len(combiners) for _ in range(LANES)]
        for o in range(outer):
            for k in range(inner):
                before = [state or combiner.identity()
                          for state, combiner in zip(partial[k % LANES], combiners, strict=True)]
                partial[k % LANES] = [*self.visits.feed(stage, self.visits.at(row, o, k), combiners, before)]
        return [tree(combiner, [states[number] for states in partial]) for number, combiner in enumerate(combiners)]

    def _blocks(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """Blocks of steps with LANES accumulators each; the second level's accumulators lie on the stack."""
        b, visits = self.builder, self.visits
        inner = visits.inner
        chunks = b.ceil_div(inner, LANES)
        steps = b.mul(visits.outer, chunks)
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
                point = visits.at(row, o_now, k)
                states[lane::LANES] = visits.feed(stage, point, combiners, states[lane::LANES], exists)
            c_next = b.add(c_now, 1)
            wrapped = b.compare("eq", c_next, chunks)
            o_next = b.choose(wrapped, b.add(o_now, 1), o_now)
            after = b.end_loop(loop, [o_next, b.choose(wrapped, 0, c_next), *flatten(states)])
            folded = regroup(after[2:], per_lane)
            results = [tree(c, folded[n * LANES:(n + 1) * LANES]) for n, c in enumerate(combiners)]
            return results, after[0], after[1]

        if isinstance(steps, int) and steps <= reduction.BLOCK:
            return block(0, steps, 0, 0)[0]
        slots = [Slots(self.writer, combiner) for combiner in combiners]
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


class Slots:
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
