"""Sorting along an axis: the positions of the first so many elements in sorted order.

Elements become unsigned keys that sort as they do. A few wanted are kept in a short sorted list while all elements
pass by; more are found by a radix sort, eight bits at a time from the lowest. Both keep the order of equal elements.
"""

from __future__ import annotations

from torturous.codegen.builder import Integer, looping
from torturous.codegen.expressions import Argument, KernelWriter
from torturous.codegen.loops import Work
from torturous.compiler.graph import Node
from torturous.compiler.sizes import Size, product
from torturous.core import dtypes
from torturous.core.dtypes import DType

FEW = 32
"""At most so many are found by insertion."""
BINS = 256


def write_order(writer: KernelWriter, node: Node) -> tuple[Work, Size]:
    """An item is one row: one place before and after the axis. Scratch holds two lists of keys and positions."""
    b = writer.builder
    axis, _ = node.attributes
    (x,) = node.inputs
    count, wanted = x.shape[axis], node.shape[axis]
    after = product(node.shape[axis + 1:])
    rows = product(node.shape[:axis]) * after
    granule = writer.argument(Argument("granule"), "i64")
    first = b.mul("%first_piece", granule)
    last = b.minimum(b.mul("%last_piece", granule), writer.size(rows))
    with looping(b, first, last) as row:
        sorting = _Row(writer, node, row)
        few = wanted.constant
        if few is not None:
            sorting.insert() if few <= FEW else sorting.distribute()
        else:
            small = b.compare("sle", sorting.wanted, FEW)
            b.when(small, sorting.insert)
            b.when(b.value(f"xor i1 {small}, true"), sorting.distribute)
    passes = x.dtype.itemsize
    return Work(rows, (), count * (16 * passes)), count * 32 + 8 * BINS * passes


