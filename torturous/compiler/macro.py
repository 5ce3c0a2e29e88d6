"""What a macro's row expands into: worked out once for the types of its operands, and written wherever it stands.

An expansion sees of its operands nothing but types, and whether two are the same. So it is made beside the record, with
leaves for operands, and remembered; layers of a net repeat each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torturous.core import dtypes
from torturous.core.dtypes import Category
from torturous.ir.listing import Listing
from torturous.ir.op import OPS, TYPES, Attributes
from torturous.ir.record import LEAF, Place, Row, number_category, slot_category, slot_code, slot_ordinal
from torturous.ir.value import Value

MOST_REMEMBERED = 1 << 13
_PLACEHOLDERS: dict[Category, bool | int | float] = {
    Category.BOOL: False, Category.INTEGRAL: 0, Category.FLOATING: 0.0}


@dataclass(frozen=True)
class Expansion:
    """Rows whose operands are places in a table: of the macro's operands, then its own numbers, then its rows."""

    numbers: tuple[bool | int | float, ...]
    """Which become slots."""
    rows: tuple[tuple[Row, tuple[int, ...]], ...]
    """Op, attributes and type of each, and its operands."""
    results: tuple[int, ...]
    several: bool
    """Whether the macro gives a list of values."""

    def write(self, record: Listing, operands: Sequence[int], place: Place) -> list[int]:
        """Appends the rows; gives the rows or slots of the results."""
        slots, rows = record.slots, record.rows
        table = [*operands, *(slot_code(len(slots) + position, number_category(number))
                              for position, number in enumerate(self.numbers))]
        slots.extend(self.numbers)
        for head, positions in self.rows:
            table.append(len(rows))
            rows.append((*head, *[table[position] for position in positions]))
        record.places.extend([place] * len(self.rows))
        return [table[position] for position in self.results]


_expansions: dict[tuple, Expansion] = {}


def expansion(record: Listing, number: int, attributes: Attributes, type_index: int, operands: Sequence[int]
              ) -> Expansion:
    """The expansion of a macro with these operands in a record."""
    rows = record.rows
    kinds = tuple([rows[o][2] if o >= 0 else ~slot_category(o) for o in operands])
    same = None if len(set(operands)) == len(operands) else tuple(map(list(operands).index, operands))
    key = (number, attributes, type_index, kinds, same, dtypes.default_float().number)
    known = _expansions.get(key)
    if known is None:
        if len(_expansions) >= MOST_REMEMBERED:
            _expansions.clear()
        known = _expansions[key] = _make(number, attributes, type_index, kinds, same)
    return known


def _make(number: int, attributes: Attributes, type_index: int, kinds: tuple[int, ...], same: tuple[int, ...] | None
          ) -> Expansion:
    beside = Listing()
    operands: list[int] = []
    for position, kind in enumerate(kinds):
        if same is not None and same[position] < position:
            operands.append(operands[same[position]])
        elif kind >= 0:
            operands.append(beside.append((LEAF.number, (), kind), 0, None))
        else:
            operands.append(beside.slot(_PLACEHOLDERS[Category(~kind)]))
    leaves, given = len(beside.rows), len(beside.slots)
    expand = OPS[number].expand
    assert expand is not None
    made = expand(TYPES[type_index], attributes, *[Value(beside, operand, None, False) for operand in operands])
    results = made if isinstance(made, list) else [made]
    numbers = tuple(beside.slots[given:])
    position_of = dict(zip(reversed(operands), reversed(range(len(operands))), strict=True))

    def place(code: int) -> int:
        """In the table."""
        known = position_of.get(code)
        if known is not None:
            return known
        if code < 0:
            return len(operands) + slot_ordinal(code) - given
        return len(operands) + len(numbers) + code - leaves

    return Expansion(
        numbers, tuple((row[:3], tuple(map(place, row[3:]))) for row in beside.rows[leaves:]),
        tuple(place(value.index) for value in results), isinstance(made, list))
