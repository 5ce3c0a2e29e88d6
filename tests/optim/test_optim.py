"""Optimizers against PyTorch's: parameters and state after several steps, saving, errors."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous
from torturous.optim import optimizer as optimizer_module

LIBRARIES = [torturous, torch]
SHAPES = [(3,), (2, 2), ()]


def parameters(library, dtype="float64"):
    random = numpy.random.default_rng(0)
    return [
        library.nn.Parameter(library.tensor(random.standard_normal(shape), dtype=getattr(library, dtype)))
        for shape in SHAPES
    ]


def set_gradients(library, params, step, present) -> None:
    random = numpy.random.default_rng(step)
    for param, there in zip(params, present, strict=True):
        values = library.tensor(random.standard_normal(tuple(param.shape)), dtype=param.dtype)
        param.grad = values if there else None


def plain(value):
    """A state dict as plain values; tensors as arrays."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    if isinstance(value, (torch.Tensor, torturous.Tensor)):
        return value.detach().numpy().copy()
    return value


def assert_close(mine, theirs) -> None:
    """Equal structure; tensors and numbers equal up to rounding."""
    if isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        for key in theirs:
            assert_close(mine[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(mine) is type(theirs) and len(mine) == len(theirs)
        for pair in zip(mine, theirs, strict=True):
            assert_close(*pair)
    elif isinstance(theirs, numpy.ndarray):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        numpy.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-12)
    else:
        assert mine == theirs


RATES = st.sampled_from([0.0, 1e-3, 0.1])
DECAYS = st.sampled_from([0, 0.1])
FLAGS = st.booleans()
OPTIONS = {
    "SGD": st.fixed_dictionaries(
        {"lr": RATES},
        optional={
            "momentum": st.sampled_from([0, 0.5, 0.9]),
            "dampening": st.sampled_from([0, 0.3]),
            "weight_decay": DECAYS,
            "maximize": FLAGS,
        },
    )
    | st.fixed_dictionaries({"lr": RATES, "momentum": st.just(0.9), "nesterov": st.just(True)}),
    "Adam": st.fixed_dictionaries(
        {"lr": RATES},
        optional={
            "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0.0, 0.0)]),
            "eps": st.sampled_from([1e-8, 1e-2]),
            "weight_decay": DECAYS,
            "amsgrad": FLAGS,
            "maximize": FLAGS,
            "decoupled_weight_decay": FLAGS,
        },
    ),
    "AdamW": st.fixed_dictionaries(
        {"lr": RATES}, optional={"weight_decay": DECAYS, "amsgrad": FLAGS, "maximize": FLAGS}
    ),
    "RMSprop": st.fixed_dictionaries(
        {"lr": RATES},
        optional={
            "alpha": st.sampled_from([0.99, 0.5]),
            "eps": st.sampled_from([1e-8, 1e-2]),
            "weight_decay": DECAYS,
            "momentum": st.sampled_from([0, 0.5]),
            "centered": FLAGS,
            "maximize": FLAGS,
        },
    ),
    "Adagrad": st.fixed_dictionaries(
        {"lr": RATES},
        optional={
            "lr_decay": st.sampled_from([0, 0.1]),
            "weight_decay": DECAYS,
            "initial_accumulator_value": st.sampled_from([0, 0.5]),
            "maximize": FLAGS,
        },
    ),
}
BETAS = st.sampled_from([(0.9, 0.999), (0.5, 0.7)])
OPTIONS |= {
    "Adadelta": st.fixed_dictionaries(
        {"lr": RATES}, optional={"rho": st.sampled_from([0.9, 0.5]), "weight_decay": DECAYS, "maximize": FLAGS}),
    "Adamax": st.fixed_dictionaries(
        {"lr": RATES}, optional={"betas": BETAS, "weight_decay": DECAYS, "maximize": FLAGS}),
    "NAdam": st.fixed_dictionaries(
        {"lr": RATES},
        optional={"betas": BETAS, "momentum_decay": st.sampled_from([4e-3, 0.1]), "weight_decay": DECAYS,
                  "decoupled_weight_decay": FLAGS, "maximize": FLAGS}),
    "RAdam": st.fixed_dictionaries(
        {"lr": RATES},
        optional={"betas": BETAS, "weight_decay": DECAYS, "decoupled_weight_decay": FLAGS, "maximize": FLAGS}),
    "Rprop": st.fixed_dictionaries(
        {"lr": RATES},
        optional={"etas": st.sampled_from([(0.5, 1.2), (0.3, 3.0)]), "step_sizes": st.sampled_from([(1e-3, 0.2)]),
                  "maximize": FLAGS}),
    "ASGD": st.fixed_dictionaries(
        {"lr": RATES},
        optional={"lambd": st.sampled_from([1e-4, 0.1]), "t0": st.sampled_from([1e6, 1.0]), "weight_decay": DECAYS,
                  "maximize": FLAGS}),
}
# Which parameters have a gradient, step by step.
PRESENCE = st.lists(st.tuples(FLAGS, FLAGS, FLAGS), min_size=1, max_size=5)


def trained(library, name, options, presence, groups):
    params = parameters(library)
    given_params = params
    if groups:
        other = {} if name == "Rprop" else {"weight_decay": 0.2}
        given_params = [{"params": params[:1], "lr": 0.05}, {"params": params[1:], **other}]
    optimizer = getattr(library.optim, name)(given_params, **options)
    for step, present in enumerate(presence):
        set_gradients(library, params, step, present)
        optimizer.step()
    return params, optimizer


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=25)
@given(st.data(), PRESENCE, FLAGS)
def test_steps_agree(name, data, presence, groups):
    options = data.draw(OPTIONS[name])
    (mine, my_optimizer), (theirs, their_optimizer) = (
        trained(library, name, options, presence, groups) for library in LIBRARIES
    )
    for pair in zip(mine, theirs, strict=True):
        numpy.testing.assert_allclose(
            pair[0].detach().numpy(), pair[1].detach().numpy(), rtol=1e-9, atol=1e-12
        )
    assert_close(plain(my_optimizer.state_dict()), plain(their_optimizer.state_dict()))
    assert repr(my_optimizer) == repr(their_optimizer)


