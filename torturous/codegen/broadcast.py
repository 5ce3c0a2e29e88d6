"""How the rows of a contraction reach its micro-kernel, which broadcasts their elements one by one.

A broadcast reads single elements, so rows need no packing where one step leads from product to product of all of them
and one stride from row to row: they are read where they lie. Others are packed, each tile's just before all panels of
lanes use them or, where rows lie side by side in memory, all tiles' together. Whatever is read for the first time for
the next tile is fetched while this one is worked on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torturous.codegen.builder import Builder, Integer, looping
from torturous.codegen.expressions import LANES
from torturous.codegen.microkernel import CACHE_LINE, Ahead, Tile
from torturous.codegen.pairs import PairedLanes, PairedRows
from torturous.codegen.panels import LanePanels, RowPanels, lies_in_lines
from torturous.codegen.side import Side
from torturous.compiler.sizes import Size
from torturous.ir.contraction import BLOCK

PAGE = 4096
"""Rows a multiple of so many bytes apart would fall into the same few places of the first cache."""
MOST_APART = 4096
"""Elements from row to row at most: as far apart is packed what is not a whole tile."""
PACKING, FETCHING = 12, 2
"""What it costs to pack an element, or to bring it near, in multiply-adds of one lane."""
Range = tuple[Integer, Integer]


@dataclass(frozen=True)
class Block:
    """A block of a sum: its first product, how many there are, whether it is the first one and the last."""

    batch: list[Integer]
    start: Integer
    count: Integer
    fresh: bool | str
    last: bool | str


class Rows(ABC):
    """How rows reach the micro-kernel. `memory` is room for what is packed of them."""

    weight = PACKING
    """What an element of a row costs an item, in multiply-adds of one lane."""

    def __init__(self, panels: RowPanels | LanePanels, tile: Tile, tiles: int = 1) -> None:
        """`tiles`: how many are packed together."""
        self.panels = panels
        self.tile = tile
        self.side: Side = panels.side
        self.b: Builder = panels.side.b
        self.elements = -(-(tiles * panels.elements + panels.margin) // LANES) * LANES
        """Of memory."""
        self.stride = panels.row_stride
        """Elements from row to row."""

    @abstractmethod
    def begin(self, block: Block, rows: Range, memory: str, tiles: Integer) -> None:
        """Before the first tile of a block."""

    @abstractmethod
    def place(self, block: Block, rows: Range, memory: str, number: Integer) -> tuple[str, Integer]:
        """Where the tile with this number is, and how many elements from product to product."""

    def first(self, rows: Range, number: Integer) -> Integer:
        """A tile's first row."""
        return self.b.add(rows[0], self.b.mul(number, self.tile.rows))

    def fetch(self, block: Block, rows: Range, number: Integer, part: Integer, parts: Integer, turn: int
              ) -> Ahead | None:
        """A part of what comes after the tile with this number: the next one, or the next block's first one.

        What the micro-kernel's loop, `turn` products at a time, can fetch on its way is left to it, if code may be
        long: many lines asked for at once wait for each other, and what comes after them waits as well.
        """
        if not self._lies_evenly():
            return None
        b, side = self.b, self.side
        row = self.first(rows, b.add(number, 1))
        past = b.compare("sge", row, rows[1])
        row, start = b.choose(past, rows[0], row), b.choose(past, b.add(block.start, BLOCK), block.start)
        origin, step = side.origin(block.batch), side.writer.size(side.reduced.strides[0])
        if step == 1:
            each = b.ceil_div(self.tile.rows, parts)
            begin = b.add(row, b.mul(part, each))
            end = b.minimum(b.minimum(b.add(begin, each), b.add(row, self.tile.rows)), rows[1])

            def line(index: Integer) -> str:
                return b.offset(origin, b.mul(b.add(side.place(side.own, index), start), side.item))

            bytes_ = b.mul(block.count, side.item)
            spread = CACHE_LINE // (turn * side.item) if side.writer.in_process else 0
            with looping(b, b.add(begin, spread), end) as index:
                here = line(index)
                with looping(b, 0, bytes_, CACHE_LINE) as offset:
                    b.prefetch(b.offset(here, offset), level=2)
            if not spread:
                return None
            return Ahead(line(begin), bytes_, b.mul(side.writer.size(side.own.strides[0]), side.item))
        each = b.ceil_div(BLOCK, parts)
        column = b.add(b.add(side.place(side.own, row), self.tile.rows - 1), b.mul(start, step))
        with looping(b, b.mul(part, each), b.minimum(b.mul(b.add(part, 1), each), block.count)) as product:
            b.prefetch(b.offset(origin, b.mul(b.add(column, b.mul(product, step)), side.item)), level=2)
        return None

    def _lies_evenly(self) -> bool:
        """Whether rows lie in runs of products, or side by side, without anything between."""
        side = self.side
        return len(side.reduced.sizes) == len(side.own.sizes) == 1 and (
            side.reduced.strides[0].constant == 1 or side.own.strides[0].constant == 1)


