"""Compiling in helper processes: the parent's side of `helper.py`."""
from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torturous.codegen import helper as protocol
from torturous.codegen.companion import Companion, CompanionDied, folder_of
from torturous.codegen.target import Target

_MOST_HELPERS = 4
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
        self._helpers: set[Companion] = set()
        self._idle: list[Companion] = []
        self._returned = threading.Condition(self._lock)

    def start(self) -> None:
        """Starts the helpers, if they are not running, without waiting until they are ready."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        """Fills the pool, after the start or after a death. The caller holds the lock."""
        if len(self._helpers) == self._size:
            return
        greeting = {"paths": [folder_of("llvmlite")]}
        while len(self._helpers) < self._size:
            helper = Companion([protocol.__file__], greeting)
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
        header = header_of(target)
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
        outcome = self._ask({**header_of(target), "assembly": True}, source)
        if isinstance(outcome, CompilationError):
            raise outcome
        return outcome.decode()

    def _ask(self, header: dict[str, Any], source: Source) -> bytes | CompilationError:
        second_try = False
        while True:
            helper = self._borrow()
            try:
                answer, payload = helper.ask(header, source.text.encode())
            except CompanionDied as death:
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

    def _borrow(self) -> Companion:
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

    def _give_back(self, helper: Companion) -> None:
        with self._lock:
            if helper in self._helpers:  # else the service was closed meanwhile
                self._idle.append(helper)
                self._returned.notify()

    def _retire(self, helper: Companion) -> None:
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


def header_of(target: Target) -> dict[str, Any]:
    """What `helper.Compiler` is told of a target."""
    return {"triple": target.triple, "cpu": target.cpu, "features": target.features, "abi": target.abi,
            "relocation": target.relocation}


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
