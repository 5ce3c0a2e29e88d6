"""What a kernel computes: loops, and expressions over loads whose addresses are affine in the loops.

Movement ops are gone at this level; they have become addresses and guards. A kernel is a pure description that
prints as kernel IR (`TORTUROUS_DEBUG=3`); floor 4 turns it into instructions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torturous.compiler.graph import Node
from torturous.compiler.sizes import Affine, Size
from torturous.core.dtypes import DType
from torturous.ir.op import Op


@dataclass(frozen=True, eq=False)
class Guard:
    """Holds where 0 ≤ position < extent."""

    position: Affine
    extent: Size

    def key(self) -> tuple:
        return self.position, self.extent


@dataclass(frozen=True, eq=False)
class Expression:
    """A value at each point of the loops."""

    dtype: DType


@dataclass(frozen=True, eq=False)
class Load(Expression):
    """An element of a buffer; zero where a guard fails."""

    buffer: Node
    address: Affine
    """In elements."""
    guards: tuple[Guard, ...]


@dataclass(frozen=True, eq=False)
class SlotNumber(Expression):
    """A Python number given at run time, in this dtype."""

    code: int


@dataclass(frozen=True, eq=False)
class Literal(Expression):
    """A number that is part of the kernel."""

    number: int | float


@dataclass(frozen=True, eq=False)
class Position(Expression):
    """An integer worked out from the loops, as int64."""

    affine: Affine


@dataclass(frozen=True, eq=False)
class Compute(Expression):
    """An elementwise op; operands have the dtype `compute`, the result is rounded to `dtype`."""

    op: Op
    compute: DType
    operands: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Convert(Expression):
    """A cast."""

    operand: Expression


@dataclass(frozen=True, eq=False)
class Choose(Expression):
    """`inside` where all guards hold, else `outside`."""

    guards: tuple[Guard, ...]
    inside: Expression
    outside: Expression


@dataclass(frozen=True, eq=False)
class Word(Expression):
    """The elements of two products of bfloat16 that follow each other in a sum, as a machine with an instruction for
    both takes them; its bits are held as a float32 (see `codegen.words`)."""

    first: Expression
    second: Expression


@dataclass(frozen=True, eq=False)
class Accumulated(Expression):
    """The finished value of one of the kernel's accumulators."""

    index: int


@dataclass(frozen=True, eq=False)
class Derived:
    """A position that is not affine: axis ~index. Guards on it go with its definition."""


@dataclass(frozen=True, eq=False)
class Quotient(Derived):
    """affine / divisor, out of every range where that is not whole."""

    affine: Affine
    divisor: int


@dataclass(frozen=True, eq=False)
class Digit(Derived):
    """(affine / inner) mod extent: one axis of a merged position."""

    affine: Affine
    inner: Size
    extent: Size


@dataclass(frozen=True, eq=False)
class DataPosition(Derived):
    """A position read from an index tensor; the kernel checks it against the extent and reports `place`."""

    expression: Expression
    extent: Size
    node: Node


@dataclass(frozen=True)
class Window:
    """How a contraction's window slides along one axis of an operand: reads at position / divisor, zero outside."""

    position: Affine
    """stride · output place + spacing · tap + offset, in loops."""
    divisor: int
    extent: Size
    """Of the operand's axis."""
    stride: Size
    """From one place to the next in memory, in elements."""

    def renamed(self, axes: dict[int, Affine]) -> Window:
        return Window(self.position.renamed(axes), self.divisor, self.extent, self.stride)

    def __str__(self) -> str:
        return f"0≤({self.position})/{self.divisor}<{self.extent}·({self.stride})"


@dataclass(frozen=True, eq=False)
class Accumulator:
    """A reduction of `expression` over the kernel's reduced axes."""

    op: Op
    dtype: DType
    """What it accumulates in."""
    expression: Expression


@dataclass(frozen=True, eq=False)
class Store:
    """Where a kernel puts a value: into `buffer`, at `address`, in the node's dtype."""

    buffer: Node
    address: Affine
    expression: Expression
    inside: bool = False
    """Whether at every point of the reduced loops, rather than once after them."""


@dataclass(frozen=True)
class Moving:
    """Where a buffer of a loop's body lies: `start` + step · `stride` bytes into a buffer outside."""

    buffer: Node
    start: Size
    stride: Size


@dataclass(frozen=True)
class Turning:
    """Where a carried value lies that is not kept: by turns in two buffers, such that the last step writes `end`."""

    end: Node
    spare: Node
    initial: Node | None
    """For the value before a step: where it is at the first one. None for the value after a step."""


@dataclass(eq=False)
class Repetition:
    """What a repeat node becomes: kernels that run once a step, and where their buffers lie then."""

    steps: Size
    kernels: list[Kernel]
    outputs: list[Node]
    """The body's, whose buffers lie outside."""
    places: dict[Node, Moving | Turning]
    items: list[Node]
    """The repeat node's values: what is written."""
    spares: list[Node]


@dataclass(eq=False)
class Attention:
    """What an attention kernel computes (see `ir.attending`), over loops whose last four are queries, keys, the width
    of a query and the depth of a value."""

    node: Node
    """Its value, packed."""
    causal: bool
    mask: Expression | None
    scale: Expression
    query: Load
    key: Load
    value: Load
    upstream: Load | None = None
    """The gradient of the result; gradients are what is computed then."""
    forward: Load | None = None
    """The rows' own value."""

    @property
    def expressions(self) -> list[Expression]:
        """Everything that is read."""
        found = (self.mask, self.scale, self.query, self.key, self.value, self.upstream, self.forward)
        return [expression for expression in found if expression is not None]


