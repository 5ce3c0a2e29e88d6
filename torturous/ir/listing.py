"""Rows written down one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torturous.ir.op import Attributes, Op
from torturous.ir.record import Place, Record, Row


class Listing(Record):
    """A record that is a list and no path in the tree of records: for what passes make, and nobody records again.

    No gradients flow through its rows.
    """

    __slots__ = ()

    @property
    def rows(self) -> list[Row]:
        return self._rows

    @property
    def tracked(self) -> bytearray:
        return bytearray(len(self._rows))

    @property
    def places(self) -> list[Place]:
        return self._places

    def __len__(self) -> int:
        return len(self._rows)

    def type_number_of(self, row: int) -> int:
        return int(self._rows[row][2])

    def append(self, row: Row, tracked: int, place: Place, owner: Any = None) -> int:
        self._rows.append(row)
        self._places.append(place)
        return len(self._rows) - 1

    def apply(self, op: Op, attributes: Attributes, operands: Sequence[int], place: Place, tracking: bool) -> int:
        return self.apply_typed(op, attributes, self._result_type(op, attributes, operands), operands, place, tracking)

    def apply_typed(
        self, op: Op, attributes: Attributes, type_index: int, operands: Sequence[int], place: Place, tracking: bool,
    ) -> int:
        return self.append((op.number, attributes, type_index, *operands), 0, place)
