"""What every tensor is: a storage, a way of looking at it, and its row in the pending record.

Mixins in this package add the operations by family; `tensor.py` puts them together as `Tensor`.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torturous.core.dtypes import Category, DType
from torturous.core.shapes import Shape, contiguous_strides
from torturous.ir import movement
from torturous.ir.op import TYPES, Attributes, Op
from torturous.ir.record import LEAF, Place, Record, context, describe_place, user_place
from torturous.runtime.buffers import Buffer
from torturous.runtime.realize import compute, realize
from torturous.runtime.storage import SNAPSHOT_BYTES, Storage

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Number = bool | int | float
Operand = "TensorBase | Number"


class Step:
    """One movement op of a view's way from its base. Starting positions are kept as plain numbers."""

    __slots__ = ("op", "attributes", "type_index", "starts")

    def __init__(self, op: Op, attributes: Attributes, type_index: int, starts: Sequence[int] = ()) -> None:
        self.op = op
        self.attributes = attributes
        self.type_index = type_index
        self.starts = tuple(starts)

    def _key(self) -> tuple[Any, ...]:
        return self.op.number, self.attributes, self.type_index, self.starts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


class TensorBase:
    """The part of a tensor that floors below can see. Not for users: see `Tensor`."""

    # What every operation reads has a slot; of the rest, what is usual stands in the class.
    __slots__ = ("_record", "_index", "_type", "_storage", "_flows", "_seen", "__dict__", "__weakref__")

    _record: Record | None
    """The pending record that this tensor was last entered into: there its value is row `_index`, if the storage is
    still at `_seen`."""
    _index: int
    _type: int
    _storage: Storage | None
    """None for a result that is nothing but its row so far: it gets a storage when somebody asks for that."""
    _flows: int
    """Without a storage: whether gradients flow back through the row."""
    _seen: int
    """With a storage: its version at row `_index`."""
    base: TensorBase | None = None
    """The tensor this is a view of, whose history it shares."""
    steps: tuple[Step, ...] = ()
    """The way from the base, for a view."""
    _strides: Shape | None = None
    _offset = 0
    _requires_grad = False
    _detached = False
    _unseen = False
    """Whether writes are hidden from autograd (`.data`)."""
    _grad: Any = None
    _hooks: Any = None
    _retains = False

    @staticmethod
    def _make(storage: Storage, type_index: int) -> Tensor:
        t: Any = _new(result_class)
        t._storage = storage
        t._type = type_index
        t._record = None
        t._index = -1
        t._seen = 0
        return t

    @staticmethod
    def _of_row(record: Record, index: int) -> Tensor:
        """A tensor for a pending row that has no owner."""
        last = record.last(index)
        return TensorBase._of_known_row(record, index, last.type_index, last.tracked)

    @staticmethod
    def _of_known_row(record: Record, index: int, type_index: int, flows: int) -> Tensor:
        """The same, of this type, and through which gradients flow back or not."""
        t: Any = _new(result_class)
        t._record = record
        t._index = index
        t._type = type_index
        t._flows = flows
        t._storage = None
        record.owners[index] = t
        return t

    @staticmethod
    def _result_class() -> type:
        """The class of results."""
        return result_class

    @property
    def storage(self) -> Storage:
        """The memory this tensor looks at."""
        storage = self._storage
        if storage is None:
            assert self._record is not None
            with _claiming:  # Another thread may ask at the same time.
                if self._storage is None:
                    self._seen = 0
                    self._storage = Storage.pending_row(self._record, self._index, self._type, self._flows)
                storage = self._storage
        return storage

    @storage.setter
    def storage(self, storage: Storage) -> None:
        self._storage = storage

    # Shape and type --------------------------------------------------------------------------------------------
    @property
    def shape(self) -> Shape:
        if self._type >= len(_sizes):
            _sizes.extend(Size(kind.shape) for kind in TYPES[len(_sizes):])
        return _sizes[self._type]

    @property
    def dtype(self) -> DType:
        return TYPES[self._type].dtype

    @property
    def strides(self) -> Shape:
        """Strides in elements."""
        if self._strides is None:
            self._strides = contiguous_strides(TYPES[self._type].shape)
        return self._strides

    # Rows ------------------------------------------------------------------------------------------------------
    def row(self) -> int:
        """The row of this tensor's present value in this thread's pending record, entered if need be."""
        record, storage = self._record, self._storage
        if record is not None and record.thread == get_ident() and (
                storage is None or self._seen == storage.version):
            return self._index
        if storage is None or storage.pending or self.base is not None or storage.foreign is not None:
            return self._enter()
        buffer = storage.buffer
        if buffer is None or buffer._export is not None:
            return self._enter()
        # Nearly everything else that is entered is a parameter or an optimizer's state: memory of its own.
        record = context.record
        self._record, self._seen = record, storage.version
        self._index = index = self._leaf(record, storage, buffer)
        return index

    def _leave_row(self) -> None:
        """Has the next operation enter this tensor anew: it stands for its memory, no longer for the row it was."""
        if self._storage is None:
            self._storage = self.storage
        self._record, self._index, self._seen = None, -1, -1

    def _enter(self, writing: bool = False) -> int:
        storage = self.storage
        if storage.failure is not None:
            raise RuntimeError(f"this tensor has no value, because computing it failed: {storage.failure}") from (
                storage.failure
            )
        if self.base is not None:
            index = self.base.row()
            record = context.record
            place = user_place()
            node = self._past_node()
            for step in self.steps:
                operands = [index, *map(record.slot, step.starts)]
                index = record.apply_typed(
                    step.op, step.attributes, step.type_index, operands, place, not self._detached and node is None)
            if node is not None:
                # The gradient goes on where this view was first made: there are its hooks.
                index = record.append((movement.ALIAS.number, (), self._type, index), 1, place)
                record.sources[index] = node
            else:
                index = self._alias(record, index)
        else:
            index = self._enter_base(writing) if storage.pending else self._enter_memory(context.record, storage)
            record = context.record
        self._record, self._index = record, index
        # Others may write shared memory unseen: what was read of it holds for one use.
        self._seen = -1 if not storage.pending and storage.shared() else storage.version
        return index

    def settle(self) -> None:
        """Realizes first, if reading this tensor asks for it: before anything else of an op is entered.

        So it does if a loop came round (what is read now was written at its end), or if another thread recorded it.
        """
        storage = self._storage
        if storage is None:
            if self._record.thread == get_ident():  # type: ignore[union-attr]
                return
            storage = self.storage
        if storage.pending and (self._record is not context.record or self._seen != storage.version):
            if storage.record is not context.record:
                compute(storage)
            elif storage.buffer is not None and context.tracking:
                realize()

    def _past_node(self) -> tuple[Record, int] | None:
        """Where a view stands on the tape of a record since realized, if that is alive and the value the same."""
        record = self._record
        if record is None or record.tape is None or self._seen != self.storage.version or self._detached:
            return None
        tape = record.tape()
        return (tape, self._index) if tape is not None and tape.tracked[self._index] else None

    def _enter_base(self, writing: bool) -> int:
        storage, record = self.storage, context.record
        assert storage.record is not None
        if storage.record is not record:
            compute(storage)
        elif storage.buffer is not None and record.tracking and not writing:
            # A loop came round: what is read now was written at its end.
            realize()
        else:
            return self._alias(record, storage.index)
        return self._enter_memory(context.record, storage)

    def _alias(self, record: Record, index: int) -> int:
        """This tensor's own row for a pending version of its storage."""
        if self._requires_grad:
            alias = record.append((movement.ALIAS.number, (), self._type, index), 1, user_place(3))
            record.sources[alias] = self
            return alias
        if self._detached and record.tracked[index]:
            return _untracked(record, index, self._type)
        return index

    def _enter_memory(self, record: Record, storage: Storage) -> int:
        """Enters realized memory into the pending record."""
        buffer = storage.buffer
        assert buffer is not None
        if storage.shared():
            if buffer.nbytes <= SNAPSHOT_BYTES:
                buffer = storage.snapshot()
            else:
                record.urgent, record.room = True, 0
            return self._leaf(record, storage, buffer, shared=True)
        return self._leaf(record, storage, buffer)

    def _leaf(self, record: Record, storage: Storage, buffer: Buffer, shared: bool = False) -> int:
        """The leaf for a buffer that a storage's value lies in: a new one, if others may write what it holds."""
        version, requires_grad = storage.version, self._requires_grad
        history = storage.tracked and not self._detached
        leaves, key = record.leaves, (id(buffer), version, id(self) if requires_grad else history)
        if not shared:
            known = leaves.get(key)
            if known is not None:
                return known
        index = record.leaf(storage.type_index, requires_grad or history)
        record.values[index] = buffer
        record.versions[index] = (weakref.ref(storage), version - storage.unseen)
        if requires_grad:
            record.sources[index] = self
        elif history:
            record.sources[index] = (storage.record, storage.index)
        if not shared:
            leaves[key] = index
        return index

    # Results ---------------------------------------------------------------------------------------------------
    def _writable(self) -> None:
        """Raises PyTorch's errors if this tensor must not be written in place now."""
        self._changeable()
        if self.steps and 0 not in self.shape and (
                self._repeats() or any(step.op in _OVERLAPPING for step in self.steps)):
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                "location. Please clone() the tensor before performing the operation.")

    def _changeable(self) -> None:
        """Raises PyTorch's errors if autograd forbids writing this tensor in place now."""
        if context.tracking:
            if self._requires_grad:
                raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
            if self.base is not None and self.base._requires_grad and not self._detached:
                raise RuntimeError(
                    "a view of a leaf Variable that requires grad is being used in an in-place operation.")

    def _repeats(self) -> bool:
        """Whether elements share a place in memory, as far as strides show it, which is what PyTorch asks."""
        return bool(self.steps) and 0 not in self.shape and any(
            stride == 0 and size > 1 for size, stride in zip(self.shape, self.strides, strict=True))

    def _came_round(self, place: Place) -> None:
        """Realizes first if this very line has already written this storage since the last realization."""
        storage = self.storage
        if storage.pending and storage.written is not None and storage.written == place:
            realize()

    def _write(self, value: int, place: Place, settle: bool = True) -> None:
        """Makes a row, of this tensor's shape and dtype, the next version of what the tensor looks at.

        Memory that others see is written at once, unless the caller will `settle` several writes together.
        """
        record, storage = context.record, self.storage
        owner = self.base if self.base is not None else self
        hidden = not record.tracking or self._detached
        if self.steps:
            base = owner._enter(writing=True)
            value = _write_through(record, base, value, self.steps, storage.type_index, place)
            if not hidden and record.last(value).tracked:
                value = record.append((movement.WRITE.number, (), storage.type_index, value), 1, place)
        if hidden and storage.tracked and not owner._requires_grad:
            # The storage keeps its history, whoever writes it behind autograd's back.
            tracked = TensorBase._make(storage, storage.type_index) if owner._detached else owner
            history = tracked._enter(writing=True)
            value = record.append((movement.REPLACE.number, (), storage.type_index, history, value), 1, place)
        elif value in record.owners or record.last(value).row[0] == LEAF.number:
            # The row is somebody else's value (or a leaf): this storage needs one of its own.
            value = record.append(
                (movement.ALIAS.number, (), storage.type_index, value), record.last(value).tracked, place)
        self._take(record, storage, value, record.last(value).tracked, place)
        if settle and (record.urgent or storage.shared()):
            realize()

    def _write_fresh(self, value: int, record: Record, place: Place) -> bool:
        """`_write` for one of several values that an untracked row has just been recorded with: nobody else has it,
        and the caller settles, if this says that others see the memory. An optimizer writes hundreds, nearly all of
        them whole tensors without a history."""
        storage = self._storage
        if storage is None or self.base is not None or (storage.tracked and not self._requires_grad):
            self._write(value, place, settle=False)
            return self.storage.shared()
        self._take(record, storage, value, 0, place)
        buffer = storage.buffer
        return (storage.foreign is not None or (buffer is not None and buffer._export is not None)) and storage.shared()

    def _take(self, record: Record, storage: Storage, value: int, tracked: int, place: Place) -> None:
        """Makes a row that nobody else has the next version of the storage."""
        if storage.pending and storage.record is not record:
            # Another thread's: what it recorded comes first.
            compute(storage)
        version, watch = storage.version, weakref.ref(storage)
        if storage.pending:
            record.owners.pop(storage.index, None)
            record.versions.setdefault(storage.index, (watch, version - storage.unseen))
        if self._unseen:
            storage.unseen += 1
        record.owners[value] = storage
        record.versions[value] = (watch, version + 1 - storage.unseen)
        storage.record, storage.index, storage.pending, storage.tracked = record, value, True, tracked
        storage.version, storage.written = version + 1, place
        self._record, self._index, self._seen = None, -1, -1

    # Tracking --------------------------------------------------------------------------------------------------
    def _tracked(self) -> bool:
        """Whether this tensor has a history, so that it is not a leaf of autograd."""
        if self._detached:
            return False
        if self.base is not None:
            return TYPES[self._type].dtype.category is Category.FLOATING and (
                self.base._tracked() or self.base._requires_grad)
        storage = self._storage
        return bool(self._flows if storage is None else storage.tracked) and not self._requires_grad

    def detach(self) -> Tensor:
        """The same memory without history; writing to one is seen by the other."""
        t = self._alias_tensor()
        t._detached = True
        return t

    def _alias_tensor(self) -> Tensor:
        """Another tensor that looks at the same elements in the same way."""
        t = TensorBase._make(self.storage, self._type)
        t.base, t.steps = self.base, self.steps
        t._strides, t._offset = self._strides, self._offset
        t._detached, t._unseen = self._detached, self._unseen
        return t


