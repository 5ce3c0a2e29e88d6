"""What it weighs: import time, installed size, peak memory of training the MNIST net, beside PyTorch.

    python -m benchmarks.footprint
"""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys
from pathlib import Path

OURS = ("torturous", "numpy", "llvmlite", "ml-dtypes", "safetensors", "tqdm")
TIMED_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
TRAINING = """
import resource, sys
import numpy as np
import {library} as library
sys.argv = ["benchmark"]
from benchmarks.net import contestant
random = np.random.default_rng(0)
images = random.standard_normal((64, 1, 28, 28), dtype=np.float32)
_, step, _ = contestant(library, images, random.integers(0, 10, 64))
for _ in range(100):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


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


def main() -> None:
    times: dict[str, list[float]] = {"torturous": [], "torch": []}
    for _ in range(7):
        for library, values in times.items():
            values.append(run(TIMED_IMPORT.format(library)))
    for library, values in times.items():
        print(f"import {library}: median {statistics.median(values):.2f} s, min {min(values):.2f} s")
    print(f"installed: torturous with dependencies {installed(OURS):.0f} MB")
    print(f"installed: torch without its dependencies {installed(('torch',)):.0f} MB")
    for library in ("torturous", "torch"):
        peak = run(TRAINING.format(library=library))
        print(f"peak memory, 100 training steps of the MNIST net at batch 64: {library} {peak:.0f} MB")


if __name__ == "__main__":
    main()
