"""Recurrent layers, cells and packed sequences against PyTorch's: weights for a seed, values, gradients, errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous
from torturous.runtime import build

LIBRARIES = [torturous, torch]
LAYERS = ["RNN", "LSTM", "GRU"]


def array(seed: int, *shape: int, dtype: Any = numpy.float32) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def flat(results: Any) -> list[Any]:
    """The tensors in nested tuples, a PackedSequence included."""
    if isinstance(results, (tuple, list)):
        return [tensor for part in results for tensor in flat(part)]
    return [] if results is None else [results]


def close(mine: Any, theirs: Any, rtol: float = 2e-4) -> None:
    assert (mine is None) == (theirs is None)
    if theirs is None:
        return
    got, want = mine.detach().numpy(), theirs.detach().numpy()
    assert got.shape == want.shape and got.dtype == want.dtype
    largest = float(numpy.abs(want).max(initial=0))
    numpy.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * (1e-2 + 0.1 * largest))


def both(make: Any, use: Any) -> list[Any]:
    """What `use(library, layer)` gives in both libraries: tensors, or the type and text of an error."""
    outcomes = []
    for library in LIBRARIES:
        library.manual_seed(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                layer = make(library.nn)
                outcomes.append((layer, flat(use(library, layer))))
            except Exception as error:
                outcomes.append((type(error).__name__, str(error)))
    return outcomes


def same(make: Any, use: Any, rtol: float = 2e-4) -> None:
    """The same values, and the same gradients of parameters for a loss over all of them."""
    (mine, ours), (theirs, expected) = both(make, use)
    assert not isinstance(theirs, str), expected
    assert not isinstance(mine, str), ours
    assert repr(mine) == repr(theirs)
    for (name, weight), (other, expected_weight) in zip(
            mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        numpy.testing.assert_array_equal(weight.detach().numpy(), expected_weight.detach().numpy())
    for got, want in zip(ours, expected, strict=True):
        close(got, want, rtol)
    for results in (ours, expected):
        sum((result * result * (k + 1)).sum() for k, result in enumerate(results)
            if result.dtype.is_floating_point).backward()
    for got, want in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(got.grad, want.grad, rtol)


def states(library: Any, kind: str, *shape: int, dtype: Any = numpy.float32, proj: int = 0) -> Any:
    h = library.tensor(array(1, *shape[:-1], proj or shape[-1], dtype=dtype))
    return (h, library.tensor(array(2, *shape, dtype=dtype))) if kind == "LSTM" else h


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True},
    {"batch_first": True}, {"num_layers": 3, "batch_first": True, "bidirectional": True, "bias": False},
])
def test_layers(kind: str, options: dict[str, Any]) -> None:
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)

    def make(nn: Any) -> Any:
        return getattr(nn, kind)(3, 5, **options)

    shape = (4, 6, 3) if options.get("batch_first") else (6, 4, 3)
    same(make, lambda library, layer: layer(library.tensor(array(0, *shape))))
    same(make, lambda library, layer: layer(library.tensor(array(0, *shape)), states(library, kind, count, 4, 5)))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_layer(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["RNN", "LSTM", "GRU"]))
    inputs, hidden = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 20))
    options: dict[str, Any] = {
        "num_layers": data.draw(st.integers(1, 2)), "bidirectional": data.draw(st.booleans()),
        "bias": data.draw(st.booleans()), "batch_first": data.draw(st.booleans()),
    }
    if kind == "LSTM" and data.draw(st.booleans()):
        options["proj_size"] = data.draw(st.integers(1, hidden - 1))
    if kind == "RNN":
        options["nonlinearity"] = data.draw(st.sampled_from(["tanh", "relu"]))
    steps, batch = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5))
    shape = (batch, steps, inputs) if options["batch_first"] else (steps, batch, inputs)
    if data.draw(st.booleans()):
        shape = (steps, inputs)
    same(lambda nn: getattr(nn, kind)(inputs, hidden, **options),
         lambda library, layer: layer(library.tensor(array(data.draw(st.just(3)), *shape))))


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_inputs_and_states(kind: str) -> None:
    gradients = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = getattr(library.nn, kind)(3, 4, 2, bidirectional=True)
        x = library.tensor(array(0, 5, 2, 3), requires_grad=True)
        h = states(library, kind, 4, 2, 4)
        for state in flat(h):
            state.requires_grad_()
        output, last = layer(x, h)
        (output[1:4].sum() + sum((state ** 2).sum() for state in flat(last))).backward()
        gradients.append([x.grad, *(state.grad for state in flat(h))])
    for got, want in zip(*gradients, strict=True):
        close(got, want)


@pytest.mark.parametrize("kind", LAYERS)
def test_only_the_last_state_is_used(kind: str) -> None:
    same(lambda nn: getattr(nn, kind)(3, 4),
         lambda library, layer: flat(layer(library.tensor(array(0, 5, 2, 3)))[1])[-1:])


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_gradients(kind: str) -> None:
    """A penalty on gradients: the gradient of a loop's gradient is a loop again."""
    results = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = getattr(library.nn, kind)(2, 3)
        x = library.tensor(array(0, 4, 2, 2), requires_grad=True)
        output, _ = layer(x)
        (gradient,) = library.autograd.grad((output * output).sum(), x, create_graph=True)
        ((gradient * gradient).sum() + output.sum()).backward()
        results.append([x.grad, *(weight.grad for weight in layer.parameters())])
    for got, want in zip(*results, strict=True):
        close(got, want, 1e-3)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes(kind: str, dtype: str) -> None:
    results = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = getattr(library.nn, kind)(3, 4).to(getattr(library, dtype))
        output, last = layer(library.tensor(array(0, 5, 2, 3)).to(getattr(library, dtype)))
        assert output.dtype is getattr(library, dtype)
        results.append([value.float() for value in (output, *flat(last))])
    for got, want in zip(*results, strict=True):
        close(got, want, 1e-5 if dtype == "float64" else 8e-2)


