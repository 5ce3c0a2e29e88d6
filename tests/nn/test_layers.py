"""Every layer against PyTorch's: weights for a seed, output, gradients, printed form, errors."""

from __future__ import annotations

import warnings

import numpy
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import torturous

LIBRARIES = [torturous, torch]


# Where every case is another kernel to compile.
few = settings(max_examples=25)


def values_of(shape, seed: int) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)


def run(library, make, inputs, training=True, **call):
    """Everything that two layers can differ in, or the type of the error."""
    library.manual_seed(3)
    try:
        layer = make(library.nn).train(training)
        tensors = [
            library.tensor(value, requires_grad=bool(value.dtype.kind == "f")) for value in inputs
        ]
        output = layer(*tensors, **call)
        results = list(output) if isinstance(output, tuple) else [output]
        sum((result * result).sum() for result in results if result.dtype.is_floating_point).backward()
    except Exception as error:
        return type(error).__name__, str(error)
    gradients = [tensor.grad for tensor in [*tensors, *layer.parameters()]]
    return (
        repr(layer),
        [value.detach().numpy() for value in layer.state_dict().values()],
        [result.detach().numpy() for result in results],
        [None if gradient is None else gradient.numpy() for gradient in gradients],
    )


def same(make, *inputs, training=True, **call) -> None:
    mine = run(torturous, make, inputs, training, **call)
    theirs = run(torch, make, inputs, training, **call)
    assert mine[0] == theirs[0]
    if len(theirs) == 2:
        return
    for weights in zip(mine[1], theirs[1], strict=True):
        numpy.testing.assert_allclose(*weights, rtol=1e-6, atol=1e-7)
    for outputs in zip(mine[2], theirs[2], strict=True):
        numpy.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)
    for ours, other in zip(mine[3], theirs[3], strict=True):
        assert (ours is None) == (other is None)
        if other is not None:
            numpy.testing.assert_allclose(ours, other, rtol=1e-3, atol=1e-4)


# Linear, shape, embedding ---------------------------------------------------------------------------------


@few
@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.lists(st.integers(0, 3), max_size=2))
def test_linear(inputs, outputs, bias, leading):
    same(lambda nn: nn.Linear(inputs, outputs, bias=bias), values_of((*leading, inputs), 1))


@few
@given(st.integers(0, 3), st.integers(-2, 3))
def test_flatten_and_unflatten(start, end):
    same(lambda nn: nn.Flatten(start, end), values_of((2, 3, 2, 2), 1))
    same(lambda nn: nn.Unflatten(start, (2, -1)), values_of((2, 4, 6, 2), 1))


def test_flatten_errors():
    for make in (lambda nn: nn.Unflatten(0, 3), lambda nn: nn.Unflatten(0, (2, "a"))):
        mine, theirs = run(torturous, make, []), run(torch, make, [])
        assert mine[0] == theirs[0] == "TypeError"


def test_identity_takes_anything():
    same(lambda nn: nn.Identity(54, unused=0.1), values_of((2, 3), 1))


@few
@given(st.integers(1, 6), st.integers(1, 4), st.none() | st.integers(-7, 6), st.data())
def test_embedding(rows, columns, padding, data):
    indices = numpy.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=5)))
    same(lambda nn: nn.Embedding(rows, columns, padding_idx=padding), indices)


def test_embedding_from_pretrained():
    table = torturous.tensor(values_of((4, 3), 1))
    layer = torturous.nn.Embedding.from_pretrained(table)
    assert not layer.weight.requires_grad and layer(torturous.tensor([2])).shape == (1, 3)
    with torturous.no_grad():
        table.fill_(0)
    assert not layer.weight.numpy().any()
    with pytest.raises(AssertionError):
        torturous.nn.Embedding(3, 3, _weight=table)


# Convolution and pooling ----------------------------------------------------------------------------------


@few
@given(
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, "same", "valid", "other"]),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    batched=st.booleans(),
)
def test_convolution(dimensions, groups, kernel, stride, padding, dilation, bias, batched):
    shape = (2,) * batched + (2, 6, 5, 5)[: dimensions + 1]
    with warnings.catch_warnings():
        # PyTorch: padding='same' with an even kernel copies the input.
        warnings.simplefilter("ignore")
        same(
            lambda nn: getattr(nn, f"Conv{dimensions}d")(
                2, 4, kernel, stride, padding, dilation, groups, bias
            ),
            values_of(shape, 2),
        )


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "other"])
@pytest.mark.parametrize("padding", [1, (1, 2), "same"])
def test_padding_modes(mode, padding):
    def make(nn):
        return nn.Conv2d(1, 2, 3, padding=padding, padding_mode=mode)

    image = values_of((2, 1, 6, 6), 1)
    mine = run(torturous, make, [image])
    if mine[0] == "NotImplementedError":
        # Refused by `F.pad`: then by its name.
        assert mode in mine[1]
    else:
        same(make, image)


