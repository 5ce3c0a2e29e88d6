"""Sampling at grids, affine grids, activations in place, fused batch normalization, against PyTorch."""

from __future__ import annotations

import pytest
from nn.agreement import agree, values_of


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample(mode, padding):
    for aligned in (True, False):
        agree(lambda library, a=aligned: lambda x, grid: library.nn.functional.grid_sample(x, grid, mode, padding, a),
              values_of(2, 3, 4, 5), values_of(2, 3, 2, 2, seed=1), twice=False)


def test_affine_grid():
    theta = values_of(2, 2, 3)
    for aligned in (True, False):
        agree(lambda library, a=aligned: lambda t: library.nn.functional.affine_grid(t, [2, 3, 4, 5], a), theta)
        agree(lambda library, a=aligned: lambda t: library.nn.functional.affine_grid(t, (2, 1, 1, 3), a), theta)


@pytest.mark.parametrize("call", [
    lambda F, x, grid: F.grid_sample(x, grid, "none", align_corners=False),
    lambda F, x, grid: F.grid_sample(x, grid, padding_mode="none", align_corners=False),
    lambda F, x, grid: F.grid_sample(x, grid[:1], align_corners=False),
    lambda F, x, grid: F.grid_sample(x, grid.float(), align_corners=False),
    lambda F, x, grid: F.affine_grid(grid[:, 0], [2, 1, 3, 3], False),
    lambda F, x, grid: F.affine_grid(grid[:, :2, 0], [2, 1, 3], False)])
def test_errors(call):
    agree(lambda library: lambda x, grid: call(library.nn.functional, x, grid), values_of(2, 3, 4, 5),
          values_of(2, 3, 2, 2, seed=1), twice=False)


def test_activations_in_place():
    for name, more in (("relu_", ()), ("leaky_relu_", (0.2,)), ("elu_", ()), ("selu_", ()), ("hardtanh_", ()),
                       ("threshold_", (0.1, 2.0))):
        def make(library, name=name, more=more):
            function = getattr(library.nn.functional, name)
            return lambda x: function(x * 2, *more)

        agree(make, values_of(3, 4), twice=False)


@pytest.mark.parametrize("build", [
    lambda nn: (nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), False), lambda nn: (nn.Conv1d(2, 3, 2, bias=False),
    nn.BatchNorm1d(3, affine=False), False), lambda nn: (nn.ConvTranspose2d(2, 3, 2), nn.BatchNorm2d(3), True)])
def test_fused_normalization(build):
    def make(library):
        layer, norm, transposed = build(library.nn)
        norm.running_mean.copy_(library.tensor([0.5, -1.0, 0.2]))
        return library.nn.utils.fuse_conv_bn_eval(layer.eval(), norm.eval(), transposed)

    rank = 3 if "Conv1d" in str(build.__code__.co_names) else 4
    agree(make, values_of(2, 2, *(4,) * (rank - 2)), twice=False, tolerance=1e-6)
