"""What a row kernel does at each point of the reduced loops, for all ways to go through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.builder import Integer
from torturous.codegen.combining import Combiner, State
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.held import Held
from torturous.codegen.tiles import Tiles, to_be_turned
from torturous.compiler.stages import Stage, Staging


class Visits:
    """A kernel's stages, and how their values come about at a point."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.kernel = writer.kernel
        self.inner_axis = len(self.kernel.axes) + len(self.kernel.reduced) - 1
        self.along = self.kernel.lane_axis == self.inner_axis
        turned = to_be_turned(self.kernel)
        self.staging = Staging(self.kernel, apart=bool(turned))
        self.stages = self.staging.stages
        self.held = Held(writer, self.stages, self.along)
        self.tiles = Tiles(writer, self.staging, turned, self.held.scratch)
        self.scratch = self.tiles.end

    @property
    def outer(self) -> Integer:
        return self.writer.size(self.kernel.reduced[0]) if self.kernel.outer_runs else 1

    @property
    def inner(self) -> Integer:
        return self.writer.size(self.kernel.reduced[-1])

    # Runs ----------------------------------------------------------------------------------------------------------
    def full_vectors(self, extent: Integer) -> Integer:
        """How much of a run fills whole vectors."""
        return extent - extent % LANES if isinstance(extent, int) else self.builder.value(f"and i64 {extent}, {-LANES}")

    def tail(self, extent: Integer, full: Integer, body: Callable[[str, int | None], None]) -> None:
        """The last, partial vector of a run, if there is one."""
        b = self.builder
        left = b.sub(extent, full)
        if isinstance(left, int):
            if left:
                body(self.writer.tail_mask(left, LANES), left)
            return
        b.when(b.compare("sgt", left, 0), lambda: body(self.writer.tail_mask(left, LANES), None))

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

    def hoist(self, stage: Stage, row: Point) -> None:
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

    def feed(self, stage: Stage, point: Point, combiners: Sequence[Combiner] = (), states: Sequence[State] = (),
             mask: str | None = None) -> list[State]:
        """What a stage does at a point; gives the new states of its accumulators, where the mask holds."""
        self.held.recall(stage, point)
        self.tiles.recall(stage, point)
        new = []
        for combiner, state in zip(combiners, states, strict=True):
            new.append(combiner.masked(mask, state, combiner.feed(state, combiner.element(point))))
        self.finish(stage, point)
        return new

    def finish(self, stage: Stage, point: Point) -> None:
        """Holds and stores what a stage computes at a point."""
        self.held.hold(stage, point)
        for store in stage.stores:
            self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)
