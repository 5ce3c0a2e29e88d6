"""Planning: a record and the values wanted from it become a plan that is bound to sizes.

On a miss the record is expanded; if a plan of the same structure serves its sizes it is bound to them, otherwise one
is compiled: with constant sizes for the first record of a structure, with symbolic ones from the second on, until sizes
repeat (see `specialising`). The caller holds the lock of `realize`.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torturous.codegen.kernels import Generated, generate
from torturous.compiler.expand import Expanded, expand, numbers_read
from torturous.compiler.graph import Sizes, dimensions, is_settled, structure, unify
from torturous.compiler.plan import Plan, make_plan
from torturous.core import settings
from torturous.ir.record import Record, describe_place
from torturous.runtime import build
from torturous.runtime.bound import Bound, target
from torturous.runtime.loaded import Loaded
from torturous.runtime.specialising import Specialisation, Specialised
from torturous.runtime.watching import PlanMade, statistics, tell

_Found = tuple[Loaded, tuple[int, ...], "list[int] | None"]
"""A plan, the values of its variables, and which of its outputs are wanted: None for all."""


@dataclass(eq=False)
class _Family:
    """Plans of one structure, and the sizes seen of it, in groups that one plan can serve."""

    groups: list[list[tuple[int, ...]]] = field(default_factory=list)
    plans: list[Loaded] = field(default_factory=list)
    specialised: Specialised = field(default_factory=Specialised)

    def serving(self, observed: tuple[int, ...]) -> _Found | None:
        """A plan that serves these sizes."""
        for candidate in self.plans:
            values = candidate.plan.sizes.match(observed)
            if values is not None:
                return candidate, values, None
        return None

    def admit(self, expanded: Expanded, observed: tuple[int, ...]) -> Sizes:
        """The sizes of a plan for this record, and for as many earlier ones as possible."""
        for group in self.groups:
            sizes = unify([*group, observed])
            if is_settled(expanded, sizes):
                group.append(observed)
                return sizes
        self.groups.append([observed])
        return unify([observed])


_families: dict[tuple, dict[tuple[int, ...], _Family]] = {}
"""By rows without sizes and which of them renew a leaf, then by which of them are outputs."""
_bound: dict[tuple, Bound] = {}


def bind(record: Record, outputs: tuple[int, ...], renewing: tuple[int, ...] = ()) -> Bound:
    """The bound plan for these values of a record, some of which take the place of a leaf's."""
    key = (tuple(record.rows[:outputs[-1] + 1]), outputs, renewing, settings.fuse.value, settings.target.value)
    bound = _bound.get(key)
    if bound is None:
        with _uncollected():
            bound = _bound[key] = _bind(record, outputs, renewing)
    return bound


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's cyclic collector, which would look a dozen times at what is mostly made to stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def forget_plans() -> None:
    """Forgets every plan (see `realize.forget_plans`)."""
    _bound.clear()
    _families.clear()


def _bind(record: Record, outputs: tuple[int, ...], renewing: tuple[int, ...]) -> Bound:
    started = time.perf_counter()
    numbers = numbers_read(record, outputs)
    expanded = expand(record, outputs, numbers, renewing)
    observed = dimensions(expanded)
    rows, asked = structure(expanded)
    families = _families.setdefault((rows, expanded.renewing, settings.fuse.value, settings.target.value), {})
    family = families.setdefault(asked, _Family())
    found = family.serving(observed) or _with_more(families, asked, observed)
    if found is not None:
        loaded, values, wanted = found
        statistics.plans_bound += 1
        statistics.plan_seconds += time.perf_counter() - started
    else:
        sizes = family.admit(expanded, observed)
        matched = sizes.match(observed)
        assert matched is not None
        values, wanted = matched, None
        loaded = _load(expanded, sizes, values, started)
        family.plans.insert(0, loaded)
    bound = Bound(loaded, values, expanded, numbers, wanted)
    if loaded.plan.sizes.variables and settings.specialise.value:
        bound.successor = Specialisation(family.specialised, record, outputs, numbers, renewing)
    return bound


def _with_more(families: dict[tuple[int, ...], _Family], asked: tuple[int, ...], observed: tuple[int, ...]
               ) -> _Found | None:
    """A plan of the same rows that stores more than is asked for: it computes what it stores anyway. The last round of
    a loop, for which nothing comes any more, thus needs no plan of its own. Only plans that sizes which repeat would
    replace in time (see `specialising`)."""
    for outputs, family in families.items():
        if set(asked) < set(outputs):
            found = family.serving(observed)
            if found is not None and found[0].plan.sizes.variables:
                return *found[:2], [outputs.index(row) for row in asked]
    return None


def _load(expanded: Expanded, sizes: Sizes, values: tuple[int, ...], started: float) -> Loaded:
    build.start()
    machine = target()
    plan, generated = plan_of(expanded, sizes, values)
    statistics.plans_made += 1
    statistics.plan_seconds += time.perf_counter() - started
    compiled = build.statistics.kernels_compiled
    sources: dict[str, build.KernelSource] = {}
    for level, group in enumerate(generated):
        for order, kernel in enumerate(group):
            if kernel.symbol and kernel.symbol not in sources:
                description = _describe(plan, level, order)
                sources[kernel.symbol] = build.KernelSource(kernel.symbol, kernel.text, description)
    built = dict(zip(sources, build.build(list(sources.values()), machine), strict=True))
    addresses = [[built[kernel.symbol] if kernel.symbol else 0 for kernel in group] for group in generated]
    loaded = Loaded(plan, generated, addresses)
    made = PlanMade(loaded, started, time.perf_counter() - started, build.statistics.kernels_compiled - compiled)
    statistics.made_seconds += made.seconds
    _debug(made)
    tell(made)
    return loaded


def plan_of(expanded: Expanded, sizes: Sizes, values: tuple[int, ...]) -> tuple[Plan, list[list[Generated]]]:
    """A plan, and the text of its kernels, level by level."""
    machine = target()
    plan = make_plan(expanded, sizes, values, settings.fuse.value, machine.has_avx512_bf16)
    return plan, [[generate(kernel, machine, in_process=True) for kernel in level] for level in plan.memory.levels]


def _describe(plan: Plan, level: int, order: int) -> str:
    kernel = plan.memory.levels[level][order]
    return f"{'+'.join(kernel.names)} at {describe_place(kernel.places[0])}"


def _debug(made: PlanMade) -> None:
    level, plan, generated = settings.debug.value, made.loaded.plan, made.loaded.generated
    if level < 1:
        return
    print(f"[torturous] made {plan} ({made.compiled} kernels compiled, {made.seconds * 1e3:.0f} ms; "
          f"{statistics.plans_made} plans and {build.statistics.kernels_compiled} kernels in "
          f"{statistics.made_seconds:.2f} s so far)", file=sys.stderr)
    if level < 2:
        return
    for depth, (kernels, texts) in enumerate(zip(plan.memory.levels, generated, strict=True)):
        for kernel, text in zip(kernels, texts, strict=True):
            place = describe_place(kernel.places[0])
            print(f"[torturous]   level {depth}: {'+'.join(kernel.names)} {text.symbol} at {place}", file=sys.stderr)
            if level >= 3:
                print(kernel, file=sys.stderr)
            if level >= 4:
                print(text.text, file=sys.stderr)
            if level >= 5:
                source = build.KernelSource(text.symbol, text.text, "+".join(kernel.names))
                print(build.assembly(source, target()), file=sys.stderr)
