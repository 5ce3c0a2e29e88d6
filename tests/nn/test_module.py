"""`Module` and its containers, against PyTorch's."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import warnings
from collections import OrderedDict

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torturous
from torturous.nn.modules.module import on_outermost_call

LIBRARIES = [torturous, torch]


def messages(error: BaseException) -> str:
    """The message without what the library's own name changes in it."""
    return re.sub(r"(torch|torturous)(\.[a-z_]+)*\.", "", str(error))


def outcome(action, *args):
    """What `action` does: its result's text, or the error's type and message."""
    try:
        return "gives", re.sub(r"torturous|torch", "", str(action(*args)))
    except Exception as error:
        return type(error).__name__, messages(error)


def both(action) -> None:
    """`action(library)` must do the same in both libraries."""
    mine, theirs = outcome(action, torturous), outcome(action, torch)
    assert mine == theirs


def fill(module, seed: int = 0) -> None:
    """The same values into the parameters and buffers of any library's module."""
    random = numpy.random.default_rng(seed)
    library = torturous if isinstance(module, torturous.nn.Module) else torch
    with library.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            values = random.standard_normal(tuple(tensor.shape)).astype(numpy.float32)
            tensor.copy_(library.tensor(values))


def arrays(module) -> dict[str, numpy.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


# Trees ----------------------------------------------------------------------------------------------------

TREES = st.recursive(
    st.sampled_from(["linear", "relu", "conv", "dropout", "own", "shared"]),
    lambda inner: st.tuples(
        st.sampled_from(["sequential", "list", "dict", "own"]), st.lists(inner, max_size=4)
    ),
    max_leaves=8,
)


def build(library, tree, shared=None):
    """A module made of `tree` in `library`; every 'shared' is one and the same layer."""
    nn = library.nn
    if shared is None:
        shared = nn.Linear(2, 2)

    class Own(nn.Module):
        def __init__(self, children=()):
            super().__init__()
            self.scale = nn.Parameter(library.ones(2, 1))
            self.register_parameter("absent", None)
            self.register_buffer("count", library.zeros(3))
            self.register_buffer("scratch", library.zeros(1), persistent=False)
            self.plain = "anything"
            for position, child in enumerate(children):
                setattr(self, f"child{position}", child)

        def extra_repr(self):
            return "first\nsecond" if len(self._modules) > 1 else "only"

    leaves = {
        "linear": lambda: nn.Linear(2, 2, bias=False),
        "relu": nn.ReLU,
        "conv": lambda: nn.Conv2d(2, 4, 3, padding=1),
        "dropout": lambda: nn.Dropout(0.25),
        "own": Own,
        "shared": lambda: shared,
    }
    if isinstance(tree, str):
        return leaves[tree]()
    kind, inner = tree
    children = [build(library, child, shared) for child in inner]
    if kind == "sequential":
        return nn.Sequential(*children)
    if kind == "list":
        return nn.ModuleList(children)
    if kind == "dict":
        return nn.ModuleDict({f"key{position}": child for position, child in enumerate(children)})
    return Own(children)


@settings(max_examples=50)
@given(TREES)
def test_trees_look_the_same(tree):
    mine, theirs = build(torturous, tree), build(torch, tree)
    assert repr(mine) == repr(theirs)
    for recurse in (True, False):
        for duplicates in (True, False):
            names = [
                [name for name, _ in module.named_parameters("root", recurse, duplicates)]
                for module in (mine, theirs)
            ]
            assert names[0] == names[1]
    for method in ("named_modules", "named_children", "named_buffers"):
        assert [n for n, _ in getattr(mine, method)()] == [n for n, _ in getattr(theirs, method)()]
    assert len(list(mine.modules())) == len(list(theirs.modules()))
    assert len(list(mine.parameters())) == len(list(theirs.parameters()))
    assert list(mine.state_dict(prefix="p.")) == list(theirs.state_dict(prefix="p."))
    visited = [[], []]
    mine.apply(lambda module: visited[0].append(type(module).__name__))
    theirs.apply(lambda module: visited[1].append(type(module).__name__))
    assert visited[0] == visited[1]
    assert {name for name in dir(mine) if name.startswith(("child", "scale", "key"))} == {
        name for name in dir(theirs) if name.startswith(("child", "scale", "key"))
    }


@settings(max_examples=50)
@given(TREES, st.data())
def test_load_state_dict_all_or_nothing(tree, data):
    trees = [build(library, tree) for library in LIBRARIES]
    for module in trees:
        fill(module)
    keys = list(trees[0].state_dict())
    changes = {
        key: data.draw(st.sampled_from(["keep", "keep", "drop", "reshape", "number"]), key) for key in keys
    }
    extra = data.draw(st.lists(st.sampled_from(["x", "x.y", "child0.z"]), unique=True))
    strict = data.draw(st.booleans())
    before = arrays(trees[0])
    results = []
    for library, module in zip(LIBRARIES, trees, strict=True):
        state = OrderedDict()
        for key, value in module.state_dict().items():
            if changes[key] == "keep":
                state[key] = value + 1
            elif changes[key] == "reshape":
                state[key] = library.zeros(7)
            elif changes[key] == "number":
                state[key] = 3
        state.update({key: library.zeros(1) for key in extra})
        try:
            found = module.load_state_dict(state, strict=strict)
            results.append((sorted(found.missing_keys), sorted(found.unexpected_keys)))
        except Exception as error:
            parts = messages(error).split("\n\t")
            results.append((type(error).__name__, sorted("".join(sorted(part)) for part in parts)))
    # A list of names may be in another order than PyTorch's; everything else is equal.
    assert results[0] == results[1]
    after = arrays(trees[0])
    if isinstance(results[0][0], str):
        assert all(numpy.array_equal(after[key], before[key]) for key in keys)
    else:
        # A layer that stands in several places takes the value of one of them.
        for key in keys:
            expected = before[key] + (changes[key] == "keep")
            assert numpy.array_equal(after[key], expected) or "shared" in str(tree)


def test_loading_reports_success_and_can_assign():
    source, target = torturous.nn.Linear(3, 2), torturous.nn.Linear(3, 2)
    old = target.weight
    target.weight.requires_grad_(False)
    assert str(target.load_state_dict(source.state_dict())) == "<All keys matched successfully>"
    assert target.weight is old and numpy.array_equal(arrays(target)["weight"], arrays(source)["weight"])
    state = source.double().state_dict()
    target.load_state_dict(state, assign=True)
    assert target.weight is not old and target.weight.dtype == torturous.float64
    assert not target.weight.requires_grad and target.bias.requires_grad
    with pytest.raises(TypeError, match="dict-like"):
        target.load_state_dict([])


def test_extra_state_is_saved_and_loaded():
    class Counting(torturous.nn.Module):
        def __init__(self, count):
            super().__init__()
            self.count = count

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    saved = torturous.nn.Sequential(Counting(3)).state_dict()
    assert saved == {"0._extra_state": {"count": 3}}
    fresh = torturous.nn.Sequential(Counting(0))
    fresh.load_state_dict(saved)
    assert fresh[0].count == 3
    with pytest.raises(RuntimeError, match="_extra_state"):
        fresh.load_state_dict({})


# Registration ---------------------------------------------------------------------------------------------


def parts(library):
    """A module, with one thing of every kind, to be misused."""
    module = library.nn.Module()
    module.layer = library.nn.ReLU()
    module.weight = library.nn.Parameter(library.ones(2))
    module.register_buffer("running", library.ones(2))
    module.number = 3
    return module


class Early:
    """Assignments before `Module.__init__`."""

    @staticmethod
    def of(library, value):
        class Net(library.nn.Module):
            def __init__(self):
                self.early = value(library)

        return Net


MISUSES = {
    "parameter too early": lambda lib: Early.of(lib, lambda lib: lib.nn.Parameter(lib.ones(1)))(),
    "module too early": lambda lib: Early.of(lib, lambda lib: lib.nn.ReLU())(),
    "number as parameter": lambda lib: setattr(parts(lib), "weight", 3),
    "number as module": lambda lib: setattr(parts(lib), "layer", 3),
    "text as buffer": lambda lib: setattr(parts(lib), "running", "text"),
    "parameter with a dot": lambda lib: parts(lib).register_parameter("a.b", None),
    "parameter that exists": lambda lib: parts(lib).register_parameter("number", None),
    "parameter of a number": lambda lib: parts(lib).register_parameter("new", 3),
    "parameter without a name": lambda lib: parts(lib).register_parameter(3, None),
    "module that is none": lambda lib: parts(lib).add_module("new", 3),
    "module with a dot": lambda lib: parts(lib).add_module("a.b", lib.nn.ReLU()),
    "module with an empty name": lambda lib: parts(lib).add_module("", lib.nn.ReLU()),
    "module that exists": lambda lib: parts(lib).add_module("number", lib.nn.ReLU()),
    "module without a name": lambda lib: parts(lib).register_module(3, lib.nn.ReLU()),
    "buffer of a number": lambda lib: parts(lib).register_buffer("new", 3),
    "buffer that exists": lambda lib: parts(lib).register_buffer("number", None),
    "no such attribute": lambda lib: parts(lib).missing,
    "no such submodule": lambda lib: parts(lib).get_submodule("layer.missing"),
    "not a submodule": lambda lib: parts(lib).get_submodule("number"),
    "no such parameter": lambda lib: parts(lib).get_parameter("layer.missing"),
    "not a parameter": lambda lib: parts(lib).get_parameter("number"),
    "not a buffer": lambda lib: parts(lib).get_buffer("weight"),
    "no forward": lambda lib: parts(lib)(1),
    "mode": lambda lib: parts(lib).train(3),
    "integer dtype": lambda lib: parts(lib).to(lib.int64),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_as_in_pytorch(name):
    mine, theirs = outcome(MISUSES[name], torturous), outcome(MISUSES[name], torch)
    assert mine[0] == theirs[0] != "gives"
    # Names with a dot: ours say which name it was.
    assert mine[1] == theirs[1] or mine[1].startswith(theirs[1].rstrip("'").rstrip('"'))


@pytest.mark.parametrize("library", LIBRARIES)
def test_attributes_change_their_kind(library):
    module = library.nn.Module()
    module.thing = 3
    module.thing = library.nn.Parameter(library.ones(1))
    assert "thing" not in module.__dict__ and list(dict(module.named_parameters())) == ["thing"]
    del module.thing
    module.thing = library.nn.ReLU()
    assert not list(module.parameters()) and list(dict(module.named_children())) == ["thing"]
    module.thing = None
    assert module.thing is None and not list(module.children())
    module.register_buffer("kept", library.ones(1))
    module.kept = library.zeros(1)
    module.register_buffer("temporary", library.ones(1), persistent=False)
    assert list(module.state_dict()) == ["kept"] and len(list(module.buffers())) == 2
    del module.temporary
    assert not hasattr(module, "temporary")
    with pytest.raises(AttributeError):
        del module.temporary


def test_a_plain_tensor_is_a_plain_attribute():
    module = torturous.nn.Module()
    module.table = torturous.ones(2)
    assert not list(module.state_dict()) and module.table.shape == (2,)


def test_non_leaf_parameter_is_refused():
    module = torturous.nn.Module()
    doubled = torturous.nn.Parameter(torturous.ones(1)) * 2
    assert not isinstance(doubled, torturous.nn.Parameter)
    with pytest.raises(TypeError, match="Tensor"):
        module.register_parameter("weight", doubled)
    with pytest.raises(TypeError, match="needs a Tensor"):
        torturous.nn.Parameter([1.0])


# Modes, dtypes, copies ------------------------------------------------------------------------------------


def mixed(library):
    module = library.nn.Sequential(library.nn.Linear(2, 3), library.nn.Linear(3, 1))
    module.register_buffer("steps", library.tensor([1, 2]))
    module.register_buffer("mean", library.ones(2))
    return module


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda lib, module: module.double(), "float64"),
        (lambda lib, module: module.half(), "float16"),
        (lambda lib, module: module.bfloat16(), "bfloat16"),
        (lambda lib, module: module.double().float(), "float32"),
        (lambda lib, module: module.to(lib.float64), "float64"),
        (lambda lib, module: module.to("cpu", lib.float64), "float64"),
        (lambda lib, module: module.to(dtype=lib.float64, device="cpu"), "float64"),
        (lambda lib, module: module.to(lib.zeros(1, dtype=lib.float16)), "float16"),
        (lambda lib, module: module.to("cpu").cpu(), "float32"),
    ],
)
def test_conversion_keeps_parameters_and_integers(convert, dtype):
    for library in LIBRARIES:
        module = mixed(library)
        before = list(module.parameters())
        module(library.ones(1, 2)).sum().backward()
        gradient = before[0].grad
        assert convert(library, module) is module
        after = list(module.parameters())
        assert all(old is new for old, new in zip(before, after, strict=True))
        assert all(value.dtype == getattr(library, dtype) for value in [*after, module.mean])
        assert module.steps.dtype == library.int64
        assert before[0].grad is gradient and gradient.dtype == getattr(library, dtype)
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in after)


