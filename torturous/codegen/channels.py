"""Convolutions whose lanes are channels of the result.

Pixels are the broadcast side then, so it does not matter how far they lie apart: windows of any stride and dilation,
and the gradients of their inputs, read the operand as it lies. The weights are relaid such that a vector of channels
follows another product by product (`compiler.operands`).

A tile's rows are pixels of one line. Products outside the operand, or between its elements, are left out: along the
line each tap exists for some consecutive rows of the tile, which is known when generating, and each such choice of rows
has a loop of its own; along the other axes a tap exists for a line or it does not. Small volumes with large windows
have half of their products there, and more.

An item takes many lines, and all of them before it goes on to the next block of products, so that a block's weights
are read out of the caches. Its results lie pixel by pixel in scratch memory until they are turned and stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from torturous.codegen.builder import Integer, looping
from torturous.codegen.columns import SQUARE, Columns
from torturous.codegen.expressions import LANES, Argument, KernelWriter
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile, vectors_held
from torturous.codegen.operands import split
from torturous.codegen.runs import Border, Run, borders_of, known, runs_of
from torturous.codegen.side import Sided
from torturous.codegen.target import Target
from torturous.codegen.words import WORDS, factors
from torturous.compiler.sizes import ONE, Size, product
from torturous.ir.contraction import BLOCK

ITEM_RESULTS = 1 << 15
"""Of an item, about: with a block's weights they stay in the second cache."""
ENOUGH_ITEMS = 8
"""To share out, where there are as many lines or vectors of channels."""
WORD = 8
Reach = tuple[int, int]
"""The rows of a tile for which a tap exists: from the first to past the last."""


@dataclass(frozen=True)
class Stretch:
    """Tiles of a line that differ in nothing but their place: how many rows, and which of them each run is for."""

    rows: int
    reaches: tuple[Reach | None, ...]

    @property
    def variants(self) -> list[Reach]:
        """The different choices of rows."""
        return sorted({reach for reach in self.reaches if reach is not None})


