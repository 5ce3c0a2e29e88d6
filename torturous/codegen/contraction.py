"""The contraction kernel: every sum of products, through one register-tiled micro-kernel.

One operand runs along the vector lanes (the *lane* side), the other is broadcast (the *row* side). Both are plain
affine loads (the fusion pass has seen to padding and to computed operands), so an element's address is a sum of a
batch part, a part of its own loops and a part of the reduced loops, and packing a panel is copying runs.

A panel holds at most BLOCK products, which is also the unit of the sum's order: a block is one chain of fused
multiply-adds in registers, blocks are added in order into a tile of accumulators, and the epilogue reads the
finished tile. Nothing of the schedule can change a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.broadcast import PACKING, Block, Range, rows_of
from torturous.codegen.builder import Builder, Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter
from torturous.codegen.finishing import Finishing, Place
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import Ahead, MicroKernel, Tile, most_rows, registers_each, vectors_held
from torturous.codegen.operands import split, takes_pairs
from torturous.codegen.pairs import PairedLanes
from torturous.codegen.panels import LanePanels
from torturous.codegen.side import Side, Sided
from torturous.codegen.words import factors
from torturous.compiler.sizes import ZERO, Size, product
from torturous.ir.contraction import BLOCK

ITEM_ROWS = 224
ITEM_LANES = 256
"""Rows and lanes of an item at most: with a block of products its panels and its results stay in the second cache."""
FEW_TILES = 2
"""Up to so many tiles of rows, lanes that lie side by side are read in place."""
HALF = LANES // 2
"""Lanes of the narrowest tile."""
TABLED_PRODUCTS = 8192
"""Up to so many products per sum, their offsets are worked out once a piece."""


@dataclass(frozen=True)
class Memory:
    """Scratch memory of an item: packed rows, packed lanes, a square of results, tiles that wait for more blocks."""

    rows: str
    lanes: str
    square: str
    """For `Finishing`."""
    sums: str


@dataclass(frozen=True)
class Panels:
    """Panels of lanes that lie evenly: `stride` bytes from panel to panel, `step` from product to product."""

    builder: Builder
    tile: Tile
    lane: Integer
    count: Integer
    place: str
    stride: Integer
    step: Integer

    @contextmanager
    def each(self) -> Iterator[tuple[Integer, str]]:
        """A loop over the panels: first lane and place of each."""
        b = self.builder
        with looping(b, 0, self.count) as panel:
            yield b.add(self.lane, b.mul(panel, self.tile.lanes)), b.offset(self.place, b.mul(panel, self.stride))


class Contraction(Sided):
    """Writes one contraction kernel: items are (batch, group of lane panels, group of rows)."""

    def __init__(self, writer: KernelWriter) -> None:
        super().__init__(writer)
        kernel = writer.kernel
        self.pairs = takes_pairs(kernel, writer.target)
        self.rows = product(kernel.axes[axis] for axis in self.axes.row)
        self.lanes = product(kernel.axes[axis] for axis in self.axes.lane)
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]
        self.total = writer.size(product(kernel.reduced))
        self.tile = choose_tile(writer, self.rows, self.lanes, self.lane, self.axes.turned)
        self.products = product(kernel.reduced).constant or 0
        """How many products a sum has, 0 where that is not known when generating."""
        assert not self.row.load.guards and not self.lane.load.guards, "a guarded operand to pack"
        self.most_rows = _whole_tiles(self.rows, self.tile.rows, ITEM_ROWS)
        self.most_lanes = _whole_tiles(self.lanes, self.tile.lanes, ITEM_LANES)
        tables_fit = 0 < self.products <= TABLED_PRODUCTS
        self.lane_panels = (PairedLanes if self.pairs else LanePanels)(
            self.lane, self.tile, self.tile.lanes, tables_fit)
        self.in_place = self._in_place()
        self.last_tile = self._last_tile()
        """For the last panel, if it has no more lanes than this."""
        self.halves = self._may_halve()
        """Whether that may take half a vector."""
        self.row_side = rows_of(self.row, self.tile, self.pairs, self.rows, self.most_rows)
        self.finishing = Finishing(writer, self.axes, self.bytes)

    def _last_tile(self) -> Tile:
        """As narrow as what is left, where that is known; else one vector, if code may be long: there are two tiles."""
        lanes, tile = self.lanes.constant, self.tile
        if lanes is None:
            left = LANES if self.writer.in_process and not self.in_place else 0
        else:
            left = lanes % tile.lanes
        return tile if self.pairs or not left else Tile(tile.rows, -(-left // LANES))

    def _may_halve(self) -> bool:
        """Whether half a vector of lanes may be all that is left, which takes half the time wherever a vector is two
        registers, or is computed as two; and code may be longer for it."""
        lanes = self.lanes.constant
        few = lanes is None or 0 < lanes % LANES <= HALF
        return few and self.last_tile.vectors == 1 and self.writer.in_process and not self.pairs

    def _in_place(self) -> bool:
        """Whether lanes are read where they lie: side by side, for so few rows that packing them would not pay."""
        rows, lane = self.rows.constant, self.lane
        return (rows is not None and rows <= FEW_TILES * self.tile.rows and lane.load.dtype is self.dtype
                and lies_side_by_side(lane))

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
        # Scratch: a table of products, row panels and lane panels of a block, a square, the tile of accumulators.
        row_place = b.offset("%scratch", self._table_bytes())
        lane_place = b.offset(row_place, self.row_side.elements * self.bytes)
        square = b.offset(lane_place, self._lane_elements() * self.bytes)
        memory = Memory(row_place, lane_place, square, b.offset(square, self.finishing.elements * self.bytes))
        if self.lane_panels.tabled:
            self.lane_panels.write_table("%scratch")
        with looping(b, first, last) as item:
            rest = b.div(item, row_groups)
            batch = split(w, b.div(rest, lane_groups), self.batch)
            lane_first = b.mul(b.rem(rest, lane_groups), lane_group)
            lane_last = b.minimum(b.add(lane_first, lane_group), total_lanes)
            row_first = b.mul(b.rem(item, row_groups), row_group)
            row_last = b.minimum(b.add(row_first, row_group), total_rows)
            self._blocks(batch, (lane_first, lane_last), (row_first, row_last), memory)
        kernel = w.kernel
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        cost = self.lanes * self.rows * product(kernel.reduced)
        rows = Divided(self.rows, self.tile.rows, self.most_rows, self.row_side.weight)
        step = HALF if self.halves else LANES if self.last_tile != self.tile else 0
        lanes = Divided(self.lanes, self.tile.lanes, self.most_lanes, PACKING, step)
        preparing = ZERO if self.lane_panels.tabled else product(kernel.reduced)
        return Work(batches, (rows, lanes), Size.of(1) + cost, preparing)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs."""
        results = self.finishing.elements + (self.most_rows + self.tile.rows) * self.most_lanes + 4 * LANES
        return Size.of((self.row_side.elements + self._lane_elements() + results) * self.bytes + self._table_bytes())

    def _lane_elements(self) -> int:
        return self.most_lanes // self.tile.lanes * self.lane_panels.elements + self.lane_panels.margin

    def _table_bytes(self) -> int:
        """Room for a table over all products, to a multiple of a cache line."""
        return -(-8 * self.products // 64) * 64 if self.lane_panels.tabled else 0

    def _blocks(self, batch: list[Integer], lanes: Range, rows: Range, memory: Memory) -> None:
        """For each block of products: pack the lane side, then run the micro-kernel over all tiles, rows outermost,
        so that a tile's rows stay in the first cache."""
        b, tile, total = self.b, self.tile, self.total
        tiles, parts = (b.ceil_div(b.sub(past, first), unit) for (first, past), unit in
                        ((rows, tile.rows), (lanes, tile.lanes)))
        single = isinstance(total, int) and total <= BLOCK
        loop = None if single else b.begin_loop(0, b.maximum(total, 1), BLOCK)
        k0: Integer = 0 if loop is None else loop.index
        block = Block(batch, k0, total if loop is None else b.minimum(b.sub(total, k0), BLOCK),
                      loop is None or b.compare("eq", k0, 0), loop is None or b.compare("sge", b.add(k0, BLOCK), total))
        panels = self._lane_panels(block, lanes, memory.lanes)
        self.row_side.begin(block, rows, memory.rows, tiles)
        with looping(b, 0, tiles) as number:
            row, (row_panel, row_step) = self.row_side.first(rows, number), self.row_side.place(
                block, rows, memory.rows, number)
            for some in panels:
                with some.each() as (lane, lane_panel):
                    part = b.div(b.sub(lane, lanes[0]), tile.lanes)
                    ahead = self.row_side.fetch(block, rows, number, part, parts, self._turn(some.tile))
                    self._tile(some.tile, block, Place(batch, row, lane, rows[1], lanes[1]),
                               (rows[0], lanes[0], lanes[1]), (row_panel, row_step, lane_panel, some.step), memory,
                               ahead)
        if loop is not None:
            b.end_loop(loop)

    def _turn(self, tile: Tile) -> int:
        """Products in a turn of the micro-kernel's loop, which may take two at a time."""
        return _unroll(tile) * (2 if self.pairs else 1)

    def _tile(self, shape: Tile, block: Block, place: Place, origin: tuple[Integer, Integer, Integer],
              operands: tuple[str, Integer, str, Integer], memory: Memory, ahead: Ahead | None) -> None:
        """A tile's products of a block; after the last block, what becomes of them."""
        b, tile = self.b, self.tile
        row_panel, row_step, lane_panel, lane_step = operands
        kernel = MicroKernel(b, factors(b, self.dtype, self.pairs), shape, lane_step,
                             b.mul(row_step, self.bytes), self.row_side.stride * self.bytes)
        unroll = _unroll(shape)
        steps = b.ceil_div(block.count, 2) if self.pairs else block.count
        run = (lane_panel, row_panel, steps)
        if self.halves and shape == self.last_tile:
            few = b.compare("sle", b.sub(place.lane_last, place.lane), HALF)
            state = self._halved(kernel, run, unroll, few, ahead)
        else:
            state = kernel.run(*run, kernel.zeros(), unroll, ahead)
        if block.last is True:
            self.finishing.write(kernel, state, memory.sums, memory.square, place)
            return
        # Tiles waiting for more blocks lie row of tiles by row of tiles, each in one piece.
        row_first, lane_first, lane_last = origin
        across = b.mul(b.ceil_div(b.sub(lane_last, lane_first), tile.lanes), tile.lanes)
        at = b.add(b.mul(b.sub(place.row, row_first), across), b.mul(b.sub(place.lane, lane_first), tile.rows))
        here = b.offset(memory.sums, b.mul(at, self.bytes))
        state = kernel.joined(state, here, tile.lanes * self.bytes, block.fresh)
        finish, keep, done = b.label("finish"), b.label("keep"), b.label("kept")
        b.emit(f"br i1 {block.last}, label %{finish}, label %{keep}")
        b.start_block(finish)
        self.finishing.write(kernel, state, here, memory.square, place)
        b.emit(f"br label %{done}")
        b.start_block(keep)
        kernel.put(state, here, tile.lanes * self.bytes)
        b.emit(f"br label %{done}")
        b.start_block(done)

    def _halved(self, kernel: MicroKernel, run: tuple[str, str, Integer], unroll: int, few: str, ahead: Ahead | None
                ) -> list[str]:
        """The sums of a tile a vector wide, whose upper half is zero where there are `few` lanes."""
        b = self.b
        half = replace(kernel, arithmetic=Arithmetic(b, kernel.arithmetic.dtype, HALF))
        part, whole, done = b.label("half"), b.label("whole"), b.label("summed")
        b.emit(f"br i1 {few}, label %{part}, label %{whole}")
        found = []
        for label, width in ((part, half), (whole, kernel)):
            b.start_block(label)
            state = width.run(*run, width.zeros(), unroll, ahead)
            if width is half:
                form, order = half.arithmetic.kind, ", ".join(f"i32 {lane}" for lane in range(LANES))
                state = [b.value(f"shufflevector {form} {value}, {form} zeroinitializer, <{LANES} x i32> <{order}>")
                         for value in state]
            found.append((state, b.block))
            b.emit(f"br label %{done}")
        b.start_block(done)
        (parts, after_part), (wholes, after_whole) = found
        return [b.value(f"phi {kernel.arithmetic.kind} [ {one}, %{after_part} ], [ {other}, %{after_whole} ]")
                for one, other in zip(parts, wholes, strict=True)]

    def _lane_panels(self, block: Block, lanes: Range, memory: str) -> list[Panels]:
        """Where the item's panels of lanes are: packed, or as they lie but for what is left over."""
        b, tile, side = self.b, self.tile, self.lane
        packed_step = tile.lanes * self.bytes
        count, stride = b.sub(lanes[1], lanes[0]), self.lane_panels.panel_bytes
        # As many whole panels as there must be for the last tile to take what is left.
        spare = 0 if self.last_tile == tile else tile.lanes - 1 - self.last_tile.lanes
        whole, every = b.div(b.add(count, spare), tile.lanes), b.ceil_div(count, tile.lanes)
        first, left = b.add(lanes[0], b.mul(whole, tile.lanes)), b.sub(every, whole)
        if self.in_place:
            step = b.mul(self.writer.size(side.reduced.strides[0]), self.bytes)
            origin = b.offset(side.origin(block.batch), b.mul(block.start, step))
            panels = [Panels(b, tile, lanes[0], whole, b.offset(origin, b.mul(lanes[0], self.bytes)), packed_step,
                             step)]
            if self.lanes.constant is None or self.lanes.constant % tile.lanes:
                self.lane_panels.pack(block.batch, (first, lanes[1]), block.start, block.count, memory, left)
                panels.append(Panels(b, self.last_tile, first, left, memory, 0, packed_step))
            return panels
        self.lane_panels.pack(block.batch, lanes, block.start, block.count, memory, every)
        if self.last_tile == tile:
            return [Panels(b, tile, lanes[0], every, memory, stride, packed_step)]
        return [Panels(b, tile, lanes[0], whole, memory, stride, packed_step),
                Panels(b, self.last_tile, first, left, b.offset(memory, b.mul(whole, stride)), 0, packed_step)]


def _unroll(tile: Tile) -> int:
    """Steps in a turn of the micro-kernel's loop."""
    return 4 if tile.rows * tile.vectors <= 12 else 2


def lies_side_by_side(lane: Side) -> bool:
    """Whether lanes of a product are one stretch of memory, and products step evenly."""
    return [stride.constant for stride in lane.own.strides] == [1] and len(lane.reduced.sizes) == 1


def _whole_tiles(extent: Size, unit: int, most: int) -> int:
    """How much of an extent an item takes at most: whole tiles, no more than there are, at least one."""
    within = most if extent.constant is None else min(most, extent.constant + unit - 1)
    return max(1, within // unit) * unit


def choose_tile(writer: KernelWriter, rows: Size, lanes: Size, lane_side: Side, turned: bool) -> Tile:
    """As many accumulators as the registers hold, few wasted lanes and rows, panels of whole rows if possible; a square
    where it is turned."""
    kernel, target = writer.kernel, writer.target
    itemsize = kernel.accumulators[0].dtype.itemsize
    registers, available = registers_each(target, itemsize), vectors_held(target, itemsize)
    known = lanes.constant
    several = not turned and (known is None or known > LANES)
    vectors = 2 if registers <= 2 and several else 1
    run = lane_side.run
    if run is not None and registers == 1 and several:
        for count in (2, 3, 1):
            if (count * LANES) % run == 0 or run % (count * LANES) == 0:
                vectors = count
                break
    most = most_rows(target, itemsize, vectors)
    if turned:
        most = min(most, LANES)
    wanted = rows.constant
    if wanted is None:
        return Tile(most, vectors)
    least = -(-wanted // most) if wanted else 1
    by_once = not turned and (known or 0) > vectors * LANES and lies_side_by_side(lane_side)
    if least == 2 and wanted <= available - 1 and by_once:
        return Tile(wanted, 1)  # Lanes that are read where they lie come by once and not twice.
    # Rows are computed for nothing in the last tile, and a tile more costs about as much as a row more.
    tiles = min(range(least, least + least // 2 + 1), key=lambda count: count * (-(-wanted // count) + 1))
    if tiles == 1 and wanted >= 16 and (known is not None and known <= LANES * vectors):
        tiles = 2  # One lane panel and one row tile would leave nothing to share out.
    return Tile(max(1, -(-wanted // tiles)), vectors)

