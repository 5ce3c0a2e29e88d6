"""Repeat nodes: where what a step reads and writes lies.

A slice of a stacked operand lies a stride further at every step; so does what is stacked, so that nothing is copied
step by step. A carried value of which everything is kept lies in its history, one stride ahead of where it was before
the step; the history's first value is copied there before the loop. Other carried values lie in two buffers by turns.
Fixed operands that contractions like to read in another order than they lie in are copied into that order once.
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.compiler import layout
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Fused, Kernel, Load, Moving, Repetition, Store, Turning
from torturous.compiler.lower import flat_address
from torturous.compiler.sizes import ONE, ZERO, Affine, Size, product
from torturous.ir.movement import ALIAS
from torturous.ir.op import Kind


def repeat(
    node: Node, operands: tuple[Node, ...], before: list[Kernel], fuse: Callable[..., Fused], enabled: bool
) -> Repetition:
    """The kernels of a repeat node; those that must run before it are appended to `before`."""
    loop = node.loop
    assert loop is not None
    orders = {leaf: layout.lanes_last(leaf) for leaf in loop.fixed}
    body = fuse(loop.graph, enabled, orders)
    (steps,) = node.shape
    items = _items(node)
    count = len(loop.carried)
    first_fixed = len(operands) - len(loop.fixed)
    starts, slices, fixed = operands[:count], operands[count:first_fixed], operands[first_fixed:]
    places: dict[Node, Moving | Turning] = {}
    spares: list[Node] = []

    def moving(inside: Node, outside: Node, values: Size, ahead: int = 0) -> Moving:
        """The place in a stack of so many values (or a history: `ahead` is 1 for the value after a step)."""
        stride = product(inside.shape) * inside.dtype.itemsize
        if not loop.reverse:
            return Moving(outside, stride * ahead, stride)
        return Moving(outside, stride * (values - 1 - ahead), stride * -1)

    for leaf, start, item, following, kept in zip(
            loop.carried, starts, items, body.outputs, loop.kept, strict=False):
        if kept:
            places[following] = moving(following, item, steps + 1, 1)
            if leaf is not None:
                places[leaf] = moving(leaf, item, steps + 1)
            before.append(_beginning(start, item, following, loop.reverse))
            continue
        spare = Node(-1, ALIAS, (), following.shape, following.dtype, (), node.place)
        spares.append(spare)
        places[following] = Turning(item, spare, None)
        if leaf is not None:
            places[leaf] = Turning(item, spare, start)
    for leaf, operand in zip(loop.stacked, slices, strict=True):
        places[leaf] = moving(leaf, operand, steps)
    for leaf, operand in zip(loop.fixed, fixed, strict=True):
        if orders[leaf] != layout.row_major(len(leaf.shape)):
            before.append(_relaid(operand, leaf, orders[leaf], node))
            operand = before[-1].stores[0].buffer
        places[leaf] = Moving(operand, ZERO, ZERO)
    for output, item in zip(body.outputs[count:], items[count:], strict=True):
        places[output] = moving(output, item, steps)
    return Repetition(steps, body.kernels, body.outputs, places, items, spares)


def _items(node: Node) -> list[Node]:
    """A repeat node's values in order."""
    items = {user.attributes[0]: user for user in node.users if user.op.kind is Kind.ITEM}
    return [items[which] for which in range(len(items))]


def _relaid(operand: Node, leaf: Node, order: layout.Order, node: Node) -> Kernel:
    """Copies a fixed operand into the order in which the steps read it."""
    copy = Node(-1, ALIAS, (), leaf.shape, leaf.dtype, (), node.place)
    kernel = Kernel([leaf.shape[axis] for axis in order], names=["relay"], places=[node.place])
    positions = [Affine.axis(order.index(axis)) for axis in range(len(order))]
    value = Load(leaf.dtype, operand, flat_address(positions, leaf.shape), ())
    kernel.stores.append(Store(copy, flat_address(positions, leaf.shape, order), value))
    return kernel


def _beginning(start: Node, history: Node, like: Node, reverse: bool) -> Kernel:
    """Copies where a carried value starts to its place in the history."""
    count: Size = product(like.shape)
    kernel = Kernel([count if like.shape else ONE], names=["start"], places=[history.place])
    along = Affine.axis(0)
    first = count * (history.shape[0] - 1) if reverse else ZERO
    kernel.stores.append(Store(history, along + first, Load(like.dtype, start, along, ())))
    return kernel
