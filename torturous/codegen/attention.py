"""The attention kernel: rows of queries against blocks of keys, with the softmax between two contractions.

Vector lanes are queries, QUERIES of them at a time. Their rows are turned into a panel once; keys and values are the
broadcast side of every product and are read where they lie. Scores of a block of keys, [key][query], are what the
softmax goes over: its maxima, sums and weights are whole vectors, nothing is combined across lanes. The order of all
sums is written in `ir.attending`; nothing here can change it.

`AttentionWriter` is what both directions share; `Attending` writes the rows' result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Builder, Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import MicroKernel, Tile
from torturous.codegen.operands import split
from torturous.codegen.turning import turned
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Attention, Load
from torturous.compiler.sizes import Size, product
from torturous.core import dtypes
from torturous.ir.attending import KEYS, QUERIES

BYTES = 4
"""Of an element: float32."""
LINE = QUERIES * BYTES
"""One element of every query of a tile."""
VECTORS = QUERIES // LANES
VECTOR = LANES * BYTES
BLOCK = KEYS * LINE
"""Scores of a block of keys."""


class Rows:
    """An operand's rows in one head: an address, and the step from row to row."""

    def __init__(self, builder: Builder, origin: str, step: Integer) -> None:
        self.builder = builder
        self.origin = origin
        self.step = step

    @staticmethod
    def of(writer: KernelWriter, load: Load, row_axis: int, heads: Sequence[Integer]) -> Rows:
        """Those of an operand."""
        b = writer.builder
        axes: dict[int, Integer] = dict.fromkeys(range(len(writer.kernel.axes)), 0)
        axes |= dict(enumerate(heads))
        place, _, _ = writer.affine(load.address, Point(axes, None, 1))
        step = b.mul(writer.size(load.address.factor(row_axis)), BYTES)
        return Rows(b, b.offset(writer.pointer(load.buffer), b.mul(place, BYTES)), step)

    @staticmethod
    def packed(writer: KernelWriter, node: Node, head: Integer) -> Rows:
        """Those of a packed value."""
        b = writer.builder
        step = b.mul(writer.size(node.shape[-1]), BYTES)
        return Rows(b, b.offset(writer.pointer(node), b.mul(head, b.mul(writer.size(node.shape[-2]), step))), step)

    def behind(self, count: Integer) -> Rows:
        """The rows that come after so many."""
        return Rows(self.builder, self.at(count), self.step)

    def at(self, row: Integer) -> str:
        return self.builder.offset(self.origin, self.builder.mul(row, self.step))