class PackedTogether(Rows):
    """All tiles' rows are packed when a block begins."""

    def begin(self, block: Block, rows: Range, memory: str, tiles: Integer) -> None:
        self.panels.pack(block.batch, rows, block.start, block.count, memory, tiles)

    def place(self, block: Block, rows: Range, memory: str, number: Integer) -> tuple[str, Integer]:
        assert isinstance(self.panels, LanePanels)
        return self.b.offset(memory, self.b.mul(number, self.panels.panel_bytes)), self.panels.product_step

    def fetch(self, block: Block, rows: Range, number: Integer, part: Integer, parts: Integer, turn: int) -> None:
        """All of it is near."""


class PackedByTile(Rows):
    """A tile's rows are packed when its turn comes."""

    def begin(self, block: Block, rows: Range, memory: str, tiles: Integer) -> None:
        """Nothing is done yet."""

    def place(self, block: Block, rows: Range, memory: str, number: Integer) -> tuple[str, Integer]:
        self._pack(block, rows, memory, number)
        return memory, self.panels.product_step

    def _pack(self, block: Block, rows: Range, memory: str, number: Integer) -> None:
        b, row = self.b, self.first(rows, number)
        last = b.minimum(b.add(row, self.tile.rows), rows[1])
        self.panels.pack(block.batch, (row, last), block.start, block.count, memory, 1)


class InPlace(PackedByTile):
    """Rows are read where they lie. Only a tile that is not whole is packed: there may be nothing past its rows."""

    weight = FETCHING

    def __init__(self, panels: RowPanels | LanePanels, tile: Tile, rows: Size) -> None:
        super().__init__(panels, tile)
        self.whole = rows.constant is not None and rows.constant % tile.rows == 0
        if self.whole:
            self.elements = 0

    def place(self, block: Block, rows: Range, memory: str, number: Integer) -> tuple[str, Integer]:
        b, side = self.b, self.side
        row, step = self.first(rows, number), side.writer.size(side.reduced.strides[0])
        offset = b.add(side.place(side.own, row), b.mul(block.start, step))
        here = b.offset(side.origin(block.batch), b.mul(offset, side.item))
        if self.whole:
            return here, step
        partial = b.compare("sgt", b.add(row, self.tile.rows), rows[1])
        b.when(partial, lambda: self._pack(block, rows, memory, number))
        return b.choose(partial, memory, here, "ptr"), b.choose(partial, self.panels.product_step, step)


def rows_of(side: Side, tile: Tile, pairs: bool, rows: Size, most: int) -> Rows:
    """How so many rows of this side are best read; an item takes `most` of them."""
    tiles = most // tile.rows
    narrow = Tile(1, -(-tile.rows // LANES))
    evenly = len(side.own.sizes) == len(side.reduced.sizes) == 1 and side.load.dtype is side.dtype and not pairs
    if lies_in_lines(side):
        lines = (PairedLanes if pairs else LanePanels)(side, narrow, tile.rows, False)
        return InPlace(lines, tile, rows) if evenly else PackedTogether(lines, tile, tiles)
    if pairs:
        return PackedByTile(PairedRows(side, tile), tile)
    apart = side.own.strides[0].constant if evenly and side.reduced.strides[0].constant == 1 else None
    if apart is not None and 0 < apart <= MOST_APART and apart * side.item % PAGE:
        return InPlace(RowPanels(side, tile, apart), tile, rows)
    return PackedByTile(RowPanels(side, tile), tile)
