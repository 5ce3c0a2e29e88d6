"""What is known of positions without looking at them: never too little, and forgotten when memory is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import torturous as torch
import torturous.nn.functional as F
from torturous.core import dtypes
from torturous.ir.bounds import bounds_of, every
from torturous.ir.record import context
from torturous.runtime.realize import realize

INTEGERS = (torch.int32, torch.int64, torch.uint8)
ONE: dict[str, Callable[[Any, int], Any]] = {
    "add": lambda t, n: t + n,
    "sub": lambda t, n: n - t,
    "mul": lambda t, n: t * n,
    "remainder": lambda t, n: t % (abs(n) + 1),
    "negative divisor": lambda t, n: t % -(abs(n) + 1),
    "clamp": lambda t, n: t.clamp(-abs(n), 3),
    "maximum": lambda t, n: torch.maximum(t, torch.full_like(t, n)),
    "minimum": lambda t, n: torch.minimum(t.flip(0), t),
    "where": lambda t, n: torch.where(t > n, t, n),
    "cast": lambda t, n: t.to(INTEGERS[n % 3]),
    "of bool": lambda t, n: (t > n).to(torch.int64),
    "slice": lambda t, n: t[n % 2::2] if t.shape[0] > 2 else t,
    "turned": lambda t, n: t.reshape(-1, 1).expand(-1, 2).transpose(0, 1).reshape(-1),
    "pad": lambda t, n: F.pad(t, (1, 1), value=n),
    "cat": lambda t, n: torch.cat([t, torch.arange(n, n + 2).to(t.dtype)]),
    "stack": lambda t, n: torch.stack([t, t + n]).flatten(),
    "argmax": lambda t, n: t.reshape(-1, 1).float().repeat(1, 3).argmax(n % 2),
    "order": lambda t, n: t.argsort(descending=n > 0),
    "running": lambda t, n: t.cummax(0).indices,
    "taken": lambda t, n: t[torch.arange(t.shape[0]) % 2],
    "gathered": lambda t, n: t.gather(0, t.argsort()),
    "written": lambda t, n: torch.cat([t, t]).index_fill_(0, torch.tensor([0]), n),
    "inserted": lambda t, n: torch.cat([t, t]).slice_scatter(t, 0, 1, 1 + t.shape[0]),
    "product": lambda t, n: t * t,
}


def pending_bounds(t: Any) -> Any:
    """The interval of a pending row, of which leaves nothing is known but what has been looked at."""
    def leaf(row: int) -> Any:
        known = context.record.values[row].bounds
        return None if known is None else known[:2]

    return bounds_of(context.record, t.row(), leaf)


@given(st.lists(st.integers(-5, 300), min_size=1, max_size=5), st.sampled_from(INTEGERS), st.booleans(),
       st.lists(st.tuples(st.sampled_from(sorted(ONE)), st.integers(-300, 300)), max_size=6))
def test_nothing_lies_outside_of_what_is_known(values: list[int], dtype: Any, looked_at: bool,
                                               steps: list[tuple[str, int]]) -> None:
    t = torch.tensor([v % 256 for v in values] if dtype is torch.uint8 else values, dtype=dtype)
    if looked_at and min(values) >= 0 and dtype is not torch.uint8:
        torch.arange(301)[t]
    for name, number in steps:
        t = ONE[name](t, number)
    low, high = pending_bounds(t)
    found = t.numpy().astype(np.int64)
    assert low <= found.min() and found.max() <= high


KNOWN: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "arange": (lambda: torch.arange(3, 12, 2), (3, 11)),
    "arange downwards": (lambda: torch.arange(5, -1, -1), (0, 5)),
    "nothing": (lambda: torch.arange(0) + 3, (3, 3)),
    "full": (lambda: torch.full((3,), 7), (7, 7)),
    "argmax": (lambda: torch.rand(4, 6).argmax(1), (0, 5)),
    "argmax of all": (lambda: torch.rand(4, 6).argmax().reshape(1), (0, 23)),
    "order": (lambda: torch.rand(9).argsort(), (0, 8)),
    "largest": (lambda: torch.rand(9).topk(2).indices, (0, 8)),
    "drawn": (lambda: torch.randint(-2, 7, (5,)), (-2, 6)),
    "clamped": (lambda: torch.rand(5).long().clamp(0, 4), (0, 4)),
    "remainder": (lambda: torch.rand(5).mul(100).long() % 11, (0, 10)),
    "joined": (lambda: torch.cat([torch.arange(4), torch.rand(2, 9).argmax(1)]), (0, 8)),
    "overflow": (lambda: torch.full((2,), 2**62) * 4, every(dtypes.int64)),
    "narrowed": (lambda: torch.full((2,), 300).to(torch.uint8), (0, 255)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_by_origin(name: str) -> None:
    make, expected = KNOWN[name]
    assert pending_bounds(make()) == expected


def test_chains_as_long_as_you_like() -> None:
    """What is far away is not looked for, and what is used twice is not looked at twice."""
    t = torch.arange(3)
    for _ in range(200):
        t = torch.minimum(t, t + 1)
    assert pending_bounds(t) == every(dtypes.int64)
    t = torch.arange(3)
    for _ in range(25):
        t = torch.minimum(t, t + 1)
    assert pending_bounds(t) == (0, 2)


def test_what_may_be_positions_keeps_its_bounds_when_it_is_computed() -> None:
    tokens = torch.tensor([[1, 4]])
    F.embedding(tokens, torch.rand(5, 3))
    for _ in range(3):
        tokens = torch.cat([tokens, torch.rand(1, 5).argmax(1, keepdim=True)], 1)
        realize()
        bounds = tokens.storage.buffer.bounds
        assert bounds is not None and bounds[:2] == (0, 4) and not bounds.exact


def test_too_wide_bounds_are_looked_at_again() -> None:
    """A position may be in range although what is known of its origin does not say so."""
    table = torch.arange(12.0).reshape(4, 3)
    positions = torch.cat([torch.eye(9)[:4].argmax(1), torch.zeros(9).argmax(0, keepdim=True)])
    realize()
    assert np.array_equal(F.embedding(positions, table)[:, 0].numpy(), [0, 3, 6, 9, 0])
    with pytest.raises(IndexError, match="from 0 to 3"):
        F.embedding(positions, table[:3])


def test_bounds_are_forgotten_when_memory_is_written() -> None:
    table = torch.rand(4, 3)
    positions = torch.tensor([0, 3])
    F.embedding(positions, table)
    positions.numpy()[1] = 4
    with pytest.raises(IndexError, match="from 0 to 4"):
        F.embedding(positions, table)
    positions[1] = 3
    F.embedding(positions, table).numpy()
    positions += 1
    with pytest.raises(IndexError, match="out of range"):
        F.embedding(positions, table).numpy()


def test_bounds_are_forgotten_when_a_plan_writes_over_them() -> None:
    """The next version of a tensor may lie where the one before lay."""
    table, positions = torch.rand(6, 3), torch.arange(20000) % 3
    for turn in range(8):
        if turn < 4:
            assert F.embedding(positions, table).shape == (20000, 3)
        else:
            with pytest.raises(IndexError, match=f"from {turn} to {turn + 2}"):
                F.embedding(positions, table)
        positions.add_((torch.rand(20000) + 1).long())
        realize()


def test_a_captured_call_knows_nothing_of_what_it_is_given() -> None:
    """Positions that were in range when the call was captured need not be the next time."""
    table = torch.rand(5, 3)
    call = torch.compile(lambda positions: F.embedding(positions, table.clone()).sum())
    for start in (0, 1, 2, 1, 0):
        call(torch.arange(start, start + 3)).item()
    with pytest.raises(IndexError):
        call(torch.arange(3, 6)).item()


def test_a_captured_call_knows_its_own_positions() -> None:
    table = torch.rand(5, 3)
    seen: list[float] = []

    def summed(table: Any) -> Any:
        seen.append(context.record.doubtful)
        result = F.embedding(torch.arange(5), table).sum() + table[table.argmax(0)].sum()
        seen.append(context.record.doubtful)
        return result

    call = torch.compile(summed)
    for _ in range(5):
        expected = table.numpy().sum() + table.numpy()[table.numpy().argmax(0)].sum()
        assert abs(call(table).item() - expected) < 1e-4
    assert not any(seen)


def test_what_was_made_of_values_before_they_were_written_over() -> None:
    """Of two results, one takes the place of what the other was made of."""
    written = torch.arange(5000)
    realize()
    for turn in range(4):
        before, most = written.sort().values, 1000 // (turn + 1)
        written.copy_(torch.where(before.max() > 0, written % most, written % 3))  # Read here, after all others.
        joined = torch.cat([before, before])
        del before
        realize()
        for t in (joined, written):
            bounds, values = t.storage.buffer.bounds, t.tolist()
            assert bounds is None or (bounds.least <= min(values) and max(values) <= bounds.greatest), turn
