"""From a scheduled kernel to the text of its LLVM module."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torturous.codegen.contraction import Contraction
from torturous.codegen.direct import DirectContraction
from torturous.codegen.dots import Dots
from torturous.codegen.expressions import Argument, KernelWriter
from torturous.codegen.loops import Work, write_loops
from torturous.codegen.special import write_special
from torturous.codegen.target import Target
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


def generate(kernel: Kernel, target: Target) -> Generated:
    """Writes a kernel for a target; the text does not depend on the plan that the kernel stands in."""
    if kernel.special is not None and kernel.special.op.kind is Kind.HOST:
        buffers = tuple(Argument("buffer", buffer) for buffer in (*kernel.operands, kernel.special))
        return Generated("", "", buffers, Work(ONE, (), ONE), ZERO)
    writer = KernelWriter(kernel, target)
    scratch = ZERO
    if kernel.special is not None:
        work, scratch = write_special(writer)
    elif kernel.lanewise:
        dots = Dots(writer)
        work, scratch = dots.write(), dots.scratch()
    elif kernel.direct:
        direct = DirectContraction(writer)
        work, scratch = direct.write(), direct.scratch()
    elif kernel.product is not None:
        contraction = Contraction(writer)
        work, scratch = contraction.write(), contraction.scratch()
    else:
        work, scratch = write_loops(writer)
    body = writer.builder.function("KERNEL", PARAMETERS)
    declarations = "\n".join(writer.builder.declarations.values())
    text = f"{declarations}\n{body}attributes #0 = {{ {target.attributes()} }}\n"
    symbol = "k" + hashlib.sha256(text.encode()).hexdigest()[:24]
    return Generated(symbol, text.replace("@KERNEL(", f"@{symbol}("), tuple(writer.arguments), work, scratch)
