"""Every op's gradient rules, and theirs, against finite differences in float64.

Values come from the ops' NumPy meanings, so nothing is compiled: what is tested is the rules. That kernels
compute what the meanings say is tested elsewhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

import torturous.ir
from torturous.compiler.expand import expand
from torturous.core import dtypes, settings
from torturous.ir.attention import attend
from torturous.ir.contraction import Map, convolution, lone, matrix_product, transposed_convolution
from torturous.ir.interpret import interpret
from torturous.ir.op import BY_NAME, OPS
from torturous.ir.record import context
from torturous.ir.value import Typed, Value
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.autograd import run_grad
from torturous.tensor.creation import full
from torturous.tensor.tensor import Tensor, from_array

for _module in pkgutil.iter_modules(torturous.ir.__path__):
    importlib.import_module(f"torturous.ir.{_module.name}")

STEP = 1e-5


class Case(NamedTuple):
    """One way of recording an op: `build` gets a tensor for each array."""

    op: str
    build: Callable[..., Tensor]
    arrays: tuple[np.ndarray, ...]


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def smooth(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """Distinct values, in no order, none of which lies near another, near 0 or near a whole number."""
    count = int(np.prod(shape))
    values = low + (np.arange(count) + 0.5) * (high - low) / max(count, 1)
    near = np.abs(values - np.round(values)) < 0.03
    return generator(seed).permutation(values + 0.06 * near).reshape(shape)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    return smooth(*shape, low=0.3, high=2.7, seed=seed)


def elementwise(name: str, *arrays: np.ndarray) -> Case:
    return Case(name, lambda *tensors: apply(BY_NAME[name], *tensors), arrays)


def typed(
    name: str, shape: tuple[int, ...], attributes: Any, *arrays: np.ndarray, numbers: tuple = ()
) -> Case:
    """An op recorded with its type; Python numbers come after the tensors."""
    return Case(name, lambda *tensors: apply_typed(
        BY_NAME[name], shape, dtypes.float64, *tensors, *numbers, attributes=attributes), arrays)


def inferred(name: str, attributes: Any, *arrays: np.ndarray) -> Case:
    return Case(name, lambda *tensors: apply(BY_NAME[name], *tensors, attributes=attributes), arrays)


def cases() -> Iterator[Case]:
    for name in ("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "exp", "expm1", "sin", "cos", "tan",
                 "sinh", "cosh", "tanh", "sigmoid", "erf", "relu"):
        yield elementwise(name, smooth(2, 3, low=-1.4, high=1.4))
    for name in ("asin", "acos", "atan", "asinh", "atanh"):
        yield elementwise(name, smooth(2, 3, low=-0.8, high=0.8))
    yield elementwise("acosh", positive(2, 3) + 1.0)
    yield elementwise("atan2", smooth(2, 3), smooth(3, seed=1))
    for name in ("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal"):
        yield elementwise(name, positive(2, 3))
    for name in ("add", "sub", "mul", "maximum", "minimum", "clamp_min", "clamp_max", "relu_backward"):
        yield elementwise(name, smooth(2, 3), smooth(2, 3, seed=1) + 0.01)
        yield elementwise(name, smooth(2, 1), smooth(3, seed=1) + 0.01)
    for name in ("div", "pow", "fmod", "remainder", "floor_divide", "trunc_divide"):
        yield elementwise(name, positive(2, 3), positive(2, 3, seed=1) + 0.011)
        yield elementwise(name, positive(2, 1), positive(3, seed=1) + 0.011)
    yield elementwise("fused_multiply_add", smooth(2, 3), smooth(3, seed=1), smooth(2, 1, seed=2))
    yield elementwise("where", np.array([[True, False, True]]), smooth(2, 3), smooth(3, seed=1))
    yield typed("cast", (2, 3), (), smooth(2, 3))

    for keep in (False, True):
        for axes in ((0,), (1, 2), (0, 1, 2)):
            for name in ("sum", "prod", "amax", "amin"):
                yield inferred(name, (axes, keep), smooth(2, 3, 2))
        for name in ("first_max", "first_min"):
            yield inferred(name, ((1,), keep), smooth(2, 3, 2))
    with_zero = smooth(3, 3)
    with_zero[0, 1] = with_zero[2, 0] = with_zero[2, 2] = 0.0
    yield inferred("prod", ((1,), False), with_zero)

    yield typed("reshape", (3, 2), (), smooth(2, 3))
    yield inferred("permute", (2, 0, 1), smooth(2, 3, 2))
    yield typed("expand", (4, 2, 3), (), smooth(2, 1))
    yield typed("slice", (2, 2), ((0, 1), (1, 2)), smooth(3, 4), numbers=(1, 0))
    yield typed("pad", (4, 6), ((0, 1), (1, 2)), smooth(2, 3), numbers=(0.5, 1, 0))
    yield typed("insert", (4, 6), ((0, 1), (1, 2)), smooth(4, 6), smooth(2, 3, seed=1), numbers=(1, 0))
    yield inferred("flip", (1,), smooth(2, 3))
    yield inferred("part", (1, 2, 3), smooth(2, 6))
    yield inferred("concatenate", (1,), smooth(2, 3), smooth(2, 1, seed=1), smooth(2, 2, seed=2))
    yield typed("join", (2, 6), (1,), smooth(2, 3), smooth(2, 1, seed=1), smooth(2, 2, seed=2))
    yield typed("join", (2, 3, 2), (1,), smooth(2, 2), smooth(2, 2, seed=1), smooth(2, 2, seed=2))
    windows = ((1, 2, 2, 1, 1),)
    yield typed("window", (2, 3, 3), windows, smooth(2, 5, 3), numbers=(0.0,))
    yield typed("unwindow", (2, 5, 3), windows, smooth(2, 3, 3), numbers=(0.0,))
    yield inferred("alias", (), smooth(2, 3))
    yield inferred("write", (), smooth(2, 3))

    index = np.array([[1, 0], [2, 1]])
    yield inferred("take", (1,), smooth(2, 3), index)
    yield inferred("take_add", (0,), smooth(3, 2), np.array([2, 0, 2]), smooth(3, 2, seed=1))
    yield inferred("take_along", (1,), smooth(2, 3), index)
    yield inferred("take_along_add", (1,), smooth(2, 3), index, smooth(2, 2, seed=1))
    yield inferred("put", (0,), smooth(3, 2), np.array([2, 0]), smooth(2, 2, seed=1))
    yield inferred("put_along", (1,), smooth(2, 3), np.array([[1, 0], [2, 1]]), smooth(2, 2, seed=1))

    for reverse in (False, True):
        yield inferred("running_sum", (1, reverse), smooth(2, 4))
        yield inferred("recurrence", (1, reverse), smooth(2, 4), smooth(2, 4, seed=1))
        yield inferred("recurrence", (0, reverse), smooth(3, 2), smooth(3, 2, seed=1))

    yield typed("contract", (2, 2, 2), matrix_product(1), smooth(2, 2, 3), smooth(2, 3, 2, seed=1))
    yield typed("contract", (2, 3), (0, (lone(0),), (lone(1),)), smooth(2), smooth(3, seed=1))
    yield typed("contract", (2, 2, 2), convolution((2,), (1,), (2,), False),
                smooth(2, 1, 5), smooth(2, 1, 3, seed=1))
    yield typed("contract", (1, 1, 9), transposed_convolution((2,), (0,), (1,), False),
                smooth(1, 2, 4), smooth(2, 1, 3, seed=1))
    yield typed("contract", (2, 3), (1, (lone(0), Map(((2, 1),))), (Map(((2, 1),)), lone(1))),
                smooth(2, 4), smooth(4, 3, seed=1))
    yield typed("linear", (2, 2, 3), (), smooth(2, 2, 2), smooth(3, 2, seed=1), smooth(3, seed=2))
    for groups in (1, 2):
        for transposed in (False, True):
            at = (transposed, (2,), (1,), (1,), groups)
            x, weight = smooth(2, 2, 5), smooth(2, 2 // groups, 3, seed=1)
            length = (5 - 1) * 2 - 2 + 3 if transposed else 3
            yield typed("convolution", (2, 2, length), at, x, weight, smooth(2, seed=2))
            g = smooth(2, 2, length, seed=3)
            yield typed("convolution_input", (2, 2, 5), at, g, weight)
            yield typed("convolution_weight", weight.shape, at, g, x)
    for stride, padding in ((2, 0), (1, 1)):
        at = ((2,), (stride,), (padding,), (1,))
        length = (4 + 2 * padding - 2) // stride + 1
        taps = generator(4).integers(0, 2, (2, length)).astype(np.int32)
        if padding:
            taps[:, 0], taps[:, -1] = 1, 0
        yield typed("max_pool", (2, length), at, smooth(2, 4))
        yield typed("max_unpool", (2, 4), at, smooth(2, length), taps)
        yield typed("max_pick", (2, length), at, smooth(2, 4), taps)
        yield typed("window_sum", (2, length), at, smooth(2, 4))
        yield typed("window_spread", (2, 4), at, smooth(2, length))
        for padded in (False, True):
            yield typed("average_pool", (2, length), (*at, padded), smooth(2, 4))
            yield typed("average_spread", (2, 4), (*at, padded), smooth(2, length))
    yield inferred("inverse", (), smooth(2, 3, 3) + 3 * np.eye(3))
    yield from linear_algebra()
    for name in ("softmax", "log_softmax"):
        yield inferred(name, (1,), smooth(2, 3))
        y = np.exp(smooth(2, 3)) / np.exp(smooth(2, 3)).sum(1, keepdims=True)
        yield inferred(f"{name}_backward", (1,), smooth(2, 3, seed=1), y if name == "softmax" else np.log(y))
    for reduction in ("none", "sum", "mean"):
        classes = np.array([[1, 0], [2, 1]])
        shape = (2, 2) if reduction == "none" else ()
        for weights in ((), (positive(3, seed=5),)):
            def build(
                x: Tensor, chosen: Tensor, *weight: Tensor, shape: tuple = shape, at: str = reduction
            ) -> Tensor:
                return apply_typed(BY_NAME["nll"], shape, dtypes.float64, x, chosen, 0,
                                   *(w.detach() for w in weight), attributes=(at,))

            def build_gradient(g: Tensor, chosen: Tensor, *weight: Tensor, at: str = reduction) -> Tensor:
                return apply_typed(BY_NAME["nll_gradient"], (2, 3, 2), dtypes.float64, g, chosen, 0,
                                   *(w.detach() for w in weight), attributes=(at,))

            yield Case("nll", build, (smooth(2, 3, 2), classes, *weights))
            yield Case("nll_gradient", build_gradient, (smooth(*shape), classes, *weights))


    yield from normalization_cases()
    units = {"gelu": (), "gelu_tanh": (), "silu": (), "leaky_relu": (0.2,), "softplus": (1.3, 1.5),
             "hardtanh": (-0.9, 1.2), "exponential_unit": (0.7, 1.1, 1.3)}
    for name, numbers in units.items():
        yield typed(name, (2, 3), (), smooth(2, 3), numbers=numbers)
        yield typed(f"{name}_backward", (2, 3), (), smooth(2, 3, seed=1), smooth(2, 3), numbers=numbers)
    at = ((2, 2), (1, 2), (1, 0), (1, 1))
    yield typed("unfold", (1, 8, 8), at, smooth(1, 2, 3, 4))
    yield typed("fold", (1, 2, 3, 4), at, smooth(1, 8, 8))
    for axis, weight in ((1, positive(3)), (-1, positive(1))):
        x, g = smooth(2, 3, 2), smooth(2, 3, 2, seed=1)
        yield typed("prelu", (2, 3, 2), (axis,), x, weight)
        yield typed("prelu_backward", (2, 3, 2), (axis,), g, x, weight)
        yield typed("prelu_weight", weight.shape, (axis,), g, x)
    scores, g = smooth(2, 3, 4), smooth(2, 3, 4, seed=1)
    yield typed("attention_weights", (2, 3, 4), (True, "", True), scores, numbers=(0.7,))
    yield Case("attention_weights", lambda x, mask: apply_typed(
        BY_NAME["attention_weights"], (2, 3, 4), dtypes.float64, x, 0.7, mask,
        attributes=(False, "float", True)), (scores, smooth(3, 4, seed=2)))
    parts = smooth(2, 3, 4), smooth(2, 5, 4, seed=1), smooth(2, 5, 3, seed=2)
    for at in ((False, ""), (True, ""), (False, "float")):
        further = (smooth(2, 3, 5, seed=3),) if at[1] else ()
        yield Case("attention", lambda q, k, v, *mask, at=at: attend(
            q, k, v, apply_typed, 0.7, *mask, attributes=at), (*parts, *further))
    yield typed("attention_scores", (2, 3, 4), (), g, np.exp(scores) / 9, numbers=(0.7,))


def normalization_cases() -> Iterator[Case]:
    """NORMALIZE and its gradients, the statistics computed beside them from the same x, or given."""
    of_channels, of_rows, grouped = ((0, 2), (1,)), ((1, 2), (1, 2)), ((2,), (0, 2))
    for axes, spanned in (of_channels, of_rows, grouped):
        for statistics in ("mean and variance", "mean square", "given"):
            x = smooth(2, 3, 2)
            extents = tuple(x.shape[axis] for axis in spanned)
            weight, bias = smooth(*extents, seed=1), smooth(*extents, seed=2)
            at = (axes, spanned, statistics, False, False)

            def normalizing(name: str, shape: tuple[int, ...], at: tuple, first: bool = False) -> Callable[..., Tensor]:
                def build(*tensors: Tensor) -> Tensor:
                    g, (x, *parameters) = tensors[:first], tensors[first:]
                    kept = tuple(1 if axis in at[0] else size for axis, size in enumerate(x.shape))
                    if at[2] == "given":
                        mean, deviation = (from_array(positive(*kept, seed=seed)) for seed in (8, 9))
                    else:
                        mean = 0.0 if at[2] == "mean square" else apply_typed(
                            BY_NAME["statistics_mean"], kept, dtypes.float64, x, attributes=at[:1])
                        variance = apply_typed(
                            BY_NAME["statistics_variance"], kept, dtypes.float64, x, mean, attributes=at[:1])
                        deviation = apply_typed(BY_NAME["reciprocal_deviation"], kept, dtypes.float64, variance, 0.1)
                    return apply_typed(BY_NAME[name], shape, dtypes.float64, *g, x, mean, deviation, 0.1, *parameters,
                                       attributes=at)

                return build

            g = smooth(2, 3, 2, seed=3)
            yield Case("normalize", normalizing("normalize", x.shape, at), (x,))
            both = (*at[:3], True, True)
            yield Case("normalize", normalizing("normalize", x.shape, both), (x, weight, bias))
            yield Case("normalize", normalizing("normalize", x.shape, (*at[:3], False, True)), (x, bias))
            yield Case("normalize_input", normalizing("normalize_input", x.shape, at, True), (g, x))
            weighted = (*at[:3], True, False)
            yield Case("normalize_input", normalizing("normalize_input", x.shape, weighted, True), (g, x, weight))
            yield Case("normalize_weight", normalizing("normalize_weight", extents, at, True), (g, x))
        yield typed("normalize_bias", extents, at, g)


def linear_algebra() -> Iterator[Case]:
    square = smooth(2, 3, 3) + 3 * np.eye(3)
    yield typed("det", (2,), (), square)
    yield typed("slogdet", (2, 2), (), square)
    yield typed("solve", (2, 3, 2), (), square, smooth(2, 3, 2, seed=1))
    yield typed("qr", (2, 4 * 3 + 3 * 3), ("reduced",), smooth(2, 4, 3) + np.eye(4, 3) * 2)
    for m, n in ((3, 3), (4, 3), (3, 4)):
        k = min(m, n)
        yield typed("svd", (2, m * k + k + k * n), (), smooth(2, m, n) + np.diag([3.0, 2.0, 1.0, 0.5])[:m, :n] * 3)
        yield Case("pinv", lambda a, n=n, m=m: apply_typed(  # type: ignore[misc]
            BY_NAME["pinv"], (2, n, m), dtypes.float64, a, full((), 1e-9, dtype=dtypes.float64)), (smooth(2, m, n),))
    # Of what is symmetric one half is read, so the tests must not change a half alone.
    yield Case("cholesky", lambda a: apply_typed(
        BY_NAME["cholesky"], (2, 3, 3), dtypes.float64, a @ a.mT), (square,))
    yield Case("eigh", lambda a: apply_typed(
        BY_NAME["eigh"], (2, 3 + 9), dtypes.float64, a + a.mT, attributes=("L",)), (square + np.diag([0.0, 2.0, 4.0]),))


CASES = list(cases())
ELSEWHERE = {"replace": "in test_autograd: its rule is what in-place writes under no_grad do"}


def test_every_op_with_a_gradient_has_a_case() -> None:
    covered = {case.op for case in CASES} | ELSEWHERE.keys()
    assert {op.name for op in OPS if any(op.gradients)} - covered == set()


@pytest.fixture(autouse=True)
def pending() -> Iterator[None]:
    """Nothing is realized: the whole test is one record, which vanishes after it."""
    limit, settings.row_limit.value = settings.row_limit.value, 1 << 30
    context.renew()
    yield
    context.renew()
    settings.row_limit.value = limit


class Interpreted:
    """The values of some tensors as a function of the arrays of others, in NumPy."""

    def __init__(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        rows = [t.row() for t in outputs]
        record = context.record
        self.expanded = expand(record, rows)
        leaf = BY_NAME["leaf"].number
        leaf_rows = [index for index, row in enumerate(self.expanded.record.rows) if row[0] == leaf]
        self.leaves = {}
        self.position = {}
        for row, original in zip(leaf_rows, self.expanded.leaves, strict=True):
            kind = record.type_of(original)
            self.leaves[row] = record.values[original].array(kind.dtype.numpy, kind.shape)
            for number, t in enumerate(inputs):
                if t.row() == original:
                    self.position[number] = row

    def __call__(self, changed: int = -1, array: np.ndarray | None = None) -> list[np.ndarray]:
        leaves = dict(self.leaves)
        if changed in self.position:
            leaves[self.position[changed]] = array
        return interpret(self.expanded.record, leaves, self.expanded.outputs)

    def slope(self, changed: int, array: np.ndarray, direction: np.ndarray) -> list[np.ndarray]:
        """The outputs' derivatives along a direction of one input."""
        ahead, behind = (self(changed, array + sign * STEP * direction) for sign in (1, -1))
        return [(a - b) / (2 * STEP) for a, b in zip(ahead, behind, strict=True)]


