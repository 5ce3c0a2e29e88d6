"""What hangs on a tape beside its rows: hooks, and the nodes of custom functions."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torturous.ir.op import TYPES
from torturous.ir.record import Record, context, describe_place

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Hook = Callable[..., Any]

AGAIN = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
    "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
    "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access "
    "saved tensors after calling backward.")


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

    def run(self, gradients: Sequence[Tensor | None], tape: Record, create_graph: bool) -> Sequence[Tensor | None]:
        """The gradients of the function's tensor operands, in their order; `tape` is where its rows are now."""
        raise NotImplementedError

    def release(self) -> None:
        """Gives up what the function has saved."""
        raise NotImplementedError


def enter_saved(tape: Record, index: int, tracked: bool, pending_index: int | None = None) -> int:
    """Enters a saved value of a realized tape into the pending record; at `pending_index` its row exists already."""
    buffer = tape.values.get(index)
    if buffer is None:
        raise RuntimeError(AGAIN)
    pending = context.record
    tracked = tracked and bool(tape.tracked[index])
    leaf = pending.leaf(tape.rows[index][2], tracked, None) if pending_index is None else pending_index
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
    if storage is not None and storage.version - storage.unseen != watched[1]:
        shape, dtype = TYPES[tape.rows[index][2]]
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[{dtype.name} {list(shape)}], a value used by {name} (recorded at "
            f"{describe_place(tape.places[index])}), is at version {storage.version - storage.unseen}; expected "
            f"version {watched[1]} instead.")
