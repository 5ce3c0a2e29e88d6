"""Names of dtypes and the like as PyTorch spells them; some hide Python's own, so they live apart."""

from __future__ import annotations

from math import e, inf, nan, pi

from torturous.core import dtypes
from torturous.core.devices import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    device,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from torturous.core.dtypes import DType as dtype
from torturous.tensor.base import Size
from torturous.tensor.creation import inclusive_range as range

bool = dtypes.bool_
uint8 = dtypes.uint8
int32 = int = dtypes.int32
int64 = long = dtypes.int64
float16 = half = dtypes.float16
bfloat16 = dtypes.bfloat16
float32 = float = dtypes.float32
float64 = double = dtypes.float64
newaxis = None

__all__ = [
    "Size", "bfloat16", "bool", "channels_last", "channels_last_3d", "contiguous_format", "device", "double", "dtype",
    "e", "float", "float16", "float32", "float64", "half", "inf", "int", "int32", "int64", "layout", "long",
    "memory_format", "nan", "newaxis", "pi", "preserve_format", "range", "strided", "uint8",
]
