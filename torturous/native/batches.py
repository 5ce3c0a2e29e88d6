"""Which batches a plan serves.

Most of what a model does is the same at every batch. Some operations are not: in which order the gradient of a
convolution's weights is summed, for one, depends on how samples fill vectors (`ir.contraction`). Batches at which a
model does the same share a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torturous.codegen.builder import Builder
from torturous.ir.contraction import LANES, MOST_WASTED, fills_vectors


class Filling(Enum):
    """How samples fill vectors, which is what operations ask of a batch."""

    ONE = "one"
    FEW = "few"
    NEARLY = "nearly"
    """But for a few lanes (`contraction.fills_vectors`)."""
    WHOLE = "whole"


RECORDED = {
    Filling.FEW: (2, 3, 5, 7), Filling.WHOLE: (16, 32, 48, 64), Filling.NEARLY: (28, 30, 44, 60), Filling.ONE: (1,)}
"""Batches at which a model is recorded: first the least."""


def filling_of(batch: int) -> Filling:
    if batch == 1:
        return Filling.ONE
    if batch % LANES == 0:
        return Filling.WHOLE
    return Filling.NEARLY if fills_vectors(batch) else Filling.FEW


def largest_of_each(most: int) -> dict[Filling, int]:
    """The largest batch from 2 to `most` of each kind: all kinds occur among the first ones, and what occurs later too,
    filling vectors at least nearly, among any LANES batches."""
    first, last = range(2, min(most, 8 * LANES) + 1), range(max(2, most - 2 * LANES), most + 1)
    return {filling_of(batch): batch for batch in (*first, *last)}


@dataclass(frozen=True)
class Batches:
    """A single batch, or all from `least` on, or those that fill vectors in some of the ways."""

    only: int | None = None
    least: int = 1
    fillings: frozenset[Filling] | None = None
    """Not `FEW`, which has no condition of its own: what serves it comes last."""

    def hold(self, batch: int) -> bool:
        if self.only is not None:
            return batch == self.only
        return batch >= self.least and (self.fillings is None or filling_of(batch) in self.fillings)

    def _parts(self) -> list[str]:
        """The conditions of which one has to hold, as C text."""
        fillings = self.fillings or frozenset()
        whole, fills = f"(batch) % {LANES} == 0", _FILLS
        parts = ["(batch) == 1"] if Filling.ONE in fillings else []
        if Filling.NEARLY in fillings:
            parts.append(fills if Filling.WHOLE in fillings else f"!({whole}) && {fills}")
        elif Filling.WHOLE in fillings:
            parts.append(whole)
        return parts

    def c_condition(self) -> str:
        if self.only is not None:
            return f"(batch) == {self.only}"
        if self.fillings is None:
            return f"(batch) >= {self.least}"
        return " || ".join(f"({part})" for part in self._parts())

    def condition(self, b: Builder) -> str:
        """Writes the same about `%batch`."""
        if self.only is not None:
            return b.compare("eq", "%batch", self.only)
        if self.fillings is None:
            return b.compare("sge", "%batch", self.least)
        found = "false"
        whole = b.compare("eq", b.rem("%batch", LANES), 0)
        if Filling.ONE in self.fillings:
            found = b.compare("eq", "%batch", 1)
        if Filling.NEARLY in self.fillings:
            vectors = b.ceil_div("%batch", LANES)
            computed, asked = MOST_WASTED
            fills = b.compare("sle", b.mul(vectors, asked * LANES), b.mul("%batch", computed))
            fills = b.value(f"and i1 {fills}, {b.compare('sge', '%batch', LANES)}")
            if Filling.WHOLE not in self.fillings:
                fills = b.value(f"and i1 {fills}, {b.compare('ne', b.rem('%batch', LANES), 0)}")
            found = b.value(f"or i1 {found}, {fills}")
        elif Filling.WHOLE in self.fillings:
            found = b.value(f"or i1 {found}, {whole}")
        return found

    def __str__(self) -> str:
        if self.only is not None:
            return str(self.only)
        if self.fillings is not None:
            return ", ".join(sorted(filling.value for filling in self.fillings))
        return "any" if self.least == 1 else f"from {self.least}"


EVERY = Batches()
_FILLS = (f"(batch) >= {LANES} && ((int64_t)(batch) + {LANES - 1}) / {LANES} * {MOST_WASTED[1] * LANES} <= "
          f"(int64_t)(batch) * {MOST_WASTED[0]}")
"""`contraction.fills_vectors` in C."""