class Size(tuple):
    """A shape: a tuple that prints as PyTorch's `torch.Size` and counts its elements."""

    __slots__ = ()

    def numel(self) -> int:
        count = 1
        for size in self:
            count *= size
        return count

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"


_OVERLAPPING = (movement.EXPAND, movement.WINDOW)
"""Steps after which elements may share a place in memory."""
_sizes: list[Size] = []
"""The shapes of all types, by type number."""
_claiming = threading.Lock()
_new = object.__new__
result_class: type = TensorBase
"""The class of results (see `set_class`)."""


def set_class(cls: type) -> None:
    """Says which class results are made of (called once, by `tensor.py`)."""
    global result_class
    result_class = cls


def node_of(t: TensorBase) -> tuple[Record, int]:
    """The tape row at which a tensor's gradient arrives; a tensor that is new to the pending record is entered."""
    storage = t.storage
    if not (t._record is context.record and t._seen == storage.version):
        if t.base is not None:
            past = t._past_node()
            if past is not None:
                return past
        elif t._tracked() and not storage.pending:
            assert storage.record is not None
            return storage.record, storage.index
    index = t.row()
    return on_tape(context.record, index)


def on_tape(record: Record, index: int) -> tuple[Record, int]:
    """Where a row's gradient arrives: on an older tape, if its value was realized since it was recorded there."""
    source = record.sources.get(index)
    while isinstance(source, tuple):
        record, index = source
        source = record.sources.get(index)
    return record, index


