"""A contestant's process: builds cases, calls them when told to, and reports. One JSON object a line, both ways.

    python -m benchmarks.suite.worker SIDE WORKLOAD (full | tiny) THREADS
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from benchmarks.suite.machine import await_helpers, peak_memory
from benchmarks.suite.sides import COMPILED, EAGER, ONNX, Side, sampled, set_threads
from benchmarks.suite.workload import Program, workload

STEPS = 10
"""Training steps that are timed together."""
CHECKED = 3
"""First calls of a case, of which results are compared."""


class Contestant:
    """The cases of one workload, one at a time."""

    def __init__(self, side: str, name: str, tiny: bool, threads: int) -> None:
        self.name = side
        self.threads = threads
        self.cases = workload(name, tiny).cases
        self.side: Side | None = None
        self.program: Program | None = None
        self.training = False

    def prepare(self) -> dict[str, Any]:
        """Imports the framework: what any program pays for, and no case."""
        started = time.perf_counter()
        if self.name != ONNX:
            set_threads(self.name, self.threads)
            self.side = Side(self.name)
        return {"import": time.perf_counter() - started}

    def begin(self, number: int, checked: int, model: str | None) -> dict[str, Any]:
        """Sets a case up and calls it a first time (and further, for results to compare)."""
        self.program = None
        if self.name == COMPILED:
            self._side.torch._dynamo.reset()
        started = time.perf_counter()
        self.program = onnx_program(model or "", self.threads) if self.name == ONNX else self._build(number)
        times = [time.perf_counter() - started]
        results = []
        for _ in range(checked):
            started = time.perf_counter()
            result = self.program.call()
            self._finish()
            times.append(time.perf_counter() - started)
            results += sampled(result)
        if self.name == COMPILED:
            await_helpers()
        return {"setup": times[0], "calls": times[1:], "results": results}

    def measure(self, calls: int) -> dict[str, Any]:
        """Times calls after one that is not counted: it pays for cold caches and sleeping threads.

        Training steps are timed ten at a time, to the end of all their work: no training loop waits for each.
        """
        assert self.program is not None
        call, finish = self.program.call, self._finish
        together = min(calls, STEPS) if self.training else 1
        result = call()
        finish()
        times = []
        for _ in range(calls // together):
            started = time.perf_counter()
            for _ in range(together):
                result = call()  # Held until it is finished: what nobody holds would not be computed.
            finish()
            times.append((time.perf_counter() - started) / together)
            del result
        return {"times": times}

    def operations(self) -> dict[str, Any]:
        """Floating-point operations of a call, as PyTorch counts them (matrix products and convolutions)."""
        if self.name != EAGER or self.program is None:
            return {"operations": 0}
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.program.call()
        return {"operations": counter.get_total_flops()}

    def export(self, number: int, path: str) -> dict[str, Any]:
        """Writes an inference case's model as ONNX, in eager PyTorch."""
        program = self._build(number)
        torch = self._side.torch
        inputs = tuple(program.inputs)
        names = [f"input{position}" for position in range(len(inputs))]
        torch.onnx.export(program.model, inputs, path, input_names=names, dynamo=True, external_data=False,
                          verbose=False)
        arrays = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        with open(path + ".json", "w") as file:
            json.dump({name: [array.tolist(), str(array.dtype)] for name, array in arrays.items()}, file)
        return {}

    def memory(self) -> dict[str, Any]:
        return {"peak_memory": peak_memory()}

    @property
    def _side(self) -> Side:
        assert self.side is not None
        return self.side

    def _build(self, number: int) -> Program:
        self.training = self.cases[number].training
        self._side.torch.manual_seed(0)
        program = self.cases[number].build(self._side)
        self._side.finish()
        return program

    def _finish(self) -> None:
        if self.side is not None:
            self.side.finish()


def onnx_program(path: str, threads: int) -> Program:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with open(path + ".json") as file:
        feeds = {name: np.array(values, dtype) for name, (values, dtype) in json.load(file).items()}
    return Program(lambda: session.run(None, feeds))


def main() -> None:
    side, name, scale, threads = sys.argv[1:]
    # What programs print goes to standard error; answers keep the pipe for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = Contestant(side, name, scale == "tiny", int(threads))
    for line in sys.stdin:
        request = json.loads(line)
        verb = request.pop("verb")
        try:
            answer = getattr(contestant, verb)(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