@pytest.mark.parametrize("dampening", [0, 0.5])
def test_momentum_begins_as_the_gradient_to_the_bit(dampening):
    gradient = numpy.array([0.0, -0.0, 1e-45, -3.5, numpy.inf, numpy.nan], numpy.float32)
    buffers = []
    for library in LIBRARIES:
        param = library.nn.Parameter(library.ones(len(gradient)))
        optimizer = library.optim.SGD([param], lr=0.1, momentum=0.9, dampening=dampening)
        param.grad = library.tensor(gradient)
        optimizer.step()
        buffers.append(optimizer.state[param]["momentum_buffer"].numpy().view(numpy.int32))
    assert numpy.array_equal(*buffers) and numpy.array_equal(buffers[0], gradient.view(numpy.int32))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_loaded_optimizer_goes_on_as_if_nothing_had_happened(name):
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    present = (True, True, True)
    params, optimizer = trained(torturous, name, options, [present] * 2, groups=True)
    twins = parameters(torturous)
    with torturous.no_grad():
        for twin, param in zip(twins, params, strict=True):
            twin.copy_(param)
    groups = [{"params": twins[:1]}, {"params": twins[1:]}]
    fresh = getattr(torturous.optim, name)(groups, lr=9.0)
    saved = optimizer.state_dict()
    fresh.load_state_dict(saved)
    assert_close(plain(fresh.state_dict()), plain(saved))
    for owner, tensors in ((optimizer, params), (fresh, twins)):
        set_gradients(torturous, tensors, 7, present)
        owner.step()
    for twin, param in zip(twins, params, strict=True):
        assert numpy.array_equal(twin.detach().numpy(), param.detach().numpy())


def test_loading_copies_and_casts():
    params, optimizer = trained(torturous, "Adam", {}, [(True, True, True)], groups=False)
    single = torturous.optim.Adam(parameters(torturous, "float32"))
    single.load_state_dict(optimizer.state_dict())
    state = single.state[single.param_groups[0]["params"][0]]
    assert state["exp_avg"].dtype == torturous.float32 and state["step"] == 1
    before = optimizer.state[params[0]]["exp_avg"].numpy().copy()
    set_gradients(torturous, single.param_groups[0]["params"], 3, (True, True, True))
    single.step()
    assert numpy.array_equal(optimizer.state[params[0]]["exp_avg"].numpy(), before)


