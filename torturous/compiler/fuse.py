"""Which kernel computes what: a kernel for each group of stored values, built of what it computes and where it stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torturous.compiler import attention, layout, pooling
from torturous.compiler.graph import Graph, Node
from torturous.compiler.groups import Group, space_of
from torturous.compiler.kernel import Accumulator, Fused, Kernel, Store
from torturous.compiler.layout import SPECIAL
from torturous.compiler.lower import CannotGroup, CannotPull, Positions, Puller, flat_address, matched_groups
from torturous.compiler.nest import Nest, Terms, nest
from torturous.compiler.operands import AS_IT_IS, Form, Operands, is_plain_load
from torturous.compiler.repeat import repeat
from torturous.compiler.sizes import ONE, Affine, Size
from torturous.compiler.storing import Storing
from torturous.core import dtypes
from torturous.ir import contraction, movement, reduction
from torturous.ir.op import Kind

WRITTEN = frozenset({Kind.LEAF, Kind.ITEM})
"""Stored values without a kernel of their own: leaves, and what a repeat node's kernels write."""


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

class _Fusion(Storing):
    """The kernels of a graph."""

    def finish(self) -> Fused:
        """The kernels; reshapes that turn out not to be index maps are stored on the way."""
        while True:
            refused: dict[Node, None] = {}
            fused = self._run(refused)
            if not refused:
                return fused
            fresh = [stored for node in refused for stored in self.store(node)]
            for node in fresh:
                self.groups.enter(node)
            if not fresh:  # What is stored already is no index map in the order it has.
                assert not self.flat.issuperset(refused), f"{list(refused)} cannot be stored"
                self.flat.update(refused)

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
                kernels.append(self._kernel_of(group, node))
            except CannotPull as refusal:
                refused[refusal.node] = None
            except CannotGroup:
                if not refused:
                    raise
        outputs, holders = [], set(self.graph.leaves)
        for node in () if refused else self.graph.outputs:
            holder = self.storage_of(node)
            if holder in holders or not self.is_row_major(holder):
                try:
                    holder = self._copy(node, kernels)
                except CannotPull as refusal:
                    refused[refusal.node] = None
            holders.add(holder)
            outputs.append(holder)
        return Fused(kernels, outputs, self.graph.leaves)

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

    def _kernel_of(self, group: Group, node: Node) -> Kernel:
        """The kernel of a group that a node is the first of."""
        if group in self.pools:
            return self._pooled(group)
        return self._kernel(node) if group.space is None else self._grouped(group)

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
        if space_of(node) not in (None, node.shape):
            kernel.axes = [node.inputs[0].shape[axis] for axis in order]
            self._parts(kernel, node, self._puller(kernel), tuple(
                Affine.axis(order.index(axis)) for axis in range(len(order))))
            return
        self._finish(kernel, node, tuple(Affine.axis(order.index(axis)) for axis in range(len(order))))

    def _parts(self, kernel: Kernel, node: Node, puller: Puller, positions: Positions) -> None:
        """A store for each of equal parts, over whose loops the kernel goes: nothing has to be chosen between."""
        (axis,), order, size = node.attributes, self.order(node), node.inputs[0].shape[node.attributes[0]]
        for which, part in enumerate(node.inputs):
            moved = (*positions[:axis], positions[axis] + size * which, *positions[axis + 1:])
            value = puller.convert(puller.pull(part, positions), node.dtype)
            kernel.stores.append(Store(node, flat_address(moved, node.shape, order), value))

    def _reshape(self, kernel: Kernel, node: Node) -> None:
        """Loops over the operand's shape, in which what is read has its own axes; the place stored at follows.

        Where one axis becomes several, and these lie apart from each other, it is the place read that follows.
        """
        (x,) = node.inputs
        order, rank = self.order(node), len(x.shape)
        samples = order and order[-1] == 0 and rank > 1
        loops = layout.samples_innermost(rank) if samples else layout.row_major(rank)
        kernel.axes = [x.shape[axis] for axis in loops]
        positions = tuple(Affine.axis(loops.index(axis)) for axis in range(rank))
        puller = self._puller(kernel)
        address = flat_address(positions, x.shape)
        if not self.is_row_major(node):
            try:
                address = flat_address(puller.reshaped(node, x.shape, positions), node.shape, order)
            except CannotPull:
                kernel.axes = [node.shape[axis] for axis in order]
                self._finish(kernel, node, tuple(Affine.axis(order.index(axis)) for axis in range(len(order))))
                return
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
        puller.members = {node: positions(node) for node in members if node.op is not movement.CONCATENATE}
        for node in members:
            try:
                if node.op is movement.CONCATENATE:
                    self._parts(kernel, node, puller, everywhere)
                    continue
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
        loops = nest(order, anchor.shape, _same(anchor), extents, {})
        puller = self._puller(kernel)
        dtype = contraction.accumulator(anchor.dtype)
        all_maps = [_renamed(its_maps, loops.places) for its_maps in maps]
        sides = [puller.mapped(*both) for both in zip(inputs, all_maps, strict=True)]
        kernel.product = (puller.convert(sides[0], dtype), puller.convert(sides[1], dtype))
        kernel.windowed = which
        kernel.windows = self.operands.windows(inputs[which], all_maps[which])
        kernel.accumulators.append(Accumulator(anchor.op, dtype, kernel.product[0]))
        puller.accumulated[anchor] = (0, dtype)
        self._finish(kernel, node, loops.positions(), puller)

    def _contraction(self, kernel: Kernel, node: Node, anchor: Node) -> None:
        if layout.slides_over_planes(anchor) or layout.sums_over_planes(anchor):
            self._over_planes(kernel, node, anchor)
            return
        if layout.runs_across_channels(anchor, self.words) or layout.sums_tap_by_tap(anchor):
            self._across_channels(kernel, node, anchor)
            return
        puller, loops = self._products(kernel, node, anchor)
        self._finish(kernel, node, loops.positions(), puller)

    def _products(self, kernel: Kernel, node: Node, anchor: Node, pool: pooling.Pool | None = None,
                  is_stored: Callable[[Node], bool] | None = None) -> tuple[Puller, Nest]:
        """Fills in what a contraction multiplies and adds up, and the loops over it."""
        _, *maps = anchor.attributes[:3]
        kernel.lanewise = anchor.attributes[3:] == (contraction.LANEWISE,)
        left, right = anchor.inputs if len(anchor.inputs) == 2 else (anchor.inputs[0],) * 2
        extents = _loop_extents(anchor)
        samples = layout.batch(anchor) if layout.wants_batch_innermost(anchor) else None
        kernel.direct = layout.reads_in_place(anchor, self.words)
        kernel.words = kernel.direct and self.words and anchor.dtype is dtypes.bfloat16
        guarded = kernel.direct and not kernel.lanewise and samples is not None
        if layout.sums_samples_last(anchor) and layout.batch(anchor) != 1:
            samples = layout.batch(anchor)  # So that what follows each other in the sum does in memory.
        # Loops of the result in the order it lies in memory, or samples innermost where those are lanes; the reduced
        # ones, whose order is the sum's, as they are.
        order = layout.samples_innermost(len(anchor.shape)) if guarded else self.order(node)
        if kernel.words:
            extents[-1] = layout.halved(extents[-1])
        groups = _same(anchor) if node.shape == anchor.shape else matched_groups(self.graph, node, anchor.shape)
        loops = nest(order, node.shape, groups, extents, {} if kernel.direct else self._digits(anchor), pool)
        kernel.axes, kernel.reduced, kernel.pooled = loops.axes, loops.reduced, len(pool.lengths) if pool else 0
        kept, last = len(kernel.axes), len(kernel.axes) + len(kernel.reduced) - 1
        puller = self._puller(kernel, is_stored)
        dtype = contraction.accumulator(anchor.dtype)
        sides = []
        for operand, its_maps in zip((left, right), maps, strict=True):
            all_maps = _renamed(its_maps, loops.places)
            windows = any(len(terms) > 1 for terms, _, _ in its_maps)
            if operand not in self.stored and (anchor, operand) in self.made:
                sides.append(puller.convert(puller.mapped(operand, all_maps), dtype))
                continue
            if kernel.direct and operand not in self.stored:
                raise CannotPull(operand)
            form = AS_IT_IS
            if kernel.direct and operand.dtype is not dtype:
                form = Form(dtype, layout.axis_of(all_maps, last) if kernel.words else None)
            if samples is not None and operand.shape[0] == samples and len(operand.shape) > 2 and (
                    windows or not layout.is_windowed(anchor)):
                operand = self.operands.in_order(operand, layout.samples_innermost(len(operand.shape)), form)
                form = AS_IT_IS
            if not windows and layout.is_windowed(anchor):
                value = self.operands.rows_of_products(operand, all_maps, kept, form)
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
        return puller, loops

    def _digits(self, anchor: Node) -> dict[int, Sequence[Size]]:
        """Loops of a matrix product that go over several axes of what it multiplies, and the sizes of these: where an
        operand is another shape of something that does not lie row-major."""
        found: dict[int, Sequence[Size]] = {}
        for operand, its_maps in zip(anchor.inputs, anchor.attributes[1:3], strict=False):
            if operand in self.stored or operand.op is not movement.RESHAPE:
                continue
            (x,) = operand.inputs
            if x not in self.stored or self.is_row_major(self.storage_of(x)):
                continue
            for axes, seen_as in matched_groups(self.graph, x, operand.shape):
                loops = [contraction.Map(*its_maps[axis]).lone for axis in seen_as]
                sizes = [x.shape[axis] for axis in axes]
                if len(axes) > 1 == len(loops) and loops[0] is not None and all(size.constant for size in sizes[1:]):
                    found[loops[0]] = sizes
        return found

    def _pooled(self, group: Group) -> Kernel:
        """The kernel of a convolution and of a group that pools its results."""
        pool = self.pools[group]
        anchor = self.anchor[pool.pooled]
        members = sorted(group.members, key=lambda node: node.number)
        kernel = Kernel([], names=[node.op.name for node in members], places=[anchor.place])
        above = self.groups.above
        puller, loops = self._products(
            kernel, pool.pooled, anchor, pool, lambda node: node in self.stored and not above.get(node, 0) & group.mask)
        results = loops.positions()
        windows = tuple(Affine.axis(loops.places[axis][0][0]) for axis in range(len(anchor.shape)))
        within = tuple(Affine.axis(loops.places[axis][1][0]) for axis in sorted(pool.lengths))
        puller.members = {node: results if node in (anchor, pool.pooled) else windows for node in members}
        for node in members:
            if node.op.kind is Kind.REDUCE:
                self._accumulate(kernel, node, (*windows, *within), puller)
            if node in self.stored:
                place = puller.members[node]
                address = flat_address(place, node.shape, self.order(node))
                kernel.stores.append(Store(node, address, puller.pull(node, place), node is pool.pooled))
        return kernel

    def _across_channels(self, kernel: Kernel, node: Node, anchor: Node) -> None:
        """A convolution or a gradient of one whose lanes are channels of the result: they are two loops, blocks and the
        channels in one."""
        reduced, *maps = anchor.attributes[:3]
        rank, extents = len(anchor.shape), _loop_extents(anchor)
        kernel.direct = True
        kernel.tapwise, kernel.channelwise = layout.sums_tap_by_tap(anchor), not layout.sums_tap_by_tap(anchor)
        kernel.words = kernel.channelwise and self.words and anchor.dtype is dtypes.bfloat16
        if kernel.words:
            extents[-1] = layout.halved(extents[-1])
        kernel.windowed, channels = layout.channel_loop(anchor)
        together = layout.channels_together(extents[channels])
        loops: dict[int, int] = {}
        for axis in self.order(node):
            if axis == channels:
                kernel.axes.append(Size.of((extents[axis].constant or 0) // together))
            loops[axis] = len(kernel.axes)
            kernel.axes.append(Size.of(together) if axis == channels else extents[axis])
        kernel.reduced = extents[rank:]
        loops |= {rank + number: len(kernel.axes) + number for number in range(reduced)}
        puller = self._puller(kernel)
        dtype = contraction.accumulator(anchor.dtype)
        sides = []
        for operand, its_maps in zip(anchor.inputs, maps, strict=True):
            if operand not in self.stored:
                raise CannotPull(operand)
            all_maps = _renamed(its_maps, {loop: ((axis, 1),) for loop, axis in loops.items()})
            form = AS_IT_IS
            if operand.dtype is not dtype:
                form = Form(dtype, layout.axis_of(all_maps, loops[rank + reduced - 1]) if kernel.words else None)
            if loops[channels] in [m.lone for m in all_maps]:
                operand, all_maps = self._in_blocks(operand, all_maps, loops[channels], len(kernel.axes), form)
            else:
                kept = [axis for axis, m in enumerate(all_maps) if m.lone is not None and m.lone < len(kernel.axes)]
                own = kept[-1] if kernel.tapwise else layout.axis_of(all_maps, loops[rank + reduced - 1])
                operand = self.operands.spread(operand, own, form)  # Its channels: kept, or summed.
            value = puller.mapped(operand, all_maps)
            if not is_plain_load(value, True):
                raise CannotPull(operand)
            sides.append(puller.convert(value, dtype))
        kernel.product = (sides[0], sides[1])
        kernel.accumulators.append(Accumulator(anchor.op, dtype, sides[0]))
        puller.accumulated[anchor] = (0, dtype)
        positions = [Affine.axis(loops[axis]) for axis in range(rank)]
        positions[channels] = Affine.axis(loops[channels] - 1) * Size.of(together) + positions[channels]
        self._finish(kernel, node, tuple(positions), puller)

    def _in_blocks(self, operand: Node, maps: list[contraction.Map], channels: int, rank: int, form: Form
                   ) -> tuple[Node, list[contraction.Map]]:
        """An operand with blocks of the channels that are lanes, and maps onto it: weights with a row of products for
        each, what windows slide over with all samples and pixels."""
        order = [axis for axis in layout.products_last(maps) if maps[axis].lone != channels]
        windowed = any(len(m.terms) > 1 for m in maps)
        kept = [axis for axis in order if not windowed and (maps[axis].lone or 0) < rank]
        others = sorted(order) if windowed else [axis for axis in order if axis not in kept]
        copy = self.operands.in_blocks(operand, layout.axis_of(maps, channels), kept, others, form)
        return copy, [*(maps[axis] for axis in kept), contraction.lone(channels - 1), *(maps[axis] for axis in others),
                      contraction.lone(channels)]


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


def _same(anchor: Node) -> list[tuple[list[int], list[int]]]:
    """Axes of a contraction's result, each its own loop."""
    return [([axis], [axis]) for axis in range(len(anchor.shape))]


def _renamed(its_maps: Sequence, places: Mapping[int, Terms]) -> list[contraction.Map]:
    """Maps onto an operand's axes, in the loops of a kernel."""
    return [
        contraction.Map(tuple((axis, factor * scale) for loop, factor in terms for axis, scale in places[loop]),
                        offset, divisor)
        for terms, offset, divisor in its_maps]
