"""The contraction whose lanes are products: the gradient of the weights of convolutions.

Such a sum runs over samples and pixels, long in both operands. Its order (see `ir.contraction`, LANEWISE) puts product
k into lane k mod LANES, so the register tile is rows against rows, with no broadcast and no wasted lane. Lanes are
combined at the end.

Where whole vectors of products are consecutive they are read in place, else packed, a chunk of them at a time. A tile's
chains wait in memory from chunk to chunk, so that all tiles of an item share what a chunk has brought into the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import folded
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.lines import Lines, Step, Stretch
from torturous.codegen.loops import Divided, Work
from torturous.codegen.made import Made, described
from torturous.codegen.microkernel import Tile, registers_each
from torturous.codegen.operands import loaded, split, takes_pairs
from torturous.codegen.pairs import ACROSS, PairedRows
from torturous.codegen.panels import RowPanels
from torturous.codegen.side import Side
from torturous.codegen.words import factors
from torturous.compiler.operands import is_plain_load
from torturous.compiler.sizes import Size, product
from torturous.core import dtypes
from torturous.ir.contraction import BLOCK
from torturous.ir.reduction import SUM

CHAIN = BLOCK * LANES
"""Products per block of the sum."""
CHUNK = 2048
"""Products read in place before the next tile has its turn."""
ENOUGH_ITEMS = 20
"""Items to share out, where tiles are that many."""
MOST_ROWS = 65
"""Of either side in an item: with a chunk of products they stay in the second cache."""
MAKING = 6
"""Multiply-adds in whose time an element of a factor is computed."""
Rows = Callable[[int, Integer], list[str]]
"""`rows(side, number of the tile)`: where the tile's rows have their products of the present chunk."""
Feed = Callable[[Arithmetic, list[str], Step], list[str]]
"""`feed(arithmetic, accumulators, step)`: the accumulators after the present chunk."""


