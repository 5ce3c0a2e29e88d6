"""Views against PyTorch: values, strides, gradients, errors, writes, and memory shared with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensor.against_torch import attempt
from tensor.twins import OURS, agree, array, counted, seen

import torturous
from torturous.core import dtypes
from torturous.tensor.tensor import from_array, from_numpy

# Each is a view of a tensor with three axes of sizes 4, 1, 6; what is an error is one on both sides.
VIEWS: dict[str, Callable[[Any, Any], Any]] = {
    "view": lambda torch, x: x.view(2, -1, 3),
    "view -1": lambda torch, x: x.view(-1),
    "view list": lambda torch, x: x.view([24]),
    "view_as": lambda torch, x: x.view_as(x.view(6, 4)),
    "view wrong": lambda torch, x: x.view(5, 5),
    "view two unknown": lambda torch, x: x.view(-1, -1),
    "reshape": lambda torch, x: torch.reshape(x, (3, 8)),
    "flatten": lambda torch, x: torch.flatten(x, 1),
    "flatten all": lambda torch, x: x.flatten(),
    "flatten backwards": lambda torch, x: x.flatten(2, 1),
    "ravel": lambda torch, x: torch.ravel(x),
    "unflatten": lambda torch, x: torch.unflatten(x, 0, (2, -1)),
    "unflatten wrong": lambda torch, x: x.unflatten(0, (3, 3)),
    "squeeze": lambda torch, x: torch.squeeze(x),
    "squeeze 1": lambda torch, x: x.squeeze(1),
    "squeeze 0": lambda torch, x: x.squeeze(0),
    "squeeze several": lambda torch, x: x.squeeze((0, 1)),
    "squeeze out of range": lambda torch, x: x.squeeze(3),
    "unsqueeze 0": lambda torch, x: torch.unsqueeze(x, 0),
    "unsqueeze 2": lambda torch, x: x.unsqueeze(2),
    "unsqueeze -1": lambda torch, x: x.unsqueeze(-1),
    "unsqueeze out of range": lambda torch, x: x.unsqueeze(5),
    "permute": lambda torch, x: torch.permute(x, (2, 0, 1)),
    "permute negative": lambda torch, x: x.permute(-1, 0, 1),
    "permute short": lambda torch, x: x.permute(0, 1),
    "permute twice": lambda torch, x: x.permute(0, 1, 1),
    "transpose": lambda torch, x: torch.transpose(x, 0, -1),
    "swapaxes": lambda torch, x: torch.swapaxes(x, 0, 1),
    "swapdims": lambda torch, x: x.swapdims(1, 2),
    "movedim": lambda torch, x: torch.movedim(x, 0, 2),
    "movedim several": lambda torch, x: x.movedim((0, 1), (-1, 0)),
    "movedim unequal": lambda torch, x: x.movedim((0, 1), (0,)),
    "moveaxis": lambda torch, x: torch.moveaxis(x, 2, 0),
    "t": lambda torch, x: torch.t(x.view(4, 6)),
    "t of three": lambda torch, x: x.t(),
    "T": lambda torch, x: x.view(4, 6).T,
    "mT": lambda torch, x: x.mT,
    "mT of a vector": lambda torch, x: x.view(-1).mT,
    "H": lambda torch, x: x.view(6, 4).H,
    "H of three": lambda torch, x: x.H,
    "expand": lambda torch, x: x.expand(4, 5, 6),
    "expand more": lambda torch, x: x.expand(2, -1, 3, -1),
    "expand leading one": lambda torch, x: x.expand(1, 1, 4, 1, 6),
    "expand wrong": lambda torch, x: x.expand(4, 1, 7),
    "expand too few": lambda torch, x: x.expand(4, 6),
    "expand leading unknown": lambda torch, x: x.expand(-1, 4, 1, 6),
    "expand_as": lambda torch, x: x.expand_as(x.expand(2, 4, 2, 6)),
    "broadcast_to": lambda torch, x: torch.broadcast_to(x, (4, 3, 6)),
    "narrow": lambda torch, x: torch.narrow(x, 2, 1, 4),
    "narrow from the end": lambda torch, x: x.narrow(0, -2, 2),
    "narrow too long": lambda torch, x: x.narrow(2, 4, 3),
    "narrow too far": lambda torch, x: x.narrow(2, 7, 0),
    "select": lambda torch, x: torch.select(x, 0, -1),
    "select out of range": lambda torch, x: x.select(2, 6),
    "slice": lambda torch, x: x[1:, :, ::2],
    "slice beyond": lambda torch, x: x[-9:9, 0, 5:2],
    "slice backwards": lambda torch, x: x[::-1],
    "unbind": lambda torch, x: torch.unbind(x, 2),
    "chunk": lambda torch, x: torch.chunk(x, 4, 2),
    "chunk more than there is": lambda torch, x: x.chunk(9),
    "chunk none": lambda torch, x: x.chunk(0),
    "split": lambda torch, x: torch.split(x, 4, -1),
    "split sizes": lambda torch, x: x.split([1, 0, 3]),
    "split wrong sizes": lambda torch, x: x.split([1, 1]),
    "tensor_split": lambda torch, x: torch.tensor_split(x, 4, 2),
    "tensor_split places": lambda torch, x: x.tensor_split([1, -1, 9], 2),
    "diagonal": lambda torch, x: torch.diagonal(x, 0, 0, 2),
    "diagonal above": lambda torch, x: x.diagonal(2, 0, 2),
    "diagonal below": lambda torch, x: x.diagonal(-3, dim1=-3, dim2=-1),
    "diagonal of nothing": lambda torch, x: x.diagonal(9, 0, 2),
    "diagonal of one axis": lambda torch, x: x.diagonal(0, 1, -2),
    "unfold": lambda torch, x: x.unfold(2, 3, 2),
    "unfold first axis": lambda torch, x: x.unfold(0, 2, 1),
    "unfold too wide": lambda torch, x: x.unfold(2, 7, 1),
    "contiguous": lambda torch, x: x.contiguous(),
}
# What a view may be a view of: the same elements under other strides.
SOURCES: dict[str, Callable[[Any], Any]] = {
    "row-major": lambda x: x,
    "permuted": lambda x: x.view(6, 4).t().unsqueeze(1),
    "sliced": lambda x: x.view(4, 6)[:, None][:, :, 0:6],
}
COPIES: dict[str, Callable[[Any, Any], Any]] = {
    "clone": lambda torch, x: torch.clone(x),
    "flip": lambda torch, x: torch.flip(x, (0, 2)),
    "flip none": lambda torch, x: x.flip(()),
    "flip twice": lambda torch, x: x.flip(0, 0),
    "fliplr": lambda torch, x: torch.fliplr(x.view(4, 6)),
    "flipud": lambda torch, x: torch.flipud(x),
    "roll": lambda torch, x: torch.roll(x, 2, 2),
    "roll flat": lambda torch, x: x.roll(-5),
    "roll several": lambda torch, x: x.roll((1, 7), (0, 2)),
    "roll wrong": lambda torch, x: x.roll((1, 2), 0),
    "rot90": lambda torch, x: torch.rot90(x, 1, (0, 2)),
    "rot90 back": lambda torch, x: x.rot90(-1, (0, 2)),
    "rot90 twice": lambda torch, x: x.rot90(2, (0, 2)),
    "rot90 of one axis": lambda torch, x: x.rot90(1, (0, 0)),
    "repeat": lambda torch, x: x.repeat(2, 1, 3),
    "repeat more": lambda torch, x: x.repeat(2, 1, 2, 1),
    "repeat none": lambda torch, x: x.repeat(0, 1, 1),
    "repeat too few": lambda torch, x: x.repeat(2, 2),
    "tile": lambda torch, x: torch.tile(x, (2,)),
    "repeat_interleave": lambda torch, x: torch.repeat_interleave(x, 2, 2),
    "repeat_interleave flat": lambda torch, x: x.repeat_interleave(3),
    "repeat_interleave each": lambda torch, x: x.repeat_interleave(torch.tensor([1, 0, 2, 3]), 0),
    "repeat_interleave wrong": lambda torch, x: x.repeat_interleave(torch.tensor([1, 2]), 0),
    "diag": lambda torch, x: torch.diag(x.view(4, 6), 1),
    "diag of a vector": lambda torch, x: x.view(-1)[:5].diag(-2),
    "diag of three": lambda torch, x: x.diag(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_view(name: str) -> None:
    for source in SOURCES.values():
        agree(lambda torch, x, source=source: VIEWS[name](torch, source(x)), counted(4, 1, 6))


@pytest.mark.parametrize("name", COPIES)
def test_copy(name: str) -> None:
    """Copies are compared without strides: PyTorch keeps some orders of axes that here become row-major."""
    agree(COPIES[name], counted(4, 1, 6), strides=False)


def test_broadcast_tensors() -> None:
    agree(lambda torch, a, b: torch.broadcast_tensors(a, b), counted(3, 1), counted(2, 1, 4))
    agree(lambda torch, a, b: torch.broadcast_tensors(a, b), counted(3), counted(2))
    assert OURS.broadcast_shapes((3, 1), 4, (2, 1, 1)) == torch.broadcast_shapes((3, 1), 4, (2, 1, 1))


@pytest.mark.parametrize("view", [lambda x: x.view(-1), lambda x: x.flatten(), lambda x: x.unsqueeze(0),
                                  lambda x: x.squeeze(), lambda x: x.reshape(1), lambda x: x.expand(3),
                                  lambda x: x.t(), lambda x: x.unfold(0, 1, 1), lambda x: x.unbind(),
                                  lambda x: x.split(1), lambda x: x.narrow(0, 0, 1), lambda x: x.select(0, 0),
                                  lambda x: x.transpose(0, 0), lambda x: x.chunk(1)])
def test_view_of_a_scalar(view: Callable[[Any], Any]) -> None:
    agree(lambda torch, x: view(x), np.float32(3).reshape(()))


def test_view_as_another_dtype() -> None:
    x = from_array(counted(2, 2))
    with pytest.raises(NotImplementedError, match="not reinterpreted"):
        x.view(dtypes.int32)
    assert x.view(dtypes.float32).shape == (2, 2)


def test_contiguous_is_the_tensor_itself() -> None:
    x = from_array(counted(3, 4))
    assert x.contiguous() is x
    copy = x.t().contiguous()
    copy.add_(1)
    np.testing.assert_array_equal(x.numpy(), counted(3, 4))
    np.testing.assert_array_equal(copy.numpy(), counted(3, 4).T + 1)


@pytest.mark.parametrize("seed", range(12))
def test_random_chains(seed: int) -> None:
    """Views of views of views, looked at, differentiated, and written through."""
    rng = np.random.default_rng(seed)
    theirs, ours = torch.tensor(counted(4, 3, 8)), from_array(counted(4, 3, 8))
    a, b = theirs, ours
    for _ in range(4):
        step = _random_view(rng, a)
        a, b = step(a), step(b)
        seen(a, b)
    if any(size > 1 and stride == 0 for size, stride in zip(a.shape, a.stride(), strict=True)):
        with pytest.raises(RuntimeError):
            b.mul_(2)
        return
    for number in (2, 3):
        a.mul_(number)
        b.mul_(number)
        a.add_(1)
        b.add_(1)
        seen(theirs, ours)
        seen(a, b)


def _random_view(rng: np.random.Generator, t: Any) -> Callable[[Any], Any]:
    """A view that is possible for t."""
    rank = t.dim()
    axis = int(rng.integers(rank)) if rank else 0
    size = t.shape[axis] if rank else 1
    kind = rng.integers(7)
    if kind == 0 or rank == 0:
        return lambda x: x.unsqueeze(axis)
    if kind == 1:
        order = rng.permutation(rank).tolist()
        return lambda x: x.permute(order)
    if kind == 2 and size > 1:
        place = int(rng.integers(size))
        return lambda x: x.select(axis, place)
    if kind == 3:
        start, step = int(rng.integers(size)), int(rng.integers(1, 3))
        return lambda x: x[(slice(None),) * axis + (slice(start, None, step),)]
    if kind == 4 and t.is_contiguous():
        return lambda x: x.view(-1)
    if kind == 5 and rank > 1:
        return lambda x: x.diagonal(0, 0, rank - 1)
    if kind == 6 and size % 2 == 0:
        return lambda x: x.unflatten(axis, (2, size // 2))
    return lambda x: x.squeeze()


# Writing ----------------------------------------------------------------------------------------------------
WRITES: dict[str, Callable[[Any], Any]] = {
    "select": lambda x: x[1],
    "step": lambda x: x[:, ::2],
    "transpose": lambda x: x.t(),
    "diagonal": lambda x: x.diagonal(),
    "diagonal of a transpose": lambda x: x.t().diagonal(1),
    "column": lambda x: x[:, 2],
    "reshaped": lambda x: x.view(2, 3, 4)[1],
    "unbound": lambda x: x.unbind(1)[3],
    "split": lambda x: x.split(2, 1)[1],
    "squeezed": lambda x: x.unsqueeze(0)[:, 1:3],
    "new axis": lambda x: x[None, :, None, 1:],
    "expanded by nothing": lambda x: x.expand(1, 6, 4),
    "detached": lambda x: x.detach()[2],
    "alias": lambda x: x[...],
    "narrowed": lambda x: x.narrow(0, 4, 2),
    "empty": lambda x: x[3:3],
}


@pytest.mark.parametrize("name", WRITES)
def test_write_through(name: str) -> None:
    def program(torch: Any, x: Any) -> Any:
        x = x.clone()
        other = x[:, 1:]
        before = x * 1
        part = WRITES[name](x)
        part.mul_(10)
        part += 1
        return x, part, other, before

    agree(program, counted(6, 4), strides=False, gradients=False)


# PyTorch has no gradients through writes to one of several views made at once; here they are like others.
@pytest.mark.parametrize("name", [name for name in WRITES if name not in ("detached", "unbound", "split")])
def test_gradients_through_writes(name: str) -> None:
    def program(torch: Any, x: Any, y: Any) -> Any:
        z = x * 2
        part = WRITES[name](z)
        part.mul_(3)
        part.add_(y.sum())
        return z * z, part

    agree(program, counted(6, 4), counted(2), strides=False)


def test_overlapping_views() -> None:
    def program(torch: Any, x: Any) -> Any:
        x = x.clone()
        first, second = x[0:4], x[2:6]
        first += 1
        second *= 2
        first += 1
        return x, first, second

    agree(program, counted(6, 4), strides=False, gradients=False)


def test_expanded_views_cannot_be_written() -> None:
    for make in (lambda x: x.expand(3, 4), lambda x: x.unsqueeze(0).expand(2, 4)[0:1].expand(5, 4)):
        for library in (torch.tensor, from_array):
            with pytest.raises(RuntimeError, match="single memory location"):
                make(library(counted(4))).add_(1)


def test_leaves_cannot_be_written() -> None:
    for library in (torch.tensor, from_array):
        x = library(counted(3, 4)).requires_grad_()
        for write in (lambda x: x.add_(1), lambda x: x[0].add_(1), lambda x: x.t()[0:2].mul_(2),
                      lambda x: x.__setitem__(0, 1.0), lambda x: x.__setitem__(slice(1, 2), x[0:1])):
            with pytest.raises(RuntimeError, match="leaf Variable"):
                write(x)
        x.detach()[0].mul_(2)
        assert array(x)[0].tolist() == [0, 2, 4, 6]


def test_a_saved_value_that_was_written_is_an_error() -> None:
    for library in (torch.tensor, from_array):
        for write in (lambda y: y.add_(1), lambda y: y[0].add_(1), lambda y: y.t()[1].mul_(2),
                      lambda y: y.detach().mul_(2), lambda y: y.__setitem__(0, 5.0)):
            x = library(counted(3, 4)).requires_grad_()
            y = x * 2
            z = (y * y).sum()
            write(y)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                z.backward()


# NumPy ------------------------------------------------------------------------------------------------------
def both(a: np.ndarray) -> list[tuple[np.ndarray, Any]]:
    """(array, tensor that shares its memory) for PyTorch and for this package."""
    return [(copy, library(copy)) for library in (torch.from_numpy, from_numpy) for copy in [a.copy()]]


def test_shared_both_ways() -> None:
    for a, t in both(counted(3, 4)):
        t.add_(1)
        assert a[0, 0] == 1
        a[1] = 50
        assert t[1].tolist() == [50] * 4
        assert (t + 1).tolist()[1] == [51] * 4
        view = t[:, 1]
        a[:, 1] = 7
        assert view.tolist() == [7] * 3
        view.mul_(2)
        assert a[:, 1].tolist() == [14] * 3
        t[0] = 3
        assert a[0].tolist() == [3] * 4
        t.t()[2] += 1
        assert a[0, 2] == 4


def test_what_was_recorded_before_a_write_keeps_the_old_value() -> None:
    for shape in ((3, 4), (100, 100)):  # Small memory is copied when read; what reads large memory runs.
        for a, t in both(counted(*shape)):
            before, part = t * 2, t[1:].clone()
            a += 1
            after = t * 2
            np.testing.assert_array_equal(before.numpy(), counted(*shape) * 2)
            np.testing.assert_array_equal(part.numpy(), counted(*shape)[1:])
            np.testing.assert_array_equal(after.numpy(), (counted(*shape) + 1) * 2)


@pytest.mark.parametrize("size", [3, 100])
def test_a_write_that_reads_shared_memory_reads_it_now(size: int) -> None:
    for write in (lambda u, t: u.add_(t), lambda u, t: u.__setitem__(0, t[0]),
                  lambda u, t: u[1:].mul_(t[1:])):
        results = []
        for a, t in both(counted(size, size)):
            u = t.clone()
            write(u, t)
            a += 1
            results.append(u.numpy())
        np.testing.assert_array_equal(*results)


def test_exported_memory_stays_shared() -> None:
    for make in (torch.tensor, from_array):
        t = make(counted(4, 6)) * 1
        whole, part, column = t.numpy(), t[1:3].numpy(), t.t()[2].numpy()
        assert np.shares_memory(whole, part) and np.shares_memory(whole, column)
        t.mul_(2)
        assert whole[1, 0] == part[0, 0] == 12
        part[0, 2] = -1
        assert t[1, 2].item() == -1 and column[1] == -1
        t[1] = 5
        assert part[0].tolist() == [5] * 6
        waiting = t + 0
        whole[...] = 0
        assert waiting[1].tolist() == [5] * 6
        assert t.tolist() == np.zeros((4, 6)).tolist()
        t.detach().add_(1)
        assert whole.min() == 1


def test_detached_tensors_share_memory() -> None:
    for make in (torch.tensor, from_array):
        x = make(counted(3)).requires_grad_()
        y = x * 2
        d = y.detach()
        assert not d.requires_grad and y.requires_grad
        d.add_(1)
        assert array(y).tolist() == [1, 3, 5]
        d[0] = 9
        assert array(y).tolist() == [9, 3, 5]


@pytest.mark.parametrize("seed", range(6))
def test_random_writes_from_both_sides(seed: int) -> None:
    """In-place operations through views interleaved with NumPy writes: memory agrees after every step."""
    rng = np.random.default_rng(seed)
    (a, theirs), (b, ours) = both(counted(4, 6))
    views = [lambda t: t, lambda t: t[1], lambda t: t[:, ::2], lambda t: t.t()[1:3], lambda t: t.diagonal(),
             lambda t: t.view(2, 12)[1, 3:]]
    held = [(view(theirs), view(ours)) for view in views]
    for _ in range(8):
        kind, which, number = rng.integers(5), int(rng.integers(len(views))), int(rng.integers(1, 4))
        mine, yours = held[which]
        if kind == 0:
            mine.add_(number)
            yours.add_(number)
        elif kind == 1:
            mine[..., 0] = number
            yours[..., 0] = number
        elif kind == 2:
            a[number] -= 1
            b[number] -= 1
        elif kind == 3:
            x, y = mine * 2, yours * 2
            a[:, number] = 8
            b[:, number] = 8
            seen(x, y, strides=False)
        else:
            array(mine)[..., -1] = number
            array(yours)[..., -1] = number
        np.testing.assert_array_equal(b, a)
        for x, y in held:
            seen(x, y)


def test_versions_count_writes_through_every_view() -> None:
    counts = []
    for library in (torch, torturous):
        x = library.zeros(4, 3)
        seen = [x._version]
        x[1:].add_(1)
        x.t().mul_(2)
        x[0] = 5.0
        seen += [x._version, x.detach()._version, (x + 1)._version]
        counts.append(seen)
    assert counts[0] == counts[1]


def test_what_is_overwritten_keeps_a_history_of_zeros() -> None:
    writes: list[Callable[[Any, Any], Any]] = [
        lambda z, y: z.copy_(y), lambda z, y: z[:].copy_(y), lambda z, y: z.view(2, 2).copy_(y.view(2, 2)),
        lambda z, y: z.fill_(2), lambda z, y: z[...].zero_(), lambda z, y: z.__setitem__(slice(None), y),
        lambda z, y: z[1:].copy_(y[1:]), lambda z, y: z.normal_(0, 0)]
    for write in writes:
        def program(torch: Any, x: Any, y: Any, write: Any = write) -> Any:
            z = x * 2
            write(z, y)
            return z * z

        agree(program, counted(4), counted(4), strides=False)


# Expanded views ---------------------------------------------------------------------------------------------
REPEATED: dict[str, Callable[[Any], Any]] = {
    "a vector": lambda torch: torch.tensor([-1.5]).expand(3),
    "rows": lambda torch: torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4),
    "a new axis": lambda torch: torch.arange(6.0).reshape(2, 3)[None].expand(4, 2, 3),
    "a middle axis, sliced": lambda torch: torch.arange(6.0).reshape(2, 3).t()[:, None].expand(3, 4, 2)[1:],
    "two axes, permuted": lambda torch: torch.arange(3.0).reshape(1, 3, 1).expand(2, 3, 4).permute(2, 1, 0),
    "reshaped": lambda torch: torch.arange(3.0).reshape(1, 3).expand(4, 3).view(2, 2, 3),
    "expanded again": lambda torch: torch.arange(3.0).reshape(1, 3).expand(2, 3)[:1].expand(3, 3),
    "nothing": lambda torch: torch.ones(2, 0).expand(3, 2, 0),
    "one place": lambda torch: torch.arange(3.0).reshape(1, 3).expand(2, 3)[1],
}


def like(torch: Any, v: Any) -> Any:
    """5, 6, … in v's shape."""
    return torch.arange(5.0, 5.0 + v.numel()).reshape(v.shape)


