"""One layer or function here and in PyTorch: state, printed form, output, gradients, their gradients, or the error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import torturous

Make = Callable[[Any], Callable[..., Any]]
"""Gets a library (PyTorch or this one), gives what is to be called."""


def values_of(*shape: int, seed: int = 0, low: float | None = None) -> np.ndarray:
    """Normal numbers in float64; with `low` uniform ones in [low, low + 1)."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal(shape) if low is None else low + generator.random(shape)


def outcome(library: Any, make: Make, inputs: tuple, *, training: bool = True, calls: int = 1, twice: bool = True,
            dtype: str = "float64") -> Any:
    """Everything two libraries can differ in, by name; the error's type and text in its place."""
    library.manual_seed(3)
    kind = getattr(library, dtype)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = make(library)
            module = isinstance(layer, library.nn.Module)
            if module:
                layer.to(kind).train(training)
            tensors = []
            for value in inputs:
                floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
                t = library.tensor(value) if isinstance(value, np.ndarray) else value
                tensors.append(t.to(kind).requires_grad_() if floating else t)
            for _ in range(calls):
                output = layer(*tensors)
            found: dict[str, Any] = {"repr": repr(layer) if module else ""}
            outputs = [o for o in (output if isinstance(output, (tuple, list)) else [output])
                       if isinstance(o, library.Tensor)]
            for number, result in enumerate(outputs):
                found[f"output {number}"] = _array(result)
                found[f"dtype {number}"] = str(result.dtype)
            wanted = [(f"input {number}", t) for number, t in enumerate(tensors)
                      if isinstance(t, library.Tensor) and t.requires_grad]
            if module:
                found.update((f"state {name}", _array(value)) for name, value in layer.state_dict().items())
                wanted += list(layer.named_parameters())
            _differentiate(library, found, outputs, [(n, t) for n, t in wanted if t.requires_grad], twice)
    except Exception as error:
        return type(error), str(error)
    return found


def _differentiate(library: Any, found: dict[str, Any], outputs: list, wanted: list, twice: bool) -> None:
    """Gradients of a fixed combination of the outputs, and of the sum of those gradients' squares."""
    tracked = [result for result in outputs if result.requires_grad]
    if not tracked or not wanted:
        return
    seeds = [library.tensor(values_of(*result.shape, seed=9)).to(result.dtype) for result in tracked]
    names, tensors = zip(*wanted, strict=True)
    firsts = library.autograd.grad(tracked, tensors, seeds, create_graph=twice, allow_unused=True)
    found.update((f"gradient of {name}", _array(g)) for name, g in zip(names, firsts, strict=True))
    again = [g for g in firsts if g is not None and g.requires_grad]
    if not twice or not again:
        return
    total = sum((g * g).sum() for g in again)
    seconds = library.autograd.grad(total, tensors, allow_unused=True)
    found.update((f"second gradient of {name}", _array(g)) for name, g in zip(names, seconds, strict=True))


def _array(t: Any) -> Any:
    if t is None:
        return None
    t = t.detach()
    return (t.float() if "bfloat16" in str(t.dtype) else t).numpy()


def agree(make: Make, *inputs: Any, tolerance: float = 1e-9, **options: Any) -> None:
    """Raises AssertionError unless both libraries do the same; `inputs` are arrays, or what is passed on as it is."""
    mine, theirs = (outcome(library, make, inputs, **options) for library in (torturous, torch))
    if isinstance(theirs, tuple):
        assert isinstance(mine, tuple), f"PyTorch raises {theirs}"
        assert issubclass(mine[0], theirs[0]) or issubclass(theirs[0], mine[0]), (mine, theirs)
        return
    assert not isinstance(mine, tuple), mine
    absent = {name for name in theirs if name not in mine and not name.startswith("second")}
    assert not absent, f"{absent} are in PyTorch's outcome only"
    for name, value in theirs.items():
        ours = mine.get(name)
        if value is None or ours is None:
            # A gradient that is zero everywhere may be missing on either side.
            present = value if ours is None else ours
            assert present is None or ("second" in name and not np.any(present)), f"{name}: {ours}, not {value}"
        elif isinstance(value, str):
            assert ours == value, f"{name}: {ours}, not {value}"
        else:
            assert ours.shape == value.shape, f"{name}: shape {ours.shape}, not {value.shape}"
            np.testing.assert_allclose(ours, value, rtol=tolerance, atol=tolerance, err_msg=name)
