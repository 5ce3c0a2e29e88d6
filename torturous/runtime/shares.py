"""How a kernel's work is shared out among workers: what an item takes, and how many items make a piece.

Both are arguments of the kernel and change no result. The model here chooses them for the sizes at hand; `tuning`
measures alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, prod

from torturous.codegen.kernels import Generated
from torturous.compiler.sizes import Size

GRAIN = 1 << 15
"""Rough machine operations per piece: what makes handing work to another thread worth while."""
ITEM_COST = 1 << 20
ENOUGH_ITEMS = 8
"""What is divided is divided further while there are fewer items, and their cost allows."""
HANDING_OVER = 1 << 18
"""What it costs that other threads take part at all, in rough machine operations."""
LATE = 8
"""One thread in so many is held up by half an item."""
MOST_MORE = 7
"""Extents are divided into at most so many parts more than they must be."""
MOST_PIECES = 64
MOST_PREPARING = 16
"""Pieces per kernel at most; fewer where every piece, and not every item, first prepares its scratch memory."""

GRANULE = -1
"""Stands for the granule among a kernel's shares, where groups have numbers from 0."""

Evaluate = Callable[[Size], int]


@dataclass(frozen=True)
class Shares:
    """How a kernel's work is shared out, for given sizes."""

    granule: int
    """Items per piece."""
    pieces: int
    groups: tuple[int, ...]
    """How much of each divided extent an item takes."""
    cost: int
    """The kernel's rough cost."""


