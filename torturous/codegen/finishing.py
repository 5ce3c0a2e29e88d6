"""What becomes of a contraction's tile once its sums are complete: the epilogue, while the tile is still near.

A tile that is whole, and of which little is to be computed, is stored straight out of the registers. Any other goes
to scratch memory, from where runs of lanes within one innermost row are read: tiles at the edges, expressions that
would be long if written out for every accumulator, lanes of several axes.

Where results lie side by side along the rows and apart along the lanes, the tile is a square, which is turned: each
lane is a vector of rows then, stored at once, and what the epilogue takes in is read in vectors, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.loops import advance
from torturous.codegen.microkernel import MicroKernel
from torturous.codegen.operands import Sides, split
from torturous.codegen.turning import turned
from torturous.compiler.kernel import Accumulated, Compute, Convert, Literal, Load, SlotNumber
from torturous.compiler.schedule import merged_results, walk
from torturous.compiler.sizes import product

SHORT = 6
"""Machine operations per element, about, up to which an epilogue is written out for every accumulator."""


@dataclass(frozen=True)
class Place:
    """A tile among the results: its batch, its rows and lanes from the first to the last of the item."""

    batch: list[Integer]
    row: Integer
    lane: Integer
    row_last: Integer
    """Past the item's last row."""
    lane_last: Integer


