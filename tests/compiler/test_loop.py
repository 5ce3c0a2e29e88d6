"""Loops: against the same steps recorded one by one, bit for bit, and against their meaning in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from compiler.oracle import CONFIGURATIONS, Program, assert_same, configured
from compiler.verify import verify
from hypothesis import given, settings
from hypothesis import strategies as st

from torturous.compiler.expand import expand
from torturous.compiler.graph import dimensions, unify
from torturous.compiler.plan import Plan, make_plan
from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.ir.body import BODIES, trace
from torturous.ir.contraction import CONTRACT, matrix_product
from torturous.ir.loop import record_loop
from torturous.ir.op import OPS, Kind, Type
from torturous.ir.value import Value
from torturous.runtime import build

Values = Sequence[Value]


def product(a: Value, b: Value) -> Value:
    return a.apply_typed(CONTRACT, (a.shape[0], b.shape[1]), a.dtype, b, attributes=matrix_product(0))


def cell(carried: Values, slices: Values, fixed: Values) -> tuple[Values, Values]:
    """A long short-term memory, with a number in it."""
    (h, c), (x,), (w, bias) = carried, slices, fixed
    gates = product(h, w) + x + bias
    i, f, o, n = (gates.part(1, which, 4) for which in range(4))
    c = f.sigmoid() * c + i.sigmoid() * n.tanh()
    h = o.sigmoid() * c.tanh() * 1.25
    return [h, c], [h, i]


def crossing(carried: Values, slices: Values, fixed: Values) -> tuple[Values, Values]:
    """Carried values that change places, one that nobody reads, and a leaf that is stacked as it is."""
    (a, b, _), (x, y), (scale,) = carried, slices, fixed
    return [b, a * scale + x, x.exp()], [a, y, scale, b * y]


def reducing(carried: Values, slices: Values, fixed: Values) -> tuple[Values, Values]:
    """Reductions, a scalar that is carried, and a shape that broadcasts."""
    (mean, total), (x,), (offset,) = carried, slices, fixed
    x = x * offset + mean
    return [x.sum((0,)) * 0.25, total + x.amax((0, 1), False)], [x.sum((1,), True)]


class Case:
    """A step with the operands of a loop over it."""

    def __init__(self, p: Program, name: str, steps: int, size: int = 5) -> None:
        self.p, self.steps = p, steps
        self.step = {"cell": cell, "crossing": crossing, "reducing": reducing}[name]
        if name == "cell":
            self.carried = [p.normal(3, size), p.normal(3, size)]
            self.stacked = [p.normal(steps, 3, 4 * size)]
            self.fixed = [p.normal(size, 4 * size), p.normal(4 * size)]
        elif name == "crossing":
            self.carried = [p.normal(2, size) for _ in range(3)]
            self.stacked = [p.normal(steps, 2, size), p.normal(steps, 2, size)]
            self.fixed = [p.normal(2, size)]
        else:
            self.carried = [p.normal(size), p.normal()]
            self.stacked = [p.normal(steps, 4, size)]
            self.fixed = [p.normal(4, 1)]

    def loop(self, reverse: bool) -> list[Value]:
        slices = [Type(value.shape[1:], value.dtype) for value in self.stacked]
        traced = trace(self.step, [v.type for v in self.carried], slices, [v.type for v in self.fixed])
        numbers = [self.p.number(number) for number in traced.numbers]
        finals, stacks = record_loop(
            traced.body, self.steps, numbers, self.carried, self.stacked, self.fixed, reverse)
        return finals + stacks

    def unrolled(self, reverse: bool) -> list[Value]:
        carried: Values = self.carried
        made: list[Values] = []
        for step in range(self.steps):
            place = self.steps - 1 - step if reverse else step
            slices = [
                value.slice((1, *value.shape[1:]), (0,), (1,), (place,)).reshape(value.shape[1:])
                for value in self.stacked
            ]
            carried, results = self.step(carried, slices, self.fixed)
            made.append(results)
        if reverse:
            made.reverse()
        stacks = []
        for parts in zip(*made, strict=True):
            first, *rest = (part.reshape((1, *part.shape)) for part in parts)
            stacks.append(first.concatenate(0, *rest) if rest else first)
        return [*carried, *stacks]


NAMES = ["cell", "crossing", "reducing"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_loop_has_the_bits_of_its_steps(name: str, steps: int, reverse: bool) -> None:
    p = Program()
    case = Case(p, name, steps)
    want = p.compiled(case.unrolled(reverse))
    outputs = case.loop(reverse)
    for label, configuration in CONFIGURATIONS.items():
        with configured(**configuration):
            assert_same(label, p.compiled(outputs), want)
    for got, meant in zip(want, p.interpreted(outputs), strict=True):
        np.testing.assert_allclose(got, meant, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_values_may_be_asked_for(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    reverse = data.draw(st.booleans())
    p = Program(data.draw(st.integers(0, 99)))
    case = Case(p, name, data.draw(st.integers(1, 4)))
    outputs = case.loop(reverse)
    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(outputs))), min_size=1)))
    outputs = [outputs[position] for position in chosen]
    for got, meant in zip(p.compiled(outputs), p.interpreted(outputs), strict=True):
        np.testing.assert_allclose(got, meant, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_of_steps_and_sizes_are_the_same_kernels(name: str) -> None:
    for steps, size in ((3, 5), (4, 6)):
        p = Program()
        p.compiled(Case(p, name, steps, size).loop(False))
    before = build.statistics.kernels_compiled + build.statistics.memory_hits + build.statistics.cache_hits
    for steps, size in ((7, 9), (1, 2), (40, 3)):
        p = Program()
        outputs = Case(p, name, steps, size).loop(False)
        for got, meant in zip(p.compiled(outputs), p.interpreted(outputs), strict=True):
            np.testing.assert_allclose(got, meant, rtol=1e-4, atol=1e-4)
    after = build.statistics.kernels_compiled + build.statistics.memory_hits + build.statistics.cache_hits
    assert after == before


def test_loops_one_after_the_other() -> None:
    p = Program()
    case = Case(p, "cell", 4)
    first = case.loop(False)
    again = Case(p, "cell", 4)
    again.carried, again.fixed = [first[0] * 2.0, first[1]], case.fixed
    again.stacked = [case.stacked[0] + first[3].sum((2,), True) * 0.5]
    outputs = [*again.loop(True), first[2]]
    for got, meant in zip(p.compiled(outputs), p.interpreted(outputs), strict=True):
        np.testing.assert_allclose(got, meant, rtol=1e-4, atol=1e-5)


# The plan -------------------------------------------------------------------------------------------------------
def plan_of(outputs: Values) -> Plan:
    what = expand(outputs[0].record, [value.index for value in outputs])
    plan = make_plan(what, unify([dimensions(what)]), (), True)
    verify(plan)
    return plan


def test_what_nobody_asks_for_is_not_computed() -> None:
    p = Program()
    outputs = Case(p, "crossing", 3).loop(False)
    for position, carried, stacked in ((2, 1, 0), (0, 2, 0), (4, 0, 1), (6, 2, 1)):
        expanded = expand(p.record, [outputs[position].index])
        (repeat,) = [row for row in expanded.record.rows if OPS[row[0]].kind is Kind.REPEAT]
        assert (len(repeat[1][2]), len(repeat[1][5])) == (carried, stacked)


def test_a_stack_of_a_carried_value_is_its_history_and_copied_nowhere() -> None:
    p = Program()
    outputs = Case(p, "cell", 6).loop(False)
    plan = plan_of([outputs[0], outputs[2]])
    (repeated,) = plan.memory.repeated
    written = [store.buffer for kernel in repeated.repetition.kernels for store in kernel.stores]
    shapes = sorted(tuple(map(repr, item.shape)) for item in repeated.repetition.items)
    assert ("7", "3", "5") in shapes  # Where h started, then six steps.
    assert len(written) == len(set(written))
    assert not any("copy" in kernel.names for kernel in repeated.repetition.kernels)


# What is refused ------------------------------------------------------------------------------------------------
def test_a_carried_value_keeps_its_type() -> None:
    p = Program()
    h, x = p.normal(3), p.normal(4, 3)
    with pytest.raises(RuntimeError, match="carried value 0 is float32"):
        trace(lambda c, s, f: ([c[0].to(dtypes.float64)], []), [h.type], [Type((3,), x.dtype)], [])


def test_loops_do_not_nest() -> None:
    p = Program()
    case = Case(p, "cell", 2)
    inner = trace(cell, [v.type for v in case.carried], [Type((3, 20), dtypes.float32)], [v.type for v in case.fixed])

    def outer(carried: Values, slices: Values, fixed: Values) -> tuple[Values, Values]:
        numbers = [carried[0].slot(number) for number in inner.numbers]
        finals, _ = record_loop(inner.body, 2, numbers, carried, slices, fixed)
        return finals, []

    with pytest.raises(UnsupportedError, match="within a loop"):
        trace(outer, [v.type for v in case.carried], [Type((2, 3, 20), dtypes.float32)], [v.type for v in case.fixed])


def test_operands_must_be_what_the_body_was_recorded_for() -> None:
    p = Program()
    case = Case(p, "crossing", 3)
    traced = trace(crossing, [v.type for v in case.carried], [Type((2, 5), dtypes.float32)] * 2, [case.fixed[0].type])
    with pytest.raises(RuntimeError, match="operand 0 is float64"):
        record_loop(traced.body, 3, [], [case.carried[0].to(dtypes.float64), *case.carried[1:]], case.stacked,
                    case.fixed)
    with pytest.raises(RuntimeError, match="at least one step"):
        record_loop(traced.body, 0, [], case.carried, [p.normal(0, 2, 5)] * 2, case.fixed)
    assert BODIES[traced.body].carried == 3
