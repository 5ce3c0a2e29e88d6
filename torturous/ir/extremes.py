"""Extremes along one axis whose gradient goes to one element: the place that `argmax` or `argmin` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.core import dtypes
from torturous.ir.op import Attributes, Kind, Op, Type, define
from torturous.ir.reduction import AMAX, AMIN, ARGMAX, ARGMIN, reduced_shape


def _infer(at: Attributes, operands: Any) -> Type:
    axes, keep = at
    return Type(reduced_shape(operands[0].shape, axes, keep), operands[0].dtype)


def _rule(place: Op) -> Callable[..., Any]:
    def rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
        (axis,), _ = at
        kept = reduced_shape(x.shape, (axis,), True)
        along = tuple(size if k == axis else 1 for k, size in enumerate(x.shape))
        positions = x.iota(x.shape[axis], dtypes.int64).reshape(along)
        return x.reduce(place, (axis,), True).eq(positions).where(g.reshape(kept), 0.0)

    return rule


FIRST_MAX = define(
    Op(
        "first_max",
        Kind.MACRO,
        _infer,
        gradients=(_rule(ARGMAX),),
        saves=(0,),
        expand=lambda out, at, x: x.reduce(AMAX, *at),
        document="attributes: (axis,), keep; equals do not share the gradient",
    )
)
FIRST_MIN = define(
    Op(
        "first_min",
        Kind.MACRO,
        _infer,
        gradients=(_rule(ARGMIN),),
        saves=(0,),
        expand=lambda out, at, x: x.reduce(AMIN, *at),
        document="attributes: (axis,), keep; equals do not share the gradient",
    )
)
