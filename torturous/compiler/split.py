"""A long reduction to a single result, as kernels that threads can share.

The order of a reduction is that of its blocks (see `ir.reduction`), and blocks know nothing of each other: one kernel
reduces the full ones, another the elements that are left over, a third their results, in the order of the second
level. All bits are those of the one kernel.
"""

from __future__ import annotations

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Accumulated, Accumulator, Choose, Expression, Guard, Kernel, Load, Store
from torturous.compiler.schedule import rewrite
from torturous.compiler.sizes import Affine, Size
from torturous.compiler.stages import Staging
from torturous.ir import movement, reduction

ELEMENTS = reduction.LANES * reduction.BLOCK
"""Of a block."""
WORTH_SPLITTING = 16 * ELEMENTS
INDEXED = (reduction.ARGMAX, reduction.ARGMIN)


def split(kernel: Kernel) -> list[Kernel]:
    """The kernels that take the place of a scheduled one: itself, unless splitting is possible and worth while."""
    if kernel.axes or kernel.derived or len(kernel.reduced) != 1 or kernel.product or kernel.special is not None:
        return [kernel]
    elements = kernel.reduced[0].constant
    if elements is None or elements < WORTH_SPLITTING or any(a.op in INDEXED for a in kernel.accumulators):
        return [kernel]
    if any(store.inside for store in kernel.stores) or not _is_one_pass(kernel):
        return [kernel]
    blocks, left = divmod(elements, ELEMENTS)
    along = Affine.axis(1) + Affine.axis(0) * ELEMENTS
    full = _results(kernel, blocks)
    parts = [_part(kernel, full, along, [Size.of(blocks)], ELEMENTS)]
    last = Kernel(
        [], [Size.of(blocks + bool(left))], stores=kernel.stores, unblocked=True, lane_axis=0, names=kernel.names,
        places=kernel.places)
    values: list[Expression] = [Load(result.dtype, result, Affine.axis(0), ()) for result in full]
    if left:
        rest = _results(kernel, 1)
        parts.append(_part(kernel, rest, Affine.axis(0) + blocks * ELEMENTS, [], left))
        inside = (Guard(Affine.axis(0), Size.of(blocks)),)
        values = [
            Choose(one.dtype, inside, Load(one.dtype, one, Affine.axis(0), inside),
                   Load(other.dtype, other, Affine.fixed(0), ()))
            for one, other in zip(full, rest, strict=True)
        ]
    for accumulator, value in zip(kernel.accumulators, values, strict=True):
        last.accumulators.append(Accumulator(accumulator.op, accumulator.dtype, value))
    return [*parts, last]


def _results(kernel: Kernel, count: int) -> list[Node]:
    """Where the results of so many blocks lie, for each accumulator."""
    return [
        Node(-1, movement.ALIAS, (), (Size.of(count),), a.dtype, (), kernel.places[0]) for a in kernel.accumulators]


def _is_one_pass(kernel: Kernel) -> bool:
    return len(Staging(kernel).stages) == 1


def _part(kernel: Kernel, results: list[Node], along: Affine, kept: list[Size], elements: int) -> Kernel:
    """The blocks of a kernel's reduction whose elements lie `along` its loops, one result for each."""
    part = rewrite(kernel, {0: along}, kept, [Size.of(elements)], [])
    place = Affine.axis(0) if kept else Affine.fixed(0)
    part.stores = [
        Store(result, place, Accumulated(result.dtype, number)) for number, result in enumerate(results)]
    part.lane_axis = len(kept)
    return part
