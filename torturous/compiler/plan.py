"""The passes in order, and their result: a plan, which is a pure function of record, sizes and settings."""

from __future__ import annotations

from dataclasses import dataclass

from torturous.compiler import memory
from torturous.compiler.expand import Expanded
from torturous.compiler.fuse import fuse
from torturous.compiler.graph import Graph, Node, Sizes, build
from torturous.compiler.schedule import schedule
from torturous.compiler.split import split


@dataclass(eq=False)
class Plan:
    """What is to be run: kernels by level, where values lie, which sizes it serves."""

    graph: Graph
    sizes: Sizes
    memory: memory.Memory
    leaves: list[Node]
    outputs: list[Node]

    def __str__(self) -> str:
        count = sum(map(len, self.memory.levels))
        symbolic = f", {self.sizes.variables} size variables" if self.sizes.variables else ""
        lines = [f"plan: {len(self.graph.nodes)} rows, {count} kernels, {len(self.memory.levels)} levels, "
                 f"{len(self.memory.slots)} arena slots{symbolic}"]
        return "\n".join(lines)


def make_plan(expanded: Expanded, sizes: Sizes, hints: tuple[int, ...], fused: bool, words: bool = False) -> Plan:
    """simplify (while building the graph) → fuse → schedule → memory.

    `words` says that the machine takes two products of bfloat16 at a time.
    """
    graph = build(expanded, sizes, hints)
    groups = fuse(graph, fused, words=words)
    for kernel in groups.kernels:
        if kernel.repetition is not None:
            kernel.repetition.kernels = [schedule(each, graph.hint) for each in kernel.repetition.kernels]
    kernels = [part for kernel in groups.kernels for part in split(schedule(kernel, graph.hint))]
    placed = memory.place(kernels, groups.outputs, graph.hint)
    fresh = [node for node, row in zip(groups.outputs, expanded.outputs, strict=True)
             if row not in expanded.renewing or node not in placed.overwritable]
    streamed = memory.streamed(kernels, fresh, graph.hint)
    if streamed:
        for kernel in kernels:
            kernel.streamed = streamed
    return Plan(graph, sizes, placed, graph.leaves, groups.outputs)