class _Row:
    """One row while it is sorted."""

    def __init__(self, writer: KernelWriter, node: Node, row: Integer) -> None:
        b = self.b = writer.builder
        axis, self.descending = node.attributes
        (x,) = node.inputs
        self.dtype: DType = x.dtype
        self.count, self.wanted = writer.size(x.shape[axis]), writer.size(node.shape[axis])
        self.after = writer.size(product(node.shape[axis + 1:]))
        before, behind = b.div(row, self.after), b.rem(row, self.after)
        source = b.add(b.mul(b.mul(before, self.count), self.after), behind)
        target = b.add(b.mul(b.mul(before, self.wanted), self.after), behind)
        self.source = b.offset(writer.pointer(writer.kernel.operands[0]), b.mul(source, self.dtype.itemsize))
        self.target = b.offset(writer.pointer(node), b.mul(target, 8))
        self.list_bytes = b.mul(self.count, 16)
        """Of one list: keys, then positions."""

    # Keys -------------------------------------------------------------------------------------------------------
    def key(self, index: Integer) -> str:
        """The element's key: an i64 that sorts, unsigned, as elements do."""
        b, dtype = self.b, self.dtype
        width = 8 * dtype.itemsize
        kind = f"i{width}"
        place = b.offset(self.source, b.mul(b.mul(index, self.after), dtype.itemsize))
        bits = b.load(kind, place, dtype.itemsize)
        sign = -(1 << (width - 1))
        if dtype.is_floating_point:
            # Negative numbers count down as bits; both zeros are one key; every NaN is the last.
            infinity = {dtypes.float16: 0x7C00, dtypes.bfloat16: 0x7F80, dtypes.float32: 0x7F800000,
                        dtypes.float64: 0x7FF0000000000000}[dtype]
            magnitude = b.value(f"and {kind} {bits}, {(1 << (width - 1)) - 1}")
            zero = b.value(f"icmp eq {kind} {magnitude}, 0")
            bits = b.choose(zero, 0, bits, kind)
            spread = b.value(f"ashr {kind} {bits}, {width - 1}")
            flips = b.value(f"or {kind} {spread}, {sign}")
            bits = b.value(f"xor {kind} {bits}, {flips}")
            bits = b.choose(b.value(f"icmp ugt {kind} {magnitude}, {infinity}"), -1, bits, kind)
        elif dtype.signed:
            bits = b.value(f"xor {kind} {bits}, {sign}")
        if self.descending:
            bits = b.value(f"xor {kind} {bits}, -1")
        return bits if width == 64 else b.value(f"zext {kind} {bits} to i64")

    def _key_at(self, list_at: Integer, index: Integer) -> str:
        return self.b.offset("%scratch", self.b.add(list_at, self.b.mul(index, 8)))

    def _position_at(self, list_at: Integer, index: Integer) -> str:
        return self._key_at(self.b.add(list_at, self.b.mul(self.count, 8)), index)

    def _deliver(self, list_at: Integer) -> None:
        b = self.b
        with looping(b, 0, self.wanted) as index:
            position = b.load("i64", self._position_at(list_at, index), 8)
            b.store("i64", position, b.offset(self.target, b.mul(b.mul(index, self.after), 8)), 8)

    # A few ------------------------------------------------------------------------------------------------------
    def insert(self) -> None:
        """Keeps the first `wanted` of the elements seen so far, sorted."""
        b = self.b
        b.when(b.compare("sgt", self.wanted, 0), self._insert_all)

    def _insert_all(self) -> None:
        b = self.b
        loop = b.begin_loop(0, self.count, carried=[("i64", 0)])
        (held,) = loop.carried
        key = self.key(loop.index)
        full = b.compare("sge", held, self.wanted)
        worst_at = b.choose(full, b.sub(self.wanted, 1), 0)
        worst = b.load("i64", self._key_at(0, worst_at), 8)
        worse = b.value(f"icmp uge i64 {key}, {worst}")
        kept = b.value(f"xor i1 {b.value(f'and i1 {full}, {worse}')}, true")
        b.when(kept, lambda: self._insert_one(key, loop.index, b.choose(full, b.sub(held, 1), held)))
        b.end_loop(loop, [b.choose(full, held, b.add(held, 1))])
        self._deliver(0)

    def _insert_one(self, key: str, position: str, held: Integer) -> None:
        """Behind all that are not greater among the first `held`; those greater move up."""
        b = self.b
        counting = b.begin_loop(0, held, carried=[("i64", 0)])
        here = b.load("i64", self._key_at(0, counting.index), 8)
        before = b.value(f"zext i1 {b.value(f'icmp ule i64 {here}, {key}')} to i64")
        (place,) = b.end_loop(counting, [b.add(counting.carried[0], before)])
        with looping(b, 0, b.sub(held, place)) as step:
            lower = b.sub(b.sub(held, step), 1)
            upper = b.add(lower, 1)
            for at in (self._key_at, self._position_at):
                b.store("i64", b.load("i64", at(0, lower), 8), at(0, upper), 8)
        b.store("i64", key, self._key_at(0, place), 8)
        b.store("i64", position, self._position_at(0, place), 8)

    # Many -------------------------------------------------------------------------------------------------------
    def distribute(self) -> None:
        """Radix sort from the lowest eight bits up; bits that are the same everywhere are passed over."""
        b = self.b
        passes = self.dtype.itemsize
        tables = b.mul(self.list_bytes, 2)
        present = b.hoisted("alloca i64, align 8")
        with looping(b, 0, BINS * passes) as entry:
            b.store("i64", 0, self._key_at(tables, entry), 8)
        with looping(b, 0, self.count) as index:
            key = self.key(index)
            b.store("i64", key, self._key_at(0, index), 8)
            b.store("i64", index, self._position_at(0, index), 8)
            for number in range(passes):
                place = self._key_at(b.add(tables, 8 * BINS * number), _digit(self, key, number))
                b.store("i64", b.add(b.load("i64", place, 8), 1), place, 8)
        b.store("i64", 0, present, 8)
        first = b.load("i64", self._key_at(0, 0), 8)
        for number in range(passes):
            table = b.add(tables, 8 * BINS * number)
            alike = b.load("i64", self._key_at(table, _digit(self, first, number)), 8)
            b.when(b.compare("ne", alike, self.count), lambda table=table, number=number: self._pass(  # type: ignore[misc]
                present, table, number))
        self._deliver(b.load("i64", present, 8))

    def _pass(self, present: str, table: Integer, number: int) -> None:
        b = self.b
        starts = b.begin_loop(0, BINS, carried=[("i64", 0)])
        place = self._key_at(table, starts.index)
        size = b.load("i64", place, 8)
        b.store("i64", starts.carried[0], place, 8)
        b.end_loop(starts, [b.add(starts.carried[0], size)])
        source = b.load("i64", present, 8)
        target = b.sub(self.list_bytes, source)
        with looping(b, 0, self.count) as index:
            key = b.load("i64", self._key_at(source, index), 8)
            entry = self._key_at(table, _digit(self, key, number))
            free = b.load("i64", entry, 8)
            b.store("i64", b.add(free, 1), entry, 8)
            b.store("i64", key, self._key_at(target, free), 8)
            b.store("i64", b.load("i64", self._position_at(source, index), 8), self._position_at(target, free), 8)
        b.store("i64", target, present, 8)


def _digit(row: _Row, key: str, number: int) -> str:
    b = row.b
    shifted = key if not number else b.value(f"lshr i64 {key}, {8 * number}")
    return b.value(f"and i64 {shifted}, {BINS - 1}")