@pytest.mark.parametrize("kind", LAYERS)
def test_autocast(kind: str) -> None:
    results = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = getattr(library.nn, kind)(3, 4)
        with library.autocast("cpu", dtype=library.bfloat16):
            output, last = layer(library.tensor(array(0, 5, 2, 3)))
        (output.float() ** 2).sum().backward()
        assert output.dtype is (library.float32 if kind == "GRU" else library.bfloat16)
        results.append([output.float(), layer.weight_hh_l0.grad])
    for got, want in zip(*results, strict=True):
        close(got, want, 8e-2)


def test_dropout_between_layers_draws_pytorchs_numbers() -> None:
    def use(library: Any, layer: Any) -> Any:
        library.manual_seed(9)
        return layer(library.tensor(array(0, 6, 4, 3)))

    same(lambda nn: nn.LSTM(3, 5, 3, dropout=0.4), use)
    same(lambda nn: nn.GRU(3, 5, 2, dropout=0.4).eval(), use)


def test_training_reuses_one_plan_and_other_lengths_need_no_compiler() -> None:
    torturous.manual_seed(0)
    layer = torturous.nn.LSTM(3, 4, 2)
    optimizer = torturous.optim.SGD(layer.parameters(), lr=0.1)

    def step(steps: int, batch: int) -> float:
        output, _ = layer(torturous.tensor(array(steps, steps, batch, 3)))
        loss = (output * output).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for steps, batch in ((5, 2), (6, 3), (7, 4)):
        step(steps, batch)
    counts = build.statistics.kernels_compiled + build.statistics.cache_hits + build.statistics.memory_hits
    losses = [step(steps, batch) for steps, batch in ((5, 2), (9, 3), (30, 5), (5, 2))]
    assert counts == build.statistics.kernels_compiled + build.statistics.cache_hits + build.statistics.memory_hits
    assert losses[-1] < losses[0]


# Cells --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [
    lambda nn: nn.RNNCell(3, 4), lambda nn: nn.RNNCell(3, 4, False, "relu"), lambda nn: nn.GRUCell(3, 4),
    lambda nn: nn.GRUCell(3, 4, bias=False), lambda nn: nn.LSTMCell(3, 4), lambda nn: nn.LSTMCell(3, 4, False),
])
def test_cells(make: Any) -> None:
    def state(library: Any, layer: Any, *shape: int) -> Any:
        return states(library, "LSTM" if "LSTM" in repr(layer) else "other", *shape)

    same(make, lambda library, layer: layer(library.tensor(array(0, 2, 3))))
    same(make, lambda library, layer: layer(library.tensor(array(0, 2, 3)), state(library, layer, 2, 4)))
    same(make, lambda library, layer: layer(library.tensor(array(0, 3)), state(library, layer, 4)))


