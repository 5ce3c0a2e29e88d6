"""What a workload is: cases, each a program written once for whatever module is called `torch`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.suite.bars import Bar

WORKLOADS = (
    "gemm", "conv", "elementwise", "mnist", "mlp", "resnet18", "gpt", "lstm", "vnet", "dispatch", "shapes",
)


@dataclass
class Program:
    """A case that has been set up."""

    call: Callable[[], Any]
    """What is timed. It gives what contestants must agree on: a tensor, a number, or a sequence of them."""
    model: Any = None
    """For inference: what ONNX Runtime is to run as well, and on what."""
    inputs: Sequence[Any] = ()


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    name: str
    build: Callable[[Any], Program]
    """Sets the program up for a side (`benchmarks.suite.sides.Side`)."""
    operations: float = 0
    """Floating-point operations a call, where they are known; of models PyTorch counts them."""
    bytes: float = 0
    """Bytes that a call must move from and to memory, where memory is what limits it."""
    tolerance: float = 1e-5
    """How far results may be apart, relative to the largest magnitude among them."""
    training: bool = False
    """Whether an optimizer takes part: PyTorch then also runs with `fused=True`."""
    inference: bool = False
    """Whether ONNX Runtime can run it (`--vs onnxruntime`)."""
    random: bool = False
    """Whether random numbers take part, of which torch.compile draws others than PyTorch eager."""
    passes: bool = False
    """Whether the first call and the second are what matters, each time in a fresh process."""
    bars: tuple[Bar, ...] = ()
    """What it is to reach, if anything; of the first call and the second, where these are what matters."""


@dataclass(frozen=True)
class Workload:
    """Cases that belong together. Cases of an isolated workload have processes of their own, so that memory and
    first steps are theirs alone."""

    name: str
    about: str
    cases: list[Case] = field(default_factory=list)
    isolated: bool = True


def workload(name: str, tiny: bool = False) -> Workload:
    """A workload by name, in full or with tiny sizes (to test that it runs)."""
    module = importlib.import_module(f"benchmarks.{name}")
    about = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".:")
    return Workload(name, about, module.cases(tiny), getattr(module, "ISOLATED", True))
