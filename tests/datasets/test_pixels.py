from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from torturous.datasets.pixels import enlarged, normalized, scaled

counts = st.integers(0, 5)
seeds = st.integers(0, 2**32 - 1)


@given(count=counts, levels=st.integers(1, 255), seed=seeds)
def test_enlarged_is_bilinear_interpolation_with_zeros_outside(count: int, levels: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, levels + 1, (count, 8, 8), np.uint8)
    wide = torch.nn.functional.pad(torch.from_numpy(images).double()[:, None], (4, 4, 4, 4))
    if count:
        wide = torch.nn.functional.interpolate(wide, size=(40, 40), mode="bilinear", align_corners=False)
    else:
        wide = torch.empty(0, 1, 40, 40, dtype=torch.float64)
    exact = wide[:, 0, 6:34, 6:34].numpy() * 255 / levels
    found = enlarged(images, levels)
    assert found.dtype == np.uint8 and found.shape == (count, 28, 28)
    assert (abs(found - exact) <= 0.5 + 1e-9).all()


@given(count=counts, height=st.integers(1, 6), width=st.integers(1, 6), seed=seeds)
def test_scaled_and_normalized_are_torchvisions(count: int, height: int, width: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)
    unit = torch.from_numpy(images)[:, None].float().div(255)
    mean, std = torch.tensor(0.1307), torch.tensor(0.3081)
    for found, expected in (
        (scaled(images), unit),
        (normalized(images, 0.1307, 0.3081), unit.sub(mean).div(std)),
    ):
        assert found.dtype == np.float32 and found.shape == (count, 1, height, width)
        assert found.tobytes() == expected.numpy().tobytes()
