"""Convolutions of the shapes that networks have, forward and with all gradients.

    python -m benchmarks conv
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.suite.sides import Side
from benchmarks.suite.workload import Case, Program

ISOLATED = False


@dataclass(frozen=True)
class Layer:
    """A convolution and what goes into it: (samples, channels, *spatial)."""

    name: str
    input: tuple[int, ...]
    channels: int
    kernel: int
    options: dict[str, Any]

    @property
    def spatial(self) -> int:
        return len(self.input) - 2

    @property
    def transposed(self) -> bool:
        return bool(self.options.get("transposed"))

    def weight(self) -> tuple[int, ...]:
        leading = (self.input[1], self.channels) if self.transposed else (
            self.channels, self.input[1] // self.options.get("groups", 1))
        return (*leading, *[self.kernel] * self.spatial)

    def operations(self) -> float:
        stride, padding = self.options.get("stride", 1), self.options.get("padding", 0)
        if self.transposed:
            places = math.prod(self.input[2:])
        else:
            places = math.prod((size + 2 * padding - self.kernel) // stride + 1 for size in self.input[2:])
        return 2.0 * self.input[0] * places * math.prod(self.weight())


LAYERS = (
    Layer("1→10 5×5 on 64×28×28", (64, 1, 28, 28), 10, 5, {}),
    Layer("10→20 5×5 on 64×12×12", (64, 10, 12, 12), 20, 5, {}),
    Layer("64→64 3×3 on 8×56×56", (8, 64, 56, 56), 64, 3, {"padding": 1}),
    Layer("64→64 3×3 stride 2 on 8×56×56", (8, 64, 56, 56), 64, 3, {"padding": 1, "stride": 2}),
    Layer("256→64 1×1 on 8×28×28", (8, 256, 28, 28), 64, 1, {}),
    Layer("64 depth-wise 3×3 on 8×56×56", (8, 64, 56, 56), 64, 3, {"padding": 1, "groups": 64}),
    Layer("16→16 5×5×5 on 1×32×32×32", (1, 16, 32, 32, 32), 16, 5, {"padding": 2}),
    Layer("32→16 transposed 2×2×2 stride 2 on 1×16×16×16", (1, 32, 16, 16, 16), 16, 2,
          {"transposed": True, "stride": 2}),
)
TINY = (Layer("2→3 3×3 on 2×5×5", (2, 2, 5, 5), 3, 3, {"padding": 1}),
        Layer("2→3 transposed 2×2×2 on 1×3×3×3", (1, 2, 3, 3, 3), 3, 2, {"transposed": True, "stride": 2}))


def convolution(side: Side, layer: Layer, backward: bool) -> Program:
    random = np.random.default_rng(0)
    x = side.tensor(random.standard_normal(layer.input), requires_grad=backward)
    fan_in = math.prod(layer.weight()[1:])
    w = side.tensor(random.standard_normal(layer.weight()) / math.sqrt(fan_in), requires_grad=backward)
    b = side.tensor(random.standard_normal(layer.channels), requires_grad=backward)
    options = {name: value for name, value in layer.options.items() if name != "transposed"}
    function = getattr(side.torch.nn.functional, f"conv{'_transpose' * layer.transposed}{layer.spatial}d")
    call = side.compile(lambda x, w, b: function(x, w, b, **options))
    if not backward:
        return Program(lambda: call(x, w, b))
    with side.torch.no_grad():
        adjoint = side.tensor(random.standard_normal(tuple(function(x, w, b, **options).shape)))

    def both() -> list[Any]:
        for each in (x, w, b):
            each.grad = None
        call(x, w, b).backward(adjoint)
        return [x.grad, w.grad, b.grad]

    return Program(both)


def cases(tiny: bool) -> list[Case]:
    # Gradients of the weights sum over samples and pixels: thousands of terms.
    return [
        Case(f"{layer.name}, {'forward and backward' if backward else 'forward'}",
             partial(convolution, layer=layer, backward=backward),
             operations=layer.operations() * (3 if backward else 1), tolerance=5e-5)
        for layer in (TINY if tiny else LAYERS) for backward in (False, True)
    ]
