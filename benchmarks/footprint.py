"""What it weighs: import time, installed size, peak memory of training the MNIST net, beside PyTorch.

    python -m benchmarks.footprint
"""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.suite.process import Process
from benchmarks.suite.sides import EAGER, OURS
from benchmarks.suite.workload import workload
from torturous import get_num_threads

PACKAGES = ("torturous", "numpy", "llvmlite", "ml-dtypes", "safetensors", "tqdm")
TIMED_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
STEPS = 100


def run(code: str) -> float:
    """The number that a fresh process prints."""
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def installed(names: tuple[str, ...]) -> float:
    """Megabytes of files that these distributions installed."""
    total = 0
    for name in names:
        for file in importlib.metadata.files(name) or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
    if "torturous" in names:  # An editable installation lists no files of the package itself.
        total += sum(path.stat().st_size for path in Path("torturous").rglob("*") if path.is_file()
                     and "__pycache__" not in path.parts)
    return total / 1e6


def training_memory(side: str) -> float:
    """Peak megabytes of a process that trains the MNIST net at batch 64."""
    [number] = [number for number, case in enumerate(workload("mnist").cases) if case.name == "training step, batch 64"]
    with tempfile.TemporaryDirectory() as cache:
        process = Process(side, "mnist", False, get_num_threads(), cache)
        process.ask("prepare")
        process.ask("begin", number=number, checked=1, model=None)
        process.ask("measure", calls=STEPS)
        peak: float = process.ask("memory")["peak_memory"]
        process.close()
    return peak


def main() -> None:
    times: dict[str, list[float]] = {"torturous": [], "torch": []}
    for _ in range(7):
        for library, values in times.items():
            values.append(run(TIMED_IMPORT.format(library)))
    for library, values in times.items():
        print(f"import {library}: median {statistics.median(values):.2f} s, min {min(values):.2f} s")
    print(f"installed: torturous with dependencies {installed(PACKAGES):.0f} MB")
    print(f"installed: torch without its dependencies {installed(('torch',)):.0f} MB")
    for side, library in ((OURS, "torturous"), (EAGER, "torch")):
        peak = training_memory(side)
        print(f"peak memory, {STEPS} training steps of the MNIST net at batch 64: {library} {peak:.0f} MB")


if __name__ == "__main__":
    main()
