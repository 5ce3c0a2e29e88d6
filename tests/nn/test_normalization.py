"""Normalization layers against PyTorch's: statistics, outputs, gradients of two orders, running state, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nn.agreement import agree, values_of

import torturous
from torturous.ir.record import context

BATCH_SHAPES = {"BatchNorm1d": [(3, 4), (2, 4, 5)], "BatchNorm2d": [(2, 4, 3, 2)], "BatchNorm3d": [(2, 4, 2, 3, 2)]}


@pytest.mark.parametrize("name", BATCH_SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [
    {}, {"affine": False}, {"bias": False}, {"track_running_stats": False}, {"momentum": None, "eps": 1e-3},
    {"momentum": 0.7, "affine": False, "track_running_stats": False}], ids=str)
def test_batch_norm(name, training, options):
    for shape in BATCH_SHAPES[name]:
        agree(lambda library: getattr(library.nn, name)(4, **options), values_of(*shape), training=training, calls=2)


@pytest.mark.parametrize("name, shapes", [
    ("InstanceNorm1d", [(2, 4, 5), (4, 5)]), ("InstanceNorm2d", [(2, 4, 3, 2), (4, 3, 2)]),
    ("InstanceNorm3d", [(2, 4, 2, 3, 2)])])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"affine": True}, {"affine": True, "track_running_stats": True}], ids=str)
def test_instance_norm(name, shapes, training, options):
    for shape in shapes:
        agree(lambda library: getattr(library.nn, name)(4, **options), values_of(*shape), training=training, calls=2)


@pytest.mark.parametrize("shape, normalized", [((3, 4, 5), 5), ((3, 4, 5), (4, 5)), ((5,), (5,)), ((0, 5), 5),
                                               ((2, 1, 300), [300])])
def test_layer_and_rms_norm(shape, normalized):
    for options in ({}, {"bias": False}, {"elementwise_affine": False, "eps": 0.1}):
        agree(lambda library, options=options: library.nn.LayerNorm(normalized, **options), values_of(*shape))
    for options in ({}, {"eps": 0.1}, {"elementwise_affine": False}):
        agree(lambda library, options=options: library.nn.RMSNorm(normalized, **options), values_of(*shape))


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 3, 2), (1, 6, 2, 1, 3)])
def test_group_norm(shape):
    for groups in (1, 3, 6):
        agree(lambda library, groups=groups: library.nn.GroupNorm(groups, 6), values_of(*shape))
    agree(lambda library: library.nn.GroupNorm(2, 6, affine=False), values_of(*shape))
    agree(lambda library: library.nn.GroupNorm(2, 6, bias=False), values_of(*shape))


def test_local_response_norm():
    for size in (1, 2, 3, 5):
        agree(lambda library, size=size: library.nn.LocalResponseNorm(size, 0.3, 0.6, 1.5), values_of(2, 4, 3))
    agree(lambda library: library.nn.LocalResponseNorm(2), values_of(2, 4, 3, 2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_other_dtypes(dtype):
    tolerance = {"float16": 4e-3, "bfloat16": 4e-2, "float32": 2e-5}[dtype]
    for make, shape in ((lambda library: library.nn.BatchNorm2d(4), (3, 4, 3, 2)),
                        (lambda library: library.nn.LayerNorm(6), (3, 6)),
                        (lambda library: library.nn.RMSNorm(6), (3, 6)),
                        (lambda library: library.nn.GroupNorm(2, 4), (2, 4, 5))):
        agree(make, values_of(*shape), dtype=dtype, tolerance=tolerance, twice=False)


def test_functions():
    def function(name, *shapes, **options):
        return lambda library: lambda x, *more: getattr(library.nn.functional, name)(x, *more, **options)

    weight, bias = values_of(4, seed=1), values_of(4, seed=2)
    x = values_of(3, 4, 2)
    agree(function("group_norm"), x, 2, weight, bias)
    agree(lambda library: lambda x, b: library.nn.functional.layer_norm(x, (2,), None, b), x, values_of(2, seed=2),
          twice=False)  # Which PyTorch cannot differentiate twice.
    agree(lambda library: lambda x, w, b: library.nn.functional.batch_norm(x, None, None, w, b, True), x, weight, bias)
    agree(lambda library: lambda x, w, b: library.nn.functional.instance_norm(x, weight=w, bias=b), x, weight, bias)
    mean, variance = values_of(4, seed=3), values_of(4, seed=4, low=0.5)
    agree(lambda library: lambda x, w: library.nn.functional.batch_norm(
        x, library.tensor(mean), library.tensor(variance), w), x, weight)
    agree(lambda library: lambda x: library.nn.functional.instance_norm(
        x, library.tensor(mean), library.tensor(variance), use_input_stats=False), x)


@pytest.mark.parametrize("function", [
    lambda F, x: F.batch_norm(x[:1, :, :1, :1], None, None, training=True),
    lambda F, x: F.batch_norm(x, None, None, training=False),
    lambda F, x: F.batch_norm(x, x.new_zeros(3), x.new_zeros(4)),
    lambda F, x: F.batch_norm(x, None, None, x.new_ones(5), training=True),
    lambda F, x: F.batch_norm(x.long(), None, None, training=True),
    lambda F, x: F.batch_norm(x, None, None, x.new_ones(4).float(), training=True),
    lambda F, x: F.group_norm(x, 3),
    lambda F, x: F.group_norm(x[:1, :, :1, :1], 4),
    lambda F, x: F.group_norm(x[0, 0, 0], 3),
    lambda F, x: F.group_norm(x, 2, x.new_ones(3)),
    lambda F, x: F.layer_norm(x, (4, 3)),
    lambda F, x: F.layer_norm(x, (3,), x.new_ones(4)),
    lambda F, x: F.layer_norm(x, ()),
    lambda F, x: F.layer_norm(x.long(), (3,)),
    lambda F, x: F.rms_norm(x, (4, 3)),
    lambda F, x: F.instance_norm(x[:, :, :1, :1]),
    lambda F, x: F.instance_norm(x, use_input_stats=False),
    lambda F, x: F.instance_norm(x, weight=x.new_ones(3)),
    lambda F, x: F.local_response_norm(x[0, 0], 2)])
def test_errors(function):
    agree(lambda library: lambda x: function(library.nn.functional, x), values_of(2, 4, 3, 3))


def test_errors_of_layers():
    agree(lambda library: library.nn.BatchNorm2d(4), values_of(2, 4, 3))
    agree(lambda library: library.nn.BatchNorm1d(4), values_of(2, 4, 3, 3))
    agree(lambda library: library.nn.InstanceNorm2d(4, affine=True), values_of(2, 3, 2, 2))
    agree(lambda library: library.nn.GroupNorm(4, 6), values_of(2, 6))


def test_running_statistics_are_part_of_the_step():
    """Neither a forward pass nor a second one in the same step computes anything, and a plan serves all steps."""
    layer = torturous.nn.BatchNorm1d(4)
    x = torturous.tensor(values_of(8, 4).astype(np.float32))
    layer.running_mean.tolist()
    for _ in range(2):
        record = context.record
        for _ in range(2):
            loss = layer(x).square().sum()
        loss.backward()
        assert context.record is record and layer.running_mean.storage.pending
        layer.weight.grad.tolist()
        layer.zero_grad()
    assert layer.num_batches_tracked.item() == 4


def test_state_dicts_are_exchangeable():
    theirs = torch.nn.BatchNorm2d(3)
    theirs(torch.randn(2, 3, 2, 2))
    mine = torturous.nn.BatchNorm2d(3)
    mine.load_state_dict({name: torturous.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert mine.num_batches_tracked.item() == 1 and str(mine.num_batches_tracked.dtype) == "torch.int64"
    np.testing.assert_array_equal(mine.running_var.numpy(), theirs.running_var.numpy())
    mine.reset_running_stats()
    assert mine.running_var.tolist() == [1, 1, 1] and mine.num_batches_tracked.item() == 0