REPEATED_WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "add_": lambda torch, v: v.add_(1),
    "exp_": lambda torch, v: v.exp_(),
    "eq_": lambda torch, v: v.eq_(1),
    "normal_": lambda torch, v: v.normal_(),
    "copy_": lambda torch, v: v.copy_(like(torch, v)),
    "copy_ of one": lambda torch, v: v.copy_(torch.tensor(4.0)),
    "copy_ of itself": lambda torch, v: v.copy_(v),
    "fill_": lambda torch, v: v.fill_(3),
    "fill_ of a part": lambda torch, v: v[1:].fill_(2),
    "fill_ with a tensor": lambda torch, v: v.fill_(torch.tensor(3.0)),
    "zero_": lambda torch, v: v.zero_(),
    "masked_fill_": lambda torch, v: v.masked_fill_(like(torch, v) % 3 == 1, 7),
    "masked_fill_ with a tensor": lambda torch, v: v.masked_fill_(like(torch, v) > 7, torch.tensor(7.0)),
    "masked_scatter_": lambda torch, v: v.masked_scatter_(v > 0, torch.arange(40.0)),
    "a number where a mask is": lambda torch, v: v.__setitem__(v > 1, 7.0),
    "values where a mask is": lambda torch, v: v.__setitem__(v > 1, like(torch, v[v > 1])),
    "values where a mask was": lambda torch, v: v.__setitem__(v > 1, v[v > 1] + 1),
    "one place": lambda torch, v: v.__setitem__(0, 7.0),
    "values to one place": lambda torch, v: v.__setitem__(0, like(torch, v[0])),
    "values to a slice of one": lambda torch, v: v.__setitem__(slice(0, 1), like(torch, v[:1])),
    "one last place": lambda torch, v: v.__setitem__((..., -1), like(torch, v[..., -1])),
    "a number to a slice": lambda torch, v: v.__setitem__(slice(1, None), 7.0),
    "values to a slice": lambda torch, v: v.__setitem__(slice(1, None), like(torch, v[1:])),
    "a number to places": lambda torch, v: v.__setitem__(torch.tensor([0, 2]), 7.0),
    "values to places": lambda torch, v: v.__setitem__(torch.tensor([2, 0]), like(torch, v[[2, 0]])),
    "values to last places": lambda torch, v: v.__setitem__((..., torch.tensor([1, 0])), like(torch, v[..., [1, 0]])),
    "index_put_ adding": lambda torch, v: v.index_put_((torch.tensor([0, 2, 0]),), torch.tensor(3.0), True),
    "index_fill_": lambda torch, v: v.index_fill_(0, torch.tensor([0, -1]), 7.0),
    "index_fill_ of last": lambda torch, v: v.index_fill_(-1, torch.tensor([1, 0])[: v.shape[-1]], 7.0),
    "index_copy_": lambda torch, v: v.index_copy_(0, torch.tensor([0]), v[:1].clone()),
    "index_add_": lambda torch, v: v.index_add_(0, torch.tensor([0]), v[:1].clone()),
    "scatter_": lambda torch, v: v.scatter_(0, v.long() * 0, 3.0),
    "put_": lambda torch, v: v.put_(torch.tensor([0]), torch.tensor([5.0])),
    "a diagonal": lambda torch, v: v.diagonal().fill_(9),
    "added to a diagonal": lambda torch, v: v.diagonal(1, 0, -1).add_(9),
    "one of a transpose": lambda torch, v: v.transpose(0, -1)[0].mul_(2),
    "one of a flat view": lambda torch, v: v.view(-1)[1].add_(9),
    "blocks": lambda torch, v: v.unfold(0, 2, 2)[0].fill_(9),
    "one of two blocks": lambda torch, v: v.unfold(0, 1, 2)[0, ..., 0].add_(9),
}


