"""How stored values lie in memory: the order of their axes, outermost first.

Values that only kernels see may lie in any order; leaves and outputs lie as their users expect. Convolutions with
few channels want the batch innermost: then vector lanes are samples, no lane is wasted on one, ten or twenty
channels, windows need no shuffling, and pooling and elementwise kernels in between follow for free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.compiler.graph import Graph, Node
from torturous.compiler.sizes import Size, product
from torturous.ir import contraction
from torturous.ir.op import Kind

Order = tuple[int, ...]
LANES = 16
SPECIAL = frozenset({Kind.RANDOM, Kind.SCATTER, Kind.ALONG, Kind.HOST, Kind.REPEAT, Kind.ITEM})
"""What has kernels of its own, which read and write whole values as they are shaped."""


def row_major(rank: int) -> Order:
    return tuple(range(rank))


def strides(shape: tuple[Size, ...], order: Order) -> tuple[Size, ...]:
    """Strides in elements of a dense buffer whose axes lie in this order."""
    result = [Size.of(1)] * len(shape)
    for position, axis in enumerate(order):
        result[axis] = product(shape[inner] for inner in order[position + 1:])
    return tuple(result)


def wants_batch_innermost(node: Node) -> bool:
    """Whether a contraction is a convolution, or a gradient of one, that runs best with samples as lanes."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2:
        return False
    samples = batch(node)
    if samples is None or samples.constant is None or samples.constant % LANES:
        return False
    channels = [node.shape[1] if len(node.shape) > 1 else None]
    channels += [operand.shape[1] if len(operand.shape) > 1 else None for operand in node.inputs]
    return all(
        size is not None and size.constant is not None and size.constant <= contraction.FEW_CHANNELS
        for size in channels
    )


def batch(node: Node) -> Size | None:
    """The size of the sample axis of a contraction with windows: axis 0 of the operand that is windowed."""
    _, *maps = node.attributes[:3]
    for operand, its_maps in zip(node.inputs, maps, strict=True):
        if len(operand.shape) >= 3 and any(len(contraction.Map(*m).terms) > 1 for m in its_maps):
            return operand.shape[0] if contraction.Map(*its_maps[0]).lone is not None else None
    return None


def reads_in_place(node: Node) -> bool:
    """Whether a convolution's operands, or those of a gradient of one, are read where they lie: see `codegen.direct`.

    For that every size must be known. A convolution's borders are then left out; elements between those of the
    operand (a divisor) would have to be, too, and gradients of weights leave nothing out: they want a padded copy.
    """
    if not wants_batch_innermost(node) or node.dtype.is_half:
        return False
    if any(size.constant is None for shape in (node.shape, *(x.shape for x in node.inputs)) for size in shape):
        return False
    _, *maps = node.attributes[:3]
    return bool(node.attributes[3:]) or all(contraction.Map(*m).divisor == 1 for its_maps in maps for m in its_maps)


def products_last(its_maps: Sequence[contraction.Map]) -> Order:
    """The order in which the axes of an operand without windows are loops: those that the sum runs over last."""
    return tuple(sorted(range(len(its_maps)), key=lambda axis: (its_maps[axis].lone or 0)))


def lanes_last(factor: Node) -> Order:
    """The order in which contractions like to read a factor that stays the same: what they keep of it innermost.

    Row-major where that is so already, where it is used otherwise, or where its users disagree.
    """
    usual = row_major(len(factor.shape))
    orders = set()
    for user in factor.users:
        if user.op is not contraction.CONTRACT or user.inputs.count(factor) != 1:
            return usual
        maps = user.attributes[1 + user.inputs.index(factor)]
        loops = [contraction.Map(*index_map).lone for index_map in maps]
        if None in loops:
            return usual
        rank = len(user.shape)
        kept = [axis for axis, loop in enumerate(loops) if loop is not None and loop < rank]
        orders.add((*(axis for axis in usual if axis not in kept), *kept))
    return orders.pop() if len(orders) == 1 else usual


def choose(graph: Graph, stored: set[Node], outputs: set[Node]) -> Callable[[Node], Order]:
    """The order of every stored value, as a function."""
    batches = {batch(node) for node in graph.nodes if wants_batch_innermost(node)}
    fixed = outputs | set(graph.leaves)

    def order(node: Node) -> Order:
        rank = len(node.shape)
        if rank < 3 or node in fixed or node.op.kind in SPECIAL:
            return row_major(rank)
        if any(user.op.kind in SPECIAL for user in node.users):
            return row_major(rank)
        if node.shape[0] in batches:
            return (*range(1, rank), 0)
        return row_major(rank)

    return order
