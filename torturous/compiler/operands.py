"""What contractions read: plain memory in the order they want, copied where it does not lie so.

A copy is a kernel of its own, made once per plan however many contractions read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torturous.compiler import layout
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Convert, Expression, Kernel, Load, Store, Window, Word
from torturous.compiler.lower import CannotPull, Positions, Puller, flat_address
from torturous.compiler.sizes import Affine, Size, product
from torturous.core.dtypes import DType
from torturous.ir import contraction, movement
from torturous.ir.op import Op

CROWDED_ROW = 512
"""Rows of weights of a multiple of this length would share cache sets."""

CROWDED_PLANE = 256
"""So do channels that lie so far apart."""


@dataclass(frozen=True)
class Form:
    """What a copy holds: elements as they are, or in another type, or words of two neighbours along an axis."""

    dtype: DType | None = None
    halved: int | None = None

    def shape(self, shape: tuple[Size, ...]) -> tuple[Size, ...]:
        """The copy's."""
        return tuple(layout.halved(size) if axis == self.halved else size for axis, size in enumerate(shape))

    def value(self, positions: Positions, read: Callable[[Positions], Expression]) -> Expression:
        """The copy's element at these positions, made of what is read of the operand."""
        if self.dtype is None:
            return read(positions)
        if self.halved is None:
            return Convert(self.dtype, read(positions))
        twice = positions[self.halved] * 2
        first, second = (read((*positions[:self.halved], twice + which, *positions[self.halved + 1:]))
                         for which in (Size.of(0), Size.of(1)))
        return Word(self.dtype, first, second)


AS_IT_IS = Form()