def differentiable(case: Case, tensors: Sequence[Tensor]) -> list[int]:
    """Which operands have a gradient: what is floating and not said to be constant."""
    constant = 1 if case.op.startswith("nll") else len(tensors)
    return [k for k, t in enumerate(tensors) if t.dtype.is_floating_point and k <= constant]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.op}-{number}" for number, case in enumerate(CASES)])
def test_gradients_and_their_gradients(case: Case) -> None:
    tensors = [from_array(array) for array in case.arrays]
    wanted = differentiable(case, tensors)
    for k in wanted:
        tensors[k].requires_grad_()
    out = case.build(*tensors)
    assert out.requires_grad
    seed = from_array(smooth(*out.shape, seed=7)).requires_grad_()
    inputs = [tensors[k] for k in wanted]
    first = run_grad([out], [seed], True, True, inputs)
    value = Interpreted([out], tensors)
    picked = [g for g in first if g is not None]
    gradients = Interpreted(picked, [*tensors, seed])()
    assert picked
    weights = smooth(*out.shape, seed=7)
    at = iter(gradients)
    directions = {k: generator(11 + k).standard_normal(case.arrays[k].shape) for k in wanted}
    for k, g in zip(wanted, first, strict=True):
        slope = value.slope(k, case.arrays[k], directions[k])[0]
        analytic = np.zeros(case.arrays[k].shape) if g is None else next(at)
        assert analytic.shape == case.arrays[k].shape
        np.testing.assert_allclose(
            (analytic * directions[k]).sum(), (slope * weights).sum(), rtol=2e-6, atol=2e-8)

    # The gradient as a function of the operands and of the result's own gradient.
    tracked = [g for g in picked if g.requires_grad]
    if not tracked:
        return
    everything = [*inputs, seed]
    numbers = [*wanted, len(tensors)]
    seeds = [from_array(smooth(*g.shape, seed=20 + n)) for n, g in enumerate(tracked)]
    second = run_grad(tracked, seeds, True, False, everything)
    function = Interpreted(tracked, [*tensors, seed])
    arrays = [*case.arrays, weights]
    analytic_seconds = iter(Interpreted([g for g in second if g is not None], [])())
    for k, g in zip(numbers, second, strict=True):
        direction = generator(31 + k).standard_normal(arrays[k].shape)
        slopes = function.slope(k, arrays[k], direction)
        numeric = sum((slope * smooth(*slope.shape, seed=20 + n)).sum() for n, slope in enumerate(slopes))
        analytic = np.zeros(arrays[k].shape) if g is None else next(analytic_seconds)
        np.testing.assert_allclose((analytic * direction).sum(), numeric, rtol=2e-6, atol=2e-8)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.op}-{number}" for number, case in enumerate(CASES)])
