"""Kernels of their own kind: raw random words, scattering, joining many parts; sorting and running values."""

from __future__ import annotations

from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Integer, looping
from torturous.codegen.emitter import kind, scalar_kind
from torturous.codegen.expressions import Argument, KernelWriter
from torturous.codegen.loops import Work
from torturous.codegen.running import write_running
from torturous.codegen.sorting import write_order
from torturous.compiler.graph import Node
from torturous.compiler.sizes import ONE, ZERO, Size, product, row_major
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.ir import creation, indexing, ordering
from torturous.ir.op import Kind

WORDS, SHIFT = 624, 397
"""Mersenne Twister (Matsumoto and Nishimura, 1998): length of the recurrence and its middle distance."""


def write_special(writer: KernelWriter) -> tuple[Work, Size]:
    """Writes the kernel of a node that is not loops over expressions; gives the bytes of scratch it needs, too."""
    node = writer.kernel.special
    assert node is not None
    if node.op is ordering.ORDER:
        return write_order(writer, node)
    return _write_without_scratch(writer, node), ZERO


def _write_without_scratch(writer: KernelWriter, node: Node) -> Work:
    if node.op.kind is Kind.ALONG:
        return write_running(writer, node)
    if node.op is creation.RANDOM:
        return _random(writer, node)
    if node.op in (indexing.TAKE_ADD, indexing.TAKE_ALONG_ADD, indexing.PUT, indexing.PUT_ALONG):
        return _scatter(writer, node)
    if node.op is indexing.JOIN:
        return _join(writer, node)
    raise UnsupportedError(f"no kernel for {node.op.name}")


# Random words -----------------------------------------------------------------------------------------------
def _random(writer: KernelWriter, node: Node) -> Work:
    """Copies the state, then gives out tempered words, making a new block of 624 whenever one is used up."""
    b = writer.builder
    state = writer.pointer(writer.kernel.operands[0])
    out = writer.pointer(node)
    count = b.sub(writer.size(node.shape[0]), WORDS + 1)
    for start in range(0, WORDS + 1, 16):
        lanes = min(16, WORDS + 1 - start)
        wide = f"<{lanes} x i32>"
        b.store(wide, b.load(wide, b.offset(state, 4 * start), 4), b.offset(out, 4 * start), 4)
    used = b.value(f"zext i32 {b.load('i32', b.offset(out, 4 * WORDS), 4)} to i64")
    words = b.offset(out, 4 * (WORDS + 1))
    loop = b.begin_runs(0, count, [used])
    done, position = loop.carried
    # A position of 0 (just seeded) or 624 (used up) asks for a new block.
    position_in = b.rem(position, WORDS)
    b.when(b.compare("eq", position_in, 0), lambda: _twist(writer, out))
    length = b.minimum(b.sub(WORDS, position_in), b.sub(count, done))
    source = b.offset(out, b.mul(position_in, 4))
    target = b.offset(words, b.mul(done, 4))
    full = b.value(f"and i64 {length}, -16")
    with looping(b, 0, full, 16) as index:
        _temper(writer, source, target, index, 16)
    with looping(b, full, length) as index:
        _temper(writer, source, target, index, 1)
    b.end_runs(loop, [b.add(done, length), b.add(position_in, length)])
    last = b.value(f"trunc i64 {position} to i32")
    b.store("i32", last, b.offset(out, 4 * WORDS), 4)
    return Work(ONE, (), node.shape[0])


def _temper(writer: KernelWriter, source: str, target: str, index: str, lanes: int) -> None:
    b = writer.builder
    e = Arithmetic(b, dtypes.int32, lanes)
    offset = b.mul(index, 4)
    y = b.load(e.kind, b.offset(source, offset), 4)

    def shifted(direction: str, amount: int) -> str:
        return e.binary(direction, y, e.constant(amount))

    y = e.binary("xor", y, shifted("lshr", 11))
    y = e.binary("xor", y, e.binary("and", shifted("shl", 7), e.constant(0x9D2C5680 - (1 << 32))))
    y = e.binary("xor", y, e.binary("and", shifted("shl", 15), e.constant(0xEFC60000 - (1 << 32))))
    y = e.binary("xor", y, shifted("lshr", 18))
    b.store(e.kind, y, b.offset(target, offset), 4)


