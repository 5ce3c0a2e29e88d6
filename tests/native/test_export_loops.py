"""Exported loops: recurrent layers, at every batch and through a parallel-for, bit for bit as in Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.test_export import BATCHES, build, needs_compiler, run
from native.tools import tool

import torturous as torch
from torturous import native, nn
from torturous.core.errors import UnsupportedError
from torturous.tensor import Tensor
from torturous.tensor.conversion import from_array

STEPS = 6


class Recurrent(nn.Module):
    """A recurrent layer over (batch, steps, 5), and a linear layer on its last output."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(5, 9, batch_first=True, **options)
        self.head = nn.Linear(9 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        output, last = self.recurrent(x)
        h = last[0] if isinstance(last, tuple) else last
        return self.head(output[:, -1]), output, h.transpose(0, 1)


@needs_compiler
@pytest.mark.parametrize("kind, options", [
    ("LSTM", {"num_layers": 2}), ("GRU", {"bidirectional": True}), ("RNN", {}), ("LSTM", {"bias": False}),
])
def test_recurrent_layers(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = Recurrent(kind, **options).eval()
    random = np.random.default_rng(0)
    program = None
    for batch in BATCHES:
        x = random.standard_normal((batch, STEPS, 5)).astype(np.float32)
        expected = [np.ascontiguousarray(value.detach().numpy()) for value in model(from_array(x))]
        if program is None:
            example = from_array(np.zeros((7, STEPS, 5), np.float32))
            bundle = native.export(model, (example,), tmp_path, max_batch=BATCHES[-1])
            program = build(bundle, 1 + len(expected))
        for mine, theirs in zip(run(program, bundle, batch, [x], expected), expected, strict=True):
            assert mine.tobytes() == theirs.tobytes()


def test_states_have_the_shapes_that_they_have_in_python(tmp_path: Path) -> None:
    """Also where two results are the same memory under different shapes."""
    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 9, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            output, (h, c) = self.lstm(x)
            return output, h, c

    native.export(States().eval(), (from_array(np.zeros((7, STEPS, 5), np.float32)),), tmp_path, target="avx2",
                  shared=False)
    outputs = json.loads((tmp_path / "net.json").read_text())["outputs"]
    assert [output["shape"] for output in outputs] == [["batch", STEPS, 9], [1, "batch", 9], [1, "batch", 9]]


def test_a_loop_over_the_batch_is_refused(tmp_path: Path) -> None:
    class OverBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0]

    with pytest.raises(UnsupportedError, match="number of steps of a loop"):
        native.export(OverBatch().eval(), (from_array(np.zeros((6, 5), np.float32)),), tmp_path)


@needs_compiler
def test_training_steps_of_a_recurrent_layer(tmp_path: Path) -> None:
    """The self-test makes three steps in C and compares losses and parameters with Python's."""
    torch.manual_seed(2)
    model = Recurrent("LSTM", num_layers=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    random = np.random.default_rng(0)
    example = (torch.tensor(random.standard_normal((6, STEPS, 5)).astype(np.float32)),
               torch.tensor(random.integers(0, 3, 6)))

    def loss(outputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs[0], target)

    native.export_training(model, loss, optimizer, example, tmp_path, target="avx2", shared=False, max_batch=8)
    program = tmp_path / "program"
    subprocess.run(
        [tool("cc"), "-O1", "-D_GNU_SOURCE", "-pthread", tmp_path / "net_selftest.c", f"-I{tmp_path}",
         tmp_path / "libnet.a", "-o", program], check=True)
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")