def test_type_casts_everything():
    assert mixed(torturous).type(torturous.float64).steps.dtype == torturous.float64
    with pytest.raises(TypeError, match="invalid combination"):
        mixed(torturous).to([1])


@pytest.mark.parametrize("library", LIBRARIES)
def test_modes_and_gradients(library):
    module = mixed(library)
    assert module.training and not module.eval()[0].training and module.train()[1].training
    module(library.ones(1, 2)).sum().backward()
    module.zero_grad(set_to_none=False)
    assert all(not parameter.grad.numpy().any() for parameter in module.parameters())
    module.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())
    module.requires_grad_(False)
    assert not module(library.ones(1, 2)).requires_grad


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_independent(duplicate):
    module = mixed(torturous)
    module.tied = module[0]
    module[1].weight.requires_grad_(False)
    module[0].register_forward_hook(record_call)
    twin = duplicate(module)
    assert repr(twin) == repr(module) and twin.tied is twin[0] and twin[0] is not module[0]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in module.parameters()]
    with torturous.no_grad():
        twin[0].weight.add_(1)
    assert numpy.array_equal(twin[0].weight.detach().numpy(), module[0].weight.detach().numpy() + 1)
    CALLS.clear()
    twin.tied(torturous.ones(1, 2))
    assert CALLS == ["Linear"]
    assert isinstance(twin[0].weight, torturous.nn.Parameter)


