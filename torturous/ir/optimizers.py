"""Optimizer updates: one macro row for all tensors of a parameter group.

Operands are the tensors, kind by kind (all parameters, all gradients, …), then the numbers of the step as slots, so
that a schedule changes nothing but numbers. Attributes hold the count and which parts of the rule apply. A macro's
values are the new parameters, then the new states kind by kind, read off by ITEM rows.
"""

from __future__ import annotations

from typing import Any

from torturous.ir.op import Attributes, Kind, Op, Type, define


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
    step_size, correction, fresh1, beta2, fresh2, epsilon, weight_decay = numbers
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
        parameters.append(p - m / (bound.sqrt() / correction + epsilon) * step_size)
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
