"""Maps between memory that runs along different axes: relaid operands, transposed results.

The vector lanes run along the axis that results lie along. What is read lies along another one, the *crossing* axis;
squares of LANES × LANES elements are read along that and turned in registers, where a gather would take an
instruction per element.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.turning import turned
from torturous.compiler.kernel import Kernel, Load
from torturous.compiler.schedule import loads, roots, walk

FEWEST = 8
"""Places along the crossing axis that are worth turning."""
MOST_EXPRESSIONS = 12
"""What a kernel may compute: it is written LANES times."""


def crossing_axis(kernel: Kernel) -> int | None:
    """The axis that operands lie along, where that is not the one that results lie along."""
    lanes = kernel.lane_axis
    if kernel.reduced or kernel.derived or len(kernel.axes) < 2:
        return None
    if any(store.address.factor(lanes) != 1 for store in kernel.stores):
        return None
    if len(list(islice(walk(roots(kernel)), MOST_EXPRESSIONS + 1))) > MOST_EXPRESSIONS:
        return None
    for axis in reversed(range(len(kernel.axes))):
        extent = kernel.axes[axis].constant
        if axis != lanes and (extent is None or extent >= FEWEST) and any(
                _crosses(load, lanes, axis) for load in loads(kernel)):
            return axis
    return None


def _crosses(load: Load, lanes: int, axis: int) -> bool:
    step = load.address.factor(lanes)
    return not load.guards and step not in (0, 1) and load.address.factor(axis) == 1


class Squares:
    """Writes the body of a map in squares."""

    def __init__(self, writer: KernelWriter, axis: int) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.kernel = writer.kernel
        self.axis = axis
        self.lanes = self.kernel.lane_axis
        self.crossing = [load for load in loads(self.kernel) if _crosses(load, self.lanes, axis)]

    def write(self, line: Point, start: Integer, stop: Integer) -> None:
        """Places `start` to `stop` of the lane axis, LANES places of the crossing axis from the line's on."""
        b = self.builder
        length = b.sub(stop, start)
        full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
        main = b.add(start, full)
        if full != 0:
            loop = b.begin_loop(start, main, LANES)
            self._square(line, loop.index, stop, None, None)
            b.end_loop(loop)
        left = b.sub(length, full)
        if isinstance(left, int):
            if left:
                self._square(line, main, stop, self.writer.tail_mask(left, LANES), left)
            return
        b.when(b.compare("sgt", left, 0),
               lambda: self._square(line, main, stop, self.writer.tail_mask(left, LANES), None))

    def _square(self, line: Point, first: Integer, stop: Integer, mask: str | None, tail: int | None) -> None:
        b, writer = self.builder, self.writer
        extent = writer.size(self.kernel.axes[self.axis])
        across = line.axes[self.axis]
        whole = isinstance(extent, int) and extent % LANES == 0
        reading = None if whole else writer.tail_mask(b.sub(extent, across), LANES)
        columns: dict[int, list[str]] = {}
        for load in self.crossing:
            rows = []
            for lane in range(LANES):
                place = b.add(first, lane)
                if mask is not None:  # A lane past the end reads what the first one does.
                    place = b.choose(b.compare("slt", place, stop), place, first)
                point = Point(line.axes | {self.lanes: place}, self.axis, LANES, reading)
                rows.append(writer.to_memory(writer.emit(load, point), load.dtype, LANES))
            memory = f"<{LANES} x {writer.memory_kind(load.dtype)}>"
            columns[id(load)] = turned(b, memory, rows)
        for position in range(LANES):
            here = b.add(across, position)

            def store(here: Integer = here, position: int = position) -> None:
                point = Point(line.axes | {self.lanes: first, self.axis: here}, self.lanes, LANES, mask, tail)
                for load in self.crossing:
                    value = writer.from_memory(columns[id(load)][position], load.dtype, LANES)
                    point.memo[id(load)] = value
                writer.store_all(self.kernel.stores, point)

            self._where_it_exists(here, extent, whole, store)

    def _where_it_exists(self, here: Integer, extent: Integer, whole: bool, body: Callable[[], None]) -> None:
        if whole:
            body()
        else:
            self.builder.when(self.builder.compare("slt", here, extent), body)

