"""Losses of margins, of pairs and triplets, and of counts and spreads; distances between vectors.

`reduction` is 'none', 'sum' or 'mean', as for the losses of `torturous.tensor.losses`.
"""

from __future__ import annotations

from math import log, pi
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.shapes import describe
from torturous.ir import elementwise as ops
from torturous.tensor.activations import logsigmoid
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import zeros_like
from torturous.tensor.grad_mode import no_grad
from torturous.tensor.losses import reduced, translated
from torturous.tensor.recording import binary, unary

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _at_least(x: Any, bound: float) -> Any:
    return apply(ops.CLAMP_MIN, x, bound)


def _where(condition: Any, a: Any, b: Any) -> Any:
    return apply(ops.WHERE, condition, a, b)


# Distances --------------------------------------------------------------------------------------------------------
def pairwise_distance(x1: TensorBase, x2: TensorBase, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
                      ) -> Tensor:
    """The p-norm of x1 − x2 + eps along the last axis."""
    difference: Any = binary(ops.ADD, binary(ops.SUB, x1, x2), eps)
    return difference.norm(p, -1, keepdim)


def cosine_embedding_loss(input1: TensorBase, input2: TensorBase, target: TensorBase, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
                          ) -> Tensor:
    """1 − cos for pairs (N, D) whose target is 1, max(0, cos − margin) where it is −1."""
    reduction = translated(reduction, size_average, reduce)
    a: Any = input1
    b: Any = input2
    if len(target.shape) == 1 and (len(a.shape) != 2 or len(b.shape) != 2):
        raise RuntimeError(f"1D target tensor expects 2D input tensors, but found inputs with sizes "
                           f"{describe(a.shape)} and {describe(b.shape)} (cosine_embedding_loss).")
    if not target.shape and (len(a.shape) != 1 or len(b.shape) != 1):
        raise RuntimeError(f"0D target tensor expects 1D input tensors, but found inputs with sizes "
                           f"{describe(a.shape)} and {describe(b.shape)} (cosine_embedding_loss).")
    if len(target.shape) > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported (cosine_embedding_loss)")
    lengths = ((a * a).sum(-1) + 1e-12) * ((b * b).sum(-1) + 1e-12)
    cosine = (a * b).sum(-1) / lengths.sqrt()
    sign: Any = target
    loss = _where(sign == 1, 1 - cosine, 0.0) + _where(sign == -1, _at_least(cosine - margin, 0), 0.0)
    return reduced(loss, reduction)


# Pairs and triplets -----------------------------------------------------------------------------------------------
def hinge_embedding_loss(input: TensorBase, target: TensorBase, margin: float = 1.0,
                         size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
                         ) -> Tensor:
    """The input where the target is 1, max(0, margin − input) where it is −1."""
    reduction = translated(reduction, size_average, reduce)
    x: Any = input
    sign: Any = target
    apart = _where(sign != 1, _at_least(margin - x, 0), 0.0)
    return reduced(apart + _where(sign != -1, x, 0.0), reduction)


def margin_ranking_loss(input1: TensorBase, input2: TensorBase, target: TensorBase, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
                        ) -> Tensor:
    """max(0, −target · (input1 − input2) + margin): the first ranks higher where the target is 1."""
    reduction = translated(reduction, size_average, reduce)
    if not len(input1.shape) == len(input2.shape) == len(target.shape):
        raise RuntimeError(f"margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
                           f"{input1.shape}, input2: {input2.shape}, target: {target.shape} ")
    difference: Any = binary(ops.SUB, input1, input2)
    return reduced(_at_least(-target * difference + margin, 0), reduction)  # type: ignore[operator]


