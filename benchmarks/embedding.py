"""The exported MNIST net: sizes, time of the export (and of a ResNet-18's), its speed from C beside ONNX Runtime's from
Python, and a training step's beside that of torturous in Python.

    python -m benchmarks.embedding

needs a C compiler, and onnxruntime and onnx for the comparison. Both are timed in turns; the least times count.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "embed"
ROUNDS = 3

EXPORT = """
import sys, time
sys.path.insert(0, {examples!r})
from make import Net
import torturous as torch, torturous.nn.functional as F
from torturous import native
torch.manual_seed(0)
folder, kind = sys.argv[1:]
image, target = torch.rand(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64)
started = time.perf_counter()
if kind == "resnet18":
    from benchmarks.models.resnet import make_resnet18
    model = make_resnet18(torch, (64, 128, 256, 512)).eval()
    started = time.perf_counter()
    bundle = native.export(model, (torch.rand(4, 3, 32, 32),), folder, shared=False)
elif kind in ("train", "train64"):
    model = Net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    bundle = native.export_training(
        model, F.nll_loss, sgd, (image, target), folder, "train", target="native", shared=False,
        **({{}} if kind == "train" else {{"max_batch": None}}))
else:
    options = {{"small": {{}}, "one": {{"batches": (1,)}}, "both": {{"batches": (1, 64)}}, "levels": {{"target": None}},
               "wasm": {{"target": "wasm32", "embed_weights": True, "shared": True}}}}[kind]
    bundle = native.export(Net().eval(), (image[:1],), folder, **{{"target": "native", "shared": False, **options}})
print(bundle.code_bytes, time.perf_counter() - started)
"""


STEPS = """
import sys, time
sys.path.insert(0, {examples!r})
from make import Net
import torturous as torch, torturous.nn.functional as F
torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[1]))
image, target = torch.rand(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64)
model = Net()
sgd = torch.optim.SGD(model.parameters(), lr=0.01)
least = float("inf")
for _ in range(300):
    started = time.perf_counter()
    sgd.zero_grad()
    loss = F.nll_loss(model(image), target)
    loss.backward()
    sgd.step()
    loss.item()  # As in C, where a step ends with its loss.
    least = min(least, time.perf_counter() - started)
print(least * 1e6)
"""


def steps(folder: Path, digits: Path) -> tuple[list[float], list[float]]:
    """Microseconds of a training step of 64 images on one thread and on two: of the exported library, and of Python."""
    program = built(folder, "step_speed", "libtrain.a")
    library, python = [], []
    for _ in range(ROUNDS):
        words = subprocess.check_output([program, folder / "train.safetensors", digits], text=True).split()
        library.append((float(words[2].rstrip(",")), float(words[6])))
        python.append([float(subprocess.check_output(
            [sys.executable, "-c", STEPS.format(examples=str(EXAMPLES)), str(threads)], text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)})) for threads in (1, 2)])
    return [min(column) for column in zip(*library, strict=True)], [min(column) for column in zip(*python, strict=True)]


def built(folder: Path, program: str, library: str) -> Path:
    """One of the programs in C, with the library of a folder."""
    path = folder / program
    if not path.exists():
        subprocess.run(["cc", "-O2", "-pthread", f"-I{folder}", EXAMPLES / "c" / f"{program}.c", folder / library, "-o",
                        path, "-lm"], check=True)
    return path


def export(folder: Path, kind: str) -> tuple[int, float]:
    """Bytes of code and seconds of an export into an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        ran = subprocess.run(
            [sys.executable, "-c", EXPORT.format(examples=str(EXAMPLES)), folder, kind], check=True, text=True,
            stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "TORTUROUS_CACHE": cache, "PYTHONPATH": str(ROOT)})
    size, seconds = ran.stdout.split()
    return int(size), float(seconds)


def speed(folder: Path, digits: Path) -> tuple[float, ...]:
    """Microseconds from C: one image, a batch of 64, on two threads."""
    program = built(folder, "speed", "libnet.a")
    words = subprocess.check_output([program, folder / "net.safetensors", digits], text=True).split()
    return float(words[2].rstrip(",")), float(words[6].rstrip(",")), float(words[10])


