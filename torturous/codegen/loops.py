"""Loop kernels: elementwise maps and reductions.

A kernel works through *items*, the places of its kept axes (the innermost cut into chunks), in pieces of `granule`
items. Pieces do not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Integer
from torturous.codegen.expressions import LANES, Argument, KernelWriter, Point
from torturous.compiler.kernel import Accumulator, Literal
from torturous.compiler.schedule import roots
from torturous.compiler.sizes import ONE, Size, product
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import reduction
from torturous.ir.op import Op

CHUNK = 8192
"""Elements of the innermost axis per item, at most; a multiple of LANES."""
UNROLLED = 64
"""A reduction of at most this many elements, if known when generating, is written out."""


@dataclass(frozen=True)
class Divided:
    """An extent that items divide among themselves, `unit` elements each or a multiple of it, but not over `most`.

    Where there is a choice it is made for the sizes a plan is run with, and the kernel takes it as an argument.
    """

    extent: Size
    unit: int
    most: int


@dataclass(frozen=True)
class Work:
    """How many items a kernel has: the product of `outer`, times the parts of what is divided."""

    outer: Size
    divided: tuple[Divided, ...]
    cost: Size
    """Rough machine operations of all items that share a place in `outer`."""

    @staticmethod
    def chunks(outer: Size, inner: Size | None, cost: Size) -> Work:
        """Items of at most CHUNK elements of the innermost loop, if that is divided."""
        return Work(outer, (Divided(inner, CHUNK, CHUNK),) if inner is not None else (), cost)


def write_loops(writer: KernelWriter) -> Work:
    """Writes a map or a reduction."""
    kernel = writer.kernel
    along = len(kernel.axes) + len(kernel.reduced) - 1
    if kernel.reduced and kernel.lane_axis == along:
        return _write_items(writer, None, lambda point: _reduce_along(writer, point))
    inner = kernel.lane_axis if kernel.axes else None
    body = (lambda point: _reduce_across(writer, point)) if kernel.reduced else (lambda point: _finish(writer, point))
    return _write_items(writer, inner, body)


def _finish(writer: KernelWriter, point: Point) -> None:
    for store in writer.kernel.stores:
        writer.store(writer.emit(store.expression, point), store.buffer, store.address, point)


# Items -----------------------------------------------------------------------------------------------------------
def _write_items(writer: KernelWriter, lane_axis: int | None, body: object) -> Work:
    """The loop over items; `lane_axis` None makes every kept place an item of one lane."""
    b, kernel = writer.builder, writer.kernel
    outer_axes = [axis for axis in range(len(kernel.axes)) if axis != lane_axis]
    inner = kernel.axes[lane_axis] if lane_axis is not None else None
    outer = product(kernel.axes[axis] for axis in outer_axes)
    known = inner.constant if inner is not None else 1
    chunks: Integer = 1
    if inner is not None and (known is None or known > CHUNK):
        chunks = b.ceil_div(writer.size(inner), CHUNK)
    items = b.mul(writer.size(outer), chunks)
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), items)
    # Counters of the outer axes, worked out once and then counted up.
    extents = [writer.size(kernel.axes[axis]) for axis in outer_axes]
    starts: list[Integer] = []
    rest: Integer = first
    chunk_start: Integer = 0
    if chunks != 1:
        chunk_start, rest = b.rem(rest, chunks), b.div(rest, chunks)
    for position in range(len(extents) - 1, -1, -1):
        if position == 0:
            starts.insert(0, rest)
        else:
            starts.insert(0, b.rem(rest, extents[position]))
            rest = b.div(rest, extents[position])
    loop = b.begin_loop(first, last, 1, [("i64", start) for start in [*starts, chunk_start]])
    axes: dict[int, Integer] = dict(zip(outer_axes, loop.carried, strict=False))
    row = Point(axes, None, 1)
    if lane_axis is None:
        body(row)  # type: ignore[operator]
    else:
        assert inner is not None
        _write_lanes(writer, row, lane_axis, writer.size(inner), loop.carried[-1] if chunks != 1 else None, body)
    # Count up: the chunk first, then the outer axes from the innermost.
    following: list[Integer] = []
    carry: Integer = 1
    limits = [*extents, chunks]
    for position in range(len(limits) - 1, -1, -1):
        if position == len(limits) - 1 and chunks == 1:
            following.insert(0, 0)
            continue
        counted = b.add(loop.carried[position], carry)
        if position == 0:
            following.insert(0, counted)
            continue
        wrapped = b.compare("eq", counted, limits[position])
        following.insert(0, b.choose(wrapped, 0, counted))
        carry = b.value(f"zext i1 {wrapped} to i64")
    b.end_loop(loop, following)
    reduced = product(kernel.reduced)
    return Work.chunks(outer, inner, (inner if inner is not None else ONE) * reduced)


def _write_lanes(writer: KernelWriter, row: Point, axis: int, extent: Integer, chunk: Integer | None,
                 body: object) -> None:
    """The loop over one row, or a chunk of it, LANES places at a time, the last ones masked."""
    b, kernel = writer.builder, writer.kernel
    hoisted = Point(dict(row.axes), axis, LANES)
    hoisted.axes[axis] = 0
    if not kernel.reduced:
        writer.hoist(roots(kernel), hoisted, axis)
    start: Integer = 0
    stop = extent
    if chunk is not None:
        start = b.mul(chunk, CHUNK)
        stop = b.minimum(b.add(start, CHUNK), extent)
    length = b.sub(stop, start)
    full = length - length % LANES if isinstance(length, int) else b.value(f"and i64 {length}, {-LANES}")
    main = b.add(start, full)

    def at(index: Integer, mask: str | None, tail: int | None) -> Point:
        axes = dict(row.axes)
        axes[axis] = index
        return Point(axes, axis, LANES, mask, tail, outer=hoisted if not kernel.reduced else None)

    if full != 0:
        if isinstance(full, int) and full == LANES and isinstance(start, int):
            body(at(start, None, None))  # type: ignore[operator]
        else:
            loop = b.begin_loop(start, main, LANES)
            body(at(loop.index, None, None))  # type: ignore[operator]
            b.end_loop(loop)
    if isinstance(length, int):
        if length % LANES:
            body(at(main, writer.tail_mask(length % LANES, LANES), length % LANES))  # type: ignore[operator]
        return
    left = b.sub(stop, main)

    def rest() -> None:
        body(at(main, writer.tail_mask(left, LANES), None))  # type: ignore[operator]

    b.when(b.compare("sgt", left, 0), rest)


# Reductions ------------------------------------------------------------------------------------------------------
class _Combiner:
    """How partial results of one accumulator are started, fed and combined. A state is a list of values: one, or
    value and position for argmax and argmin."""

    def __init__(self, writer: KernelWriter, accumulator: Accumulator, lanes: int) -> None:
        self.writer = writer
        self.accumulator = accumulator
        self.op: Op = accumulator.op
        self.dtype: DType = accumulator.dtype
        self.lanes = lanes
        self.indexed = self.op in (reduction.ARGMAX, reduction.ARGMIN)
        self.e = Arithmetic(writer.builder, self.dtype, lanes)
        self.index = Arithmetic(writer.builder, dtypes.int64, lanes)

    def kinds(self) -> list[str]:
        return [self.e.kind, self.index.kind] if self.indexed else [self.e.kind]

    def resized(self, lanes: int) -> _Combiner:
        return _Combiner(self.writer, self.accumulator, lanes)

    def identity(self) -> list[str]:
        op = self.op
        if op is reduction.PROD:
            return [self.e.constant(1)]
        if op in (reduction.AMAX, reduction.ARGMAX):
            number = reduction.lowest(self.dtype)
        elif op in (reduction.AMIN, reduction.ARGMIN):
            number = reduction.highest(self.dtype)
        else:
            number = op is reduction.ALL
        first = self.e.constant(number)
        # No position yet: any element is better, even one equal to the identity.
        return [first, self.index.constant(-1)] if self.indexed else [first]

    def combine(self, state: list[str], other: list[str]) -> list[str]:
        e, op = self.e, self.op
        if self.indexed:
            return self._better(state, other)
        a, c = state[0], other[0]
        if op is reduction.SUM:
            return [e.add(a, c)]
        if op is reduction.PROD:
            return [e.mul(a, c)]
        if op is reduction.AMAX:
            return [e.maximum(a, c)]
        if op is reduction.AMIN:
            return [e.minimum(a, c)]
        return [e.bit("or" if op is reduction.ANY else "and", a, c)]

    def _better(self, state: list[str], other: list[str]) -> list[str]:
        """Keeps the better value; NaN beats numbers; of equals the lower position; −1 is no position."""
        b, e, i = self.writer.builder, self.e, self.index
        (a, a_at), (c, c_at) = state, other

        def test(operation: str, first: str, second: str) -> str:
            return b.value(f"{operation} {e.mask} {first}, {second}")

        better = e.compare("gt" if self.op is reduction.ARGMAX else "lt", c, a)
        equal = e.compare("eq", c, a)
        if e.floating:
            a_nan, c_nan = e.compare("ne", a, a), e.compare("ne", c, c)
            better = test("or", test("and", better, test("xor", a_nan, "splat (i1 true)")),
                          test("and", c_nan, test("xor", a_nan, "splat (i1 true)")))
            equal = test("or", equal, test("and", a_nan, c_nan))
        earlier = b.value(f"icmp ult {i.kind} {c_at}, {a_at}")  # −1 is the largest unsigned number
        better = test("or", better, test("and", equal, earlier))
        exists = i.compare("ne", c_at, i.constant(-1))
        better = test("and", exists, test("or", better, i.compare("eq", a_at, i.constant(-1))))
        return [e.select(better, c, a), i.select(better, c_at, a_at)]

    def masked(self, mask: str | None, state: list[str], new: list[str]) -> list[str]:
        """The new state in the lanes of a mask, the old one elsewhere."""
        if mask is None:
            return new
        b = self.writer.builder
        return [
            b.value(f"select <{self.lanes} x i1> {mask}, {k} {n}, {k} {s}")
            for k, n, s in zip(self.kinds(), new, state, strict=True)
        ]

    def element(self, point: Point) -> list[str]:
        """One element per lane, at a point of the reduced loops."""
        writer, kernel = self.writer, self.writer.kernel
        value = writer.emit(self.accumulator.expression, point)
        if not self.indexed:
            return [value]
        inner = len(kernel.axes) + len(kernel.reduced) - 1
        b = writer.builder
        base: Integer = point.axes[inner]
        if kernel.outer_runs:
            base = b.add(b.mul(point.axes[inner - 1], writer.size(kernel.reduced[-1])), base)
        at = writer.splat(base, point)
        if point.lane_axis == inner and point.lanes > 1:
            at = self.index.add(at, writer.lane_numbers(point))
        return [value, at]

    def folded(self, state: list[str]) -> list[str]:
        """Lanes combined pairwise (l with l+8, +4, +2, +1), as one-lane values."""
        b, current, lanes = self.writer.builder, state, self.lanes
        combiner = self
        while lanes > 1:
            half = lanes // 2
            low = "<" + ", ".join(f"i32 {lane}" for lane in range(half)) + ">"
            high = "<" + ", ".join(f"i32 {half + lane}" for lane in range(half)) + ">"
            parts = []
            for indices in (low, high):
                parts.append([
                    b.value(f"shufflevector {k} {v}, {k} poison, <{half} x i32> {indices}")
                    for k, v in zip(combiner.kinds(), current, strict=True)
                ])
            combiner = combiner.resized(half)
            current = combiner.combine(parts[0], parts[1])
            lanes = half
        return current


def folded(writer: KernelWriter, op: Op, dtype: DType, vector: str) -> str:
    """The lanes of one vector combined pairwise, as a one-lane vector."""
    accumulator = Accumulator(op, dtype, Literal(dtype, 0))
    return _Combiner(writer, accumulator, LANES).folded([vector])[0]


def tree(combiner: _Combiner, states: list[list[str] | None]) -> list[str]:
    """LANES states combined pairwise; None stands for one that has seen no element and changes nothing."""
    while len(states) > 1:
        half = len(states) // 2
        merged: list[list[str] | None] = []
        for low, high in zip(states[:half], states[half:], strict=True):
            merged.append(combiner.combine(low, high) if low is not None and high is not None else low or high)
        states = merged
    return states[0] if states[0] is not None else combiner.identity()


def _accumulated(combiner: _Combiner, state: list[str]) -> str:
    return state[-1]


def _reduced_point(writer: KernelWriter, point: Point, outer: Integer, inner: Integer, lane_axis: int | None,
                   lanes: int, mask: str | None, tail: int | None) -> Point:
    """A place of the reduced loops at a place of the kept ones."""
    kernel = writer.kernel
    axes = dict(point.axes)
    first = len(kernel.axes)
    if kernel.outer_runs:
        axes[first] = outer
    axes[first + len(kernel.reduced) - 1] = inner
    return Point(axes, lane_axis, lanes, mask, tail)


def _extents(writer: KernelWriter) -> tuple[Integer, Integer]:
    kernel = writer.kernel
    outer = writer.size(kernel.reduced[0]) if kernel.outer_runs else 1
    return outer, writer.size(kernel.reduced[-1])


def _reduce_along(writer: KernelWriter, row: Point) -> None:
    """Lanes along the inner reduced run: one result at a time."""
    b, kernel = writer.builder, writer.kernel
    inner_axis = len(kernel.axes) + len(kernel.reduced) - 1
    combiners = [_Combiner(writer, accumulator, LANES) for accumulator in kernel.accumulators]
    outer, inner = _extents(writer)
    chunks = b.ceil_div(inner, LANES)

    def feed(states: list[list[str]], o: Integer, start: Integer, mask: str | None, tail: int | None
             ) -> list[list[str]]:
        point = _reduced_point(writer, row, o, start, inner_axis, LANES, mask, tail)
        new = []
        for combiner, state in zip(combiners, states, strict=True):
            new.append(combiner.masked(mask, state, combiner.combine(state, combiner.element(point))))
        return new

    identities = [combiner.identity() for combiner in combiners]
    if isinstance(outer, int) and isinstance(inner, int) and outer * int(chunks) <= 8:
        states = identities
        for o in range(outer):
            for start in range(0, inner, LANES):
                tail = min(LANES, inner - start)
                mask = writer.tail_mask(tail, LANES) if tail < LANES else None
                states = feed(states, o, start, mask, tail if mask else None)
        results = [combiner.folded(state) for combiner, state in zip(combiners, states, strict=True)]
    else:
        results = _blocked_along(writer, combiners, identities, feed, outer, inner, chunks)
    row.accumulated = [_accumulated(combiner, state) for combiner, state in zip(combiners, results, strict=True)]
    _finish(writer, row)


def _flatten(states: list[list[str]]) -> list[str]:
    return [value for state in states for value in state]


def _regroup(values: list[str], like: list[list[str]]) -> list[list[str]]:
    result, position = [], 0
    for state in like:
        result.append(values[position:position + len(state)])
        position += len(state)
    return result


def _blocked_along(writer: KernelWriter, combiners: list[_Combiner], identities: list[list[str]], feed: object,
                   outer: Integer, inner: Integer, chunks: Integer) -> list[list[str]]:
    """Blocks of reduction.BLOCK steps, each folded to one value that enters lane (block mod LANES) of level two."""
    b = writer.builder
    kinds = [k for combiner in combiners for k in combiner.kinds()]
    steps = b.mul(outer, chunks)
    single = isinstance(steps, int) and steps <= reduction.BLOCK
    always_full = isinstance(inner, int) and inner % LANES == 0

    def block(first: Integer, last: Integer, o: Integer, c: Integer) -> tuple[list[list[str]], Integer, Integer]:
        initial = list(zip(kinds, _flatten(identities), strict=True))
        loop = b.begin_loop(first, last, 1, [("i64", o), ("i64", c), *initial])
        o_now, c_now, *values = loop.carried
        start = b.mul(c_now, LANES)
        mask = None
        if not always_full:
            mask = writer.tail_mask(b.sub(inner, start), LANES)
        states = feed(_regroup(values, identities), o_now, start, mask, None)  # type: ignore[operator]
        c_next = b.add(c_now, 1)
        wrapped = b.compare("eq", c_next, chunks)
        o_next = b.choose(wrapped, b.add(o_now, 1), o_now)
        after = b.end_loop(loop, [o_next, b.choose(wrapped, 0, c_next), *_flatten(states)])
        return _regroup(after[2:], identities), after[0], after[1]

    if single:
        states, _, _ = block(0, steps, 0, 0)
        return [combiner.folded(state) for combiner, state in zip(combiners, states, strict=True)]
    blocks = b.ceil_div(steps, reduction.BLOCK)
    initial = list(zip(kinds, _flatten(identities), strict=True))
    loop = b.begin_loop(0, blocks, 1, [("i64", 0), ("i64", 0), *initial])
    o_now, c_now, *values = loop.carried
    first = b.mul(loop.index, reduction.BLOCK)
    last = b.minimum(b.add(first, reduction.BLOCK), steps)
    states, o_next, c_next = block(first, last, o_now, c_now)
    lane = b.value(f"and i64 {loop.index}, {LANES - 1}")
    wide = f"<{LANES} x i64>"
    one = b.value(f"insertelement {wide} poison, i64 {lane}, i32 0")
    spread = b.value(f"shufflevector {wide} {one}, {wide} poison, <{LANES} x i32> zeroinitializer")
    numbers = "<" + ", ".join(f"i64 {n}" for n in range(LANES)) + ">"
    mask = b.value(f"icmp eq {wide} {numbers}, {spread}")
    second = []
    for combiner, level, state in zip(combiners, _regroup(values, identities), states, strict=True):
        widened = [
            b.value(f"shufflevector <1 x {k.split(' x ')[1]} {v}, <1 x {k.split(' x ')[1]} poison, "
                    f"<{LANES} x i32> zeroinitializer")
            for k, v in zip(combiner.kinds(), combiner.folded(state), strict=True)
        ]
        second.append(combiner.masked(mask, level, combiner.combine(level, widened)))
    after = b.end_loop(loop, [o_next, c_next, *_flatten(second)])
    return [combiner.folded(s) for combiner, s in zip(combiners, _regroup(after[2:], identities), strict=True)]


def _reduce_across(writer: KernelWriter, point: Point) -> None:
    """Lanes along a kept axis: LANES results at a time, each with its LANES partial results."""
    lanes = point.lanes
    combiners = [_Combiner(writer, accumulator, lanes) for accumulator in writer.kernel.accumulators]
    outer, inner = _extents(writer)

    def element(combiner: _Combiner, place: Point) -> list[str]:
        return combiner.element(place)

    def at(o: Integer, k: Integer) -> Point:
        return _reduced_point(writer, point, o, k, point.lane_axis, lanes, point.mask, point.tail)

    if isinstance(outer, int) and isinstance(inner, int) and outer * inner <= UNROLLED:
        partial: list[list[list[str] | None]] = [[None] * LANES for _ in combiners]
        for o in range(outer):
            for k in range(inner):
                place = at(o, k)
                for number, combiner in enumerate(combiners):
                    state = partial[number][k % LANES] or combiner.identity()
                    partial[number][k % LANES] = combiner.combine(state, element(combiner, place))
        results = [tree(combiner, states) for combiner, states in zip(combiners, partial, strict=True)]
    else:
        results = _blocked_across(writer, combiners, at, outer, inner)
    point.accumulated = [_accumulated(combiner, state) for combiner, state in zip(combiners, results, strict=True)]
    _finish(writer, point)


def _blocked_across(writer: KernelWriter, combiners: list[_Combiner], at: object, outer: Integer, inner: Integer
                    ) -> list[list[str]]:
    """Blocks of steps with LANES accumulators each; the second level's accumulators lie on the stack."""
    b = writer.builder
    chunks = b.ceil_div(inner, LANES)
    steps = b.mul(outer, chunks)
    identities = [[combiner.identity() for _ in range(LANES)] for combiner in combiners]
    kinds = [k for combiner in combiners for _ in range(LANES) for k in combiner.kinds()]

    def flat(states: list[list[list[str]]]) -> list[str]:
        return [value for per in states for state in per for value in state]

    def unflat(values: list[str]) -> list[list[list[str]]]:
        result, position = [], 0
        for combiner in combiners:
            width = len(combiner.kinds())
            per = []
            for _ in range(LANES):
                per.append(values[position:position + width])
                position += width
            result.append(per)
        return result

    def block(first: Integer, last: Integer, o: Integer, c: Integer) -> tuple[list[list[str]], Integer, Integer]:
        loop = b.begin_loop(first, last, 1, [("i64", o), ("i64", c), *zip(kinds, flat(identities), strict=True)])
        o_now, c_now, *values = loop.carried
        states = unflat(values)
        start = b.mul(c_now, LANES)
        for p in range(LANES):
            k = b.add(start, p)
            place = at(o_now, k)  # type: ignore[operator]
            exists = None
            if not (isinstance(inner, int) and inner % LANES == 0):
                # A lane past the end reads a place that exists and is then left out.
                test = b.compare("slt", k, inner)
                place = at(o_now, b.choose(test, k, start))  # type: ignore[operator]
                bits = f"<{place.lanes} x i1>"
                one = b.value(f"insertelement {bits} poison, i1 {test}, i32 0")
                exists = b.value(f"shufflevector {bits} {one}, {bits} poison, <{place.lanes} x i32> zeroinitializer")
            for number, combiner in enumerate(combiners):
                state = states[number][p]
                new = combiner.combine(state, combiner.element(place))
                states[number][p] = combiner.masked(exists, state, new)
        c_next = b.add(c_now, 1)
        wrapped = b.compare("eq", c_next, chunks)
        o_next = b.choose(wrapped, b.add(o_now, 1), o_now)
        after = b.end_loop(loop, [o_next, b.choose(wrapped, 0, c_next), *flat(states)])
        folded = [tree(c, list(s)) for c, s in zip(combiners, unflat(after[2:]), strict=True)]
        return folded, after[0], after[1]

    if isinstance(steps, int) and steps <= reduction.BLOCK:
        results, _, _ = block(0, steps, 0, 0)
        return results
    # Level two: lane (block mod LANES) of an array on the stack.
    slots = []
    for combiner in combiners:
        for k, initial in zip(combiner.kinds(), combiner.identity(), strict=True):
            array = b.hoisted(f"alloca [{LANES} x {_in_memory(k)}], align 64")
            for n in range(LANES):
                _put(writer, k, initial, array, n)
            slots.append((k, array))
    blocks = b.ceil_div(steps, reduction.BLOCK)
    loop = b.begin_loop(0, blocks, 1, [("i64", 0), ("i64", 0)])
    first = b.mul(loop.index, reduction.BLOCK)
    last = b.minimum(b.add(first, reduction.BLOCK), steps)
    results, o_next, c_next = block(first, last, loop.carried[0], loop.carried[1])
    lane = b.value(f"and i64 {loop.index}, {LANES - 1}")
    position = 0
    for combiner, result in zip(combiners, results, strict=True):
        width = len(combiner.kinds())
        mine = slots[position:position + width]
        state = [_get(writer, k, array, lane) for k, array in mine]
        for (k, array), value in zip(mine, combiner.combine(state, result), strict=True):
            _put(writer, k, value, array, lane)
        position += width
    b.end_loop(loop, [o_next, c_next])
    final, position = [], 0
    for combiner in combiners:
        width = len(combiner.kinds())
        mine = slots[position:position + width]
        final.append(tree(combiner, [[_get(writer, k, array, n) for k, array in mine] for n in range(LANES)]))
        position += width
    return final


def _in_memory(kind_: str) -> str:
    return kind_.replace("x i1>", "x i8>")


def _address(writer: KernelWriter, kind_: str, array: str, n: Integer) -> str:
    return writer.builder.value(f"getelementptr {_in_memory(kind_)}, ptr {array}, i64 {n}")


def _put(writer: KernelWriter, kind_: str, value: str, array: str, n: Integer) -> None:
    b = writer.builder
    if kind_ != _in_memory(kind_):
        value = b.value(f"zext {kind_} {value} to {_in_memory(kind_)}")
    b.store(_in_memory(kind_), value, _address(writer, kind_, array, n), 8)


def _get(writer: KernelWriter, kind_: str, array: str, n: Integer) -> str:
    b = writer.builder
    value = b.load(_in_memory(kind_), _address(writer, kind_, array, n), 8)
    if kind_ != _in_memory(kind_):
        value = b.value(f"icmp ne {_in_memory(kind_)} {value}, zeroinitializer")
    return value

