"""`torch.testing.assert_close` and `torch.jit` against PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torturous

NAN = float("nan")
CASES: dict[str, Callable[[Any], tuple[Any, Any, dict[str, Any]]]] = {
    "equal": lambda lib: (lib.ones(3), lib.ones(3), {}),
    "near": lambda lib: (lib.ones(3), lib.ones(3) * (1 + 1e-6), {}),
    "far": lambda lib: (lib.ones(3), lib.ones(3) * 1.01, {}),
    "tolerated": lambda lib: (lib.ones(3), lib.ones(3) * 1.01, {"rtol": 0.1, "atol": 0}),
    "one tolerance": lambda lib: (lib.ones(3), lib.ones(3), {"rtol": 0.1}),
    "shapes": lambda lib: (lib.ones(3), lib.ones(1, 3), {}),
    "dtypes": lambda lib: (lib.ones(3), lib.ones(3).double(), {}),
    "dtypes allowed": lambda lib: (lib.ones(3), lib.ones(3).double(), {"check_dtype": False}),
    "half": lambda lib: (lib.ones(3).half(), lib.ones(3).half() * 1.0005, {}),
    "integers": lambda lib: (lib.tensor([1, 2]), lib.tensor([1, 3]), {}),
    "bool": lambda lib: (lib.tensor([True]), lib.tensor([False]), {}),
    "nan": lambda lib: (lib.tensor([NAN]), lib.tensor([NAN]), {}),
    "nan allowed": lambda lib: (lib.tensor([NAN, 1.0]), lib.tensor([NAN, 1.0]), {"equal_nan": True}),
    "infinite": lambda lib: (lib.tensor([float("inf")]), lib.tensor([float("inf")]), {}),
    "infinite and not": lambda lib: (lib.tensor([float("inf")]), lib.tensor([1.0]), {}),
    "numbers": lambda lib: (1.0, 1.0 + 1e-9, {}),
    "numbers far": lambda lib: (1.0, 1.1, {}),
    "number kinds": lambda lib: (1, 1.0, {}),
    "lists": lambda lib: ([lib.ones(2), 1], [lib.ones(2), 1], {}),
    "lists far": lambda lib: ([lib.ones(2), 1], [lib.ones(2), 2], {}),
    "list lengths": lambda lib: ([1], [1, 2], {}),
    "mappings": lambda lib: ({"a": lib.ones(2)}, {"a": lib.zeros(2)}, {}),
    "mapping keys": lambda lib: ({"a": 1}, {"b": 1}, {}),
    "strides": lambda lib: (lib.ones(2, 3), lib.ones(3, 2).t(), {}),
    "strides checked": lambda lib: (lib.ones(2, 3), lib.ones(3, 2).t(), {"check_stride": True}),
    "message": lambda lib: (1, 2, {"msg": "mine"}),
    "text": lambda lib: ("a", "a", {}),
    "arrays": lambda lib: (np.ones(2), np.ones(2), {}),
    "tensor and number": lambda lib: (lib.ones(()), 1.0, {}),
    "none": lambda lib: (None, None, {}), "nothing": lambda lib: (lib.ones(0), lib.ones(0), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_assert_close(name: str) -> None:
    outcomes = []
    for lib in (torturous, torch):
        actual, expected, named = CASES[name](lib)
        try:
            lib.testing.assert_close(actual, expected, **named)
            outcomes.append(None)
        except Exception as error:
            outcomes.append(type(error))
            text = str(error)
            if name == "message":
                assert text == "mine"
            elif name == "far":
                assert "Mismatched elements: 3 / 3 (100.0%)" in text and "not close" in text
    assert outcomes[0] == outcomes[1]


def test_scripts_are_what_they_were() -> None:
    for lib in (torturous, torch):
        assert not lib.jit.is_scripting() and not lib.jit.is_tracing()

    @torturous.jit.script
    def double(x: Any) -> Any:
        return x * 2 if not torturous.jit.is_scripting() else x

    assert double(torturous.ones(2)).tolist() == [2, 2]
    model = torturous.nn.Linear(2, 3)
    assert torturous.jit.script(model) is model
    assert torturous.jit.ignore(double) is double and torturous.jit.ignore(drop=True)(double) is double
    assert torturous.jit.unused(double) is double and torturous.jit.export(double) is double
    with pytest.raises(NotImplementedError, match="native"):
        torturous.jit.trace(model, torturous.ones(2))
