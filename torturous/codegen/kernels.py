"""From a scheduled kernel to the text of its LLVM module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torturous.codegen.attention import Attending
from torturous.codegen.attention_back import AttendingBack
from torturous.codegen.channels import ChannelContraction
from torturous.codegen.contraction import Contraction
from torturous.codegen.direct import DirectContraction
from torturous.codegen.dots import Dots
from torturous.codegen.expressions import Argument, KernelWriter
from torturous.codegen.likeness import likeness
from torturous.codegen.loops import Work, write_loops
from torturous.codegen.special import write_special
from torturous.codegen.taps import TapGradient
from torturous.codegen.target import Target
from torturous.codegen.windows import Windows
from torturous.codegen.windowsums import WindowSums
from torturous.compiler.kernel import Kernel
from torturous.compiler.sizes import ONE, ZERO, Size
from torturous.ir.op import Kind

PARAMETERS = "ptr noalias %arguments, i64 %first_piece, i64 %last_piece, ptr noalias %scratch"


@dataclass(frozen=True)
class Generated:
    """A kernel's module: `symbol` is a hash of its text, so equal kernels are one. A host op has neither."""

    symbol: str
    text: str
    arguments: tuple[Argument, ...]
    work: Work
    scratch: Size
    """Bytes each worker needs."""


_written: dict[tuple, Generated] = {}
"""What was generated, by likeness and target; its arguments name buffers and slots by their place in the likeness."""
MOST_REMEMBERED = 4096
EXCHANGED = ("buffer", "slot")
"""Kinds of arguments in which alike kernels differ."""


def generate(kernel: Kernel, target: Target, in_process: bool = False) -> Generated:
    """Writes a kernel for a target, or finds it written; the text does not depend on the plan that it stands in.

    With `in_process` the code is for this process, and not for a library: it may be longer if that makes it faster,
    and large results are written past the caches, in buffers of our own, which start at cache lines.
    """
    alike = likeness(kernel)
    if alike is None:
        return _generate(kernel, target, in_process)
    structure, buffers, slots = alike
    whats = [*(("buffer", buffer) for buffer in buffers), *(("slot", slot) for slot in slots)]
    key = (structure, target, in_process)
    known = _written.get(key)
    if known is not None:
        return _with_arguments(known, lambda kind, place: whats[place][1])
    generated = _generate(kernel, target, in_process)
    if len(_written) >= MOST_REMEMBERED:
        _written.clear()
    places = {what: place for place, what in enumerate(whats)}
    _written[key] = _with_arguments(generated, lambda kind, what: places[kind, what])
    return generated


def _with_arguments(generated: Generated, exchange: Callable[[str, Any], Any]) -> Generated:
    """The same with other buffers and slots."""
    return replace(generated, arguments=tuple(
        replace(argument, what=exchange(argument.kind, argument.what)) if argument.kind in EXCHANGED else argument
        for argument in generated.arguments))


def _generate(kernel: Kernel, target: Target, in_process: bool) -> Generated:
    if kernel.special is not None and kernel.special.op.kind is Kind.HOST:
        buffers = tuple(Argument("buffer", buffer) for buffer in (*kernel.operands, kernel.special))
        return Generated("", "", buffers, Work(ONE, (), ONE), ZERO)
    writer = KernelWriter(kernel, target, in_process)
    scratch = ZERO
    if kernel.special is not None:
        work, scratch = write_special(writer)
    elif kernel.windows:
        windows = WindowSums(writer) if kernel.lanewise else Windows(writer)
        work, scratch = windows.write(), windows.scratch()
    elif kernel.attention is not None:
        attention = (Attending if kernel.attention.upstream is None else AttendingBack)(writer, kernel.attention)
        work, scratch = attention.write(), attention.scratch()
    elif kernel.lanewise:
        dots = Dots(writer)
        work, scratch = dots.write(), dots.scratch()
    elif kernel.channelwise:
        channels = ChannelContraction(writer)
        work, scratch = channels.write(), channels.scratch()
    elif kernel.tapwise:
        taps = TapGradient(writer)
        work, scratch = taps.write(), taps.scratch()
    elif kernel.direct:
        direct = DirectContraction(writer)
        work, scratch = direct.write(), direct.scratch()
    elif kernel.product is not None:
        contraction = Contraction(writer)
        work, scratch = contraction.write(), contraction.scratch()
    else:
        work, scratch = write_loops(writer)
    if writer.streams:
        writer.builder.end_streams()
    body = writer.builder.function("KERNEL", PARAMETERS)
    declarations = "\n".join(writer.builder.declarations.values())
    text = f"{declarations}\n{body}attributes #0 = {{ {target.attributes(tuple(sorted(writer.builder.features)))} }}\n"
    symbol = "k" + hashlib.sha256(text.encode()).hexdigest()[:24]
    return Generated(symbol, text.replace("@KERNEL(", f"@{symbol}("), tuple(writer.arguments), work, scratch)
