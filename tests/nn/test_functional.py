"""The functions of `torturous.nn.functional` against PyTorch's: values, gradients, masks, errors."""

from __future__ import annotations

import random as choices
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as theirs_F

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.ir.record import context
from torturous.nn import functional as F
from torturous.tensor.generator import manual_seed
from torturous.tensor.tensor import from_array
from torturous.tensor.values import computed_values

TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def both(array: Any, dtype: str | None = None, grad: bool = False) -> tuple[Any, Any]:
    """The same values as a torturous and a torch tensor, in `dtype` if they are floating."""
    array = np.asarray(array)
    mine = from_array(array if dtype is None else array.astype(dtypes.by_name(dtype).numpy))
    theirs = torch.tensor(array) if dtype is None else torch.tensor(array).to(getattr(torch, dtype))
    if grad:
        return mine.requires_grad_(), theirs.requires_grad_()
    return mine, theirs


def values(t: Any) -> np.ndarray:
    """Any tensor's values in float64 (or as they are, if integers)."""
    if isinstance(t, torch.Tensor):
        t = t.detach()
        return (t.double() if t.is_floating_point() else t).numpy()
    array = computed_values(t)
    return array.astype(np.float64) if t.dtype.is_floating_point else array.copy()


def assert_close(mine: Any, theirs: torch.Tensor, what: str = "", scale: float = 1.0) -> None:
    assert tuple(mine.shape) == tuple(theirs.shape), what
    assert str(mine.dtype) == str(theirs.dtype), what
    tolerance = scale * TOLERANCE.get(mine.dtype.name, 0)
    np.testing.assert_allclose(values(mine), values(theirs), rtol=tolerance, atol=tolerance, err_msg=what)


def check(call: Callable[..., Any], *arrays: Any, dtype: str = "float64", scale: float = 1.0) -> None:
    """`call(F, *tensors)` gives the same in both, and so do the gradients of the floating arrays."""
    rng = np.random.default_rng(99)
    pairs = [
        both(a, dtype if np.asarray(a).dtype.kind == "f" else None, np.asarray(a).dtype.kind == "f")
        for a in arrays
    ]
    mine, theirs = call(F, *[p[0] for p in pairs]), call(theirs_F, *[p[1] for p in pairs])
    assert_close(mine, theirs, "value", scale)
    if not theirs.requires_grad:
        return
    seed = rng.normal(size=tuple(theirs.shape))
    seeds = both(seed, dtype)
    mine.backward(seeds[0])
    theirs.backward(seeds[1])
    for number, (ours, other) in enumerate(pairs):
        if other.grad is not None:
            assert_close(ours.grad, other.grad, f"gradient of operand {number}", scale)


