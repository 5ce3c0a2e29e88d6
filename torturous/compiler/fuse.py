"""Which values are stored, and which kernel computes what.

A *stored* value has a buffer; everything else is computed where it is used. Reductions and contractions anchor a
kernel each and take the elementwise chain that follows them as epilogue. Reductions of the same rows, and values
along these, share one (see `groups`). An elementwise value used in several kernels is stored unless recomputing it
is about as cheap as loading it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torturous.compiler import attention, layout
from torturous.compiler.graph import Graph, Node
from torturous.compiler.groups import Group, Groups
from torturous.compiler.kernel import Accumulator, Kernel, Store
from torturous.compiler.layout import SPECIAL, WHOLE
from torturous.compiler.lower import CannotGroup, CannotPull, Positions, Puller, flat_address
from torturous.compiler.operands import AS_IT_IS, Form, Operands, is_plain_load
from torturous.compiler.repeat import repeat
from torturous.compiler.sizes import ONE, Affine, Size
from torturous.core import dtypes
from torturous.ir import contraction, movement, reduction
from torturous.ir.op import Kind

ANCHORS = frozenset({Kind.REDUCE, Kind.CONTRACT})
PRODUCTS = frozenset({Kind.CONTRACT, Kind.ATTENTION})
"""What reads its operands several times."""
WRITTEN = frozenset({Kind.LEAF, Kind.ITEM})
"""Stored values without a kernel of their own: leaves, and what a repeat node's kernels write."""
INDEX_MAPS = frozenset({movement.RESHAPE, movement.PERMUTE, movement.EXPAND, movement.SLICE, movement.PART,
                        movement.FLIP})
"""Movement that is an address and nothing else."""
RECOMPUTED_COST = 3
"""An elementwise value of at most this cost is computed again in every kernel that uses it."""
GATHERED_COST = 2
"""What it costs to read elements one by one."""
DEPTH = 32
"""Ops that one may follow another in a kernel: long chains become several kernels, which are soon compiled."""
MOST_PARTS = 8
"""Equal parts that are joined by one kernel with a store for each."""
REPEATED_COST = 1
"""The same for a value that one kernel reads several times per element (windows, broadcasting, products)."""


@dataclass(eq=False)
class Fused:
    """Kernels in an order that respects what they read, and where each output lies."""

    kernels: list[Kernel]
    outputs: list[Node]
    """Per output of the graph, the node whose buffer holds it."""
    leaves: list[Node] = field(default_factory=list)


def fuse(graph: Graph, enabled: bool = True, given: Mapping[Node, layout.Order] | None = None, words: bool = False
         ) -> Fused:
    """Groups a graph into kernels; without `enabled` every row is a kernel of its own.

    `given` says in which order some leaves lie, if not row-major; `words`, that the machine takes products in words.
    """
    refused: set[Node] = set()
    while True:
        fusion = _Fusion(graph, enabled, refused, given or {}, words)
        try:
            return fusion.finish()
        except CannotGroup as refusal:
            refused.add(refusal.node)


