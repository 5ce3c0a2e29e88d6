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
FEW_CHANNELS = 32
MOST_PRODUCTS = 1 << 13
"""Elements of a weight that is packed whole."""
LANES = 16


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
    return all(size is not None and (size.constant or FEW_CHANNELS + 1) <= FEW_CHANNELS for size in channels)


def batch(node: Node) -> Size | None:
    """The size of the sample axis of a contraction with windows: axis 0 of the operand that is windowed."""
    _, *maps = node.attributes[:3]
    for operand, its_maps in zip(node.inputs, maps, strict=True):
        if len(operand.shape) >= 3 and any(len(contraction.Map(*m).terms) > 1 for m in its_maps):
            return operand.shape[0] if contraction.Map(*its_maps[0]).lone is not None else None
    return None


def reads_samples_directly(node: Node, operand: Node, other: Node, maps: Sequence[contraction.Map]) -> bool:
    """Whether a convolution's windowed operand can be read with its borders left out: see `codegen.direct`.

    Samples must fill whole panels, every size be known, the products few enough for a table, and the other operand
    small enough to be packed once.
    """
    if not wants_batch_innermost(node) or node.attributes[3:] or node.dtype.is_half:
        return False
    if not any(len(index_map.terms) > 1 for index_map in maps) or any(m.divisor != 1 for m in maps):
        return False
    if operand.shape[0].constant is None or operand.shape[0].constant % (2 * LANES):
        return False
    sizes = [size.constant for shape in (node.shape, *(x.shape for x in node.inputs)) for size in shape]
    if None in sizes:
        return False
    products = product(other.shape).constant or 0
    return 0 < products < MOST_PRODUCTS


def choose(graph: Graph, stored: set[Node], outputs: set[Node]) -> Callable[[Node], Order]:
    """The order of every stored value, as a function."""
    batches = {batch(node) for node in graph.nodes if wants_batch_innermost(node)}
    fixed = outputs | set(graph.leaves)

    def order(node: Node) -> Order:
        rank = len(node.shape)
        if rank < 3 or node in fixed or node.op.kind in (Kind.RANDOM, Kind.SCATTER, Kind.HOST):
            return row_major(rank)
        if any(user.op.kind in (Kind.RANDOM, Kind.SCATTER, Kind.HOST) for user in node.users):
            return row_major(rank)
        if node.shape[0] in batches:
            return (*range(1, rank), 0)
        return row_major(rank)

    return order
