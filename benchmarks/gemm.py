"""Matrix products: squares in three layouts, skinny shapes, a batch; three dtypes.

    python -m benchmarks gemm
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from benchmarks.suite.bars import Bar
from benchmarks.suite.sides import Side
from benchmarks.suite.workload import Case, Program

ISOLATED = False
SQUARES = (64, 128, 256, 512, 1024, 2048)
SKINNY = ((64, 320, 50), (64, 784, 128), (512, 3072, 768))
BATCHED = (48, 256, 64, 256)
LAYOUTS = ("NN", "NT", "TN")
TOLERANCES = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 1e-2}


def product(side: Side, shape: tuple[int, ...], layout: str, dtype: str) -> Program:
    """(…, M, K) @ (…, K, N); T: the operand lies transposed in memory."""
    *batch, m, k, n = shape
    random = np.random.default_rng(0)
    a = side.tensor(random.standard_normal((*batch, m, k) if layout[0] == "N" else (*batch, k, m)), dtype)
    b = side.tensor(random.standard_normal((*batch, k, n) if layout[1] == "N" else (*batch, n, k)), dtype)

    def multiply(a, b):
        return (a if layout[0] == "N" else a.mT) @ (b if layout[1] == "N" else b.mT)

    call = side.compile(multiply)
    return Program(lambda: call(a, b))


def _bars(shape: tuple[int, ...]) -> tuple[Bar, ...]:
    if shape in SKINNY:
        return (Bar(eager=1.3),)
    return (Bar(eager=0.9, mean=1.0),) if shape != BATCHED and min(shape) >= 256 else ()


def cases(tiny: bool) -> list[Case]:
    squares = [((size, size, size), layout) for size in (SQUARES if not tiny else (8,)) for layout in LAYOUTS]
    skinny = [(shape, "NN") for shape in ((*SKINNY, BATCHED) if not tiny else ((3, 5, 4), (2, 3, 5, 4)))]
    found = []
    for dtype, tolerance in TOLERANCES.items():
        for shape, layout in squares + skinny:
            *batch, m, k, n = shape
            name = " ".join([dtype, layout, ("·".join(map(str, batch)) + " of ") * bool(batch) + f"{m}×{k}×{n}"])
            found.append(Case(name, partial(product, shape=shape, layout=layout, dtype=dtype),
                              operations=2 * math.prod(shape), tolerance=tolerance,
                              bars=_bars(shape) if dtype == "float32" else ()))
    return found
