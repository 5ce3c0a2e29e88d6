"""Rows as a graph with symbolic sizes.

Sizes are made symbolic by observation: records of equal structure are compared position by position; a size that
is the same in all of them is a constant, positions whose values always agree are one variable. Whatever a pass
then decides, it decides by equality of variables, so it holds for every record that fits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torturous.compiler.expand import Expanded
from torturous.compiler.sizes import Size
from torturous.core.dtypes import DType
from torturous.ir import contraction, movement
from torturous.ir.loop import INPUT, REPEAT
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Op
from torturous.ir.record import LEAF, Place

Shape = tuple[Size, ...]


@dataclass(eq=False, slots=True)
class Node:
    """One value of a plan. An operand below zero is a slot."""

    number: int
    op: Op
    attributes: Attributes
    shape: Shape
    dtype: DType
    operands: tuple[Node | int, ...]
    place: Place
    users: list[Node] = field(default_factory=list)
    loop: Loop | None = None
    """What a repeat node does at each step."""

    @property
    def inputs(self) -> list[Node]:
        return [operand for operand in self.operands if isinstance(operand, Node)]

    def __repr__(self) -> str:
        return f"%{self.number}:{self.op.name}{list(self.shape)}"


@dataclass(eq=False, slots=True)
class Loop:
    """The body of a repeat node: a graph whose leaves are what a step is given, and whose outputs are the carried
    values after it, then what is stacked.
    """

    graph: Graph
    reverse: bool
    carried: list[Node | None]
    """The leaf that a carried value is before a step; None if no step reads it."""
    kept: list[bool]
    """Per carried value, whether all it ever was is kept."""
    stacked: list[Node]
    fixed: list[Node]


@dataclass(eq=False)
class Graph:
    """Nodes in order, the ones to be stored, the leaves, and the values of the size variables when it was made."""

    nodes: list[Node]
    outputs: list[Node]
    leaves: list[Node]
    hints: tuple[int, ...]

    def hint(self, size: Size) -> int:
        """A size's value in the record that the graph was made from; slots count as 0."""
        return size.evaluate(lambda variable: 0 if variable[0] == "slot" else self.hints[variable[1]])


def structure(expanded: Expanded) -> tuple:
    """The record without its sizes: what records must share to share a symbolic plan."""
    rows = tuple(
        (row[0], row[1], TYPES[row[2]].dtype.number, len(TYPES[row[2]].shape), *row[3:])
        for row in expanded.record.rows
    )
    return rows, expanded.outputs


def dimensions(expanded: Expanded) -> tuple[int, ...]:
    """All sizes of a record, row by row."""
    return tuple(size for row in expanded.record.rows for size in TYPES[row[2]].shape)


@dataclass(frozen=True)
class Sizes:
    """Which positions of `dimensions` are constants and which are variables."""

    template: tuple[int, ...]
    """Per position: the constant, or −1 − variable."""
    variables: int
    many: frozenset[int] = frozenset()
    """Variables that a plan takes to be MANY at least."""

    def match(self, observed: Sequence[int]) -> tuple[int, ...] | None:
        """The variables' values if a record fits, else None. Whether those of `many` are so, the caller knows."""
        values: list[int | None] = [None] * self.variables
        for want, have in zip(self.template, observed, strict=True):
            if want >= 0:
                if want != have:
                    return None
            else:
                known = values[~want]
                if known is None:
                    values[~want] = have
                elif known != have:
                    return None
        return tuple(values)  # type: ignore[arg-type]


def unify(samples: Sequence[Sequence[int]]) -> Sizes:
    """The most general sizes that all samples fit."""
    classes: dict[tuple[int, ...], int] = {}
    template = []
    for column in zip(*samples, strict=True):
        if len(set(column)) == 1:
            template.append(column[0])
        else:
            template.append(~classes.setdefault(column, len(classes)))
    return Sizes(tuple(template), len(classes))


