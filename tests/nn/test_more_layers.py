"""Activations, margin losses, distances, folding, unpooling and power pooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from nn.agreement import agree, values_of

ACTIVATIONS = {
    "GELU": [{}, {"approximate": "tanh"}], "SiLU": [{}, {"inplace": True}], "Mish": [{}], "Softplus": [{}, {"beta": 2.0,
    "threshold": 1.0}], "LeakyReLU": [{}, {"negative_slope": 0.3, "inplace": True}], "ELU": [{}, {"alpha": 0.7}],
    "CELU": [{}, {"alpha": 0.7}], "SELU": [{}], "Hardtanh": [{}, {"min_val": -0.3, "max_val": 0.4}], "ReLU6": [{}],
    "Hardswish": [{}], "Hardsigmoid": [{}], "GLU": [{}, {"dim": 0}], "Softmin": [{"dim": 1}],
    "Softshrink": [{}, {"lambd": 0.2}], "Hardshrink": [{"lambd": 0.3}], "LogSigmoid": [{}], "Tanhshrink": [{}],
    "PReLU": [{}, {"num_parameters": 4}, {"num_parameters": 3}], "Threshold": [{"threshold": 0.1, "value": 2.0}]}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    for options in ACTIVATIONS[name]:
        def make(library, options=options):
            layer = getattr(library.nn, name)(**options)
            if options.get("inplace"):
                forward = layer.forward
                layer.forward = lambda x: forward(x * 1)
            return layer

        # PyTorch has no second derivative of one of them, and computes CELU's first with a constant in float32.
        agree(make, values_of(2, 4, 3) * 2, twice=name != "Hardsigmoid", tolerance=1e-7)
        agree(make, values_of(2, 4, 3), dtype="bfloat16", tolerance=2e-2, twice=False)


def test_softmax_of_channels():
    agree(lambda library: library.nn.Softmax2d(), values_of(2, 3, 2, 2))
    agree(lambda library: library.nn.Softmax2d(), values_of(3, 2, 2))
    agree(lambda library: library.nn.Softmax2d(), values_of(3, 2))


def test_dropouts():
    for name in ("AlphaDropout", "FeatureAlphaDropout", "Dropout3d"):
        agree(lambda library, name=name: getattr(library.nn, name)(0.4), values_of(2, 3, 2, 2, 2))
        agree(lambda library, name=name: getattr(library.nn, name)(0.4), values_of(2, 3, 2, 2, 2), training=False)


SIGNS = np.array([1, -1, 1, -1])
TRIPLE = tuple(values_of(4, 3, seed=s) for s in range(3))
LOSSES = [
    (lambda nn: nn.CosineEmbeddingLoss(margin=0.2), (values_of(4, 3), values_of(4, 3, seed=1), SIGNS)),
    (lambda nn: nn.HingeEmbeddingLoss(0.7), (values_of(4), SIGNS)),
    (lambda nn: nn.MarginRankingLoss(0.3, reduction="sum"), (values_of(4), values_of(4, seed=1), SIGNS)),
    (lambda nn: nn.SoftMarginLoss(reduction="none"), (values_of(4), SIGNS)),
    (lambda nn: nn.MultiLabelMarginLoss(), (values_of(2, 4), np.array([[3, 0, -1, 1], [1, -1, 2, 3]]))),
    (lambda nn: nn.MultiLabelMarginLoss(reduction="none"), (values_of(4), np.array([3, 0, -1, 1]))),
    (lambda nn: nn.MultiLabelSoftMarginLoss(), (values_of(3, 4), values_of(3, 4, low=0.0))),
    (lambda nn: nn.MultiMarginLoss(p=2, margin=0.8), (values_of(3, 4), np.array([3, 0, 2]))),
    (lambda nn: nn.MultiMarginLoss(reduction="none"), (values_of(3, 4), np.array([3, 0, 2]))),
    (lambda nn: nn.PoissonNLLLoss(), (values_of(5), values_of(5, seed=1, low=0.5))),
    (lambda nn: nn.PoissonNLLLoss(False, True), (values_of(5, low=0.1), 3 * values_of(5, seed=1, low=0.0))),
    (lambda nn: nn.GaussianNLLLoss(full=True), (values_of(3, 2), values_of(3, 2, seed=1), values_of(3, 2, low=0.1))),
    (lambda nn: nn.GaussianNLLLoss(), (values_of(3, 2), values_of(3, 2, seed=1), values_of(3, low=0.1))),
    (lambda nn: nn.TripletMarginLoss(swap=True), TRIPLE),
    (lambda nn: nn.TripletMarginLoss(p=1, margin=3, reduction="none"), TRIPLE),
    (lambda nn: nn.TripletMarginWithDistanceLoss(), TRIPLE),
    (lambda nn: nn.PairwiseDistance(keepdim=True), (values_of(4, 3), values_of(4, 3, seed=1))),
    (lambda nn: nn.PairwiseDistance(3.0), (values_of(4, 3), values_of(1, 3, seed=1))),
    (lambda nn: nn.CosineSimilarity(dim=0), (values_of(4, 3), values_of(4, 3, seed=1))),
    (lambda nn: nn.MultiMarginLoss(p=3), (values_of(3, 4), np.array([3, 0, 2]))),
    (lambda nn: nn.TripletMarginLoss(margin=-1.0), (values_of(3, 4),) * 3),
    (lambda nn: nn.CosineEmbeddingLoss(), (values_of(4, 3, 1), values_of(4, 3, 1), SIGNS)),
    (lambda nn: nn.GaussianNLLLoss(), (values_of(3, 2), values_of(3, 2, seed=1), values_of(3, 2))),
    (lambda nn: nn.GaussianNLLLoss(), (values_of(3, 2), values_of(3, 2, seed=1), values_of(2, low=0.1))),
]


@pytest.mark.parametrize("number", range(len(LOSSES)))
def test_margin_losses(number):
    make, inputs = LOSSES[number]
    agree(lambda library: make(library.nn), *inputs, twice=False)


def test_folding():
    x = values_of(2, 3, 5, 6)
    for options in ((2,), ((2, 3), 1, 1, 2), (3, 2, (2, 1), (1, 2))):
        agree(lambda library, o=options: library.nn.Unfold(*o), x)
    agree(lambda library: library.nn.Unfold(2), x[0])
    agree(lambda library: library.nn.Unfold(9), x)
    columns = values_of(2, 12, 20)
    agree(lambda library: library.nn.Fold((5, 6), 2), columns)
    agree(lambda library: library.nn.Fold((7, 9), 2, padding=1, stride=2), columns)
    agree(lambda library: library.nn.Fold((5, 6), 2), columns[0])
    agree(lambda library: library.nn.Fold((5, 7), 2), columns)
    agree(lambda library: library.nn.Fold((5, 6), 5), columns)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_unpooling_and_power_pooling(spatial):
    x = values_of(2, 3, *(4, 6, 4)[:spatial], low=0.1)

    def there_and_back(library):
        pool = getattr(library.nn, f"MaxPool{spatial}d")(2, 2, return_indices=True)
        back = getattr(library.nn, f"MaxUnpool{spatial}d")(2, 2)
        return lambda t: back(*pool(t))

    agree(there_and_back, x)
    agree(lambda library: getattr(library.nn, f"MaxUnpool{spatial}d")(2), x)
    for arguments in ((2, 2), (3.0, 3, 1), (1, 2, None, True)):
        agree(lambda library, a=arguments: getattr(library.nn, f"LPPool{spatial}d")(*a), x, tolerance=1e-8)


def test_unpooling_to_a_size():
    def make(library):
        pool, back = library.nn.MaxPool2d(2, 2, return_indices=True), library.nn.MaxUnpool2d(2, 2)
        return lambda t, *size: back(*pool(t), output_size=list(size) or t.shape)

    agree(make, values_of(1, 2, 5, 5))
    agree(make, values_of(1, 2, 5, 5), 9, 9)
