"""Gradients: one walk back over the rows of the tape.

The tape is the record itself. A record that has been realized keeps the values that gradient rules read; rows that
are still pending are read where they are. Gradient rows are recorded like any others, so gradients of gradients
need nothing more.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import OPS, TYPES
from torturous.ir.record import LEAF, Record, context, describe_place
from torturous.ir.value import Value
from torturous.runtime.realize import realize
from torturous.tensor.base import TensorBase, wrap

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Node = tuple[Record, int]


class _Backward:
    """One backward pass: adjoints by tape row, walked from the newest row to the oldest."""

    def __init__(self, create_graph: bool, retain_graph: bool) -> None:
        self.create_graph = create_graph
        self.retain_graph = retain_graph
        self.adjoints: dict[tuple[int, int], Value] = {}
        self.records: dict[int, Record] = {}
        self.queue: list[tuple[int, int]] = []
        self.entered: dict[tuple[int, int], Value] = {}
        """Values of older tapes brought into the pending record."""
        self.leaves: dict[int, tuple[TensorBase, Value]] = {}
        self.captured: dict[tuple[int, int], Value] = {}
        self.visited: list[tuple[Record, int]] = []
        self.needed: set[tuple[int, int]] | None = None

    def value(self, record: Record, index: int, place: Any) -> Value:
        """A row of any tape as an operand in the pending record."""
        pending = context.record
        if record is pending:
            return Value(pending, index, place, self.create_graph)
        key = (record.serial, index)
        known = self.entered.get(key)
        if known is None or known.record is not pending:
            buffer = record.values.get(index)
            if buffer is None:
                raise RuntimeError(
                    "Trying to backward through the graph a second time (or directly access saved tensors after they "
                    "have already been freed). Saved intermediate values of the graph are freed when you call "
                    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
                    "graph a second time or if you need to access saved tensors after calling backward.")
            tracked = self.create_graph and bool(record.tracked[index])
            leaf = pending.leaf(record.rows[index][2], tracked, None)
            pending.values[leaf] = buffer
            if tracked:
                pending.sources[leaf] = (record, index)
            known = self.entered[key] = Value(pending, leaf, place, self.create_graph)
        return known

    def add(self, record: Record, index: int, gradient: Value) -> None:
        """Adds to a row's adjoint."""
        key = (record.serial, index)
        present = self.adjoints.get(key)
        if present is None:
            self.records[record.serial] = record
            heapq.heappush(self.queue, (-record.serial, -index))
            self.adjoints[key] = gradient
        else:
            self.adjoints[key] = present + gradient

    def run(self, hooks: Any) -> None:
        while self.queue:
            serial, index = heapq.heappop(self.queue)
            record, index = self.records[-serial], -index
            gradient = self.adjoints.pop((record.serial, index))
            self.step(record, index, hooks(record, index, gradient))

    def step(self, record: Record, index: int, gradient: Value) -> None:
        key = (record.serial, index)
        if key in self.captured:
            self.captured[key] = gradient
        source = record.sources.get(index)
        if source is not None:
            if isinstance(source, tuple):
                self.add(*source, gradient)
            else:
                self.leaves[id(source)] = (source, gradient)
                if record.rows[index][0] == LEAF.number:
                    return
            if source is not None:
                return
        number, attributes, type_index, *operands = record.rows[index]
        op = OPS[number]
        if index < len(record.freed) and record.freed[index] and op.saves:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Specify retain_graph=True if you need to backward through the graph a second "
                "time.")
        place = record.places[index]
        values: list[Any] | None = None
        for position, operand in enumerate(operands):
            if operand < 0 or not record.tracked[operand]:
                continue
            rule = op.gradients[position] if position < len(op.gradients) else None
            if rule is None:
                continue
            if values is None:
                values = [self._operand(record, o, op, k, place) for k, o in enumerate(operands)]
                out: Any = (self.value(record, index, place) if -1 in op.saves
                            else _Typed(TYPES[type_index].shape, TYPES[type_index].dtype))
                if -1 in op.saves:
                    self.check_version(record, index, op.name)
            result = rule(gradient, out, attributes, *values)
            shape, dtype = TYPES[record.rows[operand][2]]
            self.add(record, operand, result.sum_to(shape).to(dtype))
        self.visited.append((record, index))

    def _operand(self, record: Record, operand: int, op: Any, position: int, place: Any) -> Any:
        """What a rule sees of an operand: its value if the op saves it, else only its type."""
        if operand < 0:
            if record is context.record:
                return Value(record, operand, place, self.create_graph)
            return Value(context.record, context.record.slot(record.slots[~operand >> 2]), place, self.create_graph)
        if position in op.saves:
            self.check_version(record, operand, op.name)
            return self.value(record, operand, place)
        kind = TYPES[record.rows[operand][2]]
        return _Typed(kind.shape, kind.dtype)

    def check_version(self, record: Record, index: int, name: str) -> None:
        """Raises if the memory of a saved value has been written since."""
        watched = record.versions.get(index)
        if watched is None:
            return
        storage = watched[0]()
        if storage is not None and storage.version != watched[1]:
            shape, dtype = TYPES[record.rows[index][2]]
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[{dtype.name} {list(shape)}], a value used by {name} (recorded at "
                f"{describe_place(record.places[index])}), is at version {storage.version}; expected version "
                f"{watched[1]} instead.")

    def finish(self) -> None:
        """Gives up saved values, unless the graph is to be used again."""
        if self.retain_graph:
            return
        for record, index in self.visited:
            if len(record.freed) < len(record.rows):
                record.freed.extend(bytes(len(record.rows) - len(record.freed)))
            record.freed[index] = 1
            if record is not context.record:
                row = record.rows[index]
                for position in OPS[row[0]].saves:
                    saved = index if position < 0 else row[3 + position] if position < len(row) - 3 else -1
                    if saved >= 0:
                        record.values.pop(saved, None)