@pytest.mark.parametrize("write", REPEATED_WRITES)
def test_writes_to_repeated_places(write: str) -> None:
    """PyTorch refuses most; what it allows has one meaning."""
    for name, make in REPEATED.items():
        outcomes = []
        for library in (torch, torturous):
            library.manual_seed(0)
            v = make(library)
            outcome = attempt(REPEATED_WRITES[write], library, v)
            outcomes.append(type(outcome) if isinstance(outcome, Exception) else v.tolist())
        assert outcomes[0] == outcomes[1], name


@pytest.mark.parametrize("write", [
    lambda v, y: v[0].mul_(y), lambda v, y: v[1:2].copy_(y), lambda v, y: v[1].add_(y), lambda v, y: v[:1].mul_(y),
    lambda v, y: v.t()[:, 1].mul_(y), lambda v, y: v.__setitem__(0, y)])
def test_gradients_through_writes_to_one_of_repeated_places(write: Callable[[Any, Any], Any]) -> None:
    def program(torch: Any, x: Any, y: Any) -> Any:
        z = x * 2
        write(z.expand(3, 4), y)
        return z * z

    agree(program, counted(4), counted(4), strides=False)


def _written(change):
    def program(zeros, x):
        change(zeros, x)
        return zeros
    return program


WRITES = {
    "part": _written(lambda v, x: v.__setitem__(slice(1, 3), x[:2])),
    "number": _written(lambda v, x: v.add_(x).__setitem__(0, 5.0)),
    "product": _written(lambda v, x: v[1:].mul_(x[0])),
    "sum": _written(lambda v, x: v[1:].add_(x[0])),
    "whole": _written(lambda v, x: v.add_(x)),
    "whole copy": _written(lambda v, x: v.copy_(x)),
    "another shape": _written(lambda v, x: v.view(2, 2).copy_(x.view(2, 2))),
    "turned": _written(lambda v, x: v.view(2, 2).t().copy_(x.view(2, 2))),
    "behind its back": _written(lambda v, x: v.add_(x)[1:].detach().copy_(x[1:])),
}


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("program", WRITES.values(), ids=WRITES)
def test_gradients_pass_a_write_through_a_view_once(program, retain):
    def outcome(lib):
        x = lib.tensor([1.0, 2.0, 3.0, 4.0]).requires_grad_()
        written = program(lib.zeros(4), x)
        try:
            written.sum().backward(retain_graph=retain)
            written.sum().backward()
        except RuntimeError as error:
            return str(error)[:60]
        return x.grad.tolist()

    assert outcome(torturous) == outcome(torch)


@pytest.mark.parametrize("way", ["detach", "data", "no_grad"])
@pytest.mark.parametrize("write", [
    lambda lib, t: t.mul_(2.0), lambda lib, t: t[1:].copy_(lib.ones(3)), lambda lib, t: t.view(2, 2)[0].fill_(7.0),
], ids=["whole", "part", "view"])
def test_writes_that_autograd_does_not_see_leave_the_history(write, way):
    def outcome(lib):
        x = lib.tensor([1.0, 2.0, 3.0, 4.0]).requires_grad_()
        y = x * 3
        if way == "no_grad":
            with lib.no_grad():
                write(lib, y)
        else:
            write(lib, y.detach() if way == "detach" else y.data)
        (y * y).sum().backward()
        return x.grad.tolist(), y.tolist()

    assert outcome(torturous) == outcome(torch)