class Dots:
    """Writes one kernel: items are groups of tiles of the longer side, each against tiles of the other."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        made = [which for which, side in enumerate(kernel.product) if not is_plain_load(side, True)]
        assert len(made) < 2, "one factor at least is read"
        loads = [described(writer, side, loaded(kernel.product[1 - which])) if which in made else loaded(side)
                 for which, side in enumerate(kernel.product)]
        axes: list[list[int]] = [[], []]
        self.batch_axes: list[int] = []
        for axis in range(len(kernel.axes)):
            present = [load.address.factor(axis) != 0 for load in loads]
            if present[0] == present[1]:
                self.batch_axes.append(axis)
            else:
                axes[0 if present[0] else 1].append(axis)
        counts = [product(kernel.axes[axis] for axis in own) for own in axes]
        long = made[0] if made else 0 if (counts[0].constant or 0) >= (counts[1].constant or 0) else 1
        self.own_axes = [axes[long], axes[1 - long]]
        self.counts = [counts[long], counts[1 - long]]
        first = len(kernel.axes)
        reduced = list(range(first, first + len(kernel.reduced)))
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.made = Made(writer, kernel.product[long], axes[long], CHUNK * self.bytes) if made else None
        """What computes the first side's rows, where they are not read."""
        self.pairs = not made and takes_pairs(kernel, writer.target)
        """Whether a step takes in two vectors of products (see `codegen.pairs`)."""
        packed = dtypes.bfloat16 if self.pairs else self.dtype
        self.sides = [
            Side(writer, loads[which], packed, self.batch_axes, own, reduced)
            for which, own in zip((long, 1 - long), self.own_axes, strict=True)
        ]
        self.tile = self._tile()
        tiles = [-(-(count.constant or 64) // rows) for count, rows in zip(self.counts, self.tile, strict=True)]
        self.group = max(1, tiles[0] // ENOUGH_ITEMS) * self.tile[0]
        """Rows of the longer side per item."""
        self.other_group = self.tile[1] if tiles[0] < ENOUGH_ITEMS else tiles[1] * self.tile[1]
        """Rows of the other side per item."""
        if self.made is not None:  # Every item has a few of its rows, and the other side whole.
            self.group, self.other_group = self.tile[0], tiles[1] * self.tile[1]
        if not kernel.direct:  # Every item packs: few of them, and the other side whole.
            self.group, self.other_group = -(-tiles[0] // 8) * self.tile[0], tiles[1] * self.tile[1]
        self.group, self.other_group = (
            evenly(group // rows, max(1, MOST_ROWS // rows)) * rows
            for group, rows in zip((self.group, self.other_group), self.tile, strict=True)
        )
        self.chunk = 4 * BLOCK if self.pairs else BLOCK
        """Products that are packed at a time."""
        self.panels = [
            PairedRows(side, Tile(rows, 1), ACROSS, self.chunk) if self.pairs else RowPanels(side, Tile(rows, 1))
            for side, rows in zip(self.sides, self.tile, strict=True)
        ]
        self.line = self.panels[0].stride * self.bytes
        """From row to row of a panel."""
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.batch_axes]
        self.total = writer.size(product(kernel.reduced))
        self.blocked = not isinstance(self.total, int) or self.total > CHAIN
        """Whether there may be several blocks, whose chains are added."""

    def _tile(self) -> tuple[int, int]:
        """Rows of each side whose products the registers hold."""
        target = self.writer.target
        registers = registers_each(target, self.bytes)
        most = 5 if target.registers // registers >= 31 else 3 if target.registers // registers >= 14 else 1

        def rows(count: Size) -> int:
            known = count.constant
            return most if known is None else max(1, -(-known // -(-known // most))) if known else 1

        return rows(self.counts[0]), rows(self.counts[1])

    # Memory: the chains of an item's tiles, the sums of their blocks, then packed panels ---------------------------
    def _sums_bytes(self) -> int:
        return self.group * self.other_group * LANES * self.bytes

    def _made_place(self) -> int:
        """Where rows that are computed lie, in bytes."""
        return self._sums_bytes() * (2 if self.blocked else 1)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs."""
        sums = self._sums_bytes() * (2 if self.blocked else 1)
        panels = 0 if self.writer.kernel.direct else (self.group + self.other_group) * self.line
        return Size.of(sums + panels + (self.group * self.made.pitch if self.made is not None else 0))

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        mine, other = (w.size(count) for count in self.counts)
        groups = b.ceil_div(mine, self.group)
        other_group: Integer = self.other_group
        if self.made is not None:  # At most so many: what is made is made again in every item.
            other_group = w.argument(Argument("group", 1), "i64")
        other_groups = b.ceil_div(other, other_group)
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(b.mul(batch_count, groups), other_groups)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        with looping(b, first, last) as item:
            rest = b.div(item, groups)
            start = b.mul(b.rem(item, groups), self.group)
            other_start = b.mul(b.rem(rest, other_groups), other_group)
            batch = split(w, b.div(rest, other_groups), self.batch)
            ranges = [(start, b.minimum(b.add(start, self.group), mine)),
                      (other_start, b.minimum(b.add(other_start, other_group), other))]
            if w.kernel.direct:
                self._read_in_place(batch, ranges)
            else:
                self._packed(batch, ranges)
            self._epilogue(batch, ranges)
        kernel = w.kernel
        cost = product(kernel.reduced) * self.counts[0] * self.counts[1]
        batches = product(kernel.axes[axis] for axis in self.batch_axes)
        divided = [Divided(count, group, group)
                   for count, group in zip(self.counts, (self.group, self.other_group), strict=True)]
        if self.made is None:
            return Work(batches, tuple(divided), Size.of(1) + cost)
        divided[1] = Divided(self.counts[1], self.tile[1], self.other_group, weight=0)
        return Work(batches, tuple(divided), Size.of(1) + cost, product(kernel.reduced) * MAKING)

    # Chunks of products ------------------------------------------------------------------------------------------
    def _read_in_place(self, batch: list[Integer], ranges: Sequence[tuple[Integer, Integer]]) -> None:
        """Lines of products as they lie, a chunk of vectors at a time; constant data say where each row begins."""
        b = self.b
        lines = Lines(self.writer, self.sides)
        listed = {which: lines.rows(which, self.own_axes[which], self.tile[which])
                  for which in ((1,) if self.made is not None else (0, 1))}
        origins = {which: self.sides[which].origin(batch) for which in listed}

        with looping(b, 0, lines.vectors, CHUNK // LANES) as first:
            stretch = lines.stretch(first, CHUNK // LANES)
            begun = b.offset("%scratch", b.sub(self._made_place(), b.mul(first, LANES * self.bytes)))
            if self.made is not None:
                here = dict(zip(self.batch_axes, batch, strict=True))
                self.made.fill(here, ranges[0], stretch, b.offset("%scratch", self._made_place()))

            def rows(which: int, tile: Integer, begun: str = begun) -> list[str]:
                if which not in listed:
                    assert self.made is not None
                    line = b.offset(begun, b.mul(tile, self.tile[which] * self.made.pitch))
                    return [b.offset(line, row * self.made.pitch) for row in range(self.tile[which])]
                start = b.add(ranges[which][0], b.mul(tile, self.tile[which]))
                return [b.offset(origins[which], place) for place in listed[which](start)]

            def feed(e: Arithmetic, state: list[str], step: Step, stretch: Stretch = stretch) -> list[str]:
                return lines.feed(stretch, e.kind, self.bytes, state, step)

            fresh = b.compare("eq", b.rem(first, BLOCK), 0)
            self._tiles(ranges, rows, feed, fresh, self._ends(stretch.last, lines.vectors, BLOCK))

    def _ends(self, after: Integer, total: Integer, block: int) -> Integer:
        """1 where the first block ends at `after`, 2 where another does, else 0."""
        b = self.b
        closes = b.value(f"or i1 {b.compare('eq', b.rem(after, block), 0)}, {b.compare('sge', after, total)}")
        return b.choose(closes, b.choose(b.compare("sle", after, block), 1, 2), 0)

    def _packed(self, batch: list[Integer], ranges: Sequence[tuple[Integer, Integer]]) -> None:
        """Both sides' rows copied, a chunk of products at a time."""
        b = self.b
        places = [b.offset("%scratch", self._sums_bytes() * (2 if self.blocked else 1))]
        line = self.line
        places.append(b.offset(places[0], self.group * line))
        with looping(b, 0, b.maximum(self.total, 1), self.chunk) as k0:
            count = b.minimum(b.sub(self.total, k0), self.chunk)
            for which in (0, 1):
                self._pack(which, batch, ranges[which], k0, count, places[which])

            def rows(which: int, tile: Integer) -> list[str]:
                first = b.offset(places[which], b.mul(tile, self.tile[which] * line))
                return [b.offset(first, row * line) for row in range(self.tile[which])]

            fresh = b.compare("eq", b.rem(k0, CHAIN), 0)
            ends = self._ends(b.add(k0, self.chunk), self.total, CHAIN)
            line_bytes = LANES * self.bytes
            vectors = b.ceil_div(count, 2 * LANES if self.pairs else LANES)

            def feed(e: Arithmetic, state: list[str], step: Step) -> list[str]:
                loop = b.begin_loop(0, vectors, 1, [(e.kind, value) for value in state])
                return b.end_loop(loop, step([b.mul(loop.index, line_bytes)] * 2, loop.carried, None))

            self._tiles(ranges, rows, feed, fresh, ends)

    def _pack(self, which: int, batch: list[Integer], rows: tuple[Integer, Integer], k0: Integer, count: Integer,
              place: str) -> None:
        """A side's rows of a chunk; lanes past the last product are zero."""
        b = self.b
        if not self.pairs:
            e = Arithmetic(b, self.dtype, LANES)
            tail = b.value(f"and i64 {count}, {-LANES}") if not isinstance(count, int) else count - count % LANES
            with looping(b, 0, b.sub(rows[1], rows[0])) as row:
                line = b.offset(place, b.mul(row, self.line))
                b.store(e.kind, e.constant(0), b.offset(line, b.mul(tail, self.bytes)), self.bytes)
        self.panels[which].pack(batch, rows, k0, count, place)

    # Tiles -------------------------------------------------------------------------------------------------------
    def _tiles(self, ranges: Sequence[tuple[Integer, Integer]], rows: Rows, feed: Feed, fresh: str, ends: Integer
               ) -> None:
        """One chunk for every tile of the item."""
        b = self.b
        numbers = [b.ceil_div(b.sub(stop, start), size)
                   for (start, stop), size in zip(ranges, self.tile, strict=True)]
        with looping(b, 0, numbers[0]) as i:
            lines = rows(0, i)
            with looping(b, 0, numbers[1]) as j:
                place = b.mul(b.add(b.mul(i, self.other_group // self.tile[1]), j), self._tile_bytes())
                self._chunk(lines, rows(1, j), b.offset("%scratch", place), feed, fresh, ends)

    def _tile_bytes(self) -> int:
        return self.tile[0] * self.tile[1] * LANES * self.bytes

    def _chunk(self, left: list[str], right: list[str], chains: str, feed: Feed, fresh: str, ends: Integer) -> None:
        """chain[a][c] += left[a][k…] · right[c][k…] over the chunk; what ends a block joins the sums."""
        b = self.b
        e = factors(b, self.dtype, self.pairs)
        places = [b.offset(chains, n * LANES * self.bytes) for n in range(len(left) * len(right))]
        begun = [b.value(f"select i1 {fresh}, {e.kind} {e.constant(0)}, {e.kind} {b.load(e.kind, place, self.bytes)}")
                 for place in places]

        def step(at: list[Integer], state: list[str], mask: str | None) -> list[str]:
            """LANES products of every pair of rows."""
            def read(line: str, which: int) -> str:
                place = b.offset(line, at[which])
                return self.writer._contiguous(place, self.dtype, LANES, mask) if mask else b.load(
                    e.kind, place, self.bytes)

            columns = [read(line, 1) for line in right]
            result = []
            for row, line in enumerate(left):
                value = read(line, 0)
                for column, other in enumerate(columns):
                    old = state[row * len(right) + column]
                    new = e.multiply_add(value, other, old)
                    chosen = b.value(f"select <{LANES} x i1> {mask}, {e.kind} {new}, {e.kind} {old}") if mask else new
                    result.append(chosen)
            return result

        state = feed(e, begun, step)
        for place, value in zip(places, state, strict=True):
            b.store(e.kind, value, place, self.bytes)
        if self.blocked:
            b.when(b.compare("ne", ends, 0), lambda: self._join(e, state, chains, b.compare("eq", ends, 1)))

    def _join(self, e: Arithmetic, state: list[str], chains: str, first: str) -> None:
        b = self.b
        sums = b.offset(chains, self._sums_bytes())
        for number, value in enumerate(state):
            place = b.offset(sums, number * LANES * self.bytes)
            total = e.add(b.load(e.kind, place, self.bytes), value)
            b.store(e.kind, b.value(f"select i1 {first}, {e.kind} {value}, {e.kind} {total}"), place, self.bytes)

    # The epilogue ------------------------------------------------------------------------------------------------
    def _epilogue(self, batch: list[Integer], ranges: Sequence[tuple[Integer, Integer]]) -> None:
        """Combines lanes pairwise and stores each result."""
        b, w = self.b, self.writer
        kernel = w.kernel
        e = Arithmetic(b, self.dtype, LANES)
        sums = b.offset("%scratch", self._sums_bytes() if self.blocked else 0)
        extents = [[w.size(kernel.axes[axis]) for axis in own] for own in self.own_axes]
        with looping(b, *ranges[0]) as row, looping(b, *ranges[1]) as column:
            axes: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
            axes |= dict(zip(self.batch_axes, batch, strict=True))
            axes |= dict(zip(self.own_axes[0], split(w, row, extents[0]), strict=True))
            axes |= dict(zip(self.own_axes[1], split(w, column, extents[1]), strict=True))
            i, a = self._within(row, ranges[0][0], self.tile[0])
            j, c = self._within(column, ranges[1][0], self.tile[1])
            tile = b.mul(b.add(b.mul(i, self.other_group // self.tile[1]), j), self._tile_bytes())
            place = b.add(tile, b.mul(b.add(b.mul(a, self.tile[1]), c), LANES * self.bytes))
            vector = b.load(e.kind, b.offset(sums, place), self.bytes)
            point = Point(axes, None, 1)
            point.accumulated = [folded(w, SUM, self.dtype, vector)]
            for store in kernel.stores:
                w.store(w.emit(store.expression, point), store.buffer, store.address, point)

    def _within(self, place: Integer, start: Integer, size: int) -> tuple[Integer, Integer]:
        """A row as the number of its tile and its place there."""
        relative = self.b.sub(place, start)
        return self.b.div(relative, size), self.b.rem(relative, size)


def evenly(count: int, most: int) -> int:
    """At most so many of a count at a time, as evenly as that goes."""
    return -(-count // -(-count // most)) if count else most
