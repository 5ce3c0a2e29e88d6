"""The negative log-likelihood as one row, and its gradient as another.

Operands: x(N, C, …) of log-probabilities (or C alone), classes (N, …) as integers, the class to leave out,
and weights(C)?. Attributes: the reduction ('none', 'sum' or 'mean'). Linear in x, so gradients of gradients
are the two ops again. A class out of range is reported by the kernel that picks it.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.indexing import TAKE, TAKE_ALONG
from torturous.ir.op import Attributes, Kind, Op, Type, define


def class_axis(shape: Shape) -> int:
    """The axis of the classes: the second, or the only one."""
    return 1 if len(shape) > 1 else 0


def _widened(dtype: DType) -> DType:
    return dtypes.float32 if dtype.is_half else dtype


def _shares(classes: Any, ignored: Any, weight: tuple, dtype: DType) -> tuple[Any, Any]:
    """Classes with those left out replaced by 0, and how much each counts (0 for those left out)."""
    counted = classes.ne(ignored)
    chosen = counted.where(classes, 0)
    if not weight:
        return chosen, counted.to(dtype)
    picked = weight[0].to(dtype).apply(TAKE, chosen.reshape((prod(classes.shape),)), attributes=(0,))
    return chosen, counted.where(picked.reshape(classes.shape), 0.0)


def _everything(value: Any) -> tuple[int, ...]:
    return tuple(range(len(value.shape)))


def _expand(out: Type, at: Attributes, x: Any, classes: Any, ignored: Any, *weight: Any) -> Any:
    (reduction,) = at
    axis, wide = class_axis(x.shape), _widened(out.dtype)
    chosen, share = _shares(classes, ignored, weight, wide)
    index = chosen.reshape(x.shape[:axis] + (1,) + x.shape[axis + 1:])
    picked = x.apply(TAKE_ALONG, index, attributes=(axis,)).reshape(classes.shape).to(wide)
    # What is left out is 0 even where x is not finite.
    loss = classes.ne(ignored).where(-(picked * share), 0.0)
    if reduction != "none":
        loss = loss.sum(_everything(loss))
    if reduction == "mean":
        loss = loss / share.sum(_everything(share))
    return loss.to(out.dtype)


def _expand_gradient(out: Type, at: Attributes, g: Any, classes: Any, ignored: Any, *weight: Any) -> Any:
    (reduction,) = at
    axis, wide = class_axis(out.shape), _widened(out.dtype)
    chosen, share = _shares(classes, ignored, weight, wide)
    g = g.to(wide)
    if reduction == "mean":
        g = g / share.sum(_everything(share))
    counted = classes.ne(ignored)
    amount = counted.where(-(g * share), 0.0)
    inserted = out.shape[:axis] + (1,) + out.shape[axis + 1:]
    every = g.iota(out.shape[axis], dtypes.int64)
    every = every.reshape((out.shape[axis],) + (1,) * (len(out.shape) - axis - 1))
    return chosen.reshape(inserted).eq(every).where(amount.reshape(inserted), 0.0).to(out.dtype)


def _rule(g: Any, out: Any, at: Attributes, x: Any, classes: Any, ignored: Any, *weight: Any) -> Any:
    return g.apply_typed(NLL_GRADIENT, x.shape, x.dtype, classes, ignored, *weight, attributes=at)


def _gradient_rule(gg: Any, out: Any, at: Attributes, g: Any, classes: Any, ignored: Any,
                   *weight: Any) -> Any:
    return gg.apply_typed(NLL, g.shape, g.dtype, classes, ignored, *weight, attributes=at)


NLL: Op = define(Op(
    "nll", Kind.MACRO, None, None, (_rule, None, None, None), (1, 3), None, _expand,
    document="−x at the classes, weighed; reduced as the attribute says"))
NLL_GRADIENT: Op = define(Op(
    "nll_gradient", Kind.MACRO, None, None, (_gradient_rule, None, None, None), (1, 3), None,
    _expand_gradient, document="the gradient of `nll` with respect to x, dense"))
