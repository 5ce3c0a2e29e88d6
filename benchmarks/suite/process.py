"""The parent's side of a contestant's process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.suite.sides import environment


class Failure(RuntimeError):
    """What a contestant raised, or how its process ended."""


class Process:
    """A contestant in a process of its own, with compiled-code caches in a folder that outlives it."""

    def __init__(self, side: str, workload: str, tiny: bool, threads: int, cache: str) -> None:
        self._errors = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "benchmarks.suite.worker", side, workload, "tiny" if tiny else "full",
                   str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=environment(threads, cache))
        self.side = side

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request; Failure if it raised, or if the process is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failure(f"process ended with {self._process.wait()}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        if self.alive:
            assert self._process.stdin is not None
            try:
                self._process.stdin.close()
                self._process.wait(20)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
        self._errors.close()
