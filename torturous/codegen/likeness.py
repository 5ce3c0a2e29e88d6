"""Kernels that differ in nothing but the buffers and numbers they work on: their text is written once.

An optimizer updates a hundred tensors of a few shapes; a net has many layers of one kind, and most of the time that a
plan takes would go into writing its products.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torturous.compiler.graph import Node
from torturous.compiler.kernel import (
    Accumulated,
    Attention,
    Choose,
    Compute,
    Convert,
    Digit,
    Expression,
    Guard,
    Kernel,
    Literal,
    Load,
    Position,
    Quotient,
    SlotNumber,
    Word,
)
from torturous.compiler.sizes import Affine, Size


class _Likeness:
    """Writes a kernel's structure down as nested tuples."""

    def __init__(self, placing: Iterable[int]) -> None:
        """`placing`: the slots that addresses take. Sizes keep their terms in order, so these get numbers in theirs."""
        self.buffers: dict[Node, int] = {}
        self._placed = {code: number for number, code in enumerate(sorted(placing))}
        self.slots = dict(self._placed)
        """By code."""
        self.placing: set[int] = set()
        """Those met in addresses."""
        self.parts: list[tuple] = []
        self._numbers: dict[int, int] = {}

    def buffer(self, node: Node) -> tuple[int, int]:
        return self.buffers.setdefault(node, len(self.buffers)), node.dtype.number

    def expression(self, expression: Expression) -> int:
        """The number of an expression among the parts."""
        known = self._numbers.get(id(expression))
        if known is None:
            part = (type(expression).__name__, expression.dtype.number, *self._rest(expression))
            self.parts.append(part)
            known = self._numbers[id(expression)] = len(self.parts) - 1
        return known

    def _rest(self, expression: Expression) -> tuple[Any, ...]:
        match expression:
            case Load(_, buffer, address, guards):
                return self.buffer(buffer), self.affine(address), self.guards(guards)
            case SlotNumber(_, code):
                return (self.slots.setdefault(code, len(self.slots)),)
            case Literal(_, number):
                return type(number).__name__, repr(number)
            case Position(_, affine):
                return (self.affine(affine),)
            case Compute(_, op, compute, operands):
                return op.number, compute.number, *map(self.expression, operands)
            case Convert(_, operand):
                return (self.expression(operand),)
            case Choose(_, guards, inside, outside):
                return self.guards(guards), self.expression(inside), self.expression(outside)
            case Word(_, first, second):
                return self.expression(first), self.expression(second)
            case Accumulated(_, index):
                return (index,)
        raise AssertionError(expression)

    def attention(self, attention: Attention) -> tuple:
        node = attention.node
        parts = (attention.mask, attention.scale, attention.query, attention.key, attention.value, attention.upstream,
                 attention.forward)
        return (node.op.number, node.shape, self.buffer(node), attention.causal,
                *(part and self.expression(part) for part in parts))

    def guards(self, guards: tuple[Guard, ...]) -> tuple:
        return tuple((self.affine(guard.position), guard.extent) for guard in guards)

    def affine(self, affine: Affine) -> Affine:
        """An address with its slots by number."""
        sizes = (affine.constant, *affine.terms.values())
        codes = {code for size in sizes if size.constant is None for kind, code in size.variables() if kind == "slot"}
        self.placing |= codes
        if not codes or not codes <= self._placed.keys():
            return affine
        return Affine(self.size(affine.constant), {axis: self.size(factor) for axis, factor in affine.terms.items()})

    def size(self, size: Size) -> Size:
        numbers = self._placed
        return Size({
            tuple((kind, numbers[which] if kind == "slot" else which) for kind, which in monomial): factor
            for monomial, factor in size.terms.items()})


def likeness(kernel: Kernel) -> tuple[tuple, list[Node], list[int]] | None:
    """What kernels of equal text have in common, and the buffers and slots in which they differ; None where that is
    not known."""
    if kernel.special is not None:
        return None
    notes = _Likeness(())
    key = _key(kernel, notes)
    if notes.placing:
        notes = _Likeness(notes.placing)
        key = _key(kernel, notes)
    return None if key is None else (key, list(notes.buffers), list(notes.slots))


def _key(kernel: Kernel, notes: _Likeness) -> tuple | None:
    derived: list[tuple] = []
    for each in kernel.derived:
        if isinstance(each, Quotient):
            derived.append((notes.affine(each.affine), each.divisor))
        elif isinstance(each, Digit):
            derived.append((notes.affine(each.affine), each.inner, each.extent))
        else:
            return None  # Checked positions have error words of their own.
    accumulators = tuple((a.op.number, a.dtype.number, notes.expression(a.expression)) for a in kernel.accumulators)
    stores = tuple(
        (notes.buffer(s.buffer), notes.affine(s.address), notes.expression(s.expression), s.inside,
         s.buffer in kernel.streamed) for s in kernel.stores)
    product = tuple(map(notes.expression, kernel.product or ()))
    windows = tuple((notes.affine(each.position), each.divisor, each.extent, each.stride) for each in kernel.windows)
    attention = kernel.attention and notes.attention(kernel.attention)
    return (tuple(kernel.axes), tuple(kernel.reduced), kernel.outer_runs, kernel.unblocked, kernel.lane_axis,
            kernel.lanewise, kernel.direct, kernel.channelwise, kernel.tapwise, kernel.words, kernel.windowed,
            kernel.gap, kernel.pooled, tuple(derived), accumulators, product, windows, attention, stores,
            tuple(notes.parts))
