"""Layers that learn their input's size, against PyTorch: weights, outputs, classes, saved names."""

from __future__ import annotations

import pytest
import torch
from nn.agreement import agree, values_of

import torturous

CASES = [
    (lambda nn: nn.LazyLinear(3), (2, 5)), (lambda nn: nn.LazyLinear(3, bias=False), (2, 4, 5)),
    (lambda nn: nn.LazyConv1d(4, 2), (2, 3, 5)), (lambda nn: nn.LazyConv2d(4, 3, 2, 1, bias=False), (2, 3, 5, 6)),
    (lambda nn: nn.LazyConv2d(4, 2, groups=2), (2, 4, 5, 6)), (lambda nn: nn.LazyConv3d(2, 2), (1, 3, 3, 3, 3)),
    (lambda nn: nn.LazyConvTranspose1d(4, 2), (2, 3, 5)), (lambda nn: nn.LazyConvTranspose2d(4, 2, 2), (2, 3, 3, 3)),
    (lambda nn: nn.LazyBatchNorm1d(), (4, 3)), (lambda nn: nn.LazyBatchNorm2d(affine=False), (2, 3, 4, 4)),
    (lambda nn: nn.LazyBatchNorm3d(bias=False), (2, 3, 2, 2, 2)),
    (lambda nn: nn.LazyInstanceNorm2d(), (2, 3, 4, 4)), (lambda nn: nn.LazyInstanceNorm1d(), (2, 3, 4)),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_lazy_layers(number):
    make, shape = CASES[number]

    def begun(library):
        library.manual_seed(1)
        layer = make(library.nn)
        before = repr(layer)
        layer(library.ones(*shape))
        assert type(layer).__name__ in before and not type(layer).__name__.startswith("Lazy")
        return layer

    agree(begun, values_of(*shape), twice=False)
    mine, theirs = (make(library.nn) for library in (torturous, torch))
    assert repr(mine) == repr(theirs) and list(mine._parameters) == list(theirs._parameters)


def test_lazy_errors():
    agree(lambda library: library.nn.LazyConv2d(3, 2), values_of(4, 5))
    agree(lambda library: library.nn.LazyBatchNorm2d(), values_of(4, 5))
    agree(lambda library: library.nn.LazyConv2d(4, 2, groups=2), values_of(2, 3, 5, 5))
