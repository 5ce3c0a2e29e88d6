"""Packing: the operands of a contraction, a block of products at a time, in the order the micro-kernel reads them.

Row panels are [row][BLOCK]: each row's products copied one after the other. Lane panels are [k][lanes]: for each
product a line of lanes. How a line is fetched depends on where lanes lie in memory: in whole stretches, across
contiguous products (transposed in registers), or anywhere (gathered).
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES
from torturous.codegen.microkernel import Tile
from torturous.codegen.side import Side
from torturous.codegen.turning import turned
from torturous.compiler.sizes import product
from torturous.core import dtypes
from torturous.ir.contraction import BLOCK

Line = Callable[[Integer], list[str]]
"""`line(offset of a product in bytes)`: a panel's line of that product, in vectors."""
AHEAD = 8
"""Products ahead of which lines of lanes are fetched."""


class RowPanels:
    """Packs rows as plain copies of their products, `stride` apart: by default BLOCK, and a little against cache
    conflicts."""

    product_step = 1

    def __init__(self, side: Side, tile: Tile, stride: int = BLOCK + LANES) -> None:
        self.side = side
        self.stride = self.row_stride = stride
        self.elements = tile.rows * stride
        """Of one tile's panel."""
        self.margin = max(0, BLOCK + LANES - stride)
        """Elements that may be written past the last panel."""

    def pack(self, batch: list[Integer], rows: tuple[Integer, Integer], k0: Integer, count: Integer,
             target: str, panels: Integer = 0) -> None:
        """Rows [first, last), products [k0, k0 + count). Panels lie one after the other."""
        side = self.side
        b = side.b
        origin = side.origin(batch)
        item, size = side.item, side.dtype.itemsize
        with looping(b, rows[0], rows[1]) as row:
            source = b.offset(origin, b.mul(side.place(side.own, row), item))
            line = b.offset(target, b.mul(b.sub(row, rows[0]), self.stride * size))
            for_runs(side, k0, count, lambda offset, done, length, source=source, line=line: self._copy(
                b.offset(source, b.mul(offset, item)), b.offset(line, b.mul(done, size)), length))

    def _copy(self, source: str, target: str, length: Integer) -> None:
        """A run of products; a store may run past its end, where the next run or the panel's margin lies."""
        side = self.side
        b, w = side.b, side.writer
        stride = w.size(side.reduced.strides[-1]) if side.reduced.strides else 1
        item, size = side.item, side.dtype.itemsize
        numbers = "<" + ", ".join(f"i64 {lane}" for lane in range(LANES)) + ">"

        def chunk(index: Integer, mask: str | None, lanes: int) -> None:
            address = b.offset(source, b.mul(b.mul(index, stride), item))
            if stride == 1:
                value = side.read(address, lanes, mask)
            else:
                e = Arithmetic(b, dtypes.int64, lanes)
                places = e.mul(numbers, e.constant(stride) if isinstance(stride, int) else e.splat(stride))
                value = side.gather(address, places, lanes, mask)
            side.write(value, b.offset(target, b.mul(index, size)), lanes)

        if isinstance(length, int) and stride == 1:
            for start in range(0, length, LANES):
                chunk(start, None, min(LANES, length - start))
            return
        full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
        with looping(b, 0, full, LANES) as index:
            chunk(index, None, LANES)
        left = b.sub(length, full)
        b.when(b.compare("sgt", left, 0), lambda: chunk(full, w.tail_mask(left, LANES), LANES))


def for_runs(side: Side, k0: Integer, count: Integer, body: object) -> None:
    """Calls `body(offset, done, length)` for each run of products in a block that is contiguous in steps."""
    b, w = side.b, side.writer
    loops = side.reduced
    if len(loops.sizes) <= 1:
        stride = w.size(loops.strides[0]) if loops.strides else 0
        body(b.mul(k0, stride), 0, count)  # type: ignore[operator]
        return
    extents = [w.size(size) for size in loops.sizes]
    inner = extents[-1]
    whole = isinstance(inner, int) and inner > 0 and BLOCK % inner == 0
    if whole:
        # Blocks consist of whole runs.
        with looping(b, 0, count, inner) as done:
            body(side.place(loops, b.add(k0, done)), done, inner)  # type: ignore[operator]
        return
    loop = b.begin_runs(0, count, [b.rem(k0, b.maximum(inner, 1))])
    done, within = loop.carried
    length = b.minimum(b.sub(count, done), b.sub(inner, within))
    body(side.place(loops, b.add(k0, done)), done, length)  # type: ignore[operator]
    b.end_runs(loop, [b.add(done, length), 0])


