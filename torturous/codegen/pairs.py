"""Packing bfloat16 for machines that take its products two at a time: panels of words (see `codegen.words`).

Where the number of products is odd, a zero fills the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES
from torturous.codegen.microkernel import Tile
from torturous.codegen.panels import LanePanels, Line, RowPanels, for_runs
from torturous.codegen.side import Side
from torturous.codegen.turning import turned
from torturous.codegen.words import SINGLE, WORDS, word
from torturous.ir.contraction import BLOCK

WORD = 4
"""Bytes."""
HALVES = f"<{2 * LANES} x i16>"
NEIGHBOURS = tuple(lane ^ 1 for lane in range(2 * LANES))
"""The products of a word follow each other."""
ACROSS = tuple(lane // 2 + LANES * (1 - lane % 2) for lane in range(2 * LANES))
"""They are LANES apart: each lane has a chain of its own, and its products are those that meet it."""


def words(side: Side, address: str, mask: str | None, places: Sequence[int] = NEIGHBOURS) -> str:
    """LANES words of products that lie one after the other; elements that the mask leaves out are zero.

    `places` says which element each half of a word is, the lower half (the second product) first.
    """
    b = side.b
    halves = side.read(address, 2 * LANES, mask)
    chosen = f"<{2 * LANES} x i32> <" + ", ".join(f"i32 {place}" for place in places) + ">"
    value = b.value(f"shufflevector {HALVES} {halves}, {HALVES} poison, {chosen}")
    return b.value(f"bitcast {HALVES} {value} to {SINGLE}")


def _lies_in_runs(side: Side, multiple: int) -> bool:
    """Whether the products of a block lie in stretches of a multiple of this many, but for the last."""
    loops = side.reduced
    inner = loops.sizes[-1].constant if loops.sizes else None
    return len(loops.sizes) <= 1 or (inner is not None and inner > 0 and inner % multiple == 0)


class PairedRows(RowPanels):
    """Rows as words; `places` as in `words`, `products` how many at most."""

    def __init__(self, side: Side, tile: Tile, places: Sequence[int] = NEIGHBOURS, products: int = BLOCK) -> None:
        super().__init__(side, tile, products // 2 + LANES)
        self.margin = 0
        self.places = places

    def pack(self, batch: list[Integer], rows: tuple[Integer, Integer], k0: Integer, count: Integer,
             target: str, panels: Integer = 0) -> None:
        """Rows [first, last), products [k0, k0 + count), then zeros to the end of a vector."""
        side = self.side
        b, item = side.b, side.item
        origin = side.origin(batch)
        # Where a run ends within a vector, the next run's words, or the margin's, take the place of what is too much.
        multiple = 2 if self.places is NEIGHBOURS else 2 * LANES
        plain = _lies_in_runs(side, multiple) and (not side.reduced.strides or side.reduced.strides[-1] == 1)
        with looping(b, rows[0], rows[1]) as row:
            source = b.offset(origin, b.mul(side.place(side.own, row), item))
            line = b.offset(target, b.mul(b.sub(row, rows[0]), self.stride * WORD))
            copy = self._words if plain else self._copy
            if not plain:
                whole = b.sub(count, b.rem(count, 2 * LANES))
                b.store(HALVES, "zeroinitializer", b.offset(line, b.mul(whole, item)), item)
            for_runs(side, k0, count, lambda offset, done, length, source=source, line=line, copy=copy: copy(
                b.offset(source, b.mul(offset, item)), b.offset(line, b.mul(done, item)), length))
            if not plain:
                self._turn(line, count)

    def _words(self, source: str, target: str, length: Integer) -> None:
        """A run of whole vectors, and perhaps a last part of one."""
        side = self.side
        b, item, step = side.b, side.item, 2 * LANES

        def chunk(index: Integer, mask: str | None) -> None:
            place = b.mul(index, item)
            b.store(SINGLE, words(side, b.offset(source, place), mask, self.places), b.offset(target, place), WORD)

        full = length - length % step if isinstance(length, int) else b.value(f"and i64 {length}, {-step}")
        with looping(b, 0, full, step) as index:
            chunk(index, None)
        left = b.sub(length, full)
        if isinstance(left, int):
            if left:
                chunk(full, side.writer.tail_mask(left, step))
            return
        b.when(b.compare("sgt", left, 0), lambda: chunk(full, side.writer.tail_mask(left, step)))

    def _turn(self, line: str, count: Integer) -> None:
        """Turns elements that were copied in their order into words."""
        side = self.side
        b, item = side.b, side.item
        with looping(b, 0, count, 2 * LANES) as index:
            place = b.offset(line, b.mul(index, item))
            b.store(SINGLE, words(side, place, None, self.places), place, WORD)


class PairedLanes(LanePanels):
    """Lines of words, one for two products."""

    def __init__(self, side: Side, tile: Tile, width: int, tables_fit: bool) -> None:
        super().__init__(side, tile, width, tables_fit)
        self.elements = tile.lanes * WORDS
        self.margin = tile.lanes * LANES
        self.panel_bytes = self.elements * WORD

    def _lines(self, k0: Integer, count: Integer, into: str, line: Line, lanes: int = LANES) -> None:
        side = self.side
        b = side.b
        if self.tabled:
            self._stretch(0, count, into, lambda k: line(self._tabled_offset(b.add(k0, k))), lanes)
            return
        inner = side.reduced.sizes[-1].constant if len(side.reduced.sizes) > 1 else 0
        whole = inner is not None and inner % 2 == 0

        def run(offset: Integer, done: Integer, length: Integer) -> None:
            lead = 0 if whole else b.rem(done, 2)
            self._stretch(done, length, into, lambda k: line(self._run_offset(offset, k)), lanes, lead)

        for_runs(side, k0, count, run)

    def _whole_lines(self, origin: str, lanes: tuple[Integer, Integer], k0: Integer, count: Integer, target: str
                     ) -> Integer:
        """Two products' lines make one of words."""
        side = self.side
        b = side.b
        if len(side.reduced.sizes) > 1:
            return 0
        whole = self._whole_panels(lanes)
        step = b.mul(side.writer.size(side.reduced.strides[0]) if side.reduced.strides else 0, side.item)
        start = b.offset(b.offset(origin, b.mul(lanes[0], side.item)), b.mul(k0, step))

        def put(first: Integer, alone: bool) -> None:
            line = b.offset(start, b.mul(first, step))
            with looping(b, 0, whole) as panel:
                values = []
                others = [None] * self.tile.vectors if alone else self._coming(b.offset(line, step), panel)
                for here, other in zip(self._coming(line, panel), others, strict=True):
                    values.append(word(b, side.read(here, LANES), other and side.read(other, LANES), LANES))
                self._put_words(values, b.offset(target, b.mul(panel, self.panel_bytes)), b.div(first, 2), LANES)

        odd = b.rem(count, 2)
        end = b.sub(count, odd)
        with looping(b, 0, end, 2) as first:
            put(first, False)
        if odd != 0:
            b.when(b.compare("eq", odd, 1), lambda: put(end, True))
        return whole

    def _stretch(self, done: Integer, length: Integer, into: str, line: Callable[[Integer], list[str]], lanes: int,
                 lead: Integer = 0) -> None:
        """Lines of consecutive products, from the block's product `done` on; `lead` is 1 where that is a second."""
        b = self.side.b

        def put(first: Integer, alone: bool) -> None:
            others = [None] * self.tile.lanes if alone else line(b.add(first, 1))
            values = [word(b, one, other, lanes) for one, other in zip(line(first), others, strict=False)]
            self._put_words(values, into, b.div(b.add(done, first), 2), lanes)

        if lead != 0:
            b.when(b.compare("eq", lead, 1), lambda: self._second(line(0), into, b.div(done, 2), lanes))
        left = b.sub(length, lead)
        odd = b.rem(left, 2)
        end = b.sub(length, odd)
        with looping(b, lead, end, 2) as first:
            put(first, False)
        if odd != 0:
            b.when(b.compare("eq", odd, 1), lambda: put(end, True))

    def _second(self, values: list[str], into: str, number: Integer, lanes: int) -> None:
        """Adds the second product's elements to a line that has its first."""
        b, wide = self.side.b, f"<{lanes} x i32>"
        address = b.offset(into, b.mul(number, self.tile.lanes * WORD))
        for position, value in enumerate(values):
            place = b.offset(address, position * lanes * WORD)
            second = b.value(f"zext <{lanes} x i16> {value} to {wide}")
            b.store(wide, b.value(f"or {wide} {b.load(wide, place, WORD)}, {second}"), place, WORD)

    def _put_words(self, values: list[str], into: str, number: Integer, lanes: int) -> None:
        b = self.side.b
        address = b.offset(into, b.mul(number, self.tile.lanes * WORD))
        for position, value in enumerate(values):
            b.store(f"<{lanes} x float>", value, b.offset(address, position * lanes * WORD), WORD)

    def _transposed(self, origin: str, first: Integer, last: Integer, k0: Integer, count: Integer, into: str) -> None:
        """Squares of words are read along products and turned.

        Where a run ends within a square, the next run's lines, or the margin's, take the place of what is too much.
        """
        side, tile, step = self.side, self.tile, 2 * LANES
        b, w = side.b, side.writer
        if not _lies_in_runs(side, 2):
            self._gathered(origin, first, last, k0, count, into)
            return
        starts = self._lane_starts(origin, first, last)

        def square(offset: Integer, done: Integer, mask: str | None, width: int) -> None:
            place = b.mul(offset, side.item)
            for v in range(tile.vectors):
                rows = [words(side, b.offset(starts[v * LANES + lane], place), mask) for lane in range(LANES)]
                line = b.offset(into, b.add(b.mul(b.div(done, 2), tile.lanes * WORD), v * LANES * WORD))
                for number, value in enumerate(turned(b, SINGLE, rows)[:width]):
                    b.store(SINGLE, value, b.offset(line, number * tile.lanes * WORD), WORD)

        def run(offset: Integer, done: Integer, length: Integer) -> None:
            full = length - length % step if isinstance(length, int) else b.value(f"and i64 {length}, {-step}")
            with looping(b, 0, full, step) as k:
                square(b.add(offset, k), b.add(done, k), None, LANES)
            left = b.sub(length, full)
            if isinstance(left, int):
                if left:
                    square(b.add(offset, full), b.add(done, full), w.tail_mask(left, step), -(-left // 2))
                return
            b.when(b.compare("sgt", left, 0), lambda: square(
                b.add(offset, full), b.add(done, full), w.tail_mask(left, step), LANES))

        for_runs(side, k0, count, run)