class Runtime:
    """The same net in ONNX Runtime."""

    def __init__(self, weights: dict[str, np.ndarray], threads: int) -> None:
        import onnx
        import onnxruntime

        make = onnx.helper
        kinds = [
            ("Conv", "x conv1.weight conv1.bias", {}), ("MaxPool", "", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Relu", "", {}), ("Conv", "- conv2.weight conv2.bias", {}),
            ("MaxPool", "", {"kernel_shape": [2, 2], "strides": [2, 2]}), ("Relu", "", {}), ("Flatten", "", {}),
            ("Gemm", "- fc1.weight fc1.bias", {"transB": 1}), ("Relu", "", {}),
            ("Gemm", "- fc2.weight fc2.bias", {"transB": 1}), ("LogSoftmax", "", {"axis": 1})]
        nodes, last = [], "x"
        for number, (kind, inputs, attributes) in enumerate(kinds):
            names = [last if name == "-" else name for name in (inputs or "-").split()]
            last = "y" if number + 1 == len(kinds) else f"v{number}"
            nodes.append(make.make_node(kind, names, [last], **attributes))
        graph = make.make_graph(
            nodes, "net", [make.make_tensor_value_info("x", 1, ["n", 1, 28, 28])],
            [make.make_tensor_value_info("y", 1, ["n", 10])],
            [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()])
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])
        model.ir_version = 8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def least(self, batch: int) -> float:
        """Microseconds of a run."""
        x = np.random.default_rng(0).random((batch, 1, 28, 28), np.float32)
        best = float("inf")
        for _ in range(500):
            started = time.perf_counter()
            self.session.run(None, {"x": x})
            best = min(best, time.perf_counter() - started)
        return best * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, what in (("small", "inference, one target"), ("one", "… with a plan for one image"),
                           ("both", "… and one for 64"), ("levels", "inference, all levels of this machine"),
                           ("wasm", "inference, wasm32"), ("train", "training step with SGD, one target"),
                           ("train64", "… for 64 images alone"), ("resnet18", "ResNet-18, inference, all levels")):
            size, seconds = export(folder / kind, kind)
            print(f"{what:42} {size:9,} bytes of code, exported in {seconds:.2f} s (empty cache)")
        print(f"{'wasm module with weights':42} {(folder / 'wasm' / 'net.wasm').stat().st_size:9,} bytes")
        for kind in ("small", "one"):
            described = json.loads((folder / kind / "net.json").read_text())
            what = "for any batch" if kind == "small" else "… and a plan for one image"
            print(f"{what:42} {described['prepared_bytes']:9,} bytes of prepared weights, "
                  f"{described['workspace_bytes']['1']:,} of workspace for one image")
        digits = folder / "digits.bin"
        images = np.random.default_rng(0).random((64, 784), np.float32)
        digits.write_bytes((64).to_bytes(4, "little") + images.tobytes() + bytes(64))
        library, python = steps(folder / "train", digits)
        for threads, mine, theirs in zip(("one thread", "two threads"), library, python, strict=True):
            print(f"training step of 64 images, {threads}: the library {mine:.0f} µs, Python {theirs:.0f} µs")
        compare = all(importlib.util.find_spec(module) for module in ("onnx", "onnxruntime"))
        runtimes = []
        if compare:
            weights = load_file(folder / "both" / "net.safetensors")
            runtimes = [Runtime(weights, threads) for threads in (1, 2)]
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(speed(folder / "both", digits))
            theirs.append([runtime.least(batch) for runtime in runtimes for batch in (1, 64)])
        times = [min(column) for column in zip(*ours, strict=True)]
        print(f"from C: one image {times[0]:.1f} µs, 64 images {times[1]:.0f} µs, on two threads {times[2]:.0f} µs")
        if compare:
            one, many, _, both = [min(column) for column in zip(*theirs, strict=True)]
            print(f"ONNX Runtime from Python: {one:.1f} µs ({one / times[0]:.2f} times ours), {many:.0f} µs "
                  f"({many / times[1]:.2f}), on two threads {both:.0f} µs ({both / times[2]:.2f})")
        else:
            print("install onnx and onnxruntime to compare")


if __name__ == "__main__":
    main()