# Packed sequences ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True}])
@pytest.mark.parametrize("lengths", [[5, 4, 2, 2], [2, 5, 1, 3], [4, 4, 4, 4]])
def test_packed(kind: str, options: dict[str, Any], lengths: list[int]) -> None:
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    first = options.get("batch_first", False)

    def use(library: Any, layer: Any) -> Any:
        rnn = library.nn.utils.rnn
        x = library.tensor(array(0, 4, 5, 3) if first else array(0, 5, 4, 3))
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        output, last = layer(packed, states(library, kind, count, 4, 6))
        padded, found = rnn.pad_packed_sequence(output, batch_first=first, padding_value=0.5)
        again, ends = layer(packed)
        return padded, found, last, again.data, ends

    same(lambda nn: getattr(nn, kind)(3, 6, **options), use)


def test_packed_with_dropout_and_projection() -> None:
    def use(library: Any, layer: Any) -> Any:
        library.manual_seed(2)
        x = library.tensor(array(0, 5, 3, 3))
        packed = library.nn.utils.rnn.pack_padded_sequence(x, library.tensor([5, 3, 1]))
        output, last = layer(packed)
        return output.data, last

    same(lambda nn: nn.LSTM(3, 6, 2, dropout=0.3, proj_size=2), use)


def test_packing_functions() -> None:
    outcomes = []
    for library in LIBRARIES:
        rnn = library.nn.utils.rnn
        parts = [library.tensor(array(k, length, 2)) for k, length in enumerate((2, 4, 1))]
        packed = rnn.pack_sequence(parts, enforce_sorted=False)
        outcomes.append(flat([
            packed, rnn.unpack_sequence(packed), rnn.pad_sequence(parts), rnn.pad_sequence(parts, True, 2.5, "left"),
            rnn.pad_packed_sequence(packed, True, -1.0, 6), rnn.invert_permutation(library.tensor([2, 0, 1])),
            rnn.unpad_sequence(rnn.pad_sequence(parts), library.tensor([2, 4, 1])),
            packed.double(), rnn.pack_padded_sequence(library.tensor(array(3, 3, 2)), [3, 1]),
        ]))
    for got, want in zip(*outcomes, strict=True):
        close(got, want)


def test_gradients_through_packing() -> None:
    gradients = []
    for library in LIBRARIES:
        rnn = library.nn.utils.rnn
        x = library.tensor(array(0, 4, 3, 2), requires_grad=True)
        packed = rnn.pack_padded_sequence(x * 2, [2, 4, 3], enforce_sorted=False)
        padded, _ = rnn.pad_packed_sequence(packed)
        (padded ** 3).sum().backward()
        gradients.append(x.grad)
    close(*gradients)


# Errors -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make, shapes", [
    (lambda nn: nn.LSTM(2, 3), [(4, 5, 3)]),
    (lambda nn: nn.LSTM(2, 3), [(4,)]),
    (lambda nn: nn.LSTM(2, 3), [(4, 5, 2), (1, 5, 4), (1, 5, 3)]),
    (lambda nn: nn.LSTM(2, 3), [(4, 5, 2), (1, 5, 3), (1, 5, 4)]),
    (lambda nn: nn.LSTM(2, 3), [(4, 5, 2), (5, 3), (5, 3)]),
    (lambda nn: nn.LSTM(2, 3), [(4, 2), (1, 5, 3), (1, 5, 3)]),
    (lambda nn: nn.GRU(2, 3), [(4, 5, 2), (1, 5, 4)]),
    (lambda nn: nn.GRU(2, 3), [(4, 5, 2), (5, 3)]),
    (lambda nn: nn.GRU(2, 3), [(4, 2), (1, 5, 3)]),
    (lambda nn: nn.RNN(2, 3), [(0, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3).double(), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3, num_layers=2, dropout=1.5), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3, num_layers=2, dropout=True), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 0), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3, num_layers=0), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3.0), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3, proj_size=3), [(4, 5, 2)]),
    (lambda nn: nn.LSTM(2, 3, proj_size=-1), [(4, 5, 2)]),
    (lambda nn: nn.GRU(2, 3, proj_size=1), [(4, 5, 2)]),
    (lambda nn: nn.RNN(2, 3, proj_size=1), [(4, 5, 2)]),
    (lambda nn: nn.RNN(2, 3, nonlinearity="sig"), [(4, 5, 2)]),
    (lambda nn: nn.LSTMCell(2, 3), [(4, 3)]),
    (lambda nn: nn.LSTMCell(2, 3), [(4, 5, 2)]),
    (lambda nn: nn.LSTMCell(2, 3), [(4, 2), (5, 3), (4, 3)]),
    (lambda nn: nn.GRUCell(2, 3), [(4, 2), (4, 2)]),
    (lambda nn: nn.RNNCell(2, 3), [(4, 5, 2)]),
    (lambda nn: nn.RNNCell(2, 3, nonlinearity="x"), [(4, 2)]),
])
def test_errors(make: Any, shapes: list[tuple[int, ...]]) -> None:
    def use(library: Any, layer: Any) -> Any:
        x, *rest = (library.zeros(shape) for shape in shapes)
        return layer(x, tuple(rest)) if len(rest) > 1 else layer(x, *rest)

    mine, theirs = both(make, use)
    assert theirs[0] in ("RuntimeError", "ValueError", "TypeError")
    assert mine[0] == theirs[0]
    assert mine[1].replace("torturous.", "torch.") == theirs[1]


