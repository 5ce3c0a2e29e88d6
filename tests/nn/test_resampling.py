"""Pooling to given sizes, interpolation, pixel shuffling and padding layers against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from nn.agreement import agree, values_of

SPATIAL = {1: (7,), 2: (7, 5), 3: (5, 4, 3)}


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_adaptive_pooling(spatial):
    x = values_of(2, 3, *SPATIAL[spatial])
    for size in (1, 2, 3, 9, (None,) * (spatial - 1) + (2,), SPATIAL[spatial]):
        if spatial == 1 and not isinstance(size, int):
            continue
        agree(lambda library, size=size: getattr(library.nn, f"AdaptiveAvgPool{spatial}d")(size), x)
        agree(lambda library, size=size: getattr(library.nn, f"AdaptiveMaxPool{spatial}d")(size, True), x, twice=False)
    agree(lambda library: getattr(library.nn, f"AdaptiveAvgPool{spatial}d")(2), x[0])
    agree(lambda library: getattr(library.nn, f"AdaptiveMaxPool{spatial}d")(2), x[0])


def test_adaptive_pooling_errors():
    x = values_of(2, 3, 4, 5)
    for size in ((-1, 2), (1, 2, 3)):
        agree(lambda library, size=size: lambda t: library.nn.functional.adaptive_avg_pool2d(t, size), x)
    agree(lambda library: library.nn.AdaptiveAvgPool2d(2), x[0, 0])
    agree(lambda library: library.nn.AdaptiveAvgPool2d(2), x[:, :, :0])
    agree(lambda library: library.nn.AdaptiveAvgPool2d((1, 2)), x[:0])


def resized(*arguments, **options):
    return lambda library: lambda x: library.nn.functional.interpolate(x, *arguments, **options)


@pytest.mark.parametrize("mode, spatial", [
    ("nearest", 1), ("nearest", 2), ("nearest", 3), ("nearest-exact", 2), ("area", 2), ("linear", 1), ("bilinear", 2),
    ("trilinear", 3), ("bicubic", 2)])
def test_interpolation(mode, spatial):
    x = values_of(2, 2, *SPATIAL[spatial])
    for options in ({"scale_factor": 2}, {"scale_factor": 1.7}, {"size": 3}, {"size": (11,) * spatial},
                    {"scale_factor": 0.6, "recompute_scale_factor": True}):
        agree(resized(mode=mode, **options), x)
        if "linear" in mode or mode == "bicubic":
            agree(resized(mode=mode, align_corners=True, **options), x, twice=False)
    agree(resized(mode=mode, size=SPATIAL[spatial]), x)
    agree(resized(mode=mode, scale_factor=1.4), x, dtype="float32", tolerance=1e-5, twice=False)


def test_interpolation_errors():
    x = values_of(2, 3, 4, 5)
    for options in ({}, {"size": 3, "scale_factor": 2}, {"size": (3, 4, 5)}, {"scale_factor": (2,)},
                    {"scale_factor": 2, "mode": "linear"}, {"scale_factor": 2, "mode": "none"},
                    {"scale_factor": 2, "align_corners": True}, {"size": 0}, {"scale_factor": 0.1},
                    {"size": 3, "recompute_scale_factor": True}, {"size": 3, "antialias": True}):
        agree(resized(**options), x)
    agree(resized(scale_factor=2, mode="bilinear"), x[0])
    agree(resized(scale_factor=2), x[0, 0])


@pytest.mark.parametrize("make", [
    lambda nn: nn.Upsample(scale_factor=2), lambda nn: nn.Upsample(scale_factor=(2, 1.5)), lambda nn: nn.Upsample(3),
    lambda nn: nn.Upsample((5, 9), mode="bilinear", align_corners=True), lambda nn: nn.UpsamplingNearest2d(4),
    lambda nn: nn.UpsamplingBilinear2d(scale_factor=3), lambda nn: nn.PixelShuffle(2), lambda nn: nn.PixelUnshuffle(2),
    lambda nn: nn.PixelUnshuffle(3), lambda nn: nn.PixelShuffle(3), lambda nn: nn.PixelShuffle(0),
    lambda nn: nn.ChannelShuffle(2), lambda nn: nn.ChannelShuffle(3)])
def test_layers(make):
    agree(lambda library: make(library.nn), values_of(2, 4, 4, 6))


@pytest.mark.parametrize("kind", ["ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "CircularPad"])
def test_padding_layers(kind):
    for spatial, padding in ((1, 2), (1, (1, 2)), (2, 1), (2, (1, 0, 2, 1)), (3, (1, 1, 0, 1, 2, 0)), (2, (9, 9, 9, 9)),
                             (2, (-1, 1, 0, -1))):
        value = (1.5,) if kind == "ConstantPad" else ()
        agree(lambda library, s=spatial, p=padding, v=value: getattr(library.nn, f"{kind}{s}d")(p, *v),
              values_of(2, 2, *SPATIAL[spatial]), twice=False)


def test_shuffling_any_rank():
    x = np.arange(2 * 3 * 8 * 2 * 3, dtype=float).reshape(2, 3, 8, 2, 3)
    agree(lambda library: lambda t: library.nn.functional.pixel_shuffle(t, 2), x)
    agree(lambda library: lambda t: library.nn.functional.pixel_unshuffle(t.transpose(-1, -3), 2), x)
    agree(lambda library: lambda t: library.nn.functional.pixel_shuffle(t, 2), x[0, 0, 0])