def is_settled(expanded: Expanded, sizes: Sizes) -> bool:
    """Whether it is settled for all sizes, axis by axis, which operands are repeated, and how large windows are that a
    kernel writes out tap by tap.

    An axis that is 1 in one record and repeated, and larger in another and not, would be neither.
    """
    record = expanded.record
    starts, position = [], 0
    for row in record.rows:
        starts.append(position)
        position += len(TYPES[row[2]].shape)
    template = sizes.template
    for index, row in enumerate(record.rows):
        op = OPS[row[0]]
        if op.kind is Kind.CONTRACT and row[1][3:4] == (contraction.PLANEWISE,):
            rank = len(TYPES[row[2]].shape)
            taps = {loop for its_maps in row[1][1:3] for terms, _, _ in its_maps if len(terms) > 1 for loop, _ in terms}
            if any(template[starts[index] + tap] < 0 for tap in taps if tap < rank):
                return False
        if op.kind is not Kind.ELEMENTWISE and op is not movement.EXPAND:
            continue
        end = starts[index] + len(TYPES[row[2]].shape)
        for operand in row[3:]:
            if operand < 0:
                continue
            rank = len(TYPES[record.rows[operand][2]].shape)
            mine = template[starts[operand]:starts[operand] + rank]
            for size, out in zip(mine, template[end - rank:end], strict=True):
                if size not in (1, out):
                    return False
    return True


def build(expanded: Expanded, sizes: Sizes, hints: tuple[int, ...]) -> Graph:
    """The graph of a record; rows that merely stand for another vanish, and so do rows that repeat another.

    Rows repeat each other if op, attributes, type and operands are the same, slots by their place: never by their
    value. Gradients of one op for several operands have much in common. Rows of loops' bodies stay as they are.
    """
    record = expanded.record
    nodes: list[Node] = []
    known: dict[tuple, Node] = {}
    of_row: list[Node] = []
    position = 0
    ends = {index - row[1][0]: index for index, row in enumerate(record.rows) if row[0] == REPEAT.number}
    outside = nodes
    for index, (row, place) in enumerate(zip(record.rows, record.places, strict=True)):
        if index in ends:
            nodes = []  # A body's rows come right before the row that repeats them.
        number, attributes, type_index, *operands = row
        op, (concrete, dtype) = OPS[number], TYPES[type_index]
        shape = tuple(
            Size.of(want) if want >= 0 else Size.variable(("many" if ~want in sizes.many else "size", ~want))
            for want in sizes.template[position:position + len(concrete)]
        )
        position += len(concrete)
        mapped = tuple(of_row[operand] if operand >= 0 else operand for operand in operands)
        stands_for = _stands_for(op, shape, dtype, mapped)
        if stands_for is not None:
            of_row.append(stands_for)
            continue
        same = (op, attributes, shape, dtype, mapped)
        if nodes is outside and same in known:
            of_row.append(known[same])
            continue
        loop = None
        if op is REPEAT:
            loop = _loop(nodes, attributes, of_row[index - attributes[0]:], hints)
            nodes = outside
        node = Node(len(nodes), LEAF if op is INPUT else op, attributes, shape, dtype, mapped, place, loop=loop)
        if nodes is outside and op is not LEAF and op is not REPEAT:
            known[same] = node
        for operand in mapped:
            if isinstance(operand, Node):
                operand.users.append(node)
        nodes.append(node)
        of_row.append(node)
    leaves = [node for node in nodes if node.op.kind is Kind.LEAF]
    return Graph(nodes, [of_row[output] for output in expanded.outputs], leaves, hints)


def _loop(nodes: list[Node], attributes: Attributes, of_row: Sequence[Node], hints: tuple[int, ...]) -> Loop:
    """What a repeat row repeats: the nodes of its body, `of_row` by its rows."""
    _, reverse, carried, stacked, fixed, results = attributes
    outputs = [of_row[at] for at in (*(following for _, following, _ in carried), *results)]
    graph = Graph(nodes, outputs, [node for node in nodes if node.op.kind is Kind.LEAF], hints)
    return Loop(
        graph, reverse, [of_row[at] if at >= 0 else None for at, *_ in carried], [kept for *_, kept in carried],
        [of_row[at] for at in stacked], [of_row[at] for at in fixed])


def _stands_for(op: Op, shape: Shape, dtype: DType, operands: tuple[Node | int, ...]) -> Node | None:
    """The operand that a row is identical to, if it is."""
    if op is movement.ALIAS:
        candidate = operands[0]
    elif op is movement.REPLACE:
        candidate = operands[1]
    elif op in (movement.RESHAPE, movement.EXPAND) or op.name == "cast":
        candidate = operands[0]
        if not isinstance(candidate, Node) or candidate.shape != shape or candidate.dtype is not dtype:
            return None
    else:
        return None
    assert isinstance(candidate, Node)
    return candidate
