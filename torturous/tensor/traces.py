"""What a call of a Python function records, kept so that the same call can be recorded again without Python.

A call's rows follow from the rows of its tensors alone if the call did nothing but record: it asked for no value,
touched no tensor but those it was given, and wrote none but plain memory among them. Then, from the same prefix with
the same rows for its tensors, the record can go on to where the call ended (`ir/prefix.py`) in one step. `capture`
watches a call and gives its `Trace`, or says with `NotRepeatable` what stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.prefix import Place, Prefix
from torturous.ir.record import Record, context
from torturous.runtime.buffers import Buffer
from torturous.runtime.storage import Storage
from torturous.tensor.applying import note_end
from torturous.tensor.base import Size, Step, TensorBase

Key = tuple[Any, ...]


class NotRepeatable(Exception):
    """Why a call has to be made anew each time."""


class Start(NamedTuple):
    """Where a call begins: the pending record, and the tensors that the call is given with their rows."""

    record: Record
    end: Prefix
    slots: int
    tensors: list[TensorBase]
    rows: tuple[int, ...]
    drawn: int
    """The position of a generator's state among the tensors, or −1."""

    @property
    def key(self) -> Key:
        """What decides which rows the call appends: equal for two calls that may share a trace."""
        return self.end, self.slots, self.rows, self.drawn, self.record.tracking


def start(given: Sequence[TensorBase], state: TensorBase | None) -> Start | None:
    """Enters the tensors, and a generator's state if numbers are drawn.

    None where others can write a tensor, so that reading it has a time of its own.
    """
    for t in given:
        t.settle()
    record = context.record
    rows = [t.row() for t in given]
    tensors = list(given)
    if state is not None:
        tensors.append(state)
        rows.append(state._enter(writing=True))
    if record.urgent or context.record is not record:
        return None
    return Start(record, record.end, len(record.slots), tensors, tuple(rows), -1 if state is None else len(given))


# Results --------------------------------------------------------------------------------------------------------
# A result is described as a way to make it, a function of the record and the tensors given.
class Given(NamedTuple):
    """One of the tensors the call was given."""

    position: int

    def make(self, made: _Making) -> TensorBase:
        return made.tensors[self.position]


class Fresh(NamedTuple):
    """The tensor of a row."""

    row: int
    version: int
    """How often it was written in place."""

    def make(self, made: _Making) -> TensorBase:
        t = TensorBase._of_row(made.record, self.row)
        if self.version:
            storage = t.storage
            storage.version = t._seen = self.version
            made.record.versions[self.row] = (storage.watch(), self.version)
        return t


class Looking(NamedTuple):
    """A view of another tensor, at a row."""

    base: Given | Fresh
    type_index: int
    steps: tuple[Step, ...]
    strides: Shape | None
    offset: int
    detached: bool
    row: int

    def make(self, made: _Making) -> TensorBase:
        base = made.tensor(self.base)
        t = TensorBase._make(base.storage, self.type_index)
        t.base, t.steps = base, self.steps
        t._strides, t._offset, t._detached = self.strides, self.offset, self.detached
        t._record, t._index, t._seen = made.record, self.row, base.storage.version
        return t


Description = Given | Fresh | Looking


class Several(NamedTuple):
    """A tuple, list or dictionary of results."""

    kind: type
    names: tuple[Any, ...]
    """Of a dictionary."""
    parts: tuple[Any, ...]


class Constant(NamedTuple):
    """What is no tensor and no container."""

    kind: type
    value: Any


class _Making:
    """Results being made: what stands for one tensor twice is made once."""

    def __init__(self, record: Record, tensors: Sequence[TensorBase]) -> None:
        self.record = record
        self.tensors = tensors
        self.made: dict[Description, TensorBase] = {}

    def tensor(self, description: Description) -> TensorBase:
        t = self.made.get(description)
        if t is None:
            t = self.made[description] = description.make(self)
        return t

    def result(self, description: Any) -> Any:
        if isinstance(description, Constant):
            return description.value
        if isinstance(description, Several):
            parts = [self.result(part) for part in description.parts]
            if description.kind is dict:
                return dict(zip(description.names, parts, strict=True))
            return parts if description.kind is list else tuple(parts)
        return self.tensor(description)


class Written(NamedTuple):
    """One of the tensors given has been written: its last version is a row."""

    position: int
    row: int
    tracked: int
    place: Place
    versions: tuple[tuple[int, int], ...]
    """Rows that were its versions, and how many writes had led there."""


class Check(NamedTuple):
    """Something was made sure of about the values of a tensor: it is made sure of again each time."""

    tensor: Given | Looking
    check: Callable[[TensorBase], Any]


