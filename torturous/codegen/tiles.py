"""Tiles of a row kernel: what lies along the outer run is turned in registers, and kept in scratch memory.

Lanes run along the inner run; a tile is LANES places of the outer one, each with a whole inner run.
"""

from __future__ import annotations

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.turning import turned
from torturous.compiler.kernel import Derived, Digit, Kernel, Load
from torturous.compiler.schedule import walk
from torturous.compiler.sizes import Size
from torturous.compiler.stages import Stage, Staging


def to_be_turned(kernel: Kernel) -> list[Load]:
    """Loads whose elements follow each other along the outer run, while lanes run along the inner one."""
    inner = len(kernel.axes) + len(kernel.reduced) - 1
    if kernel.lane_axis != inner or not kernel.outer_runs:
        return []

    def is_digit_of_the_inner_run(derived: Derived) -> bool:
        return isinstance(derived, Digit) and set(derived.affine.terms) == {inner}

    found = []
    for expression in walk([accumulator.expression for accumulator in kernel.accumulators]):
        if isinstance(expression, Load) and not expression.guards:
            along, across = (expression.address.factor(axis) for axis in (inner, inner - 1))
            digits = [kernel.derived[~term] for term in expression.address.terms if term < 0]
            if across == 1 and (along != 0 or digits) and all(map(is_digit_of_the_inner_run, digits)):
                found.append(expression)
    return found


class Tiles:
    """The turned loads of a kernel."""

    def __init__(self, writer: KernelWriter, staging: Staging, loads: list[Load], begin: Size) -> None:
        """Tiles lie in scratch memory from `begin` on, in bytes."""
        self.writer = writer
        self.builder = writer.builder
        self.staging = staging
        self.loads = loads
        self.inner_axis = len(writer.kernel.axes) + len(writer.kernel.reduced) - 1
        self.places: dict[int, Size] = {}
        for load in loads:
            self.places[id(load)] = begin
            begin = begin + (writer.kernel.reduced[-1] + (LANES - 1)) * (LANES * load.dtype.itemsize)
        self.end = begin
        self.start: Integer = 0
        """The present tile's first place of the outer run."""

    def _place(self, load: Load, outer: Integer, inner: Integer) -> tuple[str, str]:
        """Type and address of a load's vector in the present tile."""
        b = self.builder
        row = b.mul(b.ceil_div(self.writer.size(self.writer.kernel.reduced[-1]), LANES), LANES)
        index = b.add(b.mul(b.sub(outer, self.start), row), inner)
        start = b.add(b.mul(index, load.dtype.itemsize), self.writer.size(self.places[id(load)]))
        return f"<{LANES} x {self.writer.memory_kind(load.dtype)}>", b.offset("%scratch", start)

    def recall(self, stage: Stage, point: Point) -> None:
        """Makes known at a point what the present tile holds of what a stage reads."""
        for load in self.loads:
            if not self.staging.is_read(load, stage):
                continue
            memory, place = self._place(load, point.axes[self.inner_axis - 1], point.axes[self.inner_axis])
            value = self.builder.load(memory, place, load.dtype.itemsize)
            point.memo[id(load)] = self.writer.from_memory(value, load.dtype, point.lanes)

    def fill(self, stage: Stage, row: Point) -> None:
        """Turns what a stage reads of the LANES places of the outer run from `start` on."""
        b, first, kernel = self.builder, self.start, self.writer.kernel
        outer, inner = self.writer.size(kernel.reduced[0]), self.writer.size(kernel.reduced[-1])
        mask = None
        if not (isinstance(outer, int) and outer % LANES == 0):
            mask = self.writer.tail_mask(b.sub(outer, first), LANES)
        with looping(b, 0, inner, LANES) as start:
            for load in self.loads:
                if not self.staging.is_read(load, stage):
                    continue
                vectors = []
                for lane in range(LANES):
                    k = b.add(start, lane)
                    if not (isinstance(inner, int) and inner % LANES == 0):
                        k = b.choose(b.compare("slt", k, inner), k, start)  # What is past the end is left out later.
                    axes = row.axes | {self.inner_axis - 1: first, self.inner_axis: k}
                    point = Point(axes, self.inner_axis - 1, LANES, mask)
                    vectors.append(self.writer.to_memory(self.writer.emit(load, point), load.dtype, LANES))
                memory, _ = self._place(load, first, start)
                for position, vector in enumerate(turned(b, memory, vectors)):
                    _, place = self._place(load, b.add(first, position), start)
                    b.store(memory, vector, place, load.dtype.itemsize)