class LanePanels:
    """Packs lines of lanes, one a product.

    Rows whose neighbours are consecutive in memory are packed so, too: then a panel takes `width` of a line's lanes.
    """

    row_stride = 1

    def __init__(self, side: Side, tile: Tile, width: int, tables_fit: bool) -> None:
        self.side = side
        self.tile = tile
        self.width = width
        self.product_step = tile.lanes
        self.elements = tile.lanes * BLOCK
        self.margin = LANES
        """Elements that may be written past the last panel."""
        self.panel_bytes = self.elements * side.dtype.itemsize
        inner = side.reduced.sizes[-1].constant if side.reduced.sizes else None
        self.tabled = tables_fit and len(side.reduced.sizes) > 1 and (inner is None or inner < 4 * LANES)
        """Whether products lie too scattered for runs: then their offsets come from a table."""

    def write_table(self, table: str) -> None:
        """The offset in bytes of every product, as nested loops count them."""
        side = self.side
        b, w = side.b, side.writer
        loops = side.reduced

        def level(position: int, offset: Integer, flat: Integer) -> None:
            size, stride = w.size(loops.sizes[position]), w.size(loops.strides[position])
            inner = w.size(product(loops.sizes[position + 1:]))
            with looping(b, 0, size) as index:
                here = b.add(offset, b.mul(index, b.mul(stride, side.item)))
                place = b.add(flat, b.mul(index, inner))
                if position == len(loops.sizes) - 1:
                    b.store("i64", here, b.offset(table, b.mul(place, 8)), 8)
                else:
                    level(position + 1, here, place)

        level(0, 0, 0)

    def pack(self, batch: list[Integer], lanes: tuple[Integer, Integer], k0: Integer, count: Integer, target: str,
             panels: Integer) -> None:
        """Lanes [first, last), products [k0, k0 + count)."""
        side, tile = self.side, self.tile
        b = side.b
        origin = side.origin(batch)
        own = side.own
        together: Integer = 0
        if own.strides and own.strides[-1] == 1 and len(own.sizes) == 1:
            together = self._whole_lines(origin, lanes, k0, count, target)
        with looping(b, together, panels) as panel:
            first = b.add(lanes[0], b.mul(panel, self.width))
            into = b.offset(target, b.mul(panel, self.panel_bytes))
            if side.run is not None and tile.lanes % side.run == 0 and self.width == tile.lanes:
                self._whole_runs(origin, first, lanes[1], k0, count, into)
            elif own.strides and own.strides[-1] == 1 and (
                len(own.sizes) == 1 or (side.run is not None and side.run % tile.lanes == 0)
            ):
                self._one_run(origin, first, lanes[1], k0, count, into)
            elif (own.strides and len(own.sizes) == 1 and side.reduced.strides and side.reduced.strides[-1] == 1):
                self._transposed(origin, first, lanes[1], k0, count, into)
            else:
                self._gathered(origin, first, lanes[1], k0, count, into)

    def _lines(self, k0: Integer, count: Integer, into: str, line: Line, lanes: int = LANES) -> None:
        """Writes the line of every product; `line` gives it in vectors of so many lanes."""
        self._products(k0, count, lambda offset, number: self._put(line(offset), into, number, lanes))

    def _products(self, k0: Integer, count: Integer, body: Callable[[Integer, Integer], None]) -> None:
        """`body(where it lies in bytes, its number in the block)` for every product."""
        b = self.side.b
        if self.tabled:
            with looping(b, 0, count) as k:
                body(self._tabled_offset(b.add(k0, k)), k)
            return

        def run(offset: Integer, done: Integer, length: Integer) -> None:
            with looping(b, 0, length) as k:
                body(self._run_offset(offset, k), b.add(done, k))

        for_runs(self.side, k0, count, run)

    def _tabled_offset(self, k: Integer) -> str:
        """Where a product lies, in bytes, from the table."""
        b = self.side.b
        return b.load("i64", b.offset("%scratch", b.mul(k, 8)), 8)

    def _run_offset(self, offset: Integer, k: Integer) -> Integer:
        """Where a run's k-th product lies, in bytes."""
        b, w, loops = self.side.b, self.side.writer, self.side.reduced
        inner_stride = w.size(loops.strides[-1]) if loops.strides else 0
        return b.mul(b.add(offset, b.mul(k, inner_stride)), self.side.item)

    def _put(self, values: list[str], into: str, number: Integer, lanes: int) -> None:
        """Writes the panel's line of this number."""
        side = self.side
        b, size = side.b, side.dtype.itemsize
        address = b.offset(into, b.mul(number, self.tile.lanes * size))
        for position, value in enumerate(values):
            side.write(value, b.offset(address, position * lanes * size), lanes)

    def _whole_lines(self, origin: str, lanes: tuple[Integer, Integer], k0: Integer, count: Integer, target: str
                     ) -> Integer:
        """Panels that are whole, product by product: memory is read in its own order. Gives their number."""
        side = self.side
        b = side.b
        whole = self._whole_panels(lanes)
        start = b.offset(origin, b.mul(lanes[0], side.item))

        def line(offset: Integer, number: Integer) -> None:
            place = b.offset(start, offset)
            with looping(b, 0, whole) as panel:
                values = [side.read(here, LANES) for here in self._coming(place, panel)]
                self._put(values, b.offset(target, b.mul(panel, self.panel_bytes)), number, LANES)

        self._products(k0, count, line)
        return whole

    def _whole_panels(self, lanes: tuple[Integer, Integer]) -> Integer:
        """How many panels have all the lanes that are read for them."""
        b = self.side.b
        have = b.sub(lanes[1], lanes[0])
        return b.div(b.maximum(b.add(b.sub(have, self.tile.lanes), self.width), 0), self.width)

    def _coming(self, line: str, panel: Integer) -> list[str]:
        """Where a panel's vectors lie in a product's line; those of a later product are fetched."""
        side = self.side
        b = side.b
        step = side.writer.size(side.reduced.strides[-1]) if side.reduced.strides else 0
        source = b.offset(line, b.mul(panel, self.width * side.item))
        places = [b.offset(source, v * LANES * side.item) for v in range(self.tile.vectors)]
        for here in places:
            b.prefetch(b.offset(here, b.mul(step, AHEAD * side.item)))
        return places

    def _whole_runs(self, origin: str, first: Integer, last: Integer, k0: Integer, count: Integer, into: str) -> None:
        """A line is several whole runs, each contiguous in memory."""
        side = self.side
        b = side.b
        run = side.run
        assert run is not None
        starts = []
        for number in range(self.tile.lanes // run):
            # Past the end the last run is read again; nobody looks at those lanes.
            flat = b.minimum(b.add(first, number * run), b.sub(last, run))
            starts.append(b.offset(origin, b.mul(side.place(side.own, flat), side.item)))

        self._lines(k0, count, into, lambda offset: [side.read(b.offset(start, offset), run) for start in starts], run)

    def _one_run(self, origin: str, first: Integer, last: Integer, k0: Integer, count: Integer, into: str) -> None:
        """A line lies in one contiguous run."""
        side, tile = self.side, self.tile
        b, w = side.b, side.writer
        start = b.offset(origin, b.mul(side.place(side.own, first), side.item))

        def lines(masks: list[str | None]) -> None:
            def line(offset: Integer) -> list[str]:
                place = b.offset(start, offset)
                return [side.read(b.offset(place, v * LANES * side.item), LANES, m) for v, m in enumerate(masks)]

            self._lines(k0, count, into, line)

        left = b.sub(last, first)
        known = side.own.count.constant
        if known is not None and known % tile.lanes == 0:
            lines([None] * tile.vectors)
            return
        full, partial, done = b.label("full"), b.label("partial"), b.label("packed")
        b.emit(f"br i1 {b.compare('sge', left, tile.lanes)}, label %{full}, label %{partial}")
        b.start_block(full)
        lines([None] * tile.vectors)
        b.emit(f"br label %{done}")
        b.start_block(partial)
        lines([w.tail_mask(b.sub(left, v * LANES), LANES) for v in range(tile.vectors)])
        b.emit(f"br label %{done}")
        b.start_block(done)

    def _transposed(self, origin: str, first: Integer, last: Integer, k0: Integer, count: Integer, into: str) -> None:
        """Lanes lie apart, but each one's products side by side: squares are read along products and turned."""
        side, tile = self.side, self.tile
        b, w = side.b, side.writer
        line_bytes = tile.lanes * side.dtype.itemsize
        lanes = self._lane_starts(origin, first, last)

        def square(offset: Integer, at: Integer, mask: str | None, width: int) -> None:
            step = b.mul(offset, side.item)
            for v in range(tile.vectors):
                rows = [
                    side.read(b.offset(lanes[v * LANES + lane], step), LANES, mask) for lane in range(LANES)
                ]
                for k, value in enumerate(turned(b, kind(side.dtype, LANES), rows)[:width]):
                    place = b.offset(into, b.mul(b.add(at, k), line_bytes))
                    side.write(value, b.offset(place, v * LANES * side.dtype.itemsize), LANES)

        def run(offset: Integer, done: Integer, length: Integer) -> None:
            full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
            if full != 0:
                with looping(b, 0, full, LANES) as k:
                    square(b.add(offset, k), b.add(done, k), None, LANES)
            left = b.sub(length, full)
            if isinstance(left, int):
                if left:
                    mask = w.tail_mask(left, LANES)
                    square(b.add(offset, full), b.add(done, full), mask, left)
                return
            with looping(b, full, length) as k:
                self._column(lanes, b.add(offset, k), b.offset(into, b.mul(b.add(done, k), line_bytes)))

        for_runs(side, k0, count, run)

    def _lane_starts(self, origin: str, first: Integer, last: Integer) -> list[str]:
        """Where each lane of a panel begins; past the last one, that one again."""
        side = self.side
        b, stride = side.b, side.writer.size(side.own.strides[-1])
        flats = [b.minimum(b.add(first, lane), b.sub(last, 1)) for lane in range(self.tile.lanes)]
        return [b.offset(origin, b.mul(b.mul(flat, stride), side.item)) for flat in flats]

    def _column(self, lanes: list[str], offset: Integer, address: str) -> None:
        """One product of every lane, one by one."""
        side = self.side
        b = side.b
        for lane, start in enumerate(lanes):
            value = side.read(b.offset(start, b.mul(offset, side.item)), 1)
            side.write(value, b.offset(address, lane * side.dtype.itemsize), 1)

    def _gathered(self, origin: str, first: Integer, last: Integer, k0: Integer, count: Integer, into: str) -> None:
        """Lanes lie anywhere: their places are worked out once a panel."""
        side, tile = self.side, self.tile
        b, w = side.b, side.writer
        e = Arithmetic(b, dtypes.int64, LANES)
        places, masks = [], []
        for v in range(tile.vectors):
            start = b.add(first, v * LANES)
            masks.append(w.tail_mask(b.sub(last, start), LANES))
            numbers = "<" + ", ".join(f"i64 {lane}" for lane in range(LANES)) + ">"
            flat = e.add(self._splat(e, start), numbers)
            places.append(self._place(e, flat))

        def line(offset: Integer) -> list[str]:
            base = b.offset(origin, offset)
            return [side.gather(base, places[v], LANES, masks[v]) for v in range(tile.vectors)]

        self._lines(k0, count, into, line)

    def _splat(self, e: Arithmetic, value: Integer) -> str:
        return e.constant(value) if isinstance(value, int) else e.splat(value)

    def _place(self, e: Arithmetic, flat: str) -> str:
        """Offsets of a vector of flat indices."""
        side = self.side
        b, w = side.b, side.writer
        total: str | None = None
        loops = side.own
        for position in range(len(loops.sizes) - 1, -1, -1):
            stride = self._splat(e, w.size(loops.strides[position]))
            index = flat
            if position:
                extent = self._splat(e, b.maximum(w.size(loops.sizes[position]), 1))
                index = w.divide("urem", flat, extent, e.lanes)
                flat = w.divide("udiv", flat, extent, e.lanes)
            part = e.mul(index, stride)
            total = part if total is None else e.add(total, part)
        return total if total is not None else e.constant(0)


def lies_in_lines(side: Side) -> bool:
    """Whether rows lie beside each other, and products do not."""
    steps = side.reduced.strides
    return len(side.own.strides) == 1 and side.own.strides[-1] == 1 and (not steps or steps[-1] != 1)