@dataclass
class Trace:
    """What a call has recorded from a certain `Start` on."""

    end: Prefix
    slots: list[bool | int | float]
    moved: dict[int, Place]
    result: Any
    written: list[Written]
    constants: dict[int, Buffer]
    """Values that the call has made of Python numbers, by row."""
    checks: list[Check] = field(default_factory=list)
    doubtful: bool = False
    """Whether positions or classes that it reads may turn out to be out of range (see `Record.doubt`)."""
    agreed: bool = False
    """Whether the call has been made twice and has recorded the same."""

    def agrees(self, other: Trace) -> bool:
        """Whether another call has done the same."""
        return (
            self.end is other.end and self.slots == other.slots and self.moved == other.moved
            and self.result == other.result and self.written == other.written
            and len(self.checks) == len(other.checks) and self.constants.keys() == other.constants.keys()
            and all(_bytes(self.constants[row]) == _bytes(other.constants[row]) for row in self.constants))

    def replay(self, start: Start) -> Any:
        """Records what the call would record, and gives its result; `NotRepeatable` if it has to be made after all."""
        record, tensors = start.record, start.tensors
        for check in self.checks:
            if not check.check(_Making(record, tensors).tensor(check.tensor)):
                raise NotRepeatable("the values of a tensor lead elsewhere")
        for write in self.written:
            storage = tensors[write.position].storage
            if write.position != start.drawn and storage.pending and storage.written == write.place is not None:
                raise NotRepeatable("what it writes was written here before: a loop has come round")
        if context.record is not record or record.end is not start.end:
            raise NotRepeatable("checking its tensors has recorded something")
        if self.doubtful:
            record.doubt()
        record.end = self.end
        record.slots += self.slots
        if self.moved:
            record.moved.update(self.moved)
        record.values.update(self.constants)
        for write in self.written:
            _write(record, tensors[write.position], write)
        result = _Making(record, tensors).result(self.result)
        note_end(record)
        return result


def _write(record: Record, t: TensorBase, write: Written) -> None:
    """Makes a row the present version of a tensor's storage, as `TensorBase._write` does."""
    storage, watched = t.storage, t.storage.watch()
    version, unseen = storage.version, storage.unseen
    if storage.pending and storage.record is record:
        record.owners.pop(storage.index, None)
        record.versions.setdefault(storage.index, (watched, version - unseen))
    for row, writes in write.versions:
        record.versions[row] = (watched, version + writes - unseen)
        storage.version = version + writes
    record.owners[write.row] = storage
    storage.record, storage.index, storage.tracked = record, write.row, write.tracked
    storage.pending, storage.written = True, write.place
    t._record, t._index, t._seen = None, -1, -1


def _bytes(buffer: Buffer) -> bytes:
    return buffer.array("uint8", (buffer.nbytes,)).tobytes()


# Watching a call ------------------------------------------------------------------------------------------------
def capture(start: Start, call: Callable[[], Any]) -> tuple[Any, Trace | NotRepeatable]:
    """Makes a call: its result, and its trace or what stands in the way of one."""
    record, tensors = start.record, start.tensors
    versions = [t.storage.version for t in tensors]
    unseen = [t.storage.unseen for t in tensors]
    marks = [_marks(t) for t in tensors]
    freed, tracking, hooks = bytes(record.freed), record.tracking, _hooks(record)
    looks: list[tuple[TensorBase, Any]] = []
    record.looks, record.captured = looks, start.end.index + 1
    try:
        result = call()
    finally:
        record.looks, record.captured = None, 0
    try:
        if context.record is not record:
            raise NotRepeatable("it needs the value of a tensor")
        if freed != record.freed or any(map(_differ, marks, map(_marks, tensors))):
            raise NotRepeatable("it runs a backward pass, or changes what it was given")
        if _hooks(record) != hooks:
            raise NotRepeatable("it registers hooks")
        return result, _Reading(start, tracking, versions, unseen).trace(result, looks)
    except NotRepeatable as reason:
        return result, reason


def _marks(t: TensorBase) -> tuple[Any, ...]:
    """What a call may change about a tensor besides its values."""
    hooks = 0 if t._hooks is None else len(t._hooks.table) + len(t._hooks.after)
    return t._storage, t._type, t._grad, t._requires_grad, t._detached, t._retains, hooks


def _hooks(record: Record) -> int:
    return sum(len(hooks.table) + len(hooks.retains) for hooks in record.hooks.values())


