"""Recording an operation over tensors: operands are entered, a row is added, its result is a tensor."""

from __future__ import annotations

import functools
from _thread import get_ident
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torturous.core import settings
from torturous.core.dtypes import Category, DType
from torturous.core.shapes import Shape
from torturous.ir.op import Attributes, Op, type_number
from torturous.ir.record import FLOATING, Record, context, getframe, user_place
from torturous.runtime.realize import realize
from torturous.tensor import base
from torturous.tensor.base import Number, TensorBase

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

_new = object.__new__
Rule = tuple[int, Attributes]
"""What an operation works out once per combination of types and options: the result's type, the row's attributes."""


def wrap(record: Record) -> Tensor:
    """A tensor for the row that has just been recorded."""
    end = record.end
    t = TensorBase._of_known_row(record, end.index, end.type_index, end.tracked)
    if end.index >= record.room:
        _limit(record, end.index)
    return t


def wrap_all(record: Record, indices: Sequence[int]) -> list[Tensor]:
    """Tensors for the newly recorded values of one op."""
    tensors = [TensorBase._of_row(record, index) for index in indices]
    if len(record) > record.room:
        _limit(record, indices[-1])
    return tensors


INTEGRAL = int(Category.INTEGRAL)


def record_binary(op: Op, a: TensorBase, b: TensorBase) -> Tensor:
    """Records an op of two tensors, as `apply` does."""
    return operator(op, apply)(a, b)


@functools.cache
def operator(op: Op, otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """The method behind a Python operator: the path that small programs spend their time on.

    What `row`, `Record.apply` and `wrap` do is written out here, for calls cost as much as the work. It serves a
    tensor with a tensor or a Python number where nothing has to be entered or worked out first: where record and
    place lead on to a prefix that was recorded before. All else is left to `otherwise(op, a, b)`.
    """
    number = op.number

    def operate(self: TensorBase, other: Any) -> Any:
        record, storage = self._record, self._storage
        if record is None or record.thread != get_ident() or (storage is not None and self._seen != storage.version):
            return otherwise(op, self, other)
        kind, end = other.__class__, record.end
        if kind is base.result_class or isinstance(other, TensorBase):
            storage = other._storage
            if other._record is not record or (storage is not None and other._seen != storage.version):
                return otherwise(op, self, other)
            key = number, self._index, other._index
        elif kind is float:
            key = number, self._index, ~(len(record.slots) * 4 + FLOATING)
        elif kind is int:
            key = number, self._index, ~(len(record.slots) * 4 + INTEGRAL)
        else:
            return otherwise(op, self, other)
        following = end.following
        if following is None or following.name != key:
            following = end.others.get(key)
            if following is None:
                return otherwise(op, self, other)
        mode = following.mode
        if mode is not None and mode is not record.tracking:
            return otherwise(op, self, other)
        place, frame, index = following.place, getframe(1), following.index
        if place is None or place[1] != frame.f_lasti or place[0] is not frame.f_code:
            here = user_place()
            if here is not place:
                record.moved[index] = here
        if kind is float or kind is int:
            record.slots.append(other)
        t: Any = _new(base.result_class)
        t._record = record
        t._index = index
        t._type = following.type_index
        t._storage = None
        t._flows = following.tracked
        record.owners[index] = t
        record.end = following
        if index >= record.room:
            _limit(record, index)
        return t

    return operate


def _limit(record: Record, index: int) -> None:
    """Realizes where memory asks for it at once, or where the program comes round to the place of the last cut.

    A line of code is a finer place than a module's call, so four times as many rows may gather before it counts.
    """
    if record.urgent:
        realize()
        return
    if index < 4 * settings.row_limit.value:
        return
    place = record.place_of(index)
    if record.cut == place:
        realize(wait=False)
        context.record.cut = place
    elif record.cut is None or len(record) > record.patience:
        record.cut = place  # Here, if the program comes round to it.
        record.patience = max(16 * settings.row_limit.value, 2 * len(record))


def note_end(record: Record) -> None:
    """What `wrap` does at the end of each row, for rows that were recorded together."""
    if record.end.index >= record.room:
        _limit(record, record.end.index)


def cut_here(caller: object = None) -> None:
    """Called where a program comes round (a module's call, a loader's next batch): realizes past the soft limit.

    Without gradients past half of it: nothing that comes later reads what a call has computed within.
    """
    record = context.record
    if len(record) << (not record.tracking) > settings.row_limit.value:
        realize(wait=False)


def cut_before_first_use(tensors: Iterable[TensorBase]) -> None:
    """Called where a model that consists of these is used the first time: they are computed by themselves.

    The plan of that serves nothing else, while the first pass then has the plan of all others. Where something pending
    has gradients a pass is under way, and is left whole.
    """
    if not any(context.record.tracked) and any(t.storage.pending for t in tensors):
        realize(wait=False)


def operand(value: TensorBase | Number, record: Record) -> int:
    """A tensor's row, or a number's slot."""
    if isinstance(value, TensorBase):
        return value.row()
    return record.slot(value)


def enter(operands: Sequence[Any]) -> tuple[Record, list[int]]:
    """Tensors' rows and numbers' slots in one record, always in the operands' order."""
    record = context.record
    codes: list[int] = []
    numbers = False
    for value in operands:
        if isinstance(value, TensorBase):
            storage = value._storage
            if value._record is record and (storage is None or value._seen == storage.version):
                codes.append(value._index)
            elif storage is not None and not storage.pending:
                codes.append(value.row())
            else:
                break
        else:
            numbers = True
            codes.append(-1)
    else:
        if numbers:
            codes = [code if code >= 0 else record.slot(value) for code, value in zip(codes, operands, strict=True)]
        return record, codes
    # Entering what is pending may realize what others were entered into, which is why all settle first.
    for value in operands:
        if isinstance(value, TensorBase):
            value.settle()
    record = context.record
    return record, [value.row() if isinstance(value, TensorBase) else record.slot(value) for value in operands]


def apply(op: Op, *operands: Any, attributes: Attributes = ()) -> Tensor:
    """Records an op over tensors and numbers; the result's type follows from them."""
    record, codes = enter(operands)
    record.apply(op, attributes, codes, user_place(), record.tracking)
    return wrap(record)


def apply_typed(op: Op, shape: Shape, dtype: DType, *operands: Any, attributes: Attributes = ()) -> Tensor:
    """The same for an op whose result type the caller has worked out."""
    record, codes = enter(operands)
    record.apply_typed(op, attributes, type_number(tuple(shape), dtype), codes, user_place(), record.tracking)
    return wrap(record)


def apply_rule(op: Op, rule: Rule, *operands: Any) -> Tensor:
    """The same where the caller has remembered the result's type with the attributes."""
    record, codes = enter(operands)
    type_index, attributes = rule
    record.apply_typed(op, attributes, type_index, codes, user_place(), record.tracking)
    return wrap(record)
