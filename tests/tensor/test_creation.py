"""Making and converting tensors against PyTorch: data, fills, sequences, NumPy memory, Python values,
copies."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor.against_torch import DTYPES, Pair, attempt, check, sample

import torturous


def evaluate(expression: str, **names: Any) -> tuple[Any, Any]:
    return tuple(  # type: ignore[return-value]
        attempt(eval, expression, {"lib": library, "t": library.tensor, "np": np, "math": math, **names})
        for library in (torturous, torch)
    )


RESULTS = [
    # From data
    "t(3)", "t(2.5)", "t(True)", "t([])", "t([[], []])", "t([1, 2.5, True])", "t([True, 2])",
    "t([True, False])", "t([[1, 2], [3, 4]])", "t((1, (2)))", "t([1, 2], dtype=lib.float16)",
    "t([1.7, -1.7], dtype=lib.int64)", "t([-1], dtype=lib.uint8)", "t([2, 0, -1], dtype=lib.bool)",
    "t(np.float32(1))", "t(np.float64(1))", "t(np.int64(3))", "t([np.float32(1)])",
    "t([np.ones(2), np.ones(2)])", "t(np.arange(6).reshape(2, 3))", "t(np.ones(3, np.float16))",
    "t([t(1.0), t(2)])", "t([[t(1), 2]])", "t([t(1.0), 2.5], dtype=lib.float64)",
    "t([1.0], requires_grad=True)", "t(t([1, 2]))", "t([3], device='cpu')", "t([3], dtype=float)",
    "t([math.inf, math.nan])", "t(range(3))", "lib.as_tensor([1, 2])", "lib.as_tensor(np.ones(2))",
    "lib.as_tensor(t([1]), dtype=lib.float32)", "lib.scalar_tensor(3)",
    "lib.scalar_tensor(3, dtype=lib.int64)",
    # Filled
    "lib.zeros(2, 3)", "lib.zeros((2, 3))", "lib.zeros([2])", "lib.zeros(())", "lib.zeros(size=(2,))",
    "lib.ones(2, 0)", "lib.ones(2, dtype=lib.bool)", "lib.zeros(2, requires_grad=True)",
    "lib.zeros(lib.tensor(2), 3)", "lib.zeros(2, dtype=int)", "lib.full((2,), 3)", "lib.full((2,), 2.5)",
    "lib.full((2,), True)", "lib.full((2,), 3, dtype=lib.float64)", "lib.full((), t(2.5))",
    "lib.full([2], math.inf)", "lib.full((2,), 2.7, dtype=lib.int64)", "lib.zeros_like(t([1, 2]))",
    "lib.ones_like(t([1.0]), dtype=lib.int32)", "lib.full_like(t([1]), 2.5)",
    "lib.ones_like(t([1.0]), requires_grad=True)", "lib.zeros(2, layout=lib.strided, pin_memory=False)",
    "lib.zeros_like(t([1.0]), memory_format=lib.preserve_format)", "lib.empty(2, 3).shape",
    "str(lib.empty_like(t([1])).dtype)", "t([1.0]).new_zeros(2, 3)", "t([1]).new_ones((2,))",
    "t([1.0]).new_full((2,), 3)", "t([1.0]).new_tensor([1, 2])", "t([1]).new_zeros(2, dtype=lib.float32)",
    "t([1.0]).new_empty(4).shape",
    # Sequences
    "lib.arange(5)", "lib.arange(5.0)", "lib.arange(1, 4)", "lib.arange(1, 2.5, 0.5)", "lib.arange(5, 0, -2)",
    "lib.arange(0)", "lib.arange(3, 3)", "lib.arange(5, dtype=lib.uint8)", "lib.arange(0, 1, 0.1)",
    "lib.arange(-3, 3, 2)", "lib.arange(4, dtype=lib.float16)", "lib.arange(t(3))",
    "lib.arange(0, 10, 3, dtype=lib.float64)", "lib.arange(1, 3.7, dtype=lib.int64)",
    "lib.arange(2, requires_grad=False)", "lib.arange(0.1, 2, 0.3)", "lib.linspace(0, 1, 5)",
    "lib.linspace(0, 1, 0)", "lib.linspace(2, 1, 1)", "lib.linspace(-3, 7, 11)",
    "lib.linspace(0, 10, 5, dtype=lib.int64)", "lib.linspace(1, 0, 4, dtype=lib.float64)",
    "lib.linspace(0, 1, 2)", "lib.eye(3)", "lib.eye(2, 3)", "lib.eye(3, 2, dtype=lib.int64)", "lib.eye(0)",
    "lib.eye(2, dtype=lib.bool)", "lib.tril(lib.ones(3, 4))", "lib.tril(lib.ones(3, 4), 1)",
    "lib.triu(lib.ones(4, 3), -1)", "lib.arange(6).view(2, 3).triu()", "lib.ones(2, 3, 3).tril(-1)",
    "lib.ones(2, 2, dtype=lib.bool).triu(1)", "lib.ones(3, 3).triu_(1)",
    # Old constructors
    "lib.Tensor([1, 2])", "lib.Tensor(2, 3).shape", "lib.Tensor()", "lib.LongTensor([1, 2])",
    "lib.FloatTensor(2, 3).shape", "lib.DoubleTensor([[1], [2]])", "lib.BoolTensor([True])",
    "lib.ByteTensor([1])", "isinstance(t([1]), lib.LongTensor)", "isinstance(t([1.0]), lib.LongTensor)",
    "isinstance(t([1.0]), lib.Tensor)",
    # Conversions
    "t([1.5]).int()", "t([1, 0]).bool()", "t([1]).float()", "t([1]).double()", "t([1]).half()",
    "t([1]).bfloat16()", "t([2.9]).long()", "t([300.0]).byte()", "t([1]).to(lib.float64)", "t([1]).to('cpu')",
    "t([1]).to('cpu', lib.float32)", "t([1]).to(dtype=lib.float16)", "t([1]).to(t([1.5]))",
    "t([1]).to(lib.device('cpu'), non_blocking=True)", "t([1.0]).type()", "t([1]).type(lib.FloatTensor)",
    "t([1]).type('torch.DoubleTensor')", "t([1]).type(lib.float16)", "t([1.0]).type_as(t([1]))",
    "t([1]).to(lib.float32, copy=True)", "t([1.0]).cpu()", "t([1]).to(float)", "t([1.5]).item()",
    "t(3).item()", "t(True).item()", "t([[2.5]]).item()", "t([1.5], dtype=lib.bfloat16).item()",
    "t([[1, 2], [3, 4]]).tolist()", "t(1.5).tolist()", "t([1.5], dtype=lib.bfloat16).tolist()",
    "t([]).tolist()", "bool(t([1]))", "bool(t(0.0))", "int(t([2.7]))", "float(t(3))", "len(t([1, 2]))",
    "[5, 6, 7][t(1)]", "list(range(t(3)))", "1 in t([1, 2])", "5 in t([1, 2])", "f'{t(1.5):.2f}'",
    "f'{t([1.5])}'", "'%d' % t(3)", "complex(t(2.0))",
    # What a tensor says of itself
    "lib.zeros(2, 3).size()", "lib.zeros(2, 3).size(-1)", "lib.zeros(2, 3).stride()",
    "lib.zeros(2, 3).stride(0)", "lib.zeros(2, 3).dim()", "lib.zeros(2, 3).ndim", "lib.zeros(2, 3).numel()",
    "lib.zeros(2, 3).nelement()", "lib.zeros(2, dtype=lib.float64).element_size()",
    "lib.zeros(4, 3)[1:].storage_offset()", "lib.zeros(2, 3).is_contiguous()",
    "lib.zeros(2, 3).T.is_contiguous()", "lib.zeros(2).is_floating_point()", "lib.is_floating_point(t([1]))",
    "lib.is_tensor(t([1]))", "lib.is_tensor(1)", "lib.numel(lib.zeros(2, 3))", "str(lib.zeros(2).device)",
    "lib.zeros(2).is_cuda", "lib.zeros(2).nbytes", "lib.zeros(2).itemsize", "str(lib.zeros(2).layout)",
    "t([1.0]).is_leaf", "t([1.0]).requires_grad", "t([1.0], requires_grad=True).grad_fn",
    "(t([1.0], requires_grad=True) * 2).is_leaf", "lib.zeros(2).data.requires_grad",
    # Types
    "str(lib.promote_types(lib.uint8, lib.float16))", "str(lib.result_type(t([1]), 1.5))",
    "str(lib.result_type(t(1), t([1.0])))", "lib.can_cast(lib.float32, lib.int64)",
    "lib.can_cast(lib.bool, lib.uint8)", "repr(lib.finfo(lib.float32))", "repr(lib.finfo(lib.float64))",
    "repr(lib.finfo(lib.float16))", "repr(lib.finfo(lib.bfloat16))", "repr(lib.iinfo(lib.uint8))",
    "lib.finfo(lib.float32).eps", "lib.iinfo(lib.int64).max", "str(lib.get_default_dtype())",
    "repr(lib.float32)", "repr(lib.device('cpu'))", "str(lib.device('cpu', 0))", "repr(lib.device('cpu:0'))",
    "lib.device('cpu') == lib.device('cpu')", "lib.device('cpu') == 'cpu'", "lib.device('cpu').type",
    "lib.zeros(2, 3).size() == (2, 3)", "repr(lib.zeros(2, 3).size())",
]
ERRORS = [
    "t([[1], [1, 2]])", "t([[1, 2], 3])", "t(['a'])", "t('a')", "t(None)", "t([1, None])", "t([2**70])",
    "t(2**63)", "t([300], dtype=lib.uint8)", "t([2**40], dtype=lib.int32)", "t([t([1.0, 2.0])])",
    "t([1], requires_grad=True)", "t([math.inf], dtype=lib.int64)", "lib.zeros(-1)", "lib.zeros(2.0)",
    "lib.zeros(2, dtype='f')", "lib.zeros(2, device='foo')",
    "lib.zeros(2, dtype=lib.int64, requires_grad=True)", "lib.full((2,), 'a')", "lib.arange(0, 5, 0)",
    "lib.arange(0, -5, 1)", "lib.linspace(0, 1, -1)", "lib.eye(-1)", "lib.tril(t([1]))",
    "lib.zeros(2, colour=1)", "lib.Tensor(5.0)", "lib.from_numpy([1])", "lib.from_numpy(np.ones(3)[::-1])",
    "lib.from_numpy(np.ones(3, '>f4'))", "lib.from_numpy(np.array(['a']))", "t([1.0, 2.0]).item()",
    "t([]).item()", "bool(t([]))", "bool(t([1, 2]))", "int(t([1, 2]))", "len(t(1))", "[1, 2][t(1.0)]",
    "[1, 2][t([0, 1])]", "list(t(1))", "f'{t([1.5]):.2f}'", "'a' in t([1])",
    "t([1.0], requires_grad=True).numpy()", "t([1.0], dtype=lib.bfloat16).numpy()", "t([1]).requires_grad_()",
    "(t([1.0], requires_grad=True) * 2).requires_grad_(False)", "lib.zeros(2).size(5)",
    "t([1]).type('torch.NoTensor')", "lib.device('foo')", "lib.iinfo(lib.float32)", "lib.finfo(lib.int32)",
    "lib.set_default_dtype(lib.int64)", "t([1]).to('nowhere')", "t([1.0]).to(3, 4, 5, 6)",
]


@pytest.mark.parametrize("expression", RESULTS)
def test_results(expression):
    mine, theirs = evaluate(expression)
    assert not isinstance(theirs, Exception), theirs
    check(mine, theirs, expression)


@pytest.mark.parametrize("expression", ERRORS)
def test_errors(expression):
    mine, theirs = evaluate(expression)
    assert isinstance(theirs, Exception)
    check(mine, theirs, expression)


def test_only_the_cpu_exists():
    for make in (lambda: torturous.zeros(2, device="cuda:0"),
                 lambda: torturous.zeros(2).to("mps"), lambda: torturous.zeros(2).cuda(),
                 lambda: torturous.zeros(2).to(0)):
        with pytest.raises((RuntimeError, AssertionError), match="cpu|CPU"):
            make()
    with pytest.raises(NotImplementedError, match="row-major"):
        torturous.zeros(2, 3, 4, 4).to(memory_format=torturous.channels_last)


# NumPy memory -----------------------------------------------------------------------------------------------
ARRAYS = {
    "contiguous": lambda a: a,
    "transposed": lambda a: a.T,
    "permuted": lambda a: a.transpose(1, 2, 0),
    "rows": lambda a: a[1:3],
    "every other": lambda a: a[::2, 1::2],
    "columns": lambda a: a[:, :, 1:3],
    "one": lambda a: a[:, 2],
    "last": lambda a: a[-1, -1, -1:],
    "stepped": lambda a: a[:, :, ::3],
    "all three": lambda a: a[1::2, 1:3, 1:4].transpose(2, 0, 1),
    "repeated": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "nothing": lambda a: a[:, 2:2],
    "scalar": lambda a: a[1, 1, 1],
    "Fortran": lambda a: np.asfortranarray(a),
    "corner": lambda a: a[:2, 1:, 2:4],
    "steps of two": lambda a: a[1:, 1::2, ::2],
    "flat": lambda a: a.reshape(-1)[3::7],
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_from_numpy_shares_memory_both_ways(kind):
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    reference = whole.copy()
    array, expected = np.asarray(ARRAYS[kind](whole)), np.asarray(ARRAYS[kind](reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine = torturous.from_numpy(array)
        theirs = torch.from_numpy(np.array(expected) if kind == "repeated" else expected)
    check(mine, theirs, kind)
    if kind != "repeated" and array.size:
        strides = zip(mine.stride(), theirs.stride(), array.shape, strict=True)
        assert all(a == b for a, b, size in strides if size > 1)
    if kind in ("repeated", "scalar"):
        return
    mine.mul_(2)
    theirs.mul_(2)
    np.testing.assert_array_equal(whole, reference, err_msg="written through the tensor")
    if array.size:
        array[...] = 7
        assert mine.sum().item() == 7 * array.size, "written through the array"


def test_from_numpy_refuses_overlapping_elements():
    overlapping = np.lib.stride_tricks.as_strided(np.arange(5.0), (3, 3), (8, 8))
    with pytest.raises(NotImplementedError, match="copy"):
        torturous.from_numpy(overlapping)


def test_numpy_shares_memory_both_ways():
    t = torturous.arange(6, dtype=torturous.float32).reshape(2, 3)
    array, column = t.numpy(), t[:, 1].numpy()
    t.add_(10)
    np.testing.assert_array_equal(array, [[10, 11, 12], [13, 14, 15]])
    np.testing.assert_array_equal(column, [11, 14])
    column[...] = 0
    assert t.tolist() == [[10, 0, 12], [13, 0, 15]]
    assert np.asarray(t[0]).sum() == 22 and np.sqrt(t[0]).dtype == torturous.float32


# Copies -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 2)], ids=str)
def test_pickling_and_copying(dtype, shape):
    x = Pair(sample(shape, dtype), dtype)
    for other in (pickle.loads(pickle.dumps(x.mine)), copy.deepcopy(x.mine)):
        check(other, x.theirs, dtype)
        assert other is not x.mine
        other.zero_()
        check(x.mine, x.theirs, dtype)


def test_deep_copies_of_leaves_keep_gradients_and_of_results_fail():
    x = torturous.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    y, z = copy.deepcopy([x, x])
    assert y is z and y.requires_grad and y.grad.tolist() == [3.0, 3.0] and y.grad is not x.grad
    assert pickle.loads(pickle.dumps(x)).requires_grad
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


def test_data_is_the_same_memory_without_history_and_can_be_replaced():
    x = torturous.ones(3, requires_grad=True)
    x.data.mul_(2)
    assert x.tolist() == [2.0, 2.0, 2.0] and not x.data.requires_grad
    x.data = torturous.tensor([1.0, 5.0])
    (x * x).sum().backward()
    assert x.requires_grad and x.is_leaf and x.grad.tolist() == [2.0, 10.0]


def test_a_leaf_may_be_a_view_of_memory():
    part = torturous.ones(3, 2)[1].detach().requires_grad_()
    parameter = torturous.nn.Parameter(torturous.ones(4, 2)[1:])
    ((part * 2).sum() + (parameter * 3).sum()).backward()
    assert part.grad.tolist() == [2.0, 2.0] and parameter.grad.tolist() == [[3.0, 3.0]] * 3


def test_default_dtype():
    try:
        for library in (torturous, torch):
            library.set_default_dtype(library.float64)
        for expression in (
            "t(1.5)",
            "t([1]) / 2",
            "lib.zeros(2)",
            "lib.arange(2.0)",
            "t([1]).exp()",
            "lib.get_default_dtype()",
        ):
            mine, theirs = evaluate(expression)
            assert str(getattr(mine, "dtype", mine)) == str(getattr(theirs, "dtype", theirs)), expression
    finally:
        for library in (torturous, torch):
            library.set_default_dtype(library.float32)
    assert (torturous.tensor([1]) / 2).dtype is torturous.float32


@settings(max_examples=40)
@given(st.recursive(st.floats(-100, 100, width=32) | st.integers(-100, 100) | st.booleans(),
                    lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_nested_lists(data):
    mine, theirs = evaluate("t(data)", data=data)
    if isinstance(theirs, Exception):  # Ragged in several ways: which is told of first is not promised.
        assert isinstance(mine, (ValueError, TypeError))
    else:
        check(mine, theirs, repr(data))


@settings(max_examples=40)
@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([1, 2, 3, -1, -4, 0.5, 0.25, -0.75]))
def test_ranges(start, end, step):
    mine, theirs = evaluate("lib.arange(start, end, step)", start=start, end=end, step=step)
    check(mine, theirs, f"{start}:{end}:{step}")