@pytest.mark.parametrize("lengths, sorted_", [([2, 4, 1], True), ([4, 2, 0], True), ([4, 2], True)])
def test_errors_of_packing(lengths: list[int], sorted_: bool) -> None:
    texts = []
    for library in LIBRARIES:
        with pytest.raises(RuntimeError) as error:
            library.nn.utils.rnn.pack_padded_sequence(library.zeros(4, 3, 1), lengths, enforce_sorted=sorted_)
        texts.append(str(error.value))
    assert texts[0] == texts[1]
    with pytest.raises(RuntimeError, match="go up to 9"):
        torturous.nn.utils.rnn.pack_padded_sequence(torturous.zeros(4, 3, 1), [9, 2, 1])


def test_state_dicts_are_exchanged_with_pytorch() -> None:
    mine, theirs = torturous.nn.LSTM(2, 3, 2, bidirectional=True), torch.nn.LSTM(2, 3, 2, bidirectional=True)
    mine.load_state_dict({name: torturous.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    x = array(0, 4, 2, 2)
    close(mine(torturous.tensor(x))[0], theirs(torch.tensor(x))[0])
    assert [len(weights) for weights in mine.all_weights] == [4] * 4
    mine.flatten_parameters()


# What autograd does with a row of several values -----------------------------------------------------------------
def test_hooks_retained_gradients_and_targets() -> None:
    results = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = library.nn.LSTM(3, 4, 2)
        output, (h, c) = layer(library.tensor(array(0, 5, 2, 3)))
        output.register_hook(lambda gradient: None if gradient is None else gradient * 2)
        h.retain_grad()
        ((output * output).sum() + (h * c).sum()).backward(retain_graph=True)
        (of_output,) = library.autograd.grad((output ** 3).sum(), output, retain_graph=True)
        (c * c).sum().backward()
        results.append([h.grad, of_output, *(weight.grad for weight in layer.parameters())])
    for got, want in zip(*results, strict=True):
        close(got, want)


def test_a_second_backward_needs_a_retained_graph() -> None:
    for library in LIBRARIES:
        output, _ = library.nn.GRU(3, 4)(library.tensor(array(0, 5, 2, 3)))
        loss = (output * output).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


def test_truncated_backpropagation_through_time() -> None:
    """The hidden state goes on from one stretch to the next, detached."""
    results = []
    for library in LIBRARIES:
        library.manual_seed(0)
        layer = library.nn.LSTM(3, 4)
        optimizer = library.optim.SGD(layer.parameters(), lr=0.2)
        hidden = None
        losses = []
        for step in range(4):
            output, hidden = layer(library.tensor(array(step, 5, 2, 3)), hidden)
            hidden = tuple(state.detach() for state in hidden)
            loss = (output * output).mean()
            optimizer.zero_grad()
            loss.backward()
            library.nn.utils.clip_grad_norm_(layer.parameters(), 0.25)
            optimizer.step()
            losses.append(loss.detach())
        results.append([*losses, *hidden, *layer.parameters()])
    for got, want in zip(*results, strict=True):
        close(got, want)
