"""Positions that are data, against PyTorch: gather, scatter, index_select and their relatives, and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.twins import agree, array, counted, integers, seen

from torturous.tensor.gathering import take_rows
from torturous.tensor.tensor import from_array


def make(library: Any) -> Any:
    return torch.tensor if library is torch else from_array


def positions(*shape: int, below: int, seed: int = 0, distinct: int | None = None) -> np.ndarray:
    """Positions below a bound; along axis `distinct` no two are the same."""
    rng = np.random.default_rng(seed)
    if distinct is None:
        return rng.integers(0, below, shape)
    order = rng.permuted(np.broadcast_to(np.arange(below), (*np.delete(shape, distinct), below)), axis=-1)
    return np.moveaxis(order[..., :shape[distinct]], -1, distinct).copy()


SHAPES = [((5,), (3,), 0), ((4, 5), (3, 5), 0), ((4, 5), (2, 3), 0), ((4, 5), (4, 5), 1),
          ((4, 5), (3, 9), -1),
          ((2, 3, 4), (2, 2, 4), 1), ((2, 3, 4), (1, 3, 2), 2), ((), (), 0), ((), (1,), 0), ((3,), (), 0),
          ((4, 5), (0, 5), 0), ((4, 5), (0,), 0)]
WRONG = [((4, 5), (3, 6), 0), ((4, 5), (3,), 0), ((4, 5), (3, 5), 2)]


@pytest.mark.parametrize(("shape", "wanted", "dim"), SHAPES + WRONG)
def test_gather(shape: tuple[int, ...], wanted: tuple[int, ...], dim: int) -> None:
    places = positions(*wanted, below=shape[dim] if shape and dim < len(shape) else 1)
    agree(lambda library, x: library.gather(x, dim, make(library)(places)), counted(*shape), strides=False)


@pytest.mark.parametrize(("shape", "wanted", "dim"), [s for s in SHAPES if s[2] >= 0] + WRONG)
def test_scatter(shape: tuple[int, ...], wanted: tuple[int, ...], dim: int) -> None:
    below = shape[dim] if shape and dim < len(shape) else 1
    often = positions(*wanted, below=below)
    fits = dim < len(wanted) and wanted[dim] <= below
    once = positions(*wanted, below=below, distinct=dim) if fits else often
    source = integers(*wanted, seed=2)

    def program(library: Any, x: Any, y: Any) -> Any:
        t = make(library)
        return (library.scatter(x, dim, t(once), y), x.scatter(dim, t(once), 7.0),
                x.scatter(dim, t(once), value=3), library.scatter_add(x, dim, t(often), y),
                (x * 1).scatter_(dim, t(once), y), (x * 1).scatter_(dim, t(once), -1),
                (x * 1).scatter_add_(dim, t(often), y))

    agree(program, counted(*shape), source, strides=False, gradients=wanted != (0,))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, about `reduce`.
def test_a_larger_source() -> None:
    places = positions(2, 3, below=4, distinct=0)
    for rows in (3, 1):  # The second is too small.
        agree(lambda library, x, y: x.scatter(0, make(library)(places), y), counted(4, 5), integers(rows, 4),
              strides=False, gradients=False)
        agree(lambda library, x, y: x.scatter(0, make(library)(places * 0), y, reduce="add"), counted(4, 5),
              integers(rows, 4), strides=False, gradients=False)


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_slices(dim: int, dtype: Any) -> None:
    shape = (4, 5)
    often = positions(6, below=4).astype(dtype)
    once = positions(3, below=4, distinct=0).astype(dtype)
    some = list(shape)
    some[dim] = 6
    few = list(shape)
    few[dim] = 3

    def program(library: Any, x: Any, y: Any, z: Any) -> Any:
        t = make(library)
        results = [library.index_select(x, dim, t(often)), library.index_add(x, dim, t(often), y),
                   x.index_add(dim, t(often), y, alpha=3), (x * 1).index_add_(dim, t(often), y)]
        if dtype is np.int64:
            results += [library.index_copy(x, dim, t(once), z), (x * 1).index_copy_(dim, t(once), z),
                        library.index_fill(x, dim, t(once), 4.0), (x * 1).index_fill_(dim, t(once), -2),
                        x.index_fill(dim, t(once), z[0, 0])]
        return results

    agree(program, counted(*shape), integers(*some), integers(*few, seed=3), strides=False)


ERRORS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "index_select beyond": lambda library, t, x: x.index_select(0, t(np.array([4]))),
    "index_select negative": lambda library, t, x: x.index_select(0, t(np.array([-1]))),
    "index_select of rank 2": lambda library, t, x: x.index_select(0, t(np.array([[1]]))),
    "index_select float": lambda library, t, x: x.index_select(0, t(np.array([1.0]))),
    "gather beyond": lambda library, t, x: x.gather(0, t(np.array([[4]]))),
    "gather negative": lambda library, t, x: x.gather(0, t(np.array([[-1]]))),
    "gather float": lambda library, t, x: x.gather(0, t(np.array([[0.0]]))),
    "scatter beyond": lambda library, t, x: x.scatter(0, t(np.array([[4]])), 1.0),
    "scatter of another dtype": lambda library, t, x: x.scatter(0, t(np.array([[0]])), t(np.array([[1]]))),
    "index_add beyond": lambda library, t, x: x.index_add(0, t(np.array([4])), x[:1]),
    "index_add of another size": lambda library, t, x: x.index_add(0, t(np.array([1, 2])), x[:1]),
    "index_add of another dtype": (
        lambda library, t, x: x.index_add(0, t(np.array([0])), t(np.ones((1, 5), np.int64)))),
    "index_copy beyond": lambda library, t, x: x.index_copy(0, t(np.array([4])), x[:1]),
    "index_copy of another size": lambda library, t, x: x.index_copy(0, t(np.array([1])), x[:1, :3]),
    "index_fill beyond": lambda library, t, x: x.index_fill(0, t(np.array([4])), 1.0),
    "index_fill with a vector": lambda library, t, x: x.index_fill(0, t(np.array([0])), x[0]),
    "take beyond": lambda library, t, x: x.take(t(np.array([20]))),
    "take too far before": lambda library, t, x: x.take(t(np.array([-21]))),
    "take from nothing": lambda library, t, x: x[:0].take(t(np.array([0]))),
    "take_along_dim beyond": lambda library, t, x: x.take_along_dim(t(np.array([[20]]))),
    "take_along_dim negative": lambda library, t, x: x.take_along_dim(t(np.array([-1]))),
    "take_along_dim of another rank": lambda library, t, x: x.take_along_dim(t(np.array([0])), 0),
    "masked_select by numbers": lambda library, t, x: x.masked_select(x),
    "masked_scatter of too few": lambda library, t, x: x.masked_scatter(t(counted(4, 5) > 3), x[0]),
    "put_ of too few": lambda library, t, x: x.put_(t(np.array([0, 1])), x[0, :1]),
    "a dim that is not there": lambda library, t, x: x.index_select(2, t(np.array([0]))),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    agree(lambda library, x: ERRORS[name](library, make(library), x), counted(4, 5), strides=False,
          gradients=False)


def test_flat_positions() -> None:
    places = np.array([[3, -1, 0], [7, 7, -20]])
    once = np.array([1, -1, 5])

    def program(library: Any, x: Any, y: Any) -> Any:
        t = make(library)
        return (library.take(x, t(places)), x.t().take(t(places)), (x * 1).put_(t(once), y),
                (x * 1).put_(t(np.array([2, 2, -18])), y, accumulate=True))

    agree(program, counted(4, 5), integers(3), strides=False)


def test_take_along_dim() -> None:
    def program(library: Any, x: Any) -> Any:
        t = make(library)
        return (library.take_along_dim(x, t(positions(4, 2, below=5)), 1),
                x.take_along_dim(t(np.array([[2, -1, 0]])), 1),
                x.take_along_dim(t(np.array([[3], [-4], [1]])), 0), x.take_along_dim(t(np.array([[19, 0]]))),
                x[:, :1].take_along_dim(t(positions(2, 5, below=4)), 0))

    agree(program, counted(4, 5), strides=False)


def test_masks() -> None:
    mask, row = counted(4, 5) % 3 == 0, counted(5) > 2

    def program(library: Any, x: Any, y: Any) -> Any:
        t = make(library)
        return (library.masked_select(x, t(mask)), x.masked_select(t(row)), x[0].masked_select(t(mask)),
                library.masked_scatter(x, t(mask), y), (x * 1).masked_scatter_(t(row), y),
                x.masked_select(t(mask & False)))

    agree(program, counted(4, 5), integers(20), strides=False)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 0), (2, 3, 2)])
def test_nonzero(dtype: Any, shape: tuple[int, ...]) -> None:
    for seed in range(2):
        values = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
        agree(lambda library, x: [library.nonzero(x), library.argwhere(x), *x.nonzero(as_tuple=True)], values,
              strides=False, gradients=False)


def test_nonzero_of_bfloat16() -> None:
    x = torch.tensor([0.0, -0.0, 1.5, float("nan")])
    ours = from_array(x.numpy()).to(from_array(np.zeros(1, np.float32)).dtype)
    seen(x.nonzero(), ours.nonzero(), strides=False)


def test_rows_of_a_table() -> None:
    tokens = positions(3, 4, below=6)
    theirs, ours = torch.tensor(integers(6, 5)).requires_grad_(), from_array(integers(6, 5)).requires_grad_()
    a = torch.nn.functional.embedding(torch.tensor(tokens), theirs)
    b = take_rows(ours, from_array(tokens))
    seen(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy())
    for bad in (6, -1):
        with pytest.raises(IndexError, match="out of range in self"):
            take_rows(ours, from_array(np.array([bad])))
        with pytest.raises(IndexError, match="out of range in"):
            take_rows(ours, from_array(np.array([bad])) * 1).tolist()
    with pytest.raises(RuntimeError, match="dtype"):
        take_rows(ours, from_array(np.array([1.0])))


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, about create_graph.
def test_gradients_of_gradients() -> None:
    places = positions(3, 5, below=4)

    def program(library: Any, x: Any) -> Any:
        t = make(library)
        y = x.gather(0, t(places))
        z = (y * y * y).sum() + (x.index_add(0, t(places[:, 0]), y) * x).sum()
        z = z + (x[t(places[0]), 1] * x[0]).sum()
        z.backward(create_graph=True)
        g = x.grad
        x.grad = None
        (g * g).sum().backward()
        result = x.grad
        x.grad = None
        return result

    results = []
    for library in (torch.tensor, from_array):
        x = library(integers(4, 5)).requires_grad_()
        results.append(program(torch if library is torch.tensor else None, x))
    np.testing.assert_array_equal(array(results[1]), array(results[0]))


@pytest.mark.parametrize("name", ["scatter_", "scatter_add_", "index_add_", "index_copy_", "index_fill_",
                                  "masked_scatter_"])
def test_in_place_through_views(name: str) -> None:
    def program(library: Any, x: Any, y: Any) -> Any:
        t = make(library)
        base = x * 1
        part = base.t()[1:4]
        places = t(np.array([2, 0]))
        if name.startswith("scatter"):
            getattr(part, name)(0, t(positions(2, 4, below=3, distinct=0)), y[:2, :4])
        elif name == "masked_scatter_":
            part.masked_scatter_(t(counted(3, 4) % 2 == 0), y)
        elif name == "index_fill_":
            part.index_fill_(0, places, 5.0)
        else:
            getattr(part, name)(0, places, y[:2, :4])
        return base, part

    agree(program, counted(4, 5), integers(4, 5), strides=False)
