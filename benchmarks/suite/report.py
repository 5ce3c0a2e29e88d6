"""The table, as text and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.suite import bars
from benchmarks.suite.run import Result, Row
from benchmarks.suite.sides import EAGER, LABELS, OURS
from torturous.runtime.peak import Peak

COLUMNS = (("", 26), ("median", 11), ("minimum", 11), ("ratio", 9), ("better", 9), ("set-up", 9), ("first", 9),
           ("warm", 9), ("memory", 9), ("rate", 18), ("of peak", 9), ("apart", 15))


def heading(machine: dict[str, Any], threads: int, peak: Peak) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (f"{machine['processor']}, {machine['cores']} cores, {threads} threads, {machine['system']}\n{versions}\n"
            f"measured peak: {peak.operations / 1e9:.0f} GFLOP/s of float32 multiply-adds, "
            f"{peak.bandwidth / 1e9:.1f} GB/s in a triad\n\n" + _line([title for title, _ in COLUMNS]))


def block(row: Row, peak: Peak) -> str:
    """A case: its name, and a line for each contestant.

    `ratio` says how many times faster ours is than the contestant of the line, `better` than the better of PyTorch
    eager and torch.compile.
    """
    lines = [f"{row.workload}: {row.case}"]
    for side, result in row.sides.items():
        label = "  " + LABELS[side]
        if result.error:
            lines.append(f"{label:{COLUMNS[0][1]}}{_one_line(result.error)}")
            continue
        ratios = ("", _times(row.better)) if side == OURS else (_times(row.ratio(side)), "")
        lines.append(_line([
            label, *map(duration, (result.median, result.minimum)), *ratios,
            *map(duration, (result.setup, result.first, result.warm)),
            "" if result.memory is None else f"{result.memory:.0f} MB", *_rate(row, result, peak), _apart(result),
        ]))
    if judged := list(bars.verdicts(row, peak)):
        lines.append("  bars: " + "; ".join(map(str, judged)))
    return "\n".join(lines)


def summary(rows: Sequence[Row], peak: Peak) -> str:
    """A line for each workload: the geometric means of its ratios, and how many bars were met."""
    lines = []
    for name in dict.fromkeys(row.workload for row in rows):
        mine = [row for row in rows if row.workload == name]
        eager = [ratio for row in mine if (ratio := row.ratio(EAGER))]
        better = [ratio for row in mine if (ratio := row.better)]
        text = [f"{label} {statistics.geometric_mean(ratios):.2f}× (least {min(ratios):.2f}×)"
                for label, ratios in (("eager", eager), ("better", better)) if ratios]
        wrong = sum(1 for row in mine for result in row.sides.values() if not result.agrees)
        failed = sum(1 for row in mine for result in row.sides.values() if result.error)
        judged = bars.of_all(mine, peak)
        short = [verdict for verdict in judged if not verdict.met]
        text += [f"{len(judged) - len(short)} of {len(judged)} bars met"] * bool(judged)
        text += [f"{wrong} results that differ"] * bool(wrong) + [f"{failed} errors"] * bool(failed)
        lines.append(f"{name:14}{', '.join(text)}")
    return "\n".join(lines)


def as_json(rows: Sequence[Row], machine: dict[str, Any], threads: int, peak: Peak) -> dict[str, Any]:
    return {"machine": machine, "threads": threads, "peak": asdict(peak),
            "rows": [{**asdict(row), "ratio_to_eager": row.ratio(EAGER), "ratio_to_better": row.better,
                      "bars": [verdict._asdict() for verdict in bars.verdicts(row, peak)],
                      "medians": {side: result.median for side, result in row.sides.items()}} for row in rows]}


def _line(cells: Sequence[str]) -> str:
    first, *others = [f"{cell:<{width}}" if number == 0 else f"{cell:>{width}}"
                      for number, (cell, (_, width)) in enumerate(zip(cells, COLUMNS, strict=True))]
    return (first + "".join(others)).rstrip()


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.2f} s"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def _apart(result: Result) -> str:
    if result.apart is None:
        return ""
    return f"{result.apart:.0e}" if result.agrees else f"DIFFER {result.apart:.0e}"


def _rate(row: Row, result: Result, peak: Peak) -> Iterator[str]:
    """Work a second by the median, and its share of what the machine can do."""
    if result.median and row.operations:
        rate = row.operations / result.median
        yield from (f"{rate / 1e9:.3g} GFLOP/s", f"{rate / peak.operations:.0%}")
    elif result.median and row.bytes:
        rate = row.bytes / result.median
        yield from (f"{rate / 1e9:.3g} GB/s", f"{rate / peak.bandwidth:.0%}")
    else:
        yield from ("", "")


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "…"
