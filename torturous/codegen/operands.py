"""Which operand of a contraction runs along the vector lanes, and which is broadcast."""

from __future__ import annotations

from dataclasses import dataclass

from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, KernelWriter
from torturous.codegen.microkernel import most_rows
from torturous.codegen.target import Target
from torturous.compiler.kernel import Convert, Expression, Kernel, Load, Quotient
from torturous.compiler.schedule import merged_results, walk
from torturous.compiler.sizes import Affine, product
from torturous.core import dtypes

SCATTERING, TURNING = 32, 8
"""Storing a vector of results that lie apart costs as much as so many of its products, one by one or turned."""
FEWEST_TURNED = 8
"""Rows of a square from which on it is worth turning."""


def loaded(expression: Expression) -> Load:
    """The load below a side's casts."""
    while isinstance(expression, Convert):
        expression = expression.operand
    assert isinstance(expression, Load), "contraction operands are plain loads"
    return expression


def takes_pairs(kernel: Kernel, target: Target) -> bool:
    """Whether products are taken two at a time (see `codegen.pairs`)."""
    assert kernel.product is not None
    return target.has_avx512_bf16 and all(loaded(side).dtype is dtypes.bfloat16 for side in kernel.product)


@dataclass
class Sides:
    """The kept axes by the operand that varies along them."""

    batch: list[int]
    lane: list[int]
    row: list[int]
    lane_first: bool
    """Whether the left operand is the lane side."""
    turned: bool = False
    """Whether tiles are turned before they are stored (see `codegen.finishing`)."""


def _turns(kernel: Kernel, target: Target, lanes: list[int], rows: list[int]) -> bool:
    """Whether it pays to turn tiles: registers hold enough rows, and more of what is stored and read is contiguous
    along these than along the lanes."""
    known = product(kernel.axes[axis] for axis in rows).constant
    held = most_rows(target, kernel.accumulators[0].dtype.itemsize, 1)
    if min(held, held if known is None else known) < FEWEST_TURNED:
        return False
    if not lanes or kernel.derived or len(merged_results(kernel, rows)) != 1:
        return False
    places = [store.address for store in kernel.stores]
    places += [part.address for part in walk([store.expression for store in kernel.stores]) if isinstance(part, Load)]
    along_rows, along_lanes = (sum(place.factor(axes[-1]) == 1 for place in places) for axes in (rows, lanes))
    return along_rows > along_lanes


def sides(kernel: Kernel, target: Target) -> Sides:
    """Lanes go where they cost least (see `_lane_cost`), or, where operands are read in place, along the last axis or
    where channels lie in blocks."""
    assert kernel.product is not None
    addresses = [loaded(side).address for side in kernel.product]
    both: list[int] = []
    own: list[list[int]] = [[], []]
    for axis in range(len(kernel.axes)):
        in_left, in_right = (_varies(kernel, address, axis) for address in addresses)
        if in_left == in_right:
            both.append(axis)
        else:
            own[0 if in_left else 1].append(axis)
    if kernel.channelwise or kernel.tapwise:
        lane = kernel.windowed if kernel.tapwise else 1 - kernel.windowed
    elif kernel.direct:
        lane = 0 if len(kernel.axes) - 1 in own[0] else 1
    else:
        turned = [_turns(kernel, target, own[which], own[1 - which]) for which in range(2)]
        costs = [_lane_cost(kernel, which, own[which], own[1 - which], turned[which]) for which in range(2)]
        lane = 0 if costs[0] < costs[1] else 1
        return Sides(both, own[lane], own[1 - lane], lane == 0, turned[lane])
    return Sides(both, own[lane], own[1 - lane], lane == 0)


def _varies(kernel: Kernel, address: Affine, axis: int) -> bool:
    """Whether an address depends on a loop, also by way of a quotient."""
    derived = [kernel.derived[~term] for term in address.terms if term < 0]
    return address.factor(axis) != 0 or any(
        isinstance(quotient, Quotient) and quotient.affine.factor(axis) != 0 for quotient in derived
    )


def _lane_cost(kernel: Kernel, which: int, lanes: list[int], rows: list[int], turned: bool) -> float:
    """A rough cost per product of running lanes along these axes: wasted lanes, packing, and how results lie."""
    assert kernel.product is not None
    address = loaded(kernel.product[which]).address
    extent = product(kernel.axes[axis] for axis in lanes).constant
    other = product(kernel.axes[axis] for axis in rows).constant or 64
    waste = 1.0 if extent is None else -(-extent // LANES) * LANES / max(extent, 1)
    innermost = lanes[-1] if lanes else None
    packing = 8.0
    if innermost is not None and address.factor(innermost) == 1:
        run = kernel.axes[innermost].constant
        aligned = len(lanes) == 1 or run is None or any((v * LANES) % run == 0 or run % (v * LANES) == 0
                                                        for v in (1, 2, 3))
        packing = 0.5 if aligned else 8.0
    elif innermost is not None and address.factor(len(kernel.axes) + len(kernel.reduced) - 1) == 1:
        packing = 2.0
    products = product(kernel.reduced).constant or 1
    storing = TURNING if turned else SCATTERING
    stored = 0.0 if lanes and lanes[-1] == len(kernel.axes) - 1 else min(0.2, storing / max(products, 1))
    return waste + packing / max(other, 1) * 4 + stored


def split(writer: KernelWriter, flat: Integer, extents: list[Integer]) -> list[Integer]:
    """A flat place as one index per extent, the last varying fastest."""
    b = writer.builder
    values: list[Integer] = []
    for position in range(len(extents) - 1, -1, -1):
        if position == 0:
            values.insert(0, flat)
        else:
            extent = b.maximum(extents[position], 1)
            values.insert(0, b.rem(flat, extent))
            flat = b.div(flat, extent)
    return values
