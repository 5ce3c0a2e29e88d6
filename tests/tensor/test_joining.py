"""cat, stack and their relatives, meshgrid and pad, against PyTorch."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from tensor.twins import OURS, agree, counted, integers

from torturous.ir import indexing
from torturous.tensor import joining
from torturous.tensor.tensor import from_array

FEW, MANY = 3, joining.MOST_FUSED + 5


@pytest.mark.parametrize("count", [1, 2, FEW, MANY])
@pytest.mark.parametrize(("shape", "dim"), [
    ((4,), 0), ((2, 3), 0), ((2, 3), 1), ((2, 3, 4), -2), ((2, 0), 0)])
def test_cat(count: int, shape: tuple[int, ...], dim: int) -> None:
    parts = []
    for k in range(count):
        size = list(shape)
        size[dim] += k % 3
        parts.append(integers(*size, seed=k))
    agree(lambda library, *parts: library.cat(parts, dim), *parts)
    agree(lambda library, *parts: library.cat([p * 2 for p in parts], dim=dim) * 3, *parts)


@pytest.mark.parametrize("count", [1, 2, FEW, MANY])
@pytest.mark.parametrize(("shape", "dim"), [
    ((), 0), ((4,), 0), ((4,), 1), ((2, 3), 1), ((2, 3), -1), ((2, 0), 0)])
def test_stack(count: int, shape: tuple[int, ...], dim: int) -> None:
    parts = [integers(*shape, seed=k) for k in range(count)]
    agree(lambda library, *parts: library.stack(parts, dim), *parts)
    agree(lambda library, *parts: library.stack([p + 1 for p in parts], dim) * 3, *parts)


@pytest.mark.parametrize("name", ["hstack", "vstack", "dstack", "row_stack", "column_stack"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4)])
def test_other_stacks(name: str, shape: tuple[int, ...]) -> None:
    agree(lambda library, a, b: getattr(library, name)((a, b)), integers(*shape), integers(*shape, seed=1))


def test_names() -> None:
    agree(lambda library, a, b: library.concat((a, b)), counted(2), counted(3))
    agree(lambda library, a, b: library.concatenate((a, b), 1), counted(2, 1), counted(2, 3))


@pytest.mark.parametrize("count", [2, MANY])
def test_dtypes(count: int) -> None:
    kinds = [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]
    for first in kinds:
        for second in kinds:
            parts = [integers(2, low=0).astype((first, second)[k % 2]) for k in range(count)]
            agree(lambda library, *parts: [library.cat(parts), library.stack(parts)], *parts, gradients=False)


@pytest.mark.parametrize("count", [2, MANY])
def test_one_part_several_times(count: int) -> None:
    agree(lambda library, a, b: library.cat([a, b] + [a] * count), counted(2, 3), integers(1, 3))


def test_empty_vectors_are_passed_over() -> None:
    empty = np.zeros(0, np.float32)
    agree(lambda library, a: library.cat([library.tensor(empty), a, library.tensor(empty)], 1), counted(2, 3))
    agree(lambda library, e: library.cat([e, e]), empty)
    agree(lambda library, a, e: library.cat([a, e]), counted(2, 3), np.zeros((0, 2), np.float32))
    agree(lambda library, a, e: library.cat([a, e]), counted(2, 3).astype(np.int64), empty, gradients=False)


@pytest.mark.parametrize("parts", [[], [(2, 3), (2, 2)], [(2,), (2, 1)], [()], [(2,), ()]])
def test_cat_errors(parts: list[tuple[int, ...]]) -> None:
    agree(lambda library, *parts: library.cat(parts), *[counted(*shape) for shape in parts])


@pytest.mark.parametrize("parts", [[], [(2, 3), (2, 2)], [(2,), (2, 1)]])
def test_stack_errors(parts: list[tuple[int, ...]]) -> None:
    agree(lambda library, *parts: library.stack(parts), *[counted(*shape) for shape in parts])


def test_other_errors() -> None:
    agree(lambda library, a: library.cat([a, 3]), counted(2))
    agree(lambda library, a: library.cat(a), counted(2))
    agree(lambda library, a: library.cat([a], 1), counted(2))
    agree(lambda library, a: library.stack([a], 3), counted(2))
    agree(lambda library, a: library.hstack([]), counted(2))


def test_a_batch_compiles_fast() -> None:
    """64 samples of a size not seen before: the text of the kernel hardly grows with their number."""
    shape = (29, 31)
    samples = [from_array(integers(*shape, seed=k)) for k in range(64)]
    OURS.stack([from_array(counted(3)) for _ in range(MANY)]).numpy()  # The compiler has started.
    started = time.perf_counter()
    batch = OURS.stack(samples).numpy()
    taken = time.perf_counter() - started
    np.testing.assert_array_equal(batch, np.stack([integers(*shape, seed=k) for k in range(64)]))
    assert taken < 0.5  # Some 0.02 s where nothing else runs.


def test_more_parts_than_a_row_has_operands() -> None:
    count = indexing.MOST_JOINED + 10
    x = from_array(counted(count, 2)).requires_grad_()
    joined = OURS.cat(x.split(1))
    np.testing.assert_array_equal(joined.detach().numpy(), counted(count, 2))
    (joined * from_array(integers(count, 2))).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), integers(count, 2))


# meshgrid ---------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch asks for `indexing` to be given.
@pytest.mark.parametrize("indexing", [None, "ij", "xy", "yx"])
def test_meshgrid(indexing: Any) -> None:
    agree(lambda library, *parts: library.meshgrid(*parts, indexing=indexing), counted(3), counted(),
          counted(4))
    agree(lambda library, a, b: library.meshgrid([a, b], indexing=indexing), counted(3), counted(2))
    agree(lambda library, a: library.meshgrid(a, indexing=indexing), counted(3))
    agree(lambda library, a, b: library.meshgrid(a, b, indexing=indexing), counted(3, 1), counted(2))
    agree(lambda library, *parts: library.meshgrid(*parts, indexing=indexing), counted(3),
          counted(2).astype(np.int64))


# pad --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("widths", [(), (1, 2), (0, 3), (2, 0, 1, 1), (1, 1, 0, 2, 3, 0), (-1, 2),
                                    (-1, -1), (3, -2, -1, 0),
                                    (-2, -3), (-4, -4), (1,), (0,) * 8, (0, 0), (-2, 5)])
@pytest.mark.parametrize("value", [None, 0, 1.5])
def test_pad_constant(widths: tuple[int, ...], value: Any) -> None:
    agree(lambda library, x: library.pad(x, widths, "constant", value), counted(2, 3, 5), strides=False)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "none"])
@pytest.mark.parametrize(("shape", "widths"), [
    ((2, 3, 5), (1, 2)), ((3, 5), (4, 0)), ((2, 3, 4, 5), (1, 2, 3, 0)), ((3, 4, 5), (2, 2, 1, 1)),
    ((3, 5), (5, 1)), ((3, 5), (-1, 2)), ((3, 5), (6, 0)), ((5,), (1, 1)), ((3, 5), (1, 1, 1, 1)),
    ((2, 2, 3, 4, 5), (1, 1, 1, 1, 1, 1)),
])
def test_pad_by_what_is_there(mode: str, shape: tuple[int, ...], widths: tuple[int, ...]) -> None:
    agree(lambda library, x: library.pad(x, widths, mode=mode), counted(*shape), strides=False)


def test_pad_dtypes() -> None:
    for dtype in (np.bool_, np.uint8, np.int64, np.float16, np.float64):
        values = counted(2, 3).astype(dtype)
        agree(lambda library, x: library.pad(x, (1, 2), value=1), values, gradients=False)
        if np.dtype(dtype).kind == "f":
            agree(lambda library, x: library.pad(x, (1, 2), mode="reflect"), values, gradients=False)


def test_pad_takes_a_value_only_for_constants() -> None:
    for pad, library in ((torch.nn.functional.pad, torch.tensor), (joining.pad, from_array)):
        with pytest.raises(RuntimeError, match="value"):
            pad(library(counted(2, 3)), (1, 1), mode="reflect", value=1.0)