@pytest.mark.parametrize("library", LIBRARIES)
def test_state_of_other_groups_is_refused(library):
    params = parameters(library)
    saved = library.optim.Adam(params).state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        library.optim.Adam([{"params": params[:1]}, {"params": params[1:]}]).load_state_dict(saved)
    with pytest.raises(ValueError, match="doesn't match the size"):
        library.optim.Adam(params[:2]).load_state_dict(saved)


MISUSES = [
    lambda lib, p: lib.optim.SGD(p, lr=-1.0),
    lambda lib, p: lib.optim.SGD(p, lr=0.1, momentum=-1),
    lambda lib, p: lib.optim.SGD(p, lr=0.1, weight_decay=-1),
    lambda lib, p: lib.optim.SGD(p, lr=0.1, nesterov=True),
    lambda lib, p: lib.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, nesterov=True),
    lambda lib, p: lib.optim.SGD(p, lr=lib.ones(2)),
    lambda lib, p: lib.optim.SGD(p, lr=0.1, foreach=True, fused=True),
    lambda lib, p: lib.optim.Adam(p, lr=-1.0),
    lambda lib, p: lib.optim.Adam(p, eps=-1.0),
    lambda lib, p: lib.optim.Adam(p, betas=(1.0, 0.9)),
    lambda lib, p: lib.optim.Adam(p, betas=(0.9, -0.1)),
    lambda lib, p: lib.optim.Adam(p, weight_decay=-1.0),
    lambda lib, p: lib.optim.AdamW(p, weight_decay=-1.0),
    lambda lib, p: lib.optim.RMSprop(p, alpha=-1.0),
    lambda lib, p: lib.optim.RMSprop(p, momentum=-1.0),
    lambda lib, p: lib.optim.RMSprop(p, eps=-1.0),
    lambda lib, p: lib.optim.RMSprop(p, weight_decay=-1.0),
    lambda lib, p: lib.optim.Adagrad(p, lr_decay=-1.0),
    lambda lib, p: lib.optim.Adagrad(p, initial_accumulator_value=-1.0),
    lambda lib, p: lib.optim.Adadelta(p, rho=1.5),
    lambda lib, p: lib.optim.Adadelta(p, eps=-1.0),
    lambda lib, p: lib.optim.Adamax(p, betas=(1.0, 0.9)),
    lambda lib, p: lib.optim.NAdam(p, momentum_decay=-1.0),
    lambda lib, p: lib.optim.NAdam(p, weight_decay=-1.0),
    lambda lib, p: lib.optim.RAdam(p, eps=-1.0),
    lambda lib, p: lib.optim.Rprop(p, etas=(1.1, 1.2)),
    lambda lib, p: lib.optim.ASGD(p, weight_decay=-1.0),
    lambda lib, p: lib.optim.SGD([]),
    lambda lib, p: lib.optim.SGD({p[0]}),
    lambda lib, p: lib.optim.SGD([{"params": {p[0]}}]),
    lambda lib, p: lib.optim.SGD([3]),
    lambda lib, p: lib.optim.SGD([p[0] * 2]),
    lambda lib, p: lib.optim.SGD([{"params": p}, {"params": p[:1]}]),
    lambda lib, p: lib.optim.SGD([("a", p[0]), p[1]]),
    lambda lib, p: lib.optim.SGD([("a", p[0])]).add_param_group({"params": p[1]}),
    lambda lib, p: lib.optim.SGD(p).add_param_group(3),
    lambda lib, p: lib.optim.Optimizer(p, {}).step(),
]


@pytest.mark.parametrize("position", range(len(MISUSES)))
def test_misuse_raises_as_in_pytorch(position):
    found = []
    for library in LIBRARIES:
        try:
            MISUSES[position](library, parameters(library))
            found.append(None)
        except Exception as error:
            found.append((type(error).__name__, str(error)))
    if found[1] is None:
        assert found[0] is None
    else:
        assert found[0][0] == found[1][0]
        if "ensor" not in found[1][1]:
            assert found[0][1].rstrip(".") == found[1][1].rstrip(".")


def test_a_single_tensor_is_no_list():
    with pytest.raises(TypeError, match="iterable of Tensors or dicts"):
        torturous.optim.SGD(parameters(torturous)[0])


