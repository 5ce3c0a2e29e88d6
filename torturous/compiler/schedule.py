"""How a kernel's loops run: neighbouring axes that lie in memory as one are merged, and lanes get an axis.

Nothing here can change a result: elementwise values do not depend on the loops, and a reduction's order is defined
by its merged runs, which stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torturous.compiler.kernel import (
    Accumulated,
    Accumulator,
    Choose,
    Compute,
    Convert,
    DataPosition,
    Derived,
    Digit,
    Expression,
    Guard,
    Kernel,
    Load,
    Position,
    Quotient,
    Store,
    Word,
)
from torturous.compiler.sizes import ONE, Affine, Size, product, row_major

LANES = 16


def schedule(kernel: Kernel, hint: Callable[[Size], int]) -> Kernel:
    """The kernel with merged axes and a lane axis; `hint` estimates a size."""
    if kernel.special is not None or kernel.attention is not None:
        return kernel
    kernel = _merge_kept(_merge_reduced(kernel))
    kernel.lane_axis = _lane_axis(kernel, hint)
    return kernel


# Walking and rewriting -------------------------------------------------------------------------------------------
def children(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Compute():
            return expression.operands
        case Convert():
            return (expression.operand,)
        case Choose():
            return expression.inside, expression.outside
        case Word():
            return expression.first, expression.second
    return ()


def roots(kernel: Kernel) -> list[Expression]:
    """Every expression a kernel evaluates."""
    found = [store.expression for store in kernel.stores]
    found += kernel.product or ()
    found += [a.expression for a in kernel.accumulators[1 if kernel.product else 0:]]
    found += [derived.expression for derived in kernel.derived if isinstance(derived, DataPosition)]
    found += kernel.attention.expressions if kernel.attention else []
    return found


def walk(expressions: list[Expression]) -> Iterator[Expression]:
    """Every expression below these, each once."""
    seen: set[int] = set()
    pending = list(expressions)
    while pending:
        expression = pending.pop()
        if id(expression) not in seen:
            seen.add(id(expression))
            yield expression
            pending.extend(children(expression))


def loads(kernel: Kernel) -> list[Load]:
    return [expression for expression in walk(roots(kernel)) if isinstance(expression, Load)]


def rewrite(kernel: Kernel, axes: dict[int, Affine], extents: list[Size], reduced: list[Size],
            derived: list[Derived]) -> Kernel:
    """The kernel with its loops replaced: each old axis as an affine function of the new ones."""
    memo: dict[int, Expression] = {}

    def guard(old: Guard) -> Guard:
        return Guard(old.position.renamed(axes), old.extent)

    def expression(old: Expression) -> Expression:
        known = memo.get(id(old))
        if known is None:
            known = memo[id(old)] = build(old)
        return known

    def build(old: Expression) -> Expression:
        match old:
            case Load(dtype, buffer, address, guards):
                return Load(dtype, buffer, address.renamed(axes), tuple(map(guard, guards)))
            case Position(dtype, affine):
                return Position(dtype, affine.renamed(axes))
            case Compute(dtype, op, compute, operands):
                return Compute(dtype, op, compute, tuple(map(expression, operands)))
            case Convert(dtype, operand):
                return Convert(dtype, expression(operand))
            case Choose(dtype, guards, inside, outside):
                return Choose(dtype, tuple(map(guard, guards)), expression(inside), expression(outside))
            case Word(dtype, first, second):
                return Word(dtype, expression(first), expression(second))
        return old

    def position(old: Derived) -> Derived:
        match old:
            case Quotient(affine, divisor):
                return Quotient(affine.renamed(axes), divisor)
            case Digit(affine, inner, extent):
                return Digit(affine.renamed(axes), inner, extent)
            case DataPosition(index, extent, node):
                return DataPosition(expression(index), extent, node)
        raise AssertionError(old)

    return Kernel(
        axes=extents, reduced=reduced, outer_runs=min(kernel.outer_runs, max(len(reduced) - 1, 0)),
        accumulators=[Accumulator(a.op, a.dtype, expression(a.expression)) for a in kernel.accumulators],
        product=(expression(kernel.product[0]), expression(kernel.product[1])) if kernel.product else None,
        lanewise=kernel.lanewise, direct=kernel.direct, channelwise=kernel.channelwise, tapwise=kernel.tapwise,
        words=kernel.words,
        windows=tuple(window.renamed(axes) for window in kernel.windows), windowed=kernel.windowed, gap=kernel.gap,
        pooled=sum(axes[axis] != Affine.fixed(0) for axis in kernel.pooled_axes),
        stores=[Store(s.buffer, s.address.renamed(axes), expression(s.expression), s.inside) for s in kernel.stores],
        derived=[*map(position, kernel.derived), *derived], names=kernel.names, places=kernel.places,
    )


# Merging ---------------------------------------------------------------------------------------------------------
def _affines(kernel: Kernel) -> tuple[list[Affine], list[Affine]]:
    """Addresses, in which only strides matter; and positions, whose value itself matters."""
    addresses = [store.address for store in kernel.stores]
    positions: list[Affine] = []
    for expression in walk(roots(kernel)):
        match expression:
            case Load(_, _, address, guards):
                addresses.append(address)
                positions += [guard.position for guard in guards]
            case Position(_, affine):
                positions.append(affine)
            case Choose(_, guards):
                positions += [guard.position for guard in guards]
    for derived in kernel.derived:
        if isinstance(derived, (Quotient, Digit)):
            positions.append(derived.affine)
    return addresses, positions


def merged_results(kernel: Kernel, axes: Sequence[int]) -> list[list[int]]:
    """Some of a contraction's kept axes, neighbours together that all its stores step through as one."""
    affines = [store.address for store in kernel.stores]
    for expression in walk([store.expression for store in kernel.stores]):
        match expression:
            case Load(_, _, address, guards):
                affines += [address, *(guard.position for guard in guards)]
            case Position(_, affine):
                affines.append(affine)
            case Choose(_, guards):
                affines += [guard.position for guard in guards]
    derived = any(term < 0 for affine in affines for term in affine.terms)
    groups: list[list[int]] = []
    for axis in axes:
        if groups and not derived and _mergeable(groups[-1][-1], axis, kernel.axes[axis], affines):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


