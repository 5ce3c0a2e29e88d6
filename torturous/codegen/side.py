"""One operand of a contraction: where its elements lie, and how they are read, converted and written while packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.codegen.arithmetic import convert
from torturous.codegen.builder import Integer
from torturous.codegen.emitter import kind
from torturous.codegen.expressions import KernelWriter
from torturous.codegen.operands import Sides, loaded, sides, takes_pairs
from torturous.compiler.kernel import Load
from torturous.compiler.sizes import Affine, Size, product
from torturous.core import dtypes
from torturous.core.dtypes import DType


@dataclass(frozen=True)
class Loops:
    """Some loops of a side, neighbours merged where their addresses are one: extents and strides in elements."""

    sizes: list[Size]
    strides: list[Size]

    @property
    def count(self) -> Size:
        return product(self.sizes)


class Side:
    """One operand: where its elements lie, as a sum of a batch part, its own loops' part and the products' part."""

    def __init__(self, writer: KernelWriter, load: Load, dtype: DType, batch: list[int], own: list[int],
                 reduced: list[int]) -> None:
        self.writer = writer
        self.b = writer.builder
        self.load = load
        self.dtype = dtype
        """What elements are converted to while packing."""
        self.batch = [writer.size(load.address.factor(axis)) for axis in batch]
        self.own_axes = own
        self.own = self._merged(own)
        self.reduced = self._merged(reduced)
        self.item = load.dtype.itemsize

    def _merged(self, axes: list[int]) -> Loops:
        kernel = self.writer.kernel
        extents = kernel.axes + kernel.reduced
        sizes: list[Size] = []
        strides: list[Size] = []
        for axis in axes:
            size, stride = extents[axis], self.load.address.factor(axis)
            if size == 1:
                continue
            if strides and strides[-1] == stride * size:
                sizes[-1], strides[-1] = sizes[-1] * size, stride
            else:
                sizes.append(size)
                strides.append(stride)
        return Loops(sizes, strides)

    @property
    def run(self) -> int | None:
        """The length of the innermost run of this side's own loops, if it is contiguous, known, and not all."""
        if len(self.own.sizes) < 2 or self.own.strides[-1] != 1:
            return None
        return self.own.sizes[-1].constant

    def origin(self, batch: Sequence[Integer]) -> str:
        """The address of this side's first element in a batch."""
        b = self.b
        offset = self.writer.size(self.load.address.constant)
        for value, stride in zip(batch, self.batch, strict=True):
            offset = b.add(offset, b.mul(value, stride))
        return b.offset(self.writer.pointer(self.load.buffer), b.mul(offset, self.item))

    def place(self, loops: Loops, flat: Integer) -> Integer:
        """The offset, in elements, of a flat index of some of the loops."""
        b, w = self.b, self.writer
        offset: Integer = 0
        for position in range(len(loops.sizes) - 1, -1, -1):
            stride = w.size(loops.strides[position])
            if position == 0:
                return b.add(offset, b.mul(flat, stride))
            extent = b.maximum(w.size(loops.sizes[position]), 1)
            offset = b.add(offset, b.mul(b.rem(flat, extent), stride))
            flat = b.div(flat, extent)
        return offset

    def uniform(self, position: Affine) -> bool:
        """Whether a guard's position is the same along the innermost of this side's loops, and known otherwise."""
        kernel = self.writer.kernel
        axes = [axis for axis in self.own_axes if kernel.axes[axis] != 1]
        known = {*axes[:-1], *range(len(kernel.axes), len(kernel.axes) + len(kernel.reduced))}
        return all(axis in known for axis in position.terms)

    def position(self, position: Affine, flat: Integer) -> Integer:
        """The own loops' part of a guard's position at a flat place, with its constant."""
        b, w = self.b, self.writer
        total = w.size(position.constant)
        for axis in reversed(self.own_axes):
            extent = w.size(w.kernel.axes[axis])
            index = b.rem(flat, b.maximum(extent, 1))
            flat = b.div(flat, b.maximum(extent, 1))
            total = b.add(total, b.mul(index, w.size(position.factor(axis))))
        return total

    # Reading and writing -----------------------------------------------------------------------------------------
    def memory(self, lanes: int) -> str:
        return f"<{lanes} x {self.writer.memory_kind(self.load.dtype)}>"

    def read(self, address: str, lanes: int, mask: str | None = None) -> str:
        """Contiguous elements, converted."""
        w, dtype = self.writer, self.load.dtype
        if mask is None:
            value = w.from_memory(self.b.load(self.memory(lanes), address, self.item), dtype, lanes)
        else:
            value = w._contiguous(address, dtype, lanes, mask)
        return convert(self.b, value, dtype, self.dtype, lanes)

    def read_results(self, address: str, lanes: int, mask: str | None) -> str:
        """Contiguous elements of what is computed."""
        if mask is None:
            return self.b.load(kind(self.dtype, lanes), address, self.dtype.itemsize)
        return self.writer._contiguous(address, self.dtype, lanes, mask)

    def gather(self, address: str, places: str, lanes: int, mask: str | None) -> str:
        value = self.writer._gathered(address, places, self.load.dtype, lanes, mask)
        return convert(self.b, value, self.load.dtype, self.dtype, lanes)

    def write(self, value: str, address: str, lanes: int, mask: str | None = None) -> None:
        b, size = self.b, self.dtype.itemsize
        wide = kind(self.dtype, lanes)
        if mask is None:
            b.store(wide, value, address, size)
            return
        scalar = {"float": "f32", "double": "f64"}.get(wide.split(" x ")[1][:-1], wide.split(" x ")[1][:-1])
        b.call("void", f"llvm.masked.store.v{lanes}{scalar}.p0", (wide, value), ("ptr", address), ("i32", size),
               (f"<{lanes} x i1>", mask))


def lane_and_row(writer: KernelWriter, axes: Sides) -> tuple[Side, Side]:
    """The two operands of a contraction, by the part they play."""
    kernel = writer.kernel
    assert kernel.product is not None
    operands = kernel.product if axes.lane_first else kernel.product[::-1]
    first = len(kernel.axes)
    reduced = list(range(first, first + len(kernel.reduced)))
    dtype = dtypes.bfloat16 if takes_pairs(kernel, writer.target) else kernel.accumulators[0].dtype
    lane, row = (
        Side(writer, loaded(operand), dtype, axes.batch, own, reduced)
        for operand, own in zip(operands, (axes.lane, axes.row), strict=True)
    )
    return lane, row


class Sided:
    """What every writer of a contraction begins with: its loops by side, its two operands, what it computes in."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        self.b = writer.builder
        self.axes = sides(writer.kernel, writer.target)
        self.lane, self.row = lane_and_row(writer, self.axes)
        self.dtype = writer.kernel.accumulators[0].dtype
        self.bytes = self.dtype.itemsize
