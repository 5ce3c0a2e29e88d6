"""The gradient of a convolution's weights, tap by tap; lanes are channels of the operand that windows slide over.

A tap's results are a matrix product over all pixels whose window has it inside the operand, and no others: along a
line of pixels these are consecutive. What windows slide over is relaid with its channels innermost
(`compiler.operands`), so that strides are steps; the gradient of the convolution's result is broadcast from where it
lies.

An item has some rows, which are channels of that result, and vectors of lanes, and all taps of them, or a share where
channels are few. Its sums wait in scratch memory from block to block of pixels, which all taps read out of the caches.
"""

from __future__ import annotations

from functools import partial
from itertools import product as combinations
from math import prod

from torturous.codegen.builder import Integer, looping
from torturous.codegen.columns import SQUARE, Columns
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile, vectors_held
from torturous.codegen.operands import split
from torturous.codegen.runs import Border, borders_of, known
from torturous.codegen.side import Sided
from torturous.codegen.target import Target
from torturous.codegen.words import factors
from torturous.compiler.kernel import Store
from torturous.compiler.schedule import merged_results
from torturous.compiler.sizes import Size, product
from torturous.ir.contraction import BLOCK

SUM_BYTES = 3 << 16
"""Of an item's results, about: with a block of pixels they stay in the second cache."""
ENOUGH_ITEMS = 8
"""To share out, where there are as many tiles, or taps."""
FEWEST_TAPS = 4
"""Of an item that does not have all: each reads its pixels again."""
WORD = 8
CACHE_LINE = 64


