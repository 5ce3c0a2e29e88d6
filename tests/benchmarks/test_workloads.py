"""Every workload runs at a tiny size and gives the same in torturous and in PyTorch; the suite measures and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.suite.bars import Bar, of_all, verdicts
from benchmarks.suite.command import main
from benchmarks.suite.machine import await_helpers
from benchmarks.suite.report import block, summary
from benchmarks.suite.run import Options, Result, Row, Runner
from benchmarks.suite.sides import EAGER, OURS, Side, apart, sampled
from benchmarks.suite.timing import ONCE, Effort, Timing, interleaved, ratio
from benchmarks.suite.workload import WORKLOADS, Case, workload
from torturous.runtime.peak import Peak

CALLS = 2
CASES = [
    pytest.param(case, id=f"{name}: {case.name}") for name in WORKLOADS for case in workload(name, tiny=True).cases
]


def outcome(side: str, case: Case) -> list[list[float]]:
    stage = Side(side)
    stage.torch.manual_seed(0)
    program = case.build(stage)
    results: list[list[float]] = []
    for _ in range(CALLS):
        result = program.call()
        stage.finish()
        results += sampled(result)
    return results


@pytest.mark.parametrize("case", CASES)
def test_both_frameworks_agree(case):
    expected = outcome(EAGER, case)
    try:
        found = outcome(OURS, case)
    except AttributeError as error:
        if "has no attribute" not in str(error) or "torturous" not in str(error):
            raise
        pytest.skip(str(error))  # A layer that is not there yet: the benchmark's row says so, too.
    assert apart(found, expected) <= case.tolerance


def test_the_command_measures_and_writes_json(tmp_path, capfd):
    path = tmp_path / "results.json"
    main(["mlp", "--tiny", "--no-compile", "--repeat", "2", "--json", str(path)])
    text = capfd.readouterr().out
    assert "GFLOP/s of float32 multiply-adds" in text and "mlp: training step, batch 4" in text
    written = json.loads(path.read_text())
    [row] = written["rows"]
    assert {"processor", "versions"} <= written["machine"].keys() and written["peak"]["operations"] > 1e8
    assert set(row["sides"]) == {"torturous", "eager", "fused"}
    for side in row["sides"].values():
        assert side["error"] is None and side["agrees"] and len(side["timings"]) == 2
        assert side["first"] > 0 and side["setup"] > 0 and side["memory"] > 10
    assert row["ratio_to_eager"] > 0 and row["ratio_to_better"] == row["ratio_to_eager"]
    assert row["operations"] == 2 * 4 * (6 * 5 * 2 + 5 * 3 * 3)  # all but the gradient of the images


def test_a_failing_contestant_is_reported_in_its_row(monkeypatch):
    monkeypatch.setenv("TORTUROUS_TARGET", "abacus")
    runner = Runner(Options(opponents=(), effort=ONCE, tiny=True), tell=lambda what: None)
    [row] = runner.rows(workload("mlp", tiny=True))
    assert "abacus" in row.sides[OURS].error and row.better is None
    assert "abacus" in block(row, Peak(1e11, 1e10)) and "1 errors" in summary([row], Peak(1e11, 1e10))


def measured(seconds: float, memory: float = 100, first: float = 1) -> Result:
    return Result([Timing([seconds], seconds)], first=first, memory=memory)


def row_of(bar: Bar, bytes: float = 0, **seconds: float) -> Row:
    return Row("mlp", "a case", 0, bytes, bar, {side: measured(each) for side, each in seconds.items()})


PEAK = Peak(1e11, 1e10)


@pytest.mark.parametrize(("row", "expected"), [
    (row_of(Bar(eager=2, better=1.5), torturous=1, eager=3, compile=1.4),
     ["2× PyTorch eager: 3.00×", "1.5× the better: 1.40×, SHORT"]),
    (row_of(Bar(better=1.5), torturous=1, eager=1), []),
    (row_of(Bar(onnxruntime=3), torturous=1, eager=9, onnxruntime=3), ["3× ONNX Runtime: 3.00×"]),
    (row_of(Bar(eager=2), 8.5e9, torturous=1, eager=1), ["2× PyTorch eager: 1.00×, 85% of a triad"]),
    (row_of(Bar(eager=2), 8.4e9, torturous=1, eager=1), ["2× PyTorch eager: 1.00×, 84% of a triad, SHORT"]),
    (row_of(Bar(cold=2, warm=1, memory=True), torturous=1, eager=9),
     ["first call 2 s: 1.00 s", "memory 100 MB: 100 MB"]),
    (row_of(Bar(cold=0.5), torturous=1, eager=9), ["first call 0.5 s: 1.00 s, SHORT"]),
    (row_of(Bar(), torturous=1, eager=9), []),
    (row_of(Bar(eager=2), eager=9), []),
])
def test_bars(row: Row, expected: list[str]) -> None:
    assert list(map(str, verdicts(row, PEAK))) == expected
    text = block(row, PEAK)
    assert ("bars: " + "; ".join(expected) in text) if expected else "bars" not in text


def test_bars_of_a_mean() -> None:
    rows = [row_of(Bar(eager=0.9, mean=1), torturous=1, eager=seconds) for seconds in (0.95, 1.2, 0.8)]
    assert [verdict.met for verdict in of_all(rows, PEAK)] == [True, True, False, False]
    assert "2 of 4 bars met" in summary(rows, PEAK)
    assert of_all([row_of(Bar(eager=1), torturous=1, eager=2)], PEAK)[-1].bar == "1× PyTorch eager"


@pytest.mark.parametrize("name", WORKLOADS)
def test_cases_have_as_many_bars_as_rows(name: str) -> None:
    for case in workload(name).cases:
        assert len(case.bars) in ((0, 2) if case.passes else (0, 1))


def test_contestants_take_turns():
    order = []

    def measure(name, seconds):
        return lambda calls: order.append(name) or [seconds] * calls

    timings = interleaved({"a": measure("a", 1.0), "b": measure("b", 3.0)}, {"a": 1e-3, "b": 3e-3}, Effort(0, 3, 3))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert ratio(timings["b"], timings["a"]) == 3 and timings["b"].minimum == timings["b"].median == 3


def test_noise_common_to_neighbours_leaves_the_ratio_alone():
    noise = [1.0, 5.0, 0.1]
    ours, theirs = Timing([1.0 * each for each in noise]), Timing([2.0 * each for each in noise])
    assert ratio(theirs, ours) == pytest.approx(2)


def test_differences_are_relative_to_the_largest_value():
    assert apart([[1.0, 100.0]], [[2.0, 100.0]]) == pytest.approx(0.01)
    assert apart([[1.0]], [[1.0, 2.0]]) == float("inf")
    assert apart([[float("nan")]], [[float("nan")]]) == 0
    assert apart([[float("nan")]], [[1.0]]) == float("inf")


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["gemmm"])
    assert "gemm" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="helpers are watched on Linux only")
def test_measuring_waits_for_helpers_that_are_busy():
    busy = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.6: pass\ntime.sleep(60)"
    helper = subprocess.Popen([sys.executable, "-c", busy])
    try:
        await_helpers()
        user, system = Path(f"/proc/{helper.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert int(user) + int(system) >= 0.5 * os.sysconf("SC_CLK_TCK")
    finally:
        helper.kill()
        helper.wait()
