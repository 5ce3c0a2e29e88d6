"""What must hold for every plan: checked on each plan that tests make (see `conftest.py`)."""

from __future__ import annotations

import sys
from itertools import combinations

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Kernel, Moving, Turning
from torturous.compiler.memory import PADDING, Repeated, read_by, written_by
from torturous.compiler.plan import Plan
from torturous.compiler.schedule import loads, roots, walk
from torturous.compiler.sizes import product


class InvalidPlan(AssertionError):
    """A plan that would compute something else than was asked for."""


def verify(plan: Plan) -> None:
    """Raises InvalidPlan if a value is read before it is written, written twice or lost while alive."""
    written = dict.fromkeys(plan.leaves, -1)
    last_read: dict[Node, int] = {}
    inside = {level: each for each in plan.memory.repeated for level in range(each.first, each.past)}
    for level, kernels in enumerate(plan.memory.levels):
        made: dict[Node, list[range]] = {}
        loop = inside.get(level)
        if loop is not None:
            _verify_loop(plan, loop, level, written, last_read)
            continue
        for kernel in kernels:
            for node in read_by(kernel):
                if written.get(node, level) >= level:
                    raise InvalidPlan(f"{node} is read on level {level}, before it is written:\n{kernel}")
                last_read[node] = level
            for node in written_by(kernel):
                reach = _reach(kernel, node)
                if node in written or any(_overlap(reach, other) for other in made.get(node, [])):
                    raise InvalidPlan(f"{node} is written twice, the second time on level {level}:\n{kernel}")
                made.setdefault(node, []).append(reach)
            _verify_axes(kernel)
        written |= dict.fromkeys(made, level)
    outputs = set(plan.outputs)
    if len(outputs) != len(plan.outputs):
        raise InvalidPlan(f"two outputs share a buffer: {plan.outputs}")
    for node in outputs:
        if node not in written or node in plan.memory.slot_of:
            raise InvalidPlan(f"output {node} is not written to a buffer of its own")
    held = outputs.union(plan.leaves)
    for node in written:
        if node not in held and node not in plan.memory.slot_of:
            raise InvalidPlan(f"{node} is written but lies nowhere")
    _verify_memory(plan, written, last_read)


def _reach(kernel: Kernel, node: Node) -> range:
    """Between which elements of a buffer a kernel writes; all of it where that is not known."""
    addresses = [store.address for store in kernel.stores if store.buffer is node]
    if len(addresses) != 1 or addresses[0].constant.constant is None:
        return range(sys.maxsize)
    (address,) = addresses
    low = high = addresses[0].constant.constant
    for axis, factor in address.terms.items():
        extent = kernel.axes[axis].constant if 0 <= axis < len(kernel.axes) else None
        if extent is None or factor.constant is None:
            return range(sys.maxsize)
        span = factor.constant * (extent - 1)
        low, high = min(low, low + span), max(high, high + span)
    return range(low, high + 1)


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def _verify_loop(
    plan: Plan, loop: Repeated, level: int, written: dict[Node, int], last_read: dict[Node, int]
) -> None:
    """A step reads what was there before the loop, carried values, and what earlier levels of the step have made.

    What lies outside is alive throughout the loop.
    """
    what = loop.repetition
    if level == loop.first:
        outside = {place.buffer for place in what.places.values() if isinstance(place, Moving)}
        outside |= {place.initial for place in what.places.values() if isinstance(place, Turning) and place.initial}
        for node in outside - set(what.items):
            if written.get(node, level) >= level:
                raise InvalidPlan(f"{node} is read by a loop on level {level}, before it is written")
        for node in outside:
            last_read[node] = loop.past - 1
        for node in (*what.items, *what.spares):
            written[node] = min(written.get(node, level), level)  # A history has its beginning already.
            last_read[node] = loop.past - 1
    made = {node for node in what.places if node not in what.outputs}
    for earlier in plan.memory.levels[loop.first:level]:
        made |= {node for kernel in earlier for node in written_by(kernel)}
    for kernel in plan.memory.levels[level]:
        if read_by(kernel) - made:
            raise InvalidPlan(f"{read_by(kernel) - made} are read in a step before they are made:\n{kernel}")
        for node in written_by(kernel):
            if node not in what.places:
                written[node] = level
        for node in read_by(kernel) - what.places.keys():
            last_read[node] = level
        _verify_axes(kernel)


def _verify_axes(kernel) -> None:  # type: ignore[no-untyped-def]
    """Addresses name only loops and derived positions that the kernel has."""
    if kernel.special is not None:
        return
    loops = len(kernel.axes) + len(kernel.reduced)
    addresses = [load.address for load in loads(kernel)] + [store.address for store in kernel.stores]
    for address in addresses:
        for axis in address.terms:
            if axis >= loops or ~axis >= len(kernel.derived):
                raise InvalidPlan(
                    f"an address steps along axis {axis}, which the kernel does not have:\n{kernel}"
                )
    if not (kernel.stores or kernel.attention) or not list(walk(roots(kernel))):
        raise InvalidPlan(f"a kernel that stores nothing:\n{kernel}")


def _verify_memory(plan: Plan, written: dict[Node, int], last_read: dict[Node, int]) -> None:
    """Values that are alive on one level lie apart, at the sizes that the plan was made for."""
    offsets, length = plan.memory.offsets(plan.graph.hint)
    lives = []
    for node, slot in plan.memory.slot_of.items():
        size = plan.graph.hint(product(node.shape)) * node.dtype.itemsize
        if offsets[slot] + size + PADDING > length:
            raise InvalidPlan(f"{node} reaches beyond the arena")
        lives.append(
            (offsets[slot], offsets[slot] + size, written[node], last_read.get(node, written[node]), node)
        )
    for (start, end, first, last, node), (
        other_start,
        other_end,
        other_first,
        other_last,
        other,
    ) in combinations(lives, 2):
        if start < other_end and other_start < end and first <= other_last and other_first <= last:
            raise InvalidPlan(
                f"{node} and {other} share memory and are both alive on level {max(first, other_first)}"
            )
