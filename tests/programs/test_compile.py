"""`torturous.compile`: the same results as without it, whatever changes between calls; and calls that are left out."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import torturous
from torturous import nn
from torturous.core import settings
from torturous.core.errors import UnsupportedError
from torturous.ir.record import context
from torturous.nn import functional as F
from torturous.runtime.realize import realize

SCALE = 2.0
LISTED = [1.0, 2.0]
LOG: list[float] = []
COUNT = 0


@pytest.fixture(autouse=True)
def _fresh() -> None:
    context.renew()
    torturous.manual_seed(0)


def inside(function: Any) -> Any:
    """The `Compiled` of what `compile` gave, which counts the calls it left out."""
    if isinstance(function, nn.Module):
        return function._compiled
    return next(cell.cell_contents for cell in function.__closure__ if hasattr(cell.cell_contents, "repeated"))


def bits(value: Any) -> Any:
    if isinstance(value, torturous.Tensor):
        array = value.detach().numpy()
        return value.dtype, tuple(value.shape), value.requires_grad, array.tobytes()
    if isinstance(value, (tuple, list)):
        return type(value), [bits(each) for each in value]
    if isinstance(value, dict):
        return {name: bits(each) for name, each in value.items()}
    return value


def agree(function: Callable[..., Any], calls: list[Callable[[], tuple[Any, ...]]], repeated: int | None = None) -> Any:
    """Makes calls with and without `compile`, in two runs of the same program; says how many were left out."""
    runs = []
    compiled = torturous.compile(function)
    for call in (function, compiled):
        context.renew()
        torturous.manual_seed(0)
        results = []
        for arguments in calls:
            results.append(bits(call(*arguments())))
            realize()
        runs.append(results)
    assert runs[0] == runs[1]
    if repeated is not None:
        assert inside(compiled).repeated == repeated
    return inside(compiled)


def numbers(*shape: int, seed: int = 0, dtype: Any = None) -> Any:
    return torturous.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), dtype=dtype)


def polynomial(x: Any, w: Any) -> Any:
    y = x
    for number in range(6):
        y = y * w if number & 1 else y + w
    return y


# Calls that are left out --------------------------------------------------------------------------------------------
def test_equal_calls_are_left_out() -> None:
    w = numbers(3, 4, seed=9)
    agree(polynomial, [lambda seed=seed: (numbers(3, 4, seed=seed), w) for seed in range(8)], repeated=5)


def test_gradients() -> None:
    def steps(function: Any) -> list[Any]:
        context.renew()
        x, w = numbers(3, 4).requires_grad_(), numbers(3, 4, seed=1).requires_grad_()
        found = []
        for _ in range(7):
            x.grad = w.grad = None
            function(x, w).sum().backward()
            found += [bits(x.grad), bits(w.grad)]
            with torturous.no_grad():
                w -= 0.1 * w.grad
        return found

    compiled = torturous.compile(polynomial)
    assert steps(polynomial) == steps(compiled)
    assert inside(compiled).repeated >= 3


def test_second_derivatives_and_freed_graphs() -> None:
    compiled = torturous.compile(lambda x: (x.sin() * x).sum())
    for _ in range(6):
        x = numbers(5).requires_grad_()
        y = compiled(x)
        (g,) = torturous.autograd.grad(y, x, create_graph=True)
        (h,) = torturous.autograd.grad(g.sum(), x)
        assert torturous.allclose(h, 2 * x.cos() - x * x.sin(), atol=1e-5)
        with pytest.raises(RuntimeError, match="a second time"):
            y.backward()
    assert inside(compiled).repeated == 3


def test_calls_that_feed_each_other() -> None:
    def run(function: Any) -> Any:
        context.renew()
        y, w = numbers(4), numbers(4, seed=1)
        for _ in range(40):
            y = function(y, w)
        return bits(y)

    compiled = torturous.compile(lambda y, w: (y * w).tanh() + w)
    for _ in range(3):
        assert run(inside(compiled).function) == run(compiled)
    assert inside(compiled).repeated >= 30


@pytest.mark.parametrize("result", [
    lambda x, y: (x, y),
    lambda x, y: [y, {"a": y, "b": (x, None, 3, "text")}],
    lambda x, y: (y, y.view(-1), y.t()[1:], y),
    lambda x, y: x.view(-1),
    lambda x, y: x,
    lambda x, y: y.relu_(),
    lambda x, y: (y.shape, y.dtype),
    lambda x, y: {},
])
def test_results(result: Callable[[Any, Any], Any]) -> None:
    found = agree(lambda x: result(x, x * 2 + 1), [lambda seed=seed: (numbers(3, 4, seed=seed),) for seed in range(6)])
    assert found.repeated == 3


def test_results_share_memory_as_they_do_without() -> None:
    compiled = torturous.compile(lambda x: (x, x.view(-1), x * 2, (x * 3).view(-1)))
    for _ in range(6):
        x = numbers(2, 2)
        same, flat, double, triple = compiled(x)
        assert same is x
        flat[0] = 7.0
        assert x[0, 0].item() == 7.0
        double.view(-1)[1] = 5.0
        assert double[0, 1].item() == 5.0
        assert triple._base is not None if hasattr(triple, "_base") else True
    assert inside(compiled).repeated == 3


def test_kinds_of_arguments() -> None:
    def function(x: Any, power: float = 2.0, *, flip: bool = False, options: Any = None) -> Any:
        y = x * power
        return -y if flip else y + (options or {"add": 0})["add"]

    calls: list[Any] = []
    compiled = torturous.compile(function)
    for _ in range(5):
        for shape in ((3,), (2, 3), (0, 2), ()):
            for seed in (0, 1):
                calls.append(lambda shape=shape, seed=seed: ((numbers(*shape, seed=seed),), {}))
        calls.append(lambda: ((numbers(2, 3).t(),), {}))
        calls.append(lambda: ((numbers(2, 3)[:, 1:],), {"flip": True}))
        calls.append(lambda: ((numbers(2, 3).double(), 3), {}))
        calls.append(lambda: ((torturous.arange(4), 3), {"options": {"add": 1}}))
        calls.append(lambda: ((torturous.arange(4), 3.0), {"options": {"add": 1.5}}))
    for call in calls:
        arguments, named = call()
        assert bits(compiled(*arguments, **named)) == bits(function(*arguments, **named))
    assert inside(compiled).repeated > len(calls) // 3


def test_modes_and_flags() -> None:
    compiled = torturous.compile(lambda x: x * 2)
    x = numbers(3)
    for _ in range(5):
        for wanted in (False, True):
            x.requires_grad_(wanted)
            assert compiled(x).requires_grad is wanted
            with torturous.no_grad():
                assert not compiled(x).requires_grad
            with torturous.inference_mode():
                assert not compiled(x).requires_grad


# Modules ------------------------------------------------------------------------------------------------------------
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)
        self.scale = 1.0
        self.options = SimpleNamespace(shift=0.0, factors=[1.0, 2.0])

    def forward(self, x: Any) -> Any:
        x = F.dropout(self.norm(self.first(x)).relu(), 0.3, training=self.training)
        return self.last(x) * self.scale + self.options.shift + self.options.factors[1]


def training(wrap: Callable[[Any], Any], change: Callable[[Any, int], None] = lambda net, step: None) -> list[Any]:
    """Ten steps of a program, in which `change` does something between them."""
    context.renew()
    torturous.manual_seed(3)
    net = Net()
    call = wrap(net)
    optimizer = torturous.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    found = []
    for step in range(12):
        change(net, step)
        optimizer.zero_grad()
        out = call(numbers(5, 6, seed=step))
        loss = F.cross_entropy(out, torturous.tensor([0, 1, 2, 0, 1]))
        loss.backward()
        optimizer.step()
        found.append(bits(loss))
        found.append(bits(torturous.rand(2)))
    return found + [bits(value) for value in net.state_dict().values()]


CHANGES: list[Callable[[Any, int], None]] = [
    lambda net, step: None,
    lambda net, step: net.train(step % 4 < 2),
    lambda net, step: setattr(net, "scale", 1.0 + (step > 6)),
    lambda net, step: setattr(net.options, "shift", float(step > 7)),
    lambda net, step: net.options.factors.__setitem__(1, 1.0 + step // 6),
    lambda net, step: [net.first.weight.data.mul_(0.5)] if step == 7 else None,
    lambda net, step: setattr(net.first.weight, "data", net.first.weight.data * 2) if step == 7 else None,
    lambda net, step: setattr(net, "last", nn.Linear(8, 3)) if step == 7 else None,
    lambda net, step: setattr(net.last, "bias", nn.Parameter(torturous.ones(3))) if step == 7 else None,
    lambda net, step: net.load_state_dict(net.state_dict()) and None,
    lambda net, step: net.first.requires_grad_(step < 7) and None,
    lambda net, step: net.last.register_forward_hook(lambda *given: given[2] * 2) and None if step == 7 else None,
    lambda net, step: torturous.manual_seed(step) and None,
    lambda net, step: setattr(net.norm, "momentum", 0.1 if step < 7 else 0.5),
]


@pytest.mark.parametrize("change", CHANGES)
def test_training_is_the_same(change: Callable[[Any, int], None]) -> None:
    kept = []

    def wrap(net: Any) -> Any:
        kept.append(torturous.compile(net))
        return kept[0]

    assert training(wrap, change) == training(lambda net: net, change)
    if change is CHANGES[0]:
        assert inside(kept[0]).repeated >= 6


def test_class_attributes() -> None:
    class Scaled(nn.Module):
        factor = 2.0

        def forward(self, x: Any) -> Any:
            return x * self.factor

    compiled = torturous.compile(Scaled())
    for step in range(12):
        Scaled.factor = 2.0 + step // 6
        assert compiled(torturous.ones(1)).item() == Scaled.factor
    assert inside(compiled).repeated == 6


def test_an_optimized_module_is_the_module() -> None:
    net = Net()
    compiled = torturous.compile(net)
    assert isinstance(compiled, nn.Module) and compiled._orig_mod is net
    assert list(compiled.state_dict()) == ["_orig_mod." + name for name in net.state_dict()]
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in net.parameters()]
    assert compiled.scale == 1.0 and compiled.first is net.first
    compiled.scale = 3.0
    assert net.scale == 3.0
    compiled.eval()
    assert not net.training and not compiled.training and not net.norm.training
    net.train()
    assert compiled.training
    with pytest.raises(AttributeError, match="nothing"):
        compiled.nothing  # noqa: B018


# What is read besides arguments ---------------------------------------------------------------------------------
def test_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torturous.compile(lambda x: x * SCALE + LISTED[0])
    for step in range(15):
        monkeypatch.setitem(globals(), "SCALE", 2.0 + step // 5)
        LISTED[0] = float(step // 8)
        assert compiled(torturous.ones(1)).item() == SCALE + LISTED[0]
    assert inside(compiled).repeated > 2


def test_closures() -> None:
    factor = 2.0
    table = {"shift": torturous.ones(1)}

    def function(x: Any) -> Any:
        return x * factor + table["shift"]

    compiled = torturous.compile(function)
    for step in range(15):
        factor = 2.0 + step // 5
        if step == 7:
            table["shift"] = torturous.full((1,), 5.0)
        if step == 11:
            table["shift"].add_(1)
        assert compiled(torturous.ones(1)).item() == factor + table["shift"].item()
    assert inside(compiled).repeated > 2


def test_a_captured_tensor_is_read_anew() -> None:
    w = torturous.ones(2)
    compiled = torturous.compile(lambda x: x * w)
    for step in range(8):
        w.fill_(step)
        assert compiled(torturous.ones(2)).tolist() == [step, step]
    assert inside(compiled).repeated == 5


# Calls that have to be made -----------------------------------------------------------------------------------------
def test_control_flow_on_data() -> None:
    def function(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x - 1

    agree(function, [lambda seed=seed: (numbers(3, seed=seed),) for seed in range(9)], repeated=0)
    agree(lambda x: x + x.max().item(), [lambda seed=seed: (numbers(3, seed=seed),) for seed in range(9)], repeated=0)
    # Values that are there already can be looked at without computing anything.
    agree(lambda x: x * 2 if x[0].item() > 0 else x, [lambda s=s: (numbers(3, seed=s),) for s in range(9)], 0)
    agree(lambda x: x * 2 if float(x.numpy()[0]) > 0 else x, [lambda s=s: (numbers(3, seed=s),) for s in range(9)], 0)


def test_side_effects_happen_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * self.calls

    def appends(x: Any) -> Any:
        seen.append(x.shape)
        return x * 2

    def counts(x: Any) -> Any:
        global COUNT
        COUNT += 1
        return x * COUNT

    def logs(x: Any) -> Any:
        LOG.append(1.0)
        return x * len(LOG)

    def prints(x: Any) -> Any:
        print("called")
        return x * 2

    module = torturous.compile(Counting())
    functions = [torturous.compile(each) for each in (appends, counts, logs, prints)]
    for step in range(1, 8):
        assert module(torturous.ones(1)).item() == step
        assert [function(torturous.ones(1)).item() for function in functions] == [2, step, step, 2]
    assert len(seen) == 7 and capsys.readouterr().out.count("called") == 7


def test_the_outside_world_is_asked_each_time() -> None:
    generator = np.random.default_rng(0)
    functions = [lambda x: x * random.random(), lambda x: x * time.perf_counter(), lambda x: x * np.random.rand(),
                 lambda x: x * generator.random(), lambda x: x + torturous.tensor(np.random.rand(1))]
    for function in functions:
        compiled = torturous.compile(function)
        assert len({compiled(torturous.ones(1).double()).item() for _ in range(8)}) == 8


def test_writes_in_place() -> None:
    def run(function: Any) -> Any:
        context.renew()
        x, total = numbers(4), torturous.zeros(4)
        found = []
        for _ in range(8):
            function(x, total)
            found.append((bits(x), bits(total)))
        return found

    def adds(x: Any, total: Any) -> Any:
        total += x
        x.mul_(0.5)

    def views(x: Any, total: Any) -> Any:
        total.view(2, 2)[0] += x[:2]
        x[1:] = 3.0

    for function, repeated in ((adds, 5), (views, 0)):
        compiled = torturous.compile(function)
        assert run(function) == run(compiled)
        assert inside(compiled).repeated == repeated


def test_backward_hooks_and_functions() -> None:
    class Double(torturous.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * x

    seen: list[Any] = []

    def hooked(x: Any) -> Any:
        y = x * 2
        y.register_hook(lambda g: seen.append(g.sum().item()))
        return y

    def whole(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 1

    for function in (Double.apply, hooked, whole):
        compiled = torturous.compile(function)
        for step in range(1, 8):
            x = torturous.full((2,), float(step), requires_grad=True)
            y = compiled(x)
            if function is not whole:
                y.sum().backward()
            assert x.grad.tolist() == [{Double.apply: step, hooked: 2, whole: 2 * step}[function]] * 2
    assert seen == [2.0] * 7


def test_positions_are_checked_each_time() -> None:
    table = nn.Embedding(5, 3)
    compiled = torturous.compile(lambda i: table(i) + table.weight[i])
    loss = torturous.compile(lambda x, y: F.cross_entropy(x, y))
    for _ in range(6):
        assert compiled(torturous.tensor([0, 4])).shape == (2, 3)
        loss(numbers(2, 3), torturous.tensor([0, 2])).item()
    assert inside(compiled).repeated == 3 and inside(loss).repeated == 3
    for _ in range(2):
        with pytest.raises(IndexError):
            compiled(torturous.tensor([0, 5]))
        with pytest.raises(IndexError, match="out of bounds"):
            loss(numbers(2, 3), torturous.tensor([0, 3]))
    assert bits(compiled(torturous.tensor([1, 2]))) == bits(table(torturous.tensor([1, 2])) * 2)


def test_errors_pass_through() -> None:
    compiled = torturous.compile(lambda x, y: x @ y)
    for step in range(8):
        if step % 2:
            assert compiled(numbers(2, 3), numbers(3, 2)).shape == (2, 2)
        else:
            with pytest.raises(RuntimeError, match="cannot be multiplied"):
                compiled(numbers(2, 3), numbers(2, 3))


def test_memory_shared_with_numpy() -> None:
    array = np.ones(4, np.float32)
    shared = torturous.from_numpy(array)
    large = torturous.from_numpy(np.ones(100_000, np.float32))
    compiled = torturous.compile(lambda x: x * 2 + 1)
    for step in range(6):
        array[0] = step
        y = compiled(shared)
        array[0] = -1
        assert y[0].item() == 2 * step + 1
        assert compiled(large)[0].item() == 3


def test_unknown_objects_make_calls_necessary() -> None:
    class Slotted:
        __slots__ = ("factor",)

    class Table(dict):  # type: ignore[type-arg]
        pass

    slotted, table, array = Slotted(), Table(a=1.0), np.ones(1)
    slotted.factor = 1.0
    functions = [lambda x: x * slotted.factor, lambda x: x * table["a"], lambda x: x * float(array[0])]
    for function in functions:
        compiled = torturous.compile(function)
        for step in range(8):
            slotted.factor = table["a"] = array[0] = float(step)
            assert compiled(torturous.ones(1)).item() == step


# Options and surroundings -------------------------------------------------------------------------------------------
def test_fullgraph_says_why() -> None:
    with pytest.raises(UnsupportedError, match="value of a tensor"):
        compiled = torturous.compile(lambda x: x * x.sum().item(), fullgraph=True)
        for _ in range(3):
            compiled(torturous.ones(2))
    with pytest.raises(UnsupportedError, match="print"):
        torturous.compile(lambda x: print(x.shape), fullgraph=True)(torturous.ones(2))
    compiled = torturous.compile(polynomial, fullgraph=True)
    for _ in range(4):
        compiled(numbers(2), numbers(2))


def test_options() -> None:
    def double(x: Any) -> Any:
        """Twice x."""
        return x * 2

    assert torturous.compile(double, disable=True) is double
    assert torturous.compile(double).__doc__ == "Twice x."
    decorated = torturous.compile(dynamic=True, mode="max-autotune")(double)
    assert decorated(torturous.ones(2)).tolist() == [2, 2]
    with pytest.raises(NotImplementedError, match="backend"):
        torturous.compile(double, backend=lambda graph, inputs: graph)
    with pytest.raises(NotImplementedError, match="options"):
        torturous.compile(double, options={"triton.cudagraphs": True})
    with pytest.raises(RuntimeError, match="mode or options"):
        torturous.compile(double, mode="default", options={})
    with pytest.raises(RuntimeError, match="Unrecognized mode"):
        torturous.compile(double, mode="fastest")
    with pytest.raises(RuntimeError, match="Invalid backend"):
        torturous.compile(double, backend="nothing")
    with pytest.raises(AssertionError):
        torturous.compile(3)  # type: ignore[arg-type]


def test_threads_and_nesting() -> None:
    inner = torturous.compile(lambda x: x * 2)
    outer = torturous.compile(lambda x: inner(x) + 1)
    found: list[Any] = []

    def work(seed: int) -> None:
        for step in range(20):
            x = numbers(3, seed=seed * 100 + step)
            found.append(bool((outer(x) == x * 2 + 1).all()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 60


def test_rows_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.row_limit, "value", 20)
    context.renew()
    compiled = torturous.compile(polynomial)
    y, w = numbers(4), torturous.ones(4)
    for _ in range(300):
        y = compiled(y, w) * 0.1
        assert len(context.record) < 400
    assert np.isfinite(y.numpy()).all()
    assert inside(compiled).repeated > 100
