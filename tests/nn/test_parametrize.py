"""Parametrized tensors against PyTorch's: names, printed form, values, gradients, removal, errors."""

from __future__ import annotations

import pytest
import torch
from nn.agreement import agree, values_of

import torturous

LIBRARIES = [torturous, torch]


def parts(library):
    nn = library.nn

    class Symmetric(nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, x):
            return x.triu()

    class Double(nn.Module):
        def forward(self, x):
            return x * 2

        def right_inverse(self, x):
            return x / 2

    class Larger(nn.Module):
        def forward(self, x):
            return library.cat([x, x])

    return Symmetric(), Double(), Larger(), nn.utils.parametrize


def test_parametrizations():
    def one(library):
        symmetric, _, _, parametrize = parts(library)
        layer = parametrize.register_parametrization(library.nn.Linear(3, 3), "weight", symmetric)
        assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
        assert not parametrize.is_parametrized(layer, "bias")
        assert parametrize.type_before_parametrizations(layer) is library.nn.Linear
        return layer

    def two(library):
        symmetric, double, _, parametrize = parts(library)
        layer = parametrize.register_parametrization(library.nn.Linear(3, 3), "weight", symmetric)
        parametrize.register_parametrization(layer, "weight", double)
        return parametrize.register_parametrization(layer, "bias", parts(library)[1])

    def assigned(library):
        _, double, _, parametrize = parts(library)
        layer = parametrize.register_parametrization(library.nn.Linear(2, 3), "weight", double)
        with library.no_grad():
            layer.weight = library.ones(3, 2)
        return layer

    agree(one, values_of(2, 3), twice=False)
    agree(two, values_of(2, 3), twice=False)
    agree(assigned, values_of(4, 2), twice=False)


@pytest.mark.parametrize("leave", [True, False])
def test_removal(leave):
    def make(library):
        _, double, _, parametrize = parts(library)
        layer = library.nn.Linear(2, 3)
        parametrize.register_parametrization(layer, "weight", double)
        kept = layer.parametrizations.weight.original
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=leave)
        assert layer.weight is kept and type(layer) is library.nn.Linear
        return layer

    agree(make, values_of(4, 2), twice=False)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_ready_made(kind):
    for build, shape in ((lambda nn: nn.Linear(3, 4), (2, 3)), (lambda nn: nn.Conv1d(2, 3, 2), (1, 2, 5)),
                         (lambda nn: nn.ConvTranspose1d(2, 3, 2), (1, 2, 5))):
        for training in (True, False):
            agree(lambda library, b=build: getattr(library.nn.utils.parametrizations, kind)(b(library.nn).double()),
                  values_of(*shape), twice=False, training=training, calls=2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_cache_and_errors(library):
    _, double, larger, parametrize = parts(library)
    layer = parametrize.register_parametrization(library.nn.Linear(2, 3), "weight", double)
    assert layer.weight is not layer.weight
    with parametrize.cached():
        assert layer.weight is layer.weight
    with pytest.raises(ValueError, match="shape"):
        parametrize.register_parametrization(library.nn.Linear(2, 3), "weight", larger)
    with pytest.raises(ValueError, match="does not have"):
        parametrize.register_parametrization(library.nn.Linear(2, 3), "other", double)
    with pytest.raises(ValueError, match="does not have a parametrization"):
        parametrize.remove_parametrizations(library.nn.Linear(2, 3), "weight")
    taller = parametrize.register_parametrization(library.nn.Linear(2, 3), "weight", larger, unsafe=True)
    assert tuple(taller.weight.shape) == (6, 2)
