"""Which reductions and stored elementwise values share a kernel: those along the same rows, or over the same elements.

A group has a *space*, the shape of what its reductions reduce, and the axes they reduce (none for a group of maps).
Its members are reductions over that space, values of its shape, and values of the shape that the reductions leave.
One kernel goes over the space row by row, in as many passes as reductions wait for each other (`compiler.stages`).

A value joins if the group has something of it already, read or computed, and if no kernel outside would then have to
run both after and before the group's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torturous.compiler import layout
from torturous.compiler.graph import Graph, Node, Shape
from torturous.compiler.sizes import ONE, product
from torturous.ir import movement
from torturous.ir.op import Kind

FOLLOWED = frozenset({Kind.ELEMENTWISE, Kind.MOVEMENT})
"""What is computed wherever it is needed, rather than by a kernel that it anchors."""
MOST_MEMBERS = 16
MOST_PASSES = 4
MOST_SIBLINGS = 4
"""Reductions in one pass: their partial results should stay in registers, or in the first-level cache."""
ROW_BYTES = 1 << 19
"""A row that is gone through several times should stay in the second-level cache."""
FEWEST_ROWS = 8
"""Rows are what threads share out: fewer are worth it only if they are little work."""
LITTLE = 1 << 15
"""Elements."""


MOST_PARTS = 8
"""Equal parts that are joined by one kernel with a store for each."""


def space_of(node: Node) -> Shape | None:
    """The loops of a map that gives a value, if there is one: its shape, or that of each of equal parts it joins."""
    if node.op.kind is Kind.ELEMENTWISE:
        return node.shape
    if node.op is movement.CONCATENATE and len(node.inputs) <= MOST_PARTS and (
            len({part.shape for part in node.inputs}) == 1):
        return node.inputs[0].shape
    return None


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes. A kernel that nothing can join has no space."""

    space: Shape | None = None
    axes: tuple[int, ...] = ()
    order: layout.Order | None = None
    """How the space lies in memory, once a value of its shape has joined."""
    members: list[Node] = field(default_factory=list)
    passes: dict[Node, int] = field(default_factory=dict)
    """In which pass a reduction is taken."""
    mask: int = 0
    """What the kernel computes and others may read, as bits by number."""
    needs: int = 0
    """All that must be there before the kernel runs, as bits: closed under what other kernels need."""
    above: int = 0
    """All that members depend on, as bits."""
    sources: int = 0
    """Leaves and results of kernels that members are computed from, as bits."""
    closed: bool = False
    """Whether nothing more may join."""

    def is_row_shape(self, shape: Shape) -> bool:
        """Whether a shape is that of one value per row."""
        return bool(self.axes) and shape in (self.row_shape(True), self.row_shape(False))

    def row_shape(self, keep: bool) -> Shape:
        """The space without its reduced axes, or with ones for them."""
        return tuple(
            ONE if axis in self.axes else size for axis, size in enumerate(self.space or ())
            if keep or axis not in self.axes)


