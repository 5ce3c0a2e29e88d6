"""Levels are divided evenly by threads that claim pieces by number."""
from __future__ import annotations

import numpy as np
import pytest

from torturous.codegen.kernels import Generated
from torturous.codegen.loops import Divided, Work
from torturous.compiler.sizes import ONE, ZERO, Size
from torturous.runtime.shares import Shares, arranged, evened, share_out


def random_level(random: np.random.Generator) -> list[Shares]:
    level = []
    for _ in range(int(random.integers(1, 8))):
        items = int(random.integers(1, 200))
        granule = -(-items // 64)
        level.append(Shares(granule, -(-items // granule), (), items * int(10 ** random.uniform(0, 6))))
    return level


def time_taken(level: list[Shares], threads: int) -> float:
    """By the driver's rule: a part of what is left, from the front for the first thread, from the back for others."""
    pieces = [level[order].cost / level[order].pieces for order in arranged(level) for _ in range(level[order].pieces)]
    clocks = [0.0] * threads
    while pieces:
        who = clocks.index(min(clocks))
        count = -(-len(pieces) // (2 * threads))
        mine, pieces = (pieces[:count], pieces[count:]) if who == 0 else (pieces[-count:], pieces[:-count])
        clocks[who] += sum(mine)
    return max(clocks)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_no_thread_waits_for_long(threads: int) -> None:
    random = np.random.default_rng(threads)
    for _ in range(300):
        level = evened(random_level(random))
        total = sum(shares.cost for shares in level)
        largest = max(shares.cost / shares.pieces for shares in level)
        assert time_taken(level, threads) <= 1.1 * total / threads + largest, level


def test_pieces_hold_all_items_and_none_is_much_smaller_than_the_largest() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        level = random_level(random)
        found = evened(level)
        largest = max(shares.cost / shares.pieces for shares in level)
        for before, after in zip(level, found, strict=True):
            assert after.cost == before.cost and after.groups == before.groups
            assert after.granule * after.pieces >= before.granule * (before.pieces - 1) + 1
            assert after.granule * (after.pieces - 1) < before.granule * before.pieces
            assert after.pieces == 1 or after.cost / after.pieces >= largest / 5
        assert sorted(arranged(found)) == list(range(len(found)))


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_few_items_are_as_many_for_each_thread_where_that_costs_nothing(threads: int) -> None:
    for columns in (192, 320, 768, 1280):
        work = Work(ONE, (Divided(Size.of(columns), 16, 256),), Size.of(columns << 13))
        shares = share_out(Generated("k", "", (), work, ZERO), lambda size: size.constant or 0, threads)
        taken = -(-columns // shares.groups[0])
        assert taken % threads == 0 or taken >= 8 * threads or taken * 16 >= columns
