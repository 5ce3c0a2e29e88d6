"""Gradients of the weights of convolutions in which channels keep to themselves: sums over planes.

An item is a pair of channels. Band by band the plane that the window slid over and the plane of gradients are copied
(see `planes`), lines set apart alike in both, so that a tap is a sum of products of two stretches of memory, one of
them shifted; what lies between the lines is zero in the gradient. All taps go through a band together, a chain of
LANES lanes each, in blocks as `ir.contraction` defines them (PLANEWISE).
"""

from __future__ import annotations

from itertools import product as combinations
from math import gcd

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.combining import folded
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Work
from torturous.codegen.microkernel import registers_each
from torturous.codegen.operands import loaded, split
from torturous.codegen.planes import Planes, Reach, three_axes
from torturous.codegen.side import Side
from torturous.compiler.sizes import ZERO, Size, product
from torturous.ir.contraction import BLOCK
from torturous.ir.reduction import SUM

BAND_BYTES = 20 << 10
"""Of the lines that are copied at a time, about."""


class WindowSums:
    """Writes one kernel."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        kernel = writer.kernel
        assert kernel.product is not None
        self.first = len(kernel.axes)
        extents = kernel.axes + kernel.reduced
        loads = [loaded(side) for side in kernel.product]
        self.image, self.upstream = loads[kernel.windowed], loads[1 - kernel.windowed]
        self.dtype = kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
        self.e = Arithmetic(self.b, self.dtype, LANES)
        self.slides, self.taps, reaches = three_axes(kernel, (self.first, len(extents)), (0, self.first))
        self.depth, self.lines, self.along = reaches
        self.samples = [axis for axis in range(self.first, len(extents)) if axis not in self.slides]
        self.pairs = [axis for axis in range(self.first) if axis not in self.taps]
        self.length = self.along.places
        self.pitch = self.length + kernel.gap
        self.band = self._band()
        end = ZERO + 2 * self._chains() * LANES * self.bytes
        """The chains of all taps, the sums of their blocks, then the planes."""
        side = Side(writer, self.image, self.dtype, self.pairs, [], [])
        self.planes = Planes(writer, side, [self.depth, self.lines, self.along], 1, ZERO, self.band, self.pitch, 1, end)
        side = Side(writer, self.upstream, self.dtype, self.pairs, [], [])
        steps = [self.upstream.address.factor(axis) if axis >= 0 else ZERO for axis in self.slides]
        plain = [Reach(1, reach.places, 1, 0, 0, 1, reach.places, step)
                 for reach, step in zip((self.depth, self.lines, self.along), steps, strict=True)]
        self.gradients = Planes(writer, side, plain, 1, ZERO, self.band, self.pitch, 1, end + self.planes.size)

    def _band(self) -> int:
        """Lines copied at a time: whole vectors together."""
        pitch, lines = self.pitch.constant, self.lines.places.constant
        if pitch is None or lines is None:
            return LANES
        whole = LANES // gcd(pitch, LANES)
        wide = 1 + self.depth.taps * len(self.lines.phases) * len(self.along.phases)
        fits = max(1, BAND_BYTES // (max(pitch, 1) * self.bytes * wide * whole)) * whole
        return max(1, min(lines, fits)) if lines <= fits else fits

    def _chains(self) -> int:
        return self.depth.taps * self.lines.taps * self.along.taps

    def scratch(self) -> Size:
        """Bytes a worker needs."""
        return self.planes.size + self.gradients.size + 2 * self._chains() * LANES * self.bytes

    # The whole ---------------------------------------------------------------------------------------------------
    def write(self) -> Work:
        b, w = self.b, self.writer
        kernel = w.kernel
        extents = [w.size(kernel.axes[axis]) for axis in self.pairs]
        items: Integer = 1
        for extent in extents:
            items = b.mul(items, extent)
        granule = w.argument(Argument("granule"), "i64")
        first = b.mul("%first_piece", granule)
        last = b.minimum(b.mul("%last_piece", granule), items)
        with looping(b, first, last) as item:
            pair = split(w, item, extents)
            with looping(b, 0, 2 * self._chains() * LANES, LANES) as place:
                b.store(self.e.kind, self.e.constant(0), b.offset("%scratch", b.mul(place, self.bytes)), self.bytes)
            self._sum(pair)
            self._epilogue(dict(zip(self.pairs, pair, strict=True)))
        outer = product(kernel.axes[axis] for axis in self.pairs)
        return Work(outer, (), product(kernel.reduced) * self._chains() + 1)

    def _sum(self, pair: list[Integer]) -> None:
        """All products of an item."""
        b, w = self.b, self.writer
        kernel = w.kernel
        samples = [w.size(kernel.reduced[axis - self.first]) for axis in self.samples]
        count: Integer = 1
        for extent in samples:
            count = b.mul(count, extent)
        deep, lines = w.size(self.depth.places), w.size(self.lines.places)
        pitch = w.size(self.pitch)
        per_plane = b.ceil_div(b.mul(lines, pitch), LANES)
        """Steps of LANES products."""
        total = b.mul(b.mul(count, deep), per_plane)
        origins = [side.origin(pair) for side in (self.planes, self.gradients)]
        with looping(b, 0, count) as number, looping(b, 0, deep) as plane, looping(b, 0, lines, self.band) as line:
            sample = split(w, number, samples)
            starts = []
            for load, origin in zip((self.image, self.upstream), origins, strict=True):
                place: Integer = 0
                for axis, index in zip(self.samples, sample, strict=True):
                    place = b.add(place, b.mul(index, w.size(load.address.factor(axis))))
                starts.append(b.offset(origin, b.mul(place, load.dtype.itemsize)))
            rows = b.minimum(self.band, b.sub(lines, line))
            self.planes.copy(starts[0], plane, line, rows)
            self.gradients.copy(starts[1], plane, line, rows)
            step = b.add(b.mul(b.add(b.mul(number, deep), plane), per_plane), b.div(b.mul(line, pitch), LANES))
            past = b.add(step, b.ceil_div(b.mul(rows, pitch), LANES))
            run = b.begin_runs(step, past, [])
            (now,) = run.carried
            stop = b.minimum(past, b.mul(b.add(b.div(now, BLOCK), 1), BLOCK))
            self._run(b.sub(now, step), b.sub(stop, step))
            ends = b.value(f"or i1 {b.compare('eq', b.rem(stop, BLOCK), 0)}, {b.compare('eq', stop, total)}")
            b.when(ends, lambda: self._join(b.compare("sle", stop, BLOCK)))
            b.end_runs(run, [stop])

    # Chains ------------------------------------------------------------------------------------------------------
    def _chain(self, number: int, summed: bool) -> str:
        """Where a tap's chain lies, or the sum of its blocks."""
        return self.b.offset("%scratch", (number + self._chains() * summed) * LANES * self.bytes)

    def _run(self, first: Integer, past: Integer) -> None:
        """Vectors `first` to `past` of a band enter every tap's chain; as many taps at a time as registers hold."""
        b, e = self.b, self.e
        registers = registers_each(self.writer.target, self.bytes)
        most = max(2, self.writer.target.registers // registers - 3)
        taps = list(enumerate(combinations(*map(range, (self.depth.taps, self.lines.taps, self.along.taps)))))
        groups = -(-len(taps) // most)
        size = -(-len(taps) // groups)
        gradients = self.gradients.base()
        image = self.planes.base()
        for start in range(0, len(taps), size):
            group = taps[start:start + size]
            begun = [(e.kind, b.load(e.kind, self._chain(number, False), self.bytes)) for number, _ in group]
            offsets = []
            for _, (deep, line, along) in group:
                places = self.lines.place(0, line), self.along.place(0, along)
                assert places[0] is not None and places[1] is not None
                offsets.append(self.planes.offset(0, deep, places[0], places[1]))
            loop = b.begin_loop(first, past, 1, begun)
            at = b.mul(loop.index, LANES * self.bytes)
            gradient = b.load(e.kind, b.offset(gradients, at), self.bytes)
            here = b.offset(image, at)
            after = []
            for offset, before in zip(offsets, loop.carried, strict=True):
                value = b.load(e.kind, b.offset(here, offset), self.bytes)
                after.append(e.multiply_add(gradient, value, before))
            after = b.end_loop(loop, after)
            for (number, _), value in zip(group, after, strict=True):
                b.store(e.kind, value, self._chain(number, False), self.bytes)

    def _join(self, fresh: str) -> None:
        """A block's chains join the sums, and begin anew."""
        b, e = self.b, self.e
        with looping(b, 0, self._chains() * LANES * self.bytes, LANES * self.bytes) as place:
            chain = b.offset("%scratch", place)
            summed = b.offset(chain, self._chains() * LANES * self.bytes)
            value = b.load(e.kind, chain, self.bytes)
            total = e.add(b.load(e.kind, summed, self.bytes), value)
            b.store(e.kind, b.value(f"select i1 {fresh}, {e.kind} {value}, {e.kind} {total}"), summed, self.bytes)
            b.store(e.kind, e.constant(0), chain, self.bytes)

    # The epilogue ------------------------------------------------------------------------------------------------
    def _epilogue(self, pair: dict[int, Integer]) -> None:
        """Combines each tap's lanes pairwise and stores the result."""
        b, w = self.b, self.writer
        kernel = w.kernel
        with looping(b, 0, self._chains()) as number:
            place = b.add(b.mul(number, LANES * self.bytes), self._chains() * LANES * self.bytes)
            vector = b.load(self.e.kind, b.offset("%scratch", place), self.bytes)
            axes: dict[int, Integer] = {axis: 0 for axis in range(len(kernel.axes) + len(kernel.reduced))}
            taps = split(w, number, [self.depth.taps, self.lines.taps, self.along.taps])
            axes |= pair | {axis: tap for axis, tap in zip(self.taps, taps, strict=True) if axis >= 0}
            point = Point(axes, None, 1)
            point.accumulated = [folded(w, SUM, self.dtype, vector)]
            for store in kernel.stores:
                w.store(w.emit(store.expression, point), store.buffer, store.address, point)
