"""x[...] and assignment to it against PyTorch: values, gradients, errors, aliasing, for many keys."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from tensor.twins import agree, counted, integers, seen

from torturous.tensor.positions import checked_index
from torturous.tensor.tensor import from_array

ALL = slice(None)
I = np.array([2, -1, 0])  # noqa: E741
J = np.array([[1], [-2]])
MASK = counted(4, 5) % 3 == 0

# Keys for a tensor of shape (4, 5, 6). Arrays become index tensors.
KEYS: dict[str, Any] = {
    "int": 0, "negative int": -1, "ints": (1, -2, 3), "slice": slice(1, 3),
    "steps": (slice(None, None, 2), slice(1, 99, 3)), "int and slice": (slice(1, None), 2),
    "ellipsis": (..., 0), "two ellipses": (0, ..., ...), "nothing": (), "all": ...,
    "new axes": (None, 1, None, slice(2, None)), "new axis last": (..., None), "empty slice": slice(3, 1),
    "numpy int": np.int64(2), "scalar tensor": np.array(1),
    "scalar tensor in slice": (slice(1, 3), np.array(-1)), "index": I, "index at 1": (ALL, I),
    "index at end": (..., I), "index of rank 2": J, "two": (I, I), "apart": (I, ALL, I),
    "int then index": (0, I), "index then int": (I, 0), "int apart from index": (0, ALL, I),
    "broadcast": (ALL, I, J), "with new axis": (I, None, np.array([1, 0, 2])), "all three": (I, J, 0),
    "list": [0, 1], "list at 1": (ALL, [3, 3, 0]), "list of lists": [[0, 1], [1, 2]],
    "range inside": (range(0, 4, 2), 1), "empty list": [], "empty index": np.array([], np.int64),
    "int32": I.astype(np.int32), "index and slice": (slice(1, 3), I, slice(0, 5, 2)),
    "list of bools": [True, False, True, True], "mask of 1": counted(4) > 1, "mask of 2": MASK,
    "mask of 3": counted(4, 5, 6) % 7 == 0, "mask at 1": (ALL, counted(5, 6) > 20),
    "mask and int": (counted(4) > 1, 1), "mask and index": (counted(4) > 0, I),
    "mask and slice": (MASK, slice(1, 3)), "mask apart": (counted(4) > 0, ALL, I), "no mask": counted(4) > 9,
    "True": True, "False": False, "None and True": (None, True), "True and index": (ALL, True, I),
    "index and True": (I, True), "bytes as mask": (counted(4) > 1).astype(np.uint8),
    # Errors
    "int too large": 4, "int too small": -5, "too many": (0, 0, 0, 0), "float": 1.5,
    "step backwards": slice(None, None, -1), "step 0": slice(None, None, 0),
    "index too large": np.array([0, 4]), "index too small": np.array([-5]),
    "do not broadcast": (I, np.array([0, 1])), "mask of another shape": counted(5, 6) > 10,
    "float index": np.array([1.5]), "second out of its axis": (np.array([0]), np.array([5])),
}


def index(key: Any, tensor: Any) -> Any:
    """A key with its arrays as tensors of one side."""
    if isinstance(key, tuple):
        return tuple(index(part, tensor) for part in key)
    return tensor(key) if isinstance(key, np.ndarray) else key


def make(library: Any) -> Any:
    return torch.tensor if library is torch else from_array


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about lists and bytes as keys.
        yield


@pytest.mark.parametrize("name", KEYS)
def test_read(name: str) -> None:
    agree(lambda library, x: x[index(KEYS[name], make(library))], counted(4, 5, 6))


@pytest.mark.parametrize("name", KEYS)
def test_positions_known_only_to_the_kernel(name: str) -> None:
    """The same, with indices that are still to be computed."""
    def pending(library: Any) -> Any:
        def tensor(a: np.ndarray) -> Any:
            t = make(library)(a)
            return t if a.dtype.kind not in "i" or not a.ndim else t + make(library)(np.zeros_like(a))
        return tensor

    agree(lambda library, x: x[index(KEYS[name], pending(library))], counted(4, 5, 6), strides=False)


# PyTorch has no fill for bytes as a mask.
@pytest.mark.parametrize("name", [name for name in KEYS if name != "bytes as mask"])
def test_write_a_number(name: str) -> None:
    def program(library: Any, x: Any) -> Any:
        x = x * 1
        x[index(KEYS[name], make(library))] = -3
        return x

    agree(program, counted(4, 5, 6), strides=False)


@pytest.mark.parametrize("name", KEYS)
def test_write_a_tensor(name: str) -> None:
    """A value of the right shape, made by indexing something else."""
    def program(library: Any, x: Any, y: Any) -> Any:
        key = index(KEYS[name], make(library))
        x = x * 1
        x[key] = y[key] * 2
        return x * x

    if name not in ("index at 1", "list at 1"):  # Twice the same place: PyTorch does not say which stays.
        agree(program, counted(4, 5, 6), integers(4, 5, 6), strides=False)


@pytest.mark.parametrize("name", KEYS)
def test_augmented(name: str) -> None:
    def program(library: Any, x: Any) -> Any:
        key = index(KEYS[name], make(library))
        x = x.clone()
        x[key] += 100
        x[key] *= 2
        return x

    agree(program, counted(4, 5, 6), strides=False)


@pytest.mark.parametrize("shape", [(), (1,), (6,), (5, 1), (1, 1, 6), (1, 1, 1, 1, 6), (4,), (7, 5, 6)])
def test_broadcast_of_what_is_written(shape: tuple[int, ...]) -> None:
    for key in (slice(1, 3), 0, I, (ALL, I), MASK, (MASK, ALL), counted(4, 5, 6) > 50):
        def program(library: Any, x: Any, y: Any, key: Any = key) -> Any:
            x = x * 1
            x[index(key, make(library))] = y
            return x

        agree(program, counted(4, 5, 6), integers(*shape), strides=False)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float64])
def test_dtypes(dtype: Any) -> None:
    def program(library: Any, x: Any, y: Any) -> Any:
        x = x.clone()
        t = make(library)
        x[0], x[1, 1:], x[t(MASK)[:, :4]] = y[0], 3, 1
        x[t(J)] = x[t(J)] * 0
        x[t(I), 1] = 2
        return x, x[t(I)], x[t(I), t(I)]

    agree(program, counted(4, 4).astype(dtype), integers(4, 4), strides=False, gradients=False)


@pytest.mark.parametrize("seed", range(30))
def test_random_keys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, rng.integers(1, 5)).tolist())
    key, common = [], (1, 3)[seed % 2]
    for size in shape:
        kind = rng.integers(6)
        if kind == 0:
            key.append(int(rng.integers(-size, size)))
        elif kind == 1:
            key.append(slice(int(rng.integers(size)), None, int(rng.integers(1, 3))))
        elif kind == 2:
            key.append(rng.integers(-size, size, common))
        elif kind == 3:
            key.append(rng.integers(-size, size, (2, common)))
        elif kind == 4:
            key += [None, ALL]
        else:
            key.append(ALL)
    if rng.integers(3) == 0:
        key = [*key[:-1], ...]

    def read(library: Any, x: Any) -> Any:
        return x[index(tuple(key), make(library))]

    def write(library: Any, x: Any) -> Any:
        x = x * 1
        x[index(tuple(key), make(library))] = 7
        return x

    agree(read, counted(*shape), strides=False)
    agree(write, counted(*shape), strides=False)


# Aliasing ---------------------------------------------------------------------------------------------------
def test_what_is_a_view_and_what_a_copy() -> None:
    for key in (0, slice(1, 3), (..., 0), None, ..., (), np.array(1), I, MASK, [0, 1], True, (0, I)):
        results = []
        for library in (torch.tensor, from_array):
            x = library(counted(4, 5, 6))
            part = x[index(key, library)]
            part += 1000
            results.append(x)
        seen(*results)


def test_writing_what_is_read() -> None:
    def program(library: Any, x: Any) -> Any:
        x, t = x.clone(), make(library)
        x[t(I)] = x[t(I[::-1].copy())] * 2
        x[0], x[1] = x[1].clone(), x[0].clone()
        x[:, 0] = x[:, 0].flip(0)
        x.t()[1:3] = x[:2, :4].clone()
        return x

    agree(program, counted(4, 5), strides=False, gradients=False)


def test_a_loop_of_writes() -> None:
    """A recurrence written place by place, with its gradient."""
    def program(library: Any, x: Any, w: Any) -> Any:
        y = x * 0
        for i in range(len(x)):
            y[i] = x[i] + (y[i - 1].clone() * w if i else 0)
        return y

    agree(program, integers(5, 2), integers(2, low=-2, high=3), strides=False)


def test_sequence_protocol() -> None:
    def program(library: Any, x: Any) -> Any:
        a, b, c = x
        return [a, b, c, *x[1], *list(x[:, 0])]

    agree(program, counted(3, 2))
    x = from_array(counted(3, 2))
    assert len(x) == 3
    scalar = x[0, 0]
    for use in (len, iter, lambda t: t[0], lambda t: t[:]):
        with pytest.raises((TypeError, IndexError)):
            use(scalar)
        with pytest.raises((TypeError, IndexError)):
            use(torch.tensor(1.0))


@pytest.mark.parametrize("value", [[1, 2], np.ones(5, np.float32), "a", None])
def test_what_cannot_be_assigned(value: Any) -> None:
    for library in (torch.tensor, from_array):
        x = library(counted(4, 5))
        for key in (0, library(I), library(MASK)):
            with pytest.raises(TypeError):
                x[key] = value


# index_put_ -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", [False, True])
def test_index_put(accumulate: bool) -> None:
    def program(library: Any, x: Any, y: Any) -> Any:
        t = make(library)
        places = (t(np.array([1, 0, 3])), t(np.array([0, 0, 4])))
        first = (x * 1).index_put_(places, y, accumulate)
        second = x.index_put((t(np.array([2, 0])),), y[:1], accumulate=accumulate)
        third = x.index_put((t(MASK),), y[0], accumulate=accumulate)
        return first, second, third

    agree(program, counted(4, 5), integers(3), strides=False)


def test_accumulating_at_one_place() -> None:
    def program(library: Any, x: Any, y: Any) -> Any:
        places = make(library)(np.array([1, 1, -3, 0, 1]))
        return x.index_put((places,), y, accumulate=True)

    agree(program, counted(4, 5), integers(5, 5), strides=False)


def test_the_last_write_stays() -> None:
    x = from_array(counted(4, 2))
    x[from_array(np.array([1, 3, 1, 1]))] = from_array(integers(4, 2))
    expected = counted(4, 2)
    for place, row in zip([1, 3, 1, 1], integers(4, 2), strict=True):
        expected[place] = row
    np.testing.assert_array_equal(x.numpy(), expected)


# Checks -----------------------------------------------------------------------------------------------------
def test_known_positions_are_checked_when_recorded() -> None:
    x, places = from_array(counted(4, 5)), from_array(np.array([0, 3]))
    assert checked_index(places, 4, "test") is places
    places[0] = 9
    with pytest.raises(IndexError, match="index 9 is out of bounds"):
        checked_index(_known(places), 4, "test")
    with pytest.raises(IndexError, match="index 9"):
        x[_known(places)]
    # Of a view only its own elements count.
    assert x[_known(places)[1:]].tolist() == [counted(4, 5)[3].tolist()]


def _known(t: Any) -> Any:
    t.tolist()
    return t


def test_memory_that_numpy_writes_is_checked_every_time() -> None:
    x, places = from_array(counted(4)), from_array(np.array([0, 3]))
    shared = places.numpy()
    assert x[places].tolist() == [0, 3]
    shared[0] = 4
    with pytest.raises(IndexError):
        x[places]
    shared[0] = -4
    assert x[places].tolist() == [0, 3]


def test_the_kernel_reports_positions_out_of_range() -> None:
    x = from_array(counted(4, 5))
    for bad in (4, -5, 2**40, -(2**62)):
        for read in (lambda far, good: x[far], lambda far, good: x[far, good],
                     lambda far, good: x.t()[good, far], lambda far, good: x[None, far, good, None]):
            taken = read(from_array(np.array([0, bad])) * 1, from_array(np.array([1, 1])) * 1)
            with pytest.raises(IndexError, match="out of range"):
                taken.tolist()
        y = x * 1
        with pytest.raises(IndexError, match="out of range"):
            y[from_array(np.array([0, bad])) * 1] = 0
            y.tolist()
    np.testing.assert_array_equal(x.numpy(), counted(4, 5))