# Activations ------------------------------------------------------------------------------------------------
ACTIVATIONS: list[tuple[str, dict[str, Any]]] = [
    ("relu", {}),
    ("relu6", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {"alpha": 0.7}),
    ("selu", {}),
    ("celu", {"alpha": 1.5}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("mish", {}),
    ("sigmoid", {}),
    ("tanh", {}),
    ("softplus", {}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("hardtanh", {}),
    ("hardtanh", {"min_val": -2.0, "max_val": 0.5}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("logsigmoid", {}),
    ("threshold", {"threshold": 0.1, "value": 20.0}),
    ("softsign", {}),
    ("tanhshrink", {}),
    ("softshrink", {}),
    ("hardshrink", {"lambd": 1.0}),
    ("softmin", {"dim": 1}),
    ("softmax", {"dim": 0}),
    ("log_softmax", {"dim": 1}),
    ("log_softmax", {"dim": -2}),
    ("glu", {"dim": 1}),
]
NAMES = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options in ACTIVATIONS]


@pytest.mark.parametrize("name, options", ACTIVATIONS, ids=NAMES)
def test_activations(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(len(name))
    special = np.array(
        [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 30.0, -30.0, 800.0, -800.0, 2.0, 0.1, -0.1]
    )
    x = np.concatenate([rng.normal(size=32) * 3, special]).reshape(6, 8)
    if name == "logsigmoid" or (name == "softplus" and options):
        x = np.clip(x, -700, 700)
    # PyTorch's gradient of hardsigmoid takes a sixth in float32 even in float64.
    for dtype, scale in (("float64", 1e5 if name == "hardsigmoid" else 1.0), ("float32", 1.0)):
        check(lambda F, x: getattr(F, name)(x, **options), x, dtype=dtype, scale=scale)


@pytest.mark.parametrize("name, options", ACTIVATIONS, ids=NAMES)
def test_activations_of_what_is_not_finite(name: str, options: dict[str, Any]) -> None:
    x = np.array([[np.inf, -np.inf, np.nan, 1.0], [0.5, 2.0, -1.0, 0.0]])
    if name == "gelu":
        x[0, 0] = 0  # PyTorch's vector code makes NaN of infinity, its scalar code infinity.
    mine, theirs = both(x, "float32")
    np.testing.assert_array_equal(
        np.isnan(values(getattr(F, name)(mine, **options))),
        np.isnan(values(getattr(theirs_F, name)(theirs, **options))),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "leaky_relu", "sigmoid", "hardswish"])
def test_activations_of_halves(name: str, dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(5, 9)) * 2
    check(lambda F, x: getattr(F, name)(x), x, dtype=dtype)


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "elu",
        "selu",
        "celu",
        "silu",
        "mish",
        "hardtanh",
        "hardsigmoid",
        "hardswish",
        "relu6",
        "leaky_relu",
    ],
)
def test_activations_in_place(name: str) -> None:
    x = np.random.default_rng(2).normal(size=(4, 6)) * 3
    mine, theirs = both(x, "float32", True)
    work, work_theirs = mine * 1, theirs * 1
    result = getattr(F, name)(work, inplace=True)
    getattr(theirs_F, name)(work_theirs, inplace=True)
    assert result is work
    assert_close(work, work_theirs)
    work.sum().backward()
    work_theirs.sum().backward()
    assert_close(mine.grad, theirs.grad)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        getattr(F, name)(mine, inplace=True)


@pytest.mark.parametrize("shape, count", [((5, 4), 4), ((2, 4, 3), 4), ((7,), 1), ((2, 3, 4, 5), 1)])
def test_prelu(shape: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(3)
    check(lambda F, x, w: F.prelu(x, w), rng.normal(size=shape), rng.normal(size=count))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4])
def test_softmax_without_dim_warns_at_the_users_line(name: str, rank: int) -> None:
    x = np.random.default_rng(rank).normal(size=(3, 4, 2, 5)[:rank])
    mine, theirs = both(x, "float64")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = getattr(F, name)(mine)
    assert [str(w.message) for w in caught] == [
        f"Implicit dimension choice for {name} has been deprecated. "
        "Change the call to include dim=X as an argument."
    ]
    assert caught[0].category is UserWarning and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_close(result, getattr(theirs_F, name)(theirs))


def test_softmax_in_another_dtype() -> None:
    mine, theirs = both(np.random.default_rng(4).normal(size=(3, 7)), "float32")
    assert_close(F.softmax(mine, 1, dtype=dtypes.float64), theirs_F.softmax(theirs, 1, dtype=torch.float64))
    mine, theirs = both(np.arange(6).reshape(2, 3))
    assert_close(
        F.log_softmax(mine, 0, dtype=dtypes.float32), theirs_F.log_softmax(theirs, 0, dtype=torch.float32)
    )


