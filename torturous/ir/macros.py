"""Macros: what is recorded as one row and expanded by the compiler's first pass.

They keep records short (recording is what eager-sized steps pay for) without adding anything that a kernel
has to know: an expansion is written in the same ops as everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.contraction import (
    CONTRACT,
    Map,
    convolution,
    linear,
    transposed_convolution,
    unfolded,
    unfolding,
)
from torturous.ir.op import Attributes, Kind, Op, Type, define
from torturous.ir.reduction import AMAX, ARGMAX, accumulator, lowest


def _define(
    name: str,
    infer: Callable[[Attributes, Sequence[Any]], Type] | None,
    expand: Callable[..., Any],
    *gradients: Callable[..., Any] | None,
    saves: tuple[Any, ...] = (),
    document: str = "",
) -> Op:
    return define(Op(name, Kind.MACRO, infer, None, gradients, saves, None, expand, document=document))


# Linear layers ----------------------------------------------------------------------------------------------
def _expand_linear(out: Type, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    y = x.apply_typed(CONTRACT, out.shape, out.dtype, weight, attributes=linear(len(out.shape)))
    return y + bias[0] if bias else y


def _linear_input_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    rank = len(g.shape)
    lead = tuple(Map(((axis, 1),)) for axis in range(rank - 1))
    attributes = (1, (*lead, Map(((rank, 1),))), (Map(((rank, 1),)), Map(((rank - 1, 1),))))
    return g.apply_typed(CONTRACT, x.shape, x.dtype, weight, attributes=attributes)


def _linear_weight_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    rank = len(g.shape)
    lead = tuple(Map(((axis + 2, 1),)) for axis in range(rank - 1))
    attributes = (rank - 1, (*lead, Map(((0, 1),))), (*lead, Map(((1, 1),))))
    return g.apply_typed(CONTRACT, weight.shape, weight.dtype, x, attributes=attributes)


def _linear_bias_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, bias: Any) -> Any:
    return g.sum(range(len(g.shape) - 1))


LINEAR: Op = _define(
    "linear", None, _expand_linear, _linear_input_rule, _linear_weight_rule, _linear_bias_rule,
    saves=((1,), (0,), ()), document="x(…, I), weight(O, I), bias(O)? → (…, O)")


# Convolution ------------------------------------------------------------------------------------------------
# attributes: (transposed, stride, padding, dilation, groups)

def _grouped(shape: Shape, axis: int, groups: int) -> Shape:
    return shape[:axis] + (groups, shape[axis] // groups) + shape[axis + 1:]


def _expand_convolution(out: Type, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    transposed, stride, padding, dilation, groups = at
    shape = out.shape
    if transposed and groups == 1 and unfolded(x.shape, shape, weight.shape[2:], at[1:4]):
        y = _unfold(out, x, weight)
        return y + bias[0].reshape((shape[1],) + (1,) * len(stride)) if bias else y
    separate = 1 < groups == x.shape[1] == shape[1]
    grouped = groups > 1 and not separate
    if grouped:
        x = x.reshape(_grouped(x.shape, 1, groups))
        weight = weight.reshape(_grouped(weight.shape, 0, groups))
        shape = _grouped(shape, 1, groups)
    make = transposed_convolution if transposed else convolution
    attributes = make(stride, padding, dilation, grouped, separate)
    y = x.apply_typed(CONTRACT, shape, out.dtype, weight, attributes=attributes).reshape(out.shape)
    return y + bias[0].reshape((out.shape[1],) + (1,) * len(stride)) if bias else y


def _unfold(out: Type, x: Any, weight: Any) -> Any:
    """Every place of x times every tap, which lie side by side in the result."""
    taps = weight.shape[2:]
    shape = (*out.shape[:2], *(size for both in zip(x.shape[2:], taps, strict=True) for size in both))
    at = unfolding(len(taps))
    return x.apply_typed(CONTRACT, shape, out.dtype, weight, attributes=at).reshape(out.shape)


# The two gradients of a convolution are macros too, whose own gradients are convolutions and each other.
def _expand_gradient(position: int) -> Any:
    def expand(out: Type, at: Attributes, g: Any, other: Any, *like: Any) -> Any:
        """The gradient rule of the contraction, applied to operands whose shapes are known."""
        transposed, stride, padding, dilation, groups = at
        shape = out.shape
        if position == 1 and transposed:  # The same sum of products, where the two change parts: fewer of them.
            transposed, g, other = False, other, g
        if position == 0 and not transposed and groups == 1 and unfolded(g.shape, shape, other.shape[2:], at[1:4]):
            return _unfold(out, g, other)
        image = out.shape if position == 0 else other.shape
        separate = 1 < groups == g.shape[1] == image[1]
        grouped = groups > 1 and not separate
        if grouped:
            # Weights are grouped along their first axis, inputs and results along their second.
            g = g.reshape(_grouped(g.shape, 1, groups))
            other = other.reshape(_grouped(other.shape, position, groups))
            shape = _grouped(shape, 1 - position, groups)
        make = transposed_convolution if transposed else convolution
        attributes = make(stride, padding, dilation, grouped, separate)
        mine = _Shaped(shape, out.dtype)
        operands = (mine, other) if position == 0 else (other, mine)
        rule: Any = CONTRACT.gradients[position]
        return rule(g, g, attributes, *operands).reshape(out.shape)

    return expand


class _Shaped:
    """Stands for an operand of which a rule reads only the type."""

    def __init__(self, shape: Shape, dtype: Any) -> None:
        self.shape = shape
        self.dtype = dtype


def _convolution_input_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    return g.apply_typed(CONVOLUTION_INPUT, x.shape, x.dtype, weight, attributes=at)


def _convolution_weight_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, *bias: Any) -> Any:
    return g.apply_typed(CONVOLUTION_WEIGHT, weight.shape, weight.dtype, x, attributes=at)


def _convolution_bias_rule(g: Any, out: Any, at: Attributes, x: Any, weight: Any, bias: Any) -> Any:
    # Pixels first, then samples: whichever of them lie innermost are lanes, and neither has to be turned.
    pixels = tuple(range(2, len(g.shape)))
    return g.to(accumulator(g.dtype)).sum(pixels, True).sum((0, *pixels)).to(bias.dtype)


def _convolve(like: Any, at: Attributes, x: Any, weight: Any) -> Any:
    return x.apply_typed(CONVOLUTION, like.shape, like.dtype, weight, attributes=at)


CONVOLUTION: Op = _define(
    "convolution", None, _expand_convolution, _convolution_input_rule, _convolution_weight_rule,
    _convolution_bias_rule, saves=((1,), (0,), ()),
    document="x(N, C, …), weight, bias? → (N, O, …); attributes: transposed, stride, padding, dilation, "
             "groups")
CONVOLUTION_INPUT: Op = _define(
    "convolution_input", None, _expand_gradient(0),
    lambda gg, out, at, g, weight: _convolve(g, at, gg, weight),
    lambda gg, out, at, g, weight: g.apply_typed(
        CONVOLUTION_WEIGHT, weight.shape, weight.dtype, gg, attributes=at),
    saves=((1,), (0,)),
    document="the gradient of a convolution's input: operands the result's gradient, weight")
CONVOLUTION_WEIGHT: Op = _define(
    "convolution_weight", None, _expand_gradient(1),
    lambda gg, out, at, g, x: _convolve(g, at, x, gg),
    lambda gg, out, at, g, x: g.apply_typed(CONVOLUTION_INPUT, x.shape, x.dtype, gg, attributes=at),
    saves=((1,), (0,)),
    document="the gradient of a convolution's weight: operands the result's gradient, input")


# Pooling ----------------------------------------------------------------------------------------------------
# attributes: (kernel, stride, padding, dilation) over the last axes

def _windows(rank: int, at: Attributes) -> tuple:
    """The attributes of a window over the last axes, kernel axes appended behind them."""
    kernel, stride, padding, dilation = at
    spatial = len(kernel)
    first = rank - spatial
    return tuple((first + a, rank + a, stride[a], dilation[a], padding[a]) for a in range(spatial))


def _windowed(x: Any, out: Shape, at: Attributes, fill: Any) -> Any:
    """x seen through its windows: out's axes, then the kernel's."""
    kernel = at[0]
    spread = x.reshape(x.shape + (1,) * len(kernel)).expand(x.shape + tuple(kernel))
    return spread.window(out + tuple(kernel), _windows(len(out), at), fill)


def _kernel_axes(out: Shape, at: Attributes) -> tuple[int, ...]:
    return tuple(range(len(out), len(out) + len(at[0])))


def _expand_max_pool(out: Type, at: Attributes, x: Any) -> Any:
    return _windowed(x, out.shape, at, lowest(out.dtype)).reduce(AMAX, _kernel_axes(out.shape, at), False)


def _expand_max_pool_tap(out: Type, at: Attributes, x: Any) -> Any:
    """Which tap of its window each maximum came from."""
    seen = _windowed(x, out.shape, at, lowest(x.dtype))
    return seen.reduce(ARGMAX, _kernel_axes(out.shape, at), False).to(out.dtype)


def _expand_max_unpool(out: Type, at: Attributes, g: Any, tap: Any) -> Any:
    """The gradient of max pooling: every input sums the gradients of the windows that chose it."""
    kernel = tuple(at[0])
    rank, spatial = len(out.shape), len(kernel)
    counted = tap.iota(prod(kernel), tap.dtype).reshape((1,) * rank + kernel)
    widened = g.shape + (1,) * spatial
    chosen = tap.reshape(widened).eq(counted).where(g.reshape(widened), 0.0)
    if _tiles(out.shape, at, g.shape):
        # Windows that lie side by side: every input belongs to one, so nothing is summed.
        lead = rank - spatial
        order = [*range(lead), *(axis for a in range(spatial) for axis in (lead + a, rank + a))]
        return chosen.permute(order).reshape(out.shape)
    spread = chosen.unwindow(out.shape + kernel, _windows(rank, at), 0)
    return spread.sum(_kernel_axes(out.shape, at))


def _tiles(x: Shape, at: Attributes, out: Shape) -> bool:
    """Whether the windows cover x exactly, without overlap."""
    kernel, stride, padding, dilation = at
    lead = len(x) - len(kernel)
    return kernel == stride and not any(padding) and set(dilation) == {1} and all(
        x[lead + a] == out[lead + a] * kernel[a] for a in range(len(kernel)))


def _expand_max_pick(out: Type, at: Attributes, x: Any, tap: Any) -> Any:
    """x at the taps that a maximum chose: the adjoint of the above."""
    kernel = tuple(at[0])
    rank, spatial = len(out.shape), len(kernel)
    counted = tap.iota(prod(kernel), tap.dtype).reshape((1,) * rank + kernel)
    window = _windowed(x, out.shape, at, 0)
    chosen = tap.reshape(out.shape + (1,) * spatial).eq(counted).where(window, 0.0)
    return chosen.sum(_kernel_axes(out.shape, at))


def _max_pool_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    few = prod(at[0]) <= 256  # A byte tells them apart.
    tap = x.apply_typed(MAX_POOL_TAP, out.shape, dtypes.uint8 if few else dtypes.int32, attributes=at)
    return g.apply_typed(MAX_UNPOOL, x.shape, x.dtype, tap, attributes=at)


MAX_POOL_TAP: Op = _define("max_pool_tap", None, _expand_max_pool_tap)
MAX_POOL: Op = _define("max_pool", None, _expand_max_pool, _max_pool_rule, saves=(0,))
MAX_UNPOOL: Op = _define(
    "max_unpool", None, _expand_max_unpool,
    lambda gg, out, at, g, tap: gg.apply_typed(MAX_PICK, g.shape, g.dtype, tap, attributes=at), None,
    saves=(1,))
MAX_PICK: Op = _define(
    "max_pick", None, _expand_max_pick,
    lambda gg, out, at, x, tap: gg.apply_typed(MAX_UNPOOL, x.shape, x.dtype, tap, attributes=at), None,
    saves=(1,))


def _expand_max_pool_place(out: Type, at: Attributes, x: Any) -> Any:
    """Where each maximum lies in the flattened windowed axes of x."""
    kernel, stride, padding, dilation = at
    spatial = len(kernel)
    rest = x.apply_typed(MAX_POOL_TAP, out.shape, dtypes.int64, attributes=at)
    place: Any = None
    extent = 1
    for axis in reversed(range(spatial)):
        quotient = rest.floor_divide(kernel[axis])
        tap = rest - quotient * kernel[axis]
        rest = quotient
        first = x.iota(out.shape[axis - spatial], dtypes.int64) * stride[axis] - padding[axis]
        first = first.reshape((out.shape[axis - spatial],) + (1,) * (spatial - 1 - axis))
        position = (first + tap * dilation[axis]) * extent
        place = position if place is None else place + position
        extent *= x.shape[axis - spatial]
    return place


MAX_POOL_PLACE: Op = _define("max_pool_place", None, _expand_max_pool_place)
WINDOW_SUM: Op = _define(
    "window_sum", None,
    lambda out, at, x: _windowed(x, out.shape, at, 0).sum(_kernel_axes(out.shape, at)),
    lambda g, out, at, x: g.apply_typed(WINDOW_SPREAD, x.shape, x.dtype, attributes=at),
    document="the sum over each window (average pooling divides it)")


def _expand_window_spread(out: Type, at: Attributes, g: Any) -> Any:
    kernel = tuple(at[0])
    spread = g.reshape(g.shape + (1,) * len(kernel)).expand(g.shape + kernel)
    back = spread.unwindow(out.shape + kernel, _windows(len(out.shape), at), 0)
    return back.sum(_kernel_axes(out.shape, at))


WINDOW_SPREAD: Op = _define(
    "window_spread", None, _expand_window_spread,
    lambda gg, out, at, g: gg.apply_typed(WINDOW_SUM, g.shape, g.dtype, attributes=at))


# Windows as columns: x(N, C, H, W) and (N, C · kernel, places), each the other's adjoint
def _counts(x: Shape, at: Attributes) -> Shape:
    """How many windows fit along each windowed axis."""
    kernel, stride, padding, dilation = at
    sizes = x[-len(kernel):]
    return tuple((size + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
                 for a, size in enumerate(sizes))


def _expand_unfold(out: Type, at: Attributes, x: Any) -> Any:
    rank, spatial = len(x.shape), len(at[0])
    window = _windowed(x, x.shape[:2] + _counts(x.shape, at), at, 0)
    return window.permute((0, 1, *range(rank, rank + spatial), *range(2, rank))).reshape(out.shape)


def _expand_fold(out: Type, at: Attributes, columns: Any) -> Any:
    rank, spatial = len(out.shape), len(at[0])
    spread = columns.reshape(out.shape[:2] + tuple(at[0]) + _counts(out.shape, at))
    spread = spread.permute((0, 1, *range(2 + spatial, 2 + 2 * spatial), *range(2, 2 + spatial)))
    return spread.unwindow(out.shape + tuple(at[0]), _windows(rank, at), 0).sum(_kernel_axes(out.shape, at))


UNFOLD: Op = _define(
    "unfold", None, _expand_unfold,
    lambda g, out, at, x: g.apply_typed(FOLD, x.shape, x.dtype, attributes=at))
FOLD: Op = _define(
    "fold", None, _expand_fold, lambda g, out, at, x: g.apply_typed(UNFOLD, x.shape, x.dtype, attributes=at))


# Average pooling: attributes (kernel, stride, padding, dilation of 1, whether padding counts)
def _window_count(like: Any, x: Shape, out: Shape, at: Attributes, dtype: DType) -> Any:
    """How many elements each window has: out's windowed axes. What hangs over the padding never counts."""
    kernel, stride, padding, _, padded = at
    spatial = len(kernel)
    count: Any = None
    for axis in range(spatial):
        size, margin = x[axis - spatial], padding[axis] if padded else 0
        first = like.iota(out[axis - spatial], dtypes.int64) * stride[axis] - padding[axis]
        last = (first + kernel[axis]).minimum(size + margin)
        along = (last - first.maximum(-margin)).to(dtype)
        along = along.reshape((out[axis - spatial],) + (1,) * (spatial - 1 - axis))
        count = along if count is None else count * along
    return count