CALLS: list[str] = []


def record_call(module, args, output):
    CALLS.append(type(module).__name__)


def test_parameter_prints_what_it_is():
    shown = repr(torturous.nn.Parameter(torturous.ones(2)))
    assert shown == "Parameter containing:\ntensor([1., 1.], requires_grad=True)"


# Containers -----------------------------------------------------------------------------------------------

SMALL = st.integers(-4, 4)
SLICES = st.builds(slice, SMALL | st.none(), SMALL | st.none())


def layer(library, number: int):
    return library.nn.Dropout(number / 10)


SEQUENCE_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 9)),
    st.tuples(st.just("insert"), SMALL, st.integers(0, 9)),
    st.tuples(st.just("extend"), st.lists(st.integers(0, 9), max_size=3)),
    st.tuples(st.just("add"), st.lists(st.integers(0, 9), max_size=3)),
    st.tuples(st.just("inplace add"), st.lists(st.integers(0, 9), max_size=3)),
    st.tuples(st.just("pop"), SMALL),
    st.tuples(st.just("delete"), SMALL | SLICES),
    st.tuples(st.just("get"), SMALL | SLICES),
    st.tuples(st.just("set"), SMALL, st.integers(0, 9)),
    st.tuples(st.just("times"), st.integers(-1, 3)),
    st.tuples(st.just("inplace times"), st.integers(0, 2)),
)


