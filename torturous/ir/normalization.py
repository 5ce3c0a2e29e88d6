"""Normalization: what layers named after batches, layers, groups, instances and root mean squares have in common.

Four rows: MEAN and VARIANCE of x over some axes, the reciprocal DEVIATION, and NORMALIZE. No gradient flows through the
statistics' own rows: NORMALIZE's gradient with respect to x is the whole one, with what flows through the statistics.
Statistics, parameters and sums are float32 where x is of a sixteen-bit type.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import Attributes, Kind, Op, Type, define


class Layout(NamedTuple):
    """The attributes of NORMALIZE and of its gradients."""

    axes: tuple[int, ...]
    """What a mean is taken over."""
    spanned: tuple[int, ...]
    """The axes of x that weight and bias have, flattened or not."""
    statistics: str
    """'mean and variance' of x, its 'mean square' (the mean is 0 then), or 'given': no functions of x."""
    weighted: bool
    biased: bool


def statistics_type(dtype: DType) -> DType:
    """The dtype of means and variances."""
    return dtypes.float32 if dtype.is_half else dtype


def kept_shape(x: Shape, axes: tuple[int, ...]) -> Shape:
    """The shape with ones for these axes."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(x))


def _count(x: Shape, axes: tuple[int, ...]) -> int:
    return prod(x[axis] for axis in axes)


def _others(x: Shape, spanned: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(x)) if axis not in spanned)


def _spread(parameter: Any, x: Shape, spanned: tuple[int, ...], dtype: DType) -> Any:
    """A weight or bias in the axes of x."""
    return parameter.to(dtype).reshape(kept_shape(x, _others(x, spanned)))


# Statistics -------------------------------------------------------------------------------------------------------
def _expand_mean(out: Type, at: Attributes, x: Any) -> Any:
    (axes,) = at
    return x.to(out.dtype).sum(axes, True) / _count(x.shape, axes)


def _expand_variance(out: Type, at: Attributes, x: Any, mean: Any) -> Any:
    (axes,) = at
    centred = x.to(out.dtype) - mean
    return (centred * centred).sum(axes, True) / _count(x.shape, axes)


MEAN = define(Op("statistics_mean", Kind.MACRO, expand=_expand_mean,
                 document="attributes (axes,), which stay as ones"))
VARIANCE = define(Op("statistics_variance", Kind.MACRO, expand=_expand_variance,
                     document="the mean of (x − mean)²: operands x, mean (or 0); attributes (axes,)"))
DEVIATION = define(Op("reciprocal_deviation", Kind.MACRO,
                      expand=lambda out, at, variance, eps: (variance.to(out.dtype) + eps).rsqrt(),
                      document="1 / √(variance + eps)"))
RUNNING = define(Op("running_statistic", Kind.MACRO, lambda at, operands: operands[0],
                    expand=lambda out, at, running, new, kept, share:
                    (running * kept + new.reshape(out.shape) * share).to(out.dtype),
                    document="running · kept + new · share"))


# Normalizing ------------------------------------------------------------------------------------------------------
# operands: x, mean, reciprocal deviation, eps, weight?, bias?
def _standard(x: Any, mean: Any, deviation: Any, axes: tuple[int, ...]) -> Any:
    """x with mean 0 and variance 1."""
    dtype, shape = statistics_type(x.dtype), kept_shape(x.shape, axes)
    if mean.index >= 0:
        mean = mean.to(dtype).reshape(shape)
    return (x.to(dtype) - mean) * deviation.reshape(shape)


def _projected(h: Any, standard: Any, layout: Layout) -> Any:
    """h without what a change of x along it would do to the statistics."""
    if layout.statistics == "given":
        return h
    share = 1 / max(_count(h.shape, layout.axes), 1)  # Cheap enough to be multiplied where the sums are used.
    rest = h - standard * ((h * standard).sum(layout.axes, True) * share)
    return rest - h.sum(layout.axes, True) * share if layout.statistics == "mean and variance" else rest


def _expand_normalize(out: Type, at: Attributes, x: Any, mean: Any, deviation: Any, eps: Any, *parameters: Any) -> Any:
    layout = Layout(*at)
    y = _standard(x, mean, deviation, layout.axes)
    if layout.weighted:
        y = y * _spread(parameters[0], x.shape, layout.spanned, y.dtype)
    if layout.biased:
        y = y + _spread(parameters[-1], x.shape, layout.spanned, y.dtype)
    return y.to(out.dtype)


def _expand_input(out: Type, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any, eps: Any, *weight: Any) -> Any:
    layout = Layout(*at)
    standard = _standard(x, mean, deviation, layout.axes)
    scale, h = deviation.reshape(kept_shape(x.shape, layout.axes)), g.to(standard.dtype)
    if weight:
        spread = _spread(weight[0], x.shape, layout.spanned, standard.dtype)
        if set(layout.spanned) & set(layout.axes):
            h = h * spread
        else:  # The sums that follow are then those of the parameters' gradients.
            scale = scale * spread
    return (_projected(h, standard, layout) * scale).to(out.dtype)


def _expand_weight(out: Type, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any, eps: Any) -> Any:
    layout = Layout(*at)
    standard = _standard(x, mean, deviation, layout.axes)
    total = (g.to(standard.dtype) * standard).sum(_others(x.shape, layout.spanned), True)
    return total.reshape(out.shape).to(out.dtype)


def _expand_bias(out: Type, at: Attributes, g: Any) -> Any:
    total = g.to(statistics_type(g.dtype)).sum(_others(g.shape, Layout(*at).spanned), True)
    return total.reshape(out.shape).to(out.dtype)


