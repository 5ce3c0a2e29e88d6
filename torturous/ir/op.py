"""What an operation is: one definition that every floor reads.

An `Op` carries its shape and dtype rule, its meaning in NumPy, its gradient, and how it is lowered.
Elementwise ops lower through an emitter that floor 4 supplies; the other kinds are known to the compiler by
their `kind`. A *macro* is recorded as one row and expanded into simpler rows by the compiler's first pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NamedTuple

from torturous.core.dtypes import DType
from torturous.core.intervals import Interval
from torturous.core.shapes import Shape

Attributes = tuple
"""Structural attributes of a row: nested tuples of ints and strings, part of every key."""


class Kind(Enum):
    LEAF = auto()
    """A buffer that exists before the plan runs."""
    CREATE = auto()
    """A value made from slots and positions alone: constant fill, arithmetic sequence."""
    ELEMENTWISE = auto()
    MOVEMENT = auto()
    """Says where each element comes from; becomes an index map, seldom a copy."""
    REDUCE = auto()
    CONTRACT = auto()
    ATTENTION = auto()
    """Contractions with a softmax between them (see `ir.attending`)."""
    GATHER = auto()
    SCATTER = auto()
    ALONG = auto()
    """Along one axis, in order: sorting, running values."""
    RANDOM = auto()
    HOST = auto()
    MACRO = auto()
    ITEM = auto()
    """One of the values of a macro or loop that has several."""
    LOOP = auto()
    """A body of rows that is repeated, as it is recorded (see `ir.loop`)."""
    REPEAT = auto()
    """The same once it is expanded: the rows before it are its body."""
    INPUT = auto()
    """What a repeated body is given at each step."""


class Type(NamedTuple):
    """Shape and dtype of a row. Interned: rows name a type by its number."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


TYPES: list[Type] = []
_type_numbers: dict[Type, int] = {}


def type_number(shape: Shape, dtype: DType) -> int:
    """The number of a type; types are few and live as long as the process."""
    key = Type(shape, dtype)
    number = _type_numbers.get(key)
    if number is None:
        number = _type_numbers[key] = len(TYPES)
        TYPES.append(key)
    return number


@dataclass(slots=True, eq=False)
class Op:
    """One operation.

    `infer(attributes, operands)` gives the result's type or raises PyTorch's error; an operand is a `Type`,
    or a `Category` for a Python number. `gradients` holds one rule per operand: `rule(g, out, attributes,
    *operands)` over `Value`s, None where nothing flows. `saves` names what the rules read: operand positions,
    −1 for the output; either one tuple for all rules or a tuple of tuples, one per rule (`define` makes it
    the latter).
    """

    name: str
    kind: Kind
    infer: Callable[[Attributes, Sequence[Any]], Type] | None = None
    meaning: Callable[..., Any] | None = None
    """`meaning(node type, attributes, *arrays)` in NumPy; a test oracle, never what runs."""
    gradients: tuple[Callable[..., Any] | None, ...] = ()
    saves: tuple[Any, ...] = ()
    lower: Callable[..., Any] | None = None
    """Elementwise: `lower(emitter, *vectors)`, in the compute dtype."""
    expand: Callable[..., Any] | None = None
    """Macro: `expand(out type, attributes, *operands)` over `Value`s gives a `Value` or a list of them."""
    compares: bool = False
    """Elementwise: the result is bool while operands keep their common type."""
    operands_as: DType | None = None
    """Elementwise: the type operands are read in, where it is not the compute dtype."""
    cost: int = 1
    """Elementwise: machine operations per element, roughly; decides whether recomputing is cheaper than
    storing."""
    document: str = ""
    reads: Callable[..., Any] | None = None
    """`reads(record, index)`: the rows that the gradient of row `index` reads, where `saves` cannot say so: for an
    op with several values."""
    whole_rule: Callable[..., Any] | None = None
    """The gradients of all operands at once, for an op with several values, whose ITEM rows come right behind it:
    `whole_rule(gradients by the value's number, attributes, type, which operands need one, operand, value)` gives
    a list of `Value`s and Nones; `operand(position)` and `value(number)` read what the forward pass had."""
    bounds: Callable[..., Interval] | None = None
    """`bounds(type, attributes, operands' types, *operands' intervals)`: between which integers the elements of an
    integer result lie (see `ir.bounds`); None: nothing is known of them."""
    once: bool = False
    """Whether its gradient passes once only, unless the graph is retained, although the rules read nothing."""
    number: int = field(default=-1)

    def __repr__(self) -> str:
        return self.name


OPS: list[Op] = []
BY_NAME: dict[str, Op] = {}


def define(op: Op) -> Op:
    """Enters an op into the table."""
    if op.name in BY_NAME:
        raise ValueError(f"op {op.name} is defined twice")
    if not op.saves or isinstance(op.saves[0], int):
        op.saves = (op.saves,) * len(op.gradients)
    op.number = len(OPS)
    OPS.append(op)
    BY_NAME[op.name] = op
    return op
