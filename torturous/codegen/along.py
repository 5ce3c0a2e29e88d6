"""Reductions with the vector lanes along the inner run: one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.builder import Integer
from torturous.codegen.combining import Combiner, State, flatten, regroup
from torturous.codegen.expressions import LANES, Point
from torturous.codegen.lanes import rarely
from torturous.codegen.visits import Visits
from torturous.compiler.stages import Stage
from torturous.ir import reduction

UNROLLED_ALONG = 8
"""A row of at most so many vectors is written out; in a kernel of several stages only if it is one vector."""

Feed = Callable[[Sequence[State], Integer, Integer, str | None, int | None], list[State]]
"""A step: states before it, outer index, inner index, mask, number of lanes that exist; gives the states after it."""


class Along:
    """Writes the reductions of one stage after the other."""

    def __init__(self, visits: Visits) -> None:
        self.visits = visits
        self.writer = visits.writer
        self.builder = visits.builder
        self.kernel = visits.kernel

    def states(self, stage: Stage, row: Point, combiners: Sequence[Combiner]) -> list[State]:
        """One-lane states of a stage's accumulators."""
        b, visits = self.builder, self.visits
        outer, inner = visits.outer, visits.inner
        chunks = b.ceil_div(inner, LANES)

        def feed(states: Sequence[State], o: Integer, start: Integer, mask: str | None, tail: int | None
                 ) -> list[State]:
            return visits.feed(stage, visits.at(row, o, start, mask, tail), combiners, states, mask)

        turned = bool(visits.tiles.loads)
        most = 0 if turned else UNROLLED_ALONG if len(visits.stages) == 1 else 1
        if isinstance(outer, int) and isinstance(inner, int) and outer * int(chunks) <= most:
            states = [combiner.identity() for combiner in combiners]
            for o in range(outer):
                for start in range(0, inner, LANES):
                    tail = min(LANES, inner - start)
                    mask = self.writer.tail_mask(tail, LANES) if tail < LANES else None
                    states = feed(states, o, start, mask, tail if mask else None)
            return [combiner.folded(state) for combiner, state in zip(combiners, states, strict=True)]
        if outer == 1 and not turned:
            return self._blocks_of_one_run(combiners, feed, chunks)
        return self._blocks_of_runs(stage, row, combiners, feed, chunks)

    def _blocks_of_one_run(self, combiners: Sequence[Combiner], feed: Feed, chunks: Integer) -> list[State]:
        """`states` where nothing but the inner run is reduced: its last vector is peeled off."""
        b, inner = self.builder, self.visits.inner
        kinds = [k for combiner in combiners for k in combiner.kinds()]
        initial = list(zip(kinds, flatten([combiner.identity() for combiner in combiners]), strict=True))
        full = self.visits.full_vectors(self.visits.inner)

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

    def _blocks_of_runs(self, stage: Stage, row: Point, combiners: Sequence[Combiner], feed: Feed, chunks: Integer
                        ) -> list[State]:
        """`states` over outer runs too: blocks of reduction.BLOCK steps may begin and end within a run."""
        b, inner = self.builder, self.visits.inner
        kinds = [k for combiner in combiners for k in combiner.kinds()]
        identities = flatten([combiner.identity() for combiner in combiners])
        steps = b.mul(self.visits.outer, chunks)
        full = self.visits.full_vectors(self.visits.inner)
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

        tiles = self.visits.tiles
        if tiles.loads:
            tile = b.begin_loop(0, self.visits.outer, LANES, carried)
            tiles.start = tile.index
            tiles.fill(stage, row)
            values = runs(tile.carried, tile.index, b.minimum(b.add(tile.index, LANES), self.visits.outer))
            values = b.end_loop(tile, values)
        else:
            values = runs([value for _, value in carried], 0, self.visits.outer)
        if two_levels:
            values = self._entered(combiners, b.div(steps, reduction.BLOCK), values)
        return [combiner.folded(state) for combiner, state in zip(combiners, regroup(values, combiners), strict=True)]

    def _entered(self, combiners: Sequence[Combiner], block: Integer, values: list[str]) -> list[str]:
        """Level two after a block, whose states come first in `values`."""
        width = len(values) // 2
        states, level = regroup(values[:width], combiners), regroup(values[width:], combiners)
        return flatten(self._second_level(combiners, block, level, states))
