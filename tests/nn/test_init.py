"""`nn.init` against PyTorch: the same numbers for the same seed."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous

SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4)


def filled(library, fill, shape, seed=1, own_generator=False):
    options = {}
    if own_generator:
        options["generator"] = library.Generator().manual_seed(seed)
    library.manual_seed(seed)
    tensor = library.nn.Parameter(library.zeros(tuple(shape)))
    returned = fill(library.nn.init, tensor, options)
    assert returned is tensor and tensor.requires_grad and tensor.is_leaf
    return tensor.detach().numpy()


def same(fill, shape, seed=1, own_generator=False):
    mine, theirs = (filled(library, fill, shape, seed, own_generator) for library in (torturous, torch))
    numpy.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-7)


FILLS = {
    "uniform_": [{}, {"a": -2.0, "b": 3.0}],
    "normal_": [{}, {"mean": 2.0, "std": 0.5}],
    "trunc_normal_": [{}, {"mean": 0.5, "std": 2.0, "a": -0.1, "b": 0.2}, {"std": 0.02}],
    "xavier_uniform_": [{}, {"gain": 1.5}],
    "xavier_normal_": [{}, {"gain": 0.5}],
    "kaiming_uniform_": [{}, {"a": 0.2, "mode": "fan_out"}, {"nonlinearity": "relu"}],
    "kaiming_normal_": [{}, {"a": 0.2, "mode": "fan_out"}, {"nonlinearity": "tanh"}],
}


@pytest.mark.parametrize("name", FILLS)
@settings(max_examples=20)
@given(SHAPES, st.integers(0, 2**31), st.booleans())
def test_random_fills(name, shape, seed, own_generator):
    for options in FILLS[name]:
        same(
            lambda init, tensor, more, options=options: getattr(init, name)(tensor, **options, **more),
            shape,
            seed,
            own_generator,
        )


@pytest.mark.parametrize(("name", "arguments"), [("constant_", (3.5,)), ("ones_", ()), ("zeros_", ())])
def test_constant_fills(name, arguments):
    same(lambda init, tensor, _: getattr(init, name)(tensor, *arguments), (2, 3))


@pytest.mark.parametrize(
    "arguments",
    [("linear",), ("conv2d",), ("sigmoid",), ("tanh",), ("relu",), ("selu",), ("leaky_relu",)]
    + [("leaky_relu", slope) for slope in (0, 0.3, 1)],
)
def test_gains(arguments):
    assert torturous.nn.init.calculate_gain(*arguments) == torch.nn.init.calculate_gain(*arguments)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (2, 3, 2), (1, 1)])
def test_orthogonal(shape):
    results = []
    for library in (torturous, torch):
        library.manual_seed(0)
        results.append(library.nn.init.orthogonal_(library.zeros(shape), gain=1.5).numpy())
    numpy.testing.assert_allclose(*results, rtol=1e-4, atol=1e-6)


def test_patterns():
    for call in (
        lambda lib: lib.nn.init.eye_(lib.zeros(3, 5)), lambda lib: lib.nn.init.dirac_(lib.ones(6, 3, 3)),
        lambda lib: lib.nn.init.dirac_(lib.ones(6, 2, 3, 2), groups=3),
        lambda lib: lib.nn.init.sparse_(lib.zeros(10, 4), 0.3),
    ):
        results = []
        for library in (torturous, torch):
            library.manual_seed(0)
            results.append(call(library).numpy())
        numpy.testing.assert_allclose(*results, rtol=1e-6)
    with pytest.warns(FutureWarning, match="nn.init.normal_"):
        torturous.nn.init.normal(torturous.zeros(2), std=0.1)


@settings(max_examples=20)
@given(SHAPES)
def test_fans(shape):
    fans = [
        library.nn.init._calculate_fan_in_and_fan_out(library.zeros(tuple(shape)))
        for library in (torturous, torch)
    ]
    assert fans[0] == fans[1]


@pytest.mark.parametrize(
    "misuse",
    [
        lambda library: library.nn.init.calculate_gain("none"),
        lambda library: library.nn.init.calculate_gain("leaky_relu", True),
        lambda library: library.nn.init.xavier_uniform_(library.zeros(3)),
        lambda library: library.nn.init.eye_(library.zeros(3)),
        lambda library: library.nn.init.dirac_(library.zeros(3, 2)),
        lambda library: library.nn.init.dirac_(library.zeros(3, 2, 1), groups=2),
        lambda library: library.nn.init.orthogonal_(library.zeros(3)),
        lambda library: library.nn.init.sparse_(library.zeros(3), 0.1),
        lambda library: library.nn.init.kaiming_uniform_(library.zeros(3, 3), mode="fan"),
    ],
)
def test_misuse(misuse):
    errors = []
    for library in (torturous, torch):
        with pytest.raises(ValueError) as caught:
            misuse(library)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]


def test_warnings():
    with pytest.warns(UserWarning, match="no-op"):
        torturous.nn.init.kaiming_uniform_(torturous.zeros(0, 3))
    with pytest.warns(UserWarning, match="more than 2 std"):
        torturous.nn.init.trunc_normal_(torturous.zeros(3), mean=10.0)


def test_truncated_values_stay_inside():
    values = torturous.nn.init.trunc_normal_(torturous.zeros(1000), a=-0.5, b=1.0).numpy()
    assert values.min() >= -0.5 and values.max() <= 1.0 and math.isfinite(values.sum()) and values.std() > 0.1


# Utilities over parameters --------------------------------------------------------------------------------


def with_gradients(library):
    layer = library.nn.Linear(3, 2)
    for position, parameter in enumerate(layer.parameters()):
        random = numpy.random.default_rng(position)
        parameter.grad = library.tensor(random.standard_normal(tuple(parameter.shape)).astype(numpy.float32))
    return layer


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("max_norm", [0.1, 100.0])
def test_clip_grad_norm(norm_type, max_norm):
    results = []
    for library in (torturous, torch):
        layer = with_gradients(library)
        norm = library.nn.utils.clip_grad_norm_(layer.parameters(), max_norm, norm_type)
        results.append([norm.item(), *(parameter.grad.numpy() for parameter in layer.parameters())])
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_clip_grad_value_and_corner_cases():
    results = []
    for library in (torturous, torch):
        layer = with_gradients(library)
        library.nn.utils.clip_grad_value_(layer.parameters(), 0.3)
        library.nn.utils.clip_grad_value_(layer.weight, 0.2)
        results.append([parameter.grad.numpy() for parameter in layer.parameters()])
        assert library.nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
        layer.weight.grad.fill_(math.nan)
        with pytest.raises(RuntimeError, match="non-finite"):
            library.nn.utils.clip_grad_norm_(layer.parameters(), 1.0, error_if_nonfinite=True)
        with pytest.warns(UserWarning, match="empty generator"):
            library.nn.utils.clip_grad_norm_((p for p in []), 1.0)
    for mine, theirs in zip(*results, strict=True):
        numpy.testing.assert_array_equal(mine, theirs)


def test_parameters_as_one_vector():
    layer = torturous.nn.Linear(3, 2)
    vector = torturous.nn.utils.parameters_to_vector(layer.parameters())
    expected = numpy.concatenate([parameter.detach().numpy().ravel() for parameter in layer.parameters()])
    assert numpy.array_equal(vector.detach().numpy(), expected)
    torturous.nn.utils.vector_to_parameters(vector.detach() * 2, layer.parameters())
    after = torturous.nn.utils.parameters_to_vector(layer.parameters()).detach().numpy()
    assert numpy.array_equal(after, expected * 2) and layer.weight.shape == (2, 3)
    with pytest.raises(TypeError):
        torturous.nn.utils.vector_to_parameters([1.0], layer.parameters())
    with pytest.raises(ValueError, match="elements"):
        torturous.nn.utils.vector_to_parameters(torturous.zeros(2), layer.parameters())
