"""Loops of products that are split: of what is flattened, and of what is wanted with more axes."""

from __future__ import annotations

import pytest
from codegen.test_kernels import check
from compiler.oracle import Program
from compiler.test_passes import kernels, plan_of

from torturous.core import dtypes
from torturous.ir import contraction, macros
from torturous.ir.value import Value

PLAIN = (False, (1, 1), (0, 0), (1, 1), 1)


def product(a: Value, b: Value) -> Value:
    return a.apply_typed(contraction.CONTRACT, (a.shape[0], b.shape[1]), a.dtype, b,
                         attributes=contraction.matrix_product(0))


def flattened(p: Program, batch: int, channels: int, lines: int, width: int, wide: int) -> list[Value]:
    """A linear layer after a convolution of samples, its gradient for both, and what becomes of that."""
    image, weight = p.normal(batch, 2, lines + 2, width + 2), p.normal(channels, 2, 3, 3)
    seen = p.apply_typed(macros.CONVOLUTION, (batch, channels, lines, width), dtypes.float32, image, weight,
                         attributes=PLAIN).relu()
    features = channels * lines * width
    matrix, g = p.normal(features, wide), p.normal(batch, wide)
    flat = seen.reshape((batch, features))
    back = product(g, matrix.permute((1, 0))).reshape(seen.shape).relu_backward(seen)
    gradient = p.apply_typed(macros.CONVOLUTION_WEIGHT, weight.shape, dtypes.float32, back, image, attributes=PLAIN)
    return [product(flat, matrix), product(g.permute((1, 0)), flat), gradient]


@pytest.mark.parametrize("channels, lines, width, wide", [(5, 4, 3, 7), (1, 6, 6, 50), (20, 1, 1, 10), (3, 1, 8, 33)])
def test_flattened_images(channels: int, lines: int, width: int, wide: int) -> None:
    def case(p: Program, batch: int) -> list[Value]:
        return flattened(p, batch, channels, lines, width, wide)

    check(case, (32,), (16,), (80,))
    check(case, (3,))


def test_nothing_is_copied_on_the_way() -> None:
    """The linear layer reads the convolution's results as they lie, and stores its gradient so."""
    names = [kernel.names for kernel in kernels(plan_of(flattened(Program(), 32, 5, 4, 3, 7)))]
    assert not [kernel for kernel in names if {"reshape", "permute"} & set(kernel)]
    assert ["contract", "relu_backward"] in names