class _Fusion:
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
        fixed = {node for node in self.graph.outputs if not layout.computes_samples(node)}
        self.chosen = layout.choose(self.graph, self.stored, fixed)
        if enabled:
            deep = self._limit_depth()
            wanted = set(self.stored)
            self._absorb_epilogues()
            self._store_factors()
            self._store_reshaped()
            self._group({node: node for node in deep} | self.anchor, refused)
            self._store_shared(wanted)
        else:
            self.stored.update(graph.nodes)
            self.anchor = {node: node for node in graph.nodes if node.op.kind in ANCHORS}
            self._group(self.anchor, set(graph.nodes))

    # What is stored ------------------------------------------------------------------------------------------------
    def _absorb_epilogues(self) -> None:
        taken: set[Node] = set()
        for node in self.graph.nodes:
            if node.op.kind not in ANCHORS:
                continue
            last, depth = node, 0
            while last not in self.stored and len(last.users) == 1 and depth < DEPTH:
                user = last.users[0]
                if (user.op.kind is not Kind.ELEMENTWISE or user.shape != node.shape or user in taken
                        or user.inputs.count(last) > 1):
                    break
                last, depth = user, depth + 1
                taken.add(user)
            self.stored.add(last)
            self.anchor[last] = node

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
                    self.stored.add(below if repeated else operand)

    def _store_reshaped(self) -> None:
        """A stored reshape is free if its operand is stored, and both lie row-major."""
        for node in self.graph.nodes:
            if node in self.stored and node.op is movement.RESHAPE and self._is_row_major(node):
                if self._is_row_major(node.inputs[0]):
                    self._store(node.inputs[0])

    def _group(self, anchors: Mapping[Node, Node], refused: Collection[Node]) -> None:
        """Groups reductions, and what is stored in any case."""
        alone = {node: node for node in self.graph.nodes if node.op.kind in SPECIAL}
        self.groups = Groups(self.graph, alone | dict(anchors), self.order, refused)
        for node in self.graph.nodes:
            if node in self.stored and node.op.kind is not Kind.LEAF:
                self.groups.enter(node)

    def _store_shared(self, wanted: Collection[Node]) -> None:
        """Stores what several kernels compute, unless that is about as cheap as reading it; and of what reductions
        give only what is wanted or read by another kernel."""
        cost: dict[Node, int] = {}
        epilogues = self.epilogues
        for last, anchor in self.anchor.items():
            while last is not anchor:
                epilogues.add(last)
                last = next(n for n in last.inputs if isinstance(n, Node) and self._leads_to(n, anchor))
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
            if node in self.stored or node in epilogues or node.op.kind not in (Kind.ELEMENTWISE, Kind.GATHER):
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

    def _leads_to(self, node: Node, anchor: Node) -> bool:
        """Whether a node lies on the single-user chain that starts at an anchor."""
        while anchor is not node:
            if len(anchor.users) != 1:
                return False
            anchor = anchor.users[0]
            if anchor.number > node.number:
                return False
        return True

    def _repeats(self, node: Node, user: Node) -> bool:
        """Whether a user reads each element of a node several times."""
        if user.op.kind in PRODUCTS or user.op in (movement.EXPAND, movement.WINDOW, movement.UNWINDOW):
            return True
        if user.op.kind is Kind.ELEMENTWISE and node.shape != user.shape:
            lead = len(user.shape) - len(node.shape)
            return lead > 0 or any(a == 1 and b != 1 for a, b in zip(node.shape, user.shape[lead:], strict=True))
        return False

    # Kernels -------------------------------------------------------------------------------------------------------
    def storage_of(self, node: Node) -> Node:
        """The node whose buffer holds a stored node: a reshape of something stored is that something."""
        while node.op is movement.RESHAPE and node.inputs[0] in self.stored:
            if not self._is_row_major(self.storage_of(node.inputs[0])):
                break
            node = node.inputs[0]
        return node

    def order(self, node: Node) -> layout.Order:
        """How a stored value's axes lie in memory."""
        return self.orders.get(node) or self.given.get(node) or self.chosen(node)

    def _is_row_major(self, node: Node) -> bool:
        return self.order(node) == layout.row_major(len(node.shape))

    def finish(self) -> Fused:
        """The kernels; reshapes that turn out not to be index maps are stored on the way."""
        while True:
            refused: dict[Node, None] = {}
            fused = self._run(refused)
            if not refused:
                return fused
            for node in refused:
                for stored in self._store(node):
                    self.groups.enter(stored)

    def _run(self, refused: dict[Node, None]) -> Fused:
        """All kernels, but for those that cannot be built before what is put among `refused` is stored: these are
        found in one go, for a deep network has as many as layers."""
        self.orders.clear()
        self.kernels: list[Kernel] = []
        self.operands = Operands(
            self.kernels, self.stored, self.orders, self.storage_of, self.order, self._puller)
        kernels = self.kernels
        written: set[Group] = set()
        for node in self.graph.nodes:
            if node not in self.stored or node.op.kind in WRITTEN or self.storage_of(node) is not node:
                continue
            group = self.groups.of[node]
            if group in written:
                continue
            written.add(group)
            try:
                # It may first append kernels of its own needs.
                kernels.append(self._kernel(node) if group.space is None else self._grouped(group))
            except CannotPull as refusal:
                refused[refusal.node] = None
            except CannotGroup:
                if not refused:
                    raise
        outputs, holders = [], set(self.graph.leaves)
        for node in () if refused else self.graph.outputs:
            holder = self.storage_of(node)
            if holder in holders or not self._is_row_major(holder):
                try:
                    holder = self._copy(node, kernels)
                except CannotPull as refusal:
                    refused[refusal.node] = None
            holders.add(holder)
            outputs.append(holder)
        return Fused(kernels, outputs, self.graph.leaves)

    def _store(self, node: Node) -> list[Node]:
        """Stores a node, and what it is a free reshape of; gives what was not stored before."""
        if node in self.stored:
            return []
        self.stored.add(node)
        if node.op is movement.RESHAPE and self._is_row_major(node) and self._is_row_major(node.inputs[0]):
            return [node, *self._store(node.inputs[0])]
        return [node]

    def _copy(self, node: Node, kernels: list[Kernel]) -> Node:
        """A buffer of its own for an output that would otherwise share one, or not lie row-major."""
        copy = Node(-1 - len(kernels), node.op, node.attributes, node.shape, node.dtype, node.operands, node.place)
        kernel = Kernel(list(node.shape), names=["copy"], places=[node.place])
        puller = self._puller(kernel)
        positions = tuple(map(Affine.axis, range(len(node.shape))))
        kernel.stores.append(Store(copy, flat_address(positions, node.shape), puller.pull(node, positions)))
        kernels.append(kernel)
        return copy

    def _puller(self, kernel: Kernel, is_stored: Callable[[Node], bool] | None = None) -> Puller:
        return Puller(
            self.graph, is_stored or self.stored.__contains__, self.storage_of, kernel.axes + kernel.reduced,
            kernel.derived, self.order)

    def _kernel(self, node: Node) -> Kernel:
        kernel = Kernel([], names=[node.op.name], places=[node.place])
        if node.op.kind is Kind.ATTENTION:
            attention.fill(kernel, node, self._puller)
            return kernel
        if node.op.kind in SPECIAL:
            kernel.special = node
            kernel.operands = tuple(self.storage_of(operand) for operand in node.inputs)
            if node.op.kind is Kind.REPEAT:
                body = partial(fuse, words=self.words)
                kernel.repetition = repeat(node, kernel.operands, self.kernels, body, self.enabled)
            return kernel
        anchor = self.anchor.get(node)
        if anchor is None:
            self._map(kernel, node)
        else:
            self._contraction(kernel, node, anchor)
        if anchor is not None and anchor is not node:
            kernel.names.insert(0, anchor.op.name)
        return kernel

    def _map(self, kernel: Kernel, node: Node) -> None:
        """Loops in the order the result lies in memory."""
        order = self.order(node)
        kernel.axes = [node.shape[axis] for axis in order]
        if node.op is movement.RESHAPE:
            self._reshape(kernel, node)
            return
        if node.op is movement.CONCATENATE and len(node.inputs) <= MOST_PARTS and (
                len({part.shape for part in node.inputs}) == 1):
            self._parts(kernel, node)
            return
        self._finish(kernel, node, tuple(Affine.axis(order.index(axis)) for axis in range(len(order))))

    def _parts(self, kernel: Kernel, node: Node) -> None:
        """Loops over one of equal parts, and a store for each: nothing has to be chosen between."""
        (axis,), order, shape = node.attributes, self.order(node), node.inputs[0].shape
        kernel.axes = [shape[axis] for axis in order]
        positions = tuple(Affine.axis(order.index(axis)) for axis in range(len(order)))
        puller = self._puller(kernel)
        for which, part in enumerate(node.inputs):
            moved = (*positions[:axis], positions[axis] + shape[axis] * which, *positions[axis + 1:])
            value = puller.convert(puller.pull(part, positions), node.dtype)
            kernel.stores.append(Store(node, flat_address(moved, node.shape, order), value))

    def _reshape(self, kernel: Kernel, node: Node) -> None:
        """Loops over the operand's shape, in which what is read has its own axes; the place stored at follows."""
        (x,) = node.inputs
        order, rank = self.order(node), len(x.shape)
        samples = order and order[-1] == 0 and rank > 1
        loops = layout.samples_innermost(rank) if samples else layout.row_major(rank)
        kernel.axes = [x.shape[axis] for axis in loops]
        positions = tuple(Affine.axis(loops.index(axis)) for axis in range(rank))
        puller = self._puller(kernel)
        address = flat_address(positions, x.shape)
        if not self._is_row_major(node):
            address = flat_address(puller.reshaped(node, x.shape, positions), node.shape, order)
        kernel.stores.append(Store(node, address, puller.pull(x, positions)))

    def _finish(self, kernel: Kernel, node: Node, positions: Positions, puller: Puller | None = None) -> None:
        """Adds the store of the kernel's own node."""
        puller = puller or self._puller(kernel)
        self.stored.discard(node)  # Inside its own kernel it is computed, not loaded.
        try:
            value = puller.pull(node, positions)
        finally:
            self.stored.add(node)
        kernel.stores.append(Store(node, flat_address(positions, node.shape, self.order(node)), value))

    def _grouped(self, group: Group) -> Kernel:
        """The kernel of a group: its reductions, and stores of what of it is stored."""
        space, axes = group.space, group.axes
        assert space is not None
        members = sorted(group.members, key=lambda node: node.number)
        stored = [node for node in members if node in self.stored]
        whole = next((node for node in stored if node.shape == space), None)
        outer, inner = reduction.ordered_runs(axes)
        kept = [axis for axis in range(len(space)) if axis not in axes]
        # Kept loops in the order in which results lie in memory.
        if whole is not None:
            order = [axis for axis in self.order(whole) if axis not in axes]
        else:
            order = self._kept_order(stored[-1], group, kept)
        kernel = Kernel(
            [space[axis] for axis in order], [space[axis] for axis in (*outer, *inner)],
            outer_runs=len(outer), names=[node.op.name for node in members], places=[stored[-1].place])
        if not kernel.reduced and any(node.op.kind is Kind.REDUCE for node in members):
            kernel.reduced = [ONE]  # A 0-d operand has no axes: its only element is what a loop of length one meets.
        loop = {axis: Affine.axis(number) for number, axis in enumerate([*order, *outer, *inner])}
        everywhere = tuple(loop[axis] for axis in range(len(space)))
        per_row = tuple(loop[axis] for axis in kept)
        per_row_kept = tuple(Affine.fixed(0) if axis in axes else loop[axis] for axis in range(len(space)))

        def positions(node: Node) -> Positions:
            if node.op.kind is Kind.REDUCE:
                return per_row_kept if node.attributes[1] else per_row
            if node.shape == space:
                return everywhere
            return per_row_kept if len(node.shape) == len(space) else per_row

        above = self.groups.above
        # What depends on the kernel's own results cannot have been stored before it runs.
        puller = self._puller(kernel, lambda node: node in self.stored and not above.get(node, 0) & group.mask)
        puller.members = {node: positions(node) for node in members}
        for node in members:
            try:
                if node.op.kind is Kind.REDUCE:
                    self._accumulate(kernel, node, everywhere, puller)
                if node in self.stored:
                    place = positions(node)
                    address = flat_address(place, node.shape, self.order(node))
                    inside = bool(kernel.reduced) and node.shape == space and node.op.kind is not Kind.REDUCE
                    kernel.stores.append(Store(node, address, puller.pull(node, place), inside))
            except CannotGroup:
                raise CannotGroup(node) from None
            except CannotPull as refusal:
                if above.get(refusal.node, 0) & group.mask:
                    raise CannotGroup(node) from None
                raise
        return kernel

    def _kept_order(self, result: Node, group: Group, kept: list[int]) -> list[int]:
        """A group's kept axes in the order in which those of a result lie in memory."""
        order = self.order(result)
        if len(result.shape) == len(kept):
            return [kept[position] for position in order]
        return [axis for axis in order if axis not in group.axes]

    def _accumulate(self, kernel: Kernel, node: Node, positions: Positions, puller: Puller) -> None:
        """Adds a reduction to its group's kernel."""
        (operand,) = node.inputs
        indexed = node.op in (reduction.ARGMAX, reduction.ARGMIN)
        dtype = reduction.accumulator(operand.dtype if indexed else node.dtype)
        value = puller.convert(puller.pull(operand, positions), dtype)
        puller.accumulated[node] = (len(kernel.accumulators), node.dtype if indexed else dtype)
        kernel.accumulators.append(Accumulator(node.op, dtype, value))

    def _over_planes(self, kernel: Kernel, node: Node, anchor: Node) -> None:
        """A convolution of few products per result, or the gradient of its weights: with its window described."""
        _, *maps = anchor.attributes[:3]
        rank, inputs = len(anchor.shape), list(anchor.inputs)
        for operand in inputs:
            if operand not in self.stored:
                raise CannotPull(operand)
        which = next(n for n, its_maps in enumerate(maps) if any(len(terms) > 1 for terms, _, _ in its_maps))
        if layout.sums_over_planes(anchor):
            kernel.lanewise, kernel.gap, order = True, anchor.attributes[4], self.order(node)
        else:
            inner = layout.samples_innermost(rank)
            order = inner if inner in map(self.order, (node, self.storage_of(inputs[which]))) else self.order(node)
            if order == inner:
                inputs[which] = self.operands.in_order(inputs[which], order)
        extents = _loop_extents(anchor)
        kernel.axes, kernel.reduced = [extents[axis] for axis in order], extents[rank:]
        loops = {axis: order.index(axis) for axis in range(rank)} | {n: n for n in range(rank, len(extents))}
        puller = self._puller(kernel)
        dtype = contraction.accumulator(anchor.dtype)
        all_maps = [_renamed(its_maps, loops) for its_maps in maps]
        sides = [puller.mapped(*both) for both in zip(inputs, all_maps, strict=True)]
        kernel.product = (puller.convert(sides[0], dtype), puller.convert(sides[1], dtype))
        kernel.windowed = which
        kernel.windows = self.operands.windows(inputs[which], all_maps[which])
        kernel.accumulators.append(Accumulator(anchor.op, dtype, kernel.product[0]))
        puller.accumulated[anchor] = (0, dtype)
        self._finish(kernel, node, tuple(Affine.axis(loops[axis]) for axis in range(rank)), puller)

    def _contraction(self, kernel: Kernel, node: Node, anchor: Node) -> None:
        if layout.slides_over_planes(anchor) or layout.sums_over_planes(anchor):
            self._over_planes(kernel, node, anchor)
            return
        _, *maps = anchor.attributes[:3]
        kernel.lanewise = anchor.attributes[3:] == (contraction.LANEWISE,)
        left, right = anchor.inputs if len(anchor.inputs) == 2 else (anchor.inputs[0],) * 2
        rank, extents = len(anchor.shape), _loop_extents(anchor)
        samples = layout.batch(anchor) if layout.wants_batch_innermost(anchor) else None
        kernel.direct = layout.reads_in_place(anchor, self.words)
        kernel.words = kernel.direct and self.words and anchor.dtype is dtypes.bfloat16
        guarded = kernel.direct and not kernel.lanewise and samples is not None
        if layout.sums_samples_last(anchor) and layout.batch(anchor) != 1:
            samples = layout.batch(anchor)  # So that what follows each other in the sum does in memory.
        # Loops of the result in the order it lies in memory, or samples innermost where those are lanes; the reduced
        # ones, whose order is the sum's, as they are.
        order = layout.samples_innermost(rank) if guarded else self.order(node)
        if kernel.words:
            extents[-1] = layout.halved(extents[-1])
        kernel.axes, kernel.reduced = [extents[axis] for axis in order], extents[rank:]
        loops = {axis: order.index(axis) for axis in range(rank)} | {n: n for n in range(rank, len(extents))}
        puller = self._puller(kernel)
        dtype = contraction.accumulator(anchor.dtype)
        sides = []
        for operand, its_maps in zip((left, right), maps, strict=True):
            all_maps = _renamed(its_maps, loops)
            windows = any(len(terms) > 1 for terms, _, _ in its_maps)
            if kernel.direct and operand not in self.stored:
                raise CannotPull(operand)
            form = AS_IT_IS
            if kernel.direct and operand.dtype is not dtype:
                form = Form(dtype, layout.axis_of(all_maps, len(extents) - 1) if kernel.words else None)
            if samples is not None and operand.shape[0] == samples and len(operand.shape) > 2 and (
                    windows or not layout.is_windowed(anchor)):
                operand = self.operands.in_order(operand, layout.samples_innermost(len(operand.shape)), form)
                form = AS_IT_IS
            if not windows and layout.is_windowed(anchor):
                value = self.operands.rows_of_products(operand, all_maps, rank, form)
            elif guarded:
                value = puller.mapped(operand, all_maps)  # Guards and all: borders are left out, not multiplied.
            else:
                value = puller.mapped(*self.operands.padded(operand, all_maps, puller, form))
            if not is_plain_load(value, guarded):
                assert operand not in self.stored, f"{operand} is stored and yet no plain load"
                raise CannotPull(operand)
            sides.append(puller.convert(value, dtype))
        kernel.product = (sides[0], sides[1])
        kernel.accumulators.append(Accumulator(anchor.op, dtype, sides[0]))
        puller.accumulated[anchor] = (0, dtype)
        self._finish(kernel, node, tuple(Affine.axis(loops[axis]) for axis in range(rank)), puller)


def _loop_extents(anchor: Node) -> list[Size]:
    """Of a contraction's loops: those of its result, then the reduced ones."""
    reduced, *maps = anchor.attributes[:3]
    extents: list = [*anchor.shape, *[None] * reduced]
    operands = anchor.inputs if len(anchor.inputs) == 2 else anchor.inputs * 2
    for operand, its_maps in zip(operands, maps, strict=True):
        for size, index_map in zip(operand.shape, its_maps, strict=True):
            loop = contraction.Map(*index_map).lone
            if loop is not None and extents[loop] is None:
                extents[loop] = size
    return extents


def _renamed(its_maps: Sequence, loops: Mapping[int, int]) -> list[contraction.Map]:
    """Maps onto an operand's axes, in the loops of a kernel."""
    return [contraction.Map(tuple((loops[loop], factor) for loop, factor in terms), offset, divisor)
            for terms, offset, divisor in its_maps]