LOOKED_AT: list[str] = []


def sequence_step(library, container, kind, *arguments):
    """Do one step; returns the container that the next step works on."""

    def of(numbers):
        layers = [layer(library, number) for number in numbers]
        return library.nn.Sequential(*layers) if isinstance(container, library.nn.Sequential) else layers

    if kind == "append":
        return container.append(layer(library, arguments[0]))
    if kind == "insert":
        index = arguments[0]
        if isinstance(container, library.nn.ModuleList):
            # Outside of the list, PyTorch's gets its own numbering wrong; ours does what a list does.
            index %= len(container) + 1
        container.insert(index, layer(library, arguments[1]))
    elif kind == "extend":
        return container.extend(of(arguments[0]))
    elif kind == "add":
        return container + of(arguments[0])
    elif kind == "inplace add":
        container += of(arguments[0])
    elif kind == "pop":
        container.pop(arguments[0])
    elif kind == "delete":
        del container[arguments[0]]
    elif kind == "get":
        # A slice is looked at, not gone on with: PyTorch's keeps the numbers its modules had.
        LOOKED_AT.append(repr(container[arguments[0]]))
    elif kind == "set":
        container[arguments[0]] = layer(library, arguments[1])
    elif kind == "times":
        return container * arguments[0]
    elif kind == "inplace times":
        container *= arguments[0]
    return container


