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
from dataclasses import dataclass

from torturous.codegen.arithmetic import Arithmetic, kind
from torturous.codegen.builder import Integer, looping
from torturous.codegen.direct import DirectLanes
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Work
from torturous.codegen.panels import LanePanels, RowPanels, Side, Tile
from torturous.compiler.kernel import Convert, Expression, Kernel, Load
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


def loaded(expression: Expression) -> Load:
    """The load below a side's casts."""
    while isinstance(expression, Convert):
        expression = expression.operand
    assert isinstance(expression, Load), "contraction operands are plain loads"
    return expression


@dataclass
class Sides:
    """The kept axes by the operand that varies along them."""

    batch: list[int]
    lane: list[int]
    row: list[int]
    lane_first: bool
    """Whether the left operand is the lane side."""


def sides(kernel: Kernel) -> Sides:
    """Lanes go where they cost least: see `_lane_cost`."""
    assert kernel.product is not None
    addresses = [loaded(side).address for side in kernel.product]
    both: list[int] = []
    only_left: list[int] = []
    only_right: list[int] = []
    for axis in range(len(kernel.axes)):
        in_left, in_right = (address.factor(axis) != 0 for address in addresses)
        if in_left == in_right:
            both.append(axis)
        else:
            (only_left if in_left else only_right).append(axis)
    left_cost = _lane_cost(kernel, 0, only_left, only_right)
    right_cost = _lane_cost(kernel, 1, only_right, only_left)
    if left_cost < right_cost:
        return Sides(both, only_left, only_right, True)
    return Sides(both, only_right, only_left, False)


