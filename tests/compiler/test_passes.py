"""The compiler's passes, record in and plan out: nothing here is compiled or run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from compiler.oracle import Program
from compiler.verify import InvalidPlan, verify
from hypothesis import given, settings
from hypothesis import strategies as st

from torturous.compiler.expand import Expanded, expand
from torturous.compiler.graph import build, dimensions, is_settled, structure, unify
from torturous.compiler.kernel import Kernel
from torturous.compiler.memory import read_by
from torturous.compiler.plan import Plan, make_plan
from torturous.core import dtypes
from torturous.ir import contraction, macros, movement, reduction
from torturous.ir.op import OPS, Kind
from torturous.ir.value import Value


def expanded(outputs: Sequence[Value]) -> Expanded:
    return expand(outputs[0].record, [value.index for value in outputs])


def plan_of(outputs: Sequence[Value], fused: bool = True) -> Plan:
    """The plan for these values with constant sizes."""
    what = expanded(outputs)
    plan = make_plan(what, unify([dimensions(what)]), (), fused)
    verify(plan)
    return plan


def symbolic_plan(first: Sequence[Value], second: Sequence[Value]) -> Plan:
    """The plan that serves two records of one structure."""
    both = [expanded(first), expanded(second)]
    assert structure(both[0]) == structure(both[1])
    sizes = unify([dimensions(one) for one in both])
    values = sizes.match(dimensions(both[1]))
    assert values is not None
    plan = make_plan(both[1], sizes, values, True)
    verify(plan)
    return plan


def kernels(plan: Plan) -> list[Kernel]:
    return [kernel for level in plan.memory.levels for kernel in level]


def product(p: Program, a: Value, b: Value) -> Value:
    return p.apply_typed(
        contraction.CONTRACT,
        (a.shape[0], b.shape[1]),
        a.dtype,
        a,
        b,
        attributes=contraction.matrix_product(0),
    )


# Expand -----------------------------------------------------------------------------------------------------
def test_expansion_leaves_no_macro_and_nothing_unwanted() -> None:
    p = Program()
    x, unused = p.normal(2, 3, 8, 8), p.normal(5)
    unwanted = unused * 2.0
    pooled = p.apply_typed(
        macros.MAX_POOL, (2, 3, 4, 4), dtypes.float32, x, attributes=((2, 2), (2, 2), (0, 0), (1, 1))
    )
    soft = p.apply(macros.SOFTMAX, pooled, attributes=(3,))
    result = expanded([soft])
    kinds = {OPS[row[0]].kind for row in result.record.rows}
    assert Kind.MACRO not in kinds and Kind.ITEM not in kinds
    assert result.leaves == (x.index,)
    assert sum(OPS[row[0]].kind is Kind.LEAF for row in result.record.rows) == 1
    assert result.record.slots[: len(p.record.slots)] == p.record.slots
    assert unwanted.index not in result.leaves


def test_expansion_keeps_the_order_and_type_of_outputs() -> None:
    p = Program()
    x = p.normal(4, 6)
    outputs = [x.sum((0,)), p.apply(macros.LOG_SOFTMAX, x, attributes=(1,)), x * x, x.sum((0,))]
    result = expanded(outputs)
    types = [result.record.type_of(row) for row in result.outputs]
    assert types == [value.type for value in outputs]


# Sizes ------------------------------------------------------------------------------------------------------
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 4), min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_unified_sizes_fit_all_samples(samples: list[list[int]]) -> None:
    sizes = unify(samples)
    for sample in samples:
        values = sizes.match(sample)
        assert values is not None
        assert [want if want >= 0 else values[~want] for want in sizes.template] == sample
    columns = list(zip(*samples, strict=True))
    assert sizes.variables == len({column for column in columns if len(set(column)) > 1})


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.data())
def test_sizes_that_were_always_equal_must_stay_equal(sample: list[int], data: st.DataObject) -> None:
    sizes = unify([sample, [size + 5 for size in sample]])
    other = data.draw(st.lists(st.integers(0, 3), min_size=len(sample), max_size=len(sample)))
    consistent = all(
        a == b for i, a in enumerate(other) for j, b in enumerate(other) if sample[i] == sample[j]
    )
    assert (sizes.match(other) is not None) == consistent


def test_an_axis_that_may_broadcast_or_not_does_not_unify() -> None:
    def record(n: int, m: int) -> Expanded:
        p = Program()
        return expanded([p.normal(n) + p.normal(m)])

    def unified(*records: Expanded) -> bool:
        return is_settled(records[0], unify(list(map(dimensions, records))))

    assert structure(record(4, 4)) == structure(record(4, 1))
    assert not unified(record(4, 4), record(4, 1))
    assert unified(record(4, 1), record(7, 1))
    assert unified(record(4, 1), record(1, 1))
    assert unified(record(4, 4), record(1, 1))


def test_one_plan_serves_other_sizes() -> None:
    def record(n: int, m: int) -> list[Value]:
        p = Program()
        x = p.normal(n, m)
        return [((x * 2.0).permute((1, 0)) + 1.0).sum((1,)), product(p, x, p.normal(m, 5))]

    plan = symbolic_plan(record(3, 7), record(4, 9))
    assert plan.sizes.variables == 2
    assert plan.sizes.match(dimensions(expanded(record(20, 33)))) == (20, 33)


# Fusion -----------------------------------------------------------------------------------------------------
def test_a_chain_is_one_kernel_and_without_fusion_one_for_each_row() -> None:
    p = Program()
    x, y = p.normal(8, 9), p.normal(9)
    value = ((x + y) * 2.0 - x).relu().permute((1, 0)).apply(movement.FLIP, attributes=(0,)) + 1.0
    assert len(kernels(plan_of([value]))) == 1
    rows = [row for row in p.record.rows if OPS[row[0]].kind is not Kind.LEAF]
    names = [kernel.names[-1] for kernel in kernels(plan_of([value], fused=False))]
    assert sorted(names) == sorted(OPS[row[0]].name for row in rows)


def test_products_and_sums_take_what_follows_them() -> None:
    p = Program()
    a, b, bias = p.normal(6, 7), p.normal(7, 8), p.normal(8)
    layer = (product(p, a, b) + bias).relu()
    assert len(kernels(plan_of([layer]))) == 1
    mean = (a * a).sum((1,)) * 0.5 + 1.0
    assert len(kernels(plan_of([mean]))) == 1


def test_an_epilogue_ends_where_a_value_is_needed_twice() -> None:
    p = Program()
    total = p.normal(6, 7).sum((1,))
    plan = plan_of([total * 2.0, total + 1.0])
    made = [kernel for kernel in kernels(plan) if kernel.accumulators]
    assert len(made) == 1, "the sum is computed once"


def test_what_is_dear_is_stored_and_what_is_cheap_is_computed_again() -> None:
    def stores(cheap: bool) -> int:
        p = Program()
        x = p.normal(40, 50)
        shared = x + 1.0 if cheap else x.exp().sin()
        plan = plan_of([shared.sum((0,)), shared.sum((1,))])
        assert len(kernels(plan)) == 2  # What is stored is stored by the first kernel that computes it.
        return sum(len(kernel.stores) for kernel in kernels(plan))

    assert stores(cheap=True) == 2
    assert stores(cheap=False) == 3


def test_gradients_of_pooling_are_read_across_memory_once() -> None:
    """Between a linear layer and a convolution, whose samples are lanes: no two copies, and no gathers for each tap."""
    p = Program()
    image, weight = p.normal(32, 3, 12, 12), p.normal(4, 3, 5, 5)
    convolved = image.apply_typed(
        macros.CONVOLUTION, (32, 4, 8, 8), image.dtype, weight, attributes=(False, (1, 1), (0, 0), (1, 1), 1))
    pooling = ((2, 2), (2, 2), (0, 0), (1, 1))
    pooled = convolved.apply_typed(macros.MAX_POOL, (32, 4, 4, 4), image.dtype, attributes=pooling).relu()
    g = product(p, pooled.reshape((32, 64)), p.normal(64, 64)).reshape((32, 4, 4, 4)).relu_backward(pooled)
    tap = convolved.apply_typed(macros.MAX_POOL_TAP, (32, 4, 4, 4), dtypes.int32, attributes=pooling)
    back = g.apply_typed(macros.MAX_UNPOOL, convolved.shape, image.dtype, tap, attributes=pooling)
    scaled = back * p.normal(32, 4, 1, 1)
    gradient = scaled.apply_typed(
        macros.CONVOLUTION_WEIGHT, weight.shape, weight.dtype, image, attributes=(False, (1, 1), (0, 0), (1, 1), 1))
    names = [kernel.names for kernel in kernels(plan_of([gradient, scaled.sum((0, 2, 3))]))]
    assert ["permute"] not in names
    assert ["contract", "relu_backward"] in names


def test_outputs_have_buffers_of_their_own() -> None:
    p = Program()
    x = p.normal(4, 5)
    y = x + 1.0
    plan = plan_of([x, y, y.reshape((20,)), x.reshape((2, 10)), y])
    assert len(set(plan.outputs)) == 5
    assert not set(plan.outputs) & set(plan.leaves)


# Schedule ---------------------------------------------------------------------------------------------------
def test_axes_that_lie_in_memory_as_one_are_merged() -> None:
    p = Program()
    x, y, row = p.normal(3, 4, 5), p.normal(3, 4, 5), p.normal(5)
    [straight] = kernels(plan_of([x * y]))
    assert [axis.constant for axis in straight.axes] == [60]
    [broadcast] = kernels(plan_of([x * row]))
    assert [axis.constant for axis in broadcast.axes] == [12, 5]
    [turned] = kernels(plan_of([x.permute((0, 2, 1)) * p.normal(3, 5, 4)]))
    assert len(turned.axes) == 3
    [thin] = kernels(plan_of([p.normal(1, 6, 1) + 1.0]))
    assert [axis.constant for axis in thin.axes] == [6]


@pytest.mark.parametrize(
    "axes", [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 3), (0, 1, 3), (0, 1, 2, 3)], ids=str
)
def test_reductions_have_an_inner_run_and_at_most_one_outer(axes: tuple[int, ...]) -> None:
    p = Program()
    shape = (2, 3, 4, 5)
    [kernel] = kernels(plan_of([p.normal(*shape).sum(axes)]))
    outer, inner = reduction.ordered_runs(axes)
    assert len(kernel.reduced) == (2 if outer else 1)
    assert kernel.outer_runs == bool(outer)
    assert kernel.reduced[-1].constant == np.prod([shape[axis] for axis in inner])


# Memory -----------------------------------------------------------------------------------------------------
def test_a_chain_of_reductions_reuses_its_slots() -> None:
    p = Program()
    x = p.normal(64, 64)
    for _ in range(10):
        x = product(p, x, x)
    plan = plan_of([x])
    assert len(plan.memory.levels) == 10
    assert len(plan.memory.slots) <= 2


def test_what_is_made_of_leaves_alone_waits_until_it_is_read() -> None:
    """Relaid weights of a deep net: one slot serves them all, and none of it is alive from the beginning."""
    p = Program()
    x, at = p.normal(1, 8, 16, 16), (False, (1, 1), (1, 1), (1, 1), 1)
    for _ in range(6):
        x = p.apply_typed(macros.CONVOLUTION, x.shape, x.dtype, x, p.normal(8, 8, 3, 3), attributes=at).relu()
    plan = plan_of([x])
    relays = [level for level, group in enumerate(plan.memory.levels) for kernel in group if "relay" in kernel.names]
    readers = [level for level, group in enumerate(plan.memory.levels) for kernel in group if kernel.product]
    assert relays == [level - 1 for level in readers]
    weights = [slot for slot in plan.memory.slots if any(size == 8 * 8 * 9 * 4 for size in slot.sizes)]
    assert len(weights) <= 2


def test_nothing_small_sits_in_a_large_slot() -> None:
    p = Program()
    x = p.normal(256, 256)
    for _ in range(3):
        large = product(p, x, x)
        small = product(p, large.slice((4, 4), (0, 1), (0, 0), (1, 1)), p.normal(4, 4))
        x = product(p, large, large)
    plan = plan_of([product(p, product(p, small, small), small), x])
    for value, number in plan.memory.slot_of.items():
        sizes = {size.constant for size in plan.memory.slots[number].sizes}
        assert len(sizes) == 1, f"{value} shares a slot of sizes {sizes}"


def combined(p: Program, kind: int, x: Value, y: Value, axis: int) -> Value:
    """One of eight things to do with values of shape (6, 6)."""
    return (
        lambda: x + y,
        lambda: (x * 2.0).exp(),
        lambda: product(p, x, y),
        lambda: x.permute((1, 0)),
        lambda: x.sum((axis,), True).expand((6, 6)),
        lambda: x.reshape((36,)).reshape((6, 6)),
        lambda: x.insert(y.slice((2, 6), (0,), (1,), (1,)), (0,), (2,), (1,)),
        lambda: p.apply(macros.SOFTMAX, x, attributes=(1,)),
    )[kind]()


node = st.tuples(st.integers(0, 7), st.integers(0, 30), st.integers(0, 30))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(node, min_size=1, max_size=25),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.booleans(),
)
def test_plans_of_random_graphs_are_valid(
    steps: list[tuple[int, int, int]], wanted: list[int], fused: bool
) -> None:
    """Levels, buffers and memory: `verify` looks at each plan."""
    p = Program()
    values = [p.leaf(np.zeros((6, 6), np.float32)), p.leaf(np.zeros((6, 6), np.float32))]
    for kind, i, j in steps:
        values.append(combined(p, kind, values[i % len(values)], values[j % len(values)], j % 2))
    plan_of([values[2 + w % (len(values) - 2)] for w in wanted], fused)


# The verifier itself ----------------------------------------------------------------------------------------
def levels_plan() -> Plan:
    p = Program()
    x = p.normal(8, 8)
    first, second = product(p, x, x), product(p, x, x + 1.0)
    return plan_of([product(p, product(p, first, second), first)])


def test_the_verifier_finds_kernels_in_the_wrong_order() -> None:
    plan = levels_plan()
    plan.memory.levels.reverse()
    with pytest.raises(InvalidPlan, match="before it is written"):
        verify(plan)


def test_the_verifier_finds_values_that_share_memory() -> None:
    plan = levels_plan()
    assert len(plan.memory.slots) > 1
    for value in plan.memory.slot_of:
        plan.memory.slot_of[value] = 0
    with pytest.raises(InvalidPlan, match="share memory"):
        verify(plan)


def test_the_verifier_finds_what_is_written_twice_or_never() -> None:
    plan = levels_plan()
    plan.memory.levels[-1].append(plan.memory.levels[-1][0])
    with pytest.raises(InvalidPlan, match="written twice"):
        verify(plan)
    plan = levels_plan()
    last = plan.memory.levels.pop()
    assert read_by(last[0])
    with pytest.raises(InvalidPlan, match="not written"):
        verify(plan)


def test_a_graph_drops_rows_that_stand_for_others() -> None:
    p = Program()
    x = p.normal(3, 4)
    same = x.reshape((3, 4)).apply(movement.ALIAS).expand((3, 4)).to(dtypes.float32)
    what = expanded([same * 2.0])
    graph = build(what, unify([dimensions(what)]), ())
    assert [node.op.name for node in graph.nodes] == ["leaf", "mul"]