class Groups:
    """Groups under construction."""

    def __init__(self, graph: Graph, anchors: Mapping[Node, Node], order: Callable[[Node], layout.Order],
                 refused: Container[Node]) -> None:
        """`anchors` gives, per stored value, the reduction or contraction that it follows; what is refused has
        turned out to have no place in a group."""
        self.graph = graph
        self.order = order
        self.refused = refused
        self.of: dict[Node, Group] = {}
        self.kernels: list[Group] = []
        self.above: dict[Node, int] = {}
        """Per node, all that it depends on, itself included, as bits."""
        self.sources: dict[Node, int] = {}
        """Per node, the leaves, reductions and the like that it is computed from."""
        for node in graph.nodes:
            above = 1 << node.number
            sources = 0
            for operand in node.inputs:
                above |= self.above[operand]
                sources |= self.sources[operand] if operand.op.kind in FOLLOWED else 1 << operand.number
            self.above[node] = above
            self.sources[node] = sources
        self.products = self.mask(node for node in graph.nodes if node.op.kind in (Kind.CONTRACT, Kind.ATTENTION))
        self._by_space: dict[Shape, list[Group]] = {}
        # All that cannot be computed inside another kernel is known from the start, so that no group is formed
        # that would have to wait for itself.
        for last, anchor in anchors.items():
            self.enter_alone(*{anchor: None, last: None})
        for last, anchor in anchors.items():
            if anchor.op.kind is Kind.REDUCE:
                self._enter_reduction(anchor, last)

    def mask(self, nodes: Iterable[Node]) -> int:
        return sum({1 << node.number for node in nodes})

    # Joining -------------------------------------------------------------------------------------------------------
    def absorb(self, group: Group, other: Group) -> bool:
        """Makes one kernel of two, to which nothing more is added, unless a third would have to run in between."""
        bits = group.mask | other.mask
        needs = (group.needs | other.needs) & ~bits
        between = any(third is not group and third is not other and third.mask & needs and third.needs & bits
                      for third in self.kernels)
        if between:
            return False
        self.kernels.remove(other)
        group.closed = True
        self._add(group, other.members)
        return True

    def enter_alone(self, *nodes: Node) -> None:
        """A kernel of its own for what nothing can join."""
        group = Group(closed=True)
        self.kernels.append(group)
        self._add(group, nodes)

    def _enter_reduction(self, node: Node, last: Node) -> None:
        """Puts a reduction and what follows it up to `last` into a group, which may be its own."""
        space, axes = node.inputs[0].shape, node.attributes[0]
        nodes = (node,) if last is node else (node, last)
        self.kernels.remove(self.of[node])
        for group in reversed(self._by_space.get(space, [])):
            if group.axes == axes and self._may_join(group, *nodes):
                wait = self._pass_of(group, node)
                siblings = list(group.passes.values()).count(wait)
                if wait < MOST_PASSES and siblings < MOST_SIBLINGS and (not wait or self._fits(group)):
                    group.passes[node] = wait
                    return self._add(group, nodes)
        group = self._begin(space, axes, node in self.refused)
        group.passes[node] = 0
        self._add(group, nodes)

    def enter(self, node: Node) -> None:
        """Puts a stored value into a group, which may be its own."""
        if node in self.of:
            return
        space = space_of(node)
        if space is None:
            return self.enter_alone(node)
        candidates = [group for group in self._candidates(node, space) if self._may_join(group, node)]
        if candidates:
            group = max(candidates, key=lambda group: self._preference(group, node))
        elif space != node.shape:
            return self.enter_alone(node)
        else:
            group = self._begin(space, (), node in self.refused)
        if group.space == node.shape:
            group.order = self.order(node)
        self._add(group, (node,))

    def _begin(self, space: Shape, axes: tuple[int, ...], closed: bool) -> Group:
        group = Group(space, axes, closed=closed)
        self._by_space.setdefault(space, []).append(group)
        self.kernels.append(group)
        return group

    def _add(self, group: Group, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self.of[node] = group
            group.sources |= self.sources[node]
            group.above |= self.above[node]
            group.needs |= self._closed(self.above[node])
        group.members += nodes
        group.mask |= self.mask(nodes)
        group.needs &= ~group.mask
        for other in self.kernels:
            if other.needs & group.mask:
                other.needs |= group.needs

    def _closed(self, needs: int) -> int:
        """With what the kernels that compute all this need in turn."""
        for group in self.kernels:
            if group.mask & needs:
                needs |= group.needs
        return needs

    def _candidates(self, node: Node, space: Shape) -> list[Group]:
        """Groups in whose kernel a value has a place: at every point, or once a row."""
        above, sources, bit = self.above[node], self.sources[node], 1 << node.number
        found = []
        for group in self._by_space.get(space, []):
            if group.axes and space != node.shape:
                continue
            if not (group.sources & sources or group.mask & above or group.needs & bit):
                continue
            if group.order not in (None, self.order(node)):
                continue
            # Rows that do not lie in memory as rows are gone through only for the sake of what they give.
            if not group.axes or self._fits(group) and (
                    group.mask & above or self.order(node)[-1] in group.axes):
                found.append(group)
        found += [
            group for group in self.kernels
            if space == node.shape != group.space and group.mask & above and group.is_row_shape(node.shape)
        ]
        return found

    def _preference(self, group: Group, node: Node) -> tuple:
        """Rather where a value waits for a reduction; else not along with reductions at all."""
        return bool(group.axes) and bool(group.mask & self.above[node]), not group.axes, len(group.members)

    def _may_join(self, group: Group, *nodes: Node) -> bool:
        """Whether nodes have to do with a group, and no kernel would have to run both before and after it."""
        if group.closed or len(group.members) >= MOST_MEMBERS or any(node in self.refused for node in nodes):
            return False
        bits = self.mask(nodes)
        above = 0
        for node in nodes:
            above |= self.above[node]
        if not (above & group.mask or group.needs & bits):
            # Those that merely read the same must be ready at the same time: else what they read would stay alive.
            if (above ^ group.above) & self.products or not any(self._shared(group, node) for node in nodes):
                return False
        bits |= group.mask
        needs = self._closed(above | group.needs)
        return not any(
            other is not group and other.mask & needs and other.needs & bits for other in self.kernels
        )

    def _shared(self, group: Group, node: Node) -> bool:
        """Whether something that both read is as large as the space."""
        common = self.sources[node] & group.sources
        elements = self.graph.hint(product(group.space or ()))
        while common:
            low = common & -common
            if 2 * self.graph.hint(product(self.graph.nodes[low.bit_length() - 1].shape)) >= elements:
                return True
            common ^= low
        return False

    # Rows ----------------------------------------------------------------------------------------------------------
    def _pass_of(self, group: Group, node: Node) -> int:
        """The pass in which a reduction can be taken."""
        above = self.above[node]
        return max((wait + 1 for other, wait in group.passes.items() if above >> other.number & 1), default=0)

    def _fits(self, group: Group) -> bool:
        """Whether going through a group's rows several times is good: they stay in cache and keep threads busy."""
        assert group.space is not None
        row = self.graph.hint(product(group.space[axis] for axis in group.axes))
        rows = self.graph.hint(product(group.row_shape(False)))
        itemsize = max((node.dtype.itemsize for node in group.members), default=4)
        return row * itemsize <= ROW_BYTES and (rows >= FEWEST_ROWS or row * rows <= LITTLE)
