"""Products of vectors, matrices and batches, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch as reference

import torturous as torch

SHAPES = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
          ((5, 1, 2, 3), (4, 3, 2)), ((2, 3), (5, 3, 4)), ((3,), (5, 3, 4)), ((0, 3), (3, 4)), ((2, 0), (0, 4)),
          ((70, 300), (300, 33)), ((1, 1), (1, 1))]


def pair(shape, dtype, seed):
    values = np.random.default_rng(seed).standard_normal(shape) * 2
    mine = torch.tensor(values).to(getattr(torch, dtype))
    theirs = reference.tensor(values).to(getattr(reference, dtype))
    if mine.is_floating_point():
        return mine.requires_grad_(), theirs.requires_grad_()
    return mine, theirs


def close(mine, theirs, tolerance):
    assert tuple(mine.shape) == tuple(theirs.shape) and str(mine.dtype) == str(theirs.dtype)
    a, b = np.array(mine.double().tolist()), np.array(theirs.double().tolist())
    assert a.size == 0 or np.abs(a - b).max() <= tolerance * (1 + np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8"])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_matmul(shapes, dtype):
    (a, ra), (b, rb) = pair(shapes[0], dtype, 0), pair(shapes[1], dtype, 1)
    mine, theirs = a @ b, ra @ rb
    tolerance = {"float64": 1e-14, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}.get(dtype, 0)
    close(mine, theirs, tolerance)
    if mine.requires_grad:
        mine.sum().backward()
        theirs.sum().backward()
        close(a.grad, ra.grad, tolerance)
        close(b.grad, rb.grad, tolerance)


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
def test_strided_operands(transposed):
    a, ra = pair((37, 50) if not transposed[0] else (50, 37), "float32", 0)
    b, rb = pair((50, 20) if not transposed[1] else (20, 50), "float32", 1)
    mine = (a.t() if transposed[0] else a) @ (b.t() if transposed[1] else b)[:, ::2]
    theirs = (ra.t() if transposed[0] else ra) @ (rb.t() if transposed[1] else rb)[:, ::2]
    close(mine, theirs, 2e-6)


@pytest.mark.parametrize("equation, shapes", [
    ("ij,jk->ik", [(2, 3), (3, 4)]), ("bij,bkj->bik", [(2, 3, 4), (2, 5, 4)]), ("i,j->ij", [(3,), (4,)]),
    ("ij->ji", [(2, 3)]), ("ijk->k", [(2, 3, 4)]), ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("ij,ij->", [(2, 3), (2, 3)]), ("ij,jk", [(2, 3), (3, 4)]), ("ab,cd->ac", [(2, 3), (4, 5)])])
def test_einsum(equation, shapes):
    pairs = [pair(shape, "float64", n) for n, shape in enumerate(shapes)]
    mine = torch.einsum(equation, *[p[0] for p in pairs])
    theirs = reference.einsum(equation, *[p[1] for p in pairs])
    close(mine, theirs, 1e-13)
    mine.sum().backward()
    theirs.sum().backward()
    for m, t in pairs:
        close(m.grad, t.grad, 1e-13)


PROGRAMS = {
    "mm": lambda lib, t: t(2, 3).mm(t(3, 4)),
    "bmm": lambda lib, t: lib.bmm(t(5, 2, 3), t(5, 3, 4)),
    "mv": lambda lib, t: t(2, 3).mv(t(3)),
    "dot": lambda lib, t: t(3).dot(t(3)),
    "outer": lambda lib, t: lib.outer(t(3), t(4)),
    "addmm": lambda lib, t: lib.addmm(t(4), t(2, 3), t(3, 4), beta=0.5, alpha=2),
    "addmm of integers": lambda lib, t: lib.addmm(lib.ones(2, 4, dtype=lib.int64), lib.arange(6).reshape(2, 3),
                                                  lib.arange(12).reshape(3, 4), beta=1.5, alpha=-2.7),
    "addmm beta 0": lambda lib, t: lib.addmm(t(4) * float("nan"), t(2, 3), t(3, 4), beta=0),
    "baddbmm": lambda lib, t: t(2, 4).baddbmm(t(5, 2, 3), t(5, 3, 4)),
    "addmv": lambda lib, t: t(2).addmv(t(2, 3), t(3)),
    "wrong mm": lambda lib, t: t(2, 3).mm(t(4, 5)),
    "mm of 3-D": lambda lib, t: t(2, 3, 4).mm(t(4, 5)),
    "wrong bmm": lambda lib, t: lib.bmm(t(5, 2, 3), t(4, 3, 4)),
    "wrong dot": lambda lib, t: t(3).dot(t(4)),
    "scalar": lambda lib, t: t() @ t(3),
    "number": lambda lib, t: t(3) @ 2,
    "wrong batch": lambda lib, t: t(2, 2, 3) @ t(3, 3, 2),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_functions(name):
    def make(library):
        random = np.random.default_rng(3)
        return lambda *shape: library.tensor(random.standard_normal(shape))

    try:
        theirs = PROGRAMS[name](reference, make(reference))
    except Exception as error:
        with pytest.raises(type(error)):
            PROGRAMS[name](torch, make(torch))
        return
    close(PROGRAMS[name](torch, make(torch)), theirs, 1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (0, 3, 3), (1, 1)], ids=str)
def test_inverse_between_native_stretches(shape):
    a, ra = pair(shape, "float64", 5)
    mine, theirs = ((a * 2 + 1).inverse() * a).tanh(), ((ra * 2 + 1).inverse() * ra).tanh()
    close(mine, theirs, 1e-9)
    mine.sum().backward()
    theirs.sum().backward()
    close(a.grad, ra.grad, 1e-7)
    with pytest.raises(RuntimeError):
        torch.zeros(2, 3).inverse()
    with pytest.raises(RuntimeError):
        torch.zeros(3).inverse()