def _twist(writer: KernelWriter, state: str) -> None:
    """The next 624 words in place. A word needs the one after it and the one SHIFT on, old or already new."""
    b = writer.builder

    def step(index: Integer, lanes: int, following: Integer, middle: Integer) -> None:
        e = Arithmetic(b, dtypes.int32, lanes)

        def word(at: Integer) -> str:
            return b.load(e.kind, b.offset(state, b.mul(at, 4)), 4)

        upper = e.binary("and", word(index), e.constant(-(1 << 31)))
        lower = e.binary("and", word(following), e.constant((1 << 31) - 1))
        y = e.binary("or", upper, lower)
        odd = e.compare("ne", e.binary("and", y, e.constant(1)), e.constant(0))
        magic = e.select(odd, e.constant(0x9908B0DF - (1 << 32)), e.constant(0))
        new = e.binary("xor", e.binary("xor", word(middle), e.binary("lshr", y, e.constant(1))), magic)
        b.store(e.kind, new, b.offset(state, b.mul(index, 4)), 4)

    def stretch(first: int, last: int, lanes: int) -> None:
        if first >= last:
            return
        middle = SHIFT if first + SHIFT < WORDS else SHIFT - WORDS
        with looping(b, first, last, lanes) as index:
            step(index, lanes, b.add(index, 1), b.add(index, middle))

    # Sixteen at a time while neither source runs into words not yet made; the ends one by one.
    front = WORDS - SHIFT  # 227
    stretch(0, front // 16 * 16, 16)
    stretch(front // 16 * 16, front, 1)
    back = (WORDS - 1 - front) // 16 * 16
    stretch(front, front + back, 16)
    stretch(front + back, WORDS - 1, 1)
    step(WORDS - 1, 1, 0, SHIFT - 1)


# Scatter ----------------------------------------------------------------------------------------------------
def _scatter(writer: KernelWriter, node: Node) -> Work:
    """base, then x added or written at the index's positions in order; an item per place before the axis."""
    b = writer.builder
    base = writer.kernel.operands[0]
    _, operand_index, operand_x = node.inputs
    (axis,) = node.attributes
    along = node.op in (indexing.TAKE_ALONG_ADD, indexing.PUT_ALONG)
    out = writer.pointer(node)
    before = product(node.shape[:axis]) if not along else ONE
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), writer.size(before))
    extent = writer.size(node.shape[axis])
    size = node.dtype.itemsize
    copied = product(node.shape[axis:]) if not along else product(node.shape)
    with looping(b, first, last) as item:
        start = b.mul(item, writer.size(copied))
        with looping(b, start, b.add(start, writer.size(copied))) as place:
            offset = b.mul(place, size)
            _move(writer, node.dtype, b.offset(writer.pointer(base), offset), b.offset(out, offset))
        if along:
            _combine_along(writer, node, operand_index, operand_x, extent, axis)
        else:
            _combine_slices(writer, node, operand_index, item, extent, axis)
    return Work(before, (), copied + product(operand_x.shape))


def _position(writer: KernelWriter, node: Node, index: Node, place: Integer, extent: Integer) -> Integer:
    """The checked position at a flat place of an index buffer; out of range it is reported and 0."""
    b = writer.builder
    buffer = writer.pointer(writer.kernel.operands[1])
    kind_ = scalar_kind(index.dtype)
    value: Integer = b.load(kind_, b.offset(buffer, b.mul(place, index.dtype.itemsize)), index.dtype.itemsize)
    if index.dtype is not dtypes.int64:
        value = b.value(f"{'sext' if index.dtype.signed else 'zext'} {kind_} {value} to i64")
    bad = b.compare("uge", value, extent)
    errors = writer.argument(Argument("errors", node), "ptr")
    b.when(bad, lambda: b.emit(f"store atomic i32 1, ptr {errors} monotonic, align 8"))
    return b.choose(bad, 0, value)


