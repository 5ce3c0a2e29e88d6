"""The program of the process that makes plans in the background, started by `specialising.py`.

It does what `planning.py` does for a plan of constant sizes, one question at a time and at low priority, and compiles
in place: nobody waits for it. Objects go into the cache, too. It ends when its input ends.
"""

from __future__ import annotations

import os

from torturous.codegen import objectfile
from torturous.codegen.helper import Compiler, channel, read_message, write_message
from torturous.codegen.service import header_of
from torturous.codegen.target import host_target
from torturous.compiler.graph import dimensions, unify
from torturous.core import dtypes, settings
from torturous.runtime import objects
from torturous.runtime.passing import Made, Wanted, read_wanted, write_made
from torturous.runtime.planning import plan_of

NICENESS = 10


class Maker:
    """Answers questions."""

    def __init__(self) -> None:
        self.cache = objects.ObjectCache()
        self.compiler: Compiler | None = None
        self.compiled = 0
        """Kernels that were not in the cache."""

    def make(self, wanted: Wanted) -> Made:
        settings.fuse.value, settings.target.value = wanted.fuse, wanted.target
        dtypes.set_default_float(dtypes.by_name(wanted.default_float))
        plan, generated = plan_of(wanted.expanded, unify([dimensions(wanted.expanded)]), ())
        texts = {kernel.symbol: kernel.text for group in generated for kernel in group if kernel.symbol}
        return Made(plan, generated, {symbol: self._object(symbol, text) for symbol, text in texts.items()})

    def _object(self, symbol: str, text: str) -> bytes:
        machine = host_target(settings.target.value)
        key = objects.key(text, machine)
        data = self.cache.get(key)
        if data is None:
            if self.compiler is None:
                self.compiler = Compiler()
            data = self.compiler.compile(text.encode(), header_of(machine))
            objectfile.check(data, symbol)
            self.cache.put(key, data)
            self.compiled += 1
        return data


def main() -> None:
    """Answers requests until standard input ends."""
    requests, answers = channel()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    maker = Maker()
    try:
        while True:
            _, question = read_message(requests)
            maker.compiled = 0
            try:
                made = maker.make(read_wanted(question))
                write_message(answers, {"compiled": maker.compiled}, write_made(made))
            except BrokenPipeError:
                raise
            except Exception as error:  # the parent remembers it, and goes on with the plan that it has
                write_message(answers, {"error": f"{type(error).__name__}: {error}"})
    except (EOFError, BrokenPipeError):
        os._exit(0)
