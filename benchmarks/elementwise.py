"""What memory limits: activations, softmax, layer norm, cross entropy, an optimizer over many parameters.

    python -m benchmarks elementwise
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side
from benchmarks.suite.workload import Case, Program

ISOLATED = False
BARS = (Bar(better=1.5),)


def gelu(side: Side, elements: int) -> Program:
    """gelu(x·w + b), all of one shape."""
    random = np.random.default_rng(0)
    x, w, b = (side.tensor(random.standard_normal(elements)) for _ in range(3))
    call = side.compile(lambda x, w, b: side.torch.nn.functional.gelu(x * w + b))
    return Program(lambda: call(x, w, b))


def of_rows(side: Side, name: str, shape: tuple[int, int], backward: bool) -> Program:
    """Softmax or layer norm of every row."""
    random = np.random.default_rng(0)
    functional = side.torch.nn.functional
    x = side.tensor(random.standard_normal(shape), requires_grad=backward)
    w, b = (side.tensor(random.standard_normal(shape[1]), requires_grad=backward) for _ in range(2))
    adjoint = side.tensor(random.standard_normal(shape))
    if name == "softmax":
        function, operands = (lambda x: functional.softmax(x, dim=-1)), [x]
    else:
        function, operands = (lambda x, w, b: functional.layer_norm(x, shape[1:], w, b)), [x, w, b]
    return _program(side, function, operands, adjoint if backward else None)


def cross_entropy(side: Side, shape: tuple[int, int], backward: bool) -> Program:
    random = np.random.default_rng(0)
    x = side.tensor(random.standard_normal(shape), requires_grad=backward)
    targets = side.torch.tensor(random.integers(0, shape[1], shape[0]))
    loss = side.torch.nn.functional.cross_entropy
    return _program(side, lambda x: loss(x, targets), [x], side.torch.tensor(1.0) if backward else None)


def _program(side: Side, function: Any, operands: list[Any], adjoint: Any) -> Program:
    call = side.compile(function)
    if adjoint is None:
        return Program(lambda: call(*operands))

    def both() -> list[Any]:
        for each in operands:
            each.grad = None
        call(*operands).backward(adjoint)
        return [each.grad for each in operands]

    return Program(both)


def adam(side: Side, elements: int, tensors: int) -> Program:
    """One step over all parameters, with fixed gradients."""
    random = np.random.default_rng(0)
    parameters = []
    for _ in range(tensors):
        parameter = side.torch.nn.Parameter(side.tensor(random.standard_normal(elements // tensors)))
        parameter.grad = side.tensor(random.standard_normal(elements // tensors))
        parameters.append(parameter)
    optimizer = side.optimizer("Adam", parameters)
    step = side.compile(optimizer.step)

    def call() -> list[Any]:
        step()
        return [parameters[0], parameters[-1]]

    return Program(call)


def cases(tiny: bool) -> list[Case]:
    found = []
    for name, elements in (("512 K", 1 << 19), ("16 M", 1 << 24)) if not tiny else (("tiny", 100),):
        found.append(Case(f"gelu(x·w+b), {name} elements", partial(gelu, elements=elements), bytes=16 * elements,
                          bars=BARS))
    rows, classes = ((4096, 768), (1024, 50257)) if not tiny else ((3, 5), (4, 7))
    # Moved at least: forward the input and the result; backward the adjoint, what was saved and the gradient, too.
    for name in ("softmax", "layer norm"):
        for backward in (False, True):
            found.append(Case(f"{name} {rows}{', forward and backward' * backward}",
                              partial(of_rows, name=name, shape=rows, backward=backward),
                              bytes=4 * rows[0] * rows[1] * (3 if backward else 2), tolerance=5e-5, bars=BARS))
    for backward in (False, True):
        found.append(Case(f"cross entropy {classes}{', forward and backward' * backward}",
                          partial(cross_entropy, shape=classes, backward=backward),
                          bytes=4 * classes[0] * classes[1] * (2 if backward else 1), bars=BARS))
    elements, tensors = (10_000_000, 150) if not tiny else (40, 4)
    found.append(Case(f"Adam step, {elements} parameters in {tensors} tensors",
                      partial(adam, elements=elements, tensors=tensors), bytes=28 * elements, training=True, bars=BARS))
    return found
