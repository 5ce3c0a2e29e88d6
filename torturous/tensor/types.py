"""Questions about dtypes, and the default one."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.ir import elementwise, record
from torturous.ir.op import TYPES
from torturous.ir.prefix import tree
from torturous.ir.record import number_category
from torturous.runtime import realize
from torturous.tensor.base import Number, TensorBase


class finfo:
    """Limits of a floating type (the default one unless given): `bits`, `eps`, `max`, `min`, `tiny`,
    `smallest_normal`, `resolution`, `dtype` (a name). TypeError for other types."""

    def __init__(self, type: DType | None = None) -> None:
        dtype = dtypes.default_float() if type is None else type
        if not isinstance(dtype, DType) or not dtype.is_floating_point:
            raise TypeError(
                f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle '{type}'"
            )
        limits: Any = ml_dtypes.finfo(dtype.numpy)
        self.bits = 8 * dtype.itemsize
        self.eps = float(limits.eps)
        self.max = float(limits.max)
        self.min = float(limits.min)
        self.tiny = self.smallest_normal = float(limits.smallest_normal)
        self.resolution = float(f"1e-{limits.precision}")
        self.dtype = dtype.name

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer type: `bits`, `max`, `min`, `dtype` (a name). TypeError for other types."""

    def __init__(self, type: DType) -> None:
        if not isinstance(type, DType) or type.is_floating_point or type is dtypes.bool_:
            raise TypeError(
                f"torch.iinfo() requires an integer input type. Use torch.finfo to handle '{type}'"
            )
        limits = np.iinfo(type.numpy)
        self.bits, self.max, self.min, self.dtype = (
            8 * type.itemsize,
            int(limits.max),
            int(limits.min),
            type.name,
        )

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"


def get_default_dtype() -> DType:
    """The dtype of Python floats and of floating results of integers."""
    return dtypes.default_float()


def set_default_dtype(d: DType) -> None:
    """Makes a floating dtype the default; TypeError for another."""
    if d is dtypes.default_float():
        return
    # What was recorded, inferred or planned took Python floats for the old default.
    realize.realize()
    dtypes.set_default_float(d)
    record.inferred.clear()
    tree.forget()
    record.context.renew()
    realize.forget_plans()


def result_type(tensor1: TensorBase | Number, tensor2: TensorBase | Number) -> DType:
    """The dtype of an arithmetic result of two operands."""
    operands = [
        TYPES[x._type] if isinstance(x, TensorBase) else number_category(x) for x in (tensor1, tensor2)
    ]
    return elementwise.common_type(operands)


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that holds both."""
    return dtypes.promote(type1, type2)


def can_cast(from_: DType, to: DType) -> bool:
    """Whether in-place operations convert one dtype to the other: never to a lower category."""
    return from_.category <= to.category


def is_tensor(obj: Any) -> bool:
    return isinstance(obj, TensorBase)


def is_floating_point(input: TensorBase) -> bool:
    """Whether a tensor's dtype is a floating one."""
    return input.dtype.is_floating_point


def is_complex(input: TensorBase) -> bool:
    """Whether a tensor's dtype is complex: there is none such here."""
    return False


def numel(input: TensorBase) -> int:
    """How many elements a tensor has."""
    return input.shape.numel()  # type: ignore[attr-defined]


__all__ = [
    "can_cast", "finfo", "get_default_dtype", "iinfo", "is_complex", "is_floating_point", "is_tensor",
    "numel", "promote_types", "result_type", "set_default_dtype",
]
