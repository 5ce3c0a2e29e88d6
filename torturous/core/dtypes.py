"""The data types, and how two of them combine.

Promotion follows PyTorch: types fall into categories (bool < integral < floating); a tensor with dimensions
outranks a 0-d tensor, which outranks a Python number, unless the lower rank is of a higher category.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import ml_dtypes
import numpy as np


class Category(IntEnum):
    BOOL = 0
    INTEGRAL = 1
    FLOATING = 2


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type. Printed as PyTorch prints it, compared by identity."""

    name: str
    number: int
    category: Category
    itemsize: int
    """Bytes per element."""
    numpy: np.dtype = field(repr=False)
    signed: bool = True

    @property
    def is_floating_point(self) -> bool:
        return self.category is Category.FLOATING

    @property
    def is_signed(self) -> bool:
        return self.signed

    @property
    def is_complex(self) -> bool:
        return False

    @property
    def is_half(self) -> bool:
        """Whether arithmetic is done in float32 and every result rounded to sixteen bits."""
        return self.itemsize == 2

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> str | tuple:
        return (by_name, (self.name,))


bool_ = DType("bool", 0, Category.BOOL, 1, np.dtype(np.bool_), False)
uint8 = DType("uint8", 1, Category.INTEGRAL, 1, np.dtype(np.uint8), False)
int32 = DType("int32", 2, Category.INTEGRAL, 4, np.dtype(np.int32))
int64 = DType("int64", 3, Category.INTEGRAL, 8, np.dtype(np.int64))
float16 = DType("float16", 4, Category.FLOATING, 2, np.dtype(np.float16))
bfloat16 = DType("bfloat16", 5, Category.FLOATING, 2, np.dtype(ml_dtypes.bfloat16))
float32 = DType("float32", 6, Category.FLOATING, 4, np.dtype(np.float32))
float64 = DType("float64", 7, Category.FLOATING, 8, np.dtype(np.float64))

ALL: tuple[DType, ...] = (bool_, uint8, int32, int64, float16, bfloat16, float32, float64)

_BY_NAME = {dtype.name: dtype for dtype in ALL}
_BY_NUMPY = {dtype.numpy: dtype for dtype in ALL}


def by_name(name: str) -> DType:
    return _BY_NAME[name]


def from_numpy(dtype: np.dtype) -> DType:
    """The data type of a NumPy array's elements.

    Raises TypeError for a type that PyTorch has and this project has not, or that neither has.
    """
    try:
        return _BY_NUMPY[np.dtype(dtype).newbyteorder("=")]
    except KeyError:
        supported = ", ".join(d.name for d in ALL)
        raise TypeError(
            f"can't convert np.ndarray of type {np.dtype(dtype)}. The supported types are: {supported}."
        ) from None


def promote(a: DType, b: DType) -> DType:
    """The smallest type that holds both, for two operands of equal rank (see the module's text)."""
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    if {a, b} == {float16, bfloat16}:
        return float32
    return a if a.number > b.number else b


class Rank(IntEnum):
    """How much say an operand has in the type of a result."""

    NUMBER = 0
    SCALAR = 1
    DIMENSIONED = 2


_default_float = float32


def default_float() -> DType:
    """The floating type of Python floats and of integer inputs to floating functions."""
    return _default_float


def set_default_float(dtype: DType) -> None:
    global _default_float
    if not dtype.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {dtype}")
    _default_float = dtype


def number_type(category: Category) -> DType:
    """The type that a bare Python number of this category has on its own."""
    return (bool_, int64, _default_float)[category]


def result_type(operands: list[tuple[Rank, DType]]) -> DType:
    """The common type of several operands, each given with its rank."""
    best: DType | None = None
    for rank in (Rank.DIMENSIONED, Rank.SCALAR, Rank.NUMBER):
        here: DType | None = None
        for operand_rank, dtype in operands:
            if operand_rank is rank:
                here = dtype if here is None else promote(here, dtype)
        if here is not None and (best is None or here.category > best.category):
            best = here
    assert best is not None
    return best
