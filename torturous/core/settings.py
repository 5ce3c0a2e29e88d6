"""Every setting, in one place.

A setting is read from its environment variable when first asked for and can be changed by assignment. `in_key`
says whether generated code depends on it, in which case it is part of every cache key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Setting(Generic[T]):
    """One setting: `value` is its present value."""

    variable: str
    value: T
    in_key: bool
    purpose: str


def _read(variable: str, default: T, parse: Callable[[str], T], in_key: bool, purpose: str) -> Setting[T]:
    text = os.environ.get(variable)
    if text is None or text == "":
        return Setting(variable, default, in_key, purpose)
    try:
        return Setting(variable, parse(text), in_key, purpose)
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a valid value ({purpose})") from None


debug = _read(
    "TORTUROUS_DEBUG", 0, int, False,
    "1: plans as they are made or compiled; 2: their kernels; 3: kernel IR; 4: LLVM IR; 5: assembly",
)
target = _read("TORTUROUS_TARGET", "native", str, True, "instruction set: native, avx512, avx2, sse2")
fuse = _read(
    "TORTUROUS_FUSE", True, lambda text: bool(int(text)), True,
    "0 computes every row by a kernel of its own (for tests: results are the same, bit for bit)",
)
row_limit = _read(
    "TORTUROUS_ROW_LIMIT", 400, int, False,
    "pending rows after which work is realized at the next outermost module call or loader step (half as many without "
    "gradients; four times as many: where the program next comes round to the same line)",
)
tune = _read(
    "TORTUROUS_TUNE", False, lambda text: bool(int(text)), False,
    "1: when a plan first runs, measures how its kernels' work is best shared out, and remembers it in the cache",
)
specialise = _read(
    "TORTUROUS_SPECIALISE", 8, int, False,
    "runs after which sizes that repeat get a plan of their own, made in the background; 0: never",
)
ALL: tuple[Setting, ...] = (debug, target, fuse, row_limit, tune, specialise)