class ChannelContraction(Sided):
    """Writes one kernel: items are (batch, some lines of pixels, some vectors of channels)."""

    def __init__(self, writer: KernelWriter) -> None:
        super().__init__(writer)
        kernel = writer.kernel
        self.products = known(product(kernel.reduced))
        self.block = WORDS if kernel.words else BLOCK
        self.blocks = max(1, -(-self.products // self.block))
        self.channels = known(kernel.axes[self.axes.lane[-1]])
        """That lie side by side, product by product."""
        *others, self.line_axis = self.axes.row
        self.width = known(kernel.axes[self.line_axis])
        self.lines = known(product(kernel.axes[axis] for axis in others))
        self.borders = borders_of(kernel, self.row.load)
        self.along = next((n for n, border in enumerate(self.borders) if self._lies_along(border)), None)
        """Which border the line runs into."""
        self.runs, self.row_step = runs_of(
            kernel.reduced, self.row.load, self.borders, len(kernel.axes), self.bytes, self.block, ONE)
        self.vectors, rows = self._cut(writer.target)
        self.tiles = self._tiles(rows)
        self.groups = known(product(kernel.axes[axis] for axis in self.axes.lane)) // (LANES * self.vectors)
        self.batch = [writer.size(kernel.axes[axis]) for axis in self.axes.batch]
        batches = known(product(kernel.axes[axis] for axis in self.axes.batch))
        most = max(1, ITEM_RESULTS // (self.width * self.lane_width))
        while self.groups * batches * -(-self.lines // most) < ENOUGH_ITEMS and most > 1 and (
                most * self.width > 4 * LANES):
            most = -(-most // 2)
        self.item_lines = -(-self.lines // -(-self.lines // most))
        self.parts = -(-self.lines // self.item_lines)

    @property
    def lane_width(self) -> int:
        """Channels that an item computes."""
        return self.vectors * LANES

    def _lies_along(self, border: Border) -> bool:
        return border.position.factor(self.line_axis) != 0

    # Tiles -------------------------------------------------------------------------------------------------------
    def _pace(self) -> tuple[int, int]:
        """How far rows of a tile lie apart along the line, so that they have their taps in common, and along the
        operand, in its elements."""
        factor = known(self.row.load.address.factor(self.line_axis))
        if self.along is None or self.borders[self.along].divisor == 1:
            return 1, factor
        border = self.borders[self.along]
        return border.divisor, known(border.stride)

    def _cut(self, target: Target) -> tuple[int, int]:
        """Vectors and rows of a tile: what loads least, and has chains enough."""
        available = vectors_held(target, self.bytes)
        pace, _ = self._pace()
        count = -(-self.width // pace)
        best, least = (1, 1), float("inf")
        for vectors in (4, 2, 1):
            if self.channels % (vectors * LANES):
                continue
            most = max(1, (available - vectors) // vectors)
            rows = -(-count // -(-count // most))
            cost = Tile(rows, vectors).slowness
            if cost < least:
                best, least = (vectors, rows), cost
        return best

    def _tiles(self, rows: int) -> dict[Stretch, list[tuple[int, int]]]:
        """All tiles of a line: per kind, where each begins along the line, and where in the operand, in elements."""
        pace, _ = self._pace()
        tiles: dict[Stretch, list[tuple[int, int]]] = {}
        for phase in range(min(pace, self.width)):
            count = -(-(self.width - phase) // pace)
            parts = -(-count // rows)
            for number in range(parts):  # As even as they go: a pixel in two tiles would take in its products twice.
                start, past = count * number // parts, count * (number + 1) // parts
                first = phase + pace * start
                stretch = Stretch(past - start, tuple(self._reach(run, first, past - start) for run in self.runs))
                tiles.setdefault(stretch, []).append((first, self._start(first)))
        return tiles

    def _place(self, first: int) -> tuple[int, int]:
        """A pixel's part of a place along the line's border: the quotient, and the rest."""
        assert self.along is not None
        border = self.borders[self.along]
        return divmod(known(border.position.constant) + known(border.position.factor(self.line_axis)) * first,
                      border.divisor)

    def _start(self, first: int) -> int:
        """What a pixel's place along the line adds to the operand's address."""
        start = known(self.row.load.address.factor(self.line_axis)) * first
        return start if self.along is None else start + self._place(first)[0] * known(self.borders[self.along].stride)

    def _reach(self, run: Run, first: int, rows: int) -> Reach | None:
        """The rows of a tile that have a run's tap."""
        if self.along is None:
            return 0, rows
        border = self.borders[self.along]
        at = sum(before.words for before in self.borders[:self.along])
        part = run.parts[at:at + border.words]
        inside = []
        for row in range(rows):
            base, rest = self._place(first + row * self._pace()[0])
            if rest == (part[1] if border.divisor > 1 else 0) and 0 <= base + part[0] < known(border.extent):
                inside.append(row)
        return (inside[0], inside[-1] + 1) if inside else None

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        batches = product(kernel.axes[axis] for axis in self.axes.batch)
        items = known(batches) * self.parts * self.groups
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        with looping(b, first, last) as item:
            *batch, part, group = split(w, item, [*self.batch, self.parts, self.groups])
            start = b.mul(part, self.item_lines)
            lines = start, b.minimum(b.add(start, self.item_lines), self.lines)
            self._blocks(batch, lines, group)
            self._epilogue(batch, lines, group)
        pixels = product(kernel.axes[axis] for axis in self.axes.row)
        cost = product(kernel.reduced) * pixels * (self.groups * self.lane_width)
        divided = [Divided(Size.of(count), 1, 1) for count in (self.parts, self.groups)]
        return Work(batches, tuple(divided), Size.of(1) + cost)

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs: the item's results, as many more as a square reads, and a square."""
        pixels = self.item_lines * self.width + LANES
        return Size.of((pixels * self.lane_width + SQUARE) * self.bytes)

    def _pixel_bytes(self) -> int:
        """A pixel of an item's results."""
        return self.lane_width * self.bytes

    # Products ----------------------------------------------------------------------------------------------------
    def _blocks(self, batch: list[Integer], lines: tuple[Integer, Integer], group: Integer) -> None:
        """Block by block, line by line, tile by tile."""
        b, w = self.b, self.writer
        pixels, weights = self.row.origin(batch), self.lane.origin(batch)
        within = self.channels // self.lane_width
        weights = b.offset(weights, b.mul(b.div(group, within), self.products * self.channels * self.bytes))
        weights = b.offset(weights, b.mul(b.rem(group, within), self._pixel_bytes()))
        with looping(b, 0, self.blocks) as block, looping(b, *lines) as line:
            flat = b.mul(line, self.width)
            place = self.row.place(self.row.own, flat)
            bases: list[tuple[Integer, Integer]] = []
            for number, border in enumerate(self.borders):
                if number == self.along:
                    bases.append((0, 0))
                    continue
                position = self.row.position(border.position, flat)
                base, rest = b.div(position, border.divisor), b.rem(position, border.divisor)
                bases.append((base, rest))
                place = b.add(place, b.mul(base, w.size(border.stride)))
            here = b.offset(pixels, b.mul(place, self.bytes))
            out = b.offset("%scratch", b.mul(b.sub(line, lines[0]), self.width * self._pixel_bytes()))
            for stretch, places in self.tiles.items():
                self._stretch(stretch, places, block, bases, (weights, here, out))

    def _stretch(self, stretch: Stretch, places: list[tuple[int, int]], block: Integer,
                 bases: list[tuple[Integer, Integer]], memory: tuple[str, str, str]) -> None:
        """A block's products of all tiles of one kind in a line."""
        b = self.b
        weights, here, out = memory
        present = [n for n, reach in enumerate(stretch.reaches) if reach is not None]
        words: list[int] = []
        for number in present:
            run, reach = self.runs[number], stretch.reaches[number]
            assert reach is not None
            words += [run.place, run.first * self.channels * self.bytes, run.length, stretch.variants.index(reach),
                      *run.parts]
        runs = b.constants(words or [0])
        ends = b.constants([*(sum(self.runs[n].first < number * self.block for n in present)
                              for number in range(self.blocks)), len(present)])
        line = b.offset(ends, b.mul(block, WORD))
        first, last = (b.load("i64", b.offset(line, word), WORD) for word in (0, WORD))
        table = b.constants([word for start, offset in places
                             for word in (start * self._pixel_bytes(), offset * self.bytes)])
        pace, step = self._pace()
        e = factors(b, self.dtype, self.writer.kernel.words)
        tile = Tile(stretch.rows, self.vectors)
        kernel = MicroKernel(b, e, tile, self.channels * self.bytes, self.row_step, step * self.bytes)
        with looping(b, 0, len(places)) as tile_number:
            entry = b.offset(table, b.mul(tile_number, 2 * WORD))
            target, offset = (b.load("i64", b.offset(entry, word), WORD) for word in (0, WORD))
            state = kernel.zeros()
            if present:
                loop = b.begin_loop(first, last, 1, [(e.kind, zero) for zero in state])
                entry = b.offset(runs, b.mul(loop.index, (4 + self._border_words()) * WORD))
                state = self._run(kernel, stretch, entry, bases, (weights, b.offset(here, offset)), loop.carried)
                state = b.end_loop(loop, state)
            fresh = True if self.blocks == 1 else b.compare("eq", block, 0)
            kernel.join(state, b.offset(out, target), pace * self._pixel_bytes(), fresh)

    def _border_words(self) -> int:
        return sum(border.words for border in self.borders)

    def _run(self, kernel: MicroKernel, stretch: Stretch, entry: str, bases: list[tuple[Integer, Integer]],
             memory: tuple[str, str], state: list[str]) -> list[str]:
        """A tile after a run, if the line has it: for the rows that do."""
        b = self.b
        place, product_, length, variant = (b.load("i64", b.offset(entry, n * WORD), WORD) for n in range(4))
        lengths = {run.length for run in self.runs}
        unroll = min(kernel.unroll(count) for count in lengths)
        if any(count % unroll for count in lengths):
            unroll = 1
        count: Integer = length if len(lengths) > 1 else lengths.pop()
        weights, pixels = b.offset(memory[0], product_), b.offset(memory[1], place)
        variants = stretch.variants
        exists = self._exists(entry, bases)
        if exists is None and len(variants) == 1:
            return self._rows(kernel, variants[0], (weights, pixels), count, unroll, state)
        done = b.label("taken")
        labels = [b.label("rows") for _ in variants]
        origins = []
        if exists is not None:
            there = b.label("there")
            origins.append((b.block, state))
            b.emit(f"br i1 {exists}, label %{there}, label %{done}")
            b.start_block(there)
        cases = " ".join(f"i64 {n}, label %{label}" for n, label in enumerate(labels[:-1]))
        b.emit(f"switch i64 {variant}, label %{labels[-1]} [ {cases} ]")
        for reach, label in zip(variants, labels, strict=True):
            b.start_block(label)
            after = self._rows(kernel, reach, (weights, pixels), count, unroll, state)
            origins.append((b.block, after))
            b.emit(f"br label %{done}")
        b.start_block(done)
        return [b.value(f"phi {kernel.arithmetic.kind} " + ", ".join(
            f"[ {values[n]}, %{origin} ]" for origin, values in origins)) for n in range(len(state))]

    def _exists(self, entry: str, bases: list[tuple[Integer, Integer]]) -> str | None:
        """Whether a line has a run's tap."""
        b, word, exists = self.b, 4, None
        for number, (border, (base, rest)) in enumerate(zip(self.borders, bases, strict=True)):
            if number != self.along:
                part = b.load("i64", b.offset(entry, word * WORD), WORD)
                tests = [b.compare("ult", b.add(base, part), self.writer.size(border.extent))]
                if border.divisor > 1:
                    tests.append(b.compare("eq", rest, b.load("i64", b.offset(entry, (word + 1) * WORD), WORD)))
                for test in tests:
                    exists = test if exists is None else b.value(f"and i1 {exists}, {test}")
            word += border.words
        return exists

    def _rows(self, kernel: MicroKernel, reach: Reach, memory: tuple[str, str], count: Integer, unroll: int,
              state: list[str]) -> list[str]:
        """The tile after a run's products for some of its rows."""
        first, past = reach
        some = MicroKernel(kernel.builder, kernel.arithmetic, Tile(past - first, self.vectors), kernel.lane_step,
                           kernel.row_step, kernel.row_stride)
        weights, pixels = memory
        own = slice(first * self.vectors, past * self.vectors)
        rows = self.b.offset(pixels, self.b.mul(kernel.row_stride, first))
        return [*state[:own.start], *some.run(weights, rows, count, state[own], unroll), *state[own.stop:]]

    def _epilogue(self, batch: list[Integer], lines: tuple[Integer, Integer], group: Integer) -> None:
        b, kernel = self.b, self.writer.kernel
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        fixed |= dict(zip(self.axes.batch, batch, strict=True))
        pixels = b.mul(lines[0], self.width), b.mul(lines[1], self.width)
        square = b.offset("%scratch", (self.item_lines * self.width + LANES) * self._pixel_bytes())
        Columns(self.writer, self.dtype, self.axes.row, self.axes.lane).write(
            fixed, pixels, b.mul(group, self.lane_width), self.vectors, "%scratch", square)
