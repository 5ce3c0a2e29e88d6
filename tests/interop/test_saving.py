"""Saving and loading state dicts as safetensors; `test_checkpoint.py` has PyTorch's own files."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch as reference

import torturous as torch

DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]


@pytest.fixture
def state():
    random = np.random.default_rng(0)
    values = {}
    for dtype in DTYPES:
        for shape in [(), (3,), (2, 3), (0, 4)]:
            t = torch.tensor(random.integers(0, 2, shape)).to(getattr(torch, dtype))
            values[f"{dtype}.{'x'.join(map(str, shape))}"] = t
    values["transposed"] = torch.tensor(random.standard_normal((3, 5)).astype(np.float32)).t()
    return values


def test_what_is_saved_is_loaded(state, tmp_path):
    torch.save(state, tmp_path / "state.safetensors")
    back = torch.load(tmp_path / "state.safetensors")
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype is value.dtype and back[name].shape == value.shape
        assert back[name].tolist() == value.tolist()


def test_pytorch_reads_it_and_we_read_pytorchs(state, tmp_path):
    torch.save(state, tmp_path / "ours.safetensors")
    theirs = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    for name, value in state.items():
        assert theirs[name].to(reference.float64).tolist() == value.to(torch.float64).tolist()
    safetensors.torch.save_file({name: value.clone() for name, value in theirs.items()}, tmp_path / "theirs")
    back = torch.load(tmp_path / "theirs")
    assert all(back[name].tolist() == value.tolist() for name, value in state.items())


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_named(damage, tmp_path):
    path = tmp_path / "damaged.safetensors"
    torch.save({"x": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(RuntimeError, match="damaged.safetensors"):
        torch.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.safetensors"
    torch.save({"x": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="'y'"):
        torch.save({"x": torch.zeros(2), "y": 3}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept.safetensors"]


def test_only_flat_mappings_of_tensors(tmp_path):
    for value in (torch.nn.Linear(2, 2), {"a": {"b": torch.ones(1)}}):
        with pytest.raises(NotImplementedError):
            torch.save(value, tmp_path / "x.safetensors")