class AttentionWriter:
    """What both directions share: tiles of queries, and their scores."""

    def __init__(self, writer: KernelWriter, what: Attention) -> None:
        self.writer = writer
        self.what = what
        self.b = writer.builder
        self.e = Arithmetic(self.b, dtypes.float32, LANES)
        axes = writer.kernel.axes
        self.heads = len(axes) - 4
        self.query_axis, self.key_axis = self.heads, self.heads + 1
        self.sizes = axes[self.heads:]
        self.length, self.keys, self.width, self.depth = map(writer.size, self.sizes)
        self.registers = _register_tile(writer)

    # The loops -------------------------------------------------------------------------------------------------
    def items(self, count: Integer) -> tuple[Integer, Integer]:
        """The first and the last item to be worked on."""
        b = self.b
        granule = self.writer.argument(Argument("granule"), "i64")
        return b.mul("%first_piece", granule), b.minimum(b.mul("%last_piece", granule), count)

    def place(self, head: Integer) -> list[Integer]:
        """A head's place along the leading axes."""
        return split(self.writer, head, [self.writer.size(size) for size in self.writer.kernel.axes[:self.heads]])

    @property
    def head_count(self) -> Size:
        return product(self.writer.kernel.axes[:self.heads])

    def tiles(self, heads: Sequence[Integer], first: Integer, body: Callable[[], None]) -> None:
        """`body` for the tile of queries from `first` on: as it is for a full one and, where sizes are known, as it is
        for few queries, which take half the lanes."""
        b, known = self.b, self.sizes[0].constant
        self.place_of_heads, self.first = heads, first
        self.bound = b.minimum(self.keys, b.add(first, QUERIES)) if self.what.causal else self.keys
        """How many keys are looked at."""
        left = b.sub(self.length, first)
        rest = None if known is None else known % QUERIES
        few = b.compare("sle", left, LANES) if rest is not None and 0 < rest <= LANES else None

        def of(vectors: int, present: Integer) -> Callable[[], None]:
            def write() -> None:
                self.vectors, self.present = vectors, present
                """Vectors of queries that the tile takes, and queries that there are."""
                self.tile = Tile(self.registers.rows, min(self.registers.vectors, vectors))
                self.numbers = self._numbers() if self.what.causal else []
                body()

            return write

        if known is None or rest is None or few is None:
            of(VECTORS, QUERIES if rest == 0 else b.minimum(left, QUERIES))()
            return
        if known > LANES:
            b.when(b.value(f"xor i1 {few}, true"), of(VECTORS, QUERIES))
        b.when(few, of(1, rest))

    def _numbers(self) -> list[str]:
        """The queries' own numbers."""
        b, i = self.b, Arithmetic(self.b, dtypes.int32, LANES)
        numbers = "<" + ", ".join(f"i32 {lane}" for lane in range(LANES)) + ">"
        first = i.splat(b.value(f"trunc i64 {self.first} to i32"))
        return [i.add(i.add(first, numbers), i.constant(vector * LANES)) for vector in range(self.vectors)]

    def exists(self, vector: int) -> str | None:
        """The lanes of a vector of queries that there are."""
        if isinstance(self.present, int) and self.present >= (vector + 1) * LANES:
            return None
        return self.writer.tail_mask(self.b.sub(self.present, vector * LANES), LANES)

    def key_blocks(self, body: Callable[[Integer, Integer], None]) -> None:
        """`body(first key, how many)` for every block of keys."""
        b = self.b
        loop = b.begin_loop(0, self.bound, KEYS)
        body(loop.index, b.minimum(b.sub(self.bound, loop.index), KEYS))
        b.end_loop(loop)

    def key_tiles(self, count: Integer, body: Callable[[Integer, int], None], twice: bool) -> None:
        """`body(first, rows)` for register tiles of a block's keys. What is left over is taken by a tile that goes over
        some keys `twice`, where that does no harm, and else key by key."""
        b, rows, known = self.b, self.registers.rows, self.sizes[1].constant
        rest = None if known is None else known % KEYS
        single = rest is None or (0 < rest < rows if twice else rest % rows != 0)
        if not twice:
            full = b.mul(b.div(count, rows), rows)
        elif single:
            full = b.choose(b.compare("slt", count, rows), 0, count)
        else:
            full = count
        if known is None or known >= rows:
            with looping(b, 0, full, rows) as first:
                body(b.minimum(first, b.sub(count, rows)) if twice and (rest is None or rest % rows) else first, rows)
        if rows > 1 and single:
            with looping(b, full, count) as first:
                body(first, 1)

    # Panels ----------------------------------------------------------------------------------------------------
    def squares(self, rows: Rows, width: Integer, body: Callable[[Integer, Integer, list[str]], None]) -> None:
        """`body(element, vector, columns)` for squares of a tile's rows, turned: LANES elements from `element` on."""
        b = self.b
        full = self.present == self.vectors * LANES
        with looping(b, 0, self.vectors) as vector:
            queries = [b.add(b.mul(vector, LANES), lane) for lane in range(LANES)]
            if not full:  # What is not there is read as the last row.
                queries = [b.minimum(query, b.sub(self.present, 1)) for query in queries]
            lines = [rows.at(b.add(self.first, query)) for query in queries]
            with looping(b, 0, width, LANES) as element:
                at = b.mul(element, BYTES)
                read = [self.get(b.offset(line, at)) for line in lines]
                body(element, vector, turned(b, self.e.kind, read))

    def pack(self, rows: Rows, width: Integer, panel: str) -> None:
        """A tile's rows as a panel: [element][query]."""
        def put(element: Integer, vector: Integer, columns: list[str]) -> None:
            for k, column in enumerate(columns):
                self.put(column, self.line(panel, self.b.add(element, k), vector))

        self.squares(rows, width, put)

    def clear(self, target: str, bytes_: Integer) -> None:
        """Zeros, whole vectors of them."""
        with looping(self.b, 0, bytes_, VECTOR) as at:
            self.put(self.e.constant(0), self.b.offset(target, at))

    def line(self, panel: str, element: Integer, vector: Integer = 0) -> str:
        return self.b.offset(panel, self.b.add(self.b.mul(element, LINE), self.b.mul(vector, VECTOR)))

    def of_query(self, line: str, query: Integer) -> str:
        """What a line has for one query, in every lane."""
        return self.e.splat(self.b.load(self.e.scalar, self.b.offset(line, self.b.mul(query, BYTES)), BYTES))

    def get(self, place: str) -> str:
        return self.b.load(self.e.kind, place, BYTES)

    def put(self, value: str, place: str) -> None:
        self.b.store(self.e.kind, value, place, BYTES)

    # Products --------------------------------------------------------------------------------------------------
    def against_panel(
        self, panel: str, rows: str, row_step: Integer, row_stride: Integer, count: Integer, height: int,
    ) -> list[str]:
        """A register tile: `height` rows of products with lines of a panel, a chain over `count` of them."""
        kernel = MicroKernel(self.b, self.e, Tile(height, self.tile.vectors), LINE, row_step, row_stride)
        return kernel.run(panel, rows, count, kernel.zeros(), unroll(kernel.tile))

    def across(self, factors: str, other: Rows, first: Integer, count: Integer, width: int,
               body: Callable[[Integer, int, Integer, list[str], int], None]) -> None:
        """Products of [key][query] factors with rows of keys, a chain over keys: lanes are elements of these rows.

        `body(query, rows, element, sums, vectors)` for register tiles; `width` is the loop over elements.
        """
        b, rows, vectors = self.b, self.registers.rows, self.wide(width)
        kernel = MicroKernel(b, self.e, Tile(rows, vectors), other.step, LINE, BYTES)
        with (looping(b, 0, self.present, rows) as query,
              looping(b, 0, self.writer.size(self.sizes[width]), vectors * LANES) as element):
            sums = kernel.run(b.offset(other.at(first), b.mul(element, BYTES)), b.offset(factors, b.mul(query, BYTES)),
                              count, kernel.zeros(), unroll(kernel.tile))
            body(query, rows, element, sums, vectors)

    def wide(self, width: int) -> int:
        """Vectors of a register tile whose lanes are elements of a row."""
        known, vectors = self.sizes[width].constant, self.registers.vectors
        return vectors if known is not None and known % (vectors * LANES) == 0 else 1

    def each_group(self, body: Callable[[int], None]) -> None:
        """`body(first vector)` for every register tile of the queries side by side."""
        for vector in range(0, self.vectors, self.tile.vectors):
            body(vector)

    def score(self, sums: str, scale: str, key: Integer, vector: int) -> str:
        """A vector of scores from its sums of products."""
        e, w = self.e, self.writer
        x = e.mul(sums, scale)
        if self.what.causal:
            i = Arithmetic(self.b, dtypes.int32, LANES)
            number = i.splat(self.b.value(f"trunc i64 {key} to i32"))
            x = e.select(i.compare("ge", self.numbers[vector], number), x, e.constant(float("-inf")))
        if self.what.mask is not None:
            heads: dict[int, Integer] = dict(enumerate(self.place_of_heads))
            place: dict[int, Integer] = {self.query_axis: self.b.add(self.first, vector * LANES), self.key_axis: key}
            place |= {self.key_axis + 1: 0, self.key_axis + 2: 0}
            point = Point(heads | place, self.query_axis, LANES, self.exists(vector))
            mask = w.emit(self.what.mask, point)
            boolean = self.what.mask.dtype is dtypes.bool_
            x = e.select(mask, x, e.constant(float("-inf"))) if boolean else e.add(x, mask)
        return x

    def scale(self) -> str:
        return self.writer.emit(self.what.scale, Point({}, None, LANES))

    def panel_bytes(self, width: Size) -> Size:
        return width * LINE


