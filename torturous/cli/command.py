"""The command line: `torturous run`, `torturous profile` and `torturous export`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torturous.cli import export
from torturous.cli.aliasing import alias_torch
from torturous.cli.page import page
from torturous.cli.profile import Profile
from torturous.cli.running import run_module, run_script
from torturous.cli.table import table
from torturous.cli.trace import chrome_trace
from torturous.runtime.peak import measure_peak
from torturous.runtime.watching import watching

PAGE = "torturous-profile.html"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `torturous` and `python -m torturous`."""
    args = _parser().parse_args(arguments)
    args.command(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("torturous", description="PyTorch's API in pure Python, on NumPy and LLVM.")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run", help="run an unchanged PyTorch program",
        description="Runs a program in which `import torch`, with all its submodules, means torturous.")
    run.set_defaults(command=_run)
    profile = commands.add_parser(
        "profile", help="run a program and show what its plans and kernels cost",
        description="Runs a program (as `torturous run` does) and shows which plans and kernels its time went to, and "
                    "which lines recorded them. Kernels run one after the other while they are timed.")
    profile.set_defaults(command=_profile)
    profile.add_argument("--html", type=Path, default=Path(PAGE), metavar="FILE",
                         help="where to write the page with timeline and graphs (default: %(default)s)")
    profile.add_argument("--no-html", action="store_true", help="write no page")
    profile.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace (JSON) as well")
    profile.add_argument("--top", type=int, default=30, metavar="N", help="kernels in the table (default: 30)")
    profile.add_argument("--keep-torch", action="store_true", help="leave `import torch` to PyTorch")
    exporting = commands.add_parser(
        "export", help="write a model as a native library",
        description="Writes a static library, a C header and what other languages need to use them "
                    "(docs/embedding.md). While the model is made, `import torch` means torturous.")
    exporting.set_defaults(command=_export)
    export.add_arguments(exporting)
    exporting.add_argument("--keep-torch", action="store_true", help="leave `import torch` to PyTorch")
    for each in (run, profile):
        each.add_argument("-m", dest="module", action="store_true", help="the program is a module's name, not a file")
        each.add_argument("program", help="the program's file")
        each.add_argument("arguments", nargs=argparse.REMAINDER, help="what it gets as its own arguments")
    return parser


def _start(args: argparse.Namespace) -> None:
    (run_module if args.module else run_script)(args.program, args.arguments)


def _run(args: argparse.Namespace) -> None:
    alias_torch()
    _start(args)


def _export(args: argparse.Namespace) -> None:
    if not args.keep_torch:
        alias_torch()
    export.run(args)


def _profile(args: argparse.Namespace) -> None:
    command = shlex.join([args.program, *args.arguments])
    if not args.keep_torch:
        alias_torch()
    profile = Profile()
    try:
        with watching(profile):
            _start(args)
    finally:
        # Also of a program that fails or leaves by sys.exit: what it did so far is worth seeing.
        profile.finish()
        _report(profile, args, command)


def _report(profile: Profile, args: argparse.Namespace, command: str) -> None:
    peak = measure_peak()
    sys.stdout.flush()
    print(f"\n{command}: {table(profile, peak, args.top)}")
    if not args.no_html:
        args.html.write_text(page(profile, peak, command), encoding="utf-8")
        print(f"\nwrote {args.html}")
    if args.trace is not None:
        args.trace.write_text(json.dumps(chrome_trace(profile)), encoding="utf-8")
        print(f"wrote {args.trace}")
