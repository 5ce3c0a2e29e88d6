"""Normalization of activations: by batch, layer, group, instance, root mean square, or local neighbourhood."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.core.shapes import Shape, describe
from torturous.ir.elementwise import ADD
from torturous.ir.normalization import (
    DEVIATION,
    MEAN,
    NORMALIZE,
    RUNNING,
    VARIANCE,
    Layout,
    kept_shape,
    statistics_type,
)
from torturous.ir.op import Op
from torturous.ir.record import context, user_place
from torturous.tensor.applying import apply_typed, operand
from torturous.tensor.base import TensorBase
from torturous.tensor.joining import pad
from torturous.tensor.pooling import average_pool
from torturous.tensor.shortcuts import shortcut

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

EPSILON = {"float16": 2.0 ** -10, "bfloat16": 2.0 ** -7, "float32": 2.0 ** -23, "float64": 2.0 ** -52}


_layout = cache(Layout)
"""One of all that are equal: every row of a normalization names one."""


def _check(name: str, x: Any) -> None:
    if not isinstance(x, TensorBase):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise NotImplementedError(f"\"{name}\" not implemented for {x.dtype.name}: it needs a floating dtype")


def _statistics(x: TensorBase, axes: tuple[int, ...], centred: bool) -> tuple[Any, Tensor]:
    """Mean (0 unless it is taken away) and variance over some axes, which stay as ones. No gradient flows through them:
    see `ir.normalization`."""
    shape, dtype = kept_shape(tuple(x.shape), axes), statistics_type(x.dtype)
    mean: Any = apply_typed(MEAN, shape, dtype, x, attributes=(axes,)) if centred else 0.0
    return mean, apply_typed(VARIANCE, shape, dtype, x, mean, attributes=(axes,))


def _normalized(x: TensorBase, mean: Any, variance: TensorBase, eps: float, weight: TensorBase | None,
                bias: TensorBase | None, axes: tuple[int, ...], spanned: tuple[int, ...], statistics: str) -> Tensor:
    deviation = apply_typed(DEVIATION, tuple(variance.shape), statistics_type(x.dtype), variance, float(eps))
    parameters = [parameter for parameter in (weight, bias) if parameter is not None]
    layout = _layout(axes, spanned, statistics, weight is not None, bias is not None)
    return apply_typed(NORMALIZE, tuple(x.shape), x.dtype, x, mean, deviation, float(eps), *parameters,
                       attributes=layout)


def _of_itself(x: TensorBase, eps: float, weight: TensorBase | None, bias: TensorBase | None, axes: tuple[int, ...],
               spanned: tuple[int, ...], centred: bool = True) -> Tensor:
    """x normalized by statistics of its own."""
    mean, variance = _statistics(x, axes, centred)
    return _normalized(x, mean, variance, eps, weight, bias, axes, spanned,
                       "mean and variance" if centred else "mean square")


def _update(running: TensorBase, op: Op, *operands: Any) -> None:
    """running = op(running, operands), in place and hidden from autograd.

    Unlike a write of the user's this one never realizes pending work: a network may run twice within one step.
    """
    tracking, context.tracking = context.tracking, False
    try:
        running._writable()
        while True:  # Entering an operand may realize what others were entered into.
            record = context.record
            codes = [running._enter(writing=True), *(operand(value, record) for value in operands)]
            if record is context.record:
                break
        place = user_place()
        running._write(record.apply(op, (), codes, place, False), place)
    finally:
        context.tracking = tracking


# Batches ----------------------------------------------------------------------------------------------------------
def _check_dtypes(name: str, x: TensorBase, parameters: Iterable[TensorBase | None]) -> None:
    wide = statistics_type(x.dtype)
    for parameter in parameters:
        if parameter is not None and parameter.dtype not in (x.dtype, wide):
            raise RuntimeError(f"mixed dtype (CPU): expect parameter to have the input's dtype, {x.dtype.name}"
                               f"{', or float32' if wide is not x.dtype else ''}, but got {parameter.dtype.name} "
                               f"({name})")


def _check_parameters(name: str, x: TensorBase, **parameters: TensorBase | None) -> None:
    channels = x.shape[1]
    _check_dtypes(name, x, parameters.values())
    for role, parameter in parameters.items():
        if parameter is not None and tuple(parameter.shape) != (channels,):
            raise RuntimeError(f"{name}: {role} should contain {channels} elements not {parameter.shape.numel()} "  # type: ignore[attr-defined]
                               f"(shape {describe(parameter.shape)}, one number per channel: axis 1 of the input)")


def batch_norm(
    input: TensorBase, running_mean: TensorBase | None, running_var: TensorBase | None,
    weight: TensorBase | None = None, bias: TensorBase | None = None, training: bool = False,
    momentum: Any = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Every channel of (N, C, …) with mean 0 and variance 1, times weight (C) plus bias (C) (Ioffe, Szegedy 2015).

    In training the statistics are those of the batch, and the running ones, if there are any, take the share
    `momentum` of them (of the unbiased variance); else they are the running ones. `momentum` may be a 0-d tensor.
    ValueError where training sees one value per channel.
    """
    _check("batch_norm", input)
    shape: Shape = tuple(input.shape)
    if len(shape) < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, …), got {describe(shape)}")
    axes = (0, *range(2, len(shape)))
    _check_parameters("batch_norm", input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when training=False (batch_norm)")
        return _normalized(input, running_mean, running_var, eps, weight, bias, axes, (1,), "given")
    count = prod(shape[axis] for axis in axes)
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    mean, variance = _statistics(input, axes, True)
    result = _normalized(input, mean, variance, eps, weight, bias, axes, (1,), "mean and variance")
    _run(running_mean, running_var, mean, variance, momentum, count)
    return result


def count_batch(batches: TensorBase) -> None:
    """One more, in place: how a layer counts the batches that its running statistics have seen."""
    _update(batches, ADD, 1)


def _run(running_mean: TensorBase | None, running_var: TensorBase | None, mean: TensorBase, variance: TensorBase,
         momentum: Any, count: int) -> None:
    if running_mean is not None:
        _update(running_mean, RUNNING, mean, 1 - momentum, momentum)
    if running_var is not None:
        _update(running_var, RUNNING, variance, 1 - momentum, momentum * (count / (count - 1)))


def instance_norm(
    input: TensorBase, running_mean: TensorBase | None = None, running_var: TensorBase | None = None,
    weight: TensorBase | None = None, bias: TensorBase | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:
    """Every channel of every sample of (N, C, …) by itself (Ulyanov et al., 2016); weight and bias are (C).

    Running statistics take the share `momentum` of the samples' mean statistics, and are used instead of the input's
    where `use_input_stats` is false. ValueError for one value per channel.
    """
    _check("instance_norm", input)
    shape: Shape = tuple(input.shape)
    if not use_input_stats and (running_mean is None or running_var is None):
        raise RuntimeError("Expected running_mean and running_var to be defined when use_input_stats is false "
                           "(instance_norm)")
    axes = tuple(range(2, len(shape)))
    count = prod(shape[axis] for axis in axes)
    if use_input_stats and count == 1:
        raise ValueError("Expected more than 1 spatial element when training, got input size "
                         f"{input.shape} (instance_norm)")
    _check_parameters("instance_norm", input, running_mean=running_mean, running_var=running_var, weight=weight,
                      bias=bias)
    if not use_input_stats:
        assert running_mean is not None and running_var is not None
        return _normalized(input, running_mean, running_var, eps, weight, bias, (0, *axes), (1,), "given")
    mean, variance = _statistics(input, axes, True)
    result = _normalized(input, mean, variance, eps, weight, bias, axes, (1,), "mean and variance")
    if running_mean is not None or running_var is not None:
        means, variances = (
            apply_typed(MEAN, (1, *t.shape[1:]), t.dtype, t, attributes=((0,),)) for t in (mean, variance))
        _run(running_mean, running_var, means, variances, momentum, count)
    return result


# Samples ----------------------------------------------------------------------------------------------------------
def _last_axes(name: str, input: TensorBase, normalized_shape: Sequence[int], **parameters: TensorBase | None
               ) -> tuple[int, ...]:
    """The axes that make up the normalized shape; RuntimeError where they or a parameter do not fit."""
    wanted, shape = tuple(normalized_shape), tuple(input.shape)
    if not wanted:
        raise RuntimeError(f"{name}: Expected normalized_shape to be at least 1-dimensional, i.e., containing at least "
                           "one element, but got normalized_shape = []")
    _check_dtypes(name, input, parameters.values())
    for role, parameter in parameters.items():
        if parameter is not None and tuple(parameter.shape) != wanted:
            raise RuntimeError(f"Expected {role} to be of same shape as normalized_shape, but got {role} of shape "
                               f"{describe(parameter.shape)} and normalized_shape = {describe(wanted)} ({name})")
    if shape[-len(wanted):] != wanted:
        expected = ", ".join(["*", *map(str, wanted)])
        raise RuntimeError(f"Given normalized_shape={describe(wanted)}, expected input with shape [{expected}], but "
                           f"got input of size{describe(shape)} ({name})")
    return tuple(range(len(shape) - len(wanted), len(shape)))


def layer_norm(input: TensorBase, normalized_shape: Sequence[int], weight: TensorBase | None = None,
               bias: TensorBase | None = None, eps: float = 1e-5) -> Tensor:
    """The last axes, of the given shape, with mean 0 and variance 1, times weight plus bias (Ba et al., 2016)."""
    return _layer_norm(input, weight, bias, tuple(normalized_shape), eps)


@shortcut(operands=3)
def _layer_norm(input: TensorBase, weight: TensorBase | None, bias: TensorBase | None, normalized_shape: Shape,
                eps: float) -> Tensor:
    _check("layer_norm", input)
    axes = _last_axes("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return _of_itself(input, eps, weight, bias, axes, axes)


def rms_norm(input: TensorBase, normalized_shape: Sequence[int], weight: TensorBase | None = None,
             eps: float | None = None) -> Tensor:
    """The last axes divided by their root mean square, times weight (Zhang, Sennrich 2019); without `eps` the spacing
    of the input's dtype at 1."""
    return _rms_norm(input, weight, tuple(normalized_shape), eps)


@shortcut(operands=2)
def _rms_norm(input: TensorBase, weight: TensorBase | None, normalized_shape: Shape, eps: float | None) -> Tensor:
    _check("rms_norm", input)
    axes = _last_axes("rms_norm", input, normalized_shape, weight=weight)
    if eps is None:
        eps = EPSILON[statistics_type(input.dtype).name]
    return _of_itself(input, eps, weight, None, axes, axes, centred=False)


def group_norm(input: TensorBase, num_groups: int, weight: TensorBase | None = None, bias: TensorBase | None = None,
               eps: float = 1e-5) -> Tensor:
    """Groups of channels of every sample of (N, C, …) (Wu, He 2018); weight and bias are (C).

    RuntimeError where the groups do not divide the channels, ValueError for one value per group.
    """
    _check("group_norm", input)
    shape: Shape = tuple(input.shape)
    if len(shape) < 2:
        raise RuntimeError(f"Expected at least 2 dimensions for input tensor but received {len(shape)} (group_norm)")
    samples, channels, *spatial = shape
    if num_groups <= 0 or channels % num_groups:
        raise RuntimeError("Expected number of channels in input to be divisible by num_groups, but got input of shape "
                           f"{describe(shape)} and num_groups={num_groups} (group_norm)")
    _check_parameters("group_norm", input, weight=weight, bias=bias)
    if samples * channels // num_groups * prod(spatial) == 1:
        raise ValueError("Expected more than 1 value per channel when training, got input size "
                         f"{[samples * channels // num_groups, num_groups, *spatial]} (group_norm)")
    grouped = input.reshape(samples, num_groups, channels // num_groups, *spatial)  # type: ignore[attr-defined]
    axes = tuple(range(2, len(grouped.shape)))
    return _of_itself(grouped, eps, weight, bias, axes, (1, 2)).reshape(shape)


def local_response_norm(input: TensorBase, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
                        ) -> Tensor:
    """Divided by (k + alpha · mean of squares over `size` neighbouring channels) ^ beta (Krizhevsky et al., 2012)."""
    rank = len(input.shape)
    if rank < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {rank} dimensions) (local_response_norm)")
    if 0 in input.shape:
        return input  # type: ignore[return-value]
    x: Any = input
    samples, channels, *spatial = x.shape
    squares = (x * x).reshape(samples, 1, channels, prod(spatial))
    # Before a channel there are size // 2 neighbours, after it one fewer where the size is even.
    padded = pad(squares, (0, 0, size // 2, (size - 1) // 2))
    mean = average_pool(padded, (size, 1), 1, 0, False, True, None, 2).reshape(x.shape)
    return x / (mean * alpha + k).pow(beta)