def _combine(writer: KernelWriter, node: Node, target: Integer, source: Integer) -> None:
    """out[target] = x[source] where the op puts; else += x[source], rounded to the node's dtype."""
    b, dtype = writer.builder, node.dtype
    if node.op in (indexing.PUT, indexing.PUT_ALONG):
        x = b.offset(writer.pointer(writer.kernel.operands[2]), b.mul(source, dtype.itemsize))
        _move(writer, dtype, x, b.offset(writer.pointer(node), b.mul(target, dtype.itemsize)))
        return
    size, wide = dtype.itemsize, kind(dtype, 1)
    memory = "<1 x i8>" if dtype is dtypes.bool_ else wide
    working = dtypes.float32 if dtype.is_half else dtype
    out = b.offset(writer.pointer(node), b.mul(target, size))
    x = b.offset(writer.pointer(writer.kernel.operands[2]), b.mul(source, size))

    def read(pointer: str) -> str:
        value = writer.from_memory(b.load(memory, pointer, size), dtype, 1)
        return convert(b, value, dtype, working, 1)

    total = Arithmetic(b, working, 1).add(read(out), read(x))
    b.store(memory, writer.to_memory(convert(b, total, working, dtype, 1), dtype, 1), out, size)


def _combine_slices(
    writer: KernelWriter, node: Node, index: Node, item: Integer, extent: Integer, axis: int
) -> None:
    b = writer.builder
    count, after = writer.size(product(index.shape)), writer.size(product(node.shape[axis + 1:]))
    with looping(b, 0, count) as k:
        position = _position(writer, node, index, k, extent)
        target = b.mul(b.add(b.mul(item, extent), position), after)
        source = b.mul(b.add(b.mul(item, count), k), after)
        with looping(b, 0, after) as j:
            _combine(writer, node, b.add(target, j), b.add(source, j))


def _combine_along(
    writer: KernelWriter, node: Node, index: Node, x: Node, extent: Integer, axis: int
) -> None:
    """One element at a time, in the index's order."""
    b = writer.builder
    strides = row_major(node.shape)
    x_strides = row_major(x.shape)
    with looping(b, 0, writer.size(product(index.shape))) as flat:
        rest: Integer = flat
        places: list[Integer] = []
        for size in reversed(index.shape):
            extent_here = writer.size(size)
            places.insert(0, b.rem(rest, extent_here))
            rest = b.div(rest, extent_here)
        target: Integer = 0
        source: Integer = 0
        for position, place in enumerate(places):
            chosen = _position(writer, node, index, flat, extent) if position == axis else place
            target = b.add(target, b.mul(chosen, writer.size(strides[position])))
            source = b.add(source, b.mul(place, writer.size(x_strides[position])))
        _combine(writer, node, target, source)


# Join -------------------------------------------------------------------------------------------------------
def _join(writer: KernelWriter, node: Node) -> Work:
    """Copies parts one after another; an item is one part at one place before the axis.

    The parts' addresses, widths and places lie in arrays, so that the text hardly grows with their number.
    """
    b = writer.builder
    (axis,) = node.attributes
    parts = writer.kernel.operands
    count = len(parts)
    before = product(node.shape[:axis])
    places = writer.size(before)
    total = writer.size(product(node.shape[axis:]))
    arrays = [b.hoisted(f"alloca [{count} x i64], align 64") for _ in range(3)]
    start: Integer = 0
    for number, (part, operand) in enumerate(zip(parts, node.inputs, strict=True)):
        address = b.value(f"ptrtoint ptr {writer.pointer(part)} to i64")
        width = writer.size(product(operand.shape[axis:]))
        for array, value in zip(arrays, (address, width, start), strict=True):
            b.store("i64", value, b.offset(array, 8 * number), 8)
        start = b.add(start, width)
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), b.mul(places, count))
    size = node.dtype.itemsize
    with looping(b, first, last) as item:
        chosen, place = b.rem(item, count), b.div(item, count)
        address, width, start = (b.load("i64", b.offset(array, b.mul(chosen, 8)), 8) for array in arrays)
        source = b.offset(b.value(f"inttoptr i64 {address} to ptr"), b.mul(b.mul(place, width), size))
        target = b.offset(writer.pointer(node), b.mul(b.add(b.mul(place, total), start), size))
        with looping(b, 0, width) as element:
            offset = b.mul(element, size)
            _move(writer, node.dtype, b.offset(source, offset), b.offset(target, offset))
    return Work(before * count, (), product(node.inputs[0].shape[axis:]))


def _move(writer: KernelWriter, dtype: DType, source: str, target: str) -> None:
    """Copies one element as it lies in memory."""
    b = writer.builder
    scalar = f"i{8 * dtype.itemsize}"
    b.store(scalar, b.load(scalar, source, dtype.itemsize), target, dtype.itemsize)

