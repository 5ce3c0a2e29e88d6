"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.suite import machine, report
from benchmarks.suite.run import Options, Runner
from benchmarks.suite.sides import COMPILED, EAGER, FUSED, ONNX
from benchmarks.suite.timing import FULL, ONCE, QUICK
from benchmarks.suite.workload import WORKLOADS, workload
from torturous import get_num_threads
from torturous.runtime.peak import measure_peak

ABOUT = """Runs workloads in torturous, PyTorch eager, torch.compile (model and optimizer step) and PyTorch eager with
fused=True, each in a process of its own, in turns; checks that results agree; prints one table. "ratio": how many
times faster torturous is than the contestant of that line; "better": than the better of eager and torch.compile, both
medians over rounds. "first": the first call, with empty caches of compiled code; "warm": the same in the next process.
"memory": the process's peak. "apart": the largest difference from PyTorch eager, relative to the largest value.
"bars": what a row is to reach at least, and what it has reached; where memory is the limit, 85 % of a triad will do."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=ABOUT)
    parser.add_argument("workloads", nargs="*", metavar="name", help=f"which: {', '.join(WORKLOADS)} (default: all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains this")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="measure everything N times in fresh processes; the median of the ratios counts")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no warm start")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, one round: to see that everything runs")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--vs", choices=(ONNX,), help="beside it, for inference")
    parser.add_argument("--threads", type=int, default=get_num_threads(), metavar="N",
                        help="of every contestant (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there, too")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload named {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    opponents = [EAGER, COMPILED, FUSED] + [ONNX] * (args.vs == ONNX)
    options = Options(
        opponents=tuple(side for side in opponents if side != COMPILED or not args.no_compile),
        effort=ONCE if args.tiny else QUICK if args.quick else FULL,
        repeat=args.repeat, threads=args.threads, tiny=args.tiny, warm=not (args.quick or args.tiny), only=args.only,
    )
    chosen = [workload(name, args.tiny) for name in args.workloads or WORKLOADS]
    here, peak = machine.describe(), measure_peak(args.threads)
    rows = []
    print(report.heading(here, args.threads, peak))
    with tqdm(total=0, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:
        def tell(what: str) -> None:
            bar.set_description_str(what)
            bar.update()

        runner = Runner(options, tell)
        bar.total = sum(map(runner.steps, chosen))
        for each in chosen:
            for row in runner.rows(each):
                rows.append(row)
                with bar.external_write_mode(file=sys.stdout):
                    print(report.block(row, peak), flush=True)
    print(f"\n{report.summary(rows, peak)}")
    if args.json:
        args.json.write_text(json.dumps(report.as_json(rows, here, args.threads, peak), indent=1) + "\n")