class Finishing:
    """Writes the epilogue of one contraction kernel."""

    def __init__(self, writer: KernelWriter, axes: Sides, itemsize: int) -> None:
        self.writer = writer
        self.b = writer.builder
        self.axes = axes
        self.bytes = itemsize
        """Of an accumulator."""
        kernel = writer.kernel
        # Where results lie in memory as one, the innermost of several axes stands for all and goes on past its extent.
        lines, columns = merged_results(kernel, axes.lane), merged_results(kernel, axes.row)
        self.lanes, self.rows = [line[-1] for line in lines], [column[-1] for column in columns]
        self.inner = self.lanes[-1] if self.lanes else None
        sizes = [product(kernel.axes[axis] for axis in line) for line in lines]
        self.line = sizes[-1].constant if sizes else None
        """How long an innermost row is, if known."""
        self.lane_extents = [writer.size(size) for size in sizes]
        self.row_extents = [writer.size(product(kernel.axes[axis] for axis in column)) for column in columns]
        self.elements = LANES * LANES if axes.turned else 0
        """Of the scratch memory for a square."""
        self.short = len(lines) == 1 and len(columns) <= 1 and self._is_short()

    def _is_short(self) -> bool:
        kernel = self.writer.kernel
        expressions = list(walk([store.expression for store in kernel.stores]))
        plain = (Accumulated, Compute, Convert, Literal, Load, SlotNumber)
        cost = sum(e.op.cost if isinstance(e, Compute) else 1 for e in expressions if isinstance(e, (Compute, Convert)))
        return all(isinstance(e, plain) for e in expressions) and not kernel.derived and cost <= SHORT

    def write(self, kernel: MicroKernel, state: list[str], scratch: str, square: str, place: Place) -> None:
        """Stores the results of a tile; `scratch` has room for it, `square` for `elements`."""
        b, tile = self.b, kernel.tile
        stride = tile.lanes * self.bytes
        if self.axes.turned:
            self._turned(kernel, state, square, place)
            return
        if not self.short:
            kernel.put(state, scratch, stride)
            self._from_scratch(kernel, scratch, place)
            return
        fits = [b.compare("sle", b.add(first, most), last) for first, most, last in
                ((place.row, tile.rows, place.row_last), (place.lane, tile.lanes, place.lane_last))]
        whole, edge, done = b.label("whole"), b.label("edge"), b.label("finished")
        b.emit(f"br i1 {b.value(f'and i1 {fits[0]}, {fits[1]}')}, label %{whole}, label %{edge}")
        b.start_block(whole)
        self._from_registers(kernel, state, place)
        b.emit(f"br label %{done}")
        b.start_block(edge)
        kernel.put(state, scratch, stride)
        self._from_scratch(kernel, scratch, place)
        b.emit(f"br label %{done}")
        b.start_block(done)

    def _fixed(self, batch: Sequence[Integer]) -> dict[int, Integer]:
        kernel = self.writer.kernel
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        return fixed | dict(zip(self.axes.batch, batch, strict=True))

    def _store(self, point: Point, value: str) -> None:
        point.accumulated = [value]
        for store in self.writer.kernel.stores:
            self.writer.store(self.writer.emit(store.expression, point), store.buffer, store.address, point)

    # A whole tile ------------------------------------------------------------------------------------------------
    def _from_registers(self, kernel: MicroKernel, state: list[str], place: Place) -> None:
        """What does not vary along the rows is read once for all of them."""
        b, w, tile = self.b, self.writer, kernel.tile
        assert self.inner is not None
        fixed = self._fixed(place.batch)
        columns = []
        for v in range(tile.vectors):
            above = Point(fixed | {self.inner: b.add(place.lane, v * LANES)}, self.inner, LANES)
            for axis in self.rows:
                w.hoist([store.expression for store in w.kernel.stores], above, axis)
            columns.append(above)
        for row in range(tile.rows):
            for v, above in enumerate(columns):
                own = {axis: b.add(place.row, row) for axis in self.rows}
                point = Point(above.axes | own, self.inner, LANES, outer=above)
                self._store(point, state[row * tile.vectors + v])

    # A tile whose results lie along its rows ---------------------------------------------------------------------
    def _turned(self, kernel: MicroKernel, state: list[str], square: str, place: Place) -> None:
        """Lane by lane. What does not vary along the lanes is read once for all of them."""
        b, w, tile, axis = self.b, self.writer, kernel.tile, self.rows[-1]
        form, line = kernel.arithmetic.kind, LANES * self.bytes
        rows = [*state, *["zeroinitializer"] * (LANES - tile.rows)]
        for lane, value in enumerate(turned(b, form, rows)):
            b.store(form, value, b.offset(square, lane * line), self.bytes)
        mask = w.tail_mask(b.minimum(b.sub(place.row_last, place.row), tile.rows), LANES)
        above = Point(self._fixed(place.batch) | {axis: place.row}, axis, LANES, mask)
        w.hoist([store.expression for store in w.kernel.stores], above, *self.axes.lane)
        with looping(b, 0, b.minimum(b.sub(place.lane_last, place.lane), LANES)) as number:
            lanes = dict(zip(self.lanes, split(w, b.add(place.lane, number), self.lane_extents), strict=True))
            value = b.load(form, b.offset(square, b.mul(number, line)), self.bytes)
            self._store(Point(above.axes | lanes, axis, LANES, mask, outer=above), value)

    # Any tile ----------------------------------------------------------------------------------------------------
    def _from_scratch(self, kernel: MicroKernel, scratch: str, place: Place) -> None:
        b, w, tile = self.b, self.writer, kernel.tile
        row_last = b.minimum(b.add(place.row, tile.rows), place.row_last)
        lane_last = b.minimum(b.add(place.lane, tile.lanes), place.lane_last)
        fixed = self._fixed(place.batch)
        # In one innermost row lie all lanes of a panel, if there is but one row or panels divide its length.
        aligned = self.line is not None and self.line > 0 and self.line % tile.lanes == 0
        with looping(b, place.row, row_last) as row:
            fixed |= dict(zip(self.rows, split(w, row, self.row_extents), strict=True))
            line = b.offset(scratch, b.mul(b.sub(row, place.row), tile.lanes * self.bytes))
            if self.inner is None:
                self._lane_run(fixed, [], line, None)
            elif aligned or len(self.lanes) == 1:
                first = split(w, place.lane, self.lane_extents)
                for v in range(tile.vectors):
                    lanes = [*first[:-1], b.add(first[-1], v * LANES)]
                    mask = None if aligned else w.tail_mask(b.sub(lane_last, b.add(place.lane, v * LANES)), LANES)
                    self._lane_run(fixed, lanes, b.offset(line, v * LANES * self.bytes), mask)
            else:
                self._runs(fixed, line, place.lane, lane_last)

    def _lane_run(self, fixed: dict[int, Integer], lanes: Sequence[Integer], place: str, mask: str | None) -> None:
        """A vector of lanes of one innermost row."""
        point = Point(fixed | dict(zip(self.lanes, lanes, strict=True)), self.inner, LANES if lanes else 1, mask)
        dtype = self.writer.kernel.accumulators[0].dtype
        self._store(point, self.b.load(kind(dtype, point.lanes), place, self.bytes))

    def _runs(self, fixed: dict[int, Integer], line: str, first: Integer, last: Integer) -> None:
        """Stretches of at most LANES lanes within one innermost row each."""
        b, w, extents = self.b, self.writer, self.lane_extents
        loop = b.begin_runs(first, last, split(w, first, extents))
        flat, *lanes = loop.carried
        left = b.minimum(b.sub(last, flat), b.sub(extents[-1], lanes[-1]))
        length = b.minimum(left, LANES)
        here = b.offset(line, b.mul(b.sub(flat, first), self.bytes))
        self._lane_run(fixed, lanes, here, w.tail_mask(length, LANES))
        b.end_runs(loop, [b.add(flat, length), *advance(b, lanes, extents, length)])
