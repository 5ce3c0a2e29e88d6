"""The contraction whose lanes are samples, read where they lie: convolutions with few channels.

The samples of a pixel are consecutive in memory, and so are the products of a row (`compiler.layout` has seen to
both), so nothing is packed and nothing prepared: a convolution is a run of products per tap of its window, where taps
are listed in constant data of the kernel. Where a convolution reaches over the border, a tap exists for a pixel or
it does not, the same for all lanes and all channels: each pixel has its own list of taps that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as combinations
from math import prod

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile
from torturous.codegen.operands import loaded, sides, split
from torturous.codegen.panels import Side
from torturous.compiler.kernel import Load
from torturous.compiler.sizes import Affine, Size, product
from torturous.ir.contraction import BLOCK

GROUP = 512
"""Lanes of an item at most."""
ENOUGH_ITEMS = 8
"""Below this many items the rows are divided among items too."""
WORD = 8


@dataclass(frozen=True)
class Run:
    """Products that both operands step evenly through, none of them in two blocks."""

    first: int
    """Its first product."""
    length: int
    lanes: int
    """Where the first product's lanes lie, in bytes from those of product 0."""
    positions: tuple[int, ...]
    """The run's part of each guard's position."""


class DirectContraction:
    """Writes one kernel: items are (batch, pixel or a part of its samples, group of rows)."""

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
        self.samples = _known(kernel.axes[-1])
        self.lanes = _known(self.lane.own.count)
        self.rows = _known(self.row.own.count)
        self.products = _known(product(kernel.reduced))
        assert self.lane.own.strides[-1] == 1 and self.samples % LANES == 0, "lanes are whole vectors of samples"
        assert self.row.reduced.strides in ([], [Size.of(1)]), "the products of a row are consecutive"
        assert len(self.row.own.strides) <= 1, "rows step evenly"
        self.guards = self.lane.load.guards
        self.runs, self.lane_step = _runs(kernel.reduced, self.lane.load, first, self.bytes)
        self.tile = self._tile()
        self.group = next(count for count in range(min(self.samples, GROUP), 0, -self.tile.lanes)
                          if self.samples % count == 0)
        tiles = -(-self.rows // self.tile.rows)
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        enough = _known(batches) * (self.lanes // self.group) >= ENOUGH_ITEMS
        self.row_groups = 1 if enough else tiles
        self.rows_per_item = self.rows if enough else self.tile.rows
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]

    def _tile(self) -> Tile:
        """As many accumulators as the registers hold: few rows computed twice, few loads per multiply-add."""
        target = self.writer.target
        registers = max(1, LANES * max(self.bytes, 4) // (target.lanes * 4))
        available = max(target.registers - 2, 4) // registers
        best = Tile(1, 1)
        for vectors in (1, 2, 4):
            if self.samples % (vectors * LANES):
                continue
            most = max(1, (available - vectors) // vectors)
            tiles = -(-self.rows // most)
            rows = -(-self.rows // tiles)
            if rows + vectors > 1 and rows * vectors / (rows + vectors) > best.rows * best.vectors / (
                    best.rows + best.vectors):
                best = Tile(rows, vectors)
        return best

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        groups = self.lanes // self.group
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(batch_count, groups * self.row_groups)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        table = self._table()
        with looping(b, first, last) as item:
            # Neighbouring items share their pixel.
            row_own = b.mul(b.rem(item, self.row_groups), self.rows_per_item)
            row_first = b.minimum(row_own, self.rows - self.rows_per_item)
            rest = b.div(item, self.row_groups)
            lane_first = b.mul(b.rem(rest, groups), self.group)
            batch = split(w, b.div(rest, groups), self.batch)
            runs, ends = self._existing(table, lane_first)
            self._tiles(batch, lane_first, row_first, runs, ends)
            self._epilogue(batch, lane_first, row_first, b.sub(row_own, row_first))
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        cost = product(kernel.reduced) * self.lanes * self.rows
        divided = Divided(Size.of(self.lanes), self.group, self.group), Divided(Size.of(self.row_groups), 1, 1)
        return Work(batches, divided, Size.of(1) + cost)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs: the item's results, and the list of runs that exist for it."""
        return Size.of(self._list_place() + (len(self.runs) + self.blocks) * self._entry_bytes())

    @property
    def blocks(self) -> int:
        return max(1, -(-self.products // BLOCK))

    def _list_place(self) -> int:
        return -(-self.rows_per_item * self.group * self.bytes // 64) * 64

    # Runs --------------------------------------------------------------------------------------------------------
    def _entry_bytes(self) -> int:
        return (3 + len(self.guards)) * WORD

    def _table(self) -> str:
        """Runs as constant data. An entry: the lanes' place, the row's, the length, parts of the guards' positions."""
        words: list[int] = []
        for run in self.runs:
            words += [run.lanes, run.first * self.bytes, run.length, *run.positions]
        return self.b.constants(words)

    def _block_ends(self) -> list[int]:
        """How many of the runs lie in this block or before it, per block."""
        return [sum(run.first < (block + 1) * BLOCK for run in self.runs) for block in range(self.blocks)]

    def _existing(self, table: str, lane_first: Integer) -> tuple[str, list[Integer]]:
        """The runs that exist for an item's pixel, and where each block ends among them."""
        if not self.guards:
            return table, list(self._block_ends())
        b, w, size = self.b, self.writer, self._entry_bytes()
        listed = b.offset("%scratch", self._list_place())
        bases = [self.lane.position(guard.position, lane_first) for guard in self.guards]
        extents = [w.size(guard.extent) for guard in self.guards]
        ends: list[Integer] = []
        start, count = 0, 0
        have: Integer = count
        for stop in self._block_ends():
            loop = b.begin_loop(start, stop, 1, [("i64", have)])
            entry = b.offset(table, b.mul(loop.index, size))
            exists = None
            for number, (base, extent) in enumerate(zip(bases, extents, strict=True)):
                part = b.load("i64", b.offset(entry, (3 + number) * WORD), WORD)
                test = b.compare("ult", b.add(base, part), extent)
                exists = test if exists is None else b.value(f"and i1 {exists}, {test}")
            target = b.offset(listed, b.mul(loop.carried[0], size))
            for word in range(3):
                b.store("i64", b.load("i64", b.offset(entry, word * WORD), WORD), b.offset(target, word * WORD), WORD)
            have = b.end_loop(loop, [b.add(loop.carried[0], b.value(f"zext i1 {exists} to i64"))])[0]
            ends.append(have)
            start = stop
        return listed, ends

    # Products ----------------------------------------------------------------------------------------------------
    def _tiles(self, batch: list[Integer], lane_first: Integer, row_first: Integer, runs: str, ends: list[Integer]
               ) -> None:
        """The item's results, tile by tile. The last tile reaches back over rows of the one before it."""
        b, w, tile = self.b, self.writer, self.tile
        e = Arithmetic(b, self.dtype, LANES)
        row_stride = b.mul(w.size(self.row.own.strides[0]) if self.row.own.strides else 0, self.bytes)
        kernel = MicroKernel(b, e, tile, self.lane_step, self.bytes, row_stride)
        lanes = b.offset(self.lane.origin(batch), b.mul(self.lane.place(self.lane.own, lane_first), self.bytes))
        rows = b.offset(self.row.origin(batch), b.mul(row_first, row_stride))
        with looping(b, 0, -(-self.rows_per_item // tile.rows)) as number:
            row = b.minimum(b.mul(number, tile.rows), self.rows_per_item - tile.rows)
            row_place = b.offset(rows, b.mul(row, row_stride))
            with looping(b, 0, self.group, tile.lanes) as lane:
                lane_place = b.offset(lanes, b.mul(lane, self.bytes))
                out = b.offset("%scratch", b.mul(b.add(b.mul(row, self.group), lane), self.bytes))
                first: Integer = 0
                for block, last in enumerate(ends):
                    state = self._chain(kernel, lane_place, row_place, runs, first, last)
                    kernel.join(state, out, self.group * self.bytes, block == 0)
                    first = last

    def _chain(self, kernel: MicroKernel, lanes: str, rows: str, runs: str, first: Integer, last: Integer) -> list[str]:
        """A block's chain over its runs that exist."""
        b = self.b
        lengths = {run.length for run in self.runs}
        unroll = min(kernel.unroll(length) for length in lengths)
        if any(length % unroll for length in lengths):
            unroll = 1
        loop = b.begin_loop(first, last, 1, [(kernel.arithmetic.kind, zero) for zero in kernel.zeros()])
        entry = b.offset(runs, b.mul(loop.index, self._entry_bytes()))
        lane_place, row_place = (b.load("i64", b.offset(entry, word * WORD), WORD) for word in range(2))
        length: Integer = b.load("i64", b.offset(entry, 2 * WORD), WORD) if len(lengths) > 1 else self.runs[0].length
        state = kernel.run(b.offset(lanes, lane_place), b.offset(rows, row_place), length, loop.carried, unroll)
        return b.end_loop(loop, state)

    # The epilogue ------------------------------------------------------------------------------------------------
    def _epilogue(self, batch: list[Integer], lane_first: Integer, row_first: Integer, skipped: Integer) -> None:
        """Reads the item's results, whole vectors of one pixel's samples, and stores what the kernel makes of them."""
        b, w = self.b, self.writer
        kernel = w.kernel
        e = Arithmetic(b, self.dtype, LANES)
        inner = self.axes.lane[-1]
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        fixed |= dict(zip(self.axes.batch, batch, strict=True))
        lane_extents = [w.size(kernel.axes[axis]) for axis in self.axes.lane]
        pixel = split(w, lane_first, lane_extents)
        fixed |= dict(zip(self.axes.lane, pixel, strict=True))
        row_extents = [w.size(kernel.axes[axis]) for axis in self.axes.row]
        with looping(b, skipped, self.rows_per_item) as row:
            fixed |= dict(zip(self.axes.row, split(w, b.add(row_first, row), row_extents), strict=True))
            line = b.offset("%scratch", b.mul(row, self.group * self.bytes))
            with looping(b, 0, self.group, self.tile.lanes) as lane:
                for vector in range(self.tile.vectors):
                    there = b.add(lane, vector * LANES)
                    point = Point(fixed | {inner: b.add(pixel[-1], there)}, inner, LANES)
                    point.accumulated = [b.load(e.kind, b.offset(line, b.mul(there, self.bytes)), self.bytes)]
                    for store in kernel.stores:
                        w.store(w.emit(store.expression, point), store.buffer, store.address, point)


def _known(size: Size) -> int:
    assert size.constant is not None, "contractions are read in place where every size is known"
    return size.constant


def _runs(reduced: list[Size], lane: Load, first: int, item: int) -> tuple[list[Run], int]:
    """All products as runs, and the lanes' step along a run in bytes.

    A run is the innermost reduced loops that the lanes' address merges and no guard looks at.
    """
    axes = [axis for axis, size in enumerate(reduced) if size != 1]
    sizes = [_known(reduced[axis]) for axis in axes]
    factors = [_known(lane.address.factor(first + axis)) for axis in axes]
    positions = [guard.position for guard in lane.guards]
    merged = len(axes)
    while merged and not _watched(positions, first + axes[merged - 1]) and (
            merged == len(axes) or factors[merged - 1] == factors[merged] * sizes[merged]):
        merged -= 1
    length, step = prod(sizes[merged:]), factors[-1] if factors else 0
    runs = []
    for number, taps in enumerate(combinations(*map(range, sizes[:merged]))):
        place = sum(tap * factor for tap, factor in zip(taps, factors[:merged], strict=True))
        parts = tuple(
            sum(tap * _known(position.factor(first + axis)) for axis, tap in zip(axes[:merged], taps, strict=True))
            for position in positions
        )
        start, stop = number * length, (number + 1) * length
        while start < stop:
            end = min(stop, (start // BLOCK + 1) * BLOCK)
            within = start - number * length
            runs.append(Run(start, end - start, (place + within * step) * item, parts))
            start = end
    return runs, step * item


def _watched(positions: list[Affine], axis: int) -> bool:
    return any(position.factor(axis) != 0 for position in positions)
