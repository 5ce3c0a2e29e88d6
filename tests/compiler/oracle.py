"""Records written by hand, run through the compiler under every setting and through the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from torturous.codegen import target as targets
from torturous.compiler.expand import expand
from torturous.core import dtypes, settings
from torturous.core.dtypes import DType
from torturous.ir.interpret import interpret
from torturous.ir.op import Op, type_number
from torturous.ir.record import LEAF, Record
from torturous.ir.value import Value
from torturous.runtime import bound as plans
from torturous.runtime import planning, realize, shares
from torturous.runtime.buffers import allocate

Case = Callable[..., Sequence[Value]]
"""`case(program, *sizes)` records something and gives the values that are wanted."""


class Program:
    """A record under construction, with the arrays of its leaves."""

    def __init__(self, seed: int = 0) -> None:
        self.record = Record()
        self.arrays: dict[int, np.ndarray] = {}
        self.random = np.random.default_rng(seed)

    def leaf(self, array: np.ndarray) -> Value:
        array = np.ascontiguousarray(array).reshape(array.shape)
        dtype = dtypes.from_numpy(array.dtype)
        index = self.record.leaf(type_number(array.shape, dtype), False)
        self.arrays[index] = array
        buffer = allocate(array.nbytes)
        buffer.array(array.dtype, array.shape)[...] = array
        self.record.values[index] = buffer
        return self.value(index)

    def value(self, index: int) -> Value:
        return Value(self.record, index, None, False)

    def number(self, number: bool | int | float) -> Value:
        return self.value(self.record.slot(number))

    def apply(self, op: Op, *operands: Value | bool | int | float, attributes: tuple = ()) -> Value:
        codes = [o.index if isinstance(o, Value) else self.record.slot(o) for o in operands]
        return self.value(self.record.apply(op, attributes, codes, None, False))

    def apply_typed(
        self,
        op: Op,
        shape: tuple[int, ...],
        dtype: DType,
        *operands: Value | bool | int | float,
        attributes: tuple = (),
    ) -> Value:
        codes = [o.index if isinstance(o, Value) else self.record.slot(o) for o in operands]
        return self.value(
            self.record.apply_typed(op, attributes, type_number(tuple(shape), dtype), codes, None, False)
        )

    # Leaves of random numbers -------------------------------------------------------------------------------
    def normal(self, *shape: int, dtype: DType = dtypes.float32) -> Value:
        return self.leaf(self.random.standard_normal(shape).astype(dtype.numpy))

    def any(self, *shape: int, dtype: DType = dtypes.float32) -> Value:
        """Numbers of a dtype with what is special about it: signed zeros, infinities, NaN, extremes."""
        return self.leaf(anything(self.random, shape, dtype))

    # Running ------------------------------------------------------------------------------------------------
    def compiled(self, outputs: Sequence[Value]) -> list[np.ndarray]:
        rows = tuple(value.index for value in outputs)
        bound = planning.bind(self.record, rows)
        buffers = bound.run([self.record.values[row] for row in bound.leaves], self.record.slots)
        return [
            buffer.array(value.dtype.numpy, value.shape).copy()
            for buffer, value in zip(buffers, outputs, strict=True)
        ]

    def interpreted(self, outputs: Sequence[Value]) -> list[np.ndarray]:
        expanded = expand(self.record, [value.index for value in outputs])
        rows = [row for row, (number, *_) in enumerate(expanded.record.rows) if number == LEAF.number]
        arrays = dict(zip(rows, [self.arrays[leaf] for leaf in expanded.leaves], strict=True))
        return interpret(expanded.record, arrays, expanded.outputs)


def anything(random: np.random.Generator, shape: Sequence[int], dtype: DType) -> np.ndarray:
    """Random numbers of a dtype, one in four of them special."""
    if dtype is dtypes.bool_:
        return random.random(shape) < 0.5
    if dtype.is_floating_point:
        usual = random.standard_normal(shape) * 10.0 ** random.integers(-3, 4, shape)
        special = np.array(
            [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, np.inf, -np.inf, np.nan, 1e-8, 65504.0, 1e-40, 3e9]
        )
    else:
        usual = random.integers(0 if dtype is dtypes.uint8 else -100, 100, shape)
        limits = np.iinfo(dtype.numpy)
        special = np.array([0, 1, 2, 3, 7, limits.max, limits.min], object)
    chosen = random.random(shape) < 0.25
    picked = special[random.integers(0, len(special), shape)]
    with np.errstate(all="ignore"):
        return np.where(chosen, picked, usual).astype(dtype.numpy).reshape(shape)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal in every bit; NaN may differ in sign and payload."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if dtypes.from_numpy(a.dtype).is_floating_point:
        words = {2: np.uint16, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
        nan = np.isnan(a.astype(np.float64))
        if not np.array_equal(nan, np.isnan(b.astype(np.float64))):
            return False
        a, b = (np.where(nan, words(0), np.ascontiguousarray(x).view(words).reshape(x.shape)) for x in (a, b))
    return np.array_equal(a, b)


def describe_difference(label: str, got: np.ndarray, want: np.ndarray) -> str:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{label}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
    wide = np.longdouble if got.dtype.kind not in "bui" else object
    different = ~((got == want) & (np.signbit(got.astype(float)) == np.signbit(want.astype(float))))
    both_nan = np.isnan(got.astype(float)) & np.isnan(want.astype(float))
    places = np.argwhere(different & ~both_nan)
    first = tuple(map(int, places[0])) if len(places) else ()
    return (
        f"{label}: {len(places)} of {got.size} differ in {got.dtype}{got.shape}, first at {first}: "
        f"{got[first].astype(wide)!r} instead of {want[first].astype(wide)!r}"
    )


def assert_same(
    label: str, got: Sequence[np.ndarray], want: Sequence[np.ndarray], names: Sequence[str] = ()
) -> None:
    wrong = [
        describe_difference(f"{label}, output {number} {names[number] if names else ''}", g, w)
        for number, (g, w) in enumerate(zip(got, want, strict=True))
        if not same_bits(g, w)
    ]
    assert not wrong, "\n".join(wrong[:20])


def ulps(got: np.ndarray, want: np.ndarray) -> float:
    """The largest distance in units of the last place; infinite where one is NaN or infinite alone."""
    got, want = np.atleast_1d(got), np.atleast_1d(want)
    if got.size == 0:
        return 0.0
    wide_got, wide_want = got.astype(np.longdouble), want.astype(np.longdouble)
    with np.errstate(all="ignore"):
        same = (wide_got == wide_want) | (np.isnan(wide_got) & np.isnan(wide_want))
        finite = np.isfinite(wide_got) & np.isfinite(wide_want)
        unit = np.spacing(np.abs(want)).astype(np.longdouble)
        distance = np.where(same, 0.0, np.where(finite, np.abs(wide_got - wide_want) / unit, np.inf))
    return float(np.max(np.where(np.isnan(distance), np.inf, distance)))


# Settings ---------------------------------------------------------------------------------------------------
def lane_targets() -> list[str]:
    """The instruction sets, other than the native one, that this machine can run."""
    names = []
    for name in ("avx2", "sse2"):
        try:
            if targets.host_target(name) != targets.host_target():
                names.append(name)
        except (ValueError, NotImplementedError):
            continue
    return names


@contextmanager
def configured(
    fuse: bool = True, target: str = "native", pieces: bool = False, threads: int | None = None
) -> Iterator[None]:
    """Settings for a while. `pieces` cuts work as finely as it goes and lets all threads have at it."""
    before = (
        settings.fuse.value,
        settings.target.value,
        shares.GRAIN,
        plans.SERIAL_COST,
        plans.workers().count,
    )
    settings.fuse.value, settings.target.value = fuse, target
    caches = (planning._bound, realize._realizations)  # of plans cut into pieces of the usual size
    kept = [dict(cache) for cache in caches] if pieces else []
    if pieces:
        shares.GRAIN, plans.SERIAL_COST = 1, -1
        for cache in caches:
            cache.clear()
    if threads is not None:
        plans.workers().resize(threads)
    try:
        yield
    finally:
        settings.fuse.value, settings.target.value, shares.GRAIN, plans.SERIAL_COST, count = before
        for cache, content in zip(caches, kept, strict=False):
            cache.clear()
            cache.update(content)
        if threads is not None:
            plans.workers().resize(count)


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "fused": {},
    "unfused": {"fuse": False},
    "2 threads": {"pieces": True, "threads": 2},
    "unfused, 2 threads": {"fuse": False, "pieces": True, "threads": 2},
    **{name: {"target": name} for name in lane_targets()},
}
