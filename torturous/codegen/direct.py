"""Lanes read where they lie: no packing where a panel's lanes are consecutive elements.

Every product is then one vector load at an offset from the panel's first element. Offsets of all products come
from a table. Where a convolution reaches over the border, a product exists for a panel or it does not (lanes are
samples, which share their pixel): products that do not exist are left out of the panel's list.
"""

from __future__ import annotations

from torturous.codegen.builder import Integer, looping
from torturous.codegen.panels import Side, Tile
from torturous.compiler.sizes import product
from torturous.ir.contraction import BLOCK


class DirectLanes:
    """The tables behind direct reading, in scratch memory: see the module's text.

    Layout: offset of every product in bytes; per guard, the products' part of its position; then the present
    panel's list of pairs (offset in bytes, product's place in a row panel in bytes), and where each block ends in it.
    """

    def __init__(self, side: Side, tile: Tile, products: int) -> None:
        self.side = side
        self.tile = tile
        self.products = products
        self.guards = side.load.guards
        self.blocks = -(-products // BLOCK)
        self.list_at = 8 * products * (1 + len(self.guards))
        self.ends_at = self.list_at + (16 * (products + 1) if self.guards else 0)
        self.table_bytes = -(-(self.ends_at + 8 * (self.blocks + 1)) // 64) * 64

    @staticmethod
    def possible(side: Side, tile: Tile) -> bool:
        """Whether all panels are full, contiguous, need no conversion, and see guards as one."""
        own = side.own
        if side.load.dtype is not side.dtype or not own.strides or own.strides[-1] != 1:
            return False
        run = own.sizes[-1].constant
        if run is None or run % tile.lanes or own.count.constant is None:
            return False
        return all(side.uniform(guard.position) for guard in side.load.guards)

    def write_tables(self, scratch: str) -> None:
        """Fills the tables, counting the products' loops as nested loops."""
        side = self.side
        b, w = side.b, side.writer
        kernel = w.kernel
        first = len(kernel.axes)
        sizes = [w.size(size) for size in kernel.reduced]
        forms = [(side.load.address, side.item)] + [(guard.position, 1) for guard in self.guards]

        def level(position: int, values: list[Integer], flat: Integer) -> None:
            if position == len(sizes):
                for table, value in enumerate(values):
                    b.store("i64", value, b.offset(scratch, b.mul(b.add(flat, table * self.products), 8)), 8)
                return
            inner = w.size(product(kernel.reduced[position + 1:]))
            with looping(b, 0, sizes[position]) as index:
                here = [
                    b.add(value, b.mul(index, b.mul(w.size(form.factor(first + position)), scale)))
                    for value, (form, scale) in zip(values, forms, strict=True)
                ]
                level(position + 1, here, b.add(flat, b.mul(index, inner)))

        level(0, [0] * len(forms), 0)

    def select(self, scratch: str, flat: Integer) -> None:
        """Lists the products that exist for the panel at a flat place."""
        if not self.guards:
            return
        side = self.side
        b, w = side.b, side.writer
        bases = [side.position(guard.position, flat) for guard in self.guards]
        extents = [w.size(guard.extent) for guard in self.guards]
        count: Integer = 0
        for block in range(self.blocks):
            stop = min((block + 1) * BLOCK, self.products)
            loop = b.begin_loop(block * BLOCK, stop, 1, [("i64", count)])
            k, have = loop.index, loop.carried[0]
            exists = None
            for number, (base, extent) in enumerate(zip(bases, extents, strict=True)):
                place = b.offset(scratch, b.mul(b.add(k, (1 + number) * self.products), 8))
                test = b.compare("ult", b.add(base, b.load("i64", place, 8)), extent)
                exists = test if exists is None else b.value(f"and i1 {exists}, {test}")
            offset = b.load("i64", b.offset(scratch, b.mul(k, 8)), 8)
            entry = b.offset(scratch, b.add(b.mul(have, 16), self.list_at))
            b.store("i64", offset, entry, 8)
            b.store("i64", b.mul(b.sub(k, block * BLOCK), side.dtype.itemsize), b.offset(entry, 8), 8)
            one = b.value(f"zext i1 {exists} to i64")
            count = b.end_loop(loop, [b.add(have, one)])[0]
            b.store("i64", count, b.offset(scratch, self.ends_at + 8 * block), 8)

    def entries(self, scratch: str, block: int) -> tuple[Integer, Integer]:
        """The range of a block's products: places in the list, or the products themselves."""
        b = self.side.b
        if not self.guards:
            return block * BLOCK, min((block + 1) * BLOCK, self.products)
        first: Integer = 0
        if block:
            first = b.load("i64", b.offset(scratch, self.ends_at + 8 * (block - 1)), 8)
        return first, b.load("i64", b.offset(scratch, self.ends_at + 8 * block), 8)

    def entry(self, scratch: str, index: str, block: int) -> tuple[Integer, Integer]:
        """Offset of a product's line, and its place in a row panel, both in bytes."""
        b = self.side.b
        if not self.guards:
            offset = b.load("i64", b.offset(scratch, b.mul(index, 8)), 8)
            return offset, b.mul(b.sub(index, block * BLOCK), self.side.dtype.itemsize)
        place = b.offset(scratch, b.add(b.mul(index, 16), self.list_at))
        return b.load("i64", place, 8), b.load("i64", b.offset(place, 8), 8)