def share_out(kernel: Generated, evaluate: Evaluate, threads: int | None = None) -> Shares:
    """Large items, but enough of them for all workers, whose number may not be known; then pieces that are worth
    handing over."""
    work = kernel.work
    units = _units(kernel, evaluate)
    least = [-(-have // (part.most // part.unit)) for have, part in zip(units, work.divided, strict=True)]
    if threads is not None and work.preparing.constant != 0 and evaluate(work.outer) * prod(units):
        counts = _balanced(kernel, evaluate, units, least, threads)
    else:
        counts = _halved(kernel, evaluate, units, least)
        if threads is not None:
            _even_out(kernel, evaluate, units, counts, threads)
    taken = [max(1, -(-have // max(count, 1))) for have, count in zip(units, counts, strict=True)]
    return shared(kernel, evaluate, taken)


def _halved(kernel: Generated, evaluate: Evaluate, units: Sequence[int], least: Sequence[int]) -> list[int]:
    """Into how many parts to divide each extent where more items cost nothing."""
    work, counts = kernel.work, list(least)
    outer, cost = evaluate(work.outer), evaluate(work.cost)
    free = [number for number, part in enumerate(work.divided) if part.unit < part.most]
    wanted = min(ENOUGH_ITEMS, outer * cost // ITEM_COST)
    while outer * prod(counts) < wanted:
        # Halves what makes the largest items along its extent.
        large = [number for number in free if counts[number] < units[number]]
        if not large:
            break
        number = max(large, key=lambda n: -(-units[n] // counts[n]) * work.divided[n].unit)
        counts[number] = -(-units[number] // max(1, units[number] // counts[number] // 2))
    return counts


def _even_out(kernel: Generated, evaluate: Evaluate, units: Sequence[int], counts: list[int], threads: int) -> None:
    """Divides an extent a little further where a few large items are not as many for each thread."""
    work = kernel.work
    outer = evaluate(work.outer)
    items = outer * prod(counts)
    if not 0 < items < ENOUGH_ITEMS * threads or outer * evaluate(work.cost) // items < HANDING_OVER:
        return
    for number, part in enumerate(work.divided):
        if part.unit == part.most:
            continue
        others = items // counts[number]
        for count in range(counts[number], min(units[number], threads * counts[number]) + 1):
            parts = -(-units[number] // -(-units[number] // count))
            if others * parts % threads == 0:
                counts[number] = count
                return


def _balanced(kernel: Generated, evaluate: Evaluate, units: Sequence[int], least: Sequence[int], threads: int
              ) -> list[int]:
    """The same where every item has to prepare something: as even as possible for so many threads, with few items."""
    work = kernel.work
    outer, cost, preparing = evaluate(work.outer), evaluate(work.cost), evaluate(work.preparing)
    per_unit = cost / prod(evaluate(part.extent) / part.unit for part in work.divided)
    """Of a whole one: what is left over costs as much as what it is computed with."""
    ways: list[list[tuple[int, float, int, int]]] = []
    """Of each extent: into how many parts to divide it, the largest one's units, how many these make, what they
    prepare."""
    for have, fewest, part in zip(units, least, work.divided, strict=True):
        of_taken: dict[int, tuple[int, float, int, int]] = {}
        whole: float = have
        if part.step:
            whole = -(-evaluate(part.extent) // part.step) * part.step / part.unit
        for count in range(fewest, min(have, fewest + MOST_MORE) + 1):
            taken = -(-have // count)
            of_taken.setdefault(taken, (
                count, min(taken, whole), -(-have // taken), taken * part.unit * part.weight))
        ways.append(list(of_taken.values()))
    best, shortest = list(least), inf
    for together in product(*ways):
        items, size, prepared = outer, 1.0, 0
        for _, largest, parts, prepares in together:
            items, size, prepared = items * parts, size * largest, prepared + prepares
        each = per_unit * size + preparing * prepared
        span = -(-items // threads) * each + each / threads / LATE + (HANDING_OVER if items > 1 else 0)
        if span < shortest:
            best, shortest = [count for count, *_ in together], span
    return best


def shared(kernel: Generated, evaluate: Evaluate, taken: Sequence[int], granule: int | None = None) -> Shares:
    """Shares with items that take so many units of each divided extent; `granule` by default what is worth handing
    over."""
    units = _units(kernel, evaluate)
    parts = prod(-(-have // units_taken) for have, units_taken in zip(units, taken, strict=True))
    items = evaluate(kernel.work.outer) * parts
    per_item = max(1, evaluate(kernel.work.cost) // max(parts, 1))
    if granule is None:
        granule = max(1, GRAIN // per_item, -(-items // most_pieces(kernel)))
    groups = tuple(count * part.unit for count, part in zip(taken, kernel.work.divided, strict=True))
    return Shares(granule, -(-items // granule), groups, items * per_item)


def most_pieces(kernel: Generated) -> int:
    """Pieces of a kernel at most."""
    return MOST_PIECES if kernel.scratch.constant == 0 or kernel.work.preparing.constant != 0 else MOST_PREPARING


def evened(level: Sequence[Shares]) -> list[Shares]:
    """Shares of kernels that run side by side: no piece is much smaller than the largest one, where there are others to
    join it with. Threads claim pieces by number (see `codegen.driver`), so these should be about the same."""
    least = max((shares.cost // max(shares.pieces, 1) for shares in level), default=0) // 2
    found = []
    for shares in level:
        joined = min(shares.pieces, least * shares.pieces // max(shares.cost, 1))
        if joined > 1:
            shares = replace(shares, granule=shares.granule * joined, pieces=-(-shares.pieces // joined))
        found.append(shares)
    return found


def arranged(level: Sequence[Shares]) -> list[int]:
    """The order of a level's kernels: those with large pieces first and last, where threads begin, and those with small
    ones in the middle, where they meet."""
    falling = sorted(range(len(level)), key=lambda order: -level[order].cost / max(level[order].pieces, 1))
    return [*falling[::2], *reversed(falling[1::2])]


def other_groups(kernel: Generated, evaluate: Evaluate) -> Iterator[Shares]:
    """All that items may take, in powers of two and at most: with the granule that goes with each."""
    choices = []
    for have, part in zip(_units(kernel, evaluate), kernel.work.divided, strict=True):
        most = max(1, min(have, part.most // part.unit))
        doubling = {min(1 << power, most) for power in range(most.bit_length() + 1)}
        choices.append(sorted(doubling) if part.unit < part.most else [part.most // part.unit])
    for taken in product(*choices):
        yield shared(kernel, evaluate, taken)


def other_granules(kernel: Generated, evaluate: Evaluate, shares: Shares) -> Iterator[Shares]:
    """The same items in pieces of a quarter to four times as many."""
    taken = [group // part.unit for group, part in zip(shares.groups, kernel.work.divided, strict=True)]
    for quarters in (1, 2, 8, 16):
        yield shared(kernel, evaluate, taken, max(1, shares.granule * quarters // 4))


def _units(kernel: Generated, evaluate: Evaluate) -> list[int]:
    return [-(-evaluate(part.extent) // part.unit) for part in kernel.work.divided]
