"""The contraction kernel: every product of sums, through one register-tiled micro-kernel.

One operand runs along the vector lanes (the *lane* side: the loops it has in common with the innermost axis of the
result), the other is broadcast (the *row* side). Both are packed into panels by evaluating their expressions, so
strides, padding, dilation, casts and fused producers all end there. A panel holds at most BLOCK products, which is
also the unit of the sum's order: a block is one chain of fused multiply-adds in registers, blocks are added in
order into a tile of accumulators, and the epilogue reads the finished tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torturous.codegen.arithmetic import Arithmetic, kind, suffix
from torturous.codegen.builder import Builder, Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Work
from torturous.compiler.kernel import Expression, Kernel
from torturous.compiler.schedule import depends
from torturous.compiler.sizes import Size, product
from torturous.ir.contraction import BLOCK

Run = Callable[[list[Integer], Integer, int, "str | None"], None]
"""`run(loops' values, flat place, lanes, mask)`: a stretch of consecutive places."""
LANE_PANELS = 4
"""Lane panels per item: the broadcast side is packed once for all of them."""


@dataclass
class Sides:
    """The kept axes by what depends on them."""

    batch: list[int]
    """Axes of both operands, or of neither."""
    lane: list[int]
    row: list[int]
    lane_first: bool
    """Whether the left operand is the lane side."""


def sides(kernel: Kernel) -> Sides:
    """Lanes go to the operand that has the innermost axis of the result, so that it is stored in runs."""
    assert kernel.product is not None
    left, right = kernel.product
    both, only_left, only_right = [], [], []
    for axis in range(len(kernel.axes)):
        in_left, in_right = depends(kernel, left, axis), depends(kernel, right, axis)
        if in_left == in_right:
            both.append(axis)
        else:
            (only_left if in_left else only_right).append(axis)
    last_left = only_left[-1] if only_left else -1
    last_right = only_right[-1] if only_right else -1
    if last_left > last_right:
        return Sides(both, only_left, only_right, True)
    return Sides(both, only_right, only_left, False)


class _Axes:
    """Several loops as one flat index, counted up without divisions inside."""

    def __init__(self, writer: KernelWriter, axes: list[int]) -> None:
        self.writer = writer
        self.axes = axes
        extents = writer.kernel.axes + writer.kernel.reduced
        self.sizes = [extents[axis] for axis in axes]
        # An empty loop counts as one place where places are split into loops: it is never reached.
        self.extents = [writer.builder.maximum(writer.size(size), 1) for size in self.sizes]
        self.total = writer.size(product(self.sizes))

    def split(self, flat: Integer) -> list[Integer]:
        """The loops' values at a flat index."""
        b = self.writer.builder
        values: list[Integer] = []
        for position in range(len(self.axes) - 1, -1, -1):
            if position == 0:
                values.insert(0, flat)
            else:
                values.insert(0, b.rem(flat, self.extents[position]))
                flat = b.div(flat, self.extents[position])
        return values

    def following(self, values: list[Integer]) -> list[Integer]:
        """The loops' values one place on."""
        b = self.writer.builder
        result: list[Integer] = []
        carry: Integer = 1
        for position in range(len(self.axes) - 1, -1, -1):
            counted = b.add(values[position], carry)
            if position == 0:
                result.insert(0, counted)
                continue
            wrapped = b.compare("eq", counted, self.extents[position])
            result.insert(0, b.choose(wrapped, 0, counted))
            carry = b.value(f"zext i1 {wrapped} to i64")
        return result


@dataclass(frozen=True)
class Tile:
    """The register tile: `rows` broadcasts against `vectors` lane vectors of LANES."""

    rows: int
    vectors: int

    @property
    def lanes(self) -> int:
        return self.vectors * LANES