@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
@given(steps=st.lists(SEQUENCE_STEPS, max_size=8))
def test_sequences_of_modules(kind, steps):
    containers = [
        library.nn.Sequential(layer(library, 1), layer(library, 1))
        if kind == "Sequential"
        else library.nn.ModuleList([layer(library, 1), layer(library, 1)])
        for library in LIBRARIES
    ]
    for step in steps:
        errors = []
        for position, library in enumerate(LIBRARIES):
            try:
                containers[position] = sequence_step(library, containers[position], *step)
                errors.append(None)
            except Exception as error:
                errors.append(type(error).__name__)
        assert errors[0] == errors[1]
        if errors[0] is not None:
            LOOKED_AT.clear()
            return
        assert len(set(LOOKED_AT)) <= 1
        LOOKED_AT.clear()
        assert repr(containers[0]) == repr(containers[1])
        assert len(containers[0]) == len(containers[1])
        assert list(containers[0]._modules) == list(containers[1]._modules)


def test_slices_share_their_modules():
    whole = torturous.nn.Sequential(OrderedDict(a=torturous.nn.ReLU(), b=torturous.nn.Tanh()))
    assert whole[1:].b is whole.b and list(whole[1:]._modules) == ["b"]
    assert [module for module in whole] == [whole.a, whole.b]


def test_module_dict_behaves_like_a_dict():
    for library in LIBRARIES:
        modules = library.nn.ModuleDict([("a", library.nn.ReLU()), ("b", library.nn.Tanh())])
        assert list(modules) == list(modules.keys()) == ["a", "b"] and "a" in modules and len(modules) == 2
        assert [type(module).__name__ for module in modules.values()] == ["ReLU", "Tanh"]
        modules.update({"a": library.nn.Sigmoid()})
        modules.update(library.nn.ModuleDict({"c": library.nn.ReLU()}))
        assert [name for name, _ in modules.items()] == ["a", "b", "c"]
        assert isinstance(modules.pop("b"), library.nn.Tanh) and "b" not in modules
        del modules["c"]
        modules.clear()
        assert not len(modules)


CONTAINER_MISUSES = [
    lambda lib: lib.nn.Sequential(3),
    lambda lib: lib.nn.Sequential(lib.nn.ReLU())[4],
    lambda lib: lib.nn.Sequential() + 3,
    lambda lib: lib.nn.Sequential(lib.nn.ReLU()) * 0,
    lambda lib: lib.nn.Sequential(lib.nn.ReLU()) * "a",
    lambda lib: lib.nn.Sequential(lib.nn.ReLU()).insert(5, lib.nn.ReLU()),
    lambda lib: lib.nn.Sequential(lib.nn.ReLU())["a"],
    lambda lib: lib.nn.ModuleList([3]),
    lambda lib: lib.nn.ModuleList().extend(3),
    lambda lib: lib.nn.ModuleList()(3),
    lambda lib: lib.nn.ModuleDict(3),
    lambda lib: lib.nn.ModuleDict([(1, 2, 3)]),
    lambda lib: lib.nn.ModuleDict()["a"],
    lambda lib: lib.nn.ModuleDict().pop("a"),
    lambda lib: lib.nn.ParameterList().extend(3),
    lambda lib: lib.nn.ParameterList()(3),
    lambda lib: lib.nn.ParameterDict()(3),
    lambda lib: lib.nn.ParameterDict().popitem(),
]


