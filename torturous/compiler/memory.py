"""Last pass: where temporary values lie. Values whose lives do not overlap share a slot of the arena.

Lives are measured in *levels*: kernels of one level run side by side, with a barrier after each level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torturous.compiler.graph import Node
from torturous.compiler.kernel import Kernel, Moving, Repetition
from torturous.compiler.overwriting import overwritable
from torturous.compiler.schedule import loads
from torturous.compiler.sizes import Size, product
from torturous.ir.op import Kind

ALIGNMENT = 64
"""Bytes: slots start at cache lines."""
PADDING = 64
"""Bytes past a value's end that vector loads may touch."""


ROOMY = 4
"""A slot of more times a value's size is not for that value."""
SMALL_BYTES = 4 << 10
"""Except if it is no larger than this."""
STREAMED_BYTES = 32 << 20
WORTH_STREAMING = 64 << 10


@dataclass(eq=False)
class Slot:
    """A stretch of the arena, as large as the largest value that ever lies in it."""

    sizes: set[Size] = field(default_factory=set)
    """In bytes."""
    free_after: int = -1
    """The last level at which its present value is read."""


@dataclass(frozen=True, eq=False)
class Repeated:
    """Levels `first` … `past` − 1 run once for each of a loop's steps."""

    first: int
    past: int
    repetition: Repetition


