"""Training through the wrappers for Rust, Go and Python: the same bits as steps in Python."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from native.test_training import OPTIMIZERS, example, export, files, small, train
from native.tools import tool
from safetensors.numpy import load_file

import torturous as torch
from torturous.compiler.sizes import Size
from torturous.core import dtypes
from torturous.native.describe import Value, count_text, size_text
from torturous.native.workspace import BATCH
from torturous.nn import functional as F

BATCH_SIZE = 5
STEPS = 4
"""Of which every other one is gradients and update apart."""


@pytest.fixture
def twin(tmp_path: Path) -> tuple[Any, list[float]]:
    """Exports to `tmp_path`; the model as STEPS steps in Python leave it, and their losses."""
    model = small()
    export(model, OPTIMIZERS["adam"](model), tmp_path, shared=None)
    optimizer = OPTIMIZERS["adam"](model)
    torch.manual_seed(9)
    image, target = example(BATCH_SIZE, seed=BATCH_SIZE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.nll_loss(model(image), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def check(printed: str, folder: Path, twin: tuple[Any, list[float]]) -> None:
    model, losses = twin
    assert [float(word) for word in printed.split()] == losses
    after = load_file(folder / "after")
    for key, value in model.state_dict().items():
        assert after[key].tobytes() == value.numpy().tobytes(), key


PYTHON = """
import sys, numpy, net
assert "torturous" not in sys.modules
image = numpy.fromfile("image", "f4").reshape(-1, 1, 8, 8)
target = numpy.fromfile("target", "i8")
trainer = net.Trainer(seed=9)
for step in range(4):
    if step % 2:
        loss, gradients = trainer.grad(image, target)
        assert gradients["linear.weight"].shape == (5, 36)
        trainer.apply(gradients, 0.01)
    else:
        loss = trainer.step(image, target, rate=0.01)
    print(repr(loss))
open("after", "wb").write(trainer.export())
for wrong in ((image, target[:2]), (image[:, :, :3], target)):
    try:
        trainer.step(*wrong, rate=0.01)
    except ValueError as error:
        assert "must have shape" in str(error)
    else:
        raise SystemExit("wrong shapes were taken")
try:
    trainer.step(image, target + 7, rate=0.01)
except ValueError as error:
    assert "out of range" in str(error)
"""


def python(folder: Path, script: str) -> str:
    ran = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": ""})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_python(tmp_path: Path, twin: tuple[Any, list[float]]) -> None:
    tool("ld", "ld.lld")
    files(tmp_path, BATCH_SIZE)
    check(python(tmp_path, PYTHON), tmp_path, twin)


def test_python_with_several_learning_rates(tmp_path: Path) -> None:
    tool("ld", "ld.lld")
    model = small()
    optimizer = OPTIMIZERS["groups"](model)
    torch.manual_seed(1)
    export(model, optimizer, tmp_path, shared=None)
    files(tmp_path, 6)
    printed = python(tmp_path, """
import numpy, net
trainer = net.Trainer(seed=1)
data = numpy.fromfile("image", "f4").reshape(-1, 1, 8, 8), numpy.fromfile("target", "i8")
for _ in range(2): trainer.step(*data, rate=[0.1, 0.5])
open("after", "wb").write(trainer.export())
""")
    train(model, optimizer, 2, example(6, seed=6))
    check(printed, tmp_path, (model, []))


RUST = """
#[path = "net.rs"]
#[allow(dead_code)]
mod net;

