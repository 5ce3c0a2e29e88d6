"""Runs workloads: starts contestants, checks that they agree, lets them take turns."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.suite.bars import Bar
from benchmarks.suite.process import Failure, Process
from benchmarks.suite.sides import COMPILED, EAGER, FUSED, ONNX, OURS, apart
from benchmarks.suite.timing import FULL, Effort, Timing, interleaved, ratio
from benchmarks.suite.worker import CHECKED
from benchmarks.suite.workload import Case, Workload

LOOSE = 0.5
"""How far results may be apart where random numbers differ by design."""


@dataclass
class Result:
    """What one contestant did in one case."""

    timings: list[Timing] = field(default_factory=list)
    """One for each repetition of the whole measurement."""
    setup: float | None = None
    first: float | None = None
    """Seconds of the first call, with empty caches of compiled code."""
    warm: float | None = None
    """The same in a second process, which finds the caches of the first."""
    memory: float | None = None
    """The most megabytes the process has had; known where the case had it to itself."""
    apart: float | None = None
    """From PyTorch eager: see `sides.apart`."""
    agrees: bool = True
    error: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(timing.median for timing in self.timings) if self.timings else None

    @property
    def minimum(self) -> float | None:
        return min((timing.minimum for timing in self.timings), default=None)


@dataclass
class Row:
    """A case's results."""

    workload: str
    case: str
    operations: float
    bytes: float
    bar: Bar | None = None
    sides: dict[str, Result] = field(default_factory=dict)

    def ratio(self, theirs: str) -> float | None:
        """How many times faster ours is than this side: the median over repetitions."""
        ours, other = self.sides.get(OURS), self.sides.get(theirs)
        if ours is None or other is None or not ours.timings or not other.timings:
            return None
        return statistics.median(map(ratio, other.timings, ours.timings))

    @property
    def better(self) -> float | None:
        """The ratio to the better of PyTorch eager and torch.compile."""
        found = [each for each in (self.ratio(EAGER), self.ratio(COMPILED)) if each is not None]
        return min(found, default=None)


@dataclass(frozen=True)
class Options:
    """How to run: contestants beside ours, effort, repetitions of everything, threads."""

    opponents: tuple[str, ...] = (EAGER, COMPILED, FUSED)
    effort: Effort = FULL
    repeat: int = 1
    threads: int = 1
    tiny: bool = False
    warm: bool = True
    only: str = ""

    def sides(self, case: Case) -> list[str]:
        wanted = {FUSED: case.training, ONNX: case.inference}
        return [OURS, *(side for side in self.opponents if wanted.get(side, True))]