# Gradients --------------------------------------------------------------------------------------------------------
def _plain(at: Attributes) -> Layout:
    """The layout without parameters."""
    return Layout(*at)._replace(weighted=False, biased=False)


def _input_rule(g: Any, out: Any, at: Attributes, x: Any, mean: Any, deviation: Any, eps: Any, *parameters: Any) -> Any:
    weighted = Layout(*at).weighted
    return g.apply_typed(NORMALIZE_INPUT, x.shape, x.dtype, x, mean, deviation, eps, *parameters[:weighted],
                         attributes=_plain(at)._replace(weighted=weighted))


def _parameter_rule(position: int) -> Any:
    def rule(g: Any, out: Any, at: Attributes, x: Any, mean: Any, deviation: Any, eps: Any, *parameters: Any) -> Any:
        mine = parameters[position]
        if position == 0 and Layout(*at).weighted:
            return g.apply_typed(NORMALIZE_WEIGHT, mine.shape, mine.dtype, x, mean, deviation, eps,
                                 attributes=_plain(at))
        return g.apply_typed(NORMALIZE_BIAS, mine.shape, mine.dtype, attributes=_plain(at))

    return rule


def _of_input_by_gradient(gg: Any, out: Any, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any, eps: Any,
                          *weight: Any) -> Any:
    back = gg.apply_typed(NORMALIZE_INPUT, x.shape, g.dtype, x, mean, deviation, eps, attributes=_plain(at))
    return back * _spread(weight[0], x.shape, at[1], back.dtype) if weight else back


def _of_input_by_weight(gg: Any, out: Any, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any, eps: Any,
                        weight: Any) -> Any:
    back = gg.apply_typed(NORMALIZE_INPUT, x.shape, statistics_type(x.dtype), x, mean, deviation, eps,
                          attributes=_plain(at))
    return (g * back).apply_typed(NORMALIZE_BIAS, weight.shape, weight.dtype, attributes=_plain(at))


def _of_input_by_input(gg: Any, out: Any, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any, eps: Any,
                       *weight: Any) -> Any:
    """In ops whose gradients go through the statistics, so that derivatives of every order are right."""
    layout = Layout(*at)
    if layout.statistics == "given":
        return x.zeros()
    axes, count, dtype = layout.axes, _count(x.shape, layout.axes), statistics_type(x.dtype)

    def mean_of(value: Any) -> Any:
        return value.sum(axes, True) / count

    centred = x.to(dtype)
    if layout.statistics == "mean and variance":
        centred = centred - mean_of(centred)
    scale = (mean_of(centred * centred) + eps).rsqrt()
    standard = centred * scale
    h, gg = g.to(dtype), gg.to(dtype)
    if weight:
        h = h * _spread(weight[0], x.shape, layout.spanned, dtype)
    by_standard = -(gg * mean_of(h * standard) + h * mean_of(gg * standard)) * scale
    by_scale = mean_of(gg * _projected(h, standard, layout))
    return (_projected(by_standard, standard, layout) * scale - standard * (by_scale * (scale * scale))).to(x.dtype)


def _of_weight_by_gradient(gg: Any, out: Any, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any,
                           eps: Any) -> Any:
    standard = x.apply_typed(NORMALIZE, x.shape, statistics_type(x.dtype), mean, deviation, eps, attributes=_plain(at))
    return (standard * _spread(gg, x.shape, at[1], standard.dtype)).to(g.dtype)


def _of_weight_by_input(gg: Any, out: Any, at: Attributes, g: Any, x: Any, mean: Any, deviation: Any,
                        eps: Any) -> Any:
    h = g.to(statistics_type(x.dtype)) * _spread(gg, x.shape, at[1], statistics_type(x.dtype))
    return h.apply_typed(NORMALIZE_INPUT, x.shape, x.dtype, x, mean, deviation, eps, attributes=_plain(at))


def _of_bias_by_gradient(gg: Any, out: Any, at: Attributes, g: Any) -> Any:
    return _spread(gg, g.shape, at[1], g.dtype).expand(g.shape)


_STATISTICS = (0, 1, 2)
NORMALIZE: Op = define(Op(
    "normalize", Kind.MACRO, None, None, (_input_rule, None, None, None, _parameter_rule(0), _parameter_rule(1)),
    ((*_STATISTICS, 4), (), (), (), _STATISTICS, ()), None, _expand_normalize,
    document="(x − mean) · reciprocal deviation · weight + bias; attributes: a Layout"))
NORMALIZE_INPUT: Op = define(Op(
    "normalize_input", Kind.MACRO, None, None,
    (_of_input_by_gradient, _of_input_by_input, None, None, None, _of_input_by_weight),
    ((1, 2, 3, 5), (0, 1, 5), (), (), (), (0, 1, 2, 3)), None, _expand_input,
    document="the gradient of x: operands the result's gradient, x, mean, deviation, eps, weight?"))
NORMALIZE_WEIGHT: Op = define(Op(
    "normalize_weight", Kind.MACRO, None, None, (_of_weight_by_gradient, _of_weight_by_input, None, None, None),
    ((1, 2, 3), (0, 1, 2, 3), (), (), ()), None, _expand_weight,
    document="the gradient of the weight: operands the result's gradient, x, mean, deviation, eps"))
NORMALIZE_BIAS: Op = define(Op(
    "normalize_bias", Kind.MACRO, None, None, (_of_bias_by_gradient,), (), None, _expand_bias,
    document="the gradient of the bias: operand the result's gradient"))
