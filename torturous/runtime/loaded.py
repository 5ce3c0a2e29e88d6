"""A plan whose kernels are in memory, and its table laid out as far as no size is needed for that.

What a run hands to kernels stands in one block of words, the *values*: buffers' addresses, slots, then sizes, shares of
work and the addresses of error words. An argument table is a selection of them. Which word stands where, and which
kernels take which, is the same for all sizes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torturous.codegen.kernels import Generated
from torturous.compiler.graph import Node
from torturous.compiler.plan import Plan
from torturous.compiler.sizes import product
from torturous.core.errors import UnsupportedError
from torturous.ir.record import slot_ordinal
from torturous.runtime.shares import GRANULE
from torturous.runtime.slots import Packing
from torturous.runtime.stretches import Stretches

Place = tuple[int, int]
"""A kernel of a plan: its level, and which of that level's it is."""


@dataclass(eq=False)
class Loaded:
    """A plan whose kernels are ready to run."""

    plan: Plan
    generated: list[list[Generated]]
    """Per level, in the order of `plan.memory.levels`."""
    addresses: list[list[int]]

    @cached_property
    def arrangement(self) -> Arrangement:
        """Laid out when the plan is first bound."""
        return Arrangement(self)


class Arrangement:
    """What is the same in a plan's table for all sizes. Kernels have numbers, level by level."""

    def __init__(self, loaded: Loaded) -> None:
        plan = loaded.plan
        self.output_bytes = [product(node.shape) * node.dtype.itemsize for node in plan.outputs]
        leaf_of = {leaf: position for position, leaf in enumerate(plan.leaves)}
        output_of = {output: position for position, output in enumerate(plan.outputs)}
        self.overwritable = frozenset((output_of[output], leaf_of[leaf])
                                      for output, leaves in plan.memory.overwritable.items() for leaf in leaves)
        """An output and a leaf in whose memory it may be written, by their positions."""
        self.position: dict[Any, int] = {}
        """Where among the values each word stands."""
        for node in (*plan.leaves, *plan.outputs, *plan.memory.slot_of):
            self.position.setdefault(("buffer", node), len(self.position))
        self.temporaries = list(plan.memory.slot_of.values())
        """The slots of the arena that temporary values lie in, in order."""
        self.read = struct.Struct(f"<{len(plan.leaves)}q")
        """The leaves' addresses, as the values begin."""
        self.written = struct.Struct(f"<{len(self.position) - len(plan.leaves)}q")
        """Those of outputs and temporary values, which follow."""
        arguments = (argument for group in loaded.generated for kernel in group for argument in kernel.arguments)
        slots = list(dict.fromkeys(argument for argument in arguments if argument.kind == "slot"))
        self.packing = Packing([(slot_ordinal(a.what), a.dtype) for a in slots]) if slots else None  # type: ignore[misc]
        for argument in slots:
            self.position["slot", argument] = len(self.position)
        self.places: list[Place] = []
        self.checks: list[Node] = []
        """Ops whose kernels check something, in the order of their error words."""
        self.hosted: list[tuple[int, Node]] = []
        """The number of each host op among the kernels."""
        self.shared: dict[Place, list[tuple[int, int]]] = {}
        """For each kernel: what of its shares stands where among the values (see `Bound.give`)."""
        self.distinct: list[Generated] = []
        """One of all kernels that have the same work: layers of a net repeat each other."""
        self.work_of: list[int] = []
        """Per kernel, which of these has its work."""
        self.wide: list[slice] = []
        """The kernels of each level that has several."""
        self.stretches = Stretches()
        self._lay_out(loaded)
        self.sizes = [(place, key[1]) for key, place in self.position.items() if key[0] == "size"]
        """Where among the values the plan's variables stand."""
        self.errors = [(place, self.checks.index(key[1])) for key, place in self.position.items() if key[0] == "errors"]

    def _lay_out(self, loaded: Loaded) -> None:
        memory = loaded.plan.memory
        repeated = {level: each for each in memory.repeated for level in range(each.first, each.past)}
        works: dict[Any, int] = {}
        for level, (group, addresses) in enumerate(zip(loaded.generated, loaded.addresses, strict=True)):
            loop = repeated.get(level)
            self.stretches.enter(loop.repetition if loop is not None else None)
            for order, (kernel, address) in enumerate(zip(group, addresses, strict=True)):
                number, place = len(self.places), (level, order)
                self.places.append(place)
                known = works.setdefault((kernel.symbol, kernel.work, kernel.scratch), len(works))
                self.work_of.append(known)
                if known == len(self.distinct):
                    self.distinct.append(kernel)
                if not kernel.symbol:
                    hosted = memory.levels[level][order].special
                    assert hosted is not None
                    if loop is not None:
                        raise UnsupportedError(f"{hosted.op.name} cannot run within a loop: it is a host operation")
                    self.hosted.append((number, hosted))
                self.stretches.kernel(address)
                self._lay_out_arguments(kernel, place)
            self.stretches.barrier()
            if len(group) > 1:
                self.wide.append(slice(len(self.places) - len(group), len(self.places)))

    def _lay_out_arguments(self, kernel: Generated, place: Place) -> None:
        for argument in kernel.arguments:
            key: Any = (argument.kind, argument.what)
            if argument.kind == "slot":
                key = ("slot", argument)
            elif argument.kind in ("granule", "group"):
                key = (argument.kind, argument.what, *place)
            elif argument.kind == "buffer" and self.stretches.moves(argument.what):
                self.stretches.moving(argument.what)
                continue
            if key not in self.position:
                self.position[key] = len(self.position)
                if argument.kind == "errors":
                    self.checks.append(argument.what)
            self.stretches.argument(self.position[key])
            if argument.kind in ("granule", "group"):
                which = GRANULE if argument.kind == "granule" else argument.what
                self.shared.setdefault(place, []).append((which, self.position[key]))
