"""Processes beside the user's, which compile for it: the parent's side.

A companion runs Python, is asked over pipes in the messages of `helper.py`, and ends when its input ends, which is also
what happens when its parent dies.
"""
from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torturous.codegen import helper as protocol

_MOST_LINES = 12


class CompanionDied(Exception):
    """The process has ended; `words` is what it wrote to its standard error about this request."""

    def __init__(self, words: str, ending: str) -> None:
        super().__init__(f"{words} ({ending})" if words else ending)
        self.words = words


class Companion:
    """One such process and its pipes. Used by one thread at a time."""

    def __init__(self, program: Sequence[str], greeting: dict[str, Any] | None = None) -> None:
        """Starts Python with these arguments; a greeting is sent at once and not answered."""
        # A file rather than a pipe: nobody needs to drain it while the process works.
        self._errors = tempfile.TemporaryFile(buffering=0)
        self._said = 0  # bytes of it that belong to earlier requests
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            options["start_new_session"] = True  # Ctrl-C is for the user's process, which closes its companions
        # -I: neither environment nor current folder change what is imported; -S: no site folder, places are sent.
        # Unbuffered pipes leave nothing to flush when the process is dead.
        self._process = subprocess.Popen(
            [_python(), "-I", "-S", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            **options,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        if greeting is not None:
            try:
                protocol.write_message(self._requests, greeting)
            except BrokenPipeError:
                pass  # dead at birth: the first request finds out and reports why

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """Sends one request and waits for its answer; raises `CompanionDied` if the process ends instead."""
        try:
            protocol.write_message(self._requests, header, payload)
            answer = protocol.read_message(self._answers)
        except (EOFError, OSError):
            raise CompanionDied(self._last_words(), self._ending()) from None
        self._said = os.fstat(self._errors.fileno()).st_size
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(self._said)
        said = self._errors.read().decode(errors="replace").strip()
        _, marker, message = said.partition("LLVM ERROR:")
        if marker:
            return "\n".join((marker + message).splitlines()[:_MOST_LINES])
        return "\n".join(said.splitlines()[-_MOST_LINES:])

    def _ending(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"the compiling process ended with code {code}"
        try:
            return f"the compiling process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"the compiling process was ended by signal {-code}"

    def hang_up(self) -> None:
        """Closes the pipes, which ends an idle process; does not wait for it."""
        for stream in (self._requests, self._answers, self._errors):
            stream.close()

    def kill(self) -> None:
        """Ends and reaps the process; a thread that waits for its answer finds the pipe closed."""
        self._process.kill()
        self._process.wait()

    def discard(self, patience: float = 0.0) -> None:
        """Hangs up and reaps the process; ends it by force if it lives for `patience` seconds more."""
        self.hang_up()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()

    def forget(self) -> None:
        """In a forked child: lets go of the parent's companion without touching the process."""
        self.hang_up()
        self._process.returncode = 0  # not this process's child: nothing to wait for


def folder_of(package: str) -> str:
    """Where a companion finds this package. Raises RuntimeError if it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise RuntimeError(f"{package} is not installed: python -m pip install {package}")
    return str(Path(found.origin).parent.parent)


def _python() -> str:
    if not sys.executable:
        raise RuntimeError("compiling needs a Python interpreter to start, but sys.executable is not set")
    return sys.executable
