"""`torturous export` as users call it."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import torturous as torch

SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 3)
    def forward(self, features):
        return torch.relu(self.linear(features))

class Holder:
    table = torch.nn.Embedding

def with_examples():
    return Net(), (torch.ones(4, 6),)

number = 3

class Asks(Net):
    def forward(self, features):
        return features if features.sum() > 0 else -features
"""


def export(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "mynet.py").write_text(SOURCE)
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "torturous", "export", *arguments], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root})


def test_a_class_with_weights(tmp_path: Path) -> None:
    torch.save({"linear.weight": torch.ones(3, 6), "linear.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    ran = export(tmp_path, "mynet:Net", "--weights", "w.safetensors", "--output", "out", "--example", "2,6",
                 "--target", "avx2", "--name", "tiny", "--max-batch", "5", "--batch", "4")
    assert ran.returncode == 0, ran.stderr
    assert "bytes of code for avx2" in ran.stdout
    header = (tmp_path / "out" / "tiny.h").read_text()
    assert "const float *features, float *output, int64_t batch" in header
    assert "#define TINY_MAX_BATCH 5" in header
    loaded = torch.load(tmp_path / "out" / "tiny.safetensors")
    assert bool((loaded["linear.weight"] == 1).all())


def test_examples_of_its_own(tmp_path: Path) -> None:
    ran = export(tmp_path, "mynet:with_examples", "--output", "out", "--target", "wasm32", "--embed-weights")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "libnet.a").exists()


@pytest.mark.parametrize("arguments, words", [
    (["mynet:Net"], "describe forward's arguments with --example"),
    (["mynet:with_examples", "--example", "1,6"], "examples of its own"),
    (["mynet"], "not of the form module:function"),
    (["nothere:Net"], "no module 'nothere'"),
    (["mynet:Nit"], "mynet has no Nit"),
    (["mynet:number"], "is not a function: int"),
    (["mynet:Net", "--example", "1,six"], "not of the form 1,1,28,28"),
    (["mynet:Net", "--example", "1,6:complex"], "not of the form 1,1,28,28"),
    (["mynet:Net", "--example", "1,6", "--target", "z80"], "no target 'z80'"),
    (["mynet:Net", "--example", "1,6", "--target", "avx2", "--size-budget", "100"], "size_budget allows 100"),
    (["mynet:Asks", "--example", "1,6"], "needs a tensor's value at"),
])
def test_what_cannot_be_is_said(arguments: list[str], words: str, tmp_path: Path) -> None:
    ran = export(tmp_path, *arguments, "--output", "out")
    assert ran.returncode == 1
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()
