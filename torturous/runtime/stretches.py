"""The plan table being laid out: entries, and where the words of their argument tables come from.

A stretch of levels that a loop repeats is laid out once and then written down step by step: the same kernels, with
addresses that lie a stride further each time. That is a few words a step, made by NumPy; the driver walks what it
always walks, and a run costs one addition over all words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from torturous.codegen.table import ARGUMENTS, BARRIER, ENTRY_BYTES, KERNEL, PIECES
from torturous.compiler.graph import Node
from torturous.compiler.kernel import Moving, Repetition, Turning
from torturous.compiler.sizes import Size

FIELDS = ENTRY_BYTES // 8


class Stretches:
    """Entries and argument words in order; a loop's are kept apart until its last level is complete."""

    def __init__(self, evaluate: Callable[[Size], int], position: Mapping[Any, int]) -> None:
        self.evaluate = evaluate
        self.position = position
        """Where in the block of values each word comes from."""
        self.kernel_of: list[Any] = []
        """Per entry, the kernel that it runs."""
        self._done: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._moves = False
        self._repetition: Repetition | None = None
        self._start()

    def _start(self) -> None:
        self._entries: list[list[int]] = []
        self._words: list[int | Moving | Turning] = []
        self._kernels: list[Any] = []

    @property
    def entry_count(self) -> int:
        return sum(len(entries) for entries, *_ in self._done) + len(self._entries)

    @property
    def word_count(self) -> int:
        return sum(len(gather) for _, gather, _ in self._done) + len(self._words)

    # What a plan consists of ----------------------------------------------------------------------------------------
    def enter(self, repetition: Repetition | None) -> int:
        """Begins a level, which belongs to this loop; gives the number of its steps, 1 outside of loops."""
        if repetition is not self._repetition:
            self._flush()
            self._repetition = repetition
        return 1 if repetition is None else self.evaluate(repetition.steps)

    def kernel(self, address: int, pieces: int, kernel: Any) -> None:
        """The next entry; what follows are its arguments."""
        entry = [0] * FIELDS
        entry[KERNEL], entry[ARGUMENTS], entry[PIECES] = address, len(self._words), pieces
        self._entries.append(entry)
        self._kernels.append(kernel)

    def argument(self, position: int) -> None:
        """A word that is the same at every step."""
        self._words.append(position)

    def moves(self, buffer: Node) -> bool:
        return self._repetition is not None and buffer in self._repetition.places

    def moving(self, buffer: Node) -> None:
        """The address of a buffer of the loop's body."""
        assert self._repetition is not None
        self._words.append(self._repetition.places[buffer])

    def barrier(self) -> None:
        """All entries so far come before those that follow."""
        if self._entries:
            self._entries[-1][BARRIER] = 1

    # Written down ---------------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        steps = 1 if self._repetition is None else self.evaluate(self._repetition.steps)
        once = np.array(self._entries, np.int64).reshape(-1, FIELDS)
        entries = np.tile(once, (steps, 1)).reshape(steps, len(once), FIELDS)
        written, words = self.word_count - len(self._words), len(self._words)
        entries[:, :, ARGUMENTS] += written + words * np.arange(steps)[:, None]
        gather, offsets = np.zeros((steps, words), np.intp), np.zeros((steps, words), np.int64)
        step = np.arange(steps)
        for column, word in enumerate(self._words):
            if isinstance(word, Moving):
                gather[:, column] = self.position["buffer", word.buffer]
                offsets[:, column] = self.evaluate(word.start) + self.evaluate(word.stride) * step
                self._moves = True
            elif isinstance(word, Turning):
                gather[:, column] = self._turning(word, steps)
            else:
                gather[:, column] = word
        self._done.append((entries.reshape(-1, FIELDS), gather.reshape(-1), offsets.reshape(-1)))
        self.kernel_of += self._kernels * steps
        self._start()

    def _turning(self, word: Turning, steps: int) -> np.ndarray:
        """Which of two buffers is meant at each step: the last one writes `end`."""
        before = word.initial is not None
        left = steps - 1 - np.arange(steps) + before
        ends = self.position["buffer", word.end]
        chosen = np.where(left % 2 == 0, ends, self.position["buffer", word.spare])
        if word.initial is not None:
            chosen[0] = self.position["buffer", word.initial]
        return chosen

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """All entries (their argument tables as positions among the words), the words' sources, and their offsets."""
        self._flush()
        entries, gather, offsets = (np.concatenate(parts) for parts in zip(*self._done, strict=True))
        return np.ascontiguousarray(entries), gather, offsets if self._moves else None
