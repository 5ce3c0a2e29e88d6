"""Host ops: what is rare and what a well-kept library does better than generated code.

A host op ends one native stretch of a plan and runs in Python before the next. What runs is its `meaning`. It may
raise: a plan that fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torturous.core.errors import LinAlgError
from torturous.ir.contraction import CONTRACT, matrix_product
from torturous.ir.op import Attributes, Kind, Op, Type, define


def _inverse(out: Type, at: Attributes, x: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.inv(x)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(
            f"linalg.inv: the inversion could not be completed because the input matrix, of shape {list(x.shape)}, "
            "is singular") from error


def _same(at: Attributes, operands: Sequence[Type]) -> Type:
    return operands[0]


def _transposed(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _inverse_rule(g: Any, out: Any, at: Attributes, x: Any) -> Any:
    """−(Yᵀ · g · Yᵀ) for Y = X⁻¹."""
    rank = len(out.shape)
    turned = out.permute(_transposed(rank))
    product = turned.apply_typed(CONTRACT, out.shape, out.dtype, g, attributes=matrix_product(rank - 2))
    return -product.apply_typed(CONTRACT, out.shape, out.dtype, turned, attributes=matrix_product(rank - 2))


INVERSE = define(Op("inverse", Kind.HOST, _same, _inverse, (_inverse_rule,), ((-1,),),
                    document="the inverses of square matrices, the last two axes (LAPACK through NumPy)"))