@pytest.mark.parametrize("option", ["differentiable", "capturable"])
def test_what_there_is_not_is_refused(option):
    with pytest.raises(NotImplementedError, match=option):
        torturous.optim.Adam(parameters(torturous), **{option: True})


@pytest.mark.parametrize("library", LIBRARIES)
def test_closure_computes_the_loss(library):
    params = parameters(library)
    optimizer = library.optim.SGD(params, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (params[0] ** 2).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("library", LIBRARIES)
def test_zero_grad(library):
    params = parameters(library)
    optimizer = library.optim.SGD(params)
    set_gradients(library, params, 0, (True, True, False))
    optimizer.zero_grad(set_to_none=False)
    assert not params[0].grad.numpy().any() and params[2].grad is None
    optimizer.zero_grad()
    assert all(param.grad is None for param in params)


@pytest.mark.parametrize("library", LIBRARIES)
def test_step_hooks(library):
    events = []

    class Mine(library.optim.Optimizer):
        def step(self, closure=None):
            events.append(("step", closure))

    optimizer = Mine(parameters(library), {})
    before = optimizer.register_step_pre_hook(lambda opt, args, kwargs: ((opt, "changed"), {}))
    after = optimizer.register_step_post_hook(lambda opt, args, kwargs: events.append(args[0] is opt))
    optimizer.step()
    assert events == [("step", "changed"), True]
    before.remove()
    after.remove()
    optimizer.step()
    assert events[2:] == [("step", None)]
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="None or a tuple"):
        optimizer.step()


@pytest.mark.parametrize("library", LIBRARIES)
def test_named_parameters(library):
    layer = library.nn.Linear(2, 1)
    optimizer = library.optim.SGD(layer.named_parameters(), lr=0.1)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["weight", "bias"]
    optimizer.load_state_dict(saved)
    layer(library.ones(1, 2)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_failed_step_changes_nothing_in_the_state(name, monkeypatch):
    params, optimizer = trained(torturous, name, {}, [(True, True, False)], groups=False)
    before = {id(param): dict(state) for param, state in optimizer.state.items()}

    def failing(*arguments):
        raise RuntimeError("no values")

    monkeypatch.setattr(optimizer_module, "realize_step", failing)
    set_gradients(torturous, params, 1, (True, True, True))
    with pytest.raises(RuntimeError, match="no values"):
        optimizer.step()
    after = {id(param): dict(state) for param, state in optimizer.state.items() if state}
    assert after.keys() == {key for key, state in before.items() if state}
    for key, state in after.items():
        assert state.keys() == before[key].keys()
        assert all(state[entry] is before[key][entry] for entry in state)


def test_a_step_realizes_parameters_state_and_gradients(monkeypatch):
    seen = []
    monkeypatch.setattr(optimizer_module, "realize_step", lambda *arguments: seen.append(arguments))
    params = parameters(torturous)
    optimizer = torturous.optim.Adam(params, amsgrad=True)
    set_gradients(torturous, params, 0, (True, False, True))
    optimizer.step()
    realized, state, gradients = seen[0]
    assert [id(param) for param in realized] == [id(params[0]), id(params[2])]
    assert len(state) == 6 and gradients[0] is params[0].grad


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_tensor_as_learning_rate(library):
    param = library.nn.Parameter(library.ones(1))
    param.grad = library.ones(1)
    optimizer = library.optim.SGD([param], lr=library.tensor(0.25))
    optimizer.step()
    assert param.item() == 0.75


def test_duplicates_in_a_group_warn():
    param = parameters(torturous)[0]
    with pytest.warns(UserWarning, match="duplicate parameters"):
        torturous.optim.SGD([param, param])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_keep_parameters_and_state_together(duplicate):
    params, optimizer = trained(torturous, "Adam", {}, [(True, True, True)], groups=False)
    twins, twin = duplicate((params, optimizer))
    assert twin.param_groups[0]["params"][0] is twins[0]
    assert_close(plain(twin.state_dict()), plain(optimizer.state_dict()))
    before = params[0].detach().numpy().copy()
    set_gradients(torturous, twins, 5, (True, True, True))
    twin.step()
    assert numpy.array_equal(params[0].detach().numpy(), before)
    assert not numpy.array_equal(twins[0].detach().numpy(), before)


def test_training_needs_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(torturous, "SGD", {"momentum": 0.9}, [(True, True, True)] * 3, groups=True)
