"""How a kernel's work is shared out among workers (`runtime.shares`), as instructions where it depends on the batch."""

from __future__ import annotations

from collections.abc import Callable

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated
from torturous.codegen.table import PIECES
from torturous.codegen.target import Target
from torturous.compiler.sizes import Size
from torturous.runtime.shares import ENOUGH_ITEMS, GRAIN, ITEM_COST, most_pieces, share_out

MOST_FREE = 2
"""Extents that may be divided in several ways."""
PLACE_BITS = 16
"""Of a word's place in a kernel's table of arguments."""


def write_shares(
    b: Builder, kernel: Generated, size: Callable[[Size], Integer], name: str, entry: str, words: str
) -> list[int]:
    """Writes what `share_out` gives into a kernel's entry and its table of arguments; gives the places of the words
    that are written there. `size` writes a size of the plan; `name` prefixes the function of `sharing`."""
    work = kernel.work
    granule = kernel.arguments.index(Argument("granule"))
    groups = {argument.what: place for place, argument in enumerate(kernel.arguments) if argument.kind == "group"}
    sizes = [work.outer, work.cost, kernel.scratch, *(part.extent for part in work.divided)]
    known = {each: value for each in sizes if isinstance(value := size(each), int)}
    if len(known) == len(set(sizes)):
        shares = share_out(kernel, known.__getitem__)
        for number, place in groups.items():
            b.store("i64", shares.groups[number], b.offset(words, 8 * place), 8)
        b.store("i64", shares.granule, b.offset(words, 8 * granule), 8)
        b.store("i64", shares.pieces, b.offset(entry, 8 * PIECES), 8)
        return [granule, *groups.values()]
    fixed: Integer = 1
    free: list[tuple[Integer, int, int]] = []
    places = granule
    for number, part in enumerate(work.divided):
        extent = size(part.extent)
        if part.unit == part.most:
            fixed = b.mul(fixed, b.ceil_div(extent, part.unit))
            continue
        # What has no place is written where the granule then goes.
        places |= groups.get(number, granule) << PLACE_BITS * (1 + len(free))
        free.append((extent, part.unit, part.most // part.unit))
    assert len(free) <= MOST_FREE, "more divided extents than `sharing` knows of"
    while len(free) < MOST_FREE:
        places |= granule << PLACE_BITS * (1 + len(free))
        free.append((1, 1, 1))
    numbers = [places, size(work.outer), fixed, size(work.cost), most_pieces(kernel)]
    numbers += [word for extent in free for word in extent]
    b.emit(f"call void @{name}_share_out(ptr {entry}, ptr {words}, {', '.join(f'i64 {number}' for number in numbers)})")
    return [granule, *groups.values()]


def sharing(target: Target, name: str) -> str:
    """The function `name_share_out(line, words, places, outer, fixed, cost, most, extent, unit, each, extent, unit,
    each)`: divides two extents, of which an item takes at most `each` units, so that there are as many items as wanted
    if the extents have enough units. Items are `outer` times `fixed` times as many."""
    b = Builder(target)
    free = range(MOST_FREE)
    units = [b.ceil_div(f"%extent{n}", f"%unit{n}") for n in free]
    places = [b.hoisted("alloca i64, align 8") for _ in free]
    look, choose, halve, done = (b.label(text) for text in ("look", "choose", "halve", "done"))
    for number, place in enumerate(places):
        b.store("i64", b.ceil_div(units[number], f"%each{number}"), place, 8)
    outer = b.mul("%outer", "%fixed")
    wanted = b.minimum(ENOUGH_ITEMS, b.div(b.mul("%outer", "%cost"), ITEM_COST))
    b.emit(f"br label %{look}")
    b.start_block(look)
    counts = [b.load("i64", place, 8) for place in places]
    enough = b.compare("uge", b.mul(b.mul(outer, counts[0]), counts[1]), wanted)
    b.emit(f"br i1 {enough}, label %{done}, label %{choose}")
    b.start_block(choose)
    able = [b.compare("ult", count, have) for count, have in zip(counts, units, strict=True)]
    b.emit(f"br i1 {b.value(f'or i1 {able[0]}, {able[1]}')}, label %{halve}, label %{done}")
    b.start_block(halve)
    # Halves what makes the largest items along its extent.
    sizes = [b.mul(b.ceil_div(units[n], b.maximum(counts[n], 1)), f"%unit{n}") for n in free]
    larger = b.value(f"and i1 {able[1]}, {b.compare('ugt', sizes[1], sizes[0])}")
    second = b.value(f"select i1 {able[0]}, i1 {larger}, i1 true")
    have, count = b.choose(second, units[1], units[0]), b.choose(second, counts[1], counts[0])
    half = b.div(b.div(have, b.maximum(count, 1)), 2)
    b.store("i64", b.ceil_div(have, b.maximum(half, 1)), b.choose(second, places[1], places[0], "ptr"), 8)
    b.emit(f"br label %{look}")
    b.start_block(done)
    parts: Integer = "%fixed"
    for number in free:
        taken = b.maximum(1, b.ceil_div(units[number], b.maximum(counts[number], 1)))
        parts = b.mul(parts, b.ceil_div(units[number], taken))
        _store_word(b, PLACE_BITS * (1 + number), b.mul(taken, f"%unit{number}"))
    items = b.mul("%outer", parts)
    per_item = b.maximum(1, b.div("%cost", b.maximum(parts, 1)))
    granule = b.maximum(b.maximum(1, b.div(GRAIN, per_item)), b.ceil_div(items, "%most"))
    _store_word(b, 0, granule)
    b.store("i64", b.ceil_div(items, granule), b.offset("%line", 8 * PIECES), 8)
    numbers = ["places", "outer", "fixed", "cost", "most"]
    numbers += [f"{what}{number}" for number in free for what in ("extent", "unit", "each")]
    parameters = ", ".join(["ptr %line", "ptr %words", *(f"i64 %{number}" for number in numbers)])
    body = "\n".join(["entry:", *b.prologue, *b.lines, "  ret void"])
    return f"define internal void @{name}_share_out({parameters}) #0 {{\n{body}\n}}\n"


def _store_word(b: Builder, bit: int, word: Integer) -> None:
    """Into the table of arguments, where `%places` says from a bit on."""
    shifted = b.value(f"lshr i64 %places, {bit}")
    place = b.value(f"and i64 {shifted}, {(1 << PLACE_BITS) - 1}")
    b.store("i64", word, b.offset("%words", b.mul(place, 8)), 8)
