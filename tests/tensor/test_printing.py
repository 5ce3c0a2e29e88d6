"""`repr` against PyTorch's, character by character."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensor.against_torch import DTYPES, Pair, sample

import torturous

SHAPES = [
    (),
    (1,),
    (3,),
    (2, 3),
    (2, 1, 3),
    (0,),
    (2, 0),
    (25,),
    (3, 30),
    (1001,),
    (40, 40),
    (7, 7, 30),
    (2, 2, 2, 2),
]


@pytest.fixture(autouse=True)
def default_options():
    yield
    for library in (torturous, torch):
        library.set_printoptions(profile="default")


def same(array: np.ndarray, dtype: str, **options: Any) -> None:
    x = Pair(array, dtype, **options)
    assert repr(x.mine) == repr(x.theirs)
    assert str(x.mine) == str(x.theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dtypes_and_shapes(dtype, shape):
    same(sample(shape, dtype), dtype)


NUMBERS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 3.14159, 100.0, 1e-5, 1e-4, 9.9e-5, 1e5, 12345.678, 1e8, 1.1e8, 1e20, -1e-20,
     float("inf"), float("-inf"), float("nan"), 999.0, 1000.0, 1001.0, 0.00049])


@settings(max_examples=150)
@given(arrays(np.float64, st.sampled_from([(), (1,), (4,), (2, 3), (12,)]), elements=NUMBERS),
       st.sampled_from(["float32", "float64", "float16", "bfloat16"]))
def test_floats(array, dtype):
    same(array, dtype)


@settings(max_examples=50)
@given(
    arrays(np.int64, st.sampled_from([(), (3,), (2, 3), (30,)]), elements=st.integers(-(2**63), 2**63 - 1))
)
def test_integers(array):
    same(array, "int64")


OPTIONS = st.fixed_dictionaries({}, optional={
    "precision": st.integers(0, 8), "threshold": st.integers(0, 30), "edgeitems": st.integers(1, 4),
    "linewidth": st.integers(20, 120), "sci_mode": st.sampled_from([True, False, None]),
    "profile": st.sampled_from(["default", "short", "full"])})


@settings(max_examples=80)
@given(
    OPTIONS,
    st.sampled_from(["float32", "int64", "bool", "float64"]),
    st.sampled_from([(9,), (40,), (5, 12), (3, 9, 9)]),
)
def test_options(options, dtype, shape):
    for library in (torturous, torch):
        library.set_printoptions(profile="default")
        library.set_printoptions(**options)
    same(sample(shape, dtype) * (1 if dtype in ("int64", "bool") else 1.37), dtype)


def test_gradients_are_said():
    x = Pair(np.ones((2, 3)), "float32", requires_grad=True)
    assert repr(x.mine) == repr(x.theirs)
    assert repr(x.mine * 2) == repr(x.theirs * 2)
    assert repr(x.mine.exp()) == repr(x.theirs.exp())
    same(np.ones((4, 8)) * 1e-3, "float64", requires_grad=True)
    same(np.ones((0, 8)), "float64", requires_grad=True)


def test_views_and_wrapped_suffixes():
    same(sample((6, 8), "float32"), "float32", view=lambda t: t.transpose(0, 1)[::2])
    for length in range(9, 14):  # Somewhere here the dtype moves to a line of its own.
        same(np.ones(length), "float64")


def test_unknown_profile():
    with pytest.raises(ValueError, match="profile"):
        torturous.set_printoptions(profile="verbose")
    with torturous.printoptions(precision=1):
        assert repr(torturous.tensor(0.25)) == "tensor(0.2)"
    assert repr(torturous.tensor(0.25)) == "tensor(0.2500)"
