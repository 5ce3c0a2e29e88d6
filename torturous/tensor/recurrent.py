"""One direction of one recurrent layer: the input's part of all steps at once, then a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torturous.ir.recurrent import cell
from torturous.tensor.linear import linear
from torturous.tensor.loops import loop, slice_type, type_of
from torturous.tensor.lowering import lowered_operands
from torturous.tensor.lowering import switch as autocasts

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def input_part(mode: str, x: Any, weight_ih: Any, bias_ih: Any, bias_hh: Any) -> Tensor:
    """What the input adds to every gate: x(…, I) to (…, gates · hidden).

    Both biases are in it, but for a gated recurrent unit, whose second one belongs to the loop.
    """
    if bias_ih is None or mode == "GRU":
        return linear(x, weight_ih, bias_ih)
    return linear(x, weight_ih, bias_ih + bias_hh)


def recurrence(
    mode: str, gates: Any, hidden: Sequence[Any], weight_hh: Any, bias_hh: Any = None, weight_hr: Any = None,
    mask: Any = None, reverse: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """The loop over gates(steps, batch, …) from hidden states (batch, …): all outputs, and the last states.

    `mode` is RNN_TANH, RNN_RELU, LSTM or GRU; `mask`(steps, batch, 1) is true where a sequence has not ended.
    RuntimeError for no steps.
    """
    if gates.shape[0] < 1:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if autocasts.count and mode != "GRU":  # A gated recurrent unit's states stay as they are, as in PyTorch.
        gates, weight_hh, weight_hr, *hidden = lowered_operands(gates, weight_hh, weight_hr, *hidden)
    stacked = [gates] if mask is None else [gates, mask]
    fixed = [weight_hh]
    if mode == "GRU" and bias_hh is not None:
        fixed.append(bias_hh)
    if weight_hr is not None:
        fixed.append(weight_hr)
    traced = cell(mode, tuple(map(type_of, hidden)), tuple(map(slice_type, stacked)), tuple(map(type_of, fixed)))
    finals, (output,) = loop(traced, hidden, stacked, fixed, reverse)
    return output, finals
