"""Recurrent layers. A layer of one direction is one loop, whose gradient is a loop as well (`ir.loop`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from torturous.nn import functional as F
from torturous.nn import init
from torturous.nn.modules.module import Module
from torturous.nn.parameter import Parameter
from torturous.nn.utils.rnn import PackedSequence, Packing
from torturous.tensor import Tensor, cat, empty, stack, zeros
from torturous.tensor.recurrent import input_part, recurrence

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "GRU": 3, "LSTM": 4}


class RNNBase(Module):
    """What recurrent layers have in common: `num_layers` layers, each of one or two directions.

    Input (steps, batch, input_size), with `batch_first` (batch, steps, input_size), without a batch (steps,
    input_size), or a PackedSequence. Parameters are weight_ih_l[k], weight_hh_l[k], bias_ih_l[k], bias_hh_l[k]
    (and weight_hr_l[k] with `proj_size`), with the suffix _reverse for the second direction, drawn uniformly from
    ±1/sqrt(hidden_size) in that order. Between layers, in training, elements are dropped with probability `dropout`.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
        device: Any = None, dtype: Any = None,
    ) -> None:
        super().__init__()
        _check_options(mode, hidden_size, num_layers, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = GATES[mode] * hidden_size
        directions = 2 if bidirectional else 1
        output = proj_size or hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for direction in range(directions):
                suffix = f"_l{layer}{'_reverse' if direction else ''}"
                shapes: dict[str, Any] = {
                    f"weight_ih{suffix}": (gates, output * directions if layer else input_size),
                    f"weight_hh{suffix}": (gates, output),
                }
                if bias:
                    shapes |= {f"bias_ih{suffix}": (gates,), f"bias_hh{suffix}": (gates,)}
                if proj_size:
                    shapes[f"weight_hr{suffix}"] = (proj_size, hidden_size)
                for name, shape in shapes.items():
                    setattr(self, name, Parameter(empty(shape, device=device, dtype=dtype)))
                self._all_weights.append(list(shapes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters afresh."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """There is nothing to flatten: kernels read weights where they lie."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, a list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Parameter]:
        return [getattr(self, name) for name in self._flat_weights_names]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        options: dict[str, tuple[Any, Any]] = {
            "proj_size": (self.proj_size, 0), "num_layers": (self.num_layers, 1), "bias": (self.bias, True),
            "batch_first": (self.batch_first, False), "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
        }
        return text + "".join(f", {name}={value}" for name, (value, usual) in options.items() if value != usual)

    # Checks -------------------------------------------------------------------------------------------------
    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """Raises ValueError for a wrong dtype, RuntimeError for a wrong shape."""
        weight = getattr(self, self._all_weights[0][0])
        if input.dtype is not weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({input.dtype})")
        rank = 2 if batch_sizes is not None else 3
        if input.dim() != rank:
            raise RuntimeError(f"input must have {rank} dimensions, got {input.dim()}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}")

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of h_0."""
        if batch_sizes is not None:
            batch = int(batch_sizes[0])
        else:
            batch = input.shape[0] if self.batch_first else input.shape[1]
        return self.num_layers * (2 if self.bidirectional else 1), batch, self.proj_size or self.hidden_size

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of c_0."""
        count, batch, _ = self.get_expected_hidden_size(input, batch_sizes)
        return count, batch, self.hidden_size

    def check_hidden_size(
        self, hx: Tensor, expected_hidden_size: Sequence[int], msg: str = "Expected hidden size {}, got {}"
    ) -> None:
        """Raises RuntimeError for a state of another shape."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(tuple(expected_hidden_size), list(hx.shape)))

    # Forward ------------------------------------------------------------------------------------------------
    def _states(self, hx: Any) -> list[Tensor]:
        """The hidden states of a call as a list."""
        return [hx]

    def _check_states(self, input: Tensor, states: Sequence[Tensor], batch_sizes: Tensor | None) -> None:
        self.check_hidden_size(states[0], self.get_expected_hidden_size(input, batch_sizes))

    def _zeros(self, input: Tensor, batch_sizes: Tensor | None) -> list[Tensor]:
        return [zeros(self.get_expected_hidden_size(input, batch_sizes), dtype=input.dtype)]

    def _check_ranks(self, batched: bool, states: Sequence[Tensor]) -> None:
        rank = 3 if batched else 2
        if any(state.dim() != rank for state in states):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(f"For {kind} input, hx should also be {rank}-D but got {states[0].dim()}-D tensor")

    def _run(self, input: Any, hx: Any) -> tuple[Any, list[Tensor]]:
        """The output, in the form of the input, and the last states."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        if input.dim() not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        if not batched:
            input = input.unsqueeze(0 if self.batch_first else 1)
        if hx is None:
            self.check_input(input, None)
            states = self._zeros(input, None)
        else:
            states = self._states(hx)
            self._check_ranks(batched, states)
            if not batched:
                states = [state.unsqueeze(1) for state in states]
            self.check_input(input, None)
            self._check_states(input, states, None)
        output, finals = self._layers(input.transpose(0, 1) if self.batch_first else input, states, None)
        if self.batch_first:
            output = output.transpose(0, 1)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = [state.squeeze(1) for state in finals]
        return output, finals

    def _run_packed(self, input: PackedSequence, hx: Any) -> tuple[PackedSequence, list[Tensor]]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        self.check_input(data, batch_sizes)
        if hx is None:
            states = self._zeros(data, batch_sizes)
        else:
            states = [_permuted(state, sorted_indices) for state in self._states(hx)]
            self._check_states(data, states, batch_sizes)
        output, finals = self._layers(data, states, Packing(batch_sizes))
        finals = [_permuted(state, unsorted_indices) for state in finals]
        return PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices), finals

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """A state with its sequences in another order."""
        return _permuted(hx, permutation)

    def _layers(self, x: Any, states: Sequence[Tensor], packing: Packing | None) -> tuple[Tensor, list[Tensor]]:
        directions = 2 if self.bidirectional else 1
        finals: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                which = layer * directions + direction
                output, ends = self._direction(x, [state[which] for state in states], which, packing)
                outputs.append(output)
                finals.append(ends)
            x = cat(outputs, -1) if directions == 2 else outputs[0]
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, True)
        return x, [stack(ends) for ends in zip(*finals, strict=True)]

    def _direction(
        self, x: Tensor, states: Sequence[Tensor], which: int, packing: Packing | None
    ) -> tuple[Tensor, list[Tensor]]:
        """One direction of one layer."""
        weights = iter(getattr(self, name) for name in self._all_weights[which])
        weight_ih, weight_hh = next(weights), next(weights)
        bias_ih, bias_hh = (next(weights), next(weights)) if self.bias else (None, None)
        weight_hr = next(weights) if self.proj_size else None
        reverse = self.bidirectional and which % 2 == 1
        gates = input_part(self.mode, x, weight_ih, bias_ih, bias_hh)
        if packing is None:
            return recurrence(self.mode, gates, states, weight_hh, bias_hh, weight_hr, None, reverse)
        output, ends = recurrence(
            self.mode, packing.padded(gates), states, weight_hh, bias_hh, weight_hr, packing.mask(), reverse)
        return packing.packed(output), ends


def _permuted(state: Tensor, permutation: Tensor | None) -> Tensor:
    return state if permutation is None else state.index_select(1, permutation)


def _check_options(mode: str, hidden_size: Any, num_layers: int, dropout: Any, proj_size: int) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed")
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}", stacklevel=4)
    if not isinstance(hidden_size, int):
        raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
    if hidden_size <= 0:
        raise ValueError("hidden_size must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")
    if mode not in GATES:
        raise ValueError("Unrecognized RNN mode: " + mode)