def _expand_average_pool(out: Type, at: Attributes, x: Any) -> Any:
    wide = dtypes.float32 if out.dtype.is_half else out.dtype
    total = x.to(wide).apply_typed(WINDOW_SUM, out.shape, wide, attributes=at[:4])
    return (total / _window_count(x, x.shape, out.shape, at, wide)).to(out.dtype)


def _expand_average_spread(out: Type, at: Attributes, g: Any) -> Any:
    wide = dtypes.float32 if out.dtype.is_half else out.dtype
    share = g.to(wide) / _window_count(g, out.shape, g.shape, at, wide)
    return share.apply_typed(WINDOW_SPREAD, out.shape, wide, attributes=at[:4]).to(out.dtype)


AVERAGE_POOL: Op = _define(
    "average_pool", None, _expand_average_pool,
    lambda g, out, at, x: g.apply_typed(AVERAGE_SPREAD, x.shape, x.dtype, attributes=at))
AVERAGE_SPREAD: Op = _define(
    "average_spread", None, _expand_average_spread,
    lambda gg, out, at, g: gg.apply_typed(AVERAGE_POOL, g.shape, g.dtype, attributes=at))


# Softmax ----------------------------------------------------------------------------------------------------
def _same(at: Attributes, operands: Sequence[Type]) -> Type:
    return operands[0]