@few
@given(
    dimensions=st.integers(1, 3),
    groups=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    output_padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    extra=st.none() | st.integers(-1, 3),
)
def test_transposed_convolution(
    dimensions, groups, kernel, stride, padding, output_padding, dilation, extra
):
    shape = (2, 4, 4, 3, 3)[: dimensions + 2]
    sizes = [
        (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 for size in shape[2:]
    ]
    assume(min(sizes) > 0)
    call = {} if extra is None else {"output_size": [size + extra for size in sizes]}
    same(
        lambda nn: getattr(nn, f"ConvTranspose{dimensions}d")(
            4, 2, kernel, stride, padding, output_padding, groups, True, dilation
        ),
        values_of(shape, 2),
        **call,
    )


CONVOLUTION_MISUSES = [
    lambda nn: nn.Conv2d(3, 4, 3, groups=2),
    lambda nn: nn.Conv2d(4, 3, 3, groups=2),
    lambda nn: nn.Conv2d(4, 4, 3, groups=0),
    lambda nn: nn.Conv2d(4, 4, 3, stride=2, padding="same"),
    lambda nn: nn.ConvTranspose2d(4, 4, 3, padding_mode="reflect"),
    lambda nn: nn.ConvTranspose2d(4, 4, 3, groups=3),
]


@pytest.mark.parametrize("position", range(len(CONVOLUTION_MISUSES)))
def test_convolution_misuse(position):
    mine, theirs = (run(library, CONVOLUTION_MISUSES[position], []) for library in LIBRARIES)
    assert mine[0] == theirs[0] and mine[0].endswith("Error")


@few
@given(
    dimensions=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.none() | st.integers(1, 3),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    ceil_mode=st.booleans(),
    return_indices=st.booleans(),
)
def test_max_pool(dimensions, kernel, stride, padding, dilation, ceil_mode, return_indices):
    same(
        lambda nn: getattr(nn, f"MaxPool{dimensions}d")(
            kernel, stride, padding, dilation, return_indices, ceil_mode
        ),
        values_of((2, 2, 6, 5, 5)[: dimensions + 2], 2),
    )


@few
@given(
    dimensions=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.none() | st.integers(1, 3),
    padding=st.integers(0, 1),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    divisor=st.none() | st.integers(1, 4),
)
def test_average_pool(dimensions, kernel, stride, padding, ceil_mode, count_include_pad, divisor):
    options = (kernel, stride, padding, ceil_mode, count_include_pad)
    if dimensions > 1:
        options += (divisor,)
    same(
        lambda nn: getattr(nn, f"AvgPool{dimensions}d")(*options),
        values_of((2, 2, 6, 5, 5)[: dimensions + 2], 2),
    )


# Dropout --------------------------------------------------------------------------------------------------


@few
@given(
    st.sampled_from([("Dropout", 2), ("Dropout1d", 3), ("Dropout2d", 4), ("Dropout3d", 5)]),
    st.sampled_from([0.0, 0.3, 0.5, 1.0, -0.1, 1.5]),
    st.booleans(),
)
def test_dropout(kind, probability, training):
    name, dimensions = kind
    same(
        lambda nn: getattr(nn, name)(probability),
        values_of((3, 4, 2, 2, 2)[:dimensions], 1),
        training=training,
    )


# Activations ----------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "ReLU": [{}],
    "ReLU6": [{}],
    "LeakyReLU": [{}, {"negative_slope": 0.3}],
    "ELU": [{}, {"alpha": 0.7}],
    "SELU": [{}],
    "GELU": [{}, {"approximate": "tanh"}],
    "SiLU": [{}],
    "Sigmoid": [{}],
    "Tanh": [{}],
    "Softplus": [{}, {"beta": 2.0, "threshold": 1.0}],
    "Hardtanh": [{}, {"min_val": -0.5, "max_val": 0.25}, {"min_val": 1, "max_val": 0}],
    "Softmax": [{"dim": 0}, {"dim": -1}],
    "LogSoftmax": [{"dim": 0}, {"dim": -1}],
    "PReLU": [{}, {"num_parameters": 3, "init": 0.1}],
    "LogSigmoid": [{}],
    "Hardswish": [{}],
    "Hardsigmoid": [{}],
    "Mish": [{}],
    "Threshold": [{"threshold": 0.2, "value": 3.0}],
    "Softsign": [{}],
    "Tanhshrink": [{}],
}
CASES = [(name, options) for name, several in ACTIVATIONS.items() for options in several]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_activations(name, options):
    same(lambda nn: getattr(nn, name)(**options), values_of((4, 3), 1) * 3)


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "SiLU", "Hardtanh", "Mish"])
def test_activations_in_place(name):
    layers = [getattr(library.nn, name)(inplace=True) for library in LIBRARIES]
    assert repr(layers[0]) == repr(layers[1])
    tensor = torturous.tensor(values_of((4, 3), 1))
    output = layers[0](tensor)
    expected = layers[1](torch.tensor(values_of((4, 3), 1)))
    numpy.testing.assert_allclose(tensor.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    numpy.testing.assert_allclose(output.numpy(), tensor.numpy())


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_implicit_dimension_warns(name):
    outputs = []
    for library in LIBRARIES:
        with pytest.warns(UserWarning, match="[Ii]mplicit dimension"):
            outputs.append(getattr(library.nn, name)()(library.tensor(values_of((4, 3), 1))).numpy())
    numpy.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


# Losses ---------------------------------------------------------------------------------------------------

REDUCTIONS = ["mean", "sum", "none", "other"]


def same_loss(make, inputs, targets) -> None:
    """As `same`, with a target that needs no gradient."""

    class WithTarget:
        def __init__(self, nn, library):
            self.layer, self.target = make(nn, library), library.tensor(targets)

        def train(self, mode):
            return self

        def parameters(self):
            return []

        def state_dict(self):
            return self.layer.state_dict()

        def __repr__(self):
            return repr(self.layer)

        def __call__(self, values):
            return self.layer(values, self.target)

    same(lambda nn: WithTarget(nn, torturous if nn is torturous.nn else torch), inputs)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"])
def test_regression_losses(name, reduction):
    data = values_of((4, 3), 1), values_of((4, 3), 2)
    same_loss(lambda nn, _: getattr(nn, name)(reduction=reduction), *data)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_losses_with_a_bend(scale):
    data = values_of((4, 3), 1) * 3, values_of((4, 3), 2)
    same_loss(lambda nn, _: nn.SmoothL1Loss(beta=scale), *data)
    same_loss(lambda nn, _: nn.HuberLoss(delta=scale), *data)


@few
@given(
    st.sampled_from(["NLLLoss", "CrossEntropyLoss"]),
    st.sampled_from(["mean", "sum", "none"]),
    st.booleans(),
    st.sampled_from([-100, 1]),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
)
def test_classification_losses(name, reduction, weighted, ignored, smoothing, images):
    shape = (5, 3, 2) if images else (5, 3)
    targets = numpy.random.default_rng(1).integers(0, 3, (5, 2) if images else (5,))

    def make(nn, library):
        options = {"label_smoothing": smoothing} if name == "CrossEntropyLoss" else {}
        weight = library.tensor([0.2, 0.5, 0.9]) if weighted else None
        return getattr(nn, name)(weight=weight, ignore_index=ignored, reduction=reduction, **options)

    same_loss(make, values_of(shape, 3), targets)


@few
@given(st.sampled_from(["mean", "sum", "none"]), st.booleans(), st.booleans())
def test_binary_losses(reduction, weighted, positive):
    inputs = values_of((4, 3), 1)
    targets = (values_of((4, 3), 2) > 0).astype(numpy.float32)

    def weight(library, given_, seed):
        return library.tensor(numpy.abs(values_of((3,), seed))) if given_ else None

    same_loss(
        lambda nn, library: nn.BCEWithLogitsLoss(
            weight=weight(library, weighted, 3),
            pos_weight=weight(library, positive, 4),
            reduction=reduction,
        ),
        inputs,
        targets,
    )
    same_loss(
        lambda nn, library: nn.BCELoss(weight=weight(library, weighted, 3), reduction=reduction),
        (1 / (1 + numpy.exp(-inputs))).astype(numpy.float32),
        targets,
    )


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
@pytest.mark.parametrize("log_target", [True, False])
def test_divergence(reduction, log_target):
    logits = values_of((4, 3), 1)
    probabilities = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    targets = numpy.log(probabilities) if log_target else probabilities
    same_loss(
        lambda nn, _: nn.KLDivLoss(reduction=reduction, log_target=log_target),
        values_of((4, 3), 2),
        targets.astype(numpy.float32),
    )


@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_older_reduction_arguments(size_average, reduce):
    found = []
    for library in LIBRARIES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = library.nn.MSELoss(size_average, reduce)
            weighted = library.nn.NLLLoss(None, size_average, -100, reduce)
        found.append((loss.reduction, weighted.reduction, [str(warning.message) for warning in caught]))
    assert found[0] == found[1]
    if size_average is not None or reduce is not None:
        assert found[0][2]


# Reported shapes of wrong input ---------------------------------------------------------------------------


def test_wrong_input_is_refused_as_in_pytorch():
    for make, shape in [
        (lambda nn: nn.Linear(3, 2), (4, 5)),
        (lambda nn: nn.Conv2d(3, 2, 3), (1, 4, 8, 8)),
        (lambda nn: nn.Conv2d(3, 2, 3), (4, 8)),
        (lambda nn: nn.Conv2d(3, 2, 9), (1, 3, 4, 4)),
        (lambda nn: nn.MaxPool2d(9), (1, 3, 4, 4)),
    ]:
        mine, theirs = (run(library, make, [values_of(shape, 1)]) for library in LIBRARIES)
        assert mine[0] == theirs[0] == "RuntimeError"


def test_whole_net_agrees():
    def make(nn):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Dropout2d(),
            nn.Flatten(),
            nn.Linear(4 * 9, 10),
            nn.LogSoftmax(1),
        )

    same(make, values_of((3, 1, 8, 8), 1))
