"""Running values along an axis: sums, recurrences, extremes, one element after another.

Where places behind the axis lie side by side, sixteen of them go in lanes; each lane does what one alone would do, so
bits do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import LANES, Argument, KernelWriter
from torturous.codegen.loops import Work
from torturous.compiler.graph import Node
from torturous.compiler.sizes import product
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import ordering
from torturous.ir.reduction import highest, lowest


def write_running(writer: KernelWriter, node: Node) -> Work:
    """An item is a place before the axis, with all places behind it; or one row where nothing is behind."""
    b = writer.builder
    axis = node.attributes[0]
    before, after = product(node.shape[:axis]), product(node.shape[axis + 1:])
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), writer.size(before))
    behind = writer.size(after)
    with looping(b, first, last) as item:
        start = b.mul(item, writer.size(product(node.shape[axis:])))
        full: Integer = 0
        if after.constant is None or after.constant >= LANES:
            full = behind // LANES * LANES if isinstance(behind, int) else b.value(f"and i64 {behind}, {-LANES}")
            with looping(b, 0, full, LANES) as place:
                _Running(writer, node, b.add(start, place), LANES).write()
        if full != behind:
            with looping(b, full, behind) as place:
                _Running(writer, node, b.add(start, place), 1).write()
    return Work(before, (), product(node.shape[axis:]) * 6)


class _Running:
    """The rows of some neighbouring places behind the axis, as lanes."""

    def __init__(self, writer: KernelWriter, node: Node, start: Integer, lanes: int) -> None:
        self.writer, self.node, self.start, self.lanes = writer, node, start, lanes
        self.axis = node.attributes[0]
        self.count = writer.size(node.shape[self.axis])
        self.stride = writer.size(product(node.shape[self.axis + 1:]))
        dtype = node.inputs[0].dtype
        self.working = dtypes.float64 if dtype.is_floating_point else dtype
        self.e = Arithmetic(writer.builder, self.working, lanes)

    def write(self) -> None:
        op = self.node.op
        if op in (ordering.RUNNING_MAX, ordering.RUNNING_MIN):
            self._extreme(op is ordering.RUNNING_MAX)
        elif op is ordering.RUNNING_SUM:
            self._combine(lambda total, at: self.e.add(total, self._read(0, at)))
        else:
            self._combine(lambda total, at: self.e.add(self.e.mul(self._read(0, at), total), self._read(1, at)))

    def _offset(self, index: Integer) -> Integer:
        """Of an element of the axis, in elements."""
        b = self.writer.builder
        return b.add(self.start, b.mul(index, self.stride))

    def _read(self, operand: int, at: Integer) -> str:
        writer, b = self.writer, self.writer.builder
        dtype = self.node.inputs[operand].dtype
        pointer = b.offset(writer.pointer(writer.kernel.operands[operand]), b.mul(at, dtype.itemsize))
        value = writer.from_memory(b.load(_memory(dtype, self.lanes), pointer, dtype.itemsize), dtype, self.lanes)
        return convert(b, value, dtype, self.working, self.lanes)

    def _store(self, value: str, at: Integer) -> None:
        writer, b, dtype = self.writer, self.writer.builder, self.node.dtype
        pointer = b.offset(writer.pointer(self.node), b.mul(at, dtype.itemsize))
        b.store(_memory(dtype, self.lanes), writer.to_memory(value, dtype, self.lanes), pointer, dtype.itemsize)

    def _combine(self, step: Callable[[str, Integer], str]) -> None:
        b = self.writer.builder
        reverse = self.node.attributes[1]
        loop = b.begin_loop(0, self.count, carried=[(self.e.kind, self.e.constant(0))])
        index = b.sub(b.sub(self.count, 1), loop.index) if reverse else loop.index
        at = self._offset(index)
        total = step(loop.carried[0], at)
        self._store(convert(b, total, self.working, self.node.dtype, self.lanes), at)
        b.end_loop(loop, [total])

    def _extreme(self, greatest: bool) -> None:
        b, e = self.writer.builder, self.e
        positions = Arithmetic(b, dtypes.int64, self.lanes)
        start = e.constant((lowest if greatest else highest)(self.working))
        loop = b.begin_loop(0, self.count, carried=[(e.kind, start), (positions.kind, positions.constant(0))])
        best, place = loop.carried
        at = self._offset(loop.index)
        here = self._read(0, at)
        better = e.compare("ge" if greatest else "le", here, best)
        if self.working.is_floating_point:
            better = b.value(f"or {e.mask} {better}, {e.compare('ne', here, here)}")
        best, place = e.select(better, here, best), positions.select(better, positions.splat(loop.index), place)
        self._store(place, at)
        b.end_loop(loop, [best, place])


def _memory(dtype: DType, lanes: int) -> str:
    return f"<{lanes} x i8>" if dtype is dtypes.bool_ else kind(dtype, lanes)
