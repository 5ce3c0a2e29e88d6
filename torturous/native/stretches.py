"""Kernels in the order in which a run lays them out: straight stretches, and those that a loop repeats.

A loop's entries and argument tables are written by a loop as well, step by step, with addresses that lie a stride
further each time; the library walks them like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.kernels import Generated
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Moving, Repetition
from torturous.compiler.sizes import Size
from torturous.core.errors import UnsupportedError


@dataclass(frozen=True)
class Called:
    """A kernel for one target, with the symbol that the library knows it by."""

    generated: Generated
    symbol: str
    description: str
    level: int
    reads: frozenset[Node]
    writes: frozenset[Node]
    repetition: Repetition | None
    """The loop that it belongs to."""


@dataclass(frozen=True)
class Stretch:
    """Kernels that run one after the other, `steps` times."""

    repetition: Repetition | None
    steps: int
    kernels: Sequence[Called]

    @property
    def words(self) -> int:
        """In the argument tables of one step."""
        return sum(len(called.generated.arguments) for called in self.kernels)

    def ends_level(self, number: int) -> bool:
        """Whether a barrier follows a kernel."""
        kernels = self.kernels
        return number + 1 == len(kernels) or kernels[number + 1].level != kernels[number].level


def stretches(run: Sequence[Called], in_batch: Callable[[Size], Size]) -> Iterator[Stretch]:
    """A run's kernels by the loops that they belong to."""
    for _, group in groupby(run, lambda called: id(called.repetition)):
        kernels = list(group)
        repetition = kernels[0].repetition
        steps = 1
        if repetition is not None:
            constant = in_batch(repetition.steps).constant
            if constant is None:
                raise UnsupportedError(
                    f"cannot export: the number of steps of a loop ({kernels[0].description}) depends on the batch; "
                    "give the sequence an axis of its own, of fixed length")
            steps = constant
        yield Stretch(repetition, steps, kernels)


def written_in_loops(run: Sequence[Called]) -> set[Node]:
    """What loops write: never to be computed ahead, even where it begins as a constant."""
    loops = {id(called.repetition): called.repetition for called in run}
    return {node for loop in loops.values() if loop is not None for node in (*loop.items, *loop.spares)}


def behind_steps(run: Sequence[Called]) -> set[Node]:
    """The buffers that single steps of loops read and write a part of, or in turn."""
    loops = {id(called.repetition): called.repetition for called in run}
    found: set[Node | None] = set()
    for loop in loops.values():
        for place in loop.places.values() if loop is not None else ():
            found |= {place.buffer} if isinstance(place, Moving) else {place.end, place.spare, place.initial}
    return {node for node in found if node is not None}


def pointers_at(
    b: Builder, repetition: Repetition, steps: int, step: Integer, pointers: Mapping[Node, str],
    size: Callable[[Size], Integer],
) -> dict[Node, str]:
    """Where a step's buffers lie, as instructions; all others lie where they always do."""
    found = dict(pointers)
    for node, place in repetition.places.items():
        if isinstance(place, Moving):
            offset = b.add(size(place.start), b.mul(step, size(place.stride)))
            found[node] = b.offset(pointers[place.buffer], offset)
            continue
        left = b.sub(steps - 1 + (place.initial is not None), step)
        even = b.compare("eq", b.rem(left, 2), 0)
        chosen = b.choose(even, pointers[place.end], pointers[place.spare], "ptr")
        if place.initial is not None:
            chosen = b.choose(b.compare("eq", step, 0), pointers[place.initial], chosen, "ptr")
        found[node] = str(chosen)
    return found
