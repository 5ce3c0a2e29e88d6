"""Reductions and what is computed along the same rows: passes over the reduced loops at each place of the kept ones.

Either the lanes run along the inner reduced run (`along`), or they run along a kept axis, and LANES rows are worked
on at a time (`across`). The order of every sum is the one that `ir.reduction` defines, both ways.
"""

from __future__ import annotations

from torturous.codegen.across import Across
from torturous.codegen.along import Along
from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import Combiner
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.visits import Visits
from torturous.compiler.stages import Stage


class Rows:
    """Writes the body of a kernel with reduced loops, for one row or for LANES rows."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.kernel = writer.kernel
        self.visits = Visits(writer)
        self.along = self.visits.along
        self.across = Across(self.visits)

    def write(self, item: Point) -> None:
        """All stages, and the stores that follow them."""
        row = item
        if self.along:
            inner = self.visits.inner_axis
            nowhere: dict[int, Integer] = {axis: 0 for axis in range(inner + 1)}
            row = Point(nowhere | item.axes, inner, LANES)
        row.accumulated = [""] * len(self.kernel.accumulators)
        for stage in self.visits.stages:
            self._write_stage(stage, row)
        stores = [store for store in self.kernel.stores if not store.inside]
        for store in stores if self.along else ():
            # The same in every lane.
            value, wide = self.writer.emit(store.expression, row), kind(store.buffer.dtype, LANES)
            item.memo[id(store.expression)] = self.builder.value(
                f"shufflevector {wide} {value}, {wide} poison, <1 x i32> zeroinitializer")
        self.writer.store_all(stores, item)

    def _write_stage(self, stage: Stage, row: Point) -> None:
        self.visits.hoist(stage, row)
        lanes = LANES if self.along else row.lanes
        combiners = [Combiner(self.writer, self.kernel.accumulators[n], lanes) for n in stage.accumulators]
        if not combiners:
            self._visit(stage, row)
            return
        states = (Along(self.visits) if self.along else self.across).states(stage, row, combiners)
        for number, combiner, state in zip(stage.accumulators, combiners, states, strict=True):
            one = combiner.resized(1) if self.along else combiner
            value = one.result(state)
            row.accumulated[number] = combiner.in_every_lane(value) if self.along else value

    # Stages without reductions -------------------------------------------------------------------------------------
    def _visit(self, stage: Stage, row: Point) -> None:
        b, visits = self.builder, self.visits
        if visits.tiles.loads:
            self._visit_turned(stage, row)
            return

        def visit(outer: Integer, inner: Integer, mask: str | None = None, tail: int | None = None) -> None:
            visits.feed(stage, visits.at(row, outer, inner, mask, tail))

        def visit_run(outer: Integer) -> None:
            if not self.along:
                with looping(b, 0, visits.inner) as index:
                    visit(outer, index)
                return
            full = visits.full_vectors(visits.inner)
            if full == LANES:
                visit(outer, 0)
            elif full != 0:
                with looping(b, 0, full, LANES) as index:
                    visit(outer, index)
            visits.tail(visits.inner, full, lambda mask, tail: visit(outer, full, mask, tail))

        if visits.outer == 1:
            visit_run(0)
        else:
            with looping(b, 0, visits.outer) as outer:
                visit_run(outer)

    def _visit_turned(self, stage: Stage, row: Point) -> None:
        """Lanes may as well run along the outer run."""
        b, visits, axis = self.builder, self.visits, self.visits.inner_axis

        def visit(inner: Integer, outer: Integer, mask: str | None = None, tail: int | None = None) -> None:
            axes = row.axes | {axis - 1: outer, axis: inner}
            point = Point(axes, axis - 1, LANES, mask, tail, outer=row, accumulated=row.accumulated)
            visits.finish(stage, point)

        full = visits.full_vectors(visits.outer)
        with looping(b, 0, visits.inner) as inner:
            with looping(b, 0, full, LANES) as outer:
                visit(inner, outer)
            visits.tail(visits.outer, full, lambda mask, tail: visit(inner, full, mask, tail))
