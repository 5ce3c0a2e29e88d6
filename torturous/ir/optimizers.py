"""Optimizer updates: one macro row for all tensors of a parameter group.

Operands are the tensors, kind by kind (all parameters, all gradients, …), then the numbers of the step as slots, so
that a schedule changes nothing but numbers. Attributes hold the count and which parts of the rule apply. A macro's
values are the new parameters, then the new states kind by kind, read off by ITEM rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.ir.op import Attributes, Kind, Op, Type, define
from torturous.ir.reduction import AMAX, AMIN


def _groups(operands: tuple[Any, ...], count: int, kinds: int) -> tuple[list[list[Any]], list[Any]]:
    """Operands as `kinds` lists of `count` values each, and the numbers after them."""
    lists = [list(operands[k * count:(k + 1) * count]) for k in range(kinds)]
    return lists, list(operands[kinds * count:])


def _expand_sgd(out: Type, at: Attributes, *operands: Any) -> list[Any]:
    count, momentum, first, dampened, nesterov, decay, maximize = at
    lists, numbers = _groups(operands, count, 3 if momentum and not first else 2)
    rate, mass, kept, weight_decay = numbers
    parameters, velocities = [], []
    for position in range(count):
        p, g = lists[0][position], lists[1][position]
        if maximize:
            g = -g
        if decay:
            g = g + p * weight_decay
        if momentum:
            velocity = g
            if not first:
                velocity = lists[2][position] * mass + (g * kept if dampened else g)
            velocities.append(velocity)
            g = g + velocity * mass if nesterov else velocity
        parameters.append(p - g * rate)
    return parameters + velocities


def _expand_adam(out: Type, at: Attributes, *operands: Any) -> list[Any]:
    count, largest, decay, decoupled, maximize = at
    lists, numbers = _groups(operands, count, 5 if largest else 4)
    step_size, scale, fresh1, beta2, fresh2, epsilon, weight_decay = numbers
    parameters, firsts, seconds, maxima = [], [], [], []
    for position in range(count):
        p, g, m, v = (values[position] for values in lists[:4])
        if maximize:
            g = -g
        if decay:
            if decoupled:
                p = p * weight_decay  # The factor 1 − rate · decay.
            else:
                g = g + p * weight_decay
        m = m + (g - m) * fresh1
        v = v * beta2 + g * g * fresh2
        bound = v
        if largest:
            bound = lists[4][position].maximum(v)
            maxima.append(bound)
        firsts.append(m)
        seconds.append(v)
        parameters.append(p - m / (bound.sqrt() * scale + epsilon) * step_size)
    return parameters + firsts + seconds + maxima


def _expand_rmsprop(out: Type, at: Attributes, *operands: Any) -> list[Any]:
    count, momentum, centered, decay, maximize = at
    lists, numbers = _groups(operands, count, 3 + momentum + centered)
    rate, alpha, fresh, epsilon, weight_decay, mass = numbers
    parameters, squares, velocities, means = [], [], [], []
    for position in range(count):
        p, g, square = (values[position] for values in lists[:3])
        if maximize:
            g = -g
        if decay:
            g = g + p * weight_decay
        square = square * alpha + g * g * fresh
        squares.append(square)
        spread = square
        if centered:
            mean = lists[3 + momentum][position]
            mean = mean + (g - mean) * fresh
            means.append(mean)
            spread = square - mean * mean
        change = g / (spread.sqrt() + epsilon)
        if momentum:
            change = lists[3][position] * mass + change
            velocities.append(change)
        parameters.append(p - change * rate)
    return parameters + squares + velocities + means


SGD = define(Op("sgd", Kind.MACRO, expand=_expand_sgd,
                document="attributes: count, momentum, first, dampened, nesterov, decay, maximize"))
ADAM = define(Op("adam", Kind.MACRO, expand=_expand_adam,
                 document="attributes: count, amsgrad, decay, decoupled, maximize"))
RMSPROP = define(Op("rmsprop", Kind.MACRO, expand=_expand_rmsprop,
                    document="attributes: count, momentum, centered, decay, maximize"))


# Rules for one tensor at a time -----------------------------------------------------------------------------------
# Attributes: count, whether weight decay is added, whether to go up the gradient, then what the rule has.
def _define(name: str, kinds: int, rule: Callable[..., list[Any]], document: str) -> Op:
    """An op over `kinds` lists of tensors: `rule(flags, parameter, gradient, states…, numbers…)` gives the new
    parameter and states. The last number is the weight decay."""
    def expand(out: Type, at: Attributes, *operands: Any) -> list[Any]:
        count, decay, maximize, *flags = at
        lists, numbers = _groups(operands, count, kinds)
        news = []
        for p, g, *states in zip(*lists, strict=True):
            g = -g if maximize else g
            news.append(rule(flags, p, g + p * numbers[-1] if decay else g, *states, *numbers[:-1]))
        return [value for kind in zip(*news, strict=True) for value in kind]

    return define(Op(name, Kind.MACRO, expand=expand, document=document))


def _adagrad(flags: Any, p: Any, g: Any, total: Any, rate: Any, eps: Any) -> list[Any]:
    total = total + g * g
    return [p - g / (total.sqrt() + eps) * rate, total]


def _adadelta(flags: Any, p: Any, g: Any, square: Any, moved: Any, rate: Any, rho: Any, fresh: Any, eps: Any
              ) -> list[Any]:
    square = square * rho + g * g * fresh
    change = g * ((moved + eps).sqrt() / (square + eps).sqrt())
    return [p - change * rate, square, moved * rho + change * change * fresh]


def _adamax(flags: Any, p: Any, g: Any, m: Any, bound: Any, rate: Any, fresh: Any, beta2: Any, eps: Any) -> list[Any]:
    m = m + (g - m) * fresh
    bound = (bound * beta2).maximum(g.abs() + eps)
    return [p - m / bound * rate, m, bound]


def _nadam(flags: Any, p: Any, g: Any, m: Any, v: Any, by_gradient: Any, by_mean: Any, fresh1: Any, beta2: Any,
           fresh2: Any, correction: Any, eps: Any, shrunk: Any) -> list[Any]:
    if flags[0]:
        p = p * shrunk
    m = m + (g - m) * fresh1
    v = v * beta2 + g * g * fresh2
    spread = (v / correction).sqrt() + eps
    return [p - g / spread * by_gradient - m / spread * by_mean, m, v]


def _radam(flags: Any, p: Any, g: Any, m: Any, v: Any, rate: Any, rectified: Any, fresh1: Any, beta2: Any, fresh2: Any,
           eps: Any, shrunk: Any) -> list[Any]:
    decoupled, rectify = flags
    if decoupled:
        p = p * shrunk
    m = m + (g - m) * fresh1
    v = v * beta2 + g * g * fresh2
    return [p - (m * rate / (v.sqrt() + eps) * rectified if rectify else m * rate), m, v]


def _rprop(flags: Any, p: Any, g: Any, previous: Any, size: Any, smaller: Any, larger: Any, least: Any, most: Any
           ) -> list[Any]:
    agreement = g * previous
    apart = agreement.lt(0.0)
    size = agreement.gt(0.0).where(size * larger, apart.where(size * smaller, size)).clamp_min(least).clamp_max(most)
    g = apart.where(0.0, g)
    return [p - g.sign() * size, g, size]


def _asgd(flags: Any, p: Any, g: Any, mean: Any, kept: Any, rate: Any, share: Any) -> list[Any]:
    p = p * kept - g * rate
    return [p, mean + (p - mean) * share if flags[0] else p]


ADAGRAD = _define("adagrad", 3, _adagrad, "states: sum of squares")
ADADELTA = _define("adadelta", 4, _adadelta, "states: mean square of gradients, and of changes")
ADAMAX = _define("adamax", 4, _adamax, "states: mean, largest")
NADAM = _define("nadam", 4, _nadam, "states: mean, mean square; flag: decoupled decay")
RADAM = _define("radam", 4, _radam, "states: mean, mean square; flags: decoupled decay, rectified")
RPROP = _define("rprop", 4, _rprop, "states: the last gradient, step sizes")
ASGD = _define("asgd", 3, _asgd, "states: the average; flag: whether averaging has begun")


# Clipping ---------------------------------------------------------------------------------------------------------
def _everything(value: Any) -> tuple[int, ...]:
    return tuple(range(len(value.shape)))


def _expand_norm(out: Type, at: Attributes, *operands: Any) -> Any:
    """The norm of the tensors' norms: 'two', 'most', 'least', 'zero' (how many are not 0), or a 'power'."""
    (kind,) = at
    *tensors, order, root = operands
    parts = []
    for t in tensors:
        t = t.to(out.dtype)
        if kind == "two":
            parts.append((t * t).sum(_everything(t)))
        elif kind in ("most", "least"):
            parts.append(t.abs().reduce(AMAX if kind == "most" else AMIN, _everything(t), False))
        elif kind == "zero":
            parts.append(t.ne(0.0).to(out.dtype).sum(_everything(t)).ne(0.0).to(out.dtype))
        else:
            parts.append(t.abs().pow(order).sum(_everything(t)))
    total = parts[0]
    for part in parts[1:]:
        if kind in ("most", "least"):
            total = total.maximum(part) if kind == "most" else total.minimum(part)
        else:
            total = total + part
    if kind == "two":
        return total.sqrt()
    return total.pow(root) if kind == "power" else total


def _expand_scaled(out: Type, at: Attributes, *operands: Any) -> list[Any]:
    """Tensors times largest / (norm + 1e-6), or unchanged where that is above 1."""
    *tensors, norm, largest = operands
    scale = (largest / (norm + 1e-6)).clamp_max(1.0)
    return [(t * scale).to(t.dtype) for t in tensors]


def _expand_clamped(out: Type, at: Attributes, *operands: Any) -> list[Any]:
    *tensors, low, high = operands
    return [t.clamp_min(low).clamp_max(high) for t in tensors]


TOTAL_NORM = define(Op("total_norm", Kind.MACRO, expand=_expand_norm,
                       document="operands: tensors, the order, its inverse; attributes: its kind"))
SCALED_TO_NORM = define(Op("scaled_to_norm", Kind.MACRO, expand=_expand_scaled,
                           document="operands: tensors, their norm, the largest that it may be"))
CLAMPED = define(Op("clamped", Kind.MACRO, expand=_expand_clamped, document="operands: tensors, low, high"))
