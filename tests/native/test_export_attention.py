"""Attention in exported libraries: the same bits as in Python, forward and in training steps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from native import test_export, test_training
from native.test_export import needs_compiler

import torturous as torch
from torturous import Tensor, native, nn
from torturous.nn import functional as F


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.project = nn.Linear(32, 96)
        self.out = nn.Linear(32, 5)
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        samples, length, _ = x.shape
        parts = self.project(x).split(32, dim=2)
        q, k, v = (part.view(samples, length, 2, 16).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return F.log_softmax(self.out(y.transpose(1, 2).reshape(samples, length, 32).mean(1)), dim=1)


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
def test_inference(causal: bool, tmp_path: Path) -> None:
    model = Attention(causal).eval()
    kinds = [((37, 32), torch.float32)]
    bundle = test_export.export(model, kinds, tmp_path, max_batch=7)
    for batch in (1, 7):
        inputs = test_export.make_inputs(kinds, batch, seed=batch)
        expected = [model(torch.tensor(inputs[0])).detach().numpy()]
        (got,) = test_export.run(test_export.build(bundle, 2), bundle, batch, inputs, expected)
        assert got.tobytes() == expected[0].tobytes(), f"batch {batch}"


def test_training_steps(tmp_path: Path) -> None:
    model = Attention(True)
    random = np.random.default_rng(3)
    example = (torch.tensor(random.standard_normal((6, 37, 32)).astype(np.float32)),
               torch.tensor(random.integers(0, 5, 6)))
    native.export_training(model, F.nll_loss, torch.optim.SGD(model.parameters(), lr=0.1), example, tmp_path,
                           target=test_training.TARGET, shared=False, max_batch=8, name="net")
    program = test_training.build(tmp_path, tmp_path / "net_selftest.c")
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")