@pytest.mark.parametrize("position", range(len(CONTAINER_MISUSES)))
def test_container_misuse_raises_as_in_pytorch(position):
    mine, theirs = (outcome(CONTAINER_MISUSES[position], library) for library in LIBRARIES)
    assert mine[0] == theirs[0] != "gives"


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameter_list(library):
    parameters = library.nn.ParameterList([library.ones(2), "text"])
    parameters.append(library.nn.Parameter(library.zeros(3)))
    parameters += [library.ones(1)]
    parameters[0] = library.ones(2, 2)
    assert [name for name, _ in parameters.named_parameters()] == ["0", "2", "3"]
    assert len(parameters) == 4 and parameters[-1].requires_grad and parameters[1] == "text"
    assert len(parameters[1:3]) == 2
    assert [type(value).__name__ for value in parameters] == ["Parameter", "str", "Parameter", "Parameter"]
    with pytest.raises(IndexError):
        parameters[4]


@pytest.mark.parametrize("library", LIBRARIES)
def test_parameter_dict(library):
    parameters = library.nn.ParameterDict({"a": library.ones(2), "b": 3})
    parameters["c"] = library.nn.Parameter(library.zeros(3))
    assert [name for name, _ in parameters.named_parameters()] == ["a", "c"]
    assert list(parameters) == ["a", "b", "c"] and list(reversed(parameters)) == ["c", "b", "a"]
    assert parameters.get("none") is None and parameters.setdefault("d", 4) == 4
    assert parameters.pop("b") == 3 and "b" not in parameters
    assert (parameters | library.nn.ParameterDict({"e": library.ones(1)})).e.requires_grad
    assert parameters.popitem() == ("d", 4) and len(parameters.copy()) == 2
    parameters.clear()
    assert not len(parameters) and not list(parameters.parameters())


def test_parameter_containers_print_as_in_pytorch():
    both(lambda lib: lib.nn.ParameterList([lib.ones(2, 3), "text", lib.nn.Parameter(lib.ones(1))]))
    both(lambda lib: lib.nn.ParameterDict({"b": 3}))
    both(lambda lib: lib.nn.ParameterDict({"b": 3, "c": "text"}))
    both(lambda lib: lib.nn.ParameterList())
    assert "(a): Parameter containing: [" in repr(torturous.nn.ParameterDict({"a": torturous.ones(2, 3)}))


# Hooks ----------------------------------------------------------------------------------------------------


def pair(library):
    """A module with two inputs, two outputs and a keyword."""

    class Pair(library.nn.Module):
        def forward(self, a, b, *, scale=1.0):
            return a * b * scale, a + b

    return Pair()


@pytest.mark.parametrize("library", LIBRARIES)
def test_forward_hooks_replace_and_are_removed(library):
    module, events = library.nn.Identity(), []
    one = library.ones(1)

    def before(tag, replacement=None):
        return lambda module, args: (events.append(tag), replacement)[1]

    def after(tag):
        return lambda module, args, output: (events.append(tag), output + 1)[1]

    handles = [
        module.register_forward_pre_hook(before("pre 1", one * 5)),
        module.register_forward_pre_hook(before("pre 2"), prepend=True),
        module.register_forward_hook(after("post 1")),
        module.register_forward_hook(after("post 2"), prepend=True),
    ]
    assert module(one).item() == 7 and events == ["pre 2", "pre 1", "post 2", "post 1"]
    handles[0].remove()
    handles[0].remove()
    assert module(one).item() == 3
    with handles[2]:
        pass
    assert module(one).item() == 2
    for handle in handles:
        handle.remove()
    events.clear()
    assert module(one).item() == 1 and not events


