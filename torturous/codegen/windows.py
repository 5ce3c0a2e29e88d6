"""Convolutions in which channels keep to themselves: a window's taps are written out, and a tile of output places goes
through them together.

Items are bands of lines of one plane; their input is copied with its borders first (see `planes`). Lanes are places
along a line, where samples are no lanes. A tile is some lines on top of each other, so that a vector once loaded serves
every tap of theirs that stands on it; short lines are taken as one instead, with what lies between them.
Each result's products are added in the contraction's order: taps, then channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as combinations
from math import inf

from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.microkernel import registers_each
from torturous.codegen.operands import loaded, split
from torturous.codegen.planes import Planes, picked, stretches, three_axes
from torturous.codegen.side import Side
from torturous.compiler.sizes import ZERO, Size, product

BAND_BYTES = 24 << 10
"""Of the lines an item copies, about: they share the first cache with its results."""
MOST_LINES = 4
"""Lines of a tile, or vectors of short lines."""
MOST_WRITTEN_OUT = 320
"""Multiply-adds of a tile."""
UNKNOWN_LINES = 8
"""Lines of an item where sizes are not known."""
MOST_HELD = 12
"""Weights that stay in registers."""


@dataclass(frozen=True)
class Product:
    """A multiply-add of a tile: which accumulator, which weight, and what it reads."""

    at: int
    residues: tuple[int, int]
    row: int
    taps: tuple[int, int, int]
    channel: int
    places: tuple[int, int]
    """What the taps stand on, along the lines' axis and along lines, for the first output place."""


