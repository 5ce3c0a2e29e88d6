"""How a kernel's work is shared out among workers (`runtime.shares`), as instructions where it depends on the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.kernels import Generated
from torturous.codegen.target import Target
from torturous.compiler.sizes import Size
from torturous.runtime.shares import ENOUGH_ITEMS, GRAIN, ITEM_COST, most_pieces, share_out


@dataclass(frozen=True)
class SharedOut:
    """`runtime.shares.Shares`, as integers or values of a function being written."""

    granule: Integer
    pieces: Integer
    groups: tuple[Integer, ...]


def shared_out(b: Builder, kernel: Generated, size: Callable[[Size], Integer], name: str) -> SharedOut:
    """What `share_out` gives. `size` writes a size of the plan; `name` prefixes the function of `dividing`."""
    work = kernel.work
    sizes = [work.outer, work.cost, kernel.scratch, *(part.extent for part in work.divided)]
    known = {each: value for each in sizes if isinstance(value := size(each), int)}
    if len(known) == len(set(sizes)):
        shares = share_out(kernel, known.__getitem__)
        return SharedOut(shares.granule, shares.pieces, shares.groups)
    units = [b.ceil_div(size(part.extent), part.unit) for part in work.divided]
    counts = [b.ceil_div(have, part.most // part.unit) for have, part in zip(units, work.divided, strict=True)]
    free = [number for number, part in enumerate(work.divided) if part.unit < part.most]
    outer, cost = size(work.outer), size(work.cost)
    if free:
        assert len(free) <= 2, "more divided extents than `dividing` knows of"
        rest = outer
        for number, count in enumerate(counts):
            rest = rest if number in free else b.mul(rest, count)
        wanted = b.minimum(ENOUGH_ITEMS, b.div(b.mul(outer, cost), ITEM_COST))
        extents = [(units[number], counts[number], work.divided[number].unit) for number in free]
        words = [rest, wanted, *(word for extent in [*extents, (1, 1, 0)][:2] for word in extent)]
        divided = b.value(f"call {{ i64, i64 }} @{name}_divided({', '.join(f'i64 {word}' for word in words)})")
        for position, number in enumerate(free):
            counts[number] = b.value(f"extractvalue {{ i64, i64 }} {divided}, {position}")
    taken = [b.maximum(1, b.ceil_div(have, b.maximum(count, 1))) for have, count in zip(units, counts, strict=True)]
    parts: Integer = 1
    for have, each in zip(units, taken, strict=True):
        parts = b.mul(parts, b.ceil_div(have, each))
    items = b.mul(outer, parts)
    per_item = b.maximum(1, b.div(cost, b.maximum(parts, 1)))
    granule = b.maximum(b.maximum(1, b.div(GRAIN, per_item)), b.ceil_div(items, most_pieces(kernel)))
    groups = tuple(b.mul(each, part.unit) for each, part in zip(taken, work.divided, strict=True))
    return SharedOut(granule, b.ceil_div(items, granule), groups)


def dividing(target: Target, name: str) -> str:
    """The function `{ i64, i64 } name_divided(outer, wanted, units, count, unit, units, count, unit)`: into how many
    parts two extents are divided, so that there are as many items as wanted, if the extents have enough units."""
    b = Builder(target)
    units, unit = ("%units0", "%units1"), ("%unit0", "%unit1")
    places = [b.hoisted("alloca i64, align 8") for _ in range(2)]
    look, choose, halve, done = (b.label(text) for text in ("look", "choose", "halve", "done"))
    for number, place in enumerate(places):
        b.store("i64", f"%count{number}", place, 8)
    b.emit(f"br label %{look}")
    b.start_block(look)
    counts = [b.load("i64", place, 8) for place in places]
    enough = b.compare("uge", b.mul(b.mul("%outer", counts[0]), counts[1]), "%wanted")
    b.emit(f"br i1 {enough}, label %{done}, label %{choose}")
    b.start_block(choose)
    able = [b.compare("ult", count, have) for count, have in zip(counts, units, strict=True)]
    b.emit(f"br i1 {b.value(f'or i1 {able[0]}, {able[1]}')}, label %{halve}, label %{done}")
    b.start_block(halve)
    # Halves what makes the largest items along its extent.
    sizes = [b.mul(b.ceil_div(have, b.maximum(count, 1)), each)
             for have, count, each in zip(units, counts, unit, strict=True)]
    larger = b.value(f"and i1 {able[1]}, {b.compare('ugt', sizes[1], sizes[0])}")
    second = b.value(f"select i1 {able[0]}, i1 {larger}, i1 true")
    have, count = b.choose(second, units[1], units[0]), b.choose(second, counts[1], counts[0])
    half = b.div(b.div(have, b.maximum(count, 1)), 2)
    b.store("i64", b.ceil_div(have, b.maximum(half, 1)), b.choose(second, places[1], places[0], "ptr"), 8)
    b.emit(f"br label %{look}")
    b.start_block(done)
    pair = b.value(f"insertvalue {{ i64, i64 }} undef, i64 {counts[0]}, 0")
    pair = b.value(f"insertvalue {{ i64, i64 }} {pair}, i64 {counts[1]}, 1")
    parameters = "i64 %outer, i64 %wanted, i64 %units0, i64 %count0, i64 %unit0, i64 %units1, i64 %count1, i64 %unit1"
    body = "\n".join(["entry:", *b.prologue, *b.lines, f"  ret {{ i64, i64 }} {pair}"])
    return f"define internal {{ i64, i64 }} @{name}_divided({parameters}) #0 {{\n{body}\n}}\n"