def _untracked(record: Record, index: int, type_index: int) -> int:
    return record.append((movement.ALIAS.number, (), type_index, index), 0, None)


def _write_through(record: Record, base: int, value: int, steps: Sequence[Step], base_type: int, place: Place) -> int:
    """The base with a view's elements replaced: the inverse of the view's steps, from the last to the first."""
    rows = [base]
    tracking = context.tracking
    slots = [[record.slot(start) for start in step.starts] for step in steps]
    for step, starts in zip(steps[:-1], slots[:-1], strict=True):
        rows.append(record.apply_typed(step.op, step.attributes, step.type_index, [rows[-1], *starts], place, tracking))
    types = [base_type, *[step.type_index for step in steps[:-1]]]
    for step, starts, before, type_index in reversed(list(zip(steps, slots, rows, types, strict=True))):
        if step.op is movement.SLICE:
            value = record.apply_typed(
                movement.INSERT, step.attributes, type_index, [before, value, *starts], place, tracking)
        elif step.op is movement.RESHAPE:
            value = record.apply_typed(movement.RESHAPE, (), type_index, [value], place, tracking)
        elif step.op is movement.PERMUTE:
            inverse = tuple(sorted(range(len(step.attributes)), key=step.attributes.__getitem__))
            value = record.apply_typed(movement.PERMUTE, inverse, type_index, [value], place, tracking)
        else:
            value = before  # Repeated places are written only where there are none.
    return value


__all__ = ["Number", "Operand", "Place", "Size", "Step", "TensorBase", "describe_place", "node_of", "on_tape",
           "set_class"]