class Windows:
    """Writes one kernel."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        first = len(kernel.axes)
        extents = kernel.axes + kernel.reduced
        loads = [loaded(side) for side in kernel.product]
        self.image, self.weights = loads[kernel.windowed], loads[1 - kernel.windowed]
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.e = Arithmetic(self.b, self.dtype, LANES)
        self.slides, self.taps, reaches = three_axes(kernel, (0, first), (first, len(extents)))
        self.depth, self.lines, self.along = reaches
        self.unit = self.along.stride.constant or 1
        """Samples that lie together."""
        self.sample = first - 1 if self.unit > 1 else -1
        channels = [axis for axis in range(first, len(extents)) if axis not in self.taps]
        assert len(channels) <= 1, "channels are one loop"
        self.channel = channels[0] if channels else -1
        self.channels = extents[self.channel].constant or 0 if channels else 1
        inner = {*self.slides, self.sample}
        self.rows = [axis for axis in range(first) if axis not in inner and self.image.address.factor(axis) == 0
                     and self.weights.address.factor(axis) != 0]
        self.row_count = product(extents[axis] for axis in self.rows).constant or 0
        self.batch = [axis for axis in range(first) if axis not in inner and axis not in self.rows]
        self.places = self.along.places * self.unit  # Of a line, all residues.
        self._choose()
        side = Side(writer, self.image, self.dtype, self.batch, [], [])
        factor = self.image.address.factor(self.channel) if channels else ZERO
        self.planes = Planes(writer, side, [self.depth, self.lines, self.along], self.channels, factor,
                             self.held_lines, self.pitch, self.unit, self._results_bytes())

    # Sizes -------------------------------------------------------------------------------------------------------
    def _choose(self) -> None:
        """How lines are cut into bands and tiles."""
        # Places m of a line, at most; the last ones may lie behind it.
        period = self.along.period
        known, lines = self.along.places.constant, self.lines.places.constant
        groups = None if lines is None else -(-lines // self.lines.period)
        length = None if known is None else -(-known // period) * self.unit
        self.length = self.places if length is None else Size.of(length)
        self.pitch = self.length + self.along.span * self.unit
        registers = registers_each(self.writer.target, self.bytes)
        available = self.writer.target.registers // registers
        each = self.row_count * self.lines.period * period
        weights = self.depth.taps * self.lines.taps * self.along.taps * self.channels * self.row_count
        self.held = weights <= min(MOST_HELD, available - 3 * each)
        most = max(1, min(MOST_LINES, MOST_WRITTEN_OUT // max(weights, 1),
                          (available - 2 - weights * self.held) // each))
        wide = self.channels * self.depth.taps * len(self.lines.phases) * len(self.along.phases)
        if groups is None or length is None:
            self.flat, self.tile, self.band = False, most, UNKNOWN_LINES * max(1, most)
        else:
            pitch = length + self.along.span * self.unit
            lines_cost = -(-length // LANES) * LANES / length
            flat_cost = -(-((groups - 1) * pitch + length) // LANES) * LANES / (groups * length)
            self.flat = flat_cost < 0.8 * lines_cost
            line = pitch * self.bytes * wide
            fits = max(1, BAND_BYTES // line - self.lines.span)
            if self.flat:
                self.band = min(groups, max(fits, 1))
                self.band = -(-groups // -(-groups // self.band))
                span = (self.band - 1) * pitch + length
                vectors = -(-span // LANES)
                self.tile = min(range(1, most + 1), key=lambda count: (-(-vectors // count) * count, -count))
            else:
                def cost(count: int) -> float:
                    rows = count * self.lines.pace() + self.lines.taps
                    return -(-groups // count) * count * (1 + rows / (count * self.lines.taps)) if groups else inf
                self.tile = min(range(1, most + 1), key=cost, default=1)
                self.band = min(-(-groups // self.tile), max(1, fits // self.tile)) * self.tile
        self.result_pitch = self.pitch if self.flat else self.length + (LANES - 1)
        self.held_lines = self.band if self.flat else -(-self.band // self.tile) * self.tile

    def _results_bytes(self) -> Size:
        return self._result_plane() * (self.row_count * self.lines.period * self.along.period * self.bytes)

    def _result_plane(self) -> Size:
        return self.result_pitch * self.held_lines + MOST_LINES * LANES

    def scratch(self) -> Size:
        """Bytes a worker needs: results, then the copied lines."""
        return self._results_bytes() + self.planes.size + MOST_LINES * LANES * self.bytes

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        per_item = self.band * self.lines.period
        extents = [w.size(kernel.axes[axis]) for axis in self.batch]
        deep = w.size(self.depth.places)
        bands = b.ceil_div(w.size(self.lines.places), per_item)
        items: Integer = b.mul(deep, bands)
        for extent in extents:
            items = b.mul(items, extent)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        with looping(b, first, last) as item:
            *batch, plane, band = split(w, item, [*extents, deep, bands])
            groups = b.ceil_div(w.size(self.lines.places), self.lines.period)
            start = b.mul(band, self.band)
            count = b.minimum(self.band, b.sub(groups, start))
            self.planes.copy(self.planes.origin(batch), plane, start, count)
            point = Point(dict(zip(self.batch, batch, strict=True)), None, 1)
            self._compute(point, count)
            self._epilogue(point, plane, start, count)
        outer = product([*(kernel.axes[axis] for axis in self.batch), self.depth.places])
        cost = product(kernel.reduced) * self.places * self.row_count * self.lines.places
        return Work(outer, (Divided(self.lines.places, per_item, per_item),), cost + 1)

    # Products ----------------------------------------------------------------------------------------------------
    def _products(self) -> list[Product]:
        """All of a tile, such that what stands on the same input line follows each other; in the order of the sum for
        each result."""
        lines, along = self.lines, self.along
        way = -1 if lines.spacing < 0 else 1
        found = []
        residues = combinations(range(lines.period), range(along.period))
        ranges = (range(self.tile), residues, range(self.row_count), range(self.depth.taps), range(lines.taps),
                  range(along.taps), range(self.channels))
        for at, both, row, deep, line, lane, channel in combinations(*ranges):
            places = lines.place(both[0], line), along.place(both[1], lane)
            if places[0] is None or places[1] is None:
                continue
            input_line = places[0] + (0 if self.flat else at * lines.pace())
            product_ = Product(at, both, row, (deep, line, lane), channel, (places[0], places[1]))
            found.append(((deep, way * input_line, lane, channel, at, row), product_))
        return [product_ for _, product_ in sorted(found, key=lambda pair: pair[0])]

    def _weights(self, item: Point) -> str:
        """Where the weights of an item begin."""
        b, w = self.b, self.writer
        everywhere: dict[int, Integer] = {axis: 0 for axis in range(len(w.kernel.axes) + len(w.kernel.reduced))}
        place, _, _ = w.affine(self.weights.address, Point(everywhere | item.axes, None, 1))
        return b.offset(w.pointer(self.weights.buffer), b.mul(place, self.weights.dtype.itemsize))

    def _weight(self, start: str, row: int, taps: tuple[int, int, int], channel: int) -> str:
        """A weight in every lane."""
        b, w = self.b, self.writer
        place: Integer = 0
        indices = [*zip(self.rows, self._row_place(row), strict=True), *zip(self.taps, taps, strict=True),
                   (self.channel, channel)]
        for axis, index in indices:
            if index:
                place = b.add(place, b.mul(w.size(self.weights.address.factor(axis)), index))
        value = w._repeated(start, place, self.weights.dtype, LANES)
        return convert(b, value, self.weights.dtype, self.dtype, LANES)

    def _row_place(self, row: int) -> list[int]:
        places: list[int] = []
        for axis in reversed(self.rows):
            extent = self.writer.kernel.axes[axis].constant or 1
            places.insert(0, row % extent)
            row //= extent
        return places

    def _compute(self, item: Point, count: Integer) -> None:
        """All results of an item, to scratch memory."""
        b, w = self.b, self.writer
        products = self._products()
        weights = self._weights(item)
        held = {}
        if self.held:
            held = {key: self._weight(weights, *key) for key in dict.fromkeys(
                (p.row, p.taps, p.channel) for p in products)}
        pitch, result_pitch, length = w.size(self.pitch), w.size(self.result_pitch), w.size(self.length)
        base = self.planes.base()

        def tile(read: Integer, written: Integer) -> None:
            """`read` and `written` are where the tile's first place lies in the planes and in the results."""
            apart: Integer = LANES if self.flat else pitch
            start = b.offset(base, b.mul(read, self.bytes))
            steps = [b.mul(b.mul(apart, at), self.bytes) for at in range(self.tile)]
            loaded_: dict[tuple, str] = {}
            sums: dict[tuple, str] = {}
            for p in products:
                line = p.places[0] + (0 if self.flat else p.at * self.lines.pace())
                key = (p.channel, p.taps[0], line, p.places[1], p.at if self.flat else 0)
                if key not in loaded_:
                    offset = self.planes.offset(p.channel, p.taps[0], line, p.places[1])
                    if self.flat:
                        offset = b.add(offset, steps[p.at])
                    loaded_[key] = b.load(self.e.kind, b.offset(start, offset), self.bytes)
                weight = held.get((p.row, p.taps, p.channel)) or self._weight(weights, p.row, p.taps, p.channel)
                result = (p.at, p.residues, p.row)
                before = sums.get(result, self.e.constant(0))
                sums[result] = self.e.multiply_add(weight, loaded_[key], before)
            apart = LANES if self.flat else result_pitch
            for at, residues, row in combinations(
                    range(self.tile), combinations(range(self.lines.period), range(self.along.period)),
                    range(self.row_count)):
                value = sums.get((at, residues, row), self.e.constant(0))
                place = b.add(self._result(row, residues), b.add(written, b.mul(apart, at)))
                b.store(self.e.kind, value, b.offset("%scratch", b.mul(place, self.bytes)), self.bytes)

        if self.flat:
            span = b.add(b.mul(b.sub(count, 1), pitch), length)
            with looping(b, 0, span, self.tile * LANES) as at:
                tile(at, at)
            return
        with looping(b, 0, count, self.tile) as line, looping(b, 0, length, LANES) as lane:
            tile(b.add(b.mul(line, pitch), lane), b.add(b.mul(line, result_pitch), lane))

    def _result(self, row: Integer, residues: tuple[Integer, int]) -> Integer:
        """Where a plane of results begins, in elements."""
        b = self.b
        number = b.add(b.mul(row, self.lines.period), residues[0])
        number = b.add(b.mul(number, self.along.period), residues[1])
        return b.mul(number, self.writer.size(self._result_plane()))

    # The epilogue ------------------------------------------------------------------------------------------------
    def _epilogue(self, item: Point, plane: Integer, start: Integer, count: Integer) -> None:
        """Reads the results back line by line and stores what the kernel makes of them."""
        b, w = self.b, self.writer
        kernel, lines = w.kernel, self.lines
        fixed: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
        fixed |= item.axes
        if self.slides[0] >= 0:
            fixed[self.slides[0]] = plane
        extents = [w.size(kernel.axes[axis]) for axis in self.rows]
        places = w.size(self.lines.places)
        first = b.mul(start, lines.period)
        past = b.minimum(b.add(first, b.mul(count, lines.period)), places)
        with looping(b, 0, self.row_count) as row, looping(b, 0, b.sub(past, first)) as line:
            here = fixed | dict(zip(self.rows, split(w, row, extents), strict=True))
            if self.slides[1] >= 0:
                here[self.slides[1]] = b.add(first, line)
            m, residue = b.div(line, lines.period), b.rem(line, lines.period)
            results = [b.add(self._result(row, (residue, along)), b.mul(m, w.size(self.result_pitch)))
                       for along in range(self.along.period)]
            self._line(here, [b.offset("%scratch", b.mul(place, self.bytes)) for place in results])

    def _line(self, here: dict[int, Integer], results: list[str]) -> None:
        """One output line, from the results of each residue."""
        b, w = self.b, self.writer
        period, unit = self.along.period, self.unit

        def store(value: str, place: Integer, sample: Integer, mask: str | None, axis: int) -> None:
            point = Point(dict(here), axis if axis >= 0 else None, LANES, mask)
            if self.slides[2] >= 0:
                point.axes[self.slides[2]] = place
            if self.sample >= 0:
                point.axes[self.sample] = sample
            point.accumulated = [value]
            for each in w.kernel.stores:
                w.store(w.emit(each.expression, point), each.buffer, each.address, point)

        def vector(line: str, at: Integer) -> str:
            return b.load(self.e.kind, b.offset(line, b.mul(at, self.bytes)), self.bytes)

        places = w.size(self.along.places)
        if unit > 1:
            with looping(b, 0, b.ceil_div(places, period)) as m:
                for residue, line in enumerate(results):
                    place = b.add(b.mul(m, period), residue)

                    def samples(line: str = line, place: Integer = place) -> None:
                        stretches(w, 0, unit, lambda sample, mask: store(
                            vector(line, b.add(b.mul(m, unit), sample)), place, sample, mask, self.sample))

                    if residue == 0:
                        samples()
                    else:
                        b.when(b.compare("slt", place, places), samples)
        elif period == 1:
            stretches(w, 0, places, lambda at, mask: store(vector(results[0], at), at, 0, mask, self.slides[2]))
        else:
            def vectors(m: Integer) -> list[str]:
                return [vector(line, m) for line in results]

            whole = LANES * period

            def group(at: Integer, masked: bool) -> None:
                parts = vectors(b.div(at, period))
                for number in range(period):
                    first = number * LANES
                    wanted = [(place % period, place // period) for place in range(first, first + LANES)]
                    place = b.add(at, first)
                    left = b.sub(places, place)
                    if masked and isinstance(left, int) and left <= 0:
                        continue
                    value = picked(self.e, parts, wanted)
                    full = not masked or (isinstance(left, int) and left >= LANES)
                    store(value, place, 0, None if full else w.tail_mask(left, LANES), self.slides[2])

            main = b.mul(b.div(places, whole), whole)
            with looping(b, 0, main, whole) as at:
                group(at, False)
            if isinstance(places, int) and isinstance(main, int):
                if places > main:
                    group(main, True)
            else:
                b.when(b.compare("slt", main, places), lambda: group(main, True))

