"""Bad input: PyTorch's type of error at the user's line, and nothing that anyone holds has changed."""

from __future__ import annotations

import traceback

import numpy as np
import pytest
import torch as reference

import torturous as torch
import torturous.nn as nn
import torturous.nn.functional as F
from benchmarks.models.net import make_net


@pytest.fixture
def trained():
    """A net whose optimizer has moments, and its optimizer."""
    net = make_net(torch)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    F.nll_loss(net(torch.randn(8, 1, 28, 28)), torch.randint(0, 10, (8,))).backward()
    optimizer.step()
    return net, optimizer


def bits(net, optimizer):
    """Every parameter and moment, as bytes."""
    tensors = [*net.parameters(), *(v for state in optimizer.state.values() for v in state.values()
                                    if isinstance(v, torch.Tensor))]
    return [t.detach().numpy().tobytes() for t in tensors]


BAD = {
    "channels": lambda lib, net: net(lib.zeros(2, 3, 28, 28)),
    "view": lambda lib, net: lib.zeros(4, 5).view(3, 7),
    "labels": lambda lib, net: lib.nn.functional.nll_loss(net(lib.zeros(2, 1, 28, 28)), lib.tensor([3, 10])),
    "dtype": lambda lib, net: net(lib.zeros(2, 1, 28, 28, dtype=lib.float64)),
    "matmul dtype": lambda lib, net: lib.zeros(2, 3) @ lib.zeros(3, 4, dtype=lib.int64),
    "not a tensor": lambda lib, net: net([1, 2, 3]),
    "non-scalar backward": lambda lib, net: net(lib.zeros(2, 1, 28, 28)).backward(),
    "no graph": lambda lib, net: lib.zeros(()).backward(),
    "sizes": lambda lib, net: lib.zeros(2, 3) + lib.zeros(2, 4),
    "matmul": lambda lib, net: lib.zeros(2, 3) @ lib.zeros(4, 5),
    "index": lambda lib, net: lib.zeros(3)[5],
    "axis": lambda lib, net: lib.zeros(3).sum(2),
}


@pytest.mark.parametrize("name", BAD)
def test_the_error_is_pytorchs_and_names_the_line(name, trained):
    net, optimizer = trained
    before = bits(net, optimizer)
    theirs = make_net(reference)
    with pytest.raises(Exception) as expected:
        BAD[name](reference, theirs)
    with pytest.raises(expected.type) as raised:
        BAD[name](torch, net)
    assert any(frame.filename == __file__ for frame in traceback.extract_tb(raised.tb))
    assert bits(net, optimizer) == before


def test_twice_backward():
    loss = (torch.ones(3, requires_grad=True) ** 2).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_a_module_is_named_by_its_path():
    net = make_net(torch)
    with pytest.raises(RuntimeError) as raised:
        net(torch.zeros(2, 3, 28, 28))
    text = "".join(traceback.format_exception(raised.value))
    assert "conv1" in text and "3 channels" in text and "[2, 3, 28, 28]" in text


def test_an_index_that_only_the_kernel_can_check_changes_nothing(trained):
    """The embedding's rows are computed, so nobody knows them before the step runs; the step then fails as a whole."""
    net, _ = trained
    table = nn.Embedding(5, 4)
    optimizer = torch.optim.Adam([*net.parameters(), *table.parameters()], lr=0.01)
    rows = torch.tensor([1.0, 2.0])

    def step(scale):
        optimizer.zero_grad()
        loss = table((rows * scale).long()).sum() + net(torch.randn(2, 1, 28, 28)).sum()
        loss.backward()
        optimizer.step()

    step(1.0)
    before = bits(nn.ModuleList([net, table]), optimizer)
    with pytest.raises(IndexError, match="range"):
        step(100.0)
    optimizer.zero_grad()
    assert bits(nn.ModuleList([net, table]), optimizer) == before
    step(2.0)
    assert bits(nn.ModuleList([net, table]), optimizer) != before


def test_an_index_out_of_range_touches_no_memory_outside():
    x = torch.zeros(4)
    neighbours = [torch.full((4,), float(n)) for n in range(8)]
    values = [t.tolist() for t in neighbours]
    for index in (4, -1, 10**6, -(10**6), 2**62):
        far = (torch.tensor([index]) + torch.tensor([0])).long()
        with pytest.raises((IndexError, RuntimeError)):
            x.index_add(0, far, torch.ones(1)).tolist()
        with pytest.raises((IndexError, RuntimeError)):
            torch.gather(x, 0, (torch.tensor([index]) + 0)).tolist()
    assert [t.tolist() for t in neighbours] == values and x.tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_infinity_and_subnormals_are_pytorchs(dtype):
    info = np.finfo(dtype)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal,
                        info.tiny, info.tiny / 2, info.max, -info.max, 1.0, -1.0], dtype)
    a, b = np.meshgrid(special, special)
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        mine = getattr(torch, name)(torch.tensor(a), torch.tensor(b)).numpy()
        theirs = getattr(reference, name)(reference.tensor(a), reference.tensor(b)).numpy()
        assert np.array_equal(mine, theirs, equal_nan=True), name
    for name in ("relu", "abs", "neg", "sqrt", "floor", "sign"):
        mine = getattr(torch, name)(torch.tensor(special)).numpy()
        assert np.array_equal(mine, getattr(reference, name)(reference.tensor(special)).numpy(), equal_nan=True), name


def test_a_host_op_that_raises_changes_nothing(trained):
    """A singular matrix in the middle of a step: the step fails as a whole, at a line that is named."""
    net, _ = trained
    matrix = nn.Parameter(torch.eye(3))
    optimizer = torch.optim.Adam([*net.parameters(), matrix], lr=0.01)

    def step(scale):
        optimizer.zero_grad()
        loss = (matrix * scale).inverse().sum() + net(torch.randn(2, 1, 28, 28)).sum()
        loss.backward()
        optimizer.step()

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.matrix = net, matrix

    step(1.0)
    before = bits(Both(), optimizer)
    with pytest.raises(RuntimeError, match="singular.*test_bad_input"):
        step(0.0)
    optimizer.zero_grad()
    assert bits(Both(), optimizer) == before
    step(2.0)
    assert bits(Both(), optimizer) != before
