"""Recurrent cells: the steps of the loops that recurrent layers are.

What does not depend on the step before, the input's part of every gate, is computed for all steps at once before
the loop and comes as a stacked operand; inside remains the product with the hidden state, and what follows from it.
Gates lie side by side along the last axis, in PyTorch's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torturous.ir.body import Step, Traced, trace
from torturous.ir.contraction import CONTRACT, linear
from torturous.ir.op import Type
from torturous.ir.value import Value

Values = Sequence[Value]
Made = tuple[Values, Values]


def _product(x: Value, weight: Value) -> Value:
    """x(…, I) with weight(O, I)."""
    shape = (*x.shape[:-1], weight.shape[0])
    return x.apply_typed(CONTRACT, shape, x.dtype, weight, attributes=linear(len(shape)))


def rectified(carried: Values, slices: Values, fixed: Values) -> Made:
    """Elman's network with rectified linear units."""
    h = (_product(carried[0], fixed[0]) + slices[0]).relu()
    return [h], [h]


def hyperbolic(carried: Values, slices: Values, fixed: Values) -> Made:
    """Elman's network (1990)."""
    h = (_product(carried[0], fixed[0]) + slices[0]).tanh()
    return [h], [h]


def long_short_term(carried: Values, slices: Values, fixed: Values) -> Made:
    """A long short-term memory (Hochreiter and Schmidhuber, 1997; forget gates by Gers et al., 2000).

    Carried are h and c; a second fixed operand projects h (Sak et al., 2014).
    """
    h, c = carried
    gates = _product(h, fixed[0]) + slices[0]
    i, f, g, o = (gates.part(1, which, 4) for which in range(4))
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    if len(fixed) > 1:
        h = _product(h, fixed[1])
    return [h, c], [h]


def gated(carried: Values, slices: Values, fixed: Values) -> Made:
    """A gated recurrent unit (Cho et al., 2014), its reset gate applied after the product as in PyTorch.

    A second fixed operand is the bias of that product.
    """
    (h,) = carried
    product = _product(h, fixed[0])
    if len(fixed) > 1:
        product = product + fixed[1]
    (r, z, n), (hr, hz, hn) = ([whole.part(1, which, 3) for which in range(3)] for whole in (slices[0], product))
    r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
    n = (n + r * hn).tanh()
    h = (h - n) * z + n
    return [h], [h]


STEPS: dict[str, Step] = {"RNN_TANH": hyperbolic, "RNN_RELU": rectified, "LSTM": long_short_term, "GRU": gated}


def _masked(step: Step) -> Step:
    """The step where the last slice, a mask, is true; elsewhere values stay what they were."""

    def masked(carried: list[Value], slices: list[Value], fixed: list[Value]) -> Made:
        *inputs, mask = slices
        following, _ = step(carried, inputs, fixed)
        kept = [mask.where(after, before) for before, after in zip(carried, following, strict=True)]
        return kept, kept[:1]

    return masked


@cache
def cell(mode: str, carried: tuple[Type, ...], slices: tuple[Type, ...], fixed: tuple[Type, ...]) -> Traced:
    """The body of a layer's loop for operands of these types; a second slice is a mask of sequences not yet over."""
    step = STEPS[mode]
    return trace(_masked(step) if len(slices) > 1 else step, carried, slices, fixed)
