"""Programs that nobody would think of, against PyTorch in value and against themselves bit for bit.

`TORTUROUS_PROGRAMS` says how many (300 unless set), `TORTUROUS_PROGRAMS_SEED` which.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from compiler.oracle import configured, same_bits
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from programs import machine
from programs.machine import Backend, Run, Step
from programs.training import KINDS, Complete

import torturous
from torturous.core import settings as torturous_settings
from torturous.ir.record import context
from torturous.runtime import specialising
from torturous.runtime.realize import forget_plans, realize

EXAMPLES = int(os.environ.get("TORTUROUS_PROGRAMS", "300"))
SEED = int(os.environ.get("TORTUROUS_PROGRAMS_SEED", "0"))
TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}


def recurrent(library: Any) -> Any:
    """A recurrent layer whose weights are halves and ones, so that what it gives is exact."""
    layer = library.nn.RNN(3, 2, nonlinearity="relu")
    for number, weight in enumerate(layer.parameters()):
        count = weight.numel()
        values = ((np.arange(count) + number) % 3 - 1) * (0.5 if number % 2 else 1.0)
        with library.no_grad():
            weight.copy_(library.tensor(values.reshape(tuple(weight.shape)).astype(np.float32)))
        weight.requires_grad_(False)
    return lambda t: layer(t)[0]


def attend(library: Any) -> Any:
    """Attention that sees 64 keys alike, so that what it gives is exact; its sizes are such as store no weights."""
    queries, values = (
        library.tensor((np.arange(rows * 16) % 7 - 3).astype(np.float32).reshape(rows, 16)) for rows in (24, 64))
    keys = library.zeros(64, 16)

    def call(t: Any) -> Any:
        total = t.float().sum()
        attention = library.nn.functional.scaled_dot_product_attention
        return attention(queries * total, keys, values * total)[:2, :3]

    return call


def tripled(library: Any) -> Any:
    class Tripled(library.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * x * 3

    return Tripled.apply


def backend(library: Any, shares: Callable[[Any, Any], bool], realize: Callable[[], None] = lambda: None) -> Backend:
    return Backend(library, shares, recurrent(library), attend(library), tripled(library), realize)


theirs = backend(torch, lambda x, y: x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr())
ours = backend(torturous, lambda x, y: x.storage is y.storage, realize)
at_once = replace(ours, after_step=realize)

FREQUENT = (
    "new",
    "new",
    "binary",
    "scalar",
    "unary",
    "reduce",
    "view",
    "view",
    "inplace",
    "inplace",
    "backward",
)
step = st.tuples(
    st.sampled_from(FREQUENT + tuple(KINDS)), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7)
)
programs = st.lists(step, min_size=4, max_size=14)


def run_here(program: list[Step], backend: Backend, **configuration: Any) -> Run:
    context.renew()
    context.tracking = True
    with configured(**configuration):
        return Complete(backend).execute(program)


def run_there(program: list[Step]) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Complete(theirs).execute(program)


def near(got: np.ndarray, want: np.ndarray) -> bool:
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if got.dtype.kind != "f":
        return np.array_equal(got, want)
    finite = np.abs(want[np.isfinite(want)])
    tolerance = TOLERANCE[got.dtype.name]
    return np.allclose(got, want, tolerance, tolerance * float(finite.max(initial=1.0)), equal_nan=True)


def compare(label: str, got: Run, want: Run, equal: Any) -> None:
    def fail(what: str) -> None:
        raise AssertionError(f"{label}: {what}\n--- the program:\n{want.text()}\n--- here:\n{got.text()}")

    if got.errors != want.errors:
        fail(f"errors {got.errors} instead of {want.errors}")
    if [name for name, _ in got.seen] != [name for name, _ in want.seen]:
        fail(f"saw {[name for name, _ in got.seen]} instead of {[name for name, _ in want.seen]}")
    for (name, mine), (_, other) in zip(got.seen, want.seen, strict=True):
        if not equal(mine, other):
            fail(f"{name} is {mine.tolist()} ({mine.dtype}) instead of {other.tolist()} ({other.dtype})")


def check(program: Sequence[Step]) -> None:
    program = list(program)
    there = run_there(program)
    fused = run_here(program, ours)
    compare("against PyTorch", fused, there, near)
    compare("unfused against fused", run_here(program, ours, fuse=False), fused, same_bits)
    compare("realized after every step", run_here(program, at_once), fused, same_bits)
    compare("2 threads against 1", run_here(program, ours, pieces=True, threads=2), fused, same_bits)


def many(count: int) -> Any:
    """Settings for so many programs."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=False,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


@seed(SEED)
@many(EXAMPLES)
@given(programs)
def test_random_programs(program: list[Step]) -> None:
    check(program)


@seed(SEED)
@many(max(EXAMPLES // 4, 5))
@given(programs)
def test_random_programs_in_the_air(late_plans: None, program: list[Step]) -> None:
    """Nobody waits for a plan until memory is looked at: same bits."""
    program = list(program)
    late = run_here(program, ours, pieces=True, threads=2)
    compare("in the air", late, run_there(program), near)
    compare("after every step", run_here(program, at_once, pieces=True, threads=2), late, same_bits)


@pytest.fixture
def specialised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torturous_settings.specialise, "value", 1)


@seed(SEED)
@many(max(EXAMPLES // 10, 5))
@given(programs)
def test_random_programs_at_changing_sizes(specialised_at_once: None, program: list[Step]) -> None:
    """With constant sizes, with sizes as symbols, and with plans made in the background for what repeats: same bits."""
    forget_plans()
    constant = run_here(program, ours)
    forget_plans()
    with pytest.MonkeyPatch.context() as patch:
        for threes, twos in ((5, 4), (7, 6)):
            shapes = [tuple({3: threes, 2: twos}.get(size, size) for size in shape) for shape in machine.SHAPES]
            patch.setattr(machine, "SHAPES", shapes)
            run_here(program, ours)
            patch.undo()
    compare("sizes as symbols against constants", run_here(program, ours), constant, same_bits)
    specialising.wait()
    compare("specialised against constants", run_here(program, ours), constant, same_bits)