class TapGradient(Sided):
    """Writes one kernel: items are (batch, some rows, some vectors of channels, some taps)."""

    def __init__(self, writer: KernelWriter) -> None:
        super().__init__(writer)
        kernel = writer.kernel
        address = self.lane.load.address
        innermost = next(axis for axis in self.axes.lane if address.factor(axis) == 1)
        self.channels = known(kernel.axes[innermost])
        """That lie side by side, pixel by pixel."""
        self.block_stride = known(product(self.lane.load.buffer.shape[1:]))
        blocks = innermost - 1 in self.axes.lane and address.factor(innermost - 1) == self.block_stride
        self.channel_axes = [innermost - 1, innermost] if blocks else [innermost]
        self.tap_axes = [axis for axis in self.axes.lane if axis not in self.channel_axes]
        self.taps = prod(known(kernel.axes[axis]) for axis in self.tap_axes)
        self.rows = known(self.row.own.count)
        self.summed = list(range(len(kernel.axes), len(kernel.axes) + len(kernel.reduced)))
        self.width = known(kernel.reduced[-1])
        """Of a line of pixels, the innermost of the axes that are summed."""
        borders = borders_of(kernel, self.lane.load)
        self.along = next((border for border in borders if border.position.factor(self.summed[-1]) != 0), None)
        self.borders = [border for border in borders if border is not self.along]
        total = known(product(kernel.reduced))
        self.blocks = max(1, -(-total // BLOCK))
        self.groups = known(product(kernel.axes[axis] for axis in self.channel_axes)) // LANES
        self.batches = known(product(kernel.axes[axis] for axis in self.axes.batch))
        self.tile, self.together = self._cut(writer.target)
        self.groups //= self.tile.vectors
        self.item_rows = self.tile.rows * self.together
        self.parts = -(-self.rows // self.item_rows)
        missing = -(-ENOUGH_ITEMS // max(1, self.batches * self.parts * self.groups))
        self.item_taps = -(-self.taps // max(1, min(missing, self.taps // FEWEST_TAPS)))
        self.shares = -(-self.taps // self.item_taps)
        self.announced = self._announced()

    def _cut(self, target: Target) -> tuple[Tile, int]:
        """The tile, and how many of them an item has: what computes least in vain, loads least, and leaves enough to
        share out."""
        available = vectors_held(target, self.bytes)
        best, least = (Tile(1, 1), 1), float("inf")
        for vectors in (4, 2, 1):
            if self.channels % (vectors * LANES):
                continue
            row_bytes = self.taps * vectors * LANES * self.bytes
            for rows in range(1, min(self.rows, max(1, (available - vectors) // vectors)) + 1):
                tile, fitting = Tile(rows, vectors), max(1, SUM_BYTES // (rows * row_bytes))
                for together in range(1, min(fitting, -(-self.rows // rows)) + 1):
                    if rows * together > self.rows:
                        break
                    parts = -(-self.rows // (rows * together))
                    items = parts * self.batches * (self.groups // vectors)
                    vain = parts * rows * together / self.rows
                    few = max(1.0, min(ENOUGH_ITEMS, self.groups * self.batches * self.rows) / items) ** 0.25
                    near = 1.0 if rows * together * row_bytes <= SUM_BYTES else 1.2
                    alone = 1 + 0.1 / together
                    cost = vain * few * near * alone * tile.slowness
                    if cost < least:
                        best, least = (tile, together), cost
        return best

    # Tables ------------------------------------------------------------------------------------------------------
    def _lines(self) -> tuple[list[int], list[int]]:
        """Stretches of lines of pixels, none of them in two blocks: where line begins in both operands, in bytes, the
        stretch's first pixel and past its last one, and the line's part of each border's place. And where blocks
        begin and end among them."""
        kernel = self.writer.kernel
        outer = self.summed[:-1]
        addresses = [side.load.address for side in (self.lane, self.row)]
        words: list[int] = []
        ends, count = [0], 0
        flat = 0
        for place in combinations(*(range(known(kernel.reduced[axis - len(kernel.axes)])) for axis in outer)):
            at = dict(zip(outer, place, strict=True))
            begins = [sum(known(address.factor(axis)) * index for axis, index in at.items()) * self.bytes
                      for address in addresses]
            parts = [known(border.position.constant)
                     + sum(known(border.position.factor(axis)) * index for axis, index in at.items())
                     for border in self.borders]
            start = 0
            while start < self.width:
                past = min(self.width, start + BLOCK - (flat + start) % BLOCK)
                words += [*begins, start, past, *parts]
                count += 1
                if (flat + past) % BLOCK == 0:
                    ends.append(count)
                start = past
            flat += self.width
        if ends[-1] != count:
            ends.append(count)
        return words, ends

    def _tap_words(self) -> list[int]:
        """Per tap: what it adds to where a line begins, in bytes, the pixels of a line that have it, and its part of
        each border's place."""
        kernel, address = self.writer.kernel, self.lane.load.address
        words: list[int] = []
        for place in combinations(*(range(known(kernel.axes[axis])) for axis in self.tap_axes)):
            at = dict(zip(self.tap_axes, place, strict=True))

            def part(border: Border, at: dict[int, int] = at) -> int:
                return sum(known(border.position.factor(axis)) * index for axis, index in at.items())

            words.append(sum(known(address.factor(axis)) * index for axis, index in at.items()) * self.bytes)
            first, past = 0, self.width
            if self.along is not None:
                step, start = known(self.along.position.factor(self.summed[-1])), part(self.along)
                start += known(self.along.position.constant)
                first = max(0, -(start // step))
                past = min(self.width, (known(self.along.extent) - 1 - start) // step + 1)
            words += [first, past, *map(part, self.borders)]
        return words

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        self.batch = [w.size(kernel.axes[axis]) for axis in self.axes.batch]
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), self.batches * self.parts * self.groups * self.shares)
        with looping(b, first, last) as item:
            *batch, part, group, share = split(w, item, [*self.batch, self.parts, self.groups, self.shares])
            tap = b.mul(share, self.item_taps)
            taps = (tap, b.minimum(b.add(tap, self.item_taps), self.taps)) if self.shares > 1 else (0, self.taps)
            # The last rows reach back over those before them; `own` is where they begin anew.
            own = b.mul(part, self.item_rows)
            row = b.minimum(own, self.rows - self.item_rows)
            self._blocks(batch, row, group, taps)
            self._epilogue(batch, own, row, group, taps)
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        cost = product(kernel.reduced) * (self.rows * self.taps * self.groups * self.tile.lanes)
        divided = [Divided(Size.of(count), 1, 1) for count in (self.parts, self.groups, self.shares)]
        return Work(batches, tuple(divided), Size.of(1) + cost)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs: the item's results, as many more as a square reads, and a square."""
        lines = self.item_rows * self.item_taps + LANES
        return Size.of((lines * self.tile.lanes + SQUARE) * self.bytes)

    def _line_bytes(self) -> int:
        """A row's results of a tap."""
        return self.tile.lanes * self.bytes

    def _blocks(self, batch: list[Integer], row: Integer, group: Integer, span: tuple[Integer, Integer]) -> None:
        """Block by block, tile by tile, tap by tap of those in the span."""
        b, w = self.b, self.writer
        lines, ends = self._lines()
        all_lines, all_ends, all_taps = b.constants(lines), b.constants(ends), b.constants(self._tap_words())
        within = self.channels // self.tile.lanes
        lanes = b.offset(self.lane.origin(batch), b.mul(b.div(group, within), self.block_stride * self.bytes))
        lanes = b.offset(lanes, b.mul(b.rem(group, within), self._line_bytes()))
        row_stride = b.mul(w.size(self.row.own.strides[0]) if self.row.own.strides else 0, self.bytes)
        rows = b.offset(self.row.origin(batch), b.mul(row, row_stride))
        lane_step, row_step = (
            known(side.load.address.factor(self.summed[-1])) * self.bytes for side in (self.lane, self.row))
        kernel = MicroKernel(b, factors(b, self.dtype, False), self.tile, lane_step, row_step, row_stride)
        with looping(b, 0, self.blocks) as block:
            line = b.offset(all_ends, b.mul(block, WORD))
            block_lines = b.load("i64", line, WORD), b.load("i64", b.offset(line, WORD), WORD)
            with looping(b, 0, self.together) as number, looping(b, *span) as tap:
                entry = b.offset(all_taps, b.mul(tap, (3 + len(self.borders)) * WORD))
                there = b.offset(lanes, b.load("i64", entry, WORD))
                own_rows = b.offset(rows, b.mul(number, b.mul(row_stride, self.tile.rows)))
                if self.announced is not None:
                    first = b.add(row, b.mul(number, self.tile.rows))
                    last = b.compare("eq", block, self.blocks - 1)
                    b.when(last, partial(self._announce, batch, first, b.mul(group, self.tile.lanes), tap))
                state = self._tap(kernel, all_lines, block_lines, entry, (there, own_rows))
                place = b.add(b.mul(number, self.tile.rows * self.item_taps), b.sub(tap, span[0]))
                fresh = True if self.blocks == 1 else b.compare("eq", block, 0)
                kernel.join(state, b.offset("%scratch", b.mul(place, self._line_bytes())),
                            self.item_taps * self._line_bytes(), fresh)

    def _announced(self) -> Store | None:
        """What is stored side by side for all taps of an item's channels, if so: while these are computed, memory is
        idle."""
        w = self.writer
        (store, *more) = w.kernel.stores
        taps = merged_results(w.kernel, self.tap_axes)
        if more or len(taps) != 1 or len(self.axes.row) != 1 or store.buffer in w.streamed:
            return None
        step = store.address.factor(self.channel_axes[-1]).constant
        return store if step == self.taps and store.address.factor(taps[0][-1]) == 1 else None

    def _announce(self, batch: list[Integer], row: Integer, channel: Integer, tap: Integer) -> None:
        """Has a tap's share of the lines brought near that a tile's results will be stored to."""
        b, w, store = self.b, self.writer, self.announced
        assert store is not None
        axes = self._fixed(batch) | {self.axes.row[0]: row}
        extents = [w.size(w.kernel.axes[axis]) for axis in self.channel_axes]
        axes |= dict(zip(self.channel_axes, split(w, channel, extents), strict=True))
        base, _, _ = w.affine(store.address, Point(axes, None, 1))
        size = store.buffer.dtype.itemsize
        share = self.tile.lanes * size
        start = b.offset(w.pointer(store.buffer), b.add(b.mul(base, size), b.mul(tap, share)))
        stride = b.mul(w.size(store.address.factor(self.axes.row[0])), size)
        for number in range(self.tile.rows):
            for line in range(0, share, CACHE_LINE):
                b.prefetch(b.offset(start, b.add(b.mul(stride, number), line)), write=True, level=2)

    def _fixed(self, batch: list[Integer]) -> dict[int, Integer]:
        kernel = self.writer.kernel
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        return fixed | dict(zip(self.axes.batch, batch, strict=True))

    def _tap(self, kernel: MicroKernel, lines: str, span: tuple[Integer, Integer], tap: str, memory: tuple[str, str]
             ) -> list[str]:
        """A block's chain of a tap: the pixels of each line that have it."""
        b = self.b
        low, high = (b.load("i64", b.offset(tap, n * WORD), WORD) for n in (1, 2))
        parts = [b.load("i64", b.offset(tap, (3 + n) * WORD), WORD) for n in range(len(self.borders))]
        loop = b.begin_loop(*span, 1, [(kernel.arithmetic.kind, zero) for zero in kernel.zeros()])
        entry = b.offset(lines, b.mul(loop.index, (4 + len(self.borders)) * WORD))
        lane_place, row_place, first, past = (b.load("i64", b.offset(entry, n * WORD), WORD) for n in range(4))
        start: Integer = first
        count: Integer = b.sub(past, first)
        if self.along is not None:
            start = b.maximum(first, low)
            count = b.sub(b.minimum(past, high), start)
        for number, (border, part) in enumerate(zip(self.borders, parts, strict=True)):
            position = b.add(b.load("i64", b.offset(entry, (4 + number) * WORD), WORD), part)
            count = b.choose(b.compare("ult", position, self.writer.size(border.extent)), count, 0)
        lanes = b.offset(b.offset(memory[0], lane_place), b.mul(start, kernel.lane_step))
        rows = b.offset(b.offset(memory[1], row_place), b.mul(start, kernel.row_step))
        return b.end_loop(loop, kernel.run(lanes, rows, count, loop.carried, 1))

    def _epilogue(self, batch: list[Integer], own: Integer, row: Integer, group: Integer, taps: tuple[Integer, Integer]
                  ) -> None:
        b, kernel, fixed = self.b, self.writer.kernel, self._fixed(batch)
        columns = Columns(self.writer, self.dtype, self.tap_axes, self.channel_axes)
        row_extents = [self.writer.size(kernel.axes[axis]) for axis in self.axes.row]
        square = b.offset("%scratch", (self.item_rows * self.item_taps + LANES) * self._line_bytes())
        with looping(b, b.sub(own, row), self.item_rows) as number:
            fixed |= dict(zip(self.axes.row, split(self.writer, b.add(row, number), row_extents), strict=True))
            results = b.offset("%scratch", b.mul(number, self.item_taps * self._line_bytes()))
            columns.write(fixed, taps, b.mul(group, self.tile.lanes), self.tile.vectors, results, square)
