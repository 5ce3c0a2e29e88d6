"""Sizes that repeat get plans of their own, made in the background.

A plan whose sizes are symbols serves all sizes, but constants make faster kernels. A bound plan counts its runs; after
`TORTUROUS_SPECIALISE` of them a plan of constant sizes is asked for from another process (`maker.py`), and from some
later run on it takes the place of the first. Nobody waits for it, nobody notices but by the clock: results are the
same, bit for bit. Where it cannot be made, for whatever reason, things stay as they are.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from torturous.codegen.companion import Companion, CompanionDied, folder_of
from torturous.codegen.target import host_target
from torturous.compiler.expand import Expanded, expand
from torturous.core import dtypes, settings
from torturous.ir.listing import Listing
from torturous.ir.record import Record
from torturous.runtime import build
from torturous.runtime.bound import Bound
from torturous.runtime.loaded import Loaded
from torturous.runtime.passing import Wanted, read_made, write_wanted
from torturous.runtime.watching import PlanMade, statistics, tell

MOST = 8
"""Plans of constant sizes that a structure has in this way at a time."""
PATIENCE = 3.0
"""Seconds without work after which the process is let go: it takes memory, and a third of a second to start."""
_PACKAGES = ("numpy", "ml_dtypes", "safetensors", "llvmlite")
"""What the other process needs besides our own: importing it imports all of the package."""
_START = "import sys; sys.path[:0] = sys.argv[1:]; from torturous.runtime import maker; maker.main()"


@dataclass(eq=False)
class Specialised:
    """What a structure's sizes have been given."""

    current: list[Specialisation] = field(default_factory=list)
    """Those that have plans."""
    dropped: int = 0
    """How many had plans that others have taken the place of: for each, the next has to run twice as often."""
    runs: int = 0


class Specialisation:
    """Sizes on their way to a plan of their own. Called before each run: gives that plan, once it is there."""

    def __init__(self, family: Specialised, record: Record, outputs: tuple[int, ...], numbers: int,
                 renewing: tuple[int, ...]) -> None:
        """`numbers`: how many of the record's numbers the plan takes; `renewing`: as in `planning.bind`."""
        count = outputs[-1] + 1
        self.family = family
        self.rows, self.places = record.rows[:count], record.places[:count]
        self.outputs, self.renewing = outputs, renewing
        self.numbers = record.slots[:numbers]
        self.settings = settings.fuse.value, settings.target.value, dtypes.default_float().name
        self.runs = 0
        self.wanted = settings.specialise.value << min(family.dropped, 30)
        self.last_run = 0
        """On the clock of the family's runs."""
        self.bound: Bound | None = None

    def __call__(self) -> Bound | None:
        bound = self.bound
        if bound is not None:
            self.family.runs += 1
            self.last_run = self.family.runs
            return bound
        self.runs += 1
        if self.runs == self.wanted:
            _background.ask(self)
        return None

    def expanded(self) -> Expanded:
        """What the plan computes: worked out again when it is needed, for it takes far more memory than the rows."""
        record = Listing()
        record.slots.extend(self.numbers)
        for row, place in zip(self.rows, self.places, strict=True):
            record.append(row, 0, place)
        return expand(record, self.outputs, len(self.numbers), self.renewing)

    def serve(self, bound: Bound) -> None:
        """From now on runs are this plan's; the sizes that have not run for longest lose theirs, if there are many."""
        family = self.family
        self.last_run = family.runs
        self.bound = bound
        family.current.append(self)
        if len(family.current) > MOST:
            oldest = min(family.current, key=lambda each: each.last_run)
            family.current.remove(oldest)
            family.dropped += 1
            oldest.bound, oldest.runs = None, 0
            oldest.wanted = settings.specialise.value << min(family.dropped, 30)


class _Background:
    """A thread that passes questions to the other process and loads its answers, while there are any."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.lock = threading.Condition()
        self.waiting: deque[Specialisation] = deque()
        self.busy = False
        self.thread: threading.Thread | None = None
        self.companion: Companion | None = None
        self.failures: deque[str] = deque(maxlen=16)
        self.ending = False
        """Why the latest plans that could not be made could not."""

    def ask(self, specialisation: Specialisation) -> None:
        with self.lock:
            self.waiting.append(specialisation)
            self.lock.notify_all()
            if self.thread is None:
                self.thread = threading.Thread(target=self._work, name="torturous-specialising", daemon=True)
                self.thread.start()

    def wait(self) -> None:
        """Returns when there is nothing left to do."""
        with self.lock:
            self.lock.wait_for(lambda: not self.waiting and not self.busy)

    def _work(self) -> None:
        while True:
            with self.lock:
                self.busy = False
                self.lock.notify_all()
                if not self.lock.wait_for(lambda: self.waiting, PATIENCE):
                    self.thread = None
                    self.close()
                    return
                specialisation = self.waiting.popleft()
                self.busy = True
            try:
                self._specialise(specialisation)
            except Exception as error:  # nobody is there to catch it, and nothing is lost
                self.failures.append(f"{type(error).__name__}: {error}")
                if not self.ending:
                    self._note(f"could not specialise a plan: {self.failures[-1]}")

    def _specialise(self, specialisation: Specialisation) -> None:
        started = time.perf_counter()
        wanted = Wanted(specialisation.expanded(), *specialisation.settings)
        question, codes = write_wanted(wanted)
        if self.companion is None:
            self.companion = Companion(["-c", _START, *map(folder_of, ("torturous", *_PACKAGES))])
        try:
            answer, data = self.companion.ask({}, question)
        except CompanionDied:
            self.close()
            raise
        if "error" in answer:
            raise RuntimeError(answer["error"])
        made = read_made(data, codes)
        machine = host_target(wanted.target)
        texts = {kernel.symbol: kernel.text for group in made.generated for kernel in group if kernel.symbol}
        addresses = {
            symbol: build.adopt(build.KernelSource(symbol, text, symbol), machine, made.objects[symbol])
            for symbol, text in texts.items()
        }
        loaded = Loaded(made.plan, made.generated, [
            [addresses[kernel.symbol] if kernel.symbol else 0 for kernel in group] for group in made.generated])
        specialisation.serve(Bound(loaded, (), wanted.expanded, len(specialisation.numbers)))
        statistics.plans_specialised += 1
        event = PlanMade(loaded, started, time.perf_counter() - started, answer["compiled"], background=True)
        self._note(f"specialised {made.plan} ({event.compiled} kernels compiled, {event.seconds * 1e3:.0f} ms, in the "
                   f"background; {statistics.plans_specialised} so far)")
        tell(event)

    def _note(self, text: str) -> None:
        if settings.debug.value >= 1:
            print(f"[torturous] {text}", file=sys.stderr)

    def close(self) -> None:
        companion, self.companion = self.companion, None
        if companion is not None:
            companion.kill()
            companion.hang_up()

    def end(self) -> None:
        """At exit: what is under way is given up, which is no failure."""
        self.ending = True
        self.close()

    def forget(self) -> None:
        """In a forked child, which has neither the thread nor a process of its own."""
        if self.companion is not None:
            self.companion.forget()
        self.reset()


_background = _Background()
wait = _background.wait
atexit.register(_background.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.forget)