def test_saved_values_suffice(case: Case) -> None:
    """Realizing after the forward pass keeps exactly what rules read: the gradient's rows are the same
    either way."""
    tensors = [from_array(array) for array in case.arrays]
    for k in differentiable(case, tensors):
        tensors[k].requires_grad_()
    out = case.build(*tensors)
    record, index = context.record, out.row()
    reads = record.read_rows([index])
    operands = record.rows[index][3:]
    op = BY_NAME[case.op]
    for position, rule in enumerate(op.gradients[:len(operands)]):
        operand = operands[position]
        if rule is None or operand < 0 or not record.tracked[operand]:
            continue
        values = [
            Value(record, o, None, False) if o < 0 or o in reads else Typed(record, record.type_of(o))
            for o in operands
        ]
        result = Value(record, index, None, False) if index in reads else Typed(record, record.type_of(index))
        g = from_array(np.ones(out.shape))
        rule(Value(record, g.row(), None, False), result, record.rows[index][1], *values)


def test_a_rule_that_reads_what_is_not_saved_is_found() -> None:
    x = from_array(smooth(2, 3))
    value = Value(context.record, x.row(), None, False)
    unsaved = Typed(context.record, value.type)
    with pytest.raises(TypeError, match="does not save"):
        value * unsaved  # type: ignore[operator]
    with pytest.raises(AttributeError):
        unsaved.exp()  # type: ignore[attr-defined]


# What attention reads is in nn/test_attention_rows: its kernels are for float32 alone.
FIRST_CASES = [case for case in {case.op: case for case in reversed(CASES)}.values() if case.op != "attention"]


@pytest.mark.parametrize("case", FIRST_CASES, ids=[case.op for case in FIRST_CASES])
def test_looking_between_forward_and_backward_changes_no_bit(case: Case) -> None:
    results = []
    for look in (False, True):
        tensors = [from_array(array) for array in case.arrays]
        wanted = [tensors[k].requires_grad_() for k in differentiable(case, tensors)]
        out = case.build(*tensors)
        if look:
            out.tolist()
        seed = from_array(smooth(*out.shape, seed=7))
        gradients = run_grad([out], [seed], False, False, wanted)
        results.append([None if g is None else g.numpy().copy() for g in gradients])
    for plain, looked_at in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, looked_at)
