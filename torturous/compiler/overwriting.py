"""Which outputs may be written over leaves: new values over those that they follow, as an optimizer's are.

Whether anybody else still wants what a leaf holds is for those to say who run the plan (`runtime.homes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Kernel, Load, Store
from torturous.compiler.schedule import loads
from torturous.compiler.sizes import product
from torturous.ir.op import Kind


def overwritable(levels: Sequence[Sequence[Kernel]], reads: Mapping[Kernel, set[Node]], outputs: Sequence[Node]
                 ) -> dict[Node, tuple[Node, ...]]:
    """For outputs, the leaves in whose memory they may be written.

    Only their own kernel may read such a leaf then or later, and there an element only where its successor is
    computed: kernels read whatever a place needs before they store anything there.
    """
    last: dict[Node, list[Kernel]] = {}
    for level in levels:
        now: dict[Node, list[Kernel]] = {}
        for kernel in level:
            for node in reads[kernel]:
                now.setdefault(node, []).append(kernel)
        last.update(now)
    makers: dict[Node, list[tuple[Kernel, Store]]] = {}
    for level in levels:
        for kernel in level:
            for store in kernel.stores:
                makers.setdefault(store.buffer, []).append((kernel, store))
    found: dict[Node, tuple[Node, ...]] = {}
    for output in dict.fromkeys(outputs):
        if len(makers.get(output, ())) != 1:
            continue
        kernel, store = makers[output][0]
        if kernel.product is None and kernel.special is None and kernel.attention is None and not store.inside:
            leaves = _leaves_along(kernel, store)
            found[output] = tuple(leaf for leaf in leaves if last[leaf] == [kernel])
    return {output: leaves for output, leaves in found.items() if leaves}


def _leaves_along(kernel: Kernel, store: Store) -> list[Node]:
    """Leaves as large as what is stored that a kernel reads at the very place that it stores to."""
    places: dict[Node, list[Load]] = {}
    for load in loads(kernel):
        places.setdefault(load.buffer, []).append(load)
    output = store.buffer
    return [
        leaf for leaf, reading in places.items()
        if leaf.op.kind is Kind.LEAF and leaf is not output and leaf.dtype.itemsize == output.dtype.itemsize
        and product(leaf.shape) == product(output.shape)
        and all(not load.guards and load.address == store.address for load in reading)
        and min(store.address.terms, default=0) >= 0
    ]
