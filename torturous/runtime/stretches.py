"""The plan table being laid out: entries, and where the words of their argument tables come from.

A plan's table is laid out once, in stretches, and written down for the sizes at hand. A stretch of levels that a loop
repeats is written down step by step: the same kernels, with addresses that lie a stride further each time. That is a
few words a step, made by NumPy; the driver walks what it always walks, and a run costs one addition over all words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torturous.codegen.table import ARGUMENTS, BARRIER, ENTRY_BYTES, KERNEL
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Moving, Repetition, Turning
from torturous.compiler.sizes import Size

FIELDS = ENTRY_BYTES // 8

Evaluate = Callable[[Size], int]


@dataclass(eq=False)
class Stretch:
    """Levels in a row that run once, or once for each step of a loop."""

    repetition: Repetition | None
    entries: list[list[int]] = field(default_factory=list)
    """Arguments as the number of their first word."""
    words: list[int | Moving | Turning] = field(default_factory=list)
    """Places in the block of values, or what moves from step to step."""

    def steps(self, evaluate: Evaluate) -> int:
        return 1 if self.repetition is None else evaluate(self.repetition.steps)


@dataclass(eq=False)
class Written:
    """A table for certain sizes: for a run it wants addresses, and pieces."""

    entries: np.ndarray
    """Arguments as the number of their first word."""
    gather: np.ndarray
    """Where in the block of values each word comes from. Not to be written."""
    offsets: np.ndarray | None
    """What is added to each word, in bytes; None where nothing moves."""
    kernels: np.ndarray
    """The number of each entry's kernel. Not to be written."""


class Stretches:
    """Entries and argument words in order; kernels have the numbers in which they come."""

    def __init__(self) -> None:
        self._stretches = [Stretch(None)]
        self._once: Written | None = None
        """Where nothing is repeated, all tables are copies of one."""

    # What a plan consists of ----------------------------------------------------------------------------------------
    def enter(self, repetition: Repetition | None) -> None:
        """Begins a level, which belongs to this loop."""
        if repetition is not self._stretches[-1].repetition:
            self._stretches.append(Stretch(repetition))

    def kernel(self, address: int) -> None:
        """The next entry; what follows are its arguments."""
        stretch = self._stretches[-1]
        entry = [0] * FIELDS
        entry[KERNEL], entry[ARGUMENTS] = address, len(stretch.words)
        stretch.entries.append(entry)

    def argument(self, position: int) -> None:
        """A word that is the same at every step."""
        self._stretches[-1].words.append(position)

    def moves(self, buffer: Node) -> bool:
        repetition = self._stretches[-1].repetition
        return repetition is not None and buffer in repetition.places

    def moving(self, buffer: Node) -> None:
        """The address of a buffer of the loop's body."""
        stretch = self._stretches[-1]
        assert stretch.repetition is not None
        stretch.words.append(stretch.repetition.places[buffer])

    def barrier(self) -> None:
        """All entries so far come before those that follow."""
        if self._stretches[-1].entries:
            self._stretches[-1].entries[-1][BARRIER] = 1

    # Written down ---------------------------------------------------------------------------------------------------
    def write(self, evaluate: Evaluate, position: Mapping[Any, int], order: Sequence[int] | None) -> Written:
        """The table for certain sizes. `position` says where in the block of values buffers' addresses stand; `order`
        exchanges kernels of a level, by their numbers."""
        if len(self._stretches) > 1 or order is not None:
            return self._write(evaluate, position, order)
        if self._once is None:
            self._once = self._write(evaluate, position, None)
        return Written(self._once.entries.copy(), self._once.gather, None, self._once.kernels)

    def _write(self, evaluate: Evaluate, position: Mapping[Any, int], order: Sequence[int] | None) -> Written:
        parts, first, words, moves = [], 0, 0, False
        for stretch in self._stretches:
            steps = stretch.steps(evaluate)
            once = np.array(stretch.entries, np.int64).reshape(-1, FIELDS)
            numbers = np.arange(first, first + len(once))
            if order is not None:
                numbers = np.array(order[first:first + len(once)], np.intp)
                barriers = once[:, BARRIER]
                once = once[numbers - first]
                once[:, BARRIER] = barriers
            first += len(once)
            entries = np.tile(once, (steps, 1)).reshape(steps, len(once), FIELDS)
            entries[:, :, ARGUMENTS] += words + len(stretch.words) * np.arange(steps)[:, None]
            gather = np.zeros((steps, len(stretch.words)), np.intp)
            offsets = np.zeros((steps, len(stretch.words)), np.int64)
            for column, word in enumerate(stretch.words):
                if isinstance(word, Moving):
                    gather[:, column] = position["buffer", word.buffer]
                    offsets[:, column] = evaluate(word.start) + evaluate(word.stride) * np.arange(steps)
                    moves = True
                elif isinstance(word, Turning):
                    gather[:, column] = _turning(word, steps, position)
                else:
                    gather[:, column] = word
            words += gather.size
            kernels = np.tile(numbers, steps)
            parts.append((entries.reshape(-1, FIELDS), gather.reshape(-1), offsets.reshape(-1), kernels))
        entries, gather, offsets, kernels = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Written(np.ascontiguousarray(entries), gather, offsets if moves else None, kernels)


def _turning(word: Turning, steps: int, position: Mapping[Any, int]) -> np.ndarray:
    """Which of two buffers is meant at each step: the last one writes `end`."""
    before = word.initial is not None
    left = steps - 1 - np.arange(steps) + before
    chosen = np.where(left % 2 == 0, position["buffer", word.end], position["buffer", word.spare])
    if word.initial is not None:
        chosen[0] = position["buffer", word.initial]
    return chosen
