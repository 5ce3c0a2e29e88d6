"""The loops of a contraction's kernel: those of its sum, split where what is read or written has several axes for one.

A matrix product of a flattened image reads the image as it lies, whatever lies innermost there, if the loop over its
features is three: channels, lines and pixels. The order of the sum is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torturous.compiler.layout import Order
from torturous.compiler.pooling import Pool
from torturous.compiler.sizes import Affine, Size, row_major

Terms = tuple[tuple[int, int], ...]
"""A position, written in a kernel's loops: loops with factors."""
Groups = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Axes of two shapes of the same elements, as many in each as make a product."""


@dataclass
class Nest:
    """A kernel's loops, and where the axes of what is stored and the loops of the contraction are among them."""

    axes: list[Size] = field(default_factory=list)
    reduced: list[Size] = field(default_factory=list)
    axis_places: dict[int, Terms] = field(default_factory=dict)
    places: dict[int, Terms] = field(default_factory=dict)

    def positions(self) -> tuple[Affine, ...]:
        """Of an element of what is stored."""
        return tuple(_affine(self.axis_places[axis]) for axis in range(len(self.axis_places)))


def nest(order: Order, shape: Sequence[Size], groups: Groups, extents: Sequence[Size],
         digits: Mapping[int, Sequence[Size]], pool: Pool | None = None) -> Nest:
    """Loops over what is stored, of this shape, in this order.

    `groups` are its axes and those of the contraction's result, whose loops have these extents, the reduced ones last;
    `digits` are the sizes that make up a loop. Axes that are pooled are gone over in windows and, right before the
    last loop, within them.
    """
    made = Nest()
    split = {axes[0]: digits[loops[0]] for axes, loops in groups
             if len(axes) == len(loops) == 1 and loops[0] in digits}
    lengths = pool.lengths if pool is not None else {}
    for axis in order[:-1]:
        if pool is not None and axis in lengths:
            _enter(made, axis, [pool.counts[axis]], lengths[axis].constant or 0)
        else:
            _enter(made, axis, split.get(axis, shape[axis:axis + 1]))
    for axis in sorted(lengths):
        _enter(made, axis, [lengths[axis]])
    for axis in order[-1:]:
        _enter(made, axis, split.get(axis, shape[axis:axis + 1]))
    for axes, loops in groups:
        if not loops:
            continue
        assert len(loops) == 1, "a result that is split, not merged"
        scales = _scales([shape[axis] for axis in axes])
        made.places[loops[0]] = tuple(
            (loop, factor * scale) for axis, scale in zip(axes, scales, strict=True)
            for loop, factor in made.axis_places[axis])
    rank = len(made.places)
    for loop in range(rank, len(extents)):
        sizes = digits.get(loop, extents[loop:loop + 1])
        first = len(made.axes) + len(made.reduced)
        made.places[loop] = tuple((first + n, scale) for n, scale in enumerate(_scales(sizes)))
        made.reduced += sizes
    return made


def _enter(made: Nest, axis: int, sizes: Sequence[Size], factor: int = 1) -> None:
    first = len(made.axes)
    terms = tuple((first + n, scale * factor) for n, scale in enumerate(_scales(sizes)))
    made.axis_places[axis] = (*made.axis_places.get(axis, ()), *terms)
    made.axes += sizes


def _scales(sizes: Sequence[Size]) -> list[int]:
    """Row-major strides; all but the outermost size are known."""
    return [stride.constant or 0 for stride in row_major(tuple(sizes))]


def _affine(terms: Terms) -> Affine:
    return Affine.sum((Affine.axis(axis), Size.of(factor)) for axis, factor in terms)
