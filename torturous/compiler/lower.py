"""From nodes to kernel expressions: movement ops become addresses.

`Puller` follows a value from a point of the kernel's loops back to the buffers it comes from. It stops at nodes
that are stored; it cannot follow a reshape that would split an axis it has no digits of, and says so with
`CannotPull`, upon which the fusion pass stores that reshape's operand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torturous.compiler import layout
from torturous.compiler.graph import Graph, Node, Shape
from torturous.compiler.kernel import (
    Accumulated,
    Choose,
    Compute,
    Convert,
    DataPosition,
    Derived,
    Digit,
    Expression,
    Guard,
    Literal,
    Load,
    Position,
    Quotient,
    SlotNumber,
)
from torturous.compiler.sizes import ONE, ZERO, Affine, Size, product, row_major
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import creation, elementwise, indexing, movement
from torturous.ir.contraction import Map
from torturous.ir.op import Kind, Type
from torturous.ir.record import slot_category

Positions = tuple[Affine, ...]


class CannotPull(Exception):
    """A reshape that is not an index map; `node` must be stored."""

    def __init__(self, node: Node) -> None:
        super().__init__(repr(node))
        self.node = node


class CannotGroup(Exception):
    """A value that would read other rows of its own kernel; `node` must have a kernel to itself."""

    def __init__(self, node: Node) -> None:
        super().__init__(repr(node))
        self.node = node


def flat_address(positions: Sequence[Affine], shape: Shape, order: Sequence[int] | None = None) -> Affine:
    """The place of an element in a dense buffer whose axes lie in this order (row-major if None)."""
    steps = row_major(shape) if order is None else layout.strides(shape, tuple(order))
    return Affine.sum(zip(positions, steps, strict=True))


class Puller:
    """Builds the expressions of one kernel."""

    def __init__(
        self, graph: Graph, is_stored: Callable[[Node], bool], storage_of: Callable[[Node], Node],
        extents: Sequence[Size], derived: list[Derived], order: Callable[[Node], layout.Order],
    ) -> None:
        self.graph = graph
        self.is_stored = is_stored
        self.storage_of = storage_of
        self.order = order
        self.extents = extents
        """Of every loop, reduced ones included."""
        self.derived = derived
        self.accumulated: dict[Node, tuple[int, DType]] = {}
        """Anchors of this kernel: their accumulators."""
        self.members: dict[Node, Positions] = {}
        """What this kernel computes for all to read, and where it does so."""
        self._memo: dict[tuple, Expression] = {}
        self._derived_memo: dict[tuple, Affine] = {}

    def pull(self, node: Node, positions: Positions, guards: tuple[Guard, ...] = ()) -> Expression:
        """The value of a node at these positions; where a guard fails, any value."""
        key = (node, positions, guards)
        known = self._memo.get(key)
        if known is None:
            known = self._memo[key] = self._pull(node, positions, guards)
        return known

    def _pull(self, node: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        own = self.members.get(node)
        if own is not None and not _same_place(own, positions, node.shape):
            raise CannotGroup(node)
        if node in self.accumulated:
            index, dtype = self.accumulated[node]
            return self.convert(Accumulated(dtype, index), node.dtype)
        if self.is_stored(node):
            home = self.storage_of(node)
            order = self.order(node) if home is node else None  # Only row-major memory has a second shape.
            return Load(node.dtype, home, flat_address(positions, node.shape, order), guards)
        kind = node.op.kind
        if kind is Kind.ELEMENTWISE:
            return self._elementwise(node, positions, guards)
        if kind is Kind.MOVEMENT:
            return self._movement(node, positions, guards)
        if kind is Kind.CREATE:
            return self._create(node, positions)
        if kind is Kind.GATHER:
            return self._gather(node, positions, guards)
        raise AssertionError(f"{node} must be stored")

    # Elementwise -------------------------------------------------------------------------------------------------
    def _operand(self, operand: Node | int, node: Node, positions: Positions, guards: tuple[Guard, ...],
                 dtype: DType) -> Expression:
        if isinstance(operand, int):
            return SlotNumber(dtype, operand)
        inner = broadcast_positions(operand.shape, node.shape, positions)
        return self.convert(self.pull(operand, inner, guards), dtype)

    def _elementwise(self, node: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        if node.op is elementwise.CAST:
            operand = node.operands[0]
            assert isinstance(operand, Node)
            return self.convert(self.pull(operand, positions, guards), node.dtype)
        kinds = [
            slot_category(o) if isinstance(o, int) else Type((2,) * len(o.shape), o.dtype) for o in node.operands
        ]
        compute = elementwise.compute_type(node.op, node.dtype, kinds)
        wanted = [compute] * len(node.operands)
        if node.op is elementwise.WHERE:
            wanted[0] = dtypes.bool_
        operands = tuple(
            self._operand(operand, node, positions, guards, dtype)
            for operand, dtype in zip(node.operands, wanted, strict=True)
        )
        return Compute(node.dtype, node.op, compute, operands)

    @staticmethod
    def convert(expression: Expression, dtype: DType) -> Expression:
        """The expression in another dtype."""
        return expression if expression.dtype is dtype else Convert(dtype, expression)

    # Movement ----------------------------------------------------------------------------------------------------
    def _movement(self, node: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        op, at = node.op, node.attributes
        x = node.operands[0]
        assert isinstance(x, Node)
        if op is movement.RESHAPE:
            flat = self.order(self.storage_of(x)) == layout.row_major(len(x.shape))
            if flat and self.is_stored(x):
                return Load(node.dtype, self.storage_of(x), flat_address(positions, node.shape), guards)
            apart = self.order(node) == layout.samples_innermost(len(node.shape)) and len(node.shape) > 2
            try:
                return self.pull(x, self.reshaped(x, node.shape, positions, apart), guards)
            except CannotPull as refusal:
                # Storing x helps if it lies flat: then a place under any shape is an address.
                here = self.is_stored(x) or refusal.node is x and not flat
                raise CannotPull(node if here else refusal.node) from None
        if op is movement.PERMUTE:
            moved: list[Affine] = [Affine.fixed(0)] * len(at)
            for position, axis in zip(positions, at, strict=True):
                moved[axis] = position
            return self.pull(x, tuple(moved), guards)
        if op is movement.EXPAND:
            return self.pull(x, broadcast_positions(x.shape, node.shape, positions), guards)
        if op is movement.SLICE:
            taken = list(positions)
            for axis, step, start in zip(*at, node.operands[1:], strict=True):
                taken[axis] = positions[axis] * step + Size.variable(("slot", start))
            return self.pull(x, tuple(taken), guards)
        if op is movement.PART:
            axis, which, _ = at
            moved_up = positions[axis] + node.shape[axis] * which
            return self.pull(x, (*positions[:axis], moved_up, *positions[axis + 1:]), guards)
        if op is movement.FLIP:
            turned = list(positions)
            for axis in at:
                turned[axis] = Affine.fixed(x.shape[axis] - 1) - positions[axis]
            return self.pull(x, tuple(turned), guards)
        if op is movement.PAD:
            inner, inside = self._box(x.shape, at, node.operands[2:], positions)
            outside = self._operand(node.operands[1], node, positions, guards, node.dtype)
            return Choose(node.dtype, inside, self.pull(x, inner, guards + inside), outside)
        if op is movement.INSERT:
            written = node.operands[1]
            assert isinstance(written, Node)
            inner, inside = self._box(written.shape, at, node.operands[2:], positions)
            outside = self.pull(x, positions, guards)
            value = self.convert(self.pull(written, inner, guards + inside), node.dtype)
            return Choose(node.dtype, inside, value, outside)
        if op is movement.CONCATENATE:
            return self._concatenate(node, positions, guards)
        if op in (movement.WINDOW, movement.UNWINDOW):
            return self._window(node, x, positions, guards)
        raise AssertionError(f"no index map for {op.name}")

    def _box(self, shape: Shape, at: tuple, starts: Sequence[Node | int], positions: Positions
             ) -> tuple[Positions, tuple[Guard, ...]]:
        """Positions within a strided box placed in a larger space, and the guards of being in it."""
        inner, guards = list(positions), []
        for axis, step, start in zip(*at, starts, strict=True):
            shifted = positions[axis] - Size.variable(("slot", start))
            inner[axis] = self._quotient(shifted, step)
            guards.append(Guard(inner[axis], shape[axis]))
        return tuple(inner), tuple(guards)

    def _window(self, node: Node, x: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        inner, tests = list(positions), []
        for axis, kernel, stride, dilation, padding in node.attributes:
            if node.op is movement.WINDOW:
                inner[axis] = positions[axis] * stride + positions[kernel] * dilation - padding
                reach = (node.shape[axis] - 1) * stride + (x.shape[kernel] - 1) * dilation + 1
                span = reach.constant, x.shape[axis].constant
                if padding == 0 and span[0] is not None and span[1] is not None and span[0] <= span[1]:
                    continue
            else:
                inner[axis] = self._quotient(positions[axis] + padding - positions[kernel] * dilation, stride)
            tests.append(Guard(inner[axis], x.shape[axis]))
        inside = tuple(tests)
        value = self.pull(x, tuple(inner), guards + inside)
        if not inside:
            return value
        return Choose(node.dtype, inside, value, self._operand(node.operands[1], node, positions, guards, node.dtype))

    def _concatenate(self, node: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        (axis,) = node.attributes
        start = ZERO
        parts: list[tuple[Positions, Guard, Node]] = []
        for part in node.inputs:
            shifted = positions[axis] - start
            inner = positions[:axis] + (shifted,) + positions[axis + 1:]
            parts.append((inner, Guard(shifted, part.shape[axis]), part))
            start = start + part.shape[axis]
        inner, test, part = parts[-1]
        result = self.convert(self.pull(part, inner, guards + (test,)), node.dtype)
        for inner, test, part in reversed(parts[:-1]):
            value = self.convert(self.pull(part, inner, guards + (test,)), node.dtype)
            result = Choose(node.dtype, (test,), value, result)
        return result

    def mapped(self, x: Node, maps: Sequence[Map]) -> Expression:
        """An operand of a contraction over all loops: zero where a map leaves the operand."""
        positions, tests = [], []
        for (terms, offset, divisor), size in zip(maps, x.shape, strict=True):
            affine = Affine(Size.of(offset), {loop: Size.of(factor) for loop, factor in terms})
            position = self._quotient(affine, divisor)
            positions.append(position)
            if not self.stays_inside(affine, divisor, size):
                tests.append(Guard(position, size))
        inside = tuple(tests)
        value = self.pull(x, tuple(positions), inside)
        if not inside or (isinstance(value, Load) and value.guards == inside):
            return value  # A guarded load is zero outside by itself.
        return Choose(x.dtype, inside, value, Literal(x.dtype, 0))

    def bordered(self, x: Node, positions: Sequence[Affine], divisors: Sequence[int]) -> Expression:
        """x at these positions over its divisors, zero where they leave x or are not whole."""
        moved = tuple(self._quotient(p, divisor) for p, divisor in zip(positions, divisors, strict=True))
        inside = tuple(
            Guard(position, size) for position, size in zip(moved, x.shape, strict=True)
            if min(position.terms, default=0) < 0 or not self.stays_inside(position, 1, size)
        )
        return Choose(x.dtype, inside, self.pull(x, moved, inside), Literal(x.dtype, 0))

    def stays_inside(self, affine: Affine, divisor: int, size: Size) -> bool:
        """Whether a position cannot leave its axis, as far as symbols tell."""
        if divisor != 1:
            return False
        low, past = affine.constant, affine.constant + 1
        for loop, factor in affine.terms.items():
            if factor.constant is None:
                return False
            reach = (self.extents[loop] - 1) * factor
            if factor.constant < 0:
                low = low + reach
            else:
                past = past + reach
        return (low.constant or 0) >= 0 and low.constant is not None and (past == size or _within(past, size))

    def _quotient(self, affine: Affine, divisor: int) -> Affine:
        return affine if divisor == 1 else self._derive(("quotient", affine, divisor), Quotient(affine, divisor))

    def _derive(self, key: tuple, derived: Derived) -> Affine:
        known = self._derived_memo.get(key)
        if known is None:
            self.derived.append(derived)
            known = self._derived_memo[key] = Affine.axis(~(len(self.derived) - 1))
        return known

    # Reshape -----------------------------------------------------------------------------------------------------
    def reshaped(self, x: Node, out: Shape, positions: Positions, apart: bool = False) -> Positions:
        """Positions in x for positions under another shape of the same elements.

        With `apart` an axis other than the first may be a loop that x has several axes for: its digits are worked out,
        which costs little where lanes run along the first axis, that of the samples.
        """
        result: list[Affine] = []
        for x_axes, out_axes in matched_groups(self.graph, x, out):
            if not x_axes:
                continue
            if len(x_axes) == len(out_axes) == 1:
                result.append(positions[out_axes[0]])
                continue
            place = flat_address([positions[a] for a in out_axes], tuple(out[a] for a in out_axes))
            sizes = [x.shape[axis] for axis in x_axes]
            if apart and out_axes[0] != 0 and self._is_loop(place, product(sizes)):
                strides = row_major(tuple(sizes))
                result.extend(self._derive(("digit", place, stride, size), Digit(place, stride, size))
                              for stride, size in zip(strides, sizes, strict=True))
            else:
                result.extend(self._digits(x, place, sizes))
        return tuple(result)

    def _is_loop(self, place: Affine, extent: Size) -> bool:
        """Whether a position is one of the kernel's loops, as it is."""
        axis = next(iter(place.terms), -1)
        return axis >= 0 and place == Affine.axis(axis) and self.extents[axis] == extent

    def _digits(self, x: Node, place: Affine, sizes: list[Size]) -> list[Affine]:
        """Splits a flat place into one position per axis, where its terms allow."""
        if len(sizes) == 1:
            return [place]
        if place.constant != 0:
            raise CannotPull(x)
        rest = dict(place.terms)
        digits: list[Affine] = []
        strides = row_major(tuple(sizes))
        for size, stride in zip(sizes, strides, strict=True):
            mine = {}
            for axis, factor in list(rest.items()):
                quotient = factor.over(stride)
                if quotient is not None:
                    mine[axis] = quotient
                    del rest[axis]
            reach = ONE
            for axis, factor in mine.items():
                if axis < 0:
                    raise CannotPull(x)
                reach = reach + (self.extents[axis] - 1) * factor
            if reach != size and not _within(reach, size):
                raise CannotPull(x)
            digits.append(Affine(ZERO, mine))
        if rest:
            raise CannotPull(x)
        return digits

    # Creation and gathering ----------------------------------------------------------------------------------------
    def _create(self, node: Node, positions: Positions) -> Expression:
        codes = node.operands
        assert all(isinstance(code, int) for code in codes)
        if node.op is creation.FULL:
            return SlotNumber(node.dtype, codes[0])  # type: ignore[arg-type]
        working = dtypes.float64 if node.dtype.is_floating_point else dtypes.int64
        index = self.convert(Position(dtypes.int64, positions[0]), working)
        scaled = Compute(working, elementwise.MUL, working, (index, SlotNumber(working, codes[1])))  # type: ignore[arg-type]
        start = SlotNumber(working, codes[0])  # type: ignore[arg-type]
        return self.convert(Compute(working, elementwise.ADD, working, (start, scaled)), node.dtype)

    def _gather(self, node: Node, positions: Positions, guards: tuple[Guard, ...]) -> Expression:
        x, index = node.inputs
        (axis,) = node.attributes
        if node.op is indexing.TAKE:
            rank = len(index.shape)
            where, before, after = positions[axis:axis + rank], positions[:axis], positions[axis + rank:]
        else:
            where, before, after = positions, positions[:axis], positions[axis + 1:]
        expression = self.convert(self.pull(index, where, guards), dtypes.int64)
        taken = self._derive(
            ("data", index, where, guards, x.shape[axis]), DataPosition(expression, x.shape[axis], node)
        )
        return self.pull(x, (*before, taken, *after), guards)