def unroll(tile: Tile) -> int:
    """Products in a loop's body: a few, for there are many loops."""
    return 8 if tile.rows * tile.vectors >= LANES else 4


def _register_tile(writer: KernelWriter) -> Tile:
    """Rows and vectors that leave registers for a line of lanes and a factor; both are powers of two."""
    target = writer.target
    registers = max(1, LANES // target.lanes)
    for rows, vectors in ((8, 2), (8, 1), (4, 1), (2, 1)):
        if (rows * vectors + vectors) * registers + 1 <= target.registers:
            return Tile(rows, vectors)
    return Tile(1, 1)


class Attending(AttentionWriter):
    """Writes the rows' result: items are tiles of queries."""

    def write(self) -> Work:
        b, w = self.b, self.writer
        tiles = b.ceil_div(self.length, QUERIES)
        first, last = self.items(b.mul(w.size(self.head_count), tiles))
        with looping(b, first, last) as item:
            head = b.div(item, tiles)
            self.tiles(self.place(head), b.mul(b.rem(item, tiles), QUERIES), lambda: self._tile(head))
        length, keys, width, depth = self.sizes
        return Work(self.head_count, (Divided(length, QUERIES, QUERIES),), length * keys * (width + depth))

    def scratch(self) -> Size:
        """The queries' panel, the result's, a block of scores, and three lines: maxima, sums, rescaling."""
        return self.panel_bytes(self.sizes[2] + self.sizes[3]) + (BLOCK + 3 * LINE)

    def _tile(self, head: Integer) -> None:
        b, e, w, what = self.b, self.e, self.writer, self.what
        heads = self.place_of_heads
        query = Rows.of(w, what.query, self.query_axis, heads)
        self.key = Rows.of(w, what.key, self.key_axis, heads)
        self.value = Rows.of(w, what.value, self.key_axis, heads)
        self.panel = "%scratch"
        self.result = Rows(b, b.offset(self.panel, w.size(self.panel_bytes(self.sizes[2]))), b.mul(self.depth, BYTES))
        self.scores = self.result.at(QUERIES)
        self.top = b.offset(self.scores, BLOCK)
        self.total, self.decay = b.offset(self.top, LINE), b.offset(self.top, 2 * LINE)
        self.pack(query, self.width, self.panel)
        self.clear(self.result.origin, b.mul(self.depth, LINE))
        for vector in range(self.vectors):
            self.put(e.constant(float("-inf")), self.line(self.top, 0, vector))
            self.put(e.constant(0), self.line(self.total, 0, vector))
        self.key_blocks(self._block)
        out = Rows.packed(w, what.node, head)
        tops = b.offset(out.at(self.length), b.mul(self.first, BYTES))
        inverses = b.offset(tops, b.mul(self.length, BYTES))
        for vector in range(self.vectors):
            place = self.line(self.total, 0, vector)
            total = self.get(place)
            inverse = e.div(e.constant(1), e.select(e.compare("eq", total, e.constant(0)), e.constant(1), total))
            top = self._finite(self.get(self.line(self.top, 0, vector)))
            self.put(inverse, place)
            self._put_where(top, b.offset(tops, vector * VECTOR), self.exists(vector))
            self._put_where(inverse, b.offset(inverses, vector * VECTOR), self.exists(vector))
        with looping(b, 0, self.present) as row:
            factor = self.of_query(self.total, row)
            with looping(b, 0, self.depth, LANES) as element:
                at = b.mul(element, BYTES)
                value = e.mul(self.get(b.offset(self.result.at(row), at)), factor)
                self.put(value, b.offset(out.at(b.add(self.first, row)), at))

    def _put_where(self, value: str, place: str, mask: str | None) -> None:
        if mask is None:
            self.put(value, place)
            return
        self.b.call("void", f"llvm.masked.store.v{LANES}f32.p0", (self.e.kind, value), ("ptr", place), ("i32", BYTES),
                    (self.e.mask, mask))

    def _finite(self, top: str) -> str:
        """The greatest score, 0 where nothing is seen."""
        e = self.e
        return e.select(e.compare("eq", top, e.constant(float("-inf"))), e.constant(0), top)

    def _block(self, first: Integer, count: Integer) -> None:
        b, e = self.b, self.e
        before = [self.get(self.line(self.top, 0, vector)) for vector in range(self.vectors)]
        scale = self.scale()
        self.each_group(lambda group: self.key_tiles(count, lambda at, rows: self._scores(
            first, at, rows, group, scale), True))
        # The weights, and their sum.
        tops = [self._finite(self.get(self.line(self.top, 0, vector))) for vector in range(self.vectors)]
        loop = b.begin_loop(0, count, 1, [(e.kind, e.constant(0))] * self.vectors)
        sums = []
        for vector, total in enumerate(loop.carried):
            place = self.line(self.scores, loop.index, vector)
            weight = e.exp(e.sub(self.get(place), tops[vector]))
            self.put(weight, place)
            sums.append(e.add(total, weight))
        added = b.end_loop(loop, sums)
        for vector in range(self.vectors):
            decay = e.exp(e.sub(before[vector], tops[vector]))
            place = self.line(self.total, 0, vector)
            self.put(e.multiply_add(self.get(place), decay, added[vector]), place)
            self.put(decay, self.line(self.decay, 0, vector))
        self.across(self.scores, self.value, first, count, 3, self._take_in)

    def _scores(self, first: Integer, at: Integer, rows: int, group: int, scale: str) -> None:
        """Scores of a register tile, and the greatest so far."""
        b, e, vectors = self.b, self.e, self.tile.vectors
        key = b.add(first, at)
        state = self.against_panel(b.offset(self.panel, group * VECTOR), self.key.at(key), BYTES, self.key.step,
                                   self.width, rows)
        tops = [self.get(self.line(self.top, 0, group + v)) for v in range(vectors)]
        for row in range(rows):
            for v in range(vectors):
                x = self.score(state[row * vectors + v], scale, b.add(key, row), group + v)
                self.put(x, self.line(self.scores, b.add(at, row), group + v))
                tops[v] = e.select(e.compare("gt", x, tops[v]), x, tops[v])
        for v in range(vectors):
            self.put(tops[v], self.line(self.top, 0, group + v))

    def _take_in(self, query: Integer, rows: int, element: Integer, sums: list[str], vectors: int) -> None:
        """The result so far, rescaled, and what a block adds to it."""
        b, e = self.b, self.e
        for row in range(rows):
            decay = self.of_query(self.decay, b.add(query, row))
            line = b.offset(self.result.at(b.add(query, row)), b.mul(element, BYTES))
            for v in range(vectors):
                place = b.offset(line, v * VECTOR)
                self.put(e.multiply_add(self.get(place), decay, sums[row * vectors + v]), place)
