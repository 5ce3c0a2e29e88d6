"""Results whose lanes were channels, on their way to memory: they lie there along another axis.

An item leaves them in scratch memory line by line, in each line vectors of channels; the lines are pixels, or taps of a
window. Squares of LANES × LANES are turned, and stored along the lines.
"""

from __future__ import annotations

from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.loops import advance
from torturous.codegen.operands import split
from torturous.codegen.turning import turned
from torturous.compiler.schedule import merged_results
from torturous.compiler.sizes import product
from torturous.core.dtypes import DType

SQUARE = LANES * LANES
"""Elements of scratch memory that turning takes."""


class Columns:
    """Writes what becomes of an item's results: `lines` are the axes that it has lines for, `channels` those that are
    lanes."""

    def __init__(self, writer: KernelWriter, dtype: DType, lines: list[int], channels: list[int]) -> None:
        self.writer = writer
        self.b = writer.builder
        self.dtype = dtype
        self.bytes = dtype.itemsize
        self.kind = kind(dtype, LANES)
        kernel = writer.kernel
        # Where lines lie in memory as one axis, the innermost of several stands for all and goes on past its extent.
        merged = merged_results(kernel, lines)
        self.lines = [axes[-1] for axes in merged]
        self.extents = [writer.size(product(kernel.axes[axis] for axis in axes)) for axes in merged]
        self.channels = channels
        self.channel_extents = [writer.size(kernel.axes[axis]) for axis in channels]

    def write(self, fixed: dict[int, Integer], lines: tuple[Integer, Integer], first_channel: Integer, vectors: int,
              results: str, square: str) -> None:
        """Stores so many lines of so many vectors, from where the first one lies; the other axes are `fixed`.

        Up to LANES − 1 lines behind the last one are read; `square` is where there is room for one.
        """
        b = self.b
        line_bytes = vectors * LANES * self.bytes
        if not self.lines:
            self._vectors(fixed, first_channel, vectors, results)
            return
        first, last = lines
        most = last - first if isinstance(last, int) and isinstance(first, int) else LANES
        loop = b.begin_runs(first, last, split(self.writer, first, self.extents))
        flat, *places = loop.carried
        length = b.minimum(b.minimum(b.sub(last, flat), b.sub(self.extents[-1], places[-1])), LANES)
        here = b.offset(results, b.mul(b.sub(flat, first), line_bytes))
        with looping(b, 0, vectors) as vector:
            corner = b.offset(here, b.mul(vector, LANES * self.bytes))
            rows = [b.load(self.kind, b.offset(corner, lane * line_bytes), self.bytes) if lane < most else "poison"
                    for lane in range(LANES)]
            for lane, column in enumerate(turned(b, self.kind, rows)):
                b.store(self.kind, column, b.offset(square, lane * LANES * self.bytes), self.bytes)
            channel = b.add(first_channel, b.mul(vector, LANES))
            axes = fixed | dict(zip(self.lines, places, strict=True))
            whole = b.compare("eq", length, LANES)
            if most >= LANES:
                b.when(whole, lambda: self._square(axes, channel, square, None))
            b.when(b.value(f"xor i1 {whole}, true"),
                   lambda: self._square(axes, channel, square, self.writer.tail_mask(length, LANES)))
        b.end_runs(loop, [b.add(flat, length), *advance(b, places, self.extents, length)])

    def _square(self, axes: dict[int, Integer], first_channel: Integer, square: str, mask: str | None) -> None:
        b = self.b
        with looping(b, 0, LANES) as lane:
            own = zip(self.channels, split(self.writer, b.add(first_channel, lane), self.channel_extents), strict=True)
            point = Point(axes | dict(own), self.lines[-1], LANES, mask)
            self._store(point, b.offset(square, b.mul(lane, LANES * self.bytes)))

    def _vectors(self, fixed: dict[int, Integer], first_channel: Integer, vectors: int, results: str) -> None:
        """The only line: its channels lie side by side in memory too."""
        b = self.b
        with looping(b, 0, vectors) as vector:
            channel = b.add(first_channel, b.mul(vector, LANES))
            own = zip(self.channels, split(self.writer, channel, self.channel_extents), strict=True)
            point = Point(fixed | dict(own), self.channels[-1], LANES)
            self._store(point, b.offset(results, b.mul(vector, LANES * self.bytes)))

    def _store(self, point: Point, place: str) -> None:
        w = self.writer
        point.accumulated = [self.b.load(self.kind, place, self.bytes)]
        for store in w.kernel.stores:
            w.store(w.emit(store.expression, point), store.buffer, store.address, point)
