"""Homes: values that are computed where those before them lie, in memory that nobody else looks at.

A storage's next version may take the place of the present one if the plan allows it (`compiler.overwriting`) and the
storage is the only one to hold that memory: no array, no tape of a graph that is kept, no other record. Parameters and
an optimizer's state thus stay where they are.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.flight import held
from torturous.runtime.storage import Storage

Move = tuple[int, int, int]
"""The positions of an output, of the leaf that it may replace, and of its storage."""
Home = tuple[int, int, Buffer]
"""The positions of an output and of the leaf that it may replace, and where that lies."""


def successors(outputs: Sequence[int], alive: Sequence[int], storages: Sequence[Storage], values: Mapping[int, Buffer],
               saved: Collection[int]) -> dict[int, int]:
    """Which outputs are next versions of what a leaf holds: by row, the leaf's. `saved` are the rows that a tape goes
    on to hold."""
    leaf_of = {id(buffer): leaf for leaf, buffer in values.items() if leaf not in saved}
    wanted = set(outputs)
    return {row: leaf_of[id(storage.buffer)] for row, storage in zip(alive, storages, strict=True)
            if row in wanted and storage.buffer is not None and id(storage.buffer) in leaf_of}


def moves(following: Mapping[int, int], outputs: Sequence[int], alive: Sequence[int], leaves: Sequence[int]
          ) -> tuple[Move, ...]:
    """The same as positions among outputs, leaves and what is alive, if the plan has the leaf."""
    position_of, leaf_of = ({row: position for position, row in enumerate(rows)} for rows in (outputs, leaves))
    return tuple((position_of[row], leaf_of[following[row]], number) for number, row in enumerate(alive)
                 if row in following and following[row] in leaf_of)


def homes(moves: Sequence[Move], storages: Sequence[Storage], leaves: Sequence[int], values: Mapping[int, Buffer]
          ) -> list[Home]:
    """Those of the moves that can be made now: the memory is held by storage and record alone, and by what is in the
    air, which lands before anything is written."""
    found: list[Home] = []
    if not moves:
        return found
    with held() as (written, read):
        for position, leaf, number in moves:
            storage = storages[number]
            buffer = storage.buffer
            references = sys.getrefcount(buffer) - (buffer in written) - (buffer in read)
            if references == _ALONE and buffer is values[leaves[leaf]] and storage.foreign is None:
                found.append((position, leaf, buffer))
    return found


def _count_when_alone() -> int:
    """References to a buffer that only a storage and a record hold, as `homes` counts them."""
    storage = Storage(0, allocate(0))
    values = {0: storage.buffer}
    buffer = values[0]
    return sys.getrefcount(buffer)


_ALONE = _count_when_alone()