@dataclass(eq=False)
class Kernel:
    """Loops over `axes` (outermost first); inside them `reduced` loops feed the accumulators; then the stores.

    What depends on a finished accumulator and yet is computed inside the reduced loops waits for another pass over
    them (see `compiler.stages`).

    Axis n of an affine function is `axes[n]` for n < len(axes), then `reduced`. `product`, where set, makes it a
    contraction: the only accumulator sums left·right over the reduced axes.
    """

    axes: list[Size]
    reduced: list[Size] = field(default_factory=list)
    outer_runs: int = 0
    """How many of the reduced axes come before the inner run (see `ir.reduction`)."""
    accumulators: list[Accumulator] = field(default_factory=list)
    product: tuple[Expression, Expression] | None = None
    unblocked: bool = False
    """Whether what is reduced are the results of blocks: their order is that of the second level, without blocks."""
    lanewise: bool = False
    """Whether the contraction's products are dealt out to lanes (see `ir.contraction`)."""
    direct: bool = False
    """Whether the contraction reads its operands where they lie: samples innermost, rows of products (see `layout`)."""
    channelwise: bool = False
    """Whether lanes are channels of the result then (see `codegen.channels`)."""
    tapwise: bool = False
    """Whether it is the gradient of weights, and lanes are channels of the operand that windows slide over (see
    `codegen.taps`)."""
    words: bool = False
    """Whether it does so with copies that hold words: then the reduced loops count these."""
    windows: tuple[Window, ...] = ()
    """Of a contraction of few products per result, written plane by plane: its window along each axis (see
    `codegen.windows`)."""
    windowed: int = 0
    """Which operand those windows slide over; also where lanes are channels."""
    pooled: int = 0
    """How many of the axes, those right before the last one, go through windows of a contraction's results: all
    accumulators but the first pool these."""
    gap: int = 0
    """Places between the lines of a sum over planes (see `ir.contraction`)."""
    stores: list[Store] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    special: Node | None = None
    """A node with a kernel of its own kind: raw random words, scatter."""
    operands: tuple[Node, ...] = ()
    """Buffers that a special kernel reads."""
    attention: Attention | None = None
    repetition: Repetition | None = None
    """For a repeat node: the kernels of its steps."""
    lane_axis: int = -1
    """The loop the vector lanes run along, chosen by the schedule."""
    streamed: frozenset[Node] = frozenset()
    """What is written past the caches, because nobody reads it soon (see `memory.streamed`)."""
    names: list[str] = field(default_factory=list)
    places: list[Any] = field(default_factory=list)

    @property
    def pooled_axes(self) -> range:
        """Loops through a window of a contraction's results."""
        return range(len(self.axes) - 1 - self.pooled, len(self.axes) - 1)

    def __str__(self) -> str:
        lines = [f"kernel {'+'.join(self.names)} axes {self.axes} reduced {self.reduced} lanes {self.lane_axis}"]
        for number, derived in enumerate(self.derived):
            lines.append(f"  d{number} = {derived}")
        if self.pooled:
            lines.append(f"  pools axes {list(self.pooled_axes)}")
        if self.product:
            lines.append(f"  product {describe(self.product[0])} · {describe(self.product[1])}")
        lines += [f"  window {window}" for window in self.windows]
        if self.attention:
            lines.append(f"  {self.attention.node} of {', '.join(map(describe, self.attention.expressions))}")
        for number, accumulator in enumerate(self.accumulators):
            lines.append(f"  a{number} = {accumulator.op.name} {describe(accumulator.expression)}")
        for store in self.stores:
            inside = "inside " if store.inside else ""
            lines.append(f"  {inside}{store.buffer}[{store.address}] = {describe(store.expression)}")
        return "\n".join(lines)


def describe(expression: Expression) -> str:
    """An expression as kernel IR text."""
    match expression:
        case Load(_, buffer, address, guards):
            suffix = " if " + " and ".join(f"0≤{g.position}<{g.extent}" for g in guards) if guards else ""
            return f"{buffer}[{address}]{suffix}"
        case SlotNumber(dtype, code):
            return f"slot{~code >> 2}:{dtype.name}"
        case Literal(_, number):
            return str(number)
        case Position(_, affine):
            return f"({affine})"
        case Compute(dtype, op, _, operands):
            return f"{op.name}:{dtype.name}({', '.join(map(describe, operands))})"
        case Convert(dtype, operand):
            return f"{dtype.name}({describe(operand)})"
        case Choose(_, guards, inside, outside):
            test = " and ".join(f"0≤{g.position}<{g.extent}" for g in guards)
            return f"({describe(inside)} if {test} else {describe(outside)})"
        case Word(_, first, second):
            return f"({describe(first)}, {describe(second)})"
        case Accumulated(_, index):
            return f"a{index}"
    return "?"


@dataclass(eq=False)
class Fused:
    """Kernels in an order that respects what they read, and where each output lies."""

    kernels: list[Kernel]
    outputs: list[Node]
    """Per output of the graph, the node whose buffer holds it."""
    leaves: list[Node] = field(default_factory=list)
