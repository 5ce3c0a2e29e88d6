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

from torturous.codegen.arithmetic import Arithmetic, kind
from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Work
from torturous.codegen.microkernel import MicroKernel, Tile
from torturous.codegen.operands import loaded, sides, split
from torturous.codegen.panels import LanePanels, RowPanels, Side
from torturous.compiler.sizes import Size, product
from torturous.ir.contraction import BLOCK

LANE_PANELS = 4
"""Lane panels per item: the row side is packed once for all of them."""
TABLED_PRODUCTS = 8192
"""Up to so many products per sum, their offsets are worked out once a piece."""
PACKED_AHEAD = 1 << 16
"""Row panels of fewer elements than this are packed once a piece instead of once an item."""
ENOUGH_ITEMS = 8
"""Below this many items the rows are divided among items too."""
Run = Callable[["Sequence[Integer]", Integer, "str | None"], None]
"""`run(loops' values, flat place, mask)`: a stretch of consecutive lanes."""


class Contraction:
    """Writes one contraction kernel: items are (batch, group of lane panels, group of rows)."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        self.axes = sides(kernel)
        left, right = kernel.product
        lane, row = (left, right) if self.axes.lane_first else (right, left)
        first = len(kernel.axes)
        reduced = list(range(first, first + len(kernel.reduced)))
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.lane = Side(writer, loaded(lane), self.dtype, self.axes.batch, self.axes.lane, reduced)
        self.row = Side(writer, loaded(row), self.dtype, self.axes.batch, self.axes.row, reduced)
        self.rows = product(kernel.axes[axis] for axis in self.axes.row)
        self.lanes = product(kernel.axes[axis] for axis in self.axes.lane)
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]
        self.total = writer.size(product(kernel.reduced))
        self.tile = choose_tile(writer, self.rows, self.lanes, self.lane)
        self.group = self.tile.lanes * LANE_PANELS
        self.rows_per_item = self._rows_per_item()
        self.products = product(kernel.reduced).constant or 0
        """How many products a sum has, 0 where that is not known when generating."""
        assert not self.row.load.guards and not self.lane.load.guards, "a guarded operand to pack"
        self.lane_panels = LanePanels(self.lane, self.tile, 0 < self.products <= TABLED_PRODUCTS)
        self.row_panels = RowPanels(self.row, self.tile)
        blocks = -(-self.products // BLOCK)
        self.packed_ahead = (
            0 < self.products and self.rows_per_item == self.rows and all(stride == 0 for stride in self.row.batch)
            and (self.rows.constant or PACKED_AHEAD) * self.products < PACKED_AHEAD
        )
        self.row_blocks = blocks if self.packed_ahead else 1

    def _rows_per_item(self) -> Size:
        """All rows, unless there would be too few items to share out."""
        rows, lanes = self.rows.constant, self.lanes.constant
        if rows is None or lanes is None:
            return self.rows
        batch = product(self.writer.kernel.axes[axis] for axis in self.axes.batch).constant or ENOUGH_ITEMS
        items = -(-lanes // self.group) * batch
        if items == 0 or items >= ENOUGH_ITEMS:
            return self.rows
        groups = -(-ENOUGH_ITEMS // items)
        tiles = -(-rows // self.tile.rows)
        return Size.of(-(-tiles // groups) * self.tile.rows)

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w, tile = self.b, self.writer, self.tile
        total_lanes, total_rows = w.size(self.lanes), w.size(self.rows)
        rows_per_item = w.size(self.rows_per_item)
        lane_groups = b.ceil_div(total_lanes, self.group)
        row_groups: Integer = 1
        if self.rows_per_item != self.rows:
            assert isinstance(rows_per_item, int)
            row_groups = b.ceil_div(total_rows, rows_per_item)
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(b.mul(batch_count, lane_groups), row_groups)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        tiles = b.ceil_div(rows_per_item, tile.rows)
        self.block_bytes = b.mul(tiles, tile.rows * self.row_panels.stride * self.bytes)
        # Scratch: tables of products, row panels, lane panels of a block, the tile of accumulators.
        row_place = b.offset("%scratch", self._table_bytes())
        lane_place = b.offset(row_place, b.mul(self.block_bytes, self.row_blocks))
        accumulators = b.offset(lane_place, (self.group * BLOCK + LANES) * self.bytes)
        if self.lane_panels.tabled:
            self.lane_panels.write_table("%scratch")
        if self.packed_ahead:
            self._pack_ahead(row_place, total_rows)
        with looping(b, first, last) as item:
            row_group = b.rem(item, row_groups)
            rest = b.div(item, row_groups)
            batch = self._split_batch(b.div(rest, lane_groups))
            lane_first = b.mul(b.rem(rest, lane_groups), self.group)
            lane_last = b.minimum(b.add(lane_first, self.group), total_lanes)
            row_first = b.mul(row_group, rows_per_item)
            row_last = b.minimum(b.add(row_first, rows_per_item), total_rows)
            self._blocks(batch, (lane_first, lane_last), (row_first, row_last), row_place, lane_place, accumulators)
            self._epilogue(batch, (lane_first, lane_last), (row_first, row_last), accumulators)
        kernel = w.kernel
        batch_size = product(kernel.axes[axis] for axis in self.axes.batch)
        outer = batch_size if row_groups == 1 else batch_size * row_groups  # type: ignore[operator]
        cost = self.lanes * product(kernel.reduced) * self.rows_per_item
        return Work(outer, self.lanes, Size.of(1) + cost)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs."""
        rows = self.rows_per_item + self.tile.rows
        panels = rows * (self.row_panels.stride * self.row_blocks) + (self.group * BLOCK + LANES)
        return (panels + rows * self.group + 4 * LANES) * self.bytes + self._table_bytes()

    def _table_bytes(self) -> int:
        """Room for tables over all products, to a multiple of a cache line."""
        return -(-8 * self.products // 64) * 64 if self.lane_panels.tabled else 0

    def _pack_ahead(self, row_place: str, total_rows: Integer) -> None:
        """All row panels of all blocks, once for all items of a piece: they are the same for every batch."""
        origin: list[Integer] = [0] * len(self.batch)
        for block in range(self.row_blocks):
            k0 = block * BLOCK
            count = min(BLOCK, self.products - k0)
            place = self.b.offset(row_place, self.b.mul(self.block_bytes, block))
            self.row_panels.pack(origin, (0, total_rows), k0, count, place)

    def _split_batch(self, flat: Integer) -> list[Integer]:
        b = self.b
        values: list[Integer] = []
        for position in range(len(self.batch) - 1, -1, -1):
            if position == 0:
                values.insert(0, flat)
            else:
                values.insert(0, b.rem(flat, self.batch[position]))
                flat = b.div(flat, self.batch[position])
        return values

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
        if self.packed_ahead:
            row_place = b.offset(row_place, b.mul(b.div(k0, BLOCK), self.block_bytes))
        else:
            self.row_panels.pack(batch, rows, k0, count, row_place)
        self.lane_panels.pack(batch, lanes, k0, count, lane_place, panels)
        kernel = MicroKernel(b, Arithmetic(b, self.dtype, LANES), tile, tile.lanes * self.bytes, self.bytes,
                             self.row_panels.stride * self.bytes)
        unroll = 4 if tile.rows * tile.vectors <= 12 else 2
        fresh = k0 == 0 if isinstance(k0, int) else b.compare("eq", k0, 0)
        with looping(b, 0, panels) as panel:
            lane_panel = b.offset(lane_place, b.mul(panel, tile.lanes * BLOCK * self.bytes))
            with looping(b, 0, tiles) as row_tile:
                row_panel = b.offset(row_place, b.mul(row_tile, tile.rows * self.row_panels.stride * self.bytes))
                place = b.mul(b.add(b.mul(panel, tiles), row_tile), tile.rows * tile.lanes)
                state = kernel.run(lane_panel, row_panel, count, kernel.zeros(), unroll)
                kernel.join(state, b.offset(accumulators, b.mul(place, self.bytes)), tile.lanes * self.bytes, fresh)
        if loop is not None:
            b.end_loop(loop)

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

