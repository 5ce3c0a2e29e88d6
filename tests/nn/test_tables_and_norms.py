"""Embedding bags, bilinear layers, Gumbel softmax, weight and spectral norm, wrappers, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nn.agreement import agree, values_of

import torturous

IDS = np.array([[1, 2, 0, 4], [3, 1, 1, 2], [0, 0, 0, 0]])
FLAT = np.array([1, 2, 0, 4, 3, 1, 1])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag(mode):
    for options in ({}, {"padding_idx": 1}, {"padding_idx": 0}):
        def make(library, options=options):
            return library.nn.EmbeddingBag(5, 3, mode=mode, **options)

        agree(make, IDS, twice=False)
        agree(make, FLAT, np.array([0, 2, 2, 5]), twice=False)
        agree(make, FLAT, np.array([0, 7]), twice=False)
    agree(lambda library: library.nn.EmbeddingBag(5, 3, mode=mode, include_last_offset=True), FLAT, np.array([0, 3, 7]),
          twice=False)
    agree(lambda library: lambda ids, w, s: library.nn.functional.embedding_bag(
        ids, w, mode=mode, per_sample_weights=s), IDS, values_of(5, 3), values_of(3, 4, seed=1), twice=False)


def test_embedding_bag_errors():
    agree(lambda library: library.nn.EmbeddingBag(5, 3), FLAT)
    agree(lambda library: library.nn.EmbeddingBag(5, 3), FLAT, np.array([1, 3]))
    agree(lambda library: library.nn.EmbeddingBag(5, 3), FLAT, np.array([0, 9]))
    agree(lambda library: library.nn.EmbeddingBag(5, 3), IDS, np.array([0, 1]))
    agree(lambda library: library.nn.EmbeddingBag(4, 3), IDS)
    agree(lambda library: library.nn.EmbeddingBag(5, 3, mode="min"), IDS)
    with pytest.raises(NotImplementedError, match="sparse"):
        torturous.nn.EmbeddingBag(5, 3, sparse=True)(torturous.tensor(IDS))


def test_bilinear():
    for bias in (True, False):
        agree(lambda library, bias=bias: library.nn.Bilinear(3, 4, 2, bias), values_of(2, 5, 3), values_of(2, 5, 4))
    agree(lambda library: library.nn.Bilinear(3, 4, 2), values_of(3), values_of(4))
    agree(lambda library: library.nn.Bilinear(3, 4, 2), values_of(5, 3), values_of(5, 3))


def test_gumbel_softmax():
    for options in ({}, {"tau": 0.5, "dim": 0}, {"hard": True}):
        agree(lambda library, o=options: lambda x: library.nn.functional.gumbel_softmax(x.float(), **o),
              values_of(4, 3), tolerance=1e-5, twice=False)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_reparametrized_layers(kind):
    def make(layer, **options):
        return lambda library: getattr(library.nn.utils, kind)(layer(library.nn).double(), **options)

    agree(make(lambda nn: nn.Linear(3, 4)), values_of(2, 3), twice=False, calls=2)
    agree(make(lambda nn: nn.Linear(3, 4)), values_of(2, 3), twice=False, training=False)
    agree(make(lambda nn: nn.Conv2d(2, 3, 2), dim=1), values_of(1, 2, 4, 4), twice=False)
    agree(make(lambda nn: nn.ConvTranspose1d(2, 3, 2)), values_of(1, 2, 4), twice=False)

    def removed(library):
        layer = getattr(library.nn.utils, kind)(library.nn.Linear(3, 4).double())
        layer(library.ones(1, 3).double())
        return getattr(library.nn.utils, f"remove_{kind}")(layer)

    agree(removed, values_of(2, 3), twice=False)
    for library in (torturous, torch):
        with pytest.raises(ValueError, match="not found"):
            getattr(library.nn.utils, f"remove_{kind}")(library.nn.Linear(2, 2))
        with pytest.raises(RuntimeError, match="two"):
            twice = getattr(library.nn.utils, kind)
            twice(twice(library.nn.Linear(2, 2)))


def test_wrappers():
    agree(lambda library: library.nn.DataParallel(library.nn.Linear(2, 3)), values_of(4, 2))
    F = torturous.nn.functional
    from torturous.nn.attention import SDPBackend, sdpa_kernel

    x = torturous.tensor(values_of(2, 3, 4))
    plain = F.scaled_dot_product_attention(x, x, x)
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        assert F.scaled_dot_product_attention(x, x, x).tolist() == plain.tolist()
    with pytest.raises(AssertionError, match="SDPBackend"), sdpa_kernel("math"):
        pass


def test_shares_of_a_data_set():
    for options in ({}, {"drop_last": True}, {"shuffle": False}, {"seed": 4}):
        found = []
        for library in (torturous, torch):
            for rank in range(3):
                sampler = library.utils.data.DistributedSampler(range(10), 3, rank, **options)
                sampler.set_epoch(2)
                found.append((list(sampler), len(sampler)))
        assert found[:3] == found[3:]
    for library in (torturous, torch):
        with pytest.raises(ValueError, match="rank"):
            library.utils.data.DistributedSampler(range(10), 3, 3)
        stacked = library.utils.data.StackDataset(range(3), "abc")
        assert stacked[1] == (1, "b") and len(stacked) == 3
        assert library.utils.data.StackDataset(a=range(3), b="abc")[2] == {"a": 2, "b": "c"}
        with pytest.raises(ValueError, match="Size mismatch"):
            library.utils.data.StackDataset(range(3), range(4))
