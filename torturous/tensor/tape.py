"""What backward passes find on tapes: hooks, custom functions, saved values; and tensors for what they
compute."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torturous.ir.movement import ALIAS
from torturous.ir.op import TYPES
from torturous.ir.record import Record, context, describe_place
from torturous.ir.value import Value
from torturous.tensor.base import TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Hook = Callable[..., Any]

AGAIN = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have "
    "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
    "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or "
    "if you need to access saved tensors after calling backward.")


class NodeHooks:
    """Called with the gradient of a row; `retains` are tensors that keep it as their `.grad`."""

    def __init__(self) -> None:
        self.table: OrderedDict[int, Hook] = OrderedDict()
        self.retains: list[weakref.ref[Any]] = []


class LeafHooks:
    """The hooks of a leaf: `table` is called with its gradient, `after` with the leaf when `.grad` has it."""

    def __init__(self) -> None:
        self.table: OrderedDict[int, Hook] = OrderedDict()
        self.after: OrderedDict[int, Hook] = OrderedDict()


class CustomNode:
    """A call of an `autograd.Function`: rows `first` … `first + count − 1` of a tape are its results.

    Their gradients go to `run`, which gives those of the row's further operands.
    """

    name: str
    first: int
    count: int

    def run(
        self, gradients: Sequence[Tensor | None], tape: Record, create_graph: bool
    ) -> Sequence[Tensor | None]:
        """The gradients of the function's tensor operands, in order; `tape` is where its rows are now."""
        raise NotImplementedError

    def release(self) -> None:
        """Gives up what the function has saved."""
        raise NotImplementedError


def enter_saved(tape: Record, index: int, tracked: bool, pending_index: int | None = None) -> int:
    """Enters a saved value of a realized tape into the pending record, where its row may exist already."""
    buffer = tape.values.get(index)
    if buffer is None:
        raise RuntimeError(AGAIN)
    pending = context.record
    tracked = tracked and bool(tape.tracked[index])
    leaf = pending.leaf(tape.rows[index][2], tracked) if pending_index is None else pending_index
    pending.values[leaf] = buffer
    if tracked:
        pending.sources[leaf] = (tape, index)
    return leaf


def check_version(tape: Record, index: int, name: str) -> None:
    """Raises if the memory of a saved value has been written since."""
    watched = tape.versions.get(index)
    if watched is None:
        return
    storage = watched[0]()
    seen = watched[1] if storage is None else storage.version - storage.unseen
    if seen != watched[1]:
        shape, dtype = TYPES[tape.rows[index][2]]
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[{dtype.name} {list(shape)}], a value used by {name} (recorded at "
            f"{describe_place(tape.places[index])}), is at version {seen}; expected version {watched[1]} "
            "instead.")


def present(record: Record) -> Record:
    """Where a record's rows are now: in itself, or in the tape that realizing it has left."""
    return (record.tape and record.tape()) or record


def newest_first(records: Sequence[Record]) -> list[Record]:
    """All tapes that gradients can reach from some, each before those it was built on."""
    finished: dict[Record, None] = {}
    stack = [(record, False) for record in records]
    while stack:
        record, explored = stack.pop()
        if record in finished:
            continue
        if explored:
            finished[record] = None
            continue
        stack.append((record, True))
        older = dict.fromkeys(source[0] for source in record.sources.values() if isinstance(source, tuple))
        stack += [(source, False) for source in older]
    return list(reversed(finished))


def own(record: Record, row: int) -> Tensor:
    """A tensor for a row of the pending record: its owner, so that realizing stores the row's value."""
    if row in record.owners or row in record.values:
        last = record.last(row)
        row = record.append((ALIAS.number, (), last.type_index, row), last.tracked, record.place_of(row))
    return TensorBase._of_row(record, row)


def add_to_grad(t: TensorBase, row: int, create_graph: bool) -> bool:
    """t.grad += the pending row; tells whether there was a gradient before."""
    before, pending = t._grad, context.record
    if before is None and not create_graph and row not in pending.owners and row not in pending.values:
        # What is known of a gradient need not be looked up along the whole record.
        t._grad = TensorBase._of_known_row(pending, row, t._type, 0)
        return False
    gradient = own(pending, row)
    if before is None:
        t._grad = gradient
        return False
    tracking, context.tracking = context.tracking, create_graph
    try:
        first = before.row()  # May realize the record, but the gradient's tensor survives that.
        second = gradient.row()
        pending = context.record
        total = Value(pending, first, None, create_graph) + Value(pending, second, None, create_graph)
        if create_graph:
            t._grad = own(context.record, total.index)
        else:
            before._write(total.index, None)
    finally:
        context.tracking = tracking
    return True
