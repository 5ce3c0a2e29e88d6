"""How much a kernel has to do: arithmetic, and traffic with memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Choose, Compute, Convert, Expression, Guard, Kernel, Load, Word
from torturous.compiler.memory import read_by, written_by
from torturous.compiler.schedule import depends
from torturous.compiler.sizes import Size

Evaluate = Callable[[Size], int]


@dataclass(frozen=True)
class Work:
    """Floating-point operations (a multiply-add is two; any elementwise op is one), and bytes that must be moved if
    every buffer is read or written once, whatever caches do."""

    operations: int
    bytes: int


def work_of(kernel: Kernel, evaluate: Evaluate) -> Work:
    """The work of a kernel at given sizes. Kernels of their own kind (random words, scatter) count no operations."""
    points = prod(map(evaluate, kernel.axes))
    reduced = prod(map(evaluate, kernel.reduced))
    followed = points // prod(evaluate(kernel.axes[axis]) for axis in kernel.pooled_axes)
    """Places of what follows; in a convolution that pools its results, windows."""
    folding = kernel.accumulators[1 if kernel.product is not None else 0:]
    operations = points * reduced * (arithmetic([each.expression for each in folding]) + len(folding))
    if kernel.product is not None:
        products = round(points * reduced * _inside(kernel, evaluate))
        made = sum(reduced * arithmetic([factor]) * prod(
            evaluate(extent) for axis, extent in enumerate(kernel.axes) if depends(kernel, factor, axis))
            for factor in kernel.product)
        operations = products * 2 + made + operations // max(reduced, 1)
    operations += followed * arithmetic([store.expression for store in kernel.stores])
    if kernel.attention is not None:
        operations = _of_attention(kernel, evaluate)
    touched = sum(_bytes(node, evaluate) for node in read_by(kernel) | written_by(kernel))
    return Work(operations if kernel.special is None else 0, touched)


def _inside(kernel: Kernel, evaluate: Evaluate) -> float:
    """The share of a convolution's products that lie inside its operands, where they alone are multiplied."""
    assert kernel.product is not None
    extents = [*map(evaluate, kernel.axes), *map(evaluate, kernel.reduced)]
    together: dict[tuple[int, ...], list[Guard]] = {}
    for each in _walk(kernel.product):
        for guard in each.guards if isinstance(each, Load | Choose) else ():
            together.setdefault(tuple(guard.position.terms), []).append(guard)
    share = 1.0
    for axes, guards in together.items():
        if min(axes, default=-1) < 0:
            continue  # By a position that is worked out from others: as if it always held.
        holds: Any = True
        for guard in guards:
            steps = [np.arange(extents[axis]) * evaluate(factor) for axis, factor in guard.position.terms.items()]
            position = evaluate(guard.position.constant) + reduce(np.add.outer, steps)
            holds = holds & (position >= 0) & (position < evaluate(guard.extent))
        share *= float(np.mean(holds))
    return share


def _of_attention(kernel: Kernel, evaluate: Evaluate) -> int:
    """The products of attention, as if every query saw every key."""
    assert kernel.attention is not None
    *lead, length, size, width, depth = map(evaluate, kernel.axes)
    back = kernel.attention.upstream is not None
    return 2 * prod(lead) * length * size * (3 * width + 2 * depth if back else width + depth)


def arithmetic(expressions: list[Expression] | tuple[Expression, ...]) -> int:
    """Elementwise operations in expressions; what several of them share counts once."""
    return sum(1 for each in _walk(expressions) if isinstance(each, Compute))


def operations_in(kernel: Kernel) -> list[str]:
    """Names of all operations that were fused into a kernel, in the order of the data's way through it."""
    inside: list[Expression] = [*(kernel.product or ()), *(each.expression for each in kernel.accumulators)]
    anchors = [each.op.name for each in kernel.accumulators]
    if kernel.product is not None:
        anchors[0] = "product"
    if kernel.attention is not None:
        inside, anchors = kernel.attention.expressions, [kernel.attention.node.op.name]
    after = [store.expression for store in kernel.stores]
    return [*_names(inside), *anchors, *_names(after)]


def _names(roots: list[Expression]) -> list[str]:
    return [each.op.name for each in _walk(roots) if isinstance(each, Compute)]


def _walk(roots: list[Expression] | tuple[Expression, ...]) -> Iterator[Expression]:
    """All expressions below some roots, operands first, each once."""
    seen: set[int] = set()

    def visit(expression: Expression) -> Iterator[Expression]:
        if id(expression) in seen:
            return
        seen.add(id(expression))
        for operand in _operands(expression):
            yield from visit(operand)
        yield expression

    for root in roots:
        yield from visit(root)


def _operands(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Compute(_, _, _, operands):
            return operands
        case Convert(_, operand):
            return (operand,)
        case Choose(_, _, inside, outside):
            return inside, outside
        case Word(_, first, second):
            return first, second
    return ()


def _bytes(node: Node, evaluate: Evaluate) -> int:
    return prod(map(evaluate, node.shape)) * node.dtype.itemsize