@pytest.mark.parametrize("library", LIBRARIES)
def test_hooks_with_keywords(library):
    module = pair(library)
    module.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {**kwargs, "scale": kwargs["scale"] * 2}), with_kwargs=True
    )
    seen = []
    module.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((len(args), kwargs["scale"])), with_kwargs=True
    )
    assert module(library.ones(1), library.ones(1), scale=3.0)[0].item() == 6 and seen == [(2, 6.0)]
    module.register_forward_pre_hook(lambda module, args, kwargs: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="tuple of \\(new_args, new_kwargs\\)"):
        module(library.ones(1), library.ones(1), scale=1.0)


@pytest.mark.parametrize("library", LIBRARIES)
def test_always_called_hooks_run_after_an_error(library):
    module, seen = library.nn.Linear(2, 2), []
    module.register_forward_hook(lambda *args: seen.append("sometimes"))
    module.register_forward_hook(lambda *args: seen.append("always"), always_call=True)
    with pytest.raises(RuntimeError):
        module(library.ones(1, 3))
    assert seen == ["always"]
    module.register_forward_hook(lambda *args: 1 / 0, always_call=True)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(RuntimeError):
        warnings.simplefilter("always")
        module(library.ones(1, 3))
    assert any("silenced" in str(warning.message) for warning in caught)


def backward_run(library, values, watched, replace, hook_kind):
    """Gradients of the two inputs of `pair`, and what the hooks saw."""
    a, b = (
        library.tensor(value, requires_grad=needs) for value, needs in zip(values, watched, strict=True)
    )
    module, seen = pair(library), []

    def note(gradients):
        return [None if g is None else g.detach().numpy().tolist() for g in gradients]

    def full(module, grad_input, grad_output):
        seen.append((note(grad_input), note(grad_output)))
        if replace and any(g is not None for g in grad_input):
            return tuple(None if g is None else g * 3 for g in grad_input)
        return None

    def before(module, grad_output):
        seen.append(note(grad_output))
        return tuple(g * 2 for g in grad_output) if replace else None

    if hook_kind in ("full", "both"):
        module.register_full_backward_hook(full)
    if hook_kind in ("before", "both"):
        module.register_full_backward_pre_hook(before)
    first, second = module(a * 1 if watched[0] else a, b)
    (first.sum() + (second * second).sum()).backward()
    return [None if t.grad is None else t.grad.numpy().tolist() for t in (a, b)], seen


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=2), min_size=2, max_size=2),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    st.booleans(),
    st.sampled_from(["full", "before", "both"]),
)
def test_backward_hooks(values, watched, replace, hook_kind):
    mine = backward_run(torturous, values, watched, replace, hook_kind)
    assert mine == backward_run(torch, values, watched, replace, hook_kind)


@pytest.mark.parametrize("library", LIBRARIES)
def test_backward_hook_where_no_input_needs_a_gradient(library):
    module, seen = library.nn.Linear(2, 1), []
    handle = module.register_full_backward_hook(lambda module, grads, outputs: seen.append((grads, outputs)))
    module(library.ones(1, 2)).sum().backward()
    assert seen[0][0] == (None,) and seen[0][1][0].shape == (1, 1)
    handle.remove()
    module.register_full_backward_hook(lambda module, grads, outputs: (library.ones(1),))
    with pytest.raises(RuntimeError, match="no input requires gradient"):
        module(library.ones(1, 2)).sum().backward()


@pytest.mark.parametrize("library", LIBRARIES)
def test_backward_hook_must_return_as_many_gradients(library):
    module = library.nn.Identity()
    module.register_full_backward_hook(lambda module, grads, outputs: (grads[0], grads[0]))
    with pytest.raises(RuntimeError, match="got 2, but expected 1"):
        module(library.ones(2, requires_grad=True)).sum().backward()


def test_backward_hooks_warn_about_other_outputs():
    class Listing(torturous.nn.Module):
        def forward(self, x):
            return [x]

    module = Listing()
    module.register_full_backward_hook(lambda *args: None)
    with pytest.warns(UserWarning, match="Tensor or a tuple of Tensors"):
        module(torturous.ones(1, requires_grad=True))


# Calls ----------------------------------------------------------------------------------------------------