def choose_tile(writer: KernelWriter, rows: Size, lanes: Size) -> Tile:
    """As many accumulators as the registers hold, few wasted lanes and rows."""
    kernel, target = writer.kernel, writer.target
    itemsize = max(kernel.accumulators[0].dtype.itemsize, 4)
    registers_per_vector = max(1, LANES * itemsize // (target.lanes * 4))
    available = max(target.registers - 4, 4) // registers_per_vector
    known_lanes = lanes.constant
    vectors = 2 if registers_per_vector <= 2 and (known_lanes is None or known_lanes > LANES) else 1
    most = max(1, (available - vectors) // vectors)
    known_rows = rows.constant
    if known_rows is None:
        return Tile(most, vectors)
    tiles = -(-known_rows // most)
    return Tile(max(1, -(-known_rows // tiles)), vectors)


class Contraction:
    """Writes one contraction kernel: items are (batch, group of lane panels)."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b: Builder = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        self.sides = sides(kernel)
        left, right = kernel.product
        self.lane_side, self.row_side = (left, right) if self.sides.lane_first else (right, left)
        first = len(kernel.axes)
        self.batch = _Axes(writer, self.sides.batch)
        self.lane = _Axes(writer, self.sides.lane)
        self.row = _Axes(writer, self.sides.row)
        self.reduced = _Axes(writer, list(range(first, first + len(kernel.reduced))))
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.tile = choose_tile(writer, product(self.row.sizes), product(self.lane.sizes))
        self.group = self.tile.lanes * LANE_PANELS

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, tile = self.b, self.tile
        group = self.group
        groups = b.ceil_div(self.lane.total, group)
        items = b.mul(self.batch.total, groups)
        granule = self.writer.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        row_tiles = b.ceil_div(self.row.total, tile.rows)
        # Scratch: the row panels of a block, the lane panels of a block, the tile of accumulators.
        row_panels = "%scratch"
        row_bytes = b.mul(row_tiles, tile.rows * BLOCK * self.bytes)
        lane_panels = b.offset(row_panels, row_bytes)
        lane_bytes = (group * BLOCK + LANES) * self.bytes  # The last store may run over by a vector.
        accumulators = b.offset(lane_panels, lane_bytes)
        with looping(b, first, last) as item:
            batch = self.batch.split(b.div(item, groups))
            start = b.mul(b.rem(item, groups), group)
            stop = b.minimum(b.add(start, group), self.lane.total)
            panels = b.ceil_div(b.sub(stop, start), tile.lanes)
            self._blocks(batch, start, stop, panels, row_panels, lane_panels, accumulators, row_tiles)
            self._epilogue(batch, start, stop, accumulators)
        sizes = [*self.row.sizes, *self.reduced.sizes]
        return Work(product(self.batch.sizes), product(self.lane.sizes), product(sizes))

    def scratch(self) -> Size:
        """Bytes of scratch a worker needs."""
        rows = product(self.row.sizes) + (self.tile.rows - 1)
        group = self.group
        return (rows * (BLOCK + group) + self.tile.rows * BLOCK + group * BLOCK + group * self.tile.rows
                + 2 * LANES) * self.bytes

    def _blocks(self, batch: list[Integer], start: Integer, stop: Integer, panels: Integer, row_panels: str,
                lane_panels: str, accumulators: str, row_tiles: Integer) -> None:
        """For each block of products: pack both sides, then run the micro-kernel over all tiles."""
        b, tile = self.b, self.tile
        total = self.reduced.total
        loop = b.begin_loop(0, b.maximum(total, 1), BLOCK)
        k0: Integer = loop.index
        count = b.minimum(b.sub(total, k0), BLOCK)
        if isinstance(total, int) and total <= BLOCK:
            k0, count = 0, total
        self._pack_rows(batch, k0, count, row_panels, row_tiles)
        self._pack_lanes(batch, k0, count, start, stop, lane_panels, panels)
        with looping(b, 0, panels) as panel:
            with looping(b, 0, row_tiles) as row_tile:
                lanes = b.offset(lane_panels, b.mul(panel, tile.lanes * BLOCK * self.bytes))
                rows = b.offset(row_panels, b.mul(row_tile, tile.rows * BLOCK * self.bytes))
                place = b.add(b.mul(b.mul(panel, row_tiles), tile.rows), b.mul(row_tile, tile.rows))
                out = b.offset(accumulators, b.mul(place, tile.lanes * self.bytes))
                self._micro_kernel(lanes, rows, out, count, k0)
        b.end_loop(loop)

    # Packing -------------------------------------------------------------------------------------------------------
    def _pack_rows(self, batch: list[Integer], k0: Integer, count: Integer, target: str, row_tiles: Integer) -> None:
        """[row tile][k][rows]: the broadcast side, LANES products of one row at a time."""
        b, tile, kernel = self.b, self.tile, self.writer.kernel
        inner = len(kernel.axes) + len(kernel.reduced) - 1
        with looping(b, 0, self.row.total) as row:
            values = self.row.split(row)
            place = b.add(b.mul(b.div(row, tile.rows), tile.rows * BLOCK), b.rem(row, tile.rows))
            into = b.offset(target, b.mul(place, self.bytes))

            def run(reduced: list[Integer], flat: Integer, lanes: int, mask: str | None, into: str = into,
                    values: list[Integer] = values) -> None:
                point = self._at(batch, values, self.row, reduced, inner, lanes, mask)
                line = b.offset(into, b.mul(b.mul(b.sub(flat, k0), tile.rows), self.bytes))
                self._scatter_row(point, line, mask, lanes)

            self._runs(self.reduced, k0, b.add(k0, count), run)

    def _scatter_row(self, point: Point, into: str, mask: str | None, lanes: int) -> None:
        """Stores consecutive products of one row, tile.rows elements apart."""
        b = self.b
        value = self.writer.emit(self.row_side, point)
        scalar = kind(self.dtype, 1).split(" x ")[1][:-1]
        if lanes == 1:
            element = b.value(f"extractelement {kind(self.dtype, 1)} {value}, i32 0")
            b.store(scalar, element, into, self.bytes)
            return
        places = "<" + ", ".join(f"i64 {lane * self.tile.rows}" for lane in range(lanes)) + ">"
        pointers = b.value(f"getelementptr {scalar}, ptr {into}, <{lanes} x i64> {places}")
        b.call("void", f"llvm.masked.scatter.{suffix(scalar, lanes)}.v{lanes}p0", (kind(self.dtype, lanes), value),
               (f"<{lanes} x ptr>", pointers), ("i32", self.bytes), (f"<{lanes} x i1>", mask or "splat (i1 true)"))

    def _pack_lanes(self, batch: list[Integer], k0: Integer, count: Integer, start: Integer, stop: Integer,
                    target: str, panels: Integer) -> None:
        """[lane panel][k][lanes]: the lane side, in runs of its innermost loop, which may cross rows and images."""
        b, tile = self.b, self.tile
        inner = self.sides.lane[-1] if self.sides.lane else None
        with looping(b, 0, panels) as panel:
            first = b.add(start, b.mul(panel, tile.lanes))
            last = b.minimum(b.add(first, tile.lanes), stop)
            into = b.offset(target, b.mul(panel, tile.lanes * BLOCK * self.bytes))
            loop = b.begin_loop(0, count, 1, [("i64", value) for value in self.reduced.split(k0)])
            reduced = list(loop.carried)
            line = b.offset(into, b.mul(loop.index, tile.lanes * self.bytes))

            def run(lane: list[Integer], flat: Integer, lanes: int, mask: str | None, line: str = line,
                    first: Integer = first, reduced: list[Integer] = reduced) -> None:
                point = self._at(batch, lane, self.lane, reduced, inner, lanes, mask)
                value = self.writer.emit(self.lane_side, point)
                # A run's end is overwritten by the next run; past the last lane the panel has room.
                b.store(kind(self.dtype, lanes), value, b.offset(line, b.mul(b.sub(flat, first), self.bytes)),
                        self.bytes)

            self._runs(self.lane, first, last, run)
            b.end_loop(loop, self.reduced.following(reduced))

    def _runs(self, axes: _Axes, first: Integer, last: Integer, run: Run) -> None:
        """Calls `run` for stretches of at most LANES flat places that stay within one innermost row."""
        b = self.b
        if not axes.axes:
            run([], first, 1, None)
            return
        origin = axes.split(first)
        loop = b.begin_runs(first, last, origin)
        flat, *lane = loop.carried
        extent = axes.extents[-1]
        left = b.minimum(b.sub(last, flat), b.sub(extent, lane[-1]))
        length = b.minimum(left, LANES)
        run(lane, flat, LANES, self.writer.tail_mask(length, LANES))
        moved: list[Integer] = [*lane[:-1], b.add(lane[-1], length)]
        wrapped = b.compare("eq", moved[-1], extent)
        carry: Integer = b.value(f"zext i1 {wrapped} to i64")
        following: list[Integer] = [b.choose(wrapped, 0, moved[-1])] if len(lane) > 1 else [moved[-1]]
        for position in range(len(lane) - 2, -1, -1):
            counted = b.add(lane[position], carry)
            if position == 0:
                following.insert(0, counted)
                continue
            over = b.compare("eq", counted, axes.extents[position])
            following.insert(0, b.choose(over, 0, counted))
            carry = b.value(f"zext i1 {over} to i64")
        b.end_runs(loop, [b.add(flat, length), *following])

    def _at(self, batch: list[Integer], values: list[Integer], axes: _Axes, reduced: list[Integer],
            lane_axis: int | None, lanes: int, mask: str | None) -> Point:
        """A point of all loops; those a side does not depend on stand at 0."""
        point: dict[int, Integer] = {axis: 0 for axis in range(len(self.writer.kernel.axes))}
        point |= dict(zip(self.sides.batch, batch, strict=True))
        point |= dict(zip(axes.axes, values, strict=True))
        point |= dict(zip(self.reduced.axes, reduced, strict=True))
        return Point(point, lane_axis, lanes, mask)

    # The micro-kernel ------------------------------------------------------------------------------------------------
    def _micro_kernel(self, lanes: str, rows: str, out: str, count: Integer, k0: Integer) -> None:
        """acc[row][vector] += Σ_k row[k] · lane[k]; the block's chain starts from zero, then joins the tile."""
        b, tile = self.b, self.tile
        e = Arithmetic(b, self.dtype, LANES)
        scalar = e.scalar
        names = tile.rows * tile.vectors
        zero = e.constant(0)
        loop = b.begin_loop(0, count, 1, [("ptr", lanes), ("ptr", rows), *[(e.kind, zero)] * names])
        lane_pointer, row_pointer, *state = loop.carried
        vectors = [
            b.load(e.kind, b.offset(lane_pointer, v * LANES * self.bytes), self.bytes) for v in range(tile.vectors)
        ]
        new = []
        for row in range(tile.rows):
            factor = e.splat(b.load(scalar, b.offset(row_pointer, row * self.bytes), self.bytes))
            for v in range(tile.vectors):
                new.append(e.multiply_add(factor, vectors[v], state[row * tile.vectors + v]))
        after = b.end_loop(loop, [
            b.offset(lane_pointer, tile.lanes * self.bytes), b.offset(row_pointer, tile.rows * self.bytes), *new])[2:]

        def put(values: list[str]) -> None:
            for number, value in enumerate(values):
                b.store(e.kind, value, b.offset(out, number * LANES * self.bytes), self.bytes)

        def add() -> list[str]:
            sums = []
            for number, value in enumerate(after):
                old = b.load(e.kind, b.offset(out, number * LANES * self.bytes), self.bytes)
                sums.append(e.add(old, value))
            return sums

        if k0 == 0:
            put(after)
            return
        join, fresh, done = b.label("join"), b.label("fresh"), b.label("joined")
        b.emit(f"br i1 {b.compare('eq', k0, 0)}, label %{fresh}, label %{join}")
        b.start_block(fresh)
        put(after)
        b.emit(f"br label %{done}")
        b.start_block(join)
        put(add())
        b.emit(f"br label %{done}")
        b.start_block(done)

    # The epilogue ----------------------------------------------------------------------------------------------------
    def _epilogue(self, batch: list[Integer], start: Integer, stop: Integer, accumulators: str) -> None:
        """Reads the finished accumulators row by row, runs of lanes at a time, and stores the results."""
        b, tile, w = self.b, self.tile, self.writer
        inner = self.sides.lane[-1] if self.sides.lane else None
        row_tiles = b.ceil_div(self.row.total, tile.rows)
        padded = b.mul(row_tiles, tile.rows)
        with looping(b, 0, self.row.total) as row:
            rows = self.row.split(row)

            def run(lane: list[Integer], flat: Integer, lanes: int, mask: str | None) -> None:
                point = self._at(batch, lane, self.lane, [0] * len(self.reduced.axes), inner, lanes, mask)
                point.axes |= dict(zip(self.sides.row, rows, strict=True))
                offset = b.sub(flat, start)
                panel, within = b.div(offset, tile.lanes), b.rem(offset, tile.lanes)
                place = b.add(b.mul(b.add(b.mul(panel, padded), row), tile.lanes), within)
                value = b.load(kind(self.dtype, lanes), b.offset(accumulators, b.mul(place, self.bytes)), self.bytes)
                point.accumulated = [value]
                for store in w.kernel.stores:
                    w.store(w.emit(store.expression, point), store.buffer, store.address, point)

            with looping(b, 0, b.ceil_div(b.sub(stop, start), tile.lanes)) as panel:
                first = b.add(start, b.mul(panel, tile.lanes))
                self._runs(self.lane, first, b.minimum(b.add(first, tile.lanes), stop), run)
