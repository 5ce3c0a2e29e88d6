"""The contraction kernel: every sum of products, through one register-tiled micro-kernel.

One operand runs along the vector lanes (the *lane* side), the other is broadcast (the *row* side). Both are plain
affine loads (the fusion pass has seen to padding and to computed operands), so an element's address is a sum of a
batch part, a part of its own loops and a part of the reduced loops, and packing a panel is copying runs.

A panel holds at most BLOCK products, which is also the unit of the sum's order: a block is one chain of fused
multiply-adds in registers, blocks are added in order into a tile of accumulators, and the epilogue reads the
finished tile. Nothing of the schedule can change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile
from torturous.codegen.operands import sides, split, takes_pairs
from torturous.codegen.pairs import PairArithmetic, PairedLanes, paired_row_panels
from torturous.codegen.panels import LanePanels, Side, lane_and_row, row_panels
from torturous.compiler.sizes import Size, product
from torturous.ir.contraction import BLOCK

ITEM_ROWS = 224
ITEM_LANES = 256
"""Rows and lanes of an item at most: with a block of products its panels and its results stay in the second cache."""
FEW_TILES = 2
"""Up to so many tiles of rows, lanes that lie side by side are read in place."""
TABLED_PRODUCTS = 8192
"""Up to so many products per sum, their offsets are worked out once a piece."""
Run = Callable[["Sequence[Integer]", Integer, "str | None"], None]
"""`run(loops' values, flat place, mask)`: a stretch of consecutive lanes."""


class Contraction:
    """Writes one contraction kernel: items are (batch, group of lane panels, group of rows)."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        self.axes = sides(kernel)
        self.lane, self.row = lane_and_row(writer, self.axes)
        self.pairs = takes_pairs(kernel, writer.target)
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.rows = product(kernel.axes[axis] for axis in self.axes.row)
        self.lanes = product(kernel.axes[axis] for axis in self.axes.lane)
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]
        self.total = writer.size(product(kernel.reduced))
        self.tile = choose_tile(writer, self.rows, self.lanes, self.lane)
        self.products = product(kernel.reduced).constant or 0
        """How many products a sum has, 0 where that is not known when generating."""
        assert not self.row.load.guards and not self.lane.load.guards, "a guarded operand to pack"
        self.most_rows = max(1, ITEM_ROWS // self.tile.rows) * self.tile.rows
        self.most_lanes = max(1, ITEM_LANES // self.tile.lanes) * self.tile.lanes
        tables_fit = 0 < self.products <= TABLED_PRODUCTS
        self.lane_panels = (PairedLanes if self.pairs else LanePanels)(
            self.lane, self.tile, self.tile.lanes, tables_fit)
        self.in_place = self._in_place()
        self.row_panels = (paired_row_panels if self.pairs else row_panels)(self.row, self.tile)

    def _in_place(self) -> bool:
        """Whether lanes are read where they lie: side by side, for so few rows that packing them would not pay."""
        rows, lane = self.rows.constant, self.lane
        return (rows is not None and rows <= FEW_TILES * self.tile.rows and lane.load.dtype is self.dtype
                and [stride.constant for stride in lane.own.strides] == [1] and len(lane.reduced.sizes) == 1)

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        total_lanes, total_rows = w.size(self.lanes), w.size(self.rows)
        row_group, lane_group = (w.argument(Argument("group", number), "i64") for number in (0, 1))
        lane_groups, row_groups = b.ceil_div(total_lanes, lane_group), b.ceil_div(total_rows, row_group)
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(b.mul(batch_count, lane_groups), row_groups)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        # Scratch: a table of products, row panels and lane panels of a block, the tile of accumulators.
        row_place = b.offset("%scratch", self._table_bytes())
        lane_place = b.offset(row_place, self._row_elements() * self.bytes)
        accumulators = b.offset(lane_place, self._lane_elements() * self.bytes)
        if self.lane_panels.tabled:
            self.lane_panels.write_table("%scratch")
        with looping(b, first, last) as item:
            rest = b.div(item, row_groups)
            batch = split(w, b.div(rest, lane_groups), self.batch)
            lane_first = b.mul(b.rem(rest, lane_groups), lane_group)
            lane_last = b.minimum(b.add(lane_first, lane_group), total_lanes)
            row_first = b.mul(b.rem(item, row_groups), row_group)
            row_last = b.minimum(b.add(row_first, row_group), total_rows)
            self._blocks(batch, (lane_first, lane_last), (row_first, row_last), row_place, lane_place, accumulators)
            self._epilogue(batch, (lane_first, lane_last), (row_first, row_last), accumulators)
        kernel = w.kernel
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        cost = self.lanes * self.rows * product(kernel.reduced)
        rows = Divided(self.rows, self.tile.rows, self.most_rows)
        return Work(batches, (rows, Divided(self.lanes, self.tile.lanes, self.most_lanes)), Size.of(1) + cost)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs."""
        results = (self.most_rows + self.tile.rows) * self.most_lanes + 4 * LANES
        return Size.of((self._row_elements() + self._lane_elements() + results) * self.bytes + self._table_bytes())

    def _row_elements(self) -> int:
        return self.most_rows // self.tile.rows * self.row_panels.elements

    def _lane_elements(self) -> int:
        return self.most_lanes // self.tile.lanes * self.lane_panels.elements + LANES

    def _table_bytes(self) -> int:
        """Room for a table over all products, to a multiple of a cache line."""
        return -(-8 * self.products // 64) * 64 if self.lane_panels.tabled else 0

    def _blocks(self, batch: list[Integer], lanes: tuple[Integer, Integer], rows: tuple[Integer, Integer],
                row_place: str, lane_place: str, accumulators: str) -> None:
        """For each block of products: pack both sides, then run the micro-kernel over all tiles."""
        b, tile, total = self.b, self.tile, self.total
        panels = b.ceil_div(b.sub(lanes[1], lanes[0]), tile.lanes)
        tiles = b.ceil_div(b.sub(rows[1], rows[0]), tile.rows)
        single = isinstance(total, int) and total <= BLOCK
        loop = None if single else b.begin_loop(0, b.maximum(total, 1), BLOCK)
        k0: Integer = 0 if loop is None else loop.index
        count = total if loop is None else b.minimum(b.sub(total, k0), BLOCK)
        self.row_panels.pack(batch, rows, k0, count, row_place, tiles)
        arithmetic = PairArithmetic(b) if self.pairs else Arithmetic(b, self.dtype, LANES)
        steps = b.ceil_div(count, 2) if self.pairs else count
        fresh = k0 == 0 if isinstance(k0, int) else b.compare("eq", k0, 0)

        def rows_of(panel: Integer, lane_panel: str, lane_step: Integer) -> None:
            """All row tiles against one panel of lanes."""
            kernel = MicroKernel(b, arithmetic, tile, lane_step,
                                 self.row_panels.product_step * self.bytes, self.row_panels.row_stride * self.bytes)
            unroll = 4 if tile.rows * tile.vectors <= 12 else 2
            with looping(b, 0, tiles) as row_tile:
                row_panel = b.offset(row_place, b.mul(row_tile, self.row_panels.elements * self.bytes))
                place = b.mul(b.add(b.mul(panel, tiles), row_tile), tile.rows * tile.lanes)
                state = kernel.run(lane_panel, row_panel, steps, kernel.zeros(), unroll)
                kernel.join(state, b.offset(accumulators, b.mul(place, self.bytes)), tile.lanes * self.bytes, fresh)

        if self.in_place:
            self._panels_in_place(batch, lanes, k0, count, lane_place, rows_of)
        else:
            self.lane_panels.pack(batch, lanes, k0, count, lane_place, panels)
            with looping(b, 0, panels) as panel:
                lane_panel = b.offset(lane_place, b.mul(panel, self.lane_panels.panel_bytes))
                rows_of(panel, lane_panel, tile.lanes * self.bytes)
        if loop is not None:
            b.end_loop(loop)

    def _panels_in_place(
        self, batch: list[Integer], lanes: tuple[Integer, Integer], k0: Integer, count: Integer, lane_place: str,
        rows_of: Callable[[Integer, str, Integer], None],
    ) -> None:
        """Whole panels of lanes as they lie in memory, and what is left over packed."""
        b, tile, side = self.b, self.tile, self.lane
        step = b.mul(self.writer.size(side.reduced.strides[0]), self.bytes)
        origin = b.offset(side.origin(batch), b.mul(k0, step))
        whole = b.div(b.sub(lanes[1], lanes[0]), tile.lanes)
        with looping(b, 0, whole) as panel:
            first = b.add(lanes[0], b.mul(panel, tile.lanes))
            rows_of(panel, b.offset(origin, b.mul(first, self.bytes)), step)
        if self.lanes.constant is not None and self.lanes.constant % tile.lanes == 0:
            return
        first = b.add(lanes[0], b.mul(whole, tile.lanes))

        def rest() -> None:
            self.lane_panels.pack(batch, (first, lanes[1]), k0, count, lane_place, 1)
            rows_of(whole, lane_place, tile.lanes * self.bytes)

        b.when(b.compare("sgt", lanes[1], first), rest)

    # The epilogue ----------------------------------------------------------------------------------------------------
    def _epilogue(self, batch: list[Integer], lanes: tuple[Integer, Integer], rows: tuple[Integer, Integer],
                  accumulators: str) -> None:
        """Reads the finished accumulators, runs of lanes within one innermost row at a time, and stores results."""
        b, tile, w = self.b, self.tile, self.writer
        kernel = w.kernel
        tiles = b.ceil_div(b.sub(rows[1], rows[0]), tile.rows)
        lane_extents = [w.size(kernel.axes[axis]) for axis in self.axes.lane]
        row_extents = [w.size(kernel.axes[axis]) for axis in self.axes.row]
        inner = self.axes.lane[-1] if self.axes.lane else None
        known = kernel.axes[inner].constant if inner is not None else None
        if known is not None and known and known % tile.lanes == 0:
            self._aligned_epilogue(batch, lanes, rows, accumulators, tiles)
            return
        with looping(b, rows[0], rows[1]) as row:
            fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
            fixed |= dict(zip(self.axes.batch, batch, strict=True))
            fixed |= dict(zip(self.axes.row, split(w, row, row_extents), strict=True))
            relative = b.sub(row, rows[0])

            def run(place: Sequence[Integer], flat: Integer, mask: str | None, fixed: dict[int, Integer] = fixed,
                    relative: Integer = relative) -> None:
                point = Point(fixed | dict(zip(self.axes.lane, place, strict=True)), inner,
                              LANES if self.axes.lane else 1, mask)
                offset = b.sub(flat, lanes[0])
                panel, within = b.div(offset, tile.lanes), b.rem(offset, tile.lanes)
                line = b.add(b.mul(b.mul(panel, tiles), tile.rows), relative)
                at = b.offset(accumulators, b.mul(b.add(b.mul(line, tile.lanes), within), self.bytes))
                point.accumulated = [b.load(kind(self.dtype, point.lanes), at, self.bytes)]
                for store in kernel.stores:
                    w.store(w.emit(store.expression, point), store.buffer, store.address, point)

            if self.axes.lane:
                self._runs(lanes, lane_extents, run)
            else:
                run([], 0, None)

    def _aligned_epilogue(self, batch: list[Integer], lanes: tuple[Integer, Integer], rows: tuple[Integer, Integer],
                          accumulators: str, tiles: Integer) -> None:
        """The same where every panel lies within one innermost row: whole vectors, placed once a panel."""
        b, tile, w = self.b, self.tile, self.writer
        kernel = w.kernel
        lane_extents = [w.size(kernel.axes[axis]) for axis in self.axes.lane]
        row_extents = [w.size(kernel.axes[axis]) for axis in self.axes.row]
        inner = self.axes.lane[-1]
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        fixed |= dict(zip(self.axes.batch, batch, strict=True))
        with looping(b, 0, b.ceil_div(b.sub(lanes[1], lanes[0]), tile.lanes)) as panel:
            place = split(w, b.add(lanes[0], b.mul(panel, tile.lanes)), lane_extents)
            fixed |= dict(zip(self.axes.lane, place, strict=True))
            with looping(b, rows[0], rows[1]) as row:
                fixed |= dict(zip(self.axes.row, split(w, row, row_extents), strict=True))
                line = b.add(b.mul(b.mul(panel, tiles), tile.rows), b.sub(row, rows[0]))
                for v in range(tile.vectors):
                    point = Point(fixed | {inner: b.add(place[-1], v * LANES)}, inner, LANES)
                    at = b.mul(b.add(b.mul(line, tile.lanes), v * LANES), self.bytes)
                    point.accumulated = [b.load(kind(self.dtype, LANES), b.offset(accumulators, at), self.bytes)]
                    for store in kernel.stores:
                        w.store(w.emit(store.expression, point), store.buffer, store.address, point)

    def _runs(self, lanes: tuple[Integer, Integer], extents: list[Integer], run: Run) -> None:
        """Calls `run` for stretches of at most LANES places within one innermost row and one panel."""
        b, tile = self.b, self.tile
        origin = split(self.writer, lanes[0], extents)
        loop = b.begin_runs(lanes[0], lanes[1], origin)
        flat, *place = loop.carried
        left = b.minimum(b.sub(lanes[1], flat), b.sub(extents[-1], place[-1]))
        left = b.minimum(left, b.sub(tile.lanes, b.rem(b.sub(flat, lanes[0]), tile.lanes)))
        length = b.minimum(left, LANES)
        run(place, flat, self.writer.tail_mask(length, LANES))
        b.end_runs(loop, [b.add(flat, length), *advance(self.writer, place, extents, length)])


def advance(writer: KernelWriter, place: Sequence[Integer], extents: list[Integer], length: Integer) -> list[Integer]:
    """A place moved on by `length`, which stays within the innermost row or ends it."""
    b = writer.builder
    result: list[Integer] = []
    carry = length
    for position in range(len(place) - 1, -1, -1):
        counted = b.add(place[position], carry)
        if position == 0:
            result.insert(0, counted)
            continue
        wrapped = b.compare("eq", counted, extents[position])
        result.insert(0, b.choose(wrapped, 0, counted))
        carry = b.value(f"zext i1 {wrapped} to i64")
    return result


def choose_tile(writer: KernelWriter, rows: Size, lanes: Size, lane_side: Side) -> Tile:
    """As many accumulators as the registers hold, few wasted lanes and rows, panels of whole rows if possible."""
    kernel, target = writer.kernel, writer.target
    itemsize = max(kernel.accumulators[0].dtype.itemsize, 4)
    registers = max(1, LANES * itemsize // (target.lanes * 4))
    available = max(target.registers - 2, 4) // registers
    known = lanes.constant
    vectors = 2 if registers <= 2 and (known is None or known > LANES) else 1
    run = lane_side.run
    if run is not None and registers == 1 and (known is None or known > LANES):
        for count in (2, 3, 1):
            if (count * LANES) % run == 0 or run % (count * LANES) == 0:
                vectors = count
                break
    most = max(1, (available - vectors) // vectors)
    wanted = rows.constant
    if wanted is None:
        return Tile(most, vectors)
    tiles = -(-wanted // most) if wanted else 1
    if tiles == 1 and wanted >= 16 and (known is not None and known <= LANES * vectors):
        tiles = 2  # One lane panel and one row tile would leave nothing to share out.
    return Tile(max(1, -(-wanted // tiles)), vectors)

