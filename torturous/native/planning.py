"""The plans of a library: for which batches there is one, and what it takes for granted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torturous.codegen.target import Target
from torturous.compiler import layout
from torturous.compiler.plan import Plan, make_plan
from torturous.compiler.sizes import MANY
from torturous.core import settings
from torturous.ir.op import Kind
from torturous.native.batches import Batches, Filling
from torturous.native.recording import Program, Version


def fixed_batches(batches: Sequence[int], max_batch: int | None) -> list[int]:
    """The batches that get plans of their own, each once."""
    if isinstance(batches, int) or any(isinstance(n, bool) or not isinstance(n, int) for n in batches):
        raise TypeError(f"batches must be a sequence of integers, got {batches!r}")
    if batches and max_batch is None:
        raise ValueError("batches make no sense with max_batch=None, where all sizes are fixed")
    for n in batches:
        if not 1 <= n <= (max_batch or 1):
            raise ValueError(f"batches must lie between 1 and max_batch = {max_batch}, got {n}")
    return sorted(set(batches))


def planned(
    name: str, versions: Sequence[Version], batch: int, fixed: Sequence[int], most: int, targets: Sequence[Target]
) -> Iterator[tuple[str, Program, Plan, Batches]]:
    """Plans and their symbols: for single batches, then for batches of MANY samples where that is another plan, then
    for all. `batch` is the one to tune them for, `most` the largest."""
    for n in fixed:
        program = next(program for batches, program in versions if batches.hold(n))
        yield f"{name}_batch{n}", program.at(n), plan_of(program.at(n), n), Batches(n)
    large = all(target.pointer_bits == 64 for target in targets)  # Others rather have it small.
    for batches, program in versions:
        fillings = batches.fillings or frozenset()
        symbol = "_".join([name, *sorted(filling.value for filling in fillings)])
        plan = plan_of(program, batch if batches.hold(batch) else MANY)
        if large and most >= MANY and Filling.ONE not in fillings and _has_windows(plan):
            version = program.from_batch(MANY)
            of_samples = plan_of(version, max(batch, MANY))
            if fillings:
                plan, program = of_samples, version
            elif _lanes_are_samples(of_samples):
                yield f"{symbol}_many", version, of_samples, Batches(least=MANY)
        yield symbol, program, plan, batches


def _has_windows(plan: Plan) -> bool:
    """Whether there are convolutions, none of them of the kind that has to know the number of samples."""
    contractions = [node for node in plan.graph.nodes if node.op.kind is Kind.CONTRACT]
    return any(layout.batch(node) is not None for node in contractions) and not any(
        layout.slides_over_planes(node) or layout.sums_over_planes(node) for node in contractions)


def _lanes_are_samples(plan: Plan) -> bool:
    """Whether kernels rest on there being MANY samples at least."""
    return any(kernel.direct and any(size.is_many for size in kernel.axes)
               for level in plan.memory.levels for kernel in level)


def plan_of(program: Program, batch: int) -> Plan:
    """A plan, tuned for a batch."""
    hints = tuple(function.at(batch) for function in program.variables)
    return make_plan(program.expanded, program.sizes, hints, settings.fuse.value)
