"""Planes: the lines that a window slides over, copied into scratch memory with zeros where it reaches over the border.

Where channels keep to themselves (depth-wise convolutions, groups of few channels) a plane is read for a handful of
products per element: what matters is that every vector of it is loaded once, wherever the window stands. A copy of a
band of lines stays in the first cache, knows no borders, and lies *apart by phases*: where the window moves by steps
of s, every s-th element lies beside the next, in lines and along lines, so that all vectors are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, KernelWriter
from torturous.codegen.side import Side
from torturous.compiler.kernel import Kernel, Window
from torturous.compiler.sizes import ONE, ZERO, Affine, Size

MOST_WRITTEN_OUT = 6
"""Vectors of a line that are copied without a loop."""


@dataclass(frozen=True)
class Reach:
    """Where the taps of a window stand along one axis, seen from an output place.

    Output places come in `period` residues: place = period·m + residue. Tap k of a residue reads place
    step·m + e, with e known when generating; that is place m + shift of the elements of one phase.
    """

    taps: int
    places: Size
    """Of the output."""
    step: int
    spacing: int
    offset: int
    divisor: int
    extent: Size
    """Of what is read."""
    stride: Size
    """In memory, in elements."""

    @staticmethod
    def of(window: Window, slides: int, tap: int, extents: list[Size]) -> Reach:
        """`slides` and `tap` are the loops of the output place and of the tap; −1 where that has a single value."""
        position = window.position
        offset, step, spacing = (_known(s) for s in (position.constant, position.factor(slides), position.factor(tap)))
        taps = _known(extents[tap]) if tap >= 0 else 1
        places = extents[slides] if slides >= 0 else ONE
        return Reach(taps, places, step or 1, spacing, offset, window.divisor, window.extent, window.stride)

    @staticmethod
    def none() -> Reach:
        """Of an axis that is not there."""
        return Reach(1, ONE, 1, 0, 0, 1, ONE, ZERO)

    @property
    def period(self) -> int:
        return self.divisor

    def place(self, residue: int, tap: int) -> int | None:
        """e of a tap, None where it falls between the elements."""
        total = self.step * residue + self.spacing * tap + self.offset
        return total // self.divisor if total % self.divisor == 0 else None

    def pace(self) -> int:
        """What is read moves on by so much from one m to the next."""
        return self.step if self.divisor == 1 else 1

    def places_read(self) -> list[int]:
        found = {self.place(residue, tap) for residue in range(self.period) for tap in range(self.taps)}
        return sorted(place for place in found if place is not None)

    @property
    def first(self) -> int:
        """The least shift."""
        return min((place // self.pace() for place in self.places_read()), default=0)

    @property
    def last(self) -> int:
        return max((place // self.pace() for place in self.places_read()), default=0)

    @property
    def phases(self) -> list[int]:
        return sorted({place % self.pace() for place in self.places_read()}) or [0]

    def split(self, place: int) -> tuple[int, int]:
        """Number of the phase, and shift from the first one."""
        return self.phases.index(place % self.pace()), place // self.pace() - self.first

    @property
    def span(self) -> int:
        """How many more elements of a phase are read than there are places m."""
        return self.last - self.first


def _known(size: Size) -> int:
    assert size.constant is not None, "windows of a known shape"
    return size.constant


def axis_of(affine: Affine, first: int, past: int) -> int:
    """The loop among these that a position moves with; −1 if none."""
    return next((axis for axis in affine.terms if first <= axis < past), -1)


def three_axes(kernel: Kernel, slides: tuple[int, int], taps: tuple[int, int]
               ) -> tuple[list[int], list[int], list[Reach]]:
    """Of a windowed operand's last three axes: the loops that slide along them and those of their taps, found between
    two loops each, and what the windows reach. An axis that is not there has −1 and reaches nothing."""
    extents = kernel.axes + kernel.reduced
    found = [(axis_of(window.position, *slides), axis_of(window.position, *taps)) for window in kernel.windows]
    reaches = [Reach.of(window, *axes, extents) for window, axes in zip(kernel.windows, found, strict=True)]
    missing = 3 - len(found)
    return ([-1] * missing + [slide for slide, _ in found], [-1] * missing + [tap for _, tap in found],
            [Reach.none()] * missing + reaches)


class Planes:
    """The planes of one operand under its windows: up to three axes, of which the first is gone through one by one."""

    def __init__(self, writer: KernelWriter, side: Side, reaches: list[Reach], channels: int, channel_stride: Size,
                 rows: int, pitch: Size, unit: int, place: Size) -> None:
        """`rows` lines of m are held, a line takes `pitch` elements, in units of `unit` that lie together; the copy
        lies at `place` bytes in scratch memory."""
        self.writer = writer
        self.b = writer.builder
        self.side = side
        self.depth, self.lines, self.along = reaches
        self.channels = channels
        self.channel_stride = channel_stride
        self.rows = rows + self.lines.span
        self.pitch = pitch
        self.unit = unit
        self.place = place
        self.bytes = side.dtype.itemsize
        self.e = Arithmetic(self.b, side.dtype, LANES)
        self.behind = LANES + self.along.span * unit
        """Elements behind the last line that whole vectors may read."""
        self.whole = self.pitch * self.rows + (self.behind + LANES)
        """Elements of a plane of one channel, tap of the depth, and phase."""

    @property
    def size(self) -> Size:
        """Bytes of scratch memory."""
        count = self.channels * self.depth.taps * len(self.lines.phases) * len(self.along.phases)
        return self.whole * (count * self.bytes)

    def offset(self, channel: int, depth: int, line: int, along: int) -> Integer:
        """Where, in bytes, what a tap reads of the first output place lies: e of the line and along it are given."""
        b, w = self.b, self.writer
        line_phase, row = self.lines.split(line)
        along_phase, shift = self.along.split(along)
        plane = self._plane(b.add(b.mul(channel, self.depth.taps), depth), line_phase, along_phase)
        inside = b.add(b.mul(w.size(self.pitch), row), shift * self.unit)
        return b.mul(b.add(plane, inside), self.bytes)

    def _plane(self, outer: Integer, line_phase: Integer, along_phase: int) -> Integer:
        b = self.b
        number = b.add(b.mul(outer, len(self.lines.phases)), line_phase)
        number = b.add(b.mul(number, len(self.along.phases)), along_phase)
        return b.mul(number, self.writer.size(self.whole))

    def base(self) -> str:
        return self.b.offset("%scratch", self.writer.size(self.place))

    def origin(self, batch: list[Integer]) -> str:
        """Where the operand's plane begins in a batch; its address knows how far the first window reaches over it."""
        start = self.side.origin(batch)
        for reach in (self.depth, self.lines, self.along):
            if reach.divisor == 1:
                back = self.writer.size(reach.stride * (-reach.offset * self.side.item))
                start = self.b.offset(start, back)
        return start

    # Copying -----------------------------------------------------------------------------------------------------
    def copy(self, origin: str, deep: Integer, first: Integer, rows: Integer) -> None:
        """Brings in the lines that output places m from `first` on read, `rows` of them, at a place `deep` of the
        outermost axis."""
        b, w = self.b, self.writer
        depth, lines = self.depth, self.lines
        count = b.add(rows, lines.span)
        with looping(b, 0, self.channels) as channel, looping(b, 0, depth.taps) as tap:
            deep_place = b.add(b.add(b.mul(deep, depth.step), b.mul(tap, depth.spacing)), depth.offset)
            there = b.compare("ult", deep_place, w.size(depth.extent))
            start = b.add(b.mul(channel, w.size(self.channel_stride)), b.mul(deep_place, w.size(depth.stride)))
            outer = b.add(b.mul(channel, depth.taps), tap)
            for number, phase in enumerate(lines.phases):
                with looping(b, 0, count) as row:
                    group = b.add(b.add(first, row), lines.first)
                    line = b.add(b.mul(group, lines.pace()), phase)
                    inside = b.value(f"and i1 {there}, {b.compare('ult', line, w.size(lines.extent))}")
                    into = []
                    for along in range(len(self.along.phases)):
                        place = b.add(self._plane(outer, number, along), b.mul(row, w.size(self.pitch)))
                        into.append(b.offset(self.base(), b.mul(place, self.bytes)))
                    source = b.offset(origin, b.mul(b.add(start, b.mul(line, w.size(lines.stride))), self.side.item))
                    b.when(inside, lambda source=source, into=into: self._line(source, into))  # type: ignore[misc]
                    outside = b.value(f"xor i1 {inside}, true")
                    b.when(outside, lambda into=into: self._empty(into))  # type: ignore[misc]
                for along in range(len(self.along.phases)):  # What whole vectors read behind the last line.
                    place = b.add(self._plane(outer, number, along), b.mul(count, w.size(self.pitch)))
                    end = b.offset(self.base(), b.mul(place, self.bytes))
                    self._zeros(end, 0, self.behind)

    def _zeros(self, line: str, start: Integer, stop: Integer) -> None:
        """Zeros in whole vectors, which run over `stop`."""
        stretches(self.writer, start, stop, lambda at, mask: self.b.store(
            self.e.kind, self.e.constant(0), self.b.offset(line, self.b.mul(at, self.bytes)), self.bytes))

    def _empty(self, lines: list[str]) -> None:
        for line in lines:
            self._zeros(line, 0, self.writer.size(self.pitch))

    def _line(self, source: str, into: list[str]) -> None:
        """One line, into its phases; vectors run over its end, where the next line will lie."""
        b, w, along = self.b, self.writer, self.along
        pace, unit = along.pace(), self.unit
        begin = max(0, along.first)
        """The first m + shift of a phase that is there."""
        before = (begin - along.first) * unit
        wanted = b.sub(w.size(self.pitch), before)
        for line in into:
            self._zeros(line, 0, before)
        have = b.sub(w.size(along.extent), begin * pace)
        count = b.minimum(wanted, b.mul(b.ceil_div(b.maximum(have, 0), pace), unit))
        source = b.offset(source, begin * pace * unit * self.side.item)
        targets = [b.offset(line, before * self.bytes) for line in into]
        if pace == 1:
            stretches(w, 0, count, lambda at, mask: self.side.write(
                self.side.read(b.offset(source, b.mul(at, self.side.item)), LANES, mask),
                b.offset(targets[0], b.mul(at, self.bytes)), LANES))
        elif unit > 1:
            self._units(source, targets, b.div(count, unit), have)
        else:
            stretches(w, 0, count, lambda at, mask: self._dealt(source, targets, at, have))
        end = count if unit > 1 else b.mul(b.ceil_div(count, LANES), LANES)
        for target in targets:
            self._zeros(target, end, wanted)

    def _units(self, source: str, targets: list[str], count: Integer, have: Integer) -> None:
        """Elements of several samples each: a phase takes every so-manieth; vectors run over their end."""
        b, pace = self.b, self.along.pace()
        with looping(b, 0, count) as m:
            for target, phase in zip(targets, self.along.phases, strict=True):
                place = b.add(b.mul(m, pace), phase)

                def copy(place: Integer = place, target: str = target) -> None:
                    start = b.offset(source, b.mul(place, self.unit * self.side.item))
                    into = b.offset(target, b.mul(m, self.unit * self.bytes))
                    stretches(self.writer, 0, self.unit, lambda at, mask: self.side.write(
                        self.side.read(b.offset(start, b.mul(at, self.side.item)), LANES, mask),
                        b.offset(into, b.mul(at, self.bytes)), LANES))

                def clear(target: str = target) -> None:
                    self._zeros(b.offset(target, b.mul(m, self.unit * self.bytes)), 0, self.unit)

                if phase == 0:
                    copy()
                    continue
                exists = b.compare("slt", place, have)
                b.when(exists, copy)
                b.when(b.value(f"xor i1 {exists}, true"), clear)

    def _dealt(self, source: str, targets: list[str], at: Integer, have: Integer) -> None:
        """LANES elements of every phase, from `pace` vectors beside each other."""
        b, w, pace = self.b, self.writer, self.along.pace()
        first = b.mul(at, pace)
        left = b.sub(have, first)
        vectors = []
        for number in range(pace):
            rest = b.sub(left, number * LANES)
            if isinstance(rest, int) and rest <= 0:
                vectors.append(self.e.constant(0))
                continue
            mask = None if isinstance(rest, int) and rest >= LANES else w.tail_mask(rest, LANES)
            place = b.offset(source, b.mul(b.add(first, number * LANES), self.side.item))
            vectors.append(self.side.read(place, LANES, mask))
        for target, phase in zip(targets, self.along.phases, strict=True):
            wanted = [lane * pace + phase for lane in range(LANES)]
            value = picked(self.e, vectors, [(place // LANES, place % LANES) for place in wanted])
            self.side.write(value, b.offset(target, b.mul(at, self.bytes)), LANES)


def picked(e: Arithmetic, vectors: list[str], wanted: list[tuple[int, int]]) -> str:
    """A vector of elements of several vectors: (number of the vector, lane) for each lane."""
    result = vectors[0]
    for number in range(1, len(vectors)):
        lanes = []
        for lane, (vector, place) in enumerate(wanted):
            earlier = place if number == 1 else lane  # The first exchange puts the first vector's elements in place.
            lanes.append(LANES + place if vector == number else earlier)
        indices = ", ".join(f"i32 {lane}" for lane in lanes)
        result = e.builder.value(
            f"shufflevector {e.kind} {result}, {e.kind} {vectors[number]}, <{LANES} x i32> <{indices}>")
    return result


def stretches(writer: KernelWriter, start: Integer, stop: Integer, body: Callable[[Integer, str | None], None]) -> None:
    """`body(place, mask)` for every vector from `start` to `stop`, the last one masked."""
    b = writer.builder
    if isinstance(start, int) and isinstance(stop, int) and stop - start <= MOST_WRITTEN_OUT * LANES:
        for at in range(start, stop, LANES):
            body(at, None if stop - at >= LANES else writer.tail_mask(stop - at, LANES))
        return
    length = b.maximum(b.sub(stop, start), 0)
    full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
    main = b.add(start, full)
    with looping(b, start, main, LANES) as index:
        body(index, None)
    left = b.sub(length, full)
    if left == 0:
        return
    if isinstance(left, int):
        body(main, writer.tail_mask(left, LANES))
    else:
        b.when(b.compare("sgt", left, 0), lambda: body(main, writer.tail_mask(left, LANES)))
