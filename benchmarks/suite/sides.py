"""The contestants: which module plays `torch`, and what is compiled."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OURS, EAGER, COMPILED, FUSED, ONNX = "torturous", "eager", "compile", "fused", "onnxruntime"

LABELS = {
    OURS: "torturous", EAGER: "PyTorch eager", COMPILED: "torch.compile", FUSED: "eager, fused=True",
    ONNX: "ONNX Runtime",
}

REPOSITORY = str(Path(__file__).resolve().parents[2])

SAMPLES = 512
"""Elements of each result that are compared."""


class Side:
    """One contestant, as a program sees it: the module, and the few things that differ between contestants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.torch: Any = importlib.import_module("torturous" if name == OURS else "torch")
        self._finish: Callable[[], None] = lambda: None
        if name == OURS:
            self._finish = importlib.import_module("torturous.cpu").synchronize

    def compile(self, function: Any) -> Any:
        """The function, compiled where that is what this side stands for."""
        return self.torch.compile(function) if self.name == COMPILED else function

    def compile_in_both(self, function: Any) -> Any:
        """The function, compiled by either framework's `compile`."""
        return self.torch.compile(function) if self.name in (OURS, COMPILED) else function

    def optimizer(self, name: str, parameters: Any, **options: Any) -> Any:
        if self.name == FUSED:
            options["fused"] = True
        return getattr(self.torch.optim, name)(parameters, **options)

    def finish(self) -> None:
        """Returns when all that was asked for has been computed."""
        self._finish()

    def tensor(self, array: Any, dtype: str = "float32", requires_grad: bool = False) -> Any:
        """An array's values as a tensor; NumPy has no bfloat16 of its own."""
        tensor = self.torch.tensor(np.asarray(array)).to(getattr(self.torch, dtype))
        return tensor.requires_grad_() if requires_grad else tensor


def set_threads(name: str, count: int) -> None:
    importlib.import_module("torturous" if name == OURS else "torch").set_num_threads(count)


def environment(count: int, cache: str) -> dict[str, str]:
    """What a contestant's process needs: one number of threads for all, caches for itself, this repository's code."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [REPOSITORY, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count), "TORTUROUS_NUM_THREADS": str(count),
        "TORTUROUS_CACHE": os.path.join(cache, "torturous"), "TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor"),
        "TRITON_CACHE_DIR": os.path.join(cache, "triton"), "PYTHONWARNINGS": "ignore",
    }


def training_step(side: Side, model: Any, optimizer: Any, loss: Callable[..., Any], batch: Sequence[Any],
                  clip: float | None = None) -> Callable[[], Any]:
    """One step of training: forward and loss compiled as one, the update (with clipping) as another."""
    def update() -> None:
        if clip is not None:
            side.torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    forward, step = side.compile(loss), side.compile(update)

    def call() -> Any:
        optimizer.zero_grad()
        value = forward(*batch)
        value.backward()
        step()
        return value

    return call


def sampled(result: Any) -> Iterator[list[float]]:
    """What is compared of a result: up to SAMPLES elements of each tensor in it, at places drawn from a fixed seed."""
    if isinstance(result, (list, tuple)):
        for each in result:
            yield from sampled(each)
        return
    if hasattr(result, "detach"):
        result = result.detach().double().numpy()
    flat = np.asarray(result, np.float64).ravel()
    if flat.size > SAMPLES:
        flat = flat[np.random.default_rng(flat.size).integers(0, flat.size, SAMPLES)]
    yield flat.tolist()


def apart(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """The largest difference, relative to the largest magnitude of each compared tensor; infinite if shapes differ."""
    if list(map(len, ours)) != list(map(len, theirs)):
        return float("inf")
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        a, b = np.array(mine), np.array(other)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not same.all():
            difference = float(np.max(np.where(same, 0, np.abs(a - b))))
            scale = float(np.max(np.abs(b))) or 1.0
            worst = max(worst, difference / scale) if difference == difference else float("inf")
    return worst