def _lane_cost(kernel: Kernel, which: int, lanes: list[int], rows: list[int]) -> float:
    """A rough cost per product of running lanes along these axes: wasted lanes, packing, and how results lie."""
    assert kernel.product is not None
    address = loaded(kernel.product[which]).address
    extent = product(kernel.axes[axis] for axis in lanes).constant
    other = product(kernel.axes[axis] for axis in rows).constant or 64
    waste = 1.0 if extent is None else -(-extent // LANES) * LANES / max(extent, 1)
    innermost = lanes[-1] if lanes else None
    packing = 8.0
    if innermost is not None and address.factor(innermost) == 1:
        run = kernel.axes[innermost].constant
        aligned = len(lanes) == 1 or run is None or any((v * LANES) % run == 0 or run % (v * LANES) == 0
                                                        for v in (1, 2, 3))
        packing = 0.5 if aligned else 8.0
    elif innermost is not None and address.factor(len(kernel.axes) + len(kernel.reduced) - 1) == 1:
        packing = 2.0
    stored = 0.0 if lanes and lanes[-1] == len(kernel.axes) - 1 else 0.2
    return waste + packing / max(other, 1) * 4 + stored


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
        tables_fit = 0 < self.products <= TABLED_PRODUCTS
        self.lane_panels = LanePanels(self.lane, self.tile, tables_fit)
        self.direct: DirectLanes | None = None
        if tables_fit and DirectLanes.possible(self.lane, self.tile):
            self.direct = DirectLanes(self.lane, self.tile, self.products)
        assert not self.row.load.guards and (self.direct or not self.lane.load.guards), "a guarded operand to pack"
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
        if self.direct and self.packed_ahead:
            self.direct.write_tables("%scratch")
        elif self.lane_panels.tabled:
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
        if self.direct and self.packed_ahead:
            return self.direct.table_bytes
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
        if self.direct and self.packed_ahead:
            self._direct_blocks(batch, lanes, panels, tiles, row_place, accumulators)
            return
        loop = None if single else b.begin_loop(0, b.maximum(total, 1), BLOCK)
        k0: Integer = 0 if loop is None else loop.index
        count = total if loop is None else b.minimum(b.sub(total, k0), BLOCK)
        if self.packed_ahead:
            row_place = b.offset(row_place, b.mul(b.div(k0, BLOCK), self.block_bytes))
        else:
            self.row_panels.pack(batch, rows, k0, count, row_place)
        self.lane_panels.pack(batch, lanes, k0, count, lane_place, panels)
        with looping(b, 0, panels) as panel:
            lane_panel = b.offset(lane_place, b.mul(panel, tile.lanes * BLOCK * self.bytes))
            with looping(b, 0, tiles) as row_tile:
                row_panel = b.offset(row_place, b.mul(row_tile, tile.rows * self.row_panels.stride * self.bytes))
                place = b.mul(b.add(b.mul(panel, tiles), row_tile), tile.rows * tile.lanes)
                self._micro_kernel(lane_panel, row_panel, b.offset(accumulators, b.mul(place, self.bytes)), count, k0)
        if loop is not None:
            b.end_loop(loop)

    def _direct_blocks(self, batch: list[Integer], lanes: tuple[Integer, Integer], panels: Integer, tiles: Integer,
                       row_place: str, accumulators: str) -> None:
        """Lanes read where they lie: panel by panel, all blocks of products over all rows."""
        b, tile, direct = self.b, self.tile, self.direct
        assert direct is not None
        origin = self.lane.origin(batch)
        with looping(b, 0, panels) as panel:
            flat = b.add(lanes[0], b.mul(panel, tile.lanes))
            start = b.offset(origin, b.mul(self.lane.place(self.lane.own, flat), self.lane.item))
            direct.select("%scratch", flat)
            for block in range(self.row_blocks):
                block_place = b.offset(row_place, b.mul(self.block_bytes, block))
                with looping(b, 0, tiles) as row_tile:
                    stride = tile.rows * self.row_panels.stride * self.bytes
                    row_panel = b.offset(block_place, b.mul(row_tile, stride))
                    place = b.mul(b.add(b.mul(panel, tiles), row_tile), tile.rows * tile.lanes)
                    out = b.offset(accumulators, b.mul(place, self.bytes))
                    self._direct_kernel(start, row_panel, out, block)

    def _direct_kernel(self, start: str, row_panel: str, out: str, block: int) -> None:
        """The micro-kernel over the block's products that exist for this panel's lanes."""
        b, tile, direct = self.b, self.tile, self.direct
        assert direct is not None
        e = Arithmetic(b, self.dtype, LANES)
        first, last = direct.entries("%scratch", block)
        zero = e.constant(0)
        names = tile.rows * tile.vectors
        loop = b.begin_loop(first, last, 1, [(e.kind, zero)] * names)
        offset, product_place = direct.entry("%scratch", loop.index, block)
        line = b.offset(start, offset)
        vectors = [b.load(e.kind, b.offset(line, v * LANES * self.bytes), self.bytes) for v in range(tile.vectors)]
        factors = b.offset(row_panel, product_place)
        new = []
        for row in range(tile.rows):
            place = b.offset(factors, row * self.row_panels.stride * self.bytes)
            factor = e.splat(b.load(e.scalar, place, self.bytes))
            for v in range(tile.vectors):
                new.append(e.multiply_add(factor, vectors[v], loop.carried[row * tile.vectors + v]))
        chain = b.end_loop(loop, new)
        self._join(e, chain, out, 0 if block == 0 else block * BLOCK)

    # The micro-kernel ------------------------------------------------------------------------------------------------
    def _micro_kernel(self, lane_panel: str, row_panel: str, out: str, count: Integer, k0: Integer) -> None:
        """acc[row][vector] += Σ_k row[k] · lane[k]; the block's chain starts from zero, then joins the tile."""
        b, tile = self.b, self.tile
        e = Arithmetic(b, self.dtype, LANES)
        names = tile.rows * tile.vectors
        zero = e.constant(0)
        unroll = 4 if names <= 12 else 2

        def step(lane_pointer: str, row_pointer: str, offset: int, state: list[str]) -> list[str]:
            vectors = [
                b.load(e.kind, b.offset(lane_pointer, (offset * tile.lanes + v * LANES) * self.bytes), self.bytes)
                for v in range(tile.vectors)
            ]
            new = []
            for row in range(tile.rows):
                place = b.offset(row_pointer, (row * self.row_panels.stride + offset) * self.bytes)
                factor = e.splat(b.load(e.scalar, place, self.bytes))
                for v in range(tile.vectors):
                    new.append(e.multiply_add(factor, vectors[v], state[row * tile.vectors + v]))
            return new

        def chain(start: Integer, stop: Integer, steps: int, values: list[str]) -> list[str]:
            kinds = ["ptr", "ptr", *[e.kind] * names]
            loop = b.begin_loop(start, stop, steps, list(zip(kinds, values, strict=True)))
            lane_pointer, row_pointer, *state = loop.carried
            for offset in range(steps):
                state = step(lane_pointer, row_pointer, offset, state)
            return b.end_loop(loop, [
                b.offset(lane_pointer, steps * tile.lanes * self.bytes),
                b.offset(row_pointer, steps * self.bytes), *state])

        values = [lane_panel, row_panel, *[zero] * names]
        full = count - count % unroll if isinstance(count, int) else b.value(f"and i64 {count}, {-unroll}")
        if full != 0:
            values = chain(0, full, unroll, values)
        if full != count:
            values = chain(full, count, 1, values)
        self._join(e, values[2:], out, k0)

    def _join(self, e: Arithmetic, values: list[str], out: str, k0: Integer) -> None:
        """Adds a block's chain to the tile; the first block's is the tile."""
        b = self.b

        def put(results: list[str]) -> None:
            for number, value in enumerate(results):
                b.store(e.kind, value, b.offset(out, number * LANES * self.bytes), self.bytes)

        if isinstance(k0, int):
            if k0:
                values = [
                    e.add(b.load(e.kind, b.offset(out, number * LANES * self.bytes), self.bytes), value)
                    for number, value in enumerate(values)
                ]
            put(values)
            return
        fresh, join, done = b.label("fresh"), b.label("join"), b.label("joined")
        b.emit(f"br i1 {b.compare('eq', k0, 0)}, label %{fresh}, label %{join}")
        b.start_block(fresh)
        put(values)
        b.emit(f"br label %{done}")
        b.start_block(join)
        put([
            e.add(b.load(e.kind, b.offset(out, number * LANES * self.bytes), self.bytes), value)
            for number, value in enumerate(values)
        ])
        b.emit(f"br label %{done}")
        b.start_block(done)

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


def split(writer: KernelWriter, flat: Integer, extents: list[Integer]) -> list[Integer]:
    """A flat place as one index per extent, the last varying fastest."""
    b = writer.builder
    values: list[Integer] = []
    for position in range(len(extents) - 1, -1, -1):
        if position == 0:
            values.insert(0, flat)
        else:
            extent = b.maximum(extents[position], 1)
            values.insert(0, b.rem(flat, extent))
            flat = b.div(flat, extent)
    return values


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

