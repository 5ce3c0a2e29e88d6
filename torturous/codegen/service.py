"""Compiling in helper processes: the parent's side of `helper.py`."""
from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torturous.codegen import helper as protocol
from torturous.codegen.target import Target

_MOST_HELPERS = 4
_MOST_LINES = 12
_CLOSING_SECONDS = 1.0


@dataclass(frozen=True)
class Source:
    """A module of LLVM IR, and words for the user that say what it computes: "relu at train.py:12"."""

    text: str
    description: str


class CompilationError(RuntimeError):
    """LLVM refused a module or aborted on it: `description` names the operation, `detail` says why."""

    def __init__(self, description: str, detail: str, aborted: bool) -> None:
        what = "LLVM aborted while compiling" if aborted else "LLVM could not compile"
        super().__init__(f"{what} {description}: {detail}")
        self.description = description
        self.detail = detail
        self.aborted = aborted


class _HelperDied(Exception):
    """The helper process has ended; `words` is what it wrote to its standard error about this request."""

    def __init__(self, words: str, ending: str) -> None:
        super().__init__(f"{words} ({ending})" if words else ending)
        self.words = words


class _Helper:
    """One helper process and its pipes. Used by one thread at a time."""

    def __init__(self, folders: list[str]) -> None:
        # A file rather than a pipe: nobody needs to drain it while the helper works.
        self._errors = tempfile.TemporaryFile(buffering=0)
        self._said = 0  # bytes of it that belong to earlier requests
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            options["start_new_session"] = True  # Ctrl-C is for the user's process, which closes its helpers
        # -I: neither environment nor current folder change what is imported; -S: no site folder, llvmlite's
        # place is sent. Unbuffered pipes leave nothing to flush when a helper is dead.
        self._process = subprocess.Popen(
            [_python(), "-I", "-S", protocol.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            **options,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        try:
            protocol.write_message(self._requests, {"paths": folders})
        except BrokenPipeError:
            pass  # dead at birth: the first request finds out and reports why

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, header: dict[str, Any], text: str) -> tuple[dict[str, Any], bytes]:
        """Sends one request and waits for its answer; raises `_HelperDied` if the process ends instead."""
        try:
            protocol.write_message(self._requests, header, text.encode())
            answer = protocol.read_message(self._answers)
        except (EOFError, OSError):
            raise _HelperDied(self._last_words(), self._ending()) from None
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
        """Closes the pipes, which ends an idle helper; does not wait for it."""
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
        """In a forked child: lets go of the parent's helper without touching the process."""
        self.hang_up()
        self._process.returncode = 0  # not this process's child: nothing to wait for


class Service:
    """A pool of helper processes that compile IR to objects; safe to use from several threads.

    Helpers start when first needed, all at once, and end with the process. A forked child starts its own.
    """

    def __init__(self, helpers: int | None = None) -> None:
        """`helpers` is the number of processes: by default one for each core, but no more than four."""
        if helpers is not None and helpers < 1:
            raise ValueError(f"a service needs at least one helper, got {helpers}")
        self._size = helpers or min(_available_cores(), _MOST_HELPERS)
        self._lock = threading.Lock()
        self._reset()
        _services.append(self)

    def _reset(self) -> None:
        self._helpers: set[_Helper] = set()
        self._idle: list[_Helper] = []
        self._returned = threading.Condition(self._lock)

    def start(self) -> None:
        """Starts the helpers, if they are not running, without waiting until they are ready."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        """Fills the pool, after the start or after a death. The caller holds the lock."""
        if len(self._helpers) == self._size:
            return
        folders = _llvmlite_folders()
        while len(self._helpers) < self._size:
            helper = _Helper(folders)
            self._helpers.add(helper)
            self._idle.append(helper)

    def compile(self, sources: Sequence[Source], target: Target) -> list[bytes]:
        """Compiles modules in parallel; returns one relocatable object for each, in their order.

        Raises CompilationError for the first source that LLVM refuses or aborts on, once all others are done.
        """
        objects = []
        for outcome in self.outcomes(sources, target):
            if isinstance(outcome, CompilationError):
                raise outcome
            objects.append(outcome)
        return objects

    def outcomes(self, sources: Sequence[Source], target: Target) -> list[bytes | CompilationError]:
        """As `compile`, but returns the error in the place of the object it concerns."""
        header = _header(target)
        # Largest first, so that no helper is left alone with a long one at the end.
        waiting = deque(sorted(range(len(sources)), key=lambda i: len(sources[i].text), reverse=True))
        outcomes: list[Any] = [None] * len(sources)

        def work() -> None:
            while True:
                try:
                    index = waiting.popleft()
                except IndexError:
                    return
                try:
                    outcomes[index] = self._ask(header, sources[index])
                except BaseException as error:  # handed to the calling thread below
                    waiting.clear()
                    outcomes[index] = error
                    return

        others = [
            threading.Thread(target=work, name="torturous-compile", daemon=True)
            for _ in range(min(self._size, len(sources)) - 1)
        ]
        for thread in others:
            thread.start()
        try:
            work()
            for thread in others:
                thread.join()
        finally:
            waiting.clear()  # an interrupt ends the others after the module they are at
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, CompilationError):
                raise outcome
        return outcomes

    def assembly(self, source: Source, target: Target) -> str:
        """The assembly text of one module, for reading. Raises CompilationError as `compile` does."""
        outcome = self._ask({**_header(target), "assembly": True}, source)
        if isinstance(outcome, CompilationError):
            raise outcome
        return outcome.decode()

    def _ask(self, header: dict[str, Any], source: Source) -> bytes | CompilationError:
        second_try = False
        while True:
            helper = self._borrow()
            try:
                answer, payload = helper.ask(header, source.text)
            except _HelperDied as death:
                self._retire(helper)
                # LLVM never aborts silently: a helper that said nothing was killed from outside.
                if death.words or second_try:
                    return CompilationError(source.description, str(death), aborted=True)
                second_try = True
            except BaseException:
                self._retire(helper)  # in the middle of a conversation: of no more use
                raise
            else:
                self._give_back(helper)
                if "error" in answer:
                    return CompilationError(source.description, answer["error"], aborted=False)
                return payload

    def _borrow(self) -> _Helper:
        with self._lock:
            self._start()
            while not self._idle:
                self._returned.wait()
                self._start()
            helper = self._idle.pop()
        if helper.alive():
            return helper
        self._retire(helper)  # died while idle
        return self._borrow()

    def _give_back(self, helper: _Helper) -> None:
        with self._lock:
            if helper in self._helpers:  # else the service was closed meanwhile
                self._idle.append(helper)
                self._returned.notify()

    def _retire(self, helper: _Helper) -> None:
        """Ends a helper; whoever borrows next fills its place."""
        helper.discard()
        with self._lock:
            self._helpers.discard(helper)
            self._returned.notify()

    def close(self) -> None:
        """Ends all helpers. A later `compile` starts new ones."""
        with self._lock:
            helpers, idle = self._helpers, self._idle
            self._helpers, self._idle = set(), []
        for helper in idle:
            helper.hang_up()  # all at once; then wait for each
        for helper in idle:
            helper.discard(patience=_CLOSING_SECONDS)
        for helper in helpers.difference(idle):
            helper.kill()

    def _after_fork_in_child(self) -> None:
        for helper in self._helpers:
            helper.forget()
        self._lock = threading.Lock()
        self._reset()


def _header(target: Target) -> dict[str, Any]:
    return {"triple": target.triple, "cpu": target.cpu, "features": target.features, "abi": target.abi,
            "relocation": target.relocation}


def _llvmlite_folders() -> list[str]:
    """What a helper needs on its path to import llvmlite, and no more: nothing shall be shadowed."""
    found = importlib.util.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise RuntimeError("llvmlite is not installed: python -m pip install llvmlite")
    return [str(Path(found.origin).parent.parent)]


def _python() -> str:
    if not sys.executable:
        raise RuntimeError("compiling needs a Python interpreter to start, but sys.executable is not set")
    return sys.executable


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_services: list[Service] = []
_locked_for_fork: list[Service] = []


def _before_fork() -> None:
    """Holds every service still, so that no helper is half started in the child."""
    _locked_for_fork[:] = _services
    for service in _locked_for_fork:
        service._lock.acquire()


def _after_fork_in_parent() -> None:
    for service in _locked_for_fork:
        service._lock.release()
    _locked_for_fork.clear()


def _after_fork_in_child() -> None:
    for service in _locked_for_fork:
        service._after_fork_in_child()
    _locked_for_fork.clear()


@atexit.register
def _close_all() -> None:
    for service in _services:
        service.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
