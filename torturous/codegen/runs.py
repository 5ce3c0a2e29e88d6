"""What a convolution multiplies, as runs of products that both operands step evenly through.

Operands are read where they lie (`codegen.direct`, `codegen.channels`): a sum is a run per tap of the window, over its
channels. Where windows reach over the border, or windows of a gradient fall between elements, a tap exists for a pixel
or it does not, whatever the channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as combinations
from math import prod

from torturous.compiler.kernel import Kernel, Load, Quotient
from torturous.compiler.sizes import ONE, Affine, Size


@dataclass(frozen=True)
class Run:
    """Products that both operands step evenly through, none of them in two blocks."""

    first: int
    """Its first product."""
    length: int
    place: int
    """The part it has in where the windowed operand's element lies, for its first product, in bytes."""
    parts: tuple[int, ...]
    """The part it has in each border's place; the rest that it takes to be whole, where places are quotients."""


@dataclass(frozen=True)
class Border:
    """Products exist where a place along an axis of the windowed operand lies inside: (pixel + tap) / divisor."""

    position: Affine
    divisor: int
    extent: Size
    stride: Size
    """The axis' part of the address, where that is a quotient (else the address has it already)."""

    def part(self, tap: int) -> tuple[int, ...]:
        """A tap's share of the quotient; and the rest that the pixel must have for the whole to be whole."""
        rest = -tap % self.divisor
        return ((tap + rest) // self.divisor, rest) if self.divisor > 1 else (tap,)

    @property
    def words(self) -> int:
        return 2 if self.divisor > 1 else 1


def known(size: Size, unit: Size = ONE) -> int:
    """A size in units."""
    quotient = size.over(unit)
    assert quotient is not None and quotient.constant is not None, "only the number of samples may be unknown"
    return quotient.constant


def borders_of(kernel: Kernel, lane: Load) -> list[Border]:
    """The guards of the lanes' load; what is a quotient of an axis gives part of the address, too."""
    borders = []
    for guard in lane.guards:
        (axis, *_), position, divisor = guard.position.terms, guard.position, 1
        stride = Size.of(0)
        if axis < 0:
            quotient = kernel.derived[~axis]
            assert isinstance(quotient, Quotient)
            position, divisor, stride = quotient.affine, quotient.divisor, lane.address.factor(axis)
        borders.append(Border(position, divisor, guard.extent, stride))
    return borders


def runs_of(
    reduced: list[Size], lane: Load, borders: list[Border], first: int, item: int, block: int, unit: Size
) -> tuple[list[Run], int]:
    """All products as runs, and the lanes' step along a run in bytes; places of lanes are in units of so much.

    A run is the innermost reduced loops that the lanes' address merges and no border looks at.
    """
    axes = [axis for axis, size in enumerate(reduced) if size != 1]
    sizes = [known(reduced[axis]) for axis in axes]
    factors = [known(lane.address.factor(first + axis), unit) for axis in axes]
    merged = len(axes)
    while merged and not _watched(borders, first + axes[merged - 1]) and (
            merged == len(axes) or factors[merged - 1] == factors[merged] * sizes[merged]):
        merged -= 1
    length, step = prod(sizes[merged:]), factors[-1] if factors else 0
    runs = []
    for number, taps in enumerate(combinations(*map(range, sizes[:merged]))):
        place = sum(tap * factor for tap, factor in zip(taps, factors[:merged], strict=True))
        parts: list[int] = []
        for border in borders:
            tap_place = sum(tap * known(border.position.factor(first + axis))
                            for axis, tap in zip(axes[:merged], taps, strict=True))
            part = border.part(tap_place)
            place += part[0] * known(border.stride, unit)
            parts += part
        start, stop = number * length, (number + 1) * length
        while start < stop:
            end = min(stop, (start // block + 1) * block)
            within = start - number * length
            runs.append(Run(start, end - start, (place + within * step) * item, tuple(parts)))
            start = end
    return runs, step * item


def _watched(borders: list[Border], axis: int) -> bool:
    return any(border.position.factor(axis) != 0 for border in borders)
