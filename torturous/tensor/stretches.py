"""Remembered stretches: the gradient rows that a walk over some rows of a tape has appended.

Gradient rules see structure only (rows, types, which rows are tracked), so the same stretch, walked with
adjoints at the same rows and into a pending record of the same length, appends the same rows: these are kept
and appended again as they are. Numbers that came along as slots, saved values and places are taken from the
tape at hand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torturous.ir.prefix import Prefix, tree
from torturous.ir.record import Record, context
from torturous.tensor.tape import AGAIN, check_version, enter_saved

if TYPE_CHECKING:
    from torturous.tensor.backward import Backward

ROWS_KEPT = 1 << 15
"""Rows remembered in all; the longest unused stretches are forgotten first."""

Pairs = list[tuple[int, int]]

_known: OrderedDict[tuple, Stretch] = OrderedDict()
_seen: dict[int, None] = {}
"""Hashes of stretches walked once: only what comes again is worth remembering."""
_rows_kept = 0
tree.tables += [_known, _seen]


class Stretch:
    """One walk over one tape: being written down during the first walk, replayed in later ones."""

    def __init__(self, key: tuple, keep: bool) -> None:
        self.key = key
        self.keep = keep
        self.known = False
        pending = context.record
        self.first_row = len(pending)
        self.first_slot = len(pending.slots)
        self.end: Prefix = pending.end
        """All rows of the pending record once those of the stretch are appended."""
        self.moved = False
        """Whether rows were appended for other places than those that their prefixes know."""
        self.slots: list[bool | int | float] = []
        self.origins: list[int] = []
        """Per appended row, the tape's row it was appended for."""
        self.copies: list[tuple[int, int]] = []
        """Appended slots that repeat a slot of the tape: position among the appended, ordinal in the tape."""
        self.entries: list[tuple[int, int]] = []
        """Appended leaves: their row, and the tape's row whose saved value they are."""
        self.reads: list[tuple[int, str]] = []
        """Rows whose values were read, with the op that did."""
        self.outgoing: list[tuple[int, int]] = []
        self.captured: list[tuple[int, int]] = []
        self.visited: list[int] = []

    # Writing down
    # ----------------------------------------------------------------------------------------------
    def note(self, index: int) -> None:
        """All rows appended since the last call belong to this row of the tape."""
        self.origins += [index] * (len(context.record) - self.first_row - len(self.origins))

    def copied(self, operand: int, ordinal: int) -> None:
        self.copies.append(((~operand >> 2) - self.first_slot, ordinal))

    def entered(self, row: int, index: int) -> None:
        self.entries.append((row, index))

    def read(self, index: int, name: str) -> None:
        self.reads.append((index, name))

    def remember(self, pending: Record, visited: list[int], outgoing: list[tuple[int, int]],
                 captured: list[tuple[int, int]]) -> None:
        """Keeps what the walk has appended, for the next walk over such a stretch."""
        global _rows_kept
        if not self.keep:
            return
        self.end = pending.end
        self.moved = any(row >= self.first_row for row in pending.moved)
        self.slots = pending.slots[self.first_slot:]
        self.visited, self.outgoing, self.captured = visited, list(outgoing), captured
        self.reads = list(dict.fromkeys(self.reads))
        self.known = True
        if not _known:
            _rows_kept = 0
        _known[self.key] = self
        _rows_kept += len(self.origins)
        while _rows_kept > ROWS_KEPT:
            _, forgotten = _known.popitem(last=False)
            _rows_kept -= len(forgotten.origins)

    # Again
    # -----------------------------------------------------------------------------------------------------
    def replay(self, run: Backward, tape: Record) -> tuple[list[int], Pairs, Pairs]:
        """Appends the rows; gives the rows visited, the gradients that leave the tape, and those of
        targets."""
        pending = context.record
        freed = tape.freed
        if freed and any(index < len(freed) and freed[index] and tape.fails_again(index) for index in self.visited):
            raise RuntimeError(AGAIN)
        if tape.versions:
            for index, name in self.reads:
                check_version(tape, index, name)
        if self.moved or tape.moved:
            self._place(pending, tape)
        pending.end = self.end
        pending.slots += self.slots
        for position, ordinal in self.copies:
            pending.slots[self.first_slot + position] = tape.slots[ordinal]
        for row, index in self.entries:
            enter_saved(tape, index, run.create_graph, row)
        return self.visited, list(self.outgoing), self.captured

    def _place(self, pending: Record, tape: Record) -> None:
        """Says which rows belong to other places than their prefixes know."""
        places = tape.places
        for prefix, origin in zip(self.end.since(self.first_row), self.origins, strict=True):
            if prefix.place is not places[origin]:
                pending.moved[prefix.index] = places[origin]


def remembered(
    tape: Record, high: int, adjoints: Mapping[int, int], create_graph: bool,
    nodes: Mapping[int, list[int]] | None, useful: bytearray | None,
) -> Stretch:
    """The stretch for a walk over the rows 0 … high of a tape: a known one, or a new one to write down."""
    pending = context.record
    key = (
        tape.end.until(high + 1), tuple(index for index in tape.sources if index <= high),
        tuple(sorted(adjoints.items())), tape is pending, pending.end, len(pending.slots), create_graph,
        None if nodes is None else tuple((index, tuple(positions)) for index, positions in nodes.items()),
        None if useful is None else bytes(useful),
    )
    known = _known.get(key)
    if known is not None:
        _known.move_to_end(key)
        return known
    mark = hash(key)
    keep = mark in _seen
    if not keep:
        if len(_seen) > ROWS_KEPT:
            _seen.clear()
        _seen[mark] = None
    return Stretch(key, keep)