fn main() {
    let bytes = |name: &str| std::fs::read(name).unwrap();
    let image: Vec<f32> = bytes("image").chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    let target: Vec<i64> = bytes("target").chunks(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect();
    let batch = target.len();
    let mut trainer = net::Trainer::new(&bytes("net.safetensors"), Some(9)).unwrap();
    let mut workspace = net::Workspace::new(batch).unwrap();
    let mut gradients = net::Gradients::new();
    for step in 0..4 {
        let loss = if step % 2 == 1 {
            let loss = trainer.grad(&image, &target, &mut gradients, batch, &mut workspace).unwrap();
            assert!(gradients.bytes().iter().any(|byte| *byte != 0));
            trainer.apply(&gradients, 0.01, &mut workspace).unwrap();
            loss
        } else {
            trainer.step(&image, &target, 0.01, batch, &mut workspace).unwrap()
        };
        println!("{}", loss as f64);
    }
    std::fs::write("after", trainer.export().unwrap()).unwrap();
    assert!(net::Trainer::new(b"nonsense", None).is_err());
    assert!(trainer.step(&[], &[], 0.01, 0, &mut workspace).is_err());
}
"""


def test_rust(tmp_path: Path, twin: tuple[Any, list[float]]) -> None:
    compiler = tool("rustc")
    files(tmp_path, BATCH_SIZE)
    (tmp_path / "main.rs").write_text(RUST)
    subprocess.run([compiler, "--edition", "2021", "-D", "warnings", "main.rs", "-L", f"native={tmp_path}", "-l",
                    "static=net"], cwd=tmp_path, check=True)
    ran = subprocess.run([tmp_path / "main"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    check(ran.stdout, tmp_path, twin)


GO = """
package main

import (
	"encoding/binary"
	"bytes"
	"fmt"
	"os"

	"example.org/train/net"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func read(name string, into interface{}) {
	content, err := os.ReadFile(name)
	must(err)
	must(binary.Read(bytes.NewReader(content), binary.LittleEndian, into))
}

func main() {
	const batch = 5
	image, target := make([]float32, batch*64), make([]int64, batch)
	read("image", image)
	read("target", target)
	weights, err := os.ReadFile("net.safetensors")
	must(err)
	trainer, err := net.New(weights, 9)
	must(err)
	workspace, err := net.NewWorkspace(batch)
	must(err)
	gradients := net.NewGradients()
	for step := 0; step < 4; step++ {
		var loss float32
		if step%2 == 1 {
			loss, err = trainer.Grad(image, target, gradients, batch, workspace)
			must(err)
			must(trainer.Apply(gradients, 0.01, workspace))
		} else {
			loss, err = trainer.Step(image, target, 0.01, batch, workspace)
			must(err)
		}
		fmt.Println(float64(loss))
	}
	if len(gradients.Bytes()) != net.GradientBytes {
		panic("gradients")
	}
	content, err := trainer.Export()
	must(err)
	must(os.WriteFile("after", content, 0644))
	if _, err := trainer.Step(image[:3], target, 0.01, batch, workspace); err == nil {
		panic("a slice that is too short")
	}
}
"""


def test_go(tmp_path: Path, twin: tuple[Any, list[float]]) -> None:
    go, _ = tool("go"), tool("cc")
    files(tmp_path, BATCH_SIZE)
    program = tmp_path / "program"
    shutil.copytree(tmp_path, program / "net", ignore=lambda *_: ["program"])  # The whole bundle is a package.
    (program / "go.mod").write_text("module example.org/train\n\ngo 1.18\n")
    (program / "main.go").write_text(GO)
    subprocess.run([go, "build", "-o", "train", "."], cwd=program, check=True,
                   env={**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off"})
    ran = subprocess.run([program / "train"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    check(ran.stdout, tmp_path, twin)


@pytest.mark.parametrize("size, text", [
    (BATCH, "batch"), (Size.of(7), "7"), (BATCH * 3 - 1, "3 * batch - 1"), (Size.of(-4) + BATCH, "batch - 4"),
    (BATCH * BATCH * 2 - BATCH, "2 * batch * batch - batch"), (Size.of(0), "0")])
def test_sizes_are_written_as_every_language_reads_them(size: Size, text: str) -> None:
    assert size_text(size) == text
    for batch in (3, 8):
        assert eval(text, {"batch": batch}) == size.evaluate(lambda _, batch=batch: batch)
    assert count_text(Value("x", dtypes.float32, (size, Size.of(2)))) == f"({text}) * (2)"
