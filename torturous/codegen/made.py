"""A factor of a contraction that is computed while its products are gone through, and lies nowhere as a whole.

The gradient of pooling is four times the size of what it is made of: computed for a stretch of products at a time, it
goes through the first cache, where as a value of its own it would go through memory.
"""

from __future__ import annotations

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import LANES, KernelWriter, Point
from torturous.codegen.lines import Stretch
from torturous.codegen.loops import advance
from torturous.codegen.operands import split
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Expression, Load
from torturous.compiler.schedule import depends
from torturous.compiler.sizes import Affine, product, row_major
from torturous.ir import movement


def described(writer: KernelWriter, factor: Expression, other: Load) -> Load:
    """A load of what is made, as if all products of a row lay one after the other. Loops that neither factor varies
    along are its own."""
    kernel = writer.kernel
    first = len(kernel.axes)
    strides = row_major(tuple(kernel.reduced))
    terms = {first + axis: stride for axis, stride in enumerate(strides)}
    row = product(kernel.reduced)
    for axis in reversed(range(first)):
        if other.address.factor(axis) == 0 or depends(kernel, factor, axis):
            terms[axis] = row
            row = row * kernel.axes[axis]
    nowhere = Node(-1, movement.ALIAS, (), (), factor.dtype, (), None)
    return Load(factor.dtype, nowhere, Affine.sum((Affine.axis(axis), step) for axis, step in terms.items()), ())


class Made:
    """Computes rows of a factor."""

    def __init__(self, writer: KernelWriter, factor: Expression, own: list[int], pitch: int) -> None:
        """`own` are the loops of its rows, which lie `pitch` bytes apart."""
        self.writer = writer
        self.b = writer.builder
        self.factor = factor
        self.own = own
        self.pitch = pitch
        kernel = writer.kernel
        self.loops = list(range(len(kernel.axes), len(kernel.axes) + len(kernel.reduced)))
        self.extents = [writer.size(size) for size in kernel.reduced]
        self.row_extents = [writer.size(kernel.axes[axis]) for axis in own]

    def fill(self, batch: dict[int, Integer], rows: tuple[Integer, Integer], stretch: Stretch, place: str) -> None:
        """Writes the products of a stretch, in whole vectors of an innermost run, for some rows."""
        b, size = self.b, self.factor.dtype.itemsize
        start, end = b.mul(stretch.first, LANES), b.mul(stretch.last, LANES)
        everywhere: dict[int, Integer] = {axis: 0 for axis in range(len(self.writer.kernel.axes))}
        with looping(b, *rows) as row:
            fixed = everywhere | batch | dict(zip(self.own, split(self.writer, row, self.row_extents), strict=True))
            line = b.offset(place, b.mul(b.sub(row, rows[0]), self.pitch))
            runs = b.begin_runs(start, end, split(self.writer, start, self.extents))
            flat, *at = runs.carried
            length = b.minimum(b.sub(end, flat), b.sub(self.extents[-1], at[-1]))
            here = b.offset(line, b.mul(b.sub(flat, start), size))
            self._run(fixed | dict(zip(self.loops, at, strict=True)), length, here)
            b.end_runs(runs, [b.add(flat, length), *advance(b, at, self.extents, length)])

    def _run(self, fixed: dict[int, Integer], length: Integer, place: str) -> None:
        """Vectors along the innermost loop."""
        b, w, inner = self.b, self.writer, self.loops[-1]
        before = Point(fixed, inner, LANES)
        w.hoist([self.factor], before, inner)
        size = self.factor.dtype.itemsize
        with looping(b, 0, length, LANES) as lane:
            point = Point(fixed | {inner: b.add(fixed[inner], lane)}, inner, LANES, outer=before)
            value = w.emit(self.factor, point)
            b.store(f"<{LANES} x {w.memory_kind(self.factor.dtype)}>", value, b.offset(place, b.mul(lane, size)), size)