class Runner:
    """Measures workloads; `tell` hears what is being done, once for every step of `steps`."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        self.tell = tell

    def chosen(self, workload: Workload) -> list[tuple[int, Case]]:
        return [(number, case) for number, case in enumerate(workload.cases) if self.options.only in case.name]

    def steps(self, workload: Workload) -> int:
        """How often `tell` is going to be called for a workload."""
        return self.options.repeat * sum(len(self.options.sides(case)) + 1 for _, case in self.chosen(workload))

    def rows(self, workload: Workload) -> Iterator[Row]:
        """The workload's rows, each as soon as it is complete."""
        chosen = self.chosen(workload)
        groups = [[each] for each in chosen] if workload.isolated else [chosen]
        for group in groups:
            rows: list[Row] = []
            for _ in range(self.options.repeat):
                if group and group[0][1].passes:
                    found = self._passes(workload, *group[0])
                else:
                    found = self._group(workload, group)
                rows = [_merged(*pair) for pair in zip(rows, found, strict=True)] if rows else found
            yield from rows

    def _bar(self, case: Case, number: int) -> Bar | None:
        """What is asked of a case's row with this number: nothing of tiny sizes."""
        return case.bars[number] if number < len(case.bars) and not self.options.tiny else None

    # Cases that are called again and again ------------------------------------------------------------------------
    def _group(self, workload: Workload, group: Sequence[tuple[int, Case]]) -> list[Row]:
        """Measures cases in one process for each side."""
        with ExitStack() as stack:
            crew = _Crew(workload, self.options, stack)
            return [self._row(crew, number, case) for number, case in group]

    def _row(self, crew: _Crew, number: int, case: Case) -> Row:
        row = Row(crew.workload.name, case.name, case.operations, case.bytes, self._bar(case, 0))
        answers: dict[str, dict[str, Any]] = {}
        for side in self.options.sides(case):
            self.tell(f"{row.workload}: {case.name}, {side}")
            result = row.sides[side] = Result()
            try:
                model = crew.exported(number) if side == ONNX else None
                answer = answers[side] = crew.process(side).ask("begin", number=number, checked=CHECKED, model=model)
                result.setup, result.first = answer["setup"], answer["calls"][0]
            except Failure as failure:
                result.error = str(failure)
        _compare(row, case, {side: answer["results"] for side, answer in answers.items()})
        self.tell(f"{row.workload}: {case.name}, measuring")
        alive = {side: min(answer["calls"][1:]) for side, answer in answers.items()}
        measures = {side: partial(crew.measure, side) for side in alive}
        try:
            for side, timing in interleaved(measures, alive, self.options.effort).items():
                row.sides[side].timings.append(timing)
            if not row.operations and not row.bytes and EAGER in alive:
                row.operations = crew.process(EAGER).ask("operations")["operations"]
            for side in alive if crew.workload.isolated else ():
                row.sides[side].memory = crew.process(side).ask("memory")["peak_memory"]
                if self.options.warm and side in (OURS, COMPILED):
                    row.sides[side].warm = crew.warm(side, number)
        except Failure as failure:
            for side in alive:
                row.sides[side].error = str(failure)
        return row

    # Cases whose first calls matter -------------------------------------------------------------------------------
    def _passes(self, workload: Workload, number: int, case: Case) -> list[Row]:
        """Times first and second calls in fresh processes."""
        titles = ["first pass", "second pass"] + (["first pass, warm cache"] if self.options.warm else [])
        rows = [Row(workload.name, f"{case.name}, {title}", case.operations, case.bytes, self._bar(case, number))
                for number, title in enumerate(titles)]
        rounds = max(1, self.options.effort.least // 2)
        outcomes = {}
        for side in self.options.sides(case):
            self.tell(f"{workload.name}: {case.name}, {side}")
            results = [Result(timings=[Timing()]) for _ in rows]
            for row, result in zip(rows, results, strict=True):
                row.sides[side] = result
            try:
                for _ in range(rounds):
                    with ExitStack() as stack:
                        crew = _Crew(workload, self.options, stack)
                        answer = crew.process(side).ask("begin", number=number, checked=2, model=None)
                        memory = crew.process(side).ask("memory")["peak_memory"]
                        seconds = answer["calls"] + ([crew.warm(side, number)] if self.options.warm else [])
                    for result, each in zip(results, seconds, strict=True):
                        result.timings[0].add([each])
                        result.first, result.memory = seconds[0], memory
                outcomes[side] = answer["results"]
            except Failure as failure:
                for result in results:
                    result.error, result.timings = str(failure), []
        for row in rows:
            _compare(row, case, outcomes)
        self.tell(f"{workload.name}: {case.name}, done")
        return rows


class _Crew:
    """The processes of one group of cases, and their caches."""

    def __init__(self, workload: Workload, options: Options, stack: ExitStack) -> None:
        self.workload = workload
        self.options = options
        self.stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torturous-benchmark-")))
        self.processes: dict[str, Process] = {}

    def process(self, side: str) -> Process:
        if side not in self.processes or not self.processes[side].alive:
            self.processes[side] = self._started(side)
            self.processes[side].ask("prepare")
        return self.processes[side]

    def measure(self, side: str, calls: int) -> list[float]:
        times: list[float] = self.process(side).ask("measure", calls=calls)["times"]
        return times

    def warm(self, side: str, number: int) -> float:
        """Seconds of the first call in a new process with this side's caches."""
        process = self._started(side)
        process.ask("prepare")
        first: float = process.ask("begin", number=number, checked=1, model=None)["calls"][0]
        process.close()
        return first

    def exported(self, number: int) -> str:
        """The case's model as an ONNX file, written by a process that then ends."""
        path = str(self.folder / f"case{number}.onnx")
        process = self._started(EAGER)
        process.ask("prepare")
        process.ask("export", number=number, path=path)
        process.close()
        return path

    def _started(self, side: str) -> Process:
        process = Process(side, self.workload.name, self.options.tiny, self.options.threads, str(self.folder / side))
        self.stack.callback(process.close)
        return process


def _compare(row: Row, case: Case, results: dict[str, list[list[float]]]) -> None:
    """Notes how far everyone's results are from PyTorch eager's (ONNX Runtime answers for fewer of them)."""
    reference = results.get(EAGER)
    if reference is None:
        return
    for side, found in results.items():
        if side == EAGER:
            continue
        result = row.sides[side]
        result.apart = apart(found, reference[:len(found)])
        limit = max(case.tolerance, LOOSE) if case.random and side == COMPILED else case.tolerance
        result.agrees = result.apart <= limit


def _merged(row: Row, again: Row) -> Row:
    """A row with the timings of one more repetition."""
    for side, result in again.sides.items():
        before = row.sides[side]
        before.timings += result.timings
        before.error = before.error or result.error
        before.agrees = before.agrees and result.agrees
        for name in ("first", "warm", "setup", "memory"):
            values = [value for value in (getattr(before, name), getattr(result, name)) if value is not None]
            setattr(before, name, min(values, default=None))
    return row