class Operands:
    """The copies of one plan; their kernels are added to `kernels`, and they themselves to `stored`."""

    def __init__(
        self, kernels: list[Kernel], stored: set[Node], orders: dict[Node, layout.Order],
        storage_of: Callable[[Node], Node], order_of: Callable[[Node], layout.Order],
        puller: Callable[[Kernel], Puller],
    ) -> None:
        """`orders` is where the copies' orders go, for `order_of` to know."""
        self.kernels = kernels
        self.stored = stored
        self.orders = orders
        self.storage_of = storage_of
        self.order_of = order_of
        self.puller = puller
        self._relaid: dict[tuple[Node, tuple[Size, ...], Form], Node] = {}
        self._padded: dict[tuple, Node] = {}

    def _lies_row_major(self, operand: Node) -> bool:
        home = self.storage_of(operand)
        return self.order_of(home) == layout.row_major(len(home.shape))

    def in_order(self, operand: Node, order: layout.Order, form: Form = AS_IT_IS) -> Node:
        """A copy of a leaf, or whatever else lies row-major, whose axes lie in this order. In another form: of any."""
        if form is AS_IT_IS:
            moved = [axis for axis in order if operand.shape[axis] != 1]
            if operand not in self.stored or moved == sorted(moved) or not self._lies_row_major(operand):
                return operand
        shape = form.shape(operand.shape)
        strides = layout.strides(shape, order)
        copy = self._relaid.get((operand, strides, form))
        if copy is None:
            copy = self._relaid[operand, strides, form] = self._new_node(movement.ALIAS, shape, operand, form)
            self.orders[copy] = order
            self._relay(operand, order, copy, strides, form)
        return copy

    def rows_of_products(self, operand: Node, maps: list[contraction.Map], rank: int, form: Form = AS_IT_IS
                         ) -> Expression:
        """A convolution's weights, as rows of what a sum runs over, in its order; a copy unless they lie so.

        `rank` loops are kept. Rows whose length would put them all into the same few cache sets are set apart.
        """
        if operand not in self.stored:
            raise CannotPull(operand)
        loops = [index_map.terms[0][0] for index_map in maps]  # No windows, so each axis is one loop.
        order = layout.products_last(maps)
        held = form.shape(operand.shape)
        products = product(size for size, loop in zip(held, loops, strict=True) if loop >= rank)
        crowded = products.constant is not None and products.constant % CROWDED_ROW == 0
        row = products + layout.LANES if crowded else products
        strides = layout.strides(held, order)
        if crowded:
            kept = [axis for axis in order if loops[axis] < rank]
            strides = tuple(
                stride if loops[axis] >= rank else row * product(operand.shape[a] for a in kept[kept.index(axis) + 1:])
                for axis, stride in enumerate(strides)
            )
        positions = tuple(Affine.axis(loop) for loop in loops)
        moved = [axis for axis in order if operand.shape[axis] != 1]
        if form is AS_IT_IS and not crowded and moved == sorted(moved) and self._lies_row_major(operand):
            return self.puller(Kernel([])).pull(operand, positions)
        copy = self._relaid.get((operand, strides, form))
        if copy is None:
            shape = (*[operand.shape[axis] for axis in order if loops[axis] < rank], row)
            copy = self._relaid[operand, strides, form] = self._new_node(movement.ALIAS, shape, operand, form)
            self._relay(operand, order, copy, strides, form)
        return Load(copy.dtype, copy, _address(positions, strides), ())

    def in_blocks(self, operand: Node, channels: int, before: Sequence[int], between: Sequence[int],
                  form: Form = AS_IT_IS) -> Node:
        """A copy in which blocks of an axis are vectors: axes before these, blocks, axes between, elements of a block.
        """
        held = form.shape(operand.shape)
        together = Size.of(layout.channels_together(held[channels]))
        blocks = Size.of((held[channels].constant or 0) // layout.channels_together(held[channels]))
        shape = (*(held[axis] for axis in before), blocks, *(held[axis] for axis in between), together)
        key = (operand, (*map(Size.of, (*before, channels, *between)), *shape), form)
        copy = self._relaid.get(key)
        if copy is None:
            copy = self._relaid[key] = self._new_node(movement.ALIAS, shape, operand, form)
            kernel = Kernel(list(shape), names=["relay"], places=[operand.place])
            axes = [Affine.axis(number) for number in range(len(shape))]
            places = dict(zip((*before, channels, *between), axes, strict=False))
            places[channels] = places[channels] * together + axes[-1]
            puller = self.puller(kernel)
            value = form.value(tuple(places[axis] for axis in range(len(held))), lambda at: puller.pull(operand, at))
            kernel.stores.append(Store(copy, flat_address(tuple(axes), shape), value))
            self.kernels.append(kernel)
        return copy

    def spread(self, operand: Node, channels: int, form: Form = AS_IT_IS) -> Node:
        """A convolution's operand so that a pixel's channels lie in many cache sets: where they would not, a copy of
        lines, in each of them channel by channel."""
        shape = operand.shape
        plane = product(shape[channels + 1:])
        crowded = channels + 2 < len(shape) and plane.constant is not None and plane.constant % CROWDED_PLANE == 0
        if not crowded and form is AS_IT_IS:
            return operand
        order = (*(axis for axis in range(len(shape) - 1) if axis != channels), channels, len(shape) - 1)
        return self.in_order(operand, order, form)

    def _relay(self, operand: Node, order: layout.Order, copy: Node, strides: tuple[Size, ...], form: Form) -> None:
        """Copies a value: the loops in this order, each axis with this stride in the copy."""
        shape = form.shape(operand.shape)
        kernel = Kernel([shape[axis] for axis in order], names=["relay"], places=[operand.place])
        positions = tuple(Affine.axis(order.index(axis)) for axis in range(len(order)))
        puller = self.puller(kernel)
        value = form.value(positions, lambda at: puller.pull(operand, at))
        kernel.stores.append(Store(copy, _address(positions, strides), value))
        self.kernels.append(kernel)

    def windows(self, operand: Node, maps: list[contraction.Map]) -> tuple[Window, ...]:
        """How windows slide over an operand as it lies."""
        home = self.storage_of(operand)
        order = self.order_of(operand) if home is operand else layout.row_major(len(operand.shape))
        steps = layout.strides(operand.shape, order)
        return tuple(
            Window(Affine(Size.of(offset), {loop: Size.of(factor) for loop, factor in terms}), divisor, size, step)
            for (terms, offset, divisor), size, step in zip(maps, operand.shape, steps, strict=True)
            if len(terms) > 1)

    def _new_node(self, op: Op, shape: tuple[Size, ...], like: Node, form: Form) -> Node:
        """A stored value that the graph did not have."""
        number = -1 - len(self._relaid) - len(self._padded)
        node = Node(number, op, (), shape, form.dtype or like.dtype, (), like.place)
        self.stored.add(node)
        return node

    def padded(self, operand: Node, maps: list[contraction.Map], puller: Puller, form: Form = AS_IT_IS
                ) -> tuple[Node, list[contraction.Map]]:
        """An operand that the maps do not leave, and maps onto it: where they would, a copy with zeros around it.

        A divisor becomes zeros between the elements, so that the contraction itself is plain products.
        """
        shape: list[Size] = []
        positions: list[Affine] = []
        moved: list[contraction.Map] = []
        inside = True
        quotients: list[int] = []
        held = form.shape(operand.shape)
        for axis, ((terms, offset, divisor), size) in enumerate(zip(maps, held, strict=True)):
            affine = Affine(Size.of(offset), {loop: Size.of(factor) for loop, factor in terms})
            if puller.stays_inside(affine, divisor, size):
                shape.append(size)
                positions.append(Affine.axis(axis))
                moved.append(contraction.Map(terms, offset, divisor))
                quotients.append(1)
                continue
            inside = False
            low = Size.of(offset)
            high = Size.of(offset)
            for loop, factor in terms:
                reach = (puller.extents[loop] - 1) * factor
                low, high = (low + reach, high) if factor < 0 else (low, high + reach)
            shape.append(high - low + 1)
            positions.append(Affine.axis(axis) + low)
            quotients.append(divisor)
            moved.append(contraction.Map(terms, Size.of(offset) - low, 1))  # type: ignore[arg-type]
        if inside:
            return (operand if form is AS_IT_IS else self.in_order(operand, self.order_of(operand), form)), maps
        key = (operand, tuple(shape), tuple(positions), tuple(quotients), form)
        copy = self._padded.get(key)
        if copy is None:
            copy = self._padded[key] = self._bordered(operand, tuple(shape), positions, quotients, form)
        return copy, moved

    def _bordered(self, operand: Node, shape: tuple[Size, ...], positions: list[Affine], divisors: list[int],
                  form: Form) -> Node:
        copy = self._new_node(movement.PAD, shape, operand, form)
        order = self.orders[copy] = self.order_of(operand)
        kernel = Kernel([shape[axis] for axis in order], names=["pad"], places=[operand.place])
        loops = {axis: Affine.axis(order.index(axis)) for axis in range(len(shape))}
        puller = self.puller(kernel)
        places = tuple(position.renamed(loops) for position in positions)
        value = form.value(places, lambda at: puller.bordered(operand, at, divisors))
        axes = tuple(loops[axis] for axis in range(len(shape)))
        kernel.stores.append(Store(copy, flat_address(axes, shape, order), value))
        self.kernels.append(kernel)
        return copy


def _address(positions: Positions, strides: tuple[Size, ...]) -> Affine:
    address = Affine.fixed(0)
    for position, stride in zip(positions, strides, strict=True):
        address = address + position * stride
    return address


def is_plain_load(expression: Expression, guarded: bool) -> bool:
    """Whether an operand is no more than an affine load, possibly a guarded one, whose places may be quotients."""
    while isinstance(expression, Convert):
        expression = expression.operand
    return isinstance(expression, Load) and (
        guarded or (not expression.guards and all(axis >= 0 for axis in expression.address.terms))
    )
