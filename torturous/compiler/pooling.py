"""Pooling that a convolution's kernel computes on its results: windows beside each other, so that every result belongs
to one.

A kernel then goes over windows, computes a window's pixels one after the other, and takes their extremes or sums while
they are near. What it pools need not be stored, unless somebody else reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torturous.compiler import layout
from torturous.compiler.graph import Graph, Node
from torturous.compiler.groups import Group
from torturous.compiler.sizes import Size, product
from torturous.core import dtypes
from torturous.ir import movement
from torturous.ir.op import Kind

MOST_TAPS = 16
"""Of a window: they are written out, and a sum of so many is taken in one step (see `ir.reduction`)."""


@dataclass(frozen=True)
class Pool:
    """How windows lie in a convolution's results: per axis that they have an extent along, how many there are and how
    long they are."""

    pooled: Node
    """What is seen through windows: the results, or what their epilogue makes of them."""
    counts: Mapping[int, Size]
    lengths: Mapping[int, Size]

    @property
    def covers(self) -> bool:
        """Whether every result belongs to a window."""
        return all(self.pooled.shape[axis] == self.counts[axis] * length for axis, length in self.lengths.items())


def pool_of(group: Group) -> Pool | None:
    """What a group's reductions pool, if that is all they do: windows of one value, which lie beside each other and
    reach over no border."""
    reductions = [node for node in group.members if node.op.kind is Kind.REDUCE]
    if not reductions or any(group.passes.values()):
        return None
    if any(node.attributes[1] for node in reductions) or any(
            node.shape != group.row_shape(False) for node in group.members):
        return None
    pools = [_seen_through_windows(node.inputs[0], node.attributes[0]) for node in reductions]
    return pools[0] if all(pool == pools[0] for pool in pools) else None


def _seen_through_windows(window: Node, reduced: tuple[int, ...]) -> Pool | None:
    """What lies below a value that a reduction takes windows of (see `ir.macros`)."""
    if window.op is not movement.WINDOW or window.inputs[0].op is not movement.EXPAND:
        return None
    spread = window.inputs[0].inputs[0]
    if spread.op is not movement.RESHAPE:
        return None
    pooled = spread.inputs[0]
    rank = len(pooled.shape)
    if spread.shape[:rank] != pooled.shape or reduced != tuple(range(rank, len(window.shape))):
        return None
    lengths = {}
    for axis, tap, stride, dilation, padding in window.attributes:
        if padding or dilation != 1 or window.shape[tap] != stride:
            return None
        lengths[axis] = window.shape[tap]
    taps = product(lengths.values()).constant
    if taps is None or not 1 < taps <= MOST_TAPS or len(lengths) != len(reduced):
        return None
    return Pool(pooled, {axis: window.shape[axis] for axis in lengths}, lengths)


def takes_pools(node: Node, words: bool) -> bool:
    """Whether a contraction's kernel computes pixel after pixel, with samples as lanes (see `codegen.direct`), and has
    room to pool them."""
    return (layout.wants_batch_innermost(node) and layout.is_windowed(node) and layout.reads_in_place(node, words)
            and node.dtype in (dtypes.float32, dtypes.float64))


def is_read_elsewhere(graph: Graph, pool: Pool, group: Group) -> bool:
    """Whether anything outside a group reads what it pools."""
    pending, wanted = [pool.pooled], set(graph.outputs)
    while pending:
        node = pending.pop()
        if node in wanted:
            return True
        for user in node.users:
            if user.op.kind is Kind.MOVEMENT:
                pending.append(user)
            elif user not in group.members:
                return True
    return False
