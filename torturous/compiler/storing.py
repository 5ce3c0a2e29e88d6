"""Which values are stored.

A *stored* value has a buffer; everything else is computed where it is used. Reductions and contractions anchor a
kernel each and take the elementwise chain that follows them as epilogue. Reductions of the same rows, and values
along these, share one (see `groups`). An elementwise value used in several kernels is stored unless recomputing it
is about as cheap as loading it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torturous.compiler import attention, layout, pooling
from torturous.compiler.graph import Graph, Node
from torturous.compiler.groups import Group, Groups
from torturous.compiler.layout import SPECIAL, WHOLE
from torturous.compiler.lower import CannotPull, matched_groups
from torturous.compiler.sizes import ZERO, product
from torturous.ir import movement
from torturous.ir.op import Kind

ANCHORS = frozenset({Kind.REDUCE, Kind.CONTRACT})
PRODUCTS = frozenset({Kind.CONTRACT, Kind.ATTENTION})
"""What reads its operands several times."""
INDEX_MAPS = frozenset({movement.RESHAPE, movement.PERMUTE, movement.EXPAND, movement.SLICE, movement.PART,
                        movement.FLIP})
"""Movement that is an address and nothing else."""
RECOMPUTED_COST = 3
"""An elementwise value of at most this cost is computed again in every kernel that uses it."""
REPEATED_COST = 1
"""The same for a value that one kernel reads several times per element (windows, broadcasting, products)."""
GATHERED_COST = 2
"""What it costs to read elements one by one."""
DEPTH = 32
"""Ops that one may follow another in a kernel: long chains become several kernels, which are soon compiled."""


class Storing:
    """A graph's stored values, and the groups that share kernels."""

    def __init__(
        self, graph: Graph, enabled: bool, refused: set[Node], given: Mapping[Node, layout.Order], words: bool
    ) -> None:
        self.graph = graph
        self.words = words
        self.given = given
        self.enabled = enabled
        self.anchor: dict[Node, Node] = {}
        """Per stored node, the reduction or contraction that its kernel is built around."""
        self.stored: set[Node] = {
            node for node in graph.nodes if node.op.kind is Kind.LEAF or node.op.kind in SPECIAL
        }
        for node in graph.nodes:
            if node.op.kind in WHOLE:
                self.stored.update(node.inputs)
        self.stored.update(graph.outputs)
        self.epilogues: set[Node] = set()
        """Elementwise nodes that a reduction's or contraction's kernel computes on its results."""
        self.orders: dict[Node, layout.Order] = {}
        """Of what was relaid for one contraction."""
        self.pools: dict[Group, pooling.Pool] = {}
        """Groups that a convolution's kernel computes on its results."""
        self.made: set[tuple[Node, Node]] = set()
        """Contractions with factors that they make themselves while they go through their products."""
        self.flat: set[Node] = set()
        """What has to lie row-major, whatever would read it faster."""
        fixed = {node for node in self.graph.outputs if not layout.computes_samples(node)}
        self.chosen = layout.choose(self.graph, self.stored, fixed)
        if enabled:
            deep = self._limit_depth()
            wanted = set(self.stored)
            self._absorb_epilogues()
            self._store_factors()
            self._store_reshaped()
            self._group({node: node for node in deep} | self.anchor, refused)
            self._pool(refused)
            self._store_shared(wanted)
        else:
            self.stored.update(graph.nodes)
            self.anchor = {node: node for node in graph.nodes if node.op.kind in ANCHORS}
            self._group(self.anchor, set(graph.nodes))

    # Where it lies ---------------------------------------------------------------------------------------------------
    def storage_of(self, node: Node) -> Node:
        """The node whose buffer holds a stored node: a reshape of something stored is that something."""
        while node.op is movement.RESHAPE and node.inputs[0] in self.stored:
            if not self.is_row_major(self.storage_of(node.inputs[0])):
                break
            node = node.inputs[0]
        return node

    def order(self, node: Node) -> layout.Order:
        """How a stored value's axes lie in memory."""
        if node in self.flat:
            return layout.row_major(len(node.shape))
        return self.orders.get(node) or self.given.get(node) or self.chosen(node)

    def is_row_major(self, node: Node) -> bool:
        return self.order(node) == layout.row_major(len(node.shape))

    def store(self, node: Node) -> list[Node]:
        """Stores a node, and what it is a free reshape of; gives what was not stored before."""
        if node in self.stored:
            return []
        self.stored.add(node)
        if node.op is movement.RESHAPE and self.is_row_major(node) and self.is_row_major(node.inputs[0]):
            return [node, *self.store(node.inputs[0])]
        return [node]

    # What is stored --------------------------------------------------------------------------------------------------
    def _absorb_epilogues(self) -> None:
        for node in self.graph.nodes:
            if node.op.kind not in ANCHORS:
                continue
            last, taken = node, 0
            while last not in self.stored and taken < DEPTH:
                following = self._following(last)
                if not following and last is node and self._is_split(node):
                    following = list(node.users)
                if not following:
                    break
                last, taken = following[-1], taken + len(following)
                self.epilogues.update(following)
            self.stored.add(last)
            self.anchor[last] = node

    def _following(self, node: Node) -> list[Node]:
        """The fewest elementwise values that all of what is made of a value comes together in, up to the one where it
        does: one user, or the several steps of x·Φ(x). None if it does not, or elsewhere."""
        following: list[Node] = []
        users = set(node.users)
        while users and len(following) < DEPTH:
            user = min(users, key=lambda each: each.number)
            if user.op.kind is not Kind.ELEMENTWISE or user.shape != node.shape or user in self.epilogues:
                return []
            following.append(user)
            users.remove(user)
            if not users:
                return following
            if user in self.stored:
                return []
            users.update(user.users)
        return []

    def _is_split(self, node: Node) -> bool:
        """Whether a matrix product is wanted with more axes, and not row by row: its kernel can store it so. Sizes have
        to be known: its code is longer than that of two kernels otherwise, and libraries have to be small."""
        if len(node.users) != 1:
            return False
        (user,) = node.users
        if node.op.kind is not Kind.CONTRACT or user.op is not movement.RESHAPE or layout.is_windowed(node):
            return False
        if node.attributes[3:] or self.is_row_major(user) or user in self.stored:
            return False
        try:
            groups = matched_groups(self.graph, user, node.shape)
        except CannotPull:
            return False
        return all(len(loops) == 1 for _, loops in groups) and all(size.constant for size in user.shape)

    def _store_factors(self) -> None:
        """Stores what contractions multiply, if it is computed: they read plain memory."""
        for node in self.graph.nodes:
            if node.op.kind not in PRODUCTS:
                continue
            for operand in node.inputs if node.op.kind is Kind.CONTRACT else attention.factors(node):
                below, repeated = operand, False
                while below not in self.stored and below.op in INDEX_MAPS:
                    repeated = repeated or below.op is movement.EXPAND
                    below = below.inputs[0]
                if below not in self.stored and below.op.kind not in ANCHORS:
                    if layout.makes_upstream(node) and operand is node.inputs[0] and self._is_thin(operand):
                        self.made.add((node, operand))
                    else:
                        self.stored.add(below if repeated else operand)

    def _is_thin(self, node: Node) -> bool:
        """Whether a value is cheap to compute from much less memory than it would take: a gradient of pooling is."""
        pending, seen, sources, cost = [node], {node}, ZERO, 0
        while pending:
            above = pending.pop()
            for operand in above.inputs:
                if operand in seen:
                    continue
                seen.add(operand)
                if operand in self.stored or operand.op.kind in ANCHORS:
                    sources = sources + product(operand.shape) * operand.dtype.itemsize
                elif operand.op.kind in (Kind.ELEMENTWISE, Kind.MOVEMENT, Kind.CREATE):
                    cost += operand.op.cost if operand.op.kind is Kind.ELEMENTWISE else 0
                    pending.append(operand)
                else:
                    return False
        hint = self.graph.hint
        return cost <= RECOMPUTED_COST and 2 * hint(sources) <= hint(product(node.shape)) * node.dtype.itemsize

    def _store_reshaped(self) -> None:
        """A stored reshape is free if its operand is stored, and both lie row-major."""
        for node in self.graph.nodes:
            if node in self.stored and node.op is movement.RESHAPE and self.is_row_major(node):
                if self.is_row_major(node.inputs[0]):
                    self.store(node.inputs[0])

    def _group(self, anchors: Mapping[Node, Node], refused: Collection[Node]) -> None:
        """Groups reductions, and what is stored in any case."""
        alone = {node: node for node in self.graph.nodes if node.op.kind in SPECIAL}
        self.groups = Groups(self.graph, alone | dict(anchors), self.order, refused)
        for node in self.graph.nodes:
            if node in self.stored and node.op.kind is not Kind.LEAF:
                self.groups.enter(node)

    def _pool(self, refused: set[Node]) -> None:
        """Lets convolutions pool their own results."""
        for group in list(self.groups.kernels):
            pool = pooling.pool_of(group) if group.axes else None
            if pool is None or not refused.isdisjoint((pool.pooled, *group.members)):
                continue
            convolution = self.anchor.get(pool.pooled)
            if convolution is None or not pooling.takes_pools(convolution, self.words):
                continue
            if not pool.covers and pooling.is_read_elsewhere(self.graph, pool, group):
                continue
            if self.groups.of[pool.pooled] not in self.pools and self.groups.absorb(
                    group, self.groups.of[pool.pooled]):
                self.pools[group] = pool

    def _store_shared(self, wanted: Collection[Node]) -> None:
        """Stores what several kernels compute, unless that is about as cheap as reading it; and of what reductions
        give only what is wanted or read by another kernel."""
        cost: dict[Node, int] = {}
        for node in self.graph.nodes:
            if node in self.stored or node.op.kind in ANCHORS:
                cost[node] = 0
                continue
            own = node.op.cost if node.op.kind is Kind.ELEMENTWISE else 0
            if node.op.kind is Kind.GATHER or self._is_read_across(node):
                own = GATHERED_COST
            # What is repeated has few elements, or is stored for itself.
            cost[node] = own + sum(cost[operand] for operand in node.inputs if not self._repeats(operand, node))
        sinks: dict[Node, set[Group]] = {}
        repeated: dict[Node, bool] = {}
        for node in reversed(self.graph.nodes):
            reached: set[Group] = set()
            again = False
            for user in node.users:
                kernel = self.groups.of.get(user)
                reached |= {kernel} if kernel is not None else sinks[user]
                again = again or self._repeats(node, user) or (
                    user.op.kind is Kind.MOVEMENT and user not in self.stored and repeated[user]
                )
            sinks[node], repeated[node] = reached, again
            if node in self.anchor and node not in wanted and reached == {self.groups.of[node]}:
                self.stored.discard(node)
            if node in self.stored or node in self.epilogues or node.op.kind not in (Kind.ELEMENTWISE, Kind.GATHER):
                continue
            if again and len(reached) == 1 and next(iter(reached)).is_row_shape(node.shape):
                again = False  # It is computed once a row.
            if (len(reached) > 1 and cost[node] > RECOMPUTED_COST) or (again and cost[node] > REPEATED_COST):
                self.stored.add(node)
                self.groups.enter(node)

    def _is_read_across(self, node: Node) -> bool:
        """Whether a reshape's elements lie behind each other in another direction than those of its operand."""
        if node.op is not movement.RESHAPE or node.inputs[0] not in self.stored:
            return False
        before, after = self.order(node.inputs[0]), self.order(node)
        return bool(before and after) and (before[-1] == 0) != (after[-1] == 0) and len(before) > 1 < len(after)

    def _limit_depth(self) -> list[Node]:
        """Stores a value now and then along a chain, so that no expression is deeper than can be walked."""
        deep = []
        depth: dict[Node, int] = {}
        for node in self.graph.nodes:
            own = 1 + max((depth[operand] for operand in node.inputs), default=0)
            if own > DEPTH and node.op is not movement.RESHAPE and node.op.kind not in ANCHORS:
                self.stored.add(node)
                deep.append(node)
            depth[node] = 0 if node in self.stored or node.op.kind in ANCHORS else own
        return deep

    def _repeats(self, node: Node, user: Node) -> bool:
        """Whether a user reads each element of a node several times."""
        if (user, node) in self.made:
            return False
        if user.op.kind in PRODUCTS or user.op in (movement.EXPAND, movement.WINDOW, movement.UNWINDOW):
            return True
        if user.op.kind is Kind.ELEMENTWISE and node.shape != user.shape:
            lead = len(user.shape) - len(node.shape)
            return lead > 0 or any(a == 1 and b != 1 for a, b in zip(node.shape, user.shape[lead:], strict=True))
        return False
