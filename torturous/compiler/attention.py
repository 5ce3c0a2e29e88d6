"""What an attention kernel reads: rows of queries, keys and values where they lie, and a mask that may be computed.

Its loops are the heads, then queries, keys, the width of a query and the depth of a value; which of them run inside
which is the code generator's own (see `codegen.attention`).
"""

from __future__ import annotations

from collections.abc import Callable

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Attention, Expression, Kernel, Load, SlotNumber
from torturous.compiler.lower import CannotPull, Puller
from torturous.compiler.sizes import Affine
from torturous.core import dtypes
from torturous.ir.attending import ATTEND_BACK


def factors(node: Node) -> list[Node]:
    """The operands whose rows are multiplied with each other."""
    return node.inputs[:-1] if node.attributes[1] else node.inputs


def fill(kernel: Kernel, node: Node, puller_of: Callable[[Kernel], Puller]) -> None:
    """Makes a kernel that of an attention node."""
    causal, masked = node.attributes
    assert node.dtype is dtypes.float32, f"{node}: there is no kernel for {node.dtype.name}"
    query, key, value, *further = factors(node)
    *lead, length, width = query.shape
    kernel.axes = [*lead, length, key.shape[-2], width, value.shape[-1]]
    puller = puller_of(kernel)
    heads = tuple(map(Affine.axis, range(len(lead))))
    queries, keys, across, deep = (Affine.axis(len(lead) + number) for number in range(4))

    def rows(operand: Node, row: Affine, column: Affine) -> Load:
        """An operand as rows whose elements lie side by side."""
        load = puller.pull(operand, (*heads, row, column))
        (along,) = column.terms
        if not isinstance(load, Load) or load.guards or load.address.factor(along) != 1 or min(load.address.terms) < 0:
            assert not puller.is_stored(operand), f"{operand} is stored, and yet its rows do not lie side by side"
            raise CannotPull(operand)
        return load

    mask: Expression | None = None
    if masked:
        mask = puller.pull(node.inputs[-1], (*heads, queries, keys))
    scale = next(operand for operand in node.operands if isinstance(operand, int))
    kernel.attention = Attention(
        node, causal, mask, SlotNumber(node.dtype, scale),
        rows(query, queries, across), rows(key, keys, across), rows(value, keys, deep))
    if node.op is ATTEND_BACK:
        upstream, forward = further
        kernel.attention.upstream = rows(upstream, queries, deep)
        kernel.attention.forward = rows(forward, queries, deep)