def _expand_softmax(out: Type, at: Attributes, x: Any) -> Any:
    shifted = (x - x.amax(at, True)).exp()
    return shifted * shifted.sum(at, True).reciprocal()


def _expand_log_softmax(out: Type, at: Attributes, x: Any) -> Any:
    shifted = x - x.amax(at, True)
    return shifted - shifted.exp().sum(at, True).log()


SOFTMAX: Op = _define(
    "softmax", _same, _expand_softmax,
    lambda g, out, at, x: g.apply(SOFTMAX_BACKWARD, out, attributes=at), saves=(-1,))
SOFTMAX_BACKWARD: Op = _define(
    "softmax_backward", _same, lambda out, at, g, y: y * (g - (g * y).sum(at, True)),
    lambda gg, out, at, g, y: gg.apply(SOFTMAX_BACKWARD, y, attributes=at),
    lambda gg, out, at, g, y: gg * (g - (g * y).sum(at, True)) - g * (gg * y).sum(at, True),
    saves=((1,), (0, 1)))
LOG_SOFTMAX: Op = _define(
    "log_softmax", _same, _expand_log_softmax,
    lambda g, out, at, x: g.apply(LOG_SOFTMAX_BACKWARD, out, attributes=at), saves=(-1,))
LOG_SOFTMAX_BACKWARD: Op = _define(
    "log_softmax_backward", _same, lambda out, at, g, y: g - y.exp() * g.sum(at, True),
    lambda gg, out, at, g, y: gg - (gg * y.exp()).sum(at, True),
    lambda gg, out, at, g, y: -(gg * y.exp() * g.sum(at, True)), saves=((1,), (0, 1)))