def broadcast_positions(shape: Shape, out: Shape, positions: Positions) -> Positions:
    """Positions in an operand that broadcasts to `out`."""
    lead = len(out) - len(shape)
    return tuple(
        Affine.fixed(0) if size == 1 and out[lead + axis] != 1 else positions[lead + axis]
        for axis, size in enumerate(shape)
    )


def _same_place(a: Positions, b: Positions, shape: Shape) -> bool:
    return all(mine == other or size == 1 for mine, other, size in zip(a, b, shape, strict=True))


def _within(reach: Size, size: Size) -> bool:
    a, b = reach.constant, size.constant
    return a is not None and b is not None and a <= b


def matched_groups(graph: Graph, x: Node, out: Shape) -> list[tuple[list[int], list[int]]]:
    """Axes of x and of its reshaped form in groups of equal products; sizes compare as symbols."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(x.shape) or j < len(out):
        left: list[int] = []
        right: list[int] = []
        product_left, product_right = ONE, ONE
        if i < len(x.shape):
            left.append(i)
            product_left = x.shape[i]
            i += 1
        if j < len(out):
            right.append(j)
            product_right = out[j]
            j += 1
        while product_left != product_right:
            if graph.hint(product_left) <= graph.hint(product_right) and i < len(x.shape):
                left.append(i)
                product_left = product_left * x.shape[i]
                i += 1
            elif j < len(out):
                right.append(j)
                product_right = product_right * out[j]
                j += 1
            elif i < len(x.shape):
                left.append(i)
                product_left = product_left * x.shape[i]
                i += 1
            else:
                raise CannotPull(x)
        groups.append((left, right))
    return groups