class RNN(RNNBase):
    """Elman's network: h' = tanh(W_ih·x + b_ih + W_hh·h + b_hh), or with relu.

    Gives output (steps, batch, directions · hidden_size) and h_n (layers · directions, batch, hidden_size).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *, device: Any = None,
        dtype: Any = None, **options: Any,
    ) -> None:
        _refuse_projection(options)
        modes = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
        if nonlinearity not in modes:
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(modes[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, hx)
        return output, h


class GRU(RNNBase):
    """Gated recurrent units, the reset gate applied after the product with W_hn, as in PyTorch.

    Gives output (steps, batch, directions · hidden_size) and h_n (layers · directions, batch, hidden_size).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, *, device: Any = None, dtype: Any = None, **options: Any,
    ) -> None:
        _refuse_projection(options)
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         device, dtype)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, hx)
        return output, h


def _refuse_projection(options: dict[str, Any]) -> None:
    if options.pop("proj_size", 0):
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    if options:
        raise TypeError(f"RNNBase.__init__() got an unexpected keyword argument '{next(iter(options))}'")


class LSTM(RNNBase):
    """Long short-term memory, its hidden state projected to `proj_size` where that is given.

    Called with (h_0, c_0) or nothing; gives output (steps, batch, directions · size) and (h_n, c_n), where size is
    proj_size or hidden_size, h_n is (layers · directions, batch, size) and c_n (layers · directions, batch,
    hidden_size).
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype)

    def _states(self, hx: Any) -> list[Tensor]:
        return [hx[0], hx[1]]

    def _check_states(self, input: Tensor, states: Sequence[Tensor], batch_sizes: Tensor | None) -> None:
        self.check_hidden_size(states[0], self.get_expected_hidden_size(input, batch_sizes),
                               "Expected hidden[0] size {}, got {}")
        self.check_hidden_size(states[1], self.get_expected_cell_size(input, batch_sizes),
                               "Expected hidden[1] size {}, got {}")

    def _zeros(self, input: Tensor, batch_sizes: Tensor | None) -> list[Tensor]:
        shapes = self.get_expected_hidden_size(input, batch_sizes), self.get_expected_cell_size(input, batch_sizes)
        return [zeros(shape, dtype=input.dtype) for shape in shapes]

    def _check_ranks(self, batched: bool, states: Sequence[Tensor]) -> None:
        rank = 3 if batched else 2
        if any(state.dim() != rank for state in states):
            kind = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {kind} input, hx and cx should also be {rank}-D but got ({states[0].dim()}-D, "
                f"{states[1].dim()}-D) tensors")

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """Both states with their sequences in another order."""
        return _permuted(hx[0], permutation), _permuted(hx[1], permutation)

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, hx)
        return output, (h, c)


# Cells ------------------------------------------------------------------------------------------------------
class RNNCellBase(Module):
    """One step of a recurrent layer: parameters weight_ih, weight_hh, bias_ih, bias_hh."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        gates = num_chunks * hidden_size
        self.weight_ih = Parameter(empty((gates, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(empty((gates, hidden_size), device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            if bias:
                setattr(self, name, Parameter(empty(gates, device=device, dtype=dtype)))
            else:
                self.register_parameter(name, None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all parameters afresh, uniformly from ±1/sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias else f"{text}, bias={self.bias}"

    def _batched(self, input: Tensor, states: Sequence[Tensor] | None, count: int) -> tuple[Tensor, list[Tensor]]:
        """Input and `count` states with a batch axis; zeros without states."""
        name = type(self).__name__
        for value, what in ((input, "input"), *((state, "hidden") for state in states or ())):
            if value.dim() not in (1, 2):
                raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {value.dim()}D instead")
        batch = input if input.dim() == 2 else input.unsqueeze(0)
        if batch.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {batch.shape[1]} expected {self.input_size}")
        if states is None:
            return batch, [zeros((batch.shape[0], self.hidden_size), dtype=input.dtype) for _ in range(count)]
        given = [state if state.dim() == 2 else state.unsqueeze(0) for state in states]
        for number, state in enumerate(given):
            if state.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{number} has inconsistent hidden_size: got {state.shape[1]}, expected "
                    f"{self.hidden_size}")
            if state.shape[0] != batch.shape[0]:
                raise RuntimeError(
                    f"Input batch size {batch.shape[0]} doesn't match hidden{number} batch size {state.shape[0]}")
        return batch, given


class RNNCell(RNNCellBase):
    """One step of Elman's network: input (batch, input_size) and h (batch, hidden_size) to h'; also without batch."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        x, (h,) = self._batched(input, None if hx is None else [hx], 1)
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        total = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        result = total.tanh() if self.nonlinearity == "tanh" else total.relu()
        return result if input.dim() == 2 else result.squeeze(0)


class GRUCell(RNNCellBase):
    """One step of a gated recurrent unit: input (batch, input_size) and h (batch, hidden_size) to h'."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        x, (h,) = self._batched(input, None if hx is None else [hx], 1)
        ir, iz, new = F.linear(x, self.weight_ih, self.bias_ih).chunk(3, 1)
        hr, hz, hn = F.linear(h, self.weight_hh, self.bias_hh).chunk(3, 1)
        r, z = (ir + hr).sigmoid(), (iz + hz).sigmoid()
        n = (new + r * hn).tanh()
        result = (h - n) * z + n
        return result if input.dim() == 2 else result.squeeze(0)


class LSTMCell(RNNCellBase):
    """One step of a long short-term memory: input (batch, input_size) and (h, c) to (h', c')."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        x, (h, c) = self._batched(input, hx, 2)
        gates = F.linear(x, self.weight_ih, self.bias_ih) + F.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (h, c) if input.dim() == 2 else (h.squeeze(0), c.squeeze(0))


__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]