def _differ(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    return any(a is not b for a, b in zip(before, after, strict=True))


class _Reading:
    """Reads off the record what a call has done."""

    def __init__(self, start: Start, tracking: bool, versions: list[int], unseen: list[int]) -> None:
        self.record = start.record
        self.start = start
        self.first = start.end.index + 1
        self.tensors = start.tensors
        self.tracking = tracking
        self.versions = versions
        self.unseen = unseen
        self.position = {id(t): position for position, t in enumerate(start.tensors)}

    def trace(self, result: Any, looks: list[tuple[TensorBase, Any]]) -> Trace:
        record, first = self.record, self.first
        if any(row >= first for row in record.sources):
            raise NotRepeatable("it has gradients of its own")
        if record.urgent:
            raise NotRepeatable("it reads memory that others can write")
        if record.tracking != self.tracking:
            raise NotRepeatable("it changes the gradient mode")
        self._check_operands()
        written = self._written()
        checks = self._checks(looks)
        return Trace(
            record.end, record.slots[self.start.slots:],
            {row: place for row, place in record.moved.items() if row >= first},
            self._result(result), written, self._constants(), checks, record.doubtful > 0)

    def _check_operands(self) -> None:
        given = set(self.start.rows)
        for prefix in self.record.end.since(self.first):
            for operand in prefix.row[3:]:
                if 0 <= operand < self.first and operand not in given:
                    raise NotRepeatable("it reads a tensor that it was not given")

    def _constants(self) -> dict[int, Buffer]:
        record, found = self.record, {}
        for row, buffer in record.values.items():
            if row >= self.first:
                watched = record.versions.get(row)
                if buffer.exported or (watched is not None and watched[0]() is not None):
                    raise NotRepeatable("it reads a tensor that it was not given")
                found[row] = buffer
        return found

    def _written(self) -> list[Written]:
        record, found = self.record, []
        storages = [t.storage for t in self.tensors]
        for position, (t, storage) in enumerate(zip(self.tensors, storages, strict=True)):
            writes = storage.version - self.versions[position]
            if not writes:
                continue
            if (t.base is not None or t._requires_grad or t._detached or storage.unseen != self.unseen[position]
                    or not storage.pending or storage.record is not record
                    or sum(each is storage for each in storages) > 1):
                raise NotRepeatable("it writes a tensor in place that is a view, a parameter, or shared")
            counted = []
            for row, (watched, version) in record.versions.items():
                if row >= self.first and watched() is storage:
                    counted.append((row, version + storage.unseen - self.versions[position]))
            found.append(Written(position, storage.index, int(storage.tracked), storage.written,
                                 tuple(sorted(counted, key=lambda pair: pair[1]))))
        for row, owner in record.owners.items():
            if row >= self.first and isinstance(owner, Storage) and owner.buffer is not None:
                if not any(owner is storage for storage in storages):
                    raise NotRepeatable("it writes a tensor that it was not given")
        return found

    def _checks(self, looks: list[tuple[TensorBase, Any]]) -> list[Check]:
        """The checks that were made of values, but for constants, which will not change: those nobody else has."""
        checks, others = [], []
        given = [t.storage for t in self.tensors]
        while looks:
            t, check = looks.pop(0)
            if check is None:
                raise NotRepeatable("it looks at the values of a tensor")
            if any(t.storage is storage for storage in given):
                description = self._described(t)
                assert not isinstance(description, Fresh)
                checks.append(Check(description, check))
            else:
                others.append(t.storage.watch())
            del t, check
        if any(watched() is not None for watched in others):
            raise NotRepeatable("it looks at the values of a tensor that it was not given")
        return checks

    # Results ----------------------------------------------------------------------------------------------------
    def _result(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, TensorBase):
            return self._described(value)
        if kind in (tuple, list):
            return Several(kind, (), tuple(map(self._result, value)))
        if kind is dict:
            return Several(kind, tuple(value), tuple(map(self._result, value.values())))
        if value is None or kind in (bool, int, float, str, Size) or isinstance(value, DType):
            return Constant(kind, value)
        raise NotRepeatable(f"its result is a {kind.__name__}")

    def _described(self, t: TensorBase) -> Description:
        position = self.position.get(id(t))
        if position is not None:
            return Given(position)
        if type(t) is not TensorBase._result_class():
            raise NotRepeatable(f"its result is a {type(t).__name__}")
        attributes = {name for name, value in vars(t).items() if value is not getattr(TensorBase, name, _MISSING)}
        if t.base is None:
            if attributes - {"_strides"}:  # Which are those of all results, once they have been asked for.
                raise NotRepeatable("its result has attributes")
            return self._fresh(t)
        if attributes - {"base", "steps", "_strides", "_offset", "_detached"} or t._record is not self.record:
            raise NotRepeatable("its result has attributes")
        base = self._described(t.base)
        if isinstance(base, Looking) or t._seen != t.storage.version:
            raise NotRepeatable("its result is a view of memory written since")
        return Looking(base, t._type, t.steps, t._strides, t._offset, t._detached, t._index)

    def _fresh(self, t: TensorBase) -> Fresh:
        record, first = self.record, self.first
        if t._storage is None:
            if t._record is record and t._index >= first:
                return Fresh(t._index, 0)
            raise NotRepeatable("its result is not what it has recorded")
        storage = t.storage
        if (storage.pending and storage.record is record and storage.index >= first and storage.buffer is None
                and storage.unseen == 0 and record.owners.get(storage.index) is storage):
            return Fresh(storage.index, storage.version)
        raise NotRepeatable("its result is not what it has recorded")


_MISSING = object()
