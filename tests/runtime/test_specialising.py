"""Sizes that repeat get plans of their own: the same bits, nobody waits, and nothing is lost where it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from compiler.oracle import same_bits

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
from benchmarks.models.net import make_net
from torturous.core import settings
from torturous.runtime import build, realize, specialising
from torturous.runtime.specialising import MOST
from torturous.runtime.watching import PlanMade, PlanRun, watching


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After three runs."""
    monkeypatch.setattr(settings.specialise, "value", 3)
    realize.forget_plans()
    yield
    specialising.wait()


def specialised() -> int:
    return realize.statistics.plans_specialised


def values(seed: int, *shape: int) -> Any:
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def net(size: int) -> np.ndarray:
    torch.manual_seed(1)
    model = make_net(torch).eval()
    with torch.no_grad():
        return model(values(0, size, 1, 28, 28)).numpy()


def training(size: int) -> np.ndarray:
    torch.manual_seed(1)
    convolution = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU()
    model = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(108, 5), nn.Dropout())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = values(0, size, 1, 8, 8), torch.arange(size) % 5
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    return np.concatenate([loss.detach().numpy().reshape(1), *(p.detach().numpy().ravel() for p in model.parameters())])


def recurrent(size: int) -> np.ndarray:
    torch.manual_seed(1)
    layer = nn.LSTM(3, 4)
    out, _ = layer(values(0, size, 2, 3))
    out.square().sum().backward()
    return np.concatenate([out.detach().numpy().ravel(), *(p.grad.numpy().ravel() for p in layer.parameters())])


def gathered(size: int) -> np.ndarray:
    x = values(0, size, 7)
    values_, places = (x @ x.T).sort(1)
    return (values_.softmax(1).gather(1, places) + F.one_hot(places[0], size)).cumsum(0).numpy()


def decomposed(size: int) -> np.ndarray:
    """With a host operation in the middle."""
    x = values(0, size, size)
    return ((x @ x.T + torch.eye(size) * size).inverse() * 2).numpy()


@pytest.mark.parametrize("program", [net, training, recurrent, gathered, decomposed])
def test_the_same_bits_before_and_after(program: Any) -> None:
    constant = program(18)
    realize.forget_plans()
    program(7), program(5)  # From now on sizes are symbols.
    before, made = specialised(), realize.statistics.plans_made
    symbolic = [program(18) for _ in range(4)]
    specialising.wait()
    assert specialised() > before
    runs: list[Any] = []
    with watching(runs.append):
        after = program(18)
    assert not any(run.bound.loaded.plan.sizes.variables for run in runs if isinstance(run, PlanRun))
    assert realize.statistics.plans_made == made, "plans made in the background count for themselves"
    for result in (*symbolic, after):
        assert same_bits(result, constant)


def rows(count: int) -> np.ndarray:
    x = values(count, count, 5)
    return ((x @ x.T).relu().sum(0) * 3 - 0.5).numpy()


def specialise(*counts: int) -> None:
    for count in counts:
        for _ in range(40):
            rows(count)
        specialising.wait()


def served(count: int) -> bool:
    """Whether a size has a plan of its own."""
    runs: list[Any] = []
    with watching(runs.append):
        rows(count)
    return not any(run.bound.loaded.plan.sizes.variables for run in runs if isinstance(run, PlanRun))


def test_plans_of_a_structure_are_few() -> None:
    rows(3), rows(4)
    counts = range(20, 20 + MOST + 2)
    want = [rows(count) for count in counts]
    specialise(*counts)
    assert [served(count) for count in counts] == [False] * 2 + [True] * MOST
    assert all(same_bits(rows(count), before) for count, before in zip(counts, want, strict=True))


def test_those_who_watch_are_told() -> None:
    events: list[Any] = []
    with watching(events.append):
        rows(3), rows(4)
        specialise(6)
    made = [event for event in events if isinstance(event, PlanMade)]
    assert [event.background for event in made] == [False, False, True]


def test_nothing_is_made_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.specialise, "value", 0)
    rows(3), rows(4)
    before = specialised()
    specialise(6)
    assert specialised() == before and not served(6)


def test_errors_name_the_line_of_the_program() -> None:
    def take(count: int, last: int) -> Any:
        index = torch.arange(count) + last - (count - 1)
        return values(0, count, 3)[index]  # here

    take(4, 3).numpy(), take(5, 4).numpy()
    for _ in range(4):
        take(9, 8).numpy()
    specialising.wait()
    with pytest.raises(IndexError, match=r"test_specialising\.py:\d+ in take"):
        take(9, 9).numpy()


def test_a_failure_changes_nothing(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.debug, "value", 1)
    rows(3), rows(4)
    monkeypatch.setattr(specialising, "write_wanted", lambda wanted: (b"nonsense", []))
    before, want = specialised(), rows(6)
    specialise(6)
    assert specialised() == before and same_bits(rows(6), want)
    assert "could not specialise a plan" in capfd.readouterr().err
    monkeypatch.undo()
    settings.specialise.value = 3
    specialise(7)
    assert served(7)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_the_other_process_may_be_killed() -> None:
    rows(3), rows(4)
    specialise(6)
    companion = specialising._background.companion
    assert companion is not None
    os.kill(companion._process.pid, signal.SIGKILL)
    specialise(7)
    assert not served(7)
    specialise(8)
    assert served(8)


PROGRAM = """
import os, sys
import numpy as np
import torturous as torch
from torturous.runtime import realize, specialising
def rows(count):
    x = torch.ones(count, 5)
    return ((x @ x.T).relu().sum(0) * 3 - 0.5).numpy()
rows(3), rows(4)
"""


def run(text: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", PROGRAM + text], capture_output=True, text=True, timeout=60)


def test_a_program_ends_while_a_plan_is_made() -> None:
    ended = run("for _ in range(9): rows(6)\nprint('done')")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own() -> None:
    ended = run("""
for _ in range(9): rows(6)
child = os.fork()
for _ in range(9): rows(7)
specialising.wait()
print(realize.statistics.plans_specialised - (child == 0), flush=True)
if child == 0: os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")
    assert ended.returncode == 0 and ended.stderr == ""
    assert ended.stdout in ("0\n2\n", "2\n0\n", "1\n2\n", "2\n1\n")


def test_kernels_made_in_the_background_are_not_counted() -> None:
    rows(3), rows(4)
    rows(6)
    before = build.statistics.kernels_compiled, build.statistics.cache_hits
    specialise(6)
    assert (build.statistics.kernels_compiled, build.statistics.cache_hits) == before
