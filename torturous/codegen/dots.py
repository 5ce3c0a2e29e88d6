"""The contraction whose lanes are products: the gradient of convolution weights.

Such a sum runs over samples and pixels, long in both operands, while channels and taps are few. Its order (see
`ir.contraction`, LANEWISE) puts product k into lane k mod LANES, so both operands are packed as rows of products
and the register tile is rows against rows, with no broadcast and no wasted lane. Lanes are combined at the end.
"""

from __future__ import annotations

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.contraction import loaded, split
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Work, folded
from torturous.codegen.panels import RowPanels, Side, Tile
from torturous.compiler.sizes import Size, product
from torturous.ir.contraction import BLOCK
from torturous.ir.reduction import SUM

ITEMS = 8
"""Into how many items the longer side is divided."""


class Dots:
    """Writes one kernel: items are groups of rows of the longer side, each against all rows of the other."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        loads = [loaded(side) for side in kernel.product]
        axes: list[list[int]] = [[], []]
        self.batch_axes: list[int] = []
        for axis in range(len(kernel.axes)):
            present = [load.address.factor(axis) != 0 for load in loads]
            if present[0] == present[1]:
                self.batch_axes.append(axis)
            else:
                axes[0 if present[0] else 1].append(axis)
        counts = [product(kernel.axes[axis] for axis in own) for own in axes]
        long = 0 if (counts[0].constant or 0) >= (counts[1].constant or 0) else 1
        self.own_axes = [axes[long], axes[1 - long]]
        self.counts = [counts[long], counts[1 - long]]
        first = len(kernel.axes)
        reduced = list(range(first, first + len(kernel.reduced)))
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.sides = [
            Side(writer, loads[which], self.dtype, self.batch_axes, own, reduced)
            for which, own in zip((long, 1 - long), self.own_axes, strict=True)
        ]
        self.tile = self._tile()
        self.panels = [RowPanels(side, Tile(rows, 1)) for side, rows in zip(self.sides, self.tile, strict=True)]
        tiles = -(-(self.counts[0].constant or 64) // self.tile[0])
        self.group = -(-tiles // ITEMS) * self.tile[0]
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.batch_axes]
        self.total = writer.size(product(kernel.reduced))

    def _tile(self) -> tuple[int, int]:
        """Rows of each side whose products the registers hold."""
        target = self.writer.target
        registers = max(1, LANES * max(self.bytes, 4) // (target.lanes * 4))
        most = 5 if target.registers // registers >= 31 else 3 if target.registers // registers >= 14 else 1

        def rows(count: Size) -> int:
            known = count.constant
            return most if known is None else max(1, -(-known // -(-known // most))) if known else 1

        return rows(self.counts[0]), rows(self.counts[1])

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs: both sides' panels of a block, and the vectors of accumulators."""
        other = self.counts[1] + self.tile[1]
        mine = Size.of(self.group + self.tile[0])
        return ((mine + other) * RowPanels.stride + mine * other * LANES) * self.bytes

    def write(self) -> Work:
        b, w = self.b, self.writer
        mine, other = (w.size(count) for count in self.counts)
        groups = b.ceil_div(mine, self.group)
        batch_count: Integer = 1
        for extent in self.batch:
            batch_count = b.mul(batch_count, extent)
        items = b.mul(batch_count, groups)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        other_tiles = b.ceil_div(other, self.tile[1])
        other_place = b.offset("%scratch", (self.group + self.tile[0]) * RowPanels.stride * self.bytes)
        other_rows = b.mul(other_tiles, self.tile[1])
        sums = b.offset(other_place, b.mul(other_rows, RowPanels.stride * self.bytes))
        with looping(b, first, last) as item:
            batch = split(w, b.div(item, groups), self.batch)
            start = b.mul(b.rem(item, groups), self.group)
            stop = b.minimum(b.add(start, self.group), mine)
            tiles = b.ceil_div(b.sub(stop, start), self.tile[0])
            with looping(b, 0, b.maximum(self.total, 1), BLOCK) as k0:
                count = b.minimum(b.sub(self.total, k0), BLOCK)
                self._pack(0, batch, (start, stop), k0, count, "%scratch")
                self._pack(1, batch, (0, other), k0, count, other_place)
                with looping(b, 0, tiles) as i, looping(b, 0, other_tiles) as j:
                    place = b.mul(b.add(b.mul(i, other_tiles), j), self.tile[0] * self.tile[1] * LANES * self.bytes)
                    self._block(i, j, other_place, b.offset(sums, place), count, k0)
            self._epilogue(batch, start, stop, other, other_tiles, sums)
        kernel = w.kernel
        cost = product(kernel.reduced) * self.group * self.counts[1]
        batches = product(kernel.axes[axis] for axis in self.batch_axes)
        return Work(batches, self.counts[0], Size.of(1) + cost)

    def _pack(self, which: int, batch: list[Integer], rows: tuple[Integer, Integer], k0: Integer, count: Integer,
              place: str) -> None:
        """A side's rows of a block; lanes past the last product are zero."""
        b = self.b
        e = Arithmetic(b, self.dtype, LANES)
        tail = b.value(f"and i64 {count}, {-LANES}") if not isinstance(count, int) else count - count % LANES
        with looping(b, 0, b.sub(rows[1], rows[0])) as row:
            line = b.offset(place, b.mul(row, RowPanels.stride * self.bytes))
            b.store(e.kind, e.constant(0), b.offset(line, b.mul(tail, self.bytes)), self.bytes)
        self.panels[which].pack(batch, rows, k0, count, place)

    def _block(self, i: Integer, j: Integer, other_place: str, out: str, count: Integer, k0: Integer) -> None:
        """acc[a][c] += left[a][k…] · right[c][k…], LANES products at a time, over one block."""
        b = self.b
        e = Arithmetic(b, self.dtype, LANES)
        line = RowPanels.stride * self.bytes
        left = b.offset("%scratch", b.mul(i, self.tile[0] * line))
        right = b.offset(other_place, b.mul(j, self.tile[1] * line))
        names = self.tile[0] * self.tile[1]
        zero = e.constant(0)
        loop = b.begin_loop(0, count, LANES, [("ptr", left), ("ptr", right), *[(e.kind, zero)] * names])
        left_at, right_at, *state = loop.carried
        columns = [b.load(e.kind, b.offset(right_at, c * line), self.bytes) for c in range(self.tile[1])]
        new = []
        for row in range(self.tile[0]):
            value = b.load(e.kind, b.offset(left_at, row * line), self.bytes)
            for c in range(self.tile[1]):
                new.append(e.multiply_add(value, columns[c], state[row * self.tile[1] + c]))
        step = LANES * self.bytes
        chain = b.end_loop(loop, [b.offset(left_at, step), b.offset(right_at, step), *new])[2:]
        fresh = b.compare("eq", k0, 0)
        for number, value in enumerate(chain):
            place = b.offset(out, number * LANES * self.bytes)
            old = b.load(e.kind, place, self.bytes)
            total = b.value(f"select i1 {fresh}, {e.kind} {value}, {e.kind} {e.add(old, value)}")
            b.store(e.kind, total, place, self.bytes)

    def _epilogue(self, batch: list[Integer], start: Integer, stop: Integer, other: Integer, other_tiles: Integer,
                  sums: str) -> None:
        """Combines lanes pairwise and stores each result."""
        b, w = self.b, self.writer
        kernel = w.kernel
        e = Arithmetic(b, self.dtype, LANES)
        extents = [[w.size(kernel.axes[axis]) for axis in own] for own in self.own_axes]
        with looping(b, start, stop) as row, looping(b, 0, other) as column:
            axes: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
            axes |= dict(zip(self.batch_axes, batch, strict=True))
            axes |= dict(zip(self.own_axes[0], split(w, row, extents[0]), strict=True))
            axes |= dict(zip(self.own_axes[1], split(w, column, extents[1]), strict=True))
            relative = b.sub(row, start)
            i, a = b.div(relative, self.tile[0]), b.rem(relative, self.tile[0])
            j, c = b.div(column, self.tile[1]), b.rem(column, self.tile[1])
            tile = b.mul(b.add(b.mul(i, other_tiles), j), self.tile[0] * self.tile[1])
            place = b.add(tile, b.add(b.mul(a, self.tile[1]), c))
            vector = b.load(e.kind, b.offset(sums, b.mul(place, LANES * self.bytes)), self.bytes)
            point = Point(axes, None, 1)
            point.accumulated = [folded(w, SUM, self.dtype, vector)]
            for store in kernel.stores:
                w.store(w.emit(store.expression, point), store.buffer, store.address, point)