class _Typed:
    """An operand of which a rule may read only the type."""

    __slots__ = ("shape", "dtype")

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape = shape
        self.dtype = dtype

    def zeros(self) -> Value:
        return Value(context.record, -1, None, False).full(self.shape, self.dtype, 0)


def root(t: TensorBase) -> Node:
    """The tape row that a tensor's gradient starts from."""
    if t.base is None and not t.storage.pending and t._tracked():
        assert t.storage.record is not None
        return t.storage.record, t.storage.index
    index = t.row()
    return context.record, index


def backward(t: TensorBase, gradient: TensorBase | None, retain_graph: bool, create_graph: bool) -> None:
    """Adds the gradients of t with respect to every leaf to the leaves' `.grad`."""
    run = _start([t], [gradient], retain_graph, create_graph)
    accumulated = False
    for leaf, value in run.leaves.values():
        accumulated = _accumulate(leaf, value, create_graph) or accumulated
    run.finish()
    if accumulated and not create_graph:
        realize()


def _start(tensors: Sequence[TensorBase], gradients: Sequence[TensorBase | None], retain_graph: bool,
           create_graph: bool, captured: Sequence[Node] = ()) -> _Backward:
    run = _Backward(create_graph, retain_graph)
    tracking, context.tracking = context.tracking, create_graph
    try:
        seeds = []
        for t, gradient in zip(tensors, gradients, strict=True):
            if not (t._tracked() or t._requires_grad):
                raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
            if gradient is None and t.shape.numel() != 1:  # type: ignore[attr-defined]
                raise RuntimeError(
                    f"grad can be implicitly created only for scalar outputs, not for shape {list(t.shape)}")
            if gradient is not None and gradient.shape != t.shape:
                raise RuntimeError(
                    f"Mismatch in shape: grad_output[0] has a shape of {gradient.shape} and output[0] has a shape of "
                    f"{t.shape}.")
            seeds.append((t, gradient))
        run.captured = {(record.serial, index): None for record, index in captured}  # type: ignore[misc]
        for t, gradient in seeds:
            record, index = root(t)
            place = record.places[index]
            if gradient is None:
                start = Value(context.record, -1, place, create_graph).full(tuple(t.shape), t.dtype, 1)
            else:
                start = Value(context.record, gradient.row(), place, create_graph)
            run.add(record, index, start)
        run.run(lambda record, index, value: value)
    finally:
        context.tracking = tracking
    return run


def _accumulate(leaf: TensorBase, value: Value, create_graph: bool) -> bool:
    """leaf.grad += value; tells whether there was a gradient before."""
    present = leaf._grad
    if present is None:
        record = value.record
        index = value.index
        if record.owners[index] is not None or record.rows[index][0] == LEAF.number:
            index = value._like(index).apply(_alias()).index
        leaf._grad = wrap(record, index)
        return False
    tracking, context.tracking = context.tracking, create_graph
    try:
        total = Value(context.record, present.row(), None, create_graph) + value
        if create_graph:
            leaf._grad = wrap(context.record, total.index)
        else:
            present._write(total.index, None)
    finally:
        context.tracking = tracking
    return True


def _alias() -> Any:
    from torturous.ir.movement import ALIAS

    return ALIAS


class no_grad:
    """Within it nothing is tracked: `with no_grad():` or as a decorator."""

    def __enter__(self) -> None:
        self.before, context.tracking = context.tracking, False

    def __exit__(self, *error: object) -> None:
        context.tracking = self.before

    def __call__(self, function: Any) -> Any:
        import functools

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with no_grad():
                return function(*arguments, **named)

        return wrapped


__all__ = ["Tensor", "backward", "no_grad", "realize"]