def _mergeable(outer: int, inner: int, extent: Size, affines: list[Affine]) -> bool:
    return all(affine.factor(outer) == affine.factor(inner) * extent for affine in affines)


def _merge_kept(kernel: Kernel) -> Kernel:
    """Merges kept axes that every address steps through as one; axes of size 1 vanish."""
    addresses, positions = _affines(kernel)
    affines = addresses + positions
    groups: list[list[int]] = []
    for axis, extent in enumerate(kernel.axes):
        if extent == 1:
            continue
        if groups and not kernel.product and _mergeable(groups[-1][-1], axis, extent, affines):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    first = len(kernel.axes)
    return _regrouped(kernel, groups, [[axis] for axis in range(first, first + len(kernel.reduced))])


def _regrouped(kernel: Kernel, kept: list[list[int]], reduced: list[list[int]]) -> Kernel:
    extents = kernel.axes + kernel.reduced
    axes = {axis: Affine.fixed(0) for axis in range(len(extents))}
    for number, group in enumerate([*kept, *reduced]):
        stride = ONE
        for axis in reversed(group):
            # Only the innermost axis's factor survives, and it is right for the whole group.
            axes[axis] = Affine.axis(number) if axis == group[-1] else Affine.fixed(0)
            stride = stride * extents[axis]
    sizes = [product(extents[axis] for axis in group) for group in [*kept, *reduced]]
    return rewrite(kernel, axes, sizes[:len(kept)], sizes[len(kept):], [])


