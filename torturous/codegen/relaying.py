"""Copies between two orders of memory: what lies along one axis is wanted along another.

Neither reading nor writing single elements would do, so squares of LANES × LANES are read along the one axis, turned
in registers, and written along the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.loops import Divided, Work
from torturous.codegen.operands import split
from torturous.codegen.turning import turned
from torturous.compiler.kernel import Kernel, Load
from torturous.compiler.sizes import Affine, product

STRETCH = 512
"""Elements of the axis written along that an item takes."""
FEWEST = 8
"""Axes shorter than this are not worth a square."""


@dataclass(frozen=True)
class Turn:
    """A copy, by the axis that is consecutive where it is read and the one where it is written."""

    load: Load
    read: int
    written: int


def as_turn(kernel: Kernel) -> Turn | None:
    """The kernel as such a copy, if it is one."""
    if kernel.reduced or len(kernel.stores) != 1 or kernel.special is not None:
        return None
    (store,) = kernel.stores
    load = store.expression
    if not isinstance(load, Load) or load.guards or load.dtype is not store.buffer.dtype:
        return None
    if min([*load.address.terms, *store.address.terms], default=0) < 0:
        return None

    def consecutive(address: Affine) -> list[int]:
        return [axis for axis in range(len(kernel.axes)) if address.factor(axis) == 1]

    read, written = consecutive(load.address), consecutive(store.address)
    if len(read) != 1 or len(written) != 1 or read == written:
        return None
    axes = kernel.axes[read[0]], kernel.axes[written[0]]
    if any(extent.constant is not None and extent.constant < FEWEST for extent in axes):
        return None
    return Turn(load, read[0], written[0])


def write_turn(writer: KernelWriter, turn: Turn) -> Work:
    """Items are places of the other axes, LANES of the axis read along, a stretch of the one written along."""
    b, kernel = writer.builder, writer.kernel
    others = [axis for axis in range(len(kernel.axes)) if axis not in (turn.read, turn.written)]
    extents = [writer.size(kernel.axes[axis]) for axis in others]
    rows, columns = writer.size(kernel.axes[turn.read]), writer.size(kernel.axes[turn.written])
    strips, stretches = b.ceil_div(rows, LANES), b.ceil_div(columns, STRETCH)
    items: Integer = b.mul(strips, stretches)
    for extent in extents:
        items = b.mul(items, extent)
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), items)
    with looping(b, first, last) as item:
        *place, strip, stretch = split(writer, item, [*extents, strips, stretches])
        axes: dict[int, Integer] = dict(zip(others, place, strict=True))
        row = b.mul(strip, LANES)
        start = b.mul(stretch, STRETCH)
        with looping(b, start, b.minimum(b.add(start, STRETCH), columns), LANES) as column:
            _square(writer, turn, axes, (row, rows), (column, columns))
    outer = product(kernel.axes[axis] for axis in others)
    sizes = kernel.axes[turn.read], kernel.axes[turn.written]
    divided = Divided(sizes[0], LANES, LANES), Divided(sizes[1], STRETCH, STRETCH)
    return Work(outer, divided, sizes[0] * sizes[1])


def _square(writer: KernelWriter, turn: Turn, axes: dict[int, Integer], rows: tuple[Integer, Integer],
            columns: tuple[Integer, Integer]) -> None:
    """One square; at the far ends of the axes, what there is of it."""
    b = writer.builder
    whole = [isinstance(extent, int) and extent % LANES == 0 for _, extent in (rows, columns)]
    if all(whole):
        _copied(writer, turn, axes, rows, columns, False)
        return
    tests = [b.compare("sle", b.add(start, LANES), extent) for start, extent in (rows, columns)]
    inside = b.value(f"and i1 {tests[0]}, {tests[1]}")
    b.when(inside, lambda: _copied(writer, turn, axes, rows, columns, False))
    b.when(b.value(f"xor i1 {inside}, true"), lambda: _copied(writer, turn, axes, rows, columns, True))


def _copied(writer: KernelWriter, turn: Turn, axes: dict[int, Integer], rows: tuple[Integer, Integer],
            columns: tuple[Integer, Integer], cut: bool) -> None:
    b = writer.builder
    dtype = turn.load.dtype
    (row, row_count), (column, column_count) = rows, columns
    row_mask = writer.tail_mask(b.sub(row_count, row), LANES) if cut else None
    column_mask = writer.tail_mask(b.sub(column_count, column), LANES) if cut else None
    vectors = []
    for lane in range(LANES):
        there = b.add(column, lane)
        if cut:
            there = b.minimum(there, b.sub(column_count, 1))
        point = Point(axes | {turn.read: row, turn.written: there}, turn.read, LANES, row_mask)
        vectors.append(writer.to_memory(writer.emit(turn.load, point), dtype, LANES))
    kind = f"<{LANES} x {writer.memory_kind(dtype)}>"
    (store,) = writer.kernel.stores
    for lane, vector in enumerate(turned(b, kind, vectors)):
        there = b.add(row, lane)
        mask = column_mask
        if cut:
            exists = b.compare("slt", there, row_count)
            mask = b.value(f"select i1 {exists}, <{LANES} x i1> {column_mask}, <{LANES} x i1> zeroinitializer")
        point = Point(axes | {turn.read: there, turn.written: column}, turn.written, LANES, mask)
        writer.store(writer.from_memory(vector, dtype, LANES), store.buffer, store.address, point)
