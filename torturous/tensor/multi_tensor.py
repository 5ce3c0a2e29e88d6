"""Optimizer updates over many tensors at once: one recorded row per call, whose values are written in place."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.ir.op import Attributes, Op
from torturous.ir.optimizers import (
    ADADELTA,
    ADAGRAD,
    ADAM,
    ADAMAX,
    ASGD,
    CLAMPED,
    NADAM,
    RADAM,
    RMSPROP,
    RPROP,
    SCALED_TO_NORM,
    SGD,
    TOTAL_NORM,
)
from torturous.ir.record import context, user_place
from torturous.runtime.buffers import allocate
from torturous.runtime.realize import realize
from torturous.tensor.applying import apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import from_buffer

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Tensors = Sequence[TensorBase]


def _update(op: Op, attributes: Attributes, kinds: Sequence[Tensors], numbers: Sequence[float],
            written: Sequence[Tensors]) -> None:
    """Records the row and writes its values, kind by kind, into the tensors of `written`."""
    place = user_place()
    while True:  # Entering a tensor may realize what others were entered into: then all are entered afresh.
        record = context.record
        rows = [t.row() for tensors in kinds for t in tensors]
        if record is context.record:
            break
    # A number that remembers how it was worked out (see `core.unknowns`) stays what it is.
    floats = [number if isinstance(number, float) else float(number) for number in numbers]
    operands = [*rows, *map(record.slot, floats)]
    first = kinds[0][0]
    record.apply_typed(op, attributes, first._type, operands, place, False)
    targets = [t for tensors in written for t in tensors]
    values = record.items(tuple([t._type for t in targets]), place)
    if any([t._write_fresh(value, record, place) for value, t in zip(values, targets, strict=True)]):
        realize()


def _untracked(function: Any) -> Any:
    """Updates are not part of any tape."""
    def run(*arguments: Any, **named: Any) -> None:
        tracking, context.tracking = context.tracking, False
        try:
            function(*arguments, **named)
        finally:
            context.tracking = tracking

    run.__doc__ = function.__doc__
    return run


@_untracked
def sgd(params: Tensors, grads: Tensors, momentum_buffers: Tensors | None, lr: float, momentum: float,
        dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first_step: bool) -> None:
    """Stochastic gradient descent as `torch.optim.SGD`; on the first step the momentum buffers become the gradients."""
    if not params:
        return
    has_momentum = momentum_buffers is not None
    attributes = (len(params), has_momentum, first_step, dampening != 0, nesterov, weight_decay != 0, maximize)
    kinds = [params, grads]
    if momentum_buffers is not None and not first_step:
        kinds.append(momentum_buffers)
    written = [params] if momentum_buffers is None else [params, momentum_buffers]
    _update(SGD, attributes, kinds, (lr, momentum, 1 - dampening, weight_decay), written)


@_untracked
def adam(params: Tensors, grads: Tensors, exp_avgs: Tensors, exp_avg_sqs: Tensors, max_exp_avg_sqs: Tensors | None,
         steps: Sequence[int], lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
         decoupled: bool, maximize: bool) -> None:
    """Adam and AdamW (Kingma and Ba, 2015; Loshchilov and Hutter, 2019) as PyTorch computes them, to a rounding.

    `steps` counts from 1; tensors with the same count are updated by one row.
    """
    for step in sorted(set(steps)):
        kinds = [params, grads, exp_avgs, exp_avg_sqs]
        if max_exp_avg_sqs is not None:
            kinds.append(max_exp_avg_sqs)
        if steps.count(step) != len(steps):
            chosen = [position for position, count in enumerate(steps) if count == step]
            kinds = [[tensors[position] for position in chosen] for tensors in kinds]
        attributes = (len(kinds[0]), max_exp_avg_sqs is not None, weight_decay != 0, decoupled, maximize)
        step_size = lr / (1 - beta1 ** step)
        decay = 1 - lr * weight_decay if decoupled else weight_decay
        # A root's bias is corrected by a factor: divisions are what takes long in an update that the caches hold.
        numbers = (step_size, (1 - beta2 ** step) ** -0.5, 1 - beta1, beta2, 1 - beta2, eps, decay)
        _update(ADAM, attributes, kinds, numbers, [kinds[0], *kinds[2:]])


@_untracked
def rmsprop(params: Tensors, grads: Tensors, square_avgs: Tensors, momentum_buffers: Tensors | None,
            grad_avgs: Tensors | None, lr: float, alpha: float, eps: float, weight_decay: float, momentum: float,
            centered: bool, maximize: bool) -> None:
    """RMSprop (Hinton, 2012) as `torch.optim.RMSprop`."""
    if not params:
        return
    kinds = [params, grads, square_avgs]
    kinds += [tensors for tensors in (momentum_buffers, grad_avgs) if tensors is not None]
    attributes = (len(params), momentum_buffers is not None, grad_avgs is not None, weight_decay != 0, maximize)
    _update(RMSPROP, attributes, kinds, (lr, alpha, 1 - alpha, eps, weight_decay, momentum), [kinds[0], *kinds[2:]])


def _decayed(op: Op, kinds: Sequence[Tensors], numbers: Sequence[float], weight_decay: float, maximize: bool,
             *flags: bool) -> None:
    """One of the rules for one tensor at a time, over parameters, gradients and states."""
    if kinds[0]:
        attributes = (len(kinds[0]), weight_decay != 0, maximize, *flags)
        _update(op, attributes, kinds, (*numbers, weight_decay), [kinds[0], *kinds[2:]])


@_untracked
def adagrad(kinds: Sequence[Tensors], lr: float, eps: float, weight_decay: float, maximize: bool) -> None:
    """Adagrad (Duchi et al., 2011); kinds: parameters, gradients, sums of squares."""
    _decayed(ADAGRAD, kinds, (lr, eps), weight_decay, maximize)


@_untracked
def adadelta(kinds: Sequence[Tensors], lr: float, rho: float, eps: float, weight_decay: float, maximize: bool) -> None:
    """Adadelta (Zeiler, 2012); kinds: parameters, gradients, mean squares of gradients and of changes."""
    _decayed(ADADELTA, kinds, (lr, rho, 1 - rho, eps), weight_decay, maximize)


@_untracked
def adamax(kinds: Sequence[Tensors], lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
           maximize: bool) -> None:
    """Adamax (Kingma and Ba, 2015), the rate bias-corrected; kinds: parameters, gradients, means, largest."""
    _decayed(ADAMAX, kinds, (lr, 1 - beta1, beta2, eps), weight_decay, maximize)


@_untracked
def nadam(kinds: Sequence[Tensors], by_gradient: float, by_mean: float, beta1: float, beta2: float, correction: float,
          eps: float, weight_decay: float, shrunk: float | None, maximize: bool) -> None:
    """NAdam (Dozat, 2016); kinds: parameters, gradients, means, mean squares. `shrunk` multiplies parameters first."""
    numbers = (by_gradient, by_mean, 1 - beta1, beta2, 1 - beta2, correction, eps, 1.0 if shrunk is None else shrunk)
    _decayed(NADAM, kinds, numbers, weight_decay, maximize, shrunk is not None)


@_untracked
def radam(kinds: Sequence[Tensors], lr: float, rectified: float | None, beta1: float, beta2: float, eps: float,
          weight_decay: float, shrunk: float | None, maximize: bool) -> None:
    """RAdam (Liu et al., 2020); kinds: parameters, gradients, means, mean squares. Without `rectified` the mean's
    spread is not yet used; `shrunk` multiplies parameters first."""
    numbers = (lr, 0.0 if rectified is None else rectified, 1 - beta1, beta2, 1 - beta2, eps,
               1.0 if shrunk is None else shrunk)
    _decayed(RADAM, kinds, numbers, weight_decay, maximize, shrunk is not None, rectified is not None)


@_untracked
def rprop(kinds: Sequence[Tensors], smaller: float, larger: float, least: float, most: float, maximize: bool) -> None:
    """Rprop (Riedmiller, Braun 1993); kinds: parameters, gradients, last gradients, step sizes."""
    _decayed(RPROP, kinds, (smaller, larger, least, most), 0.0, maximize)


@_untracked
def asgd(kinds: Sequence[Tensors], rate: float, lambd: float, share: float, weight_decay: float, maximize: bool
         ) -> None:
    """Averaged gradient descent (Polyak, Juditsky 1992); kinds: parameters, gradients, averages."""
    _decayed(ASGD, kinds, (1 - lambd * rate, rate, share), weight_decay, maximize, share != 1)


# Clipping ---------------------------------------------------------------------------------------------------------
_ORDERS = {2.0: "two", float("inf"): "most", float("-inf"): "least", 0.0: "zero"}


def total_norm(tensors: Tensors, order: float) -> Any:
    """The norm (0-d) of all tensors as one vector, one row for all."""
    wide = max((t.dtype for t in tensors), key=lambda dtype: dtype.itemsize)
    kind = _ORDERS.get(float(order), "power")
    root = 1.0 / order if order else 0.0
    return apply_typed(TOTAL_NORM, (), wide, *tensors, float(order), root, attributes=(kind,))


@_untracked
def scale_to_norm(tensors: Tensors, norm: TensorBase, largest: float) -> None:
    """Scales tensors, of which the norm is known, down to at most the `largest` norm, in place."""
    _update(SCALED_TO_NORM, (), [tensors, [norm]], (largest,), [tensors])


@_untracked
def clamp(tensors: Tensors, low: float, high: float) -> None:
    """Cuts the elements of tensors off, in place."""
    if tensors:
        _update(CLAMPED, (), [tensors], (low, high), [tensors])


def state_of(t: Tensor, number: float) -> Tensor:
    """What an optimizer keeps of a tensor, every element `number` at first.

    It is in memory from the start, and not a row of the record: the first step is then the same as all others, and has
    the same plan.
    """
    shape = tuple(t.shape)
    buffer = allocate(prod(shape) * t.dtype.itemsize)
    buffer.brief(t.dtype.numpy, shape)[...] = number
    return from_buffer(buffer, shape, t.dtype)


def realize_step(params: Tensors, states: Tensors, grads: Tensors) -> None:
    """The end of a training step: computes everything that is alive, parameters, states and gradients among it.

    Nobody waits for the values, so the next step can be recorded meanwhile.
    """
    realize(wait=False)


__all__ = ["adadelta", "adagrad", "adam", "adamax", "asgd", "clamp", "nadam", "radam", "realize_step", "rmsprop",
           "rprop", "scale_to_norm", "sgd", "state_of", "total_norm"]