@pytest.mark.parametrize(
    "name, options",
    [
        ("log_softmax", {"dim": 1}),
        ("softmax", {"dim": 0}),
        ("gelu", {}),
        ("silu", {}),
        ("elu", {}),
        ("softplus", {}),
    ],
)
def test_gradients_of_gradients(name: str, options: dict[str, Any]) -> None:
    x = np.random.default_rng(5).normal(size=(4, 5))
    weight = np.random.default_rng(6).normal(size=(4, 5))
    mine, theirs = both(x, "float64", True)
    w, w_theirs = both(weight, "float64")
    (getattr(F, name)(mine, **options) * w).sum().backward(create_graph=True)
    (first,) = torch.autograd.grad(
        (getattr(theirs_F, name)(theirs, **options) * w_theirs).sum(), theirs, create_graph=True
    )
    assert_close(mine.grad, first)
    once = mine.grad
    mine.grad = None
    (once * once).sum().backward()
    (second,) = torch.autograd.grad((first * first).sum(), theirs)
    assert_close(mine.grad, second, scale=10)


# Pooling ----------------------------------------------------------------------------------------------------
def pooling_options(
    rng: choices.Random, spatial: int, dilated: bool
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """A random shape and random options that fit it."""
    while True:
        kernel = [rng.randint(1, 3) for _ in range(spatial)]
        options: dict[str, Any] = {
            "kernel_size": kernel if rng.random() < 0.7 else kernel[0],
            "ceil_mode": rng.random() < 0.5,
        }
        if isinstance(options["kernel_size"], int):
            kernel = kernel[:1] * spatial
        if rng.random() < 0.6:
            options["stride"] = [rng.randint(1, 3) for _ in range(spatial)]
        options["padding"] = [rng.randint(0, k // 2) for k in kernel]
        if dilated and rng.random() < 0.4:
            options["dilation"] = rng.randint(1, 2)
        lead = (rng.randint(1, 3), rng.randint(1, 3)) if rng.random() < 0.8 else (rng.randint(1, 3),)
        shape = (*lead, *(rng.randint(4, 8) for _ in range(spatial)))
        if all(p <= k // 2 for p, k in zip(options["padding"], kernel, strict=True)):
            return shape, options


@pytest.mark.parametrize("seed", range(18))
def test_max_pool(seed: int) -> None:
    rng = choices.Random(seed)
    spatial = rng.randint(1, 3)
    shape, options = pooling_options(rng, spatial, True)
    if spatial == 1:
        options["padding"] = options["padding"][0]
    x = np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) / 7
    name = f"max_pool{spatial}d"
    check(lambda F, x: getattr(F, name)(x, **options), x, dtype=rng.choice(["float64", "float32"]))
    mine, theirs = both(x, "float64")
    _, where = getattr(F, name)(mine, return_indices=True, **options)
    _, where_theirs = getattr(theirs_F, name)(theirs, return_indices=True, **options)
    assert_close(where, where_theirs)


@pytest.mark.parametrize("seed", range(18))
def test_average_pool(seed: int) -> None:
    rng = choices.Random(100 + seed)
    spatial = rng.randint(1, 3)
    shape, options = pooling_options(rng, spatial, False)
    if rng.random() < 0.5:
        options["count_include_pad"] = False
    if spatial == 1:
        options["padding"] = options["padding"][0]
    elif rng.random() < 0.3:
        options["divisor_override"] = rng.choice([1, 3, -2])
    x = np.random.default_rng(seed).normal(size=shape)
    check(
        lambda F, x: getattr(F, f"avg_pool{spatial}d")(x, **options),
        x,
        dtype=rng.choice(["float64", "float32"]),
    )


def test_pooling_of_ties_and_nan() -> None:
    x = np.array(
        [
            [
                [
                    [1.0, 1.0, 0.0, np.nan],
                    [1.0, 1.0, 2.0, 2.0],
                    [-np.inf, -np.inf, 5, 5],
                    [-np.inf, -np.inf, 5, 5],
                ]
            ]
        ]
    )
    check(lambda F, x: F.max_pool2d(x, 2), x)
    check(lambda F, x: F.max_pool2d(x, 2, 1), np.zeros((2, 1, 4, 4)))
    mine, theirs = both(np.arange(32).reshape(1, 2, 4, 4))
    assert_close(F.max_pool2d(mine, 2), theirs_F.max_pool2d(theirs, 2))


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize(
    "shape, size", [((2, 3, 8), 4), ((2, 3, 6, 4), (3, None)), ((3, 6, 4), 1), ((1, 2, 4, 4, 2), 2)]
)
def test_adaptive_pool(kind: str, shape: tuple[int, ...], size: Any) -> None:
    spatial = {3: 1, 4: 2, 5: 3}[len(shape)] if shape != (3, 6, 4) else 2
    x = np.random.default_rng(7).normal(size=shape)
    check(lambda F, x: getattr(F, f"adaptive_{kind}_pool{spatial}d")(x, size), x)


def test_gradients_of_gradients_of_pools() -> None:
    rng = np.random.default_rng(8)
    for name, options in [
        ("max_pool2d", {"kernel_size": 2}),
        ("max_pool2d", {"kernel_size": 3, "stride": 1}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ]:
        x = rng.normal(size=(2, 2, 5, 5))
        mine, theirs = both(x, "float64", True)
        (getattr(F, name)(mine, **options) * getattr(F, name)(mine * mine, **options)).sum().backward(
            create_graph=True
        )
        out = (
            getattr(theirs_F, name)(theirs, **options) * getattr(theirs_F, name)(theirs * theirs, **options)
        ).sum()
        (first,) = torch.autograd.grad(out, theirs, create_graph=True)
        once = mine.grad
        assert_close(once, first)
        mine.grad = None
        (once * once).sum().backward()
        (second,) = torch.autograd.grad((first * first).sum(), theirs)
        assert_close(mine.grad, second, scale=10)


# Dropout ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_dropout_drops_what_pytorch_drops(p: float, dtype: str) -> None:
    """Values and gradients bit for bit, and the same words drawn."""
    rng = np.random.default_rng(9)
    manual_seed(5)
    torch.manual_seed(5)
    for name, shape in [
        ("dropout", (13, 7)),
        ("dropout", ()),
        ("dropout1d", (3, 4, 5)),
        ("dropout1d", (4, 5)),
        ("dropout2d", (3, 4, 2, 5)),
        ("dropout3d", (3, 4, 2, 2, 2)),
        ("dropout3d", (4, 2, 2, 2)),
        ("dropout", (0, 3)),
    ]:
        x = rng.normal(size=shape)
        mine, theirs = both(x, dtype, True)
        a, b = getattr(F, name)(mine, p, True), getattr(theirs_F, name)(theirs, p, True)
        np.testing.assert_array_equal(values(a), values(b))
        if shape and 0 not in shape:
            a.sum().backward()
            b.sum().backward()
            np.testing.assert_array_equal(values(mine.grad), values(theirs.grad))
    mine, theirs = both(np.ones((40, 3)), dtype)
    F.dropout(mine, p, True, True)
    theirs_F.dropout(theirs, p, True, True)
    np.testing.assert_array_equal(values(mine), values(theirs))


def test_dropout_of_what_is_not_finite() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 1.0] * 8)
    for p in (0.5, 1.0):
        manual_seed(6)
        torch.manual_seed(6)
        mine, theirs = both(x, "float32")
        np.testing.assert_array_equal(values(F.dropout(mine, p)), values(theirs_F.dropout(theirs, p)))


def test_dropout_out_of_training_is_the_input() -> None:
    x = from_array(np.ones((2, 3, 4, 4), "float32"))
    assert F.dropout(x, 0.5, False) is x
    assert F.dropout2d(x, 0.5, False) is x
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(x, 1.5)
    with pytest.raises(RuntimeError, match="2D or 3D"):
        F.dropout1d(x)
    with pytest.warns(UserWarning, match="3-D input to dropout2d"):
        F.dropout2d(x.view(2, 3, 16))


@pytest.mark.parametrize("name", ["alpha_dropout", "feature_alpha_dropout"])
def test_alpha_dropout(name: str) -> None:
    manual_seed(7)
    torch.manual_seed(7)
    for p in (0.2, 0.5, 1.0):
        mine, theirs = both(np.random.default_rng(10).normal(size=(5, 6, 3)), "float64", True)
        a, b = getattr(F, name)(mine, p, True), getattr(theirs_F, name)(theirs, p, True)
        assert_close(a, b)
        a.sum().backward()
        b.sum().backward()
        assert_close(mine.grad, theirs.grad)


def test_dropout_is_few_rows() -> None:
    x = from_array(np.ones((4, 4), "float32"))
    F.dropout(x).numpy()
    x.row()
    before = len(context.record.rows)
    kept = F.dropout(x)
    assert len(context.record.rows) - before <= 5  # one of them the state's leaf
    before = len(context.record.rows)
    again = F.dropout(kept)
    assert len(context.record.rows) - before == 4
    assert again.shape == (4, 4)


# Losses -----------------------------------------------------------------------------------------------------
SHAPES = [(6, 5), (5,), (3, 4, 2), (2, 3, 4, 5)]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_losses_of_classes(shape: tuple[int, ...], reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(len(shape))
    axis = 1 if len(shape) > 1 else 0
    count = shape[axis]
    x = rng.normal(size=shape) * 3
    target = rng.integers(0, count, shape[:axis] + shape[axis + 1 :])
    weight = rng.random(count) + 0.1
    for ignored in (-100, 1):
        options = {"reduction": reduction, "ignore_index": ignored}
        check(lambda F, x, t, options=options: F.nll_loss(x, t, **options), x, target, dtype=dtype)
        check(lambda F, x, t, options=options: F.cross_entropy(x, t, **options), x, target, dtype=dtype)
        for smoothing in (0.0, 0.2):
            w, w_theirs = both(weight, dtype)
            check(
                lambda F, x, t, o=options, s=smoothing, w=w, v=w_theirs: F.cross_entropy(
                    x, t, weight=w if F is not theirs_F else v, label_smoothing=s, **o
                ),
                x,
                target,
                dtype=dtype,
            )
        check(
            lambda F, x, t, options=options: F.cross_entropy(x, t, label_smoothing=0.1, **options),
            x,
            target,
            dtype=dtype,
        )


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_of_probabilities(shape: tuple[int, ...], reduction: str) -> None:
    rng = np.random.default_rng(11)
    x, chances = rng.normal(size=shape), rng.random(shape)
    for smoothing in (0.0, 0.3):
        check(
            lambda F, x, c, s=smoothing: F.cross_entropy(x, c, label_smoothing=s, reduction=reduction),
            x,
            chances,
        )
    weight = both(rng.random(shape[1 if len(shape) > 1 else 0]), "float64")
    check(lambda F, x, c: F.cross_entropy(x, c, weight[F is theirs_F], reduction=reduction), x, chances)


def test_mean_over_no_class_at_all() -> None:
    x = np.random.default_rng(12).normal(size=(3, 4))
    check(lambda F, x, t: F.nll_loss(x, t, ignore_index=2), x, np.full(3, 2))
    x[1, 2] = np.inf
    check(lambda F, x, t: F.nll_loss(x, t, ignore_index=2, reduction="sum"), x, np.array([0, 2, 1]))


def test_gradients_of_gradients_of_losses() -> None:
    rng = np.random.default_rng(13)
    x, target = rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    mine, theirs = both(x, "float64", True)
    F.cross_entropy(mine, from_array(target)).backward(create_graph=True)
    (first,) = torch.autograd.grad(
        theirs_F.cross_entropy(theirs, torch.tensor(target)), theirs, create_graph=True
    )
    once = mine.grad
    mine.grad = None
    (once * once).sum().backward()
    (second,) = torch.autograd.grad((first * first).sum(), theirs)
    assert_close(mine.grad, second)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(
    "name, options",
    [
        ("mse_loss", {}),
        ("l1_loss", {}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.3}),
        ("smooth_l1_loss", {"beta": 0.0}),
        ("huber_loss", {"delta": 0.6}),
        ("binary_cross_entropy_with_logits", {}),
        ("kl_div", {}),
        ("kl_div", {"log_target": True}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_distances(name: str, options: dict[str, Any], reduction: str) -> None:
    rng = np.random.default_rng(14)
    x, target = rng.normal(size=(4, 6)) * 2, rng.random((4, 6))
    if name != "kl_div":
        target[0, :3] = [0.0, 1.0, 0.5]
    for dtype in ("float64", "float32"):
        check(lambda F, x, t: getattr(F, name)(x, t, reduction=reduction, **options), x, target, dtype=dtype)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_binary_cross_entropy(reduction: str) -> None:
    rng = np.random.default_rng(15)
    x, target = rng.random((4, 6)) * 0.98 + 0.01, rng.random((4, 6))
    weight, positive = rng.random((4, 6)), rng.random(6)
    check(lambda F, x, t: F.binary_cross_entropy(x, t, reduction=reduction), x, target)
    weights = both(weight, "float64")
    check(
        lambda F, x, t: F.binary_cross_entropy(x, t, weights[F is theirs_F], reduction=reduction), x, target
    )
    positives = both(positive, "float64")
    check(
        lambda F, x, t: F.binary_cross_entropy_with_logits(
            x, t, weights[F is theirs_F], pos_weight=positives[F is theirs_F], reduction=reduction
        ),
        x * 60 - 30,
        target,
    )
    ends = both(np.array([0.0, 1.0, 0.0, 1.0]), "float64")
    wanted = both(np.array([0.0, 1.0, 1.0, 0.0]), "float64")
    assert_close(
        F.binary_cross_entropy(ends[0], wanted[0], reduction=reduction),
        theirs_F.binary_cross_entropy(ends[1], wanted[1], reduction=reduction),
    )


def test_kl_div_by_batch() -> None:
    rng = np.random.default_rng(16)
    x, target = rng.normal(size=(3, 5)), rng.random((3, 5))
    check(lambda F, x, t: F.kl_div(x, t, reduction="batchmean"), x, target)
    target[1] = 0
    mine, theirs = zip(both(x, "float64"), both(target, "float64"), strict=True)
    assert_close(F.kl_div(*mine, reduction="none"), theirs_F.kl_div(*theirs, reduction="none"))


# Products and tables ----------------------------------------------------------------------------------------
def test_products() -> None:
    rng = np.random.default_rng(17)
    x, w, b = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    check(lambda F, x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=1, dilation=(1, 2), groups=2), x, w, b)
    check(lambda F, x, w: F.conv1d(x, w, padding=1), x[:, :, 0], w[:4, :, 0].repeat(2, 1))
    check(
        lambda F, x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
        x,
        rng.normal(size=(4, 3, 3, 3)),
        rng.normal(size=3),
    )
    check(lambda F, x, w, b: F.linear(x, w, b), x, rng.normal(size=(5, 6)), rng.normal(size=5))


@pytest.mark.parametrize("samples", [16, 17])
@pytest.mark.parametrize("between", ["groups", "other channels"])
def test_values_between_convolutions_of_many_samples_take_other_shapes(between: str, samples: int) -> None:
    """There values lie samples innermost, and a channel's axis that is divided is no affine place."""
    rng = np.random.default_rng(22)
    x, first = rng.normal(size=(samples, 3, 6, 6)), rng.normal(size=(12, 3, 3, 3))
    if between == "groups":
        check(lambda F, x, v, w: F.conv2d(F.conv2d(x, v).relu(), w, groups=2), x, first, rng.normal(size=(8, 6, 3, 3)))
    else:
        check(lambda F, x, v, w: F.conv2d(F.conv2d(x, v, padding=1).relu().reshape(samples, 8, 6, 9), w), x, first,
              rng.normal(size=(4, 8, 3, 3)))


def test_embedding() -> None:
    rng = np.random.default_rng(18)
    index = rng.integers(0, 9, (4, 5))
    for padding in (None, 3, -1):
        check(lambda F, i, w, p=padding: F.embedding(i, w, p), index, rng.normal(size=(9, 3)))
    for extra in ({"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}):
        with pytest.raises(UnsupportedError, match=next(iter(extra))):
            F.embedding(from_array(index), from_array(np.zeros((9, 3))), **extra)


def test_one_hot() -> None:
    index = np.array([[0, 3, 2], [1, 1, 0]])
    for count in (-1, 4, 7):
        check(lambda F, i, c=count: F.one_hot(i, c), index)
    for bad, count in [(index - 1, -1), (index, 2), (index, 0)]:
        with pytest.raises(RuntimeError):
            F.one_hot(from_array(bad), count)
        with pytest.raises(RuntimeError):
            theirs_F.one_hot(torch.tensor(bad), count)


def test_normalize_and_cosine_similarity() -> None:
    rng = np.random.default_rng(19)
    x, y = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 3))
    for p in (1.0, 2.0, 3.0, float("inf")):
        check(lambda F, x, p=p: F.normalize(x, p, 1), x)
    check(lambda F, x, y: F.cosine_similarity(x, y, 1), x, y)


# Bad input --------------------------------------------------------------------------------------------------
def test_a_class_out_of_range() -> None:
    x = from_array(np.zeros((3, 10), "float32"))
    target = from_array(np.array([0, 11, 2]))
    with pytest.raises(IndexError, match=r"Target 11 is out of bounds\."):
        F.nll_loss(x, target)
    with pytest.raises(IndexError, match=r"Target -1 is out of bounds\."):
        F.cross_entropy(x, from_array(np.array([0, -1, 2])))
    # Not known when recorded: the kernel finds it.
    with pytest.raises(IndexError, match="out of range"):
        F.nll_loss(x, target + 0).item()
    # Known and good, then written.
    good = from_array(np.array([0, 1, 2]))
    assert F.nll_loss(x, good).item() == 0
    good += 9
    good.numpy()
    with pytest.raises(IndexError, match=r"Target 10 is out of bounds\."):
        F.nll_loss(x, good)
    # Another view of what was looked at in part.
    classes = from_array(np.array([0, 1, 2, 1, 12]))
    assert F.nll_loss(x, classes[:3]).item() == 0
    with pytest.raises(IndexError, match=r"Target 12 is out of bounds\."):
        F.nll_loss(x, classes[::2])


def computed(t: Any) -> Any:
    """Torturous checks values when they are known; here they are."""
    values(t)
    return t


BAD: list[tuple[str, Callable[[Any, Callable[..., Any]], Any]]] = [
    ("batch sizes", lambda F, z: F.nll_loss(z(3, 4), z(2).long())),
    ("class weights", lambda F, z: F.nll_loss(z(3, 4), z(3).long(), z(5))),
    ("no axis", lambda F, z: F.nll_loss(z(), z().long())),
    ("target of another rank", lambda F, z: F.cross_entropy(z(2, 3, 4), z(2, 5).long())),
    ("reduction", lambda F, z: F.nll_loss(z(3, 4), z(3).long(), reduction="some")),
    ("smoothing", lambda F, z: F.cross_entropy(z(3, 4), z(3).long(), label_smoothing=2.0)),
    ("float target", lambda F, z: F.nll_loss(z(3, 4), z(3))),
    ("window too large", lambda F, z: F.max_pool2d(z(1, 1, 3, 3), 5)),
    ("pool padding", lambda F, z: F.max_pool2d(z(1, 1, 8, 8), 2, padding=2)),
    ("pool rank", lambda F, z: F.max_pool2d(z(8, 8), 2)),
    ("pool stride", lambda F, z: F.max_pool2d(z(1, 1, 8, 8), 2, 0)),
    ("pool kernel", lambda F, z: F.avg_pool2d(z(1, 1, 8, 8), (2, 2, 2))),
    ("divisor", lambda F, z: F.avg_pool2d(z(1, 1, 8, 8), 2, divisor_override=0)),
    ("softmax axis", lambda F, z: F.softmax(z(2, 3), 2)),
    ("softmax of integers", lambda F, z: F.softmax(z(2, 3).long(), 1)),
    ("shapes", lambda F, z: F.mse_loss(z(2, 3), z(4, 3))),
    ("probability shapes", lambda F, z: F.binary_cross_entropy(z(2, 3), z(3))),
    ("probabilities", lambda F, z: F.binary_cross_entropy(computed(z(2) + 2), z(2))),
    ("logit shapes", lambda F, z: F.binary_cross_entropy_with_logits(z(2, 3), z(3))),
    ("odd glu", lambda F, z: F.glu(z(3), 0)),
    ("prelu channels", lambda F, z: F.prelu(z(2, 3), z(4))),
    ("gelu", lambda F, z: F.gelu(z(2), approximate="some")),
    ("hardtanh bounds", lambda F, z: F.hardtanh(z(2), 2, 1)),
    ("embedding index", lambda F, z: F.embedding((z(2) + 7).long(), z(3, 2))),
    ("embedding dtype", lambda F, z: F.embedding(z(2), z(3, 2))),
    ("not a tensor", lambda F, z: F.nll_loss([1.0], z(3).long())),
    ("linear", lambda F, z: F.linear(z(2, 3), z(4, 5))),
    ("channels", lambda F, z: F.conv2d(z(1, 3, 8, 8), z(4, 1, 3, 3))),
]


def zeros(*shape: int) -> Any:
    return from_array(np.zeros(shape, "float32"))


@pytest.mark.parametrize("case", BAD, ids=[name for name, _ in BAD])
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_bad_input(case: tuple[str, Callable[[Any, Callable[..., Any]], Any]]) -> None:
    """The exception's type is PyTorch's (or one of its subclasses)."""
    _, call = case
    with pytest.raises(Exception) as theirs:  # noqa: B017, PT011
        call(theirs_F, lambda *shape: torch.zeros(shape))
    with pytest.raises(theirs.type):
        values(call(F, zeros))


# Methods ----------------------------------------------------------------------------------------------------
def test_the_chained_style_gives_the_same_bits() -> None:
    rng = np.random.default_rng(20)
    x = from_array(rng.normal(size=(3, 1, 12, 12)).astype("float32"))
    w1, b1 = (from_array(rng.normal(size=s).astype("float32")) for s in ((4, 1, 3, 3), (4,)))
    w2, b2 = (from_array(rng.normal(size=s).astype("float32")) for s in ((6, 100), (6,)))
    manual_seed(3)
    y = F.relu(F.max_pool2d(F.dropout2d(F.conv2d(x, w1, b1), 0.5, True), 2)).view(-1, 100)
    plain = F.log_softmax(F.dropout(F.linear(y, w2, b2), 0.3, True), 1).numpy()
    manual_seed(3)
    chained = (
        x.conv2d(w1, b1)
        .dropout2d(True, 0.5)
        .max_pool2d(2)
        .relu()
        .view(-1, 100)
        .linear(w2, b2)
        .dropout(True, 0.3)
        .log_softmax(1)
        .numpy()
    )
    np.testing.assert_array_equal(plain, chained)
    assert x.conv2d(lambda t: t) is x  # a layer is called


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode: str) -> None:
    x = np.random.default_rng(21).normal(size=(2, 3, 5, 4))
    check(lambda F, x: F.pad(x, (1, 2, 2, 1), mode), x)


@pytest.mark.parametrize("channels", [1, 16, 48, 256])
def test_a_samples_transposed_convolution_does_not_depend_on_its_batch(channels: int) -> None:
    """Windows side by side are a matrix product for one sample, and a convolution with samples as lanes for many."""
    random = np.random.default_rng(0)
    x = random.standard_normal((16, channels, 5, 3)).astype(np.float32)
    weight = from_array(random.standard_normal((channels, 3, 2, 2)).astype(np.float32))
    together = F.conv_transpose2d(from_array(x), weight, stride=2).numpy()
    alone = F.conv_transpose2d(from_array(x[:1].copy()), weight, stride=2).numpy()
    assert np.array_equal(together[:1], alone)
