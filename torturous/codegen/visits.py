"""What a row kernel does at each point of the reduced loops, for all ways to go through them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from torturous.codegen.builder import Integer
from torturous.codegen.combining import Combiner, State
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.held import Held
from torturous.codegen.tiles import Tiles, to_be_turned
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Load, Store
from torturous.compiler.schedule import loads
from torturous.compiler.sizes import ZERO, Affine, Size
from torturous.compiler.stages import HELD_COST, Stage, Staging

ANNOUNCED_ROW = 4096
"""Elements of a row, if known, up to which a pass announces what the next one stores: the lines stay in the caches."""
FORESEEN_ROW = 1 << 11
"""Elements of a row from which on the next row is asked for: hardware foresees shorter ones."""
FORESEEN_BYTES = 1 << 18
"""Of the next row at most: it lies in the second-level cache, beside the present one."""


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
        self.announced: dict[Stage, list[Store]] = {}
        """What the stage that follows a stage stores, if memory is idle meanwhile."""
        self.foreseen: dict[Stage, list[Load]] = {}
        """What the first stage will read of the next row, likewise."""
        if self.along and not self.kernel.outer_runs:
            self._use_idle_memory()

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

    # Idle memory ---------------------------------------------------------------------------------------------------
    def _use_idle_memory(self) -> None:
        """Finds stages that read only what an earlier one has brought near, and store nothing."""
        extent = self.kernel.reduced[-1].constant
        if extent is None:
            return
        varying = list(filter(self.staging.varies, loads(self.kernel)))
        foreseen = [load for load in varying if self._lies_along(load.address) and not load.guards]
        foreseen = [load for load in foreseen if load.address.factor(len(self.kernel.axes) - 1) != 0
                    and self.staging.is_read(load, self.stages[0])]
        foreseen = list({load.buffer: load for load in foreseen}.values())
        if extent < FORESEEN_ROW or sum(extent * load.dtype.itemsize for load in foreseen) > FORESEEN_BYTES:
            foreseen = []
        read: set[Load] = set()
        for stage, following in zip_longest(self.stages, self.stages[1:]):
            now = {load for load in varying if self.staging.is_read(load, stage)}
            if now <= read and not stage.stores:
                if following is not None and extent <= ANNOUNCED_ROW:
                    self.announced[stage] = [
                        store for store in following.stores
                        if self._lies_along(store.address) and store.buffer not in self.writer.streamed]
                if self.announced.get(stage) or self._takes_its_time(stage):
                    self.foreseen[stage], foreseen = foreseen, []
            read |= now

    def _takes_its_time(self, stage: Stage) -> bool:
        """Whether memory would wait for a stage: sums alone keep pace with it."""
        return any(self.staging.costs(expression) >= HELD_COST for expression in self.staging.roots(stage))

    def _lies_along(self, address: Affine) -> bool:
        return address.factor(self.inner_axis) == 1 and all(term >= 0 for term in address.terms)

    def _fetch(self, stage: Stage, point: Point) -> None:
        """Has lines brought near that the next pass stores to, and such of the next row."""
        b = self.builder

        def place(buffer: Node, address: Affine, further: Size) -> str:
            base, _, _ = self.writer.affine(address, point)
            start = b.add(base, self.writer.size(further))
            return b.offset(self.writer.pointer(buffer), b.mul(start, buffer.dtype.itemsize))

        for store in self.announced.get(stage, ()):
            b.prefetch(place(store.buffer, store.address, ZERO), write=True)
        for load in self.foreseen.get(stage, ()):
            row = load.address.factor(len(self.kernel.axes) - 1)
            b.prefetch(place(load.buffer, load.address, row), level=2)

    def feed(self, stage: Stage, point: Point, combiners: Sequence[Combiner] = (), states: Sequence[State] = (),
             mask: str | None = None) -> list[State]:
        """What a stage does at a point; gives the new states of its accumulators, where the mask holds."""
        self.held.recall(stage, point)
        self.tiles.recall(stage, point)
        new = []
        for combiner, state in zip(combiners, states, strict=True):
            new.append(combiner.masked(mask, state, combiner.feed(state, combiner.element(point))))
        self.finish(stage, point)
        self._fetch(stage, point)
        return new

    def finish(self, stage: Stage, point: Point) -> None:
        """Holds and stores what a stage computes at a point."""
        self.held.hold(stage, point)
        for store in stage.stores:
            self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)