def triplet_margin_loss(anchor: TensorBase, positive: TensorBase, negative: TensorBase, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """max(0, margin + d(anchor, positive) − d(anchor, negative)); `swap` takes d(positive, negative) if nearer."""
    reduction = translated(reduction, size_average, reduce)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    if not len(anchor.shape) == len(positive.shape) == len(negative.shape):
        raise RuntimeError("The anchor, positive, and negative tensors are expected to have the same number of "
                           f"dimensions, but got: anchor {len(anchor.shape)}D, positive {len(positive.shape)}D, and "
                           f"negative {len(negative.shape)}D inputs")
    near = pairwise_distance(anchor, positive, p, eps)
    far: Any = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = apply(ops.MINIMUM, far, pairwise_distance(positive, negative, p, eps))
    return reduced(_at_least(margin + near - far, 0), reduction)


def triplet_margin_with_distance_loss(anchor: TensorBase, positive: TensorBase, negative: TensorBase, *,
                                      distance_function: Any = None, margin: float = 1.0, swap: bool = False,
                                      reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of one's own."""
    reduction = translated(reduction, None, None)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = apply(ops.MINIMUM, far, distance(positive, negative))
    return reduced(_at_least(margin + near - far, 0), reduction)


# Classes ----------------------------------------------------------------------------------------------------------
def soft_margin_loss(input: TensorBase, target: TensorBase, size_average: bool | None = None,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """log(1 + exp(−target · input)), the target 1 or −1."""
    reduction = translated(reduction, size_average, reduce)
    x: Any = input
    return reduced(unary(ops.LOG1P, unary(ops.EXP, -target * x)), reduction)  # type: ignore[operator]


def multilabel_soft_margin_loss(input: TensorBase, target: TensorBase, weight: TensorBase | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """Binary cross entropy of logits (N, C), averaged over the classes."""
    reduction = translated(reduction, size_average, reduce)
    x: Any = input
    loss = -(target * logsigmoid(x) + (1 - target) * logsigmoid(-x))  # type: ignore[operator]
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(-1) / x.shape[-1], reduction)


def _of_classes(name: str, input: Any, target: Any) -> tuple[Any, Any]:
    """Both with an axis of samples; RuntimeError where they do not fit."""
    if len(input.shape) not in (1, 2) or input.shape[-1:] == (0,):
        raise RuntimeError(f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
                           f"{describe(input.shape)}")
    x = input if len(input.shape) == 2 else input.unsqueeze(0)
    if target.dtype is not dtypes.int64:
        raise RuntimeError(f"{name}: expected target dtype Long but found {target.dtype.name}")
    return x, target


def multi_margin_loss(input: TensorBase, target: TensorBase, p: int = 1, margin: float = 1.0,
                      weight: TensorBase | None = None, size_average: bool | None = None, reduce: bool | None = None,
                      reduction: str = "mean") -> Tensor:
    """Σ max(0, margin − x[y] + x[i])^p / C over the classes i ≠ y: input (N, C) or (C), target (N) or ()."""
    reduction = translated(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    x, y = _of_classes("multi_margin_loss", input, target)
    y = y.reshape(-1, 1)
    if y.shape[0] != x.shape[0]:
        raise RuntimeError(f"multi_margin_loss: inconsistent target size, expected {x.shape[0]} but got "
                           f"{describe(target.shape)}")
    over = _at_least(margin - x.gather(1, y) + x, 0)
    if p == 2:
        over = over * over
    if weight is not None:
        over = over * weight[y]  # type: ignore[index]
    every = zeros_like(x, dtype=dtypes.int64).scatter(1, y, 1)
    loss = _where(every == 1, 0.0, over).sum(1) / x.shape[1]
    return reduced(loss if len(input.shape) == 2 else loss.squeeze(0), reduction)


def multilabel_margin_loss(input: TensorBase, target: TensorBase, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Σ max(0, 1 − (x[y] − x[i])) / C over the classes y in the target, up to its first −1, and i not in it."""
    reduction = translated(reduction, size_average, reduce)
    x, y = _of_classes("multilabel_margin_loss", input, target)
    y = y if len(y.shape) == 2 else y.unsqueeze(0)
    if tuple(y.shape) != tuple(x.shape):
        raise RuntimeError(f"multilabel_margin_loss: inconsistent target size {describe(target.shape)} for input of "
                           f"size: {describe(input.shape)}")
    named = (y < 0).to(dtypes.int64).cumsum(1) == 0
    places = _where(named, y, 0)
    among = zeros_like(x, dtype=dtypes.int64).scatter_add(1, places, named.to(dtypes.int64)) > 0
    over = _at_least(1 - (x.gather(1, places).unsqueeze(2) - x.unsqueeze(1)), 0)
    counted = named.unsqueeze(2) & ~among.unsqueeze(1)
    loss = _where(counted, over, 0.0).sum((1, 2)) / x.shape[1]
    return reduced(loss if len(input.shape) == 2 else loss.squeeze(0), reduction)


# Counts and spreads -----------------------------------------------------------------------------------------------
def poisson_nll_loss(input: TensorBase, target: TensorBase, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """exp(input) − target · input, or input − target · log(input + eps); `full` adds Stirling's log(target!)."""
    reduction = translated(reduction, size_average, reduce)
    x: Any = input
    y: Any = target
    loss = x.exp() - y * x if log_input else x - y * (x + eps).log()
    if full:
        safe = _where(y > 1, y, 1)
        loss = loss + _where(y > 1, safe * safe.log() - safe + 0.5 * (2 * pi * safe).log(), 0.0)
    return reduced(loss, reduction)


def gaussian_nll_loss(input: TensorBase, target: TensorBase, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """(log(var) + (input − target)² / var) / 2, the variance at least eps; `full` adds log(2π) / 2.

    `var` may lack the last axis, or have size 1 there. ValueError for other shapes, or where it is negative.
    """
    x: Any = input
    if isinstance(var, (int, float)):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        var = var * x.new_ones(())
        var = var.expand(tuple(x.shape))
    elif tuple(var.shape) != tuple(x.shape):
        if tuple(x.shape[:-1]) == tuple(var.shape):
            var = var.unsqueeze(-1)
        elif not (tuple(x.shape[:-1]) == tuple(var.shape[:-1]) and var.shape[-1] == 1):
            raise ValueError(f"var is of incorrect size: {describe(var.shape)} for an input of {describe(x.shape)} "
                             "(gaussian_nll_loss)")
    reduction = translated(reduction, None, None)
    if bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    with no_grad():
        raised = _at_least(var, eps) - var
    var = var + raised
    difference = x - target
    loss = (var.log() + difference * difference / var) * 0.5
    if full:
        loss = loss + 0.5 * log(2 * pi)
    return reduced(loss, reduction)


__all__ = [
    "cosine_embedding_loss", "gaussian_nll_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "pairwise_distance", "poisson_nll_loss",
    "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]
