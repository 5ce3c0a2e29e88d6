"""What a row kernel keeps in scratch memory from one pass over its rows to a later one."""

from __future__ import annotations

from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.compiler.kernel import Expression
from torturous.compiler.sizes import ONE, ZERO, Size
from torturous.compiler.stages import Stage


class Held:
    """Where the values of held expressions lie."""

    def __init__(self, writer: KernelWriter, stages: list[Stage], along: bool) -> None:
        self.writer = writer
        self.builder = writer.builder
        self.along = along
        self.inner_axis = len(writer.kernel.axes) + len(writer.kernel.reduced) - 1
        self.places: dict[int, Size] = {}
        """Where a held expression's row begins, in bytes, by its identity."""
        end = ZERO
        for stage in stages:
            for expression in stage.held:
                self.places[id(expression)] = end
                end = end + self._elements() * expression.dtype.itemsize
        self.scratch = end

    def _elements(self) -> Size:
        """Elements of scratch memory that a row of an expression takes."""
        kernel = self.writer.kernel
        outer = kernel.reduced[0] if kernel.outer_runs else ONE
        inner = kernel.reduced[-1]
        return outer * (inner + (LANES - 1)) if self.along else outer * inner * LANES

    def _place(self, expression: Expression, point: Point) -> tuple[str, str]:
        """Type and address of an expression's vector at a point."""
        b, size, kernel = self.builder, expression.dtype.itemsize, self.writer.kernel
        index = point.axes[self.inner_axis]
        row: Integer = self.writer.size(kernel.reduced[-1])
        if self.along:
            row = b.add(row, LANES - 1)
        if kernel.outer_runs:
            index = b.add(b.mul(point.axes[self.inner_axis - 1], row), index)
        if not self.along:
            index = b.mul(index, LANES)
        start = b.add(b.mul(index, size), self.writer.size(self.places[id(expression)]))
        memory = f"<{point.lanes} x {self.writer.memory_kind(expression.dtype)}>"
        return memory, b.offset("%scratch", start)

    def recall(self, stage: Stage, point: Point) -> None:
        """Makes known at a point what earlier stages have held for this one."""
        for expression in stage.recalled:
            memory, place = self._place(expression, point)
            value = self.builder.load(memory, place, expression.dtype.itemsize)
            point.memo[id(expression)] = self.writer.from_memory(value, expression.dtype, point.lanes)

    def hold(self, stage: Stage, point: Point) -> None:
        """Evaluates at a point what a stage holds for later ones."""
        for expression in stage.held:
            value = self.writer.to_memory(self.writer.emit(expression, point), expression.dtype, point.lanes)
            memory, place = self._place(expression, point)
            self.builder.store(memory, value, place, expression.dtype.itemsize)
