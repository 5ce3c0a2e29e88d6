"""Losses, with `reduction` 'none', 'sum' or 'mean'; PyTorch's older arguments are translated to it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.dtypes import Category
from torturous.core.shapes import broadcast, describe
from torturous.ir import elementwise as ops
from torturous.ir import reduction as reductions
from torturous.ir.losses import NLL, class_axis
from torturous.ir.op import TYPES, type_number
from torturous.ir.record import context
from torturous.tensor.activations import log_softmax, logsigmoid
from torturous.tensor.applying import Rule, apply, apply_rule
from torturous.tensor.base import TensorBase
from torturous.tensor.lowering import in_full
from torturous.tensor.positions import bounds_within
from torturous.tensor.recording import binary, cast, unary
from torturous.tensor.values import computed_values, known_values, repeated_check
from torturous.tensor.warn import warn_user

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

REDUCTIONS = ("none", "sum", "mean")


def translated(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """The reduction asked for, by its name or by PyTorch's older arguments; ValueError if it is none."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
        warn_user(f"size_average and reduce args will be deprecated, please use reduction='{reduction}' "
                  "instead.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def _all_axes(t: TensorBase) -> tuple[int, ...]:
    return tuple(range(len(t.shape)))


def _sum(t: TensorBase) -> Tensor:
    return apply(reductions.SUM, t, attributes=(_all_axes(t), False))


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """A loss as it is, summed, or averaged."""
    if reduction == "none":
        return loss
    total = _sum(loss)
    return total if reduction == "sum" else total / loss.shape.numel()  # type: ignore[attr-defined]


def _check(name: str, **tensors: Any) -> None:
    for role, value in tensors.items():
        if not isinstance(value, TensorBase):
            raise TypeError(f"{name}(): argument '{role}' must be Tensor, not {type(value).__name__}")


# Classes ----------------------------------------------------------------------------------------------------
@repeated_check
def check_classes(target: TensorBase, classes: int, ignored: int) -> None:
    """Raises IndexError for a class out of range, if the classes are known."""
    if 0 in target.shape:
        return
    bounds = bounds_within(target, 0, classes)
    if bounds is None:
        context.record.doubt()
    elif not 0 <= bounds[0] <= bounds[1] < classes:
        values = computed_values(target)
        bad = values[((values < 0) | (values >= classes)) & (values != ignored)]
        if bad.size:
            raise IndexError(f"Target {int(bad.flat[0])} is out of bounds. (nll_loss: there are {classes} "
                             f"classes, target shape {describe(target.shape)})")


@in_full
def nll_loss(
    input: TensorBase, target: TensorBase, weight: TensorBase | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the class: input (N, C, …) or (C), target int64 (N, …) or ().

    `weight` (C) weighs the classes, and the mean is over the weights; `ignore_index` is a class that does not
    count. IndexError for a class out of range: at once if the classes are known, else when the loss is
    computed.
    """
    reduction = translated(reduction, size_average, reduce)
    _check("nll_loss", input=input, target=target)
    if weight is not None:
        _check("nll_loss", weight=weight)
    rule, classes = _nll_rule(input._type, target._type, None if weight is None else weight._type, reduction)
    if len(target.shape) == len(input.shape) == 1:
        target = target.reshape(())  # type: ignore[attr-defined]
    check_classes(target, classes, ignore_index)
    if weight is None:
        return apply_rule(NLL, rule, input, target, ignore_index)
    return apply_rule(NLL, rule, input, target, ignore_index, weight)


@lru_cache(1 << 10)
def _nll_rule(input_type: int, target_type: int, weight_type: int | None, reduction: str) -> tuple[Rule, int]:
    """What the loss gives, by the types of its operands, and the number of classes; raises PyTorch's errors."""
    input, target = TYPES[input_type], TYPES[target_type]
    shape = input.shape
    if not shape:
        raise ValueError("Expected 1 or more dimensions (got 0) (nll_loss: input needs an axis of classes)")
    axis = class_axis(shape)
    if len(shape) > 1 and target.shape and shape[0] != target.shape[0]:
        raise ValueError(f"Expected input batch_size ({shape[0]}) to match target batch_size "
                         f"({target.shape[0]}) (nll_loss: input {describe(shape)}, target "
                         f"{describe(target.shape)}).")
    wanted = shape[:axis] + shape[axis + 1:]
    if target.shape != wanted and (len(shape) > 1 or target.shape != (1,)):
        raise (ValueError if len(shape) == 1 else RuntimeError)(
            f"nll_loss: Expected target size {list(wanted)}, got {describe(target.shape)} (input "
            f"{describe(shape)}, classes along axis {axis})")
    if target.dtype not in (dtypes.int64, dtypes.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {target.dtype.name} "
                           "(nll_loss)")
    if not input.dtype.is_floating_point:
        raise NotImplementedError(f"\"nll_loss\" not implemented for {input.dtype.name}: it needs a floating "
                                  "dtype")
    if weight_type is not None:
        weight = TYPES[weight_type]
        if weight.shape != (shape[axis],):
            raise RuntimeError(f"weight tensor should be defined either for all {shape[axis]} classes or no "
                               f"classes but got weight tensor of shape: {describe(weight.shape)} (nll_loss)")
        if weight.dtype is not input.dtype:
            raise RuntimeError(f"expected scalar type {input.dtype.name} but found {weight.dtype.name} "
                               "(nll_loss: weight must have the input's dtype)")
    out = wanted if reduction == "none" else ()
    return (type_number(out, input.dtype), (reduction,)), shape[axis]


def cross_entropy(
    input: TensorBase, target: TensorBase, weight: TensorBase | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy of logits (N, C, …) or (C) with classes (N, …) or with probabilities (N, C, …).

    `label_smoothing` in [0, 1] mixes the target with the uniform distribution. See `nll_loss` for the rest.
    """
    reduction = translated(reduction, size_average, reduce)
    _check("cross_entropy_loss", input=input, target=target)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    shape = tuple(input.shape)
    if not shape:
        raise RuntimeError("cross_entropy_loss: input must have an axis of classes, got a 0-d tensor")
    axis = class_axis(shape)
    likely = log_softmax(input, axis)
    if tuple(target.shape) == shape:
        return _soft_cross_entropy(likely, target, weight, ignore_index, reduction, label_smoothing, axis)
    hard = nll_loss(likely, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0.0:
        return hard
    smooth = _class_total(likely, weight, axis)
    counted = binary(ops.NE, target, ignore_index)
    smooth = apply(ops.WHERE, counted, smooth, 0.0)
    if reduction == "sum":
        smooth = _sum(smooth)
    elif reduction == "mean":
        ones = binary(ops.MUL, likely, 0).detach() - 1  # −1 everywhere: its loss is the weight that counts.
        smooth = _sum(smooth) / nll_loss(ones, target, weight, ignore_index=ignore_index, reduction="sum")
    return hard * (1 - label_smoothing) + smooth * (label_smoothing / shape[axis])


def _class_total(likely: Tensor, weight: TensorBase | None, axis: int) -> Tensor:
    """−Σ over the classes, weighed."""
    if weight is not None:
        shape = [1] * len(likely.shape)
        shape[axis] = likely.shape[axis]
        likely = likely * weight.reshape(shape)  # type: ignore[attr-defined]
    return -apply(reductions.SUM, likely, attributes=((axis,), False))


def _soft_cross_entropy(likely: Tensor, target: TensorBase, weight: TensorBase | None, ignore_index: int,
                        reduction: str, label_smoothing: float, axis: int) -> Tensor:
    if not target.dtype.is_floating_point:
        raise RuntimeError("Expected floating point type for target with class probabilities, got "
                           f"{target.dtype.name}")
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    count = likely.shape[axis]
    if weight is not None and tuple(weight.shape) != (count,):
        raise RuntimeError("cross_entropy: weight tensor should be defined either for all "
                           f"{count} classes or no classes but got weight tensor of shape: "
                           f"{describe(weight.shape)}")
    mixed: Any = target
    if label_smoothing > 0.0:
        mixed = mixed * (1 - label_smoothing) + label_smoothing / count
    loss = _class_total(likely * mixed, weight, axis)
    if reduction == "none":
        return loss
    total = _sum(loss)
    return total if reduction == "sum" else total / loss.shape.numel()  # type: ignore[attr-defined]


# Distances --------------------------------------------------------------------------------------------------
def _pair(name: str, input: TensorBase, target: TensorBase) -> None:
    """Checks two operands of equal shape, with PyTorch's warning where they broadcast."""
    _check(name, input=input, target=target)
    if tuple(input.shape) != tuple(target.shape):
        warn_user(f"Using a target size ({target.shape}) that is different to the input size "
                  f"({input.shape}). This will "
                  "likely lead to incorrect results due to broadcasting. Please ensure they have the same "
                  "size.")
        broadcast([tuple(input.shape), tuple(target.shape)])


def _weighed(loss: Tensor, weight: TensorBase | None, reduction: str) -> Tensor:
    """As the distances' `weight` works: the mean is over the weights."""
    if weight is None:
        return reduced(loss, reduction)
    if tuple(weight.shape) != tuple(loss.shape):
        raise ValueError("Inputs and weight must have the same size.")
    loss = loss * weight
    return _sum(loss) / _sum(weight) if reduction == "mean" else reduced(loss, reduction)


@in_full
def mse_loss(input: TensorBase, target: TensorBase, size_average: bool | None = None,
             reduce: bool | None = None, reduction: str = "mean", weight: TensorBase | None = None) -> Tensor:
    """(input − target)²."""
    reduction = translated(reduction, size_average, reduce)
    _pair("mse_loss", input, target)
    difference = binary(ops.SUB, input, target)
    return _weighed(difference * difference, weight, reduction)


@in_full
def l1_loss(input: TensorBase, target: TensorBase, size_average: bool | None = None,
            reduce: bool | None = None, reduction: str = "mean", weight: TensorBase | None = None) -> Tensor:
    """|input − target|."""
    reduction = translated(reduction, size_average, reduce)
    _pair("l1_loss", input, target)
    return _weighed(unary(ops.ABS, binary(ops.SUB, input, target)), weight, reduction)


def _bent(input: TensorBase, target: TensorBase, width: float, slope: float) -> Tensor:
    """Quadratic below `width`, then straight with `slope`, meeting smoothly."""
    difference = binary(ops.SUB, input, target)
    size = unary(ops.ABS, difference)
    return apply(ops.WHERE, size < width, difference * difference * (0.5 * slope / width),
                 (size - 0.5 * width) * slope)


@in_full
def smooth_l1_loss(input: TensorBase, target: TensorBase, size_average: bool | None = None,
                   reduce: bool | None = None, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Quadratic, divided by `beta`, where |input − target| < beta, else linear."""
    reduction = translated(reduction, size_average, reduce)
    _pair("smooth_l1_loss", input, target)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return reduced(_bent(input, target, beta, 1.0), reduction)


@in_full
def huber_loss(input: TensorBase, target: TensorBase, reduction: str = "mean", delta: float = 1.0,
               weight: TensorBase | None = None) -> Tensor:
    """Quadratic where |input − target| < delta, else linear with slope `delta`."""
    reduction = translated(reduction, None, None)
    _pair("huber_loss", input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    return _weighed(_bent(input, target, delta, delta), weight, reduction)


@repeated_check
def _check_probabilities(input: TensorBase) -> None:
    values = known_values(input)
    if values is not None and values.size and not (values.min() >= 0 and values.max() <= 1):
        raise RuntimeError("all elements of input should be between 0 and 1 (binary_cross_entropy)")


# Probabilities ----------------------------------------------------------------------------------------------
@in_full
def binary_cross_entropy(input: TensorBase, target: TensorBase, weight: TensorBase | None = None,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """−target · log(input) − (1 − target) · log(1 − input), logarithms not below −100; shapes equal."""
    reduction = translated(reduction, size_average, reduce)
    _check("binary_cross_entropy", input=input, target=target)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(f"Using a target size ({target.shape}) that is different to the input size "
                         f"({input.shape}) is deprecated. "
                         " Please ensure they have the same size.")
    _check_probabilities(input)
    present: Any = cast(input, input.dtype)
    wanted: Any = target
    first = apply(ops.MAXIMUM, unary(ops.LOG, present), -100.0)
    second = apply(ops.MAXIMUM, unary(ops.LOG1P, -present), -100.0)
    loss = (wanted - 1) * second - wanted * first
    return reduced(loss if weight is None else loss * weight, reduction)


@in_full
def binary_cross_entropy_with_logits(
    input: TensorBase, target: TensorBase, weight: TensorBase | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: TensorBase | None = None,
) -> Tensor:
    """Binary cross entropy of sigmoid(input), without overflow; `pos_weight` weighs the positive examples."""
    reduction = translated(reduction, size_average, reduce)
    _check("binary_cross_entropy_with_logits", input=input, target=target)
    if tuple(input.shape) != tuple(target.shape):
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    likely, wanted, x = logsigmoid(input), target, input
    rest: Any = apply(ops.SUB, 1, wanted) * x
    if pos_weight is None:
        loss = rest - likely
    else:
        weighed = binary(ops.SUB, pos_weight, 1) * wanted + 1
        loss = rest - weighed * likely
    return reduced(loss if weight is None else loss * weight, reduction)


@in_full
def kl_div(input: TensorBase, target: TensorBase, size_average: bool | None = None,
           reduce: bool | None = None, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target · (log(target) − input); `log_target` says that the target is logarithms already.

    'batchmean' divides the sum by the size of the first axis; 'mean', with a warning, by that of all.
    """
    _check("kl_div", input=input, target=target)
    batch = reduction == "batchmean" and size_average is None and reduce is None
    if batch:
        reduction = "sum"
    elif reduction == "mean" and size_average is None and reduce is None:
        warn_user("reduction: 'mean' divides the total loss by both the batch size and the support size."
                  "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
                  "'mean' will be changed to behave the same as 'batchmean' in the next major release.")
    reduction = translated(reduction, size_average, reduce)
    wanted: Any = target
    if log_target:
        loss = unary(ops.EXP, wanted) * (wanted - input)
    else:
        positive = wanted > 0
        logarithm = unary(ops.LOG, apply(ops.WHERE, positive, wanted, 1.0))
        loss = apply(ops.WHERE, positive, wanted * logarithm, wanted * 0) - wanted * input
    loss = reduced(loss, reduction)
    return loss / input.shape[0] if batch and input.shape else loss


__all__ = [
    "Category", "binary_cross_entropy", "binary_cross_entropy_with_logits", "check_classes", "cross_entropy",
    "huber_loss", "kl_div", "l1_loss", "mse_loss", "nll_loss", "reduced", "smooth_l1_loss", "translated",
]
