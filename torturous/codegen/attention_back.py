"""The gradients of attention: weights are worked out again, tile by tile, from what the forward rows kept of them.

An item is a head: tiles of queries one after the other, for each its blocks of keys. Scores, weights and the gradients
of both are [key][query] as in the forward kernel. The gradient of queries gathers in a panel; those of keys and values
gather where they lie, for there the lanes are their own elements, and weights are the broadcast side.
"""

from __future__ import annotations

from torturous.codegen.attention import BLOCK, BYTES, LINE, VECTOR, AttentionWriter, Rows, unroll
from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES
from torturous.codegen.loops import Work
from torturous.codegen.microkernel import MicroKernel, Tile
from torturous.compiler.sizes import Size
from torturous.ir.attending import QUERIES


class AttendingBack(AttentionWriter):
    """Writes the gradients of queries, keys and values."""

    def write(self) -> Work:
        b, w, what = self.b, self.writer, self.what
        assert what.upstream is not None and what.forward is not None
        first, last = self.items(w.size(self.head_count))
        with looping(b, first, last) as head:
            heads = self.place(head)
            self.query = Rows.of(w, what.query, self.query_axis, heads)
            self.key = Rows.of(w, what.key, self.key_axis, heads)
            self.value = Rows.of(w, what.value, self.key_axis, heads)
            self.upstream = Rows.of(w, what.upstream, self.query_axis, heads)
            self.forward = Rows.of(w, what.forward, self.query_axis, heads)
            self._head(head, heads)
        length, keys, width, depth = self.sizes
        return Work(self.head_count, (), length * keys * (width * 3 + depth * 2))

    def scratch(self) -> Size:
        """Panels of queries, of the result's gradient and of the queries' gradient; weights and scores' gradients."""
        return self.panel_bytes(self.sizes[2] * 2 + self.sizes[3]) + (2 * BLOCK + 3 * LINE)

    def _head(self, head: Integer, heads: list[Integer]) -> None:
        b, w, node = self.b, self.writer, self.what.node
        self.of_queries = Rows.packed(w, node, head)
        self.of_keys = self.of_queries.behind(self.length)
        self.of_values = self.of_keys.behind(self.keys)
        self.clear(self.of_keys.origin, b.mul(b.mul(self.keys, 2), self.of_keys.step))
        query_bytes, depth_bytes = (w.size(self.panel_bytes(self.sizes[number])) for number in (2, 3))
        self.panel = "%scratch"
        self.upstream_panel = b.offset(self.panel, query_bytes)
        self.gradient = Rows(b, b.offset(self.upstream_panel, depth_bytes), b.mul(self.width, BYTES))
        self.weights = self.gradient.at(QUERIES)
        self.of_scores = b.offset(self.weights, BLOCK)
        self.lines = b.offset(self.of_scores, BLOCK)
        with looping(b, 0, self.length, QUERIES) as first:
            self.tiles(heads, first, self._tile)

    def _tile(self) -> None:
        b = self.b
        self.pack(self.query, self.width, self.panel)
        self.pack(self.upstream, self.depth, self.upstream_panel)
        self._statistics()
        self.clear(self.gradient.origin, b.mul(self.width, LINE))
        self.key_blocks(self._block)
        with looping(b, 0, self.present) as query, looping(b, 0, self.width, LANES) as element:
            at = b.mul(element, BYTES)
            value = self.get(b.offset(self.gradient.at(query), at))
            self.put(value, b.offset(self.of_queries.at(b.add(self.first, query)), at))

    def _statistics(self) -> None:
        """Three lines: greatest scores, reciprocal sums, and the products of result and gradient, summed up."""
        b, e = self.b, self.e
        kept = b.offset(self.forward.at(self.length), b.mul(self.first, BYTES))
        for number in range(2):
            line = b.offset(kept, b.mul(b.mul(self.length, number), BYTES))
            for vector in range(self.vectors):
                self.put(self._get_where(b.offset(line, vector * VECTOR), self.exists(vector)),
                         self.line(self.lines, number, vector))
        for vector in range(self.vectors):
            self.put(e.constant(0), self.line(self.lines, 2, vector))

        def add(element: Integer, vector: Integer, columns: list[str]) -> None:
            place = self.line(self.lines, 2, vector)
            total = self.get(place)
            for k, column in enumerate(columns):
                total = e.multiply_add(self.get(self.line(self.upstream_panel, b.add(element, k), vector)), column,
                                       total)
            self.put(total, place)

        self.squares(self.forward, self.depth, add)

    def _get_where(self, place: str, mask: str | None) -> str:
        if mask is None:
            return self.get(place)
        return self.b.call(self.e.kind, f"llvm.masked.load.v{LANES}f32.p0", ("ptr", place), ("i32", BYTES),
                           (self.e.mask, mask), (self.e.kind, "zeroinitializer"))

    def _block(self, first: Integer, count: Integer) -> None:
        scale = self.scale()
        self.each_group(lambda group: self.key_tiles(count, lambda at, rows: self._weights(
            first, at, rows, group, scale), True))
        self.across(self.of_scores, self.key, first, count, 2, self._queries)
        for target, factor, other, width in (
                (self.of_values, self.weights, self.upstream, 3), (self.of_keys, self.of_scores, self.query, 2)):
            self._gather(first, count, target, factor, other, width)

    def _weights(self, first: Integer, at: Integer, rows: int, group: int, scale: str) -> None:
        """Weights and the gradients of scores of a register tile."""
        b, e, vectors = self.b, self.e, self.tile.vectors
        key = b.add(first, at)
        tops, inverses, deltas = (
            [self.get(self.line(self.lines, number, group + v)) for v in range(vectors)] for number in range(3))
        state = self.against_panel(b.offset(self.panel, group * VECTOR), self.key.at(key), BYTES, self.key.step,
                                   self.width, rows)
        for row in range(rows):
            for v in range(vectors):
                x = self.score(state[row * vectors + v], scale, b.add(key, row), group + v)
                weight = e.mul(e.exp(e.sub(x, tops[v])), inverses[v])
                self.put(weight, self.line(self.weights, b.add(at, row), group + v))
        state = self.against_panel(b.offset(self.upstream_panel, group * VECTOR), self.value.at(key), BYTES,
                                   self.value.step, self.depth, rows)
        for row in range(rows):
            for v in range(vectors):
                weight = self.get(self.line(self.weights, b.add(at, row), group + v))
                slope = e.mul(e.mul(weight, e.sub(state[row * vectors + v], deltas[v])), scale)
                self.put(slope, self.line(self.of_scores, b.add(at, row), group + v))

    def _queries(self, query: Integer, rows: int, element: Integer, sums: list[str], vectors: int) -> None:
        """What a block adds to the gradient of queries."""
        b = self.b
        for row in range(rows):
            line = b.offset(self.gradient.at(b.add(query, row)), b.mul(element, BYTES))
            for v in range(vectors):
                place = b.offset(line, v * VECTOR)
                self.put(self.e.add(self.get(place), sums[row * vectors + v]), place)

    def _gather(self, first: Integer, count: Integer, target: Rows, factor: str, other: Rows, width: int) -> None:
        """What a tile of queries adds to the gradient of a block of keys or values."""
        b, vectors = self.b, self.wide(width)
        size = self.writer.size(self.sizes[width])

        def tile(at: Integer, rows: int) -> None:
            kernel = MicroKernel(b, self.e, Tile(rows, vectors), other.step, BYTES, LINE)
            with looping(b, 0, size, vectors * LANES) as element:
                across = b.mul(element, BYTES)
                state = kernel.run(b.offset(other.at(self.first), across), self.line(factor, at), self.present,
                                   kernel.zeros(), unroll(kernel.tile))
                kernel.join(state, b.offset(target.at(b.add(first, at)), across), target.step, False)

        self.key_tiles(count, tile, False)
