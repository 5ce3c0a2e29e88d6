"""Convolutions whose operands are read where they lie.

Lanes are samples, where channels are few, or pixels beside each other. Both are consecutive in memory, and so are the
products of a row (`compiler.layout` has seen to that), so nothing is packed and nothing prepared: a convolution is a
run of products per tap of its window, where taps are listed in constant data of the kernel. Where samples are lanes
and a convolution reaches over the border, a tap exists for a pixel or it does not, the same for all lanes and all
channels: each pixel has its own list of taps that exist.

Lines of pixels that are no whole vectors are taken several at once, with what lies between them in memory: results
there are computed and not looked at. The last vectors of an item reach back over those before them, so that nothing
outside the operand is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import inf, prod

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile, vectors_held
from torturous.codegen.operands import split
from torturous.codegen.pooling import Pooling
from torturous.codegen.runs import borders_of, known, runs_of
from torturous.codegen.side import Sided
from torturous.codegen.target import Target
from torturous.codegen.words import WORDS, factors
from torturous.compiler.sizes import MANY, ONE, ZERO, Size, product
from torturous.ir.contraction import BLOCK

MOST_LANES = 512
"""Of an item, its pixels together."""
WEIGHT_BYTES = 1 << 19
"""Of the rows of an item, about."""
ENOUGH_ITEMS = 8
"""Below this many items the rows are divided among items too."""
WORD = 8


class DirectContraction(Sided):
    """Writes one kernel: items are (batch, pixel or a part of its samples, group of rows)."""

    def __init__(self, writer: KernelWriter) -> None:
        super().__init__(writer)
        kernel = writer.kernel
        self.rows = known(self.row.own.count)
        self.products = known(product(kernel.reduced))
        assert self.row.reduced.strides in ([], [Size.of(1)]), "the products of a row are consecutive"
        assert len(self.row.own.strides) <= 1, "rows step evenly"
        self.borders = borders_of(kernel, self.lane.load)
        self.block = WORDS if kernel.words else BLOCK
        *planes, width = [kernel.axes[axis] for axis in self.axes.lane]
        assert self.lane.load.address.factor(self.axes.lane[-1]) == 1, "lanes are consecutive"
        self.samples = width if width.constant is None else ONE
        """What every stride of the lanes' operand is a multiple of."""
        self.width = writer.size(width)
        self.runs, step = runs_of(
            kernel.reduced, self.lane.load, self.borders, len(kernel.axes), self.bytes, self.block, self.samples)
        self.lane_step = self.b.mul(writer.size(self.samples), step)
        self.pooling = Pooling(writer)
        self.taps = len(self.pooling.taps)
        """Pixels of an item: those of a window that is pooled, one after the other."""
        del planes[len(planes) - kernel.pooled:]
        self.most_lanes = MOST_LANES // self.taps // LANES * LANES
        self.lines, pitch = 1, ZERO
        if planes and not self.borders and self.taps == 1:  # Lanes that are computed together have the same taps.
            pitch = self.lane.load.address.factor(self.axes.lane[-2])
            if pitch.constant is not None or pitch == width:
                self.lines = known(planes.pop())
        self.pitch = writer.size(pitch)
        self.cut = self._cut()
        self.tile = self.cut.tile
        self.segments = self.b.ceil_div(self.width, self.cut.width)
        """Parts of a line."""
        self.bands = self.b.ceil_div(self.lines, self.cut.lines)
        """Groups of lines."""
        self.most_bands = self.bands if isinstance(self.bands, int) else self.lines
        self.planes = prod(map(known, planes))
        tiles = -(-self.rows // self.tile.rows)
        shared = max(1, WEIGHT_BYTES // (self.products * self.tile.rows * self.bytes + 1))
        together = next(count for count in range(min(shared, tiles), 0, -1) if tiles % count == 0)
        """Tiles of rows whose weights stay in the second cache; groups of as many, or some rows would be done twice."""
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        segments = self.segments if isinstance(self.segments, int) else 1
        if known(batches) * self.planes * self.most_bands * segments * (tiles // together) < ENOUGH_ITEMS:
            together = 1
        self.rows_per_item = min(self.rows, together * self.tile.rows)
        self.row_groups = -(-self.rows // self.rows_per_item)
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]

    def _cut(self) -> Cut:
        """How lanes are cut: as is best where their number is known, else as many as an item may have."""
        b, target = self.b, self.writer.target
        if isinstance(self.width, int):
            assert isinstance(self.pitch, int)
            return choose_cut(target, self.bytes, self.rows, self.width, self.lines, self.pitch, self.most_lanes)
        tile = min((tile for tile in tiles(target, self.bytes, self.rows) if tile.lanes <= MANY * self.lines),
                   key=lambda tile: -(-self.rows // tile.rows) * tile.rows * (1 + loads(tile)))
        lines = b.minimum(b.maximum(b.div(self.most_lanes, self.width), 1), self.lines) if self.lines > 1 else 1
        return Cut(tile, b.minimum(self.width, self.most_lanes), lines)

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(batch_count, b.mul(b.mul(self.bands, self.segments), self.planes * self.row_groups))
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        table = self._table()
        with looping(b, first, last) as item:
            *batch, row_group, plane, band, segment = split(
                w, item, [*self.batch, self.row_groups, self.planes, self.bands, self.segments])
            # The last part along each way reaches back over the one before it; `own` is where it begins anew.
            row_own, row = self._part(row_group, self.rows_per_item, self.rows)
            line_own, line = self._part(band, self.cut.lines, self.lines)
            lane_own, lane, width = self._stretch(segment)
            with looping(b, 0, self.taps) as tap:
                pixel = b.add(b.mul(b.add(b.mul(plane, self.lines), line), self.taps), tap)
                runs, ends, start = self._existing(table, b.add(b.mul(pixel, self.width), lane))
                lanes = b.offset(self.lane.origin(batch), b.mul(start, self.bytes))
                self._tiles(batch, lanes, row, runs, ends, width, b.offset("%scratch", b.mul(tap, self._tap_bytes())))
            self._epilogue(batch, plane, (line_own, line), (lane_own, lane, width), (row_own, row))
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        cost = product(kernel.reduced) * product(kernel.axes[axis] for axis in self.axes.lane) * self.rows
        parts = [Divided(Size.of(count), 1, 1) for count in (self.planes, self.row_groups)]
        if isinstance(self.segments, int):
            parts.append(Divided(Size.of(self.segments * self.most_bands), 1, 1))
        elif self.lines == 1:
            parts.append(Divided(self.samples, self.most_lanes, self.most_lanes))
        else:  # Every item has more than half of the lanes it may have, so that there are at most as many.
            parts.append(Divided(self.samples * self.lines, self.most_lanes // 2, self.most_lanes // 2))
        return Work(batches, tuple(parts), Size.of(1) + cost)

    def _part(self, number: Integer, size: Integer, extent: Integer) -> tuple[Integer, Integer]:
        """Where a part's own share begins, and where it begins to compute so that it is whole."""
        own = self.b.mul(number, size)
        return own, self.b.minimum(own, self.b.sub(extent, size))

    def _stretch(self, number: Integer) -> tuple[Integer, Integer, Integer]:
        """Where a stretch of a line begins, where it begins to compute so that a tile is filled, and its lanes then."""
        b = self.b
        own = b.mul(number, self.cut.width)
        if isinstance(self.width, int):
            return own, own, self.cut.width
        end = b.minimum(b.add(own, self.cut.width), self.width)
        start = b.maximum(b.minimum(own, b.sub(end, self.tile.lanes)), 0)
        return own, start, b.sub(end, start)

    def _span(self, width: Integer) -> Integer:
        """Consecutive lanes that an item computes."""
        return self.b.add(self.b.mul(self.b.sub(self.cut.lines, 1), self.pitch), width)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs: the item's results, and the list of runs that exist for it."""
        return Size.of(self._ends_place() + (self.blocks + 1) * WORD)

    @property
    def blocks(self) -> int:
        return max(1, -(-self.products // self.block))

    def _list_place(self) -> int:
        return self.taps * self._tap_bytes()

    def _ends_place(self) -> int:
        return self._list_place() + (len(self.runs) + self.blocks) * self._entry_bytes()

    def _tap_bytes(self) -> int:
        """An item's results, or a pixel's of those that are pooled."""
        return -(-self.rows_per_item * self._row_bytes() // 64) * 64

    def _row_bytes(self) -> int:
        """A row of an item's results."""
        span = self._span(self.cut.width) if isinstance(self.width, int) else self.most_lanes
        assert isinstance(span, int)
        return span * self.bytes

    # Runs --------------------------------------------------------------------------------------------------------
    def _entry_bytes(self) -> int:
        return (3 + sum(border.words for border in self.borders)) * WORD

    def _table(self) -> str:
        """Runs as constant data. An entry: the lanes' place (in `samples`), the row's, the length, parts in the
        borders."""
        words: list[int] = []
        for run in self.runs:
            words += [run.place, run.first * self.bytes, run.length, *run.parts]
        return self.b.constants(words)

    def _block_ends(self) -> list[int]:
        """Where blocks begin and end among the runs: one more than there are blocks."""
        starts = [block * self.block for block in range(self.blocks)]
        return [sum(run.first < start for run in self.runs) for start in starts] + [len(self.runs)]

    def _existing(self, table: str, flat: Integer) -> tuple[str, str, Integer]:
        """The runs that exist for an item's pixel, where blocks end among them, and where the pixel's lanes lie."""
        place = self.lane.place(self.lane.own, flat)
        b, w, size = self.b, self.writer, self._entry_bytes()
        all_ends = b.constants(self._block_ends())
        if not self.borders:
            return table, all_ends, place
        listed, ends = (b.offset("%scratch", place) for place in (self._list_place(), self._ends_place()))
        bases: list[Integer] = []
        rests: list[Integer] = []
        for border in self.borders:
            position = self.lane.position(border.position, flat)
            bases.append(b.div(position, border.divisor))
            rests.append(b.rem(position, border.divisor))
            place = b.add(place, b.mul(bases[-1], w.size(border.stride)))
        b.store("i64", 0, ends, WORD)
        blocks = b.begin_loop(0, self.blocks * WORD, WORD, [("i64", 0)])
        start, stop = (b.load("i64", b.offset(all_ends, b.add(blocks.index, word)), WORD) for word in (0, WORD))
        loop = b.begin_loop(start, stop, 1, [("i64", blocks.carried[0])])
        entry = b.offset(table, b.mul(loop.index, size))
        exists, word = None, 3
        for border, base, rest in zip(self.borders, bases, rests, strict=True):
            part = b.load("i64", b.offset(entry, word * WORD), WORD)
            tests = [b.compare("ult", b.add(base, part), w.size(border.extent))]
            if border.divisor > 1:
                tests.append(b.compare("eq", rest, b.load("i64", b.offset(entry, (word + 1) * WORD), WORD)))
            for test in tests:
                exists = test if exists is None else b.value(f"and i1 {exists}, {test}")
            word += border.words
        target = b.offset(listed, b.mul(loop.carried[0], size))
        for copied in range(3):
            value = b.load("i64", b.offset(entry, copied * WORD), WORD)
            b.store("i64", value, b.offset(target, copied * WORD), WORD)
        (have,) = b.end_loop(loop, [b.add(loop.carried[0], b.value(f"zext i1 {exists} to i64"))])
        b.store("i64", have, b.offset(ends, b.add(blocks.index, WORD)), WORD)
        b.end_loop(blocks, [have])
        return listed, ends, place

    # Products ----------------------------------------------------------------------------------------------------
    def _tiles(self, batch: list[Integer], lanes: str, row_first: Integer, runs: str, ends: str, width: Integer,
               results: str) -> None:
        """The results of an item, or of one of its pixels, tile by tile. The last tile reaches back over rows of the
        one before it."""
        b, w, tile = self.b, self.writer, self.tile
        e = factors(b, self.dtype, w.kernel.words)
        row_stride = b.mul(w.size(self.row.own.strides[0]) if self.row.own.strides else 0, self.bytes)
        kernel = MicroKernel(b, e, tile, self.lane_step, self.bytes, row_stride)
        rows = b.offset(self.row.origin(batch), b.mul(row_first, row_stride))
        span = self._span(width)
        with looping(b, 0, -(-self.rows_per_item // tile.rows)) as number:
            row = b.minimum(b.mul(number, tile.rows), self.rows_per_item - tile.rows)
            row_place = b.offset(rows, b.mul(row, row_stride))
            # Whole panels take turns block by block. Where lanes are left over, one more panel reaches back over the
            # last of them when these are done: what the two have in common is computed again, from its first block on.
            panels, end = b.div(span, tile.lanes), b.ceil_div(span, tile.lanes)
            with looping(b, 0, 1 if panels == end else 2) as turn, looping(b, 0, self.blocks * WORD, WORD) as block:
                late = b.compare("eq", turn, 1)
                with looping(b, b.choose(late, panels, 0), b.choose(late, end, panels)) as panel:
                    lane = b.minimum(b.mul(panel, tile.lanes), b.sub(span, tile.lanes))
                    lane_place = b.offset(lanes, b.mul(lane, self.bytes))
                    out = b.offset(results, b.add(b.mul(row, self._row_bytes()), b.mul(lane, self.bytes)))
                    first, last = (b.load("i64", b.offset(ends, b.add(block, word)), WORD) for word in (0, WORD))
                    state = self._chain(kernel, lane_place, row_place, runs, first, last)
                    fresh = True if self.blocks == 1 else b.compare("eq", block, 0)
                    kernel.join(state, out, self._row_bytes(), fresh)

    def _chain(self, kernel: MicroKernel, lanes: str, rows: str, runs: str, first: Integer, last: Integer) -> list[str]:
        """A block's chain over its runs that exist."""
        b = self.b
        lengths = {run.length for run in self.runs}
        unroll = min(kernel.unroll(length) for length in lengths)
        if any(length % unroll for length in lengths):
            unroll = 1
        loop = b.begin_loop(first, last, 1, [(kernel.arithmetic.kind, zero) for zero in kernel.zeros()])
        entry = b.offset(runs, b.mul(loop.index, self._entry_bytes()))
        listed, row_place = (b.load("i64", b.offset(entry, word * WORD), WORD) for word in range(2))
        lane_place = b.mul(listed, self.writer.size(self.samples))
        length: Integer = b.load("i64", b.offset(entry, 2 * WORD), WORD) if len(lengths) > 1 else self.runs[0].length
        state = kernel.run(b.offset(lanes, lane_place), b.offset(rows, row_place), length, loop.carried, unroll)
        return b.end_loop(loop, state)

    # The epilogue ------------------------------------------------------------------------------------------------
    def _epilogue(self, batch: list[Integer], plane: Integer, lines: tuple[Integer, Integer],
                  lanes: tuple[Integer, Integer, Integer], rows: tuple[Integer, Integer]) -> None:
        """Reads the item's results, vectors of one line, and stores what the kernel makes of them."""
        b, w, cut = self.b, self.writer, self.cut
        kernel = w.kernel
        inner = self.axes.lane[-1]
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        fixed |= dict(zip(self.axes.batch, batch, strict=True))
        inside = set(self.pooling.axes)
        lane_axes = [axis for axis in self.axes.lane if axis not in inside]
        lane_extents = [w.size(kernel.axes[axis]) for axis in lane_axes]
        row_extents = [w.size(kernel.axes[axis]) for axis in self.axes.row]
        with looping(b, b.sub(rows[0], rows[1]), self.rows_per_item) as row:
            fixed |= dict(zip(self.axes.row, split(w, b.add(rows[1], row), row_extents), strict=True))
            with looping(b, b.sub(lines[0], lines[1]), cut.lines) as line:
                flat = b.mul(b.add(b.mul(plane, self.lines), b.add(lines[1], line)), self.width)
                place = split(w, b.add(flat, lanes[1]), lane_extents)
                fixed |= dict(zip(lane_axes, place, strict=True))
                lead = b.add(b.mul(row, self._row_bytes()), b.mul(b.mul(line, self.pitch), self.bytes))
                results = b.offset("%scratch", lead)

                def vector(lane: Integer, tail: Integer | None, results: str = results, last: Integer = place[-1]
                           ) -> None:
                    mask = None if tail is None else w.tail_mask(tail, LANES)
                    known = tail if isinstance(tail, int) else None
                    point = Point(fixed | {inner: b.add(last, lane)}, inner, LANES, mask, known)
                    at = b.offset(results, b.mul(lane, self.bytes))
                    self.pooling.store(point, lambda tap: self.lane.read_results(
                        b.offset(at, tap * self._tap_bytes()), LANES, mask))

                first = b.sub(lanes[0], lanes[1])
                rest = b.rem(b.sub(lanes[2], first), LANES)
                last = b.sub(lanes[2], rest)
                with looping(b, first, last, LANES) as lane:
                    vector(lane, None)
                if isinstance(rest, str):
                    b.when(b.compare("sgt", rest, 0), partial(vector, last, rest))
                elif rest:
                    vector(last, rest)


@dataclass(frozen=True)
class Cut:
    """How lanes are cut into items and tiles: so much of a line, so many lines at once."""

    tile: Tile
    width: Integer
    lines: Integer


def tiles(target: Target, itemsize: int, rows: int) -> Iterator[Tile]:
    """Tiles as large as the registers hold."""
    available = vectors_held(target, itemsize)
    for vectors in (1, 2, 4):
        most = max(1, (available - vectors) // vectors)
        yield Tile(-(-rows // -(-rows // most)), vectors)


def loads(tile: Tile) -> float:
    """How often a tile loads for each multiply-add; two broadcasts go in one."""
    return (tile.rows / 2 + tile.vectors) / (tile.rows * tile.vectors)


def choose_cut(target: Target, itemsize: int, rows: int, width: int, lines: int, pitch: int, most: int) -> Cut:
    """The cut that computes least beside what is asked for, with tiles as large as the registers hold."""
    best: Cut | None = None
    least = inf
    for tile in tiles(target, itemsize, rows):
        for part, together in _cuts(width, lines, pitch, most):
            span = (together - 1) * pitch + part
            if span < tile.lanes:
                continue
            computed = -(-span // tile.lanes) * tile.lanes / (together * part) * (
                -(-rows // tile.rows) * tile.rows / rows)
            cost = computed * (1 + loads(tile))
            if cost < least:
                best, least = Cut(tile, part, together), cost
    assert best is not None, "lanes that fill no vector"
    return best


def _cuts(width: int, lines: int, pitch: int, most: int) -> Iterator[tuple[int, int]]:
    """So much of a line, so many lines at once, with `most` lanes in all."""
    if width <= most or width % LANES:
        yield width, 1
    else:
        yield next(part for part in range(most, 0, -LANES) if width % part == 0), 1
    if 0 < pitch < 2 * width:
        for count in range(2, lines + 1):
            if (count - 1) * pitch + width <= most:
                yield width, count
