"""Loop kernels: elementwise maps and reductions.

A kernel works through *items*, the places of its kept axes (the innermost cut into chunks), in pieces of `granule`
items. Pieces do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.codegen.rows import Rows
from torturous.codegen.squares import Squares, crossing_axis
from torturous.codegen.strips import STRIP, UNIT, Strips
from torturous.compiler.kernel import Compute, Kernel
from torturous.compiler.schedule import roots, walk
from torturous.compiler.sizes import ONE, ZERO, Size, product

CHUNK = 8192
"""Elements of the innermost axis per item, at most; a multiple of LANES."""
ACROSS_CHUNK = 64
"""The same where LANES results at a time go through many elements each."""


CHEAP = 8
"""Operations that take about as long as reading and writing an element."""


@dataclass(frozen=True)
class Divided:
    """An extent that items divide among themselves, `unit` elements each or a multiple of it, but not over `most`.

    Where there is a choice it is made for the sizes a plan is run with, and the kernel takes it as an argument.
    """

    extent: Size
    unit: int
    most: int
    weight: int = 1
    """What an element costs each item that takes it, in terms of `Work.preparing`."""
    step: int = 0
    """In steps of so many elements the last unit is taken, if not as a whole."""


@dataclass(frozen=True)
class Work:
    """How many items a kernel has: the product of `outer`, times the parts of what is divided."""

    outer: Size
    divided: tuple[Divided, ...]
    cost: Size
    """Rough machine operations of all items that share a place in `outer`."""
    preparing: Size = ZERO
    """Those that come on top in each item, for every element that it takes of a divided extent and its weight."""


def write_loops(writer: KernelWriter) -> tuple[Work, Size]:
    """Writes a map or a reduction; gives the scratch memory that each worker needs too, in bytes."""
    kernel = writer.kernel
    if not kernel.reduced:
        inner = kernel.lane_axis if kernel.axes else None
        crossing = crossing_axis(kernel)
        if crossing is not None:
            return _write_items(writer, inner, Squares(writer, crossing).write, CHUNK, crossing=crossing), ZERO
        body = _vectors(writer, lambda point: writer.store_all(kernel.stores, point))
        return _write_items(writer, inner, body, CHUNK), ZERO
    rows = Rows(writer)
    if rows.along:
        return _write_items(writer, None, lambda row, first, past: rows.write(row), CHUNK), rows.visits.scratch
    if len(rows.visits.stages) == 1 and not rows.across.is_written_out:
        strips = Strips(writer, rows.visits)
        return _write_items(writer, kernel.lane_axis, strips.write, STRIP, UNIT), strips.scratch
    chunk = CHUNK if rows.across.is_written_out else ACROSS_CHUNK
    return _write_items(writer, kernel.lane_axis, _vectors(writer, rows.write), chunk), rows.visits.scratch


def _weight(kernel: Kernel) -> int:
    """How much more work an element is than a few simple operations; functions like exp count for what they are."""
    operations = sum(part.op.cost for part in walk(roots(kernel)) if isinstance(part, Compute))
    return max(1, operations // CHEAP)


# Items -----------------------------------------------------------------------------------------------------------
def _write_items(writer: KernelWriter, lane_axis: int | None, body: Callable[[Point, Integer, Integer], None],
                 most: int, unit: int = 0, crossing: int | None = None) -> Work:
    """The loop over items; `lane_axis` None makes every kept place an item of one lane.

    An item takes up to `most` elements of the lane axis, or any multiple of `unit` that suits the sizes at hand, and
    LANES places of the `crossing` axis.
    `body` writes an item: a place of the other kept axes, and from where to where it reaches along the lane axis.
    """
    b, kernel = writer.builder, writer.kernel
    outer_axes = [axis for axis in range(len(kernel.axes)) if axis not in (lane_axis, crossing)]
    inner = kernel.axes[lane_axis] if lane_axis is not None else None
    outer = product(kernel.axes[axis] for axis in outer_axes)
    known = inner.constant if inner is not None else 1
    chunks: Integer = 1
    chunk: Integer = most
    if inner is not None and (known is None or known > (unit or most)):
        chunk = writer.argument(Argument("group", 0), "i64") if unit else most
        chunks = b.ceil_div(writer.size(inner), chunk)
    squares = b.ceil_div(writer.size(kernel.axes[crossing]), LANES) if crossing is not None else 1
    items = b.mul(b.mul(writer.size(outer), squares), chunks)
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), items)
    # Counters of the outer axes, worked out once and then counted up.
    extents = [writer.size(kernel.axes[axis]) for axis in outer_axes]
    if crossing is not None:
        extents.append(squares)
    starts: list[Integer] = []
    rest: Integer = first
    chunk_start: Integer = 0
    if chunks != 1:
        chunk_start, rest = b.rem(rest, chunks), b.div(rest, chunks)
    for position in range(len(extents) - 1, -1, -1):
        if position == 0:
            starts.insert(0, rest)
        else:
            starts.insert(0, b.rem(rest, extents[position]))
            rest = b.div(rest, extents[position])
    loop = b.begin_loop(first, last, 1, [("i64", start) for start in [*starts, chunk_start]])
    axes: dict[int, Integer] = dict(zip(outer_axes, loop.carried, strict=False))
    if crossing is not None:
        axes[crossing] = b.mul(loop.carried[len(outer_axes)], LANES)
    start: Integer = 0
    stop: Integer = writer.size(inner) if inner is not None else 1
    if chunks != 1:
        start = b.mul(loop.carried[-1], chunk)
        stop = b.minimum(b.add(start, chunk), stop)
    body(Point(axes, None, 1), start, stop)
    # Count up: the chunk first, then the outer axes from the innermost.
    if chunks == 1:
        b.end_loop(loop, [*advance(b, loop.carried[:-1], extents, 1), 0])
    else:
        b.end_loop(loop, advance(b, loop.carried, [*extents, chunks], 1))
    reduced = product(kernel.reduced)
    divided: tuple[Divided, ...] = (Divided(inner, unit or most, most),) if inner is not None else ()
    if crossing is not None:
        divided += (Divided(kernel.axes[crossing], LANES, LANES),)
        reduced = reduced * kernel.axes[crossing]
    return Work(outer, divided, (inner if inner is not None else ONE) * reduced * _weight(kernel))


def _vectors(writer: KernelWriter, body: Callable[[Point], None]) -> Callable[[Point, Integer, Integer], None]:
    """The body of items whose vectors have nothing to do with each other."""
    return lambda row, start, stop: _write_lanes(writer, row, start, stop, body)


def _write_lanes(writer: KernelWriter, row: Point, start: Integer, stop: Integer, body: Callable[[Point], None]
                 ) -> None:
    """The loop over one row, or a stretch of it, LANES places at a time, the last ones masked."""
    b, kernel = writer.builder, writer.kernel
    axis = kernel.lane_axis
    if not kernel.axes:
        body(row)
        return
    hoisted = Point(dict(row.axes), axis, LANES)
    hoisted.axes[axis] = 0
    if not kernel.reduced:
        writer.hoist(roots(kernel), hoisted, axis)
    length = b.sub(stop, start)
    full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
    main = b.add(start, full)

    def at(index: Integer, mask: str | None, tail: int | None) -> Point:
        axes = dict(row.axes)
        axes[axis] = index
        return Point(axes, axis, LANES, mask, tail, outer=hoisted if not kernel.reduced else None)

    if full != 0:
        if isinstance(full, int) and full == LANES and isinstance(start, int):
            body(at(start, None, None))
        else:
            loop = b.begin_loop(start, main, LANES)
            body(at(loop.index, None, None))
            b.end_loop(loop)
    if isinstance(length, int):
        if length % LANES:
            body(at(main, writer.tail_mask(length % LANES, LANES), length % LANES))
        return
    left = b.sub(stop, main)

    def rest() -> None:
        body(at(main, writer.tail_mask(left, LANES), None))

    b.when(b.compare("sgt", left, 0), rest)


def advance(b: Builder, place: Sequence[Integer], extents: Sequence[Integer], length: Integer) -> list[Integer]:
    """A place moved on by `length`, which stays within the innermost row or ends it."""
    result: list[Integer] = []
    carry = length
    for position in range(len(place) - 1, -1, -1):
        counted = b.add(place[position], carry)
        if position == 0:
            result.insert(0, counted)
            continue
        wrapped = b.compare("eq", counted, extents[position])
        result.insert(0, b.choose(wrapped, 0, counted))
        carry = b.value(f"zext i1 {wrapped} to i64")
    return result