class Net(torturous.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2 = torturous.nn.Conv2d(1, 2, 3)
        self.blocks = torturous.nn.ModuleList([torturous.nn.Sequential(torturous.nn.Linear(3, 3))])

    def forward(self, x):
        return self.conv2(x) if x.dim() == 4 else self.blocks[0](x)


def text(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def test_errors_name_the_path_of_the_module_once():
    net = Net()
    with pytest.raises(RuntimeError) as caught:
        net(torturous.ones(1, 3, 8, 8))
    assert text(caught.value).count("net.conv2") == 1 and "(Conv2d)" in text(caught.value)
    with pytest.raises(RuntimeError) as caught:
        net(torturous.ones(1, 2))
    assert "net.blocks.0.0 (Linear)" in text(caught.value)
    with pytest.raises(RuntimeError) as caught:
        net.conv2(torturous.ones(1, 3, 8, 8))
    assert "in module conv2d (Conv2d)" in text(caught.value)


def test_a_caught_error_leaves_nothing_behind():
    class Careful(torturous.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            try:
                return self.net(x)
            except RuntimeError:
                raise ValueError("another one") from None

    with pytest.raises(ValueError) as caught:
        Careful()(torturous.ones(1, 2))
    assert text(caught.value) == "another one\nin module careful (Careful)"


def test_outermost_calls_are_announced():
    net, seen = Net(), []
    note = seen.append
    on_outermost_call.append(note)
    try:
        net(torturous.ones(1, 3))
        with pytest.raises(RuntimeError):
            net(torturous.ones(1, 2))
        net.blocks[0](torturous.ones(1, 3))
        # A call in another thread is an outermost one, even inside a call of this one.
        thread_call = threading.Thread(target=lambda: net.conv2(torturous.ones(1, 1, 3, 3)))
        handle = net.register_forward_hook(lambda *args: (thread_call.start(), thread_call.join())[0])
        net(torturous.ones(1, 3))
        handle.remove()
    finally:
        on_outermost_call.remove(note)
    assert seen == [net, net, net.blocks[0], net, net.conv2]


# Members as attributes --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("library", LIBRARIES)
def test_members_are_what_the_tables_hold_now(library):
    nn = library.nn

    class Net(nn.Module):
        def __init__(self, wide):
            super().__init__()
            self.first = nn.Linear(2, 3)
            if wide:
                self.second = nn.Linear(3, 3)
            self.register_buffer("count", library.zeros(1))

    narrow, wide = Net(False), Net(True)
    assert wide.second is wide._modules["second"] and not hasattr(narrow, "second")
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'second'"):
        _ = narrow.second
    assert not hasattr(Net, "second") and not hasattr(Net, "count") and not hasattr(nn.Module, "first")
    # Others may write the tables.
    other = nn.Linear(2, 3)
    narrow._modules["first"] = other
    assert narrow.first is other
    # An attribute of the module's own comes first.
    weight = narrow.first.weight
    del narrow.first._parameters["weight"]
    assert not hasattr(narrow.first, "weight")
    narrow.first.__dict__["weight"] = weight.data
    assert narrow.first.weight is narrow.first.__dict__["weight"]
    assert narrow.first(library.ones(1, 2)).shape == (1, 3)
    del narrow.first
    assert not hasattr(narrow, "first") and wide.first.weight.shape == (3, 2)
    assert copy.copy(wide).second is wide.second and pickle.loads(pickle.dumps(other)).weight.shape == (3, 2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_class_says_of_a_name_comes_before_its_members(library):
    nn = library.nn

    class Doubling(nn.Linear):
        @property
        def weight(self):
            return 2 * self._parameters["weight"]

    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def __getattr__(self, name):
            return "asked" if name == "answer" else super().__getattr__(name)

    plain = nn.Linear(1, 1, bias=False)
    doubling = Doubling.__new__(Doubling)
    nn.Module.__init__(doubling)
    doubling._parameters.update(weight=plain.weight, bias=None)
    assert plain.weight is plain._parameters["weight"]
    assert (doubling(library.ones(1, 1)) == 2 * plain(library.ones(1, 1))).all()
    asking = Asking()
    assert asking.answer == "asked" and isinstance(asking.inner, nn.Linear)
    with pytest.raises(AttributeError, match="no attribute 'question'"):
        _ = asking.question