@dataclass(eq=False)
class Memory:
    """Levels of kernels, and slots of the values that are not outputs."""

    levels: list[list[Kernel]]
    slots: list[Slot]
    slot_of: dict[Node, int]
    repeated: list[Repeated] = field(default_factory=list)
    """In order; they do not overlap."""
    overwritable: dict[Node, tuple[Node, ...]] = field(default_factory=dict)
    """For outputs, the leaves in whose memory they may be written."""

    def offsets(self, evaluate: Callable[[Size], int]) -> tuple[list[int], int]:
        """Each slot's offset in bytes, and the arena's length."""
        offsets, end = [], 0
        for slot in self.slots:
            offsets.append(end)
            largest = max(evaluate(size) for size in slot.sizes)
            end += -(-(largest + PADDING) // ALIGNMENT) * ALIGNMENT
        return offsets, end


def read_by(kernel: Kernel) -> set[Node]:
    """Buffers that a kernel reads."""
    if kernel.repetition is not None:  # Histories, which have their beginning already, among them.
        places = kernel.repetition.places.values()
        moving = {place.buffer for place in places if isinstance(place, Moving)}
        return {*kernel.operands, *moving, *kernel.repetition.items}
    if kernel.special is not None:
        return set(kernel.operands)
    return {load.buffer for load in loads(kernel)}


def written_by(kernel: Kernel) -> set[Node]:
    if kernel.repetition is not None:
        return {*kernel.repetition.items, *kernel.repetition.spares}
    if kernel.special is not None:
        return {kernel.special}
    if kernel.attention is not None:
        return {kernel.attention.node}
    return {store.buffer for store in kernel.stores}


def place(kernels: list[Kernel], outputs: list[Node], hint: Callable[[Size], int]) -> Memory:
    """Groups kernels into levels and gives every temporary a slot."""
    reads = {kernel: read_by(kernel) for kernel in kernels}
    levels = _levels(kernels, reads)
    last_read: dict[Node, int] = {}
    for level, group in enumerate(levels):
        for kernel in group:
            for node in reads[kernel]:
                last_read[node] = level
    held = set(outputs)
    slots: list[Slot] = []
    memory = Memory([], slots, {}, overwritable=overwritable(levels, reads, outputs))
    for level, group in enumerate(levels):
        memory.levels.append([kernel for kernel in group if kernel.repetition is None])
        for kernel in group:
            for node in written_by(kernel):
                if node in held or node.op.kind is Kind.LEAF or node in memory.slot_of:
                    continue
                bytes_ = product(node.shape) * node.dtype.itemsize
                index = _best(slots, level, bytes_, hint)
                slots[index].sizes.add(bytes_)
                slots[index].free_after = last_read.get(node, level)
                memory.slot_of[node] = index
            if kernel.repetition is not None:
                _place_body(memory, kernel.repetition, level, hint)
        if not memory.levels[-1]:
            memory.levels.pop()
        for kernel in group:
            if kernel.repetition is not None:
                first = len(memory.levels)
                memory.levels += place(kernel.repetition.kernels, kernel.repetition.outputs, hint).levels
                memory.repeated.append(Repeated(first, len(memory.levels), kernel.repetition))
    return memory


def _place_body(memory: Memory, repetition: Repetition, level: int, hint: Callable[[Size], int]) -> None:
    """Slots for what is temporary within a step; they are taken for as long as the loop runs."""
    inner = place(repetition.kernels, repetition.outputs, hint)
    outside = []
    for slot in inner.slots:
        index = _best(memory.slots, level, max(slot.sizes, key=hint), hint)
        memory.slots[index].sizes |= slot.sizes
        memory.slots[index].free_after = level
        outside.append(index)
    memory.slot_of.update({node: outside[index] for node, index in inner.slot_of.items()})


def streamed(kernels: list[Kernel], outputs: list[Node], hint: Callable[[Size], int]) -> frozenset[Node]:
    """Which of these outputs, in memory of their own, are written past the caches: they are more than these hold, and
    no kernel of the plan reads them. (What is written over what has just been read is near already.)"""
    sizes = {node: hint(product(node.shape)) * node.dtype.itemsize for node in outputs}
    if sum(sizes.values()) < STREAMED_BYTES:
        return frozenset()
    read = {node for kernel in kernels for node in read_by(kernel)}
    return frozenset(node for node, size in sizes.items() if size >= WORTH_STREAMING and node not in read)


def _levels(kernels: list[Kernel], reads: Mapping[Kernel, set[Node]]) -> list[list[Kernel]]:
    """Each kernel as early as what it reads allows, or as late, where it reads nothing but leaves: these are there all
    the time, what it makes of them need not be. RuntimeError if kernels wait for each other."""
    makers: dict[Node, list[Kernel]] = {}
    for kernel in kernels:
        for node in written_by(kernel):
            makers.setdefault(node, []).append(kernel)
    level_of: dict[Kernel, int] = {}
    pending = list(reversed(kernels))
    waiting: set[Kernel] = set()
    while pending:
        kernel = pending[-1]
        if kernel in level_of:
            pending.pop()
            continue
        before = {other for node in reads[kernel] for other in makers.get(node, ()) if other is not kernel}
        missing = [other for other in before if other not in level_of]
        if not missing:
            level_of[kernel] = max((level_of[other] + 1 for other in before), default=0)
            waiting.discard(kernel)
            pending.pop()
        elif kernel in waiting:
            raise RuntimeError(f"kernels that wait for each other, among them {'+'.join(kernel.names)}")
        else:
            waiting.add(kernel)
            pending += missing
    first_read: dict[Node, int] = {}
    for kernel, level in level_of.items():
        for node in reads[kernel]:
            first_read[node] = min(first_read.get(node, level), level)
    for kernel in kernels:
        wanted = [first_read[node] for node in written_by(kernel) if node in first_read]
        if kernel.special is None and wanted and all(node.op.kind is Kind.LEAF for node in reads[kernel]):
            level_of[kernel] = max(level_of[kernel], min(wanted) - 1)
    levels: list[list[Kernel]] = [[] for _ in range(max(level_of.values(), default=-1) + 1)]
    for kernel in kernels:
        levels[level_of[kernel]].append(kernel)
    return levels


def _best(slots: list[Slot], level: int, size: Size, hint: Callable[[Size], int]) -> int:
    """The free slot that wastes least, or a new one: nothing small sits in a large slot, where it may live for long."""
    want = hint(size)
    best, best_waste = -1, 0
    for index, slot in enumerate(slots):
        if slot.free_after < level:
            largest = max(map(hint, slot.sizes))
            if largest > ROOMY * want and largest > SMALL_BYTES:
                continue
            waste = abs(largest - want)
            if best < 0 or waste < best_waste:
                best, best_waste = index, waste
    if best < 0:
        slots.append(Slot())
        return len(slots) - 1
    return best