def _merge_reduced(kernel: Kernel) -> Kernel:
    """Leaves at most an outer and an inner reduced axis, with digits where addresses do not merge by themselves."""
    if kernel.product or not kernel.reduced:
        return kernel
    first = len(kernel.axes)
    count = len(kernel.reduced)
    outer = list(range(first, first + kernel.outer_runs))
    inner = list(range(first + kernel.outer_runs, first + count))
    addresses, positions = _affines(kernel)
    affines = addresses + positions
    axes: dict[int, Affine] = {}
    reduced: list[Size] = []
    derived: list[Derived] = []
    for run in (outer, inner):
        if not run:
            continue
        target = Affine.axis(first + len(reduced))
        sizes = tuple(kernel.reduced[axis - first] for axis in run)
        strides = row_major(sizes)
        # Inside the inner run the innermost neighbours that merge do so; the rest become digits.
        if all(_mergeable(run[k], run[k + 1], sizes[k + 1], affines) for k in range(len(run) - 1)):
            for axis in run:
                axes[axis] = target if axis == run[-1] else Affine.fixed(0)
        else:
            for axis, size, stride in zip(run, sizes, strides, strict=True):
                if size == 1:
                    axes[axis] = Affine.fixed(0)
                    continue
                derived.append(Digit(target, stride, size))
                axes[axis] = Affine.axis(~(len(kernel.derived) + len(derived) - 1))
        reduced.append(product(sizes))
    merged = rewrite(kernel, axes, list(kernel.axes), reduced, [])
    merged.derived.extend(derived)
    merged.outer_runs = 1 if outer else 0
    return merged


# Lanes -----------------------------------------------------------------------------------------------------------
def _lane_axis(kernel: Kernel, hint: Callable[[Size], int]) -> int:
    """The loop along which the vector lanes run: where addresses step evenly and few lanes are left over."""
    last = len(kernel.axes) - 1
    if kernel.product:
        return last
    inner = len(kernel.axes) + len(kernel.reduced) - 1
    extents = kernel.axes + kernel.reduced

    def cost(axis: int) -> float:
        total = 0.0
        # What steps evenly along the outer run is turned in registers.
        other = axis - 1 if kernel.outer_runs and axis == inner else None
        for address in [load.address for load in loads(kernel)]:
            factor = _lane_factor(kernel, address, axis)
            if other is not None and factor not in (0, 1) and _lane_factor(kernel, address, other) == 1:
                total += 3.0
                continue
            total += 1.0 if factor is not None and factor in (0, 1) else 2.5 if factor in (2, 3, 4) else 12.0
        for store in kernel.stores:
            if store.inside and other is not None and _lane_factor(kernel, store.address, other) == 1:
                total += 1.0
            elif store.inside or axis < len(kernel.axes):
                total += 1.0 if _lane_factor(kernel, store.address, axis) == 1 else 16.0
        filled = max(1, min(hint(extents[axis]), LANES))
        return max(total, 1.0) / filled

    if not kernel.reduced:
        return min(range(len(kernel.axes)), key=lambda axis: (cost(axis), -axis), default=-1)
    if last < 0:
        return inner
    # Lanes along the reduction end in a combination across lanes for every result.
    along = cost(inner) + 10.0 / max(1, hint(product(kernel.reduced)))
    return inner if along < cost(last) else last


def _lane_factor(kernel: Kernel, affine: Affine, axis: int) -> int | None:
    """The step of an address from lane to lane; None if it is not constant."""
    for term in affine.terms:
        if term < 0 and _depends(kernel, term, axis):
            return None
    return affine.factor(axis).constant


def _depends(kernel: Kernel, term: int, axis: int) -> bool:
    """Whether a derived position varies along a loop."""
    derived = kernel.derived[~term]
    if isinstance(derived, (Quotient, Digit)):
        return derived.affine.factor(axis) != 0 or any(
            other < 0 and _depends(kernel, other, axis) for other in derived.affine.terms
        )
    assert isinstance(derived, DataPosition)
    return depends(kernel, derived.expression, axis)


def depends(kernel: Kernel, expression: Expression, axis: int) -> bool:
    """Whether an expression varies along a loop."""
    def affine(value: Affine) -> bool:
        return value.factor(axis) != 0 or any(t < 0 and _depends(kernel, t, axis) for t in value.terms)

    for part in walk([expression]):
        match part:
            case Load(_, _, address, guards):
                if affine(address) or any(affine(g.position) for g in guards):
                    return True
            case Position(_, value):
                if affine(value):
                    return True
            case Choose(_, guards):
                if any(affine(g.position) for g in guards):
                    return True
            case Accumulated():
                return True
    return False
