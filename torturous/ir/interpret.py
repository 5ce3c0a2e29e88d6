"""A record evaluated row by row in NumPy, by each op's `meaning`: what compiled kernels are compared with.

A test oracle only. It takes records without macros (see `compiler.expand`) and follows the same rules as
every kernel: elementwise operands are brought to the row's compute dtype, and each row rounds its result to
its own dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category, DType
from torturous.ir import creation, elementwise, movement
from torturous.ir.loop import REPEAT
from torturous.ir.op import OPS, TYPES, Attributes, Kind, Op, Type
from torturous.ir.record import Record, slot_category, slot_ordinal

FUNCTIONS = frozenset({
    elementwise.POW, elementwise.EXP, elementwise.EXPM1, elementwise.LOG, elementwise.LOG1P, elementwise.LOG2,
    elementwise.LOG10, elementwise.SIN, elementwise.COS, elementwise.TAN, elementwise.SINH, elementwise.COSH,
    elementwise.TANH, elementwise.SIGMOID, elementwise.ERF, elementwise.ASIN, elementwise.ACOS, elementwise.ATAN,
    elementwise.ATAN2, elementwise.ASINH, elementwise.ACOSH, elementwise.ATANH,
})
"""Ops whose floating results are not correctly rounded: kernels may be some units of the last place off."""


def interpret(record: Record, leaves: Mapping[int, np.ndarray], outputs: Sequence[int]) -> list[np.ndarray]:
    """The values of the rows `outputs`; `leaves` gives each leaf row an array of the row's shape and dtype.

    Raises ValueError for a record that still has macros in it, and IndexError for an index out of range.
    """
    values: dict[int, Any] = dict(leaves)
    bodies = {
        row for index, (number, attributes, *_) in enumerate(record.rows) if OPS[number] is REPEAT
        for row in range(index - attributes[0], index)
    }
    _evaluate(record, [row for row in range(len(record.rows)) if row not in bodies], values)
    return [values[output] for output in outputs]


def _evaluate(record: Record, rows: Iterable[int], values: dict[int, Any]) -> None:
    for index in rows:
        number, attributes, type_index, *operands = record.rows[index]
        op, out = OPS[number], TYPES[type_index]
        if op.kind in (Kind.LEAF, Kind.INPUT):
            continue
        if op is REPEAT:
            values[index] = _repeated(record, index, attributes, out.shape[0], [values[o] for o in operands])
            continue
        if op.kind is Kind.ITEM:
            values[index] = values[operands[0]][attributes[0]]
            continue
        if op.meaning is None:
            raise ValueError(f"row {index} ({op.name}) has no meaning of its own: expand the record first")
        arguments = [
            values[operand] if operand >= 0 else record.slots[slot_ordinal(operand)] for operand in operands
        ]
        if op.kind is Kind.ELEMENTWISE:
            kinds = [TYPES[record.rows[o][2]] if o >= 0 else slot_category(o) for o in operands]
            result = _elementwise(op, out, kinds, arguments)
        else:
            result = op.meaning(out, attributes, *_placed(op, out, arguments))
        values[index] = np.asarray(result, out.dtype.numpy).reshape(out.shape)


def _repeated(record: Record, index: int, attributes: Attributes, steps: int, operands: Sequence[Any]) -> list[Any]:
    """All values of a repeat row, its body evaluated step by step."""
    length, reverse, carried, stacked, fixed, results = attributes
    start = index - length
    now = list(operands[:len(carried)])
    slices, others = operands[len(carried):len(operands) - len(fixed)], operands[len(operands) - len(fixed):]
    values: dict[int, Any] = {start + at: value for at, value in zip(fixed, others, strict=True)}
    ever = [[value] for value in now]
    made: list[list[Any]] = [[] for _ in results]
    for step in range(steps):
        place = steps - 1 - step if reverse else step
        values |= {start + at: value for (at, *_), value in zip(carried, now, strict=True) if at >= 0}
        values |= {start + at: value[place] for at, value in zip(stacked, slices, strict=True)}
        _evaluate(record, range(start, index), values)
        now = [values[start + following] for _, following, _ in carried]
        for history, value in zip(ever, now, strict=True):
            history.append(value)
        for stack, at in zip(made, results, strict=True):
            stack.append(values[start + at])
    order = slice(None, None, -1 if reverse else 1)
    ends = [
        np.stack(history[order]) if kept else history[-1]
        for (_, _, kept), history in zip(carried, ever, strict=True)
    ]
    return [*ends, *(np.stack(stack[order]) for stack in made)]


def _elementwise(op: Op, out: Type, kinds: Sequence[Type | Category], arguments: Sequence[Any]) -> np.ndarray:
    if op is elementwise.CAST:
        return cast(np.asarray(arguments[0]), out.dtype)
    compute = elementwise.compute_type(op, out.dtype, kinds)
    wanted = [compute] * len(arguments)
    if op is elementwise.WHERE:
        wanted[0] = dtypes.bool_
    operands = [
        cast(argument, dtype) if isinstance(argument, np.ndarray) else number(argument, dtype)
        for argument, dtype in zip(arguments, wanted, strict=True)
    ]
    assert op.meaning is not None
    if op in FUNCTIONS and compute.is_floating_point:
        # With digits to spare, so that what a comparison finds is the kernel's error and not NumPy's.
        with np.errstate(all="ignore"):
            wide = np.float64 if compute is dtypes.float32 else np.longdouble
            exact = op.meaning(*[operand.astype(wide) for operand in operands])
            return cast(np.broadcast_to(exact.astype(compute.numpy), out.shape), out.dtype)
    result = np.broadcast_to(op.meaning(*operands), out.shape)
    return cast(result, out.dtype)


def _placed(op: Op, out: Type, arguments: Sequence[Any]) -> list[Any]:
    """Operands of the other kinds: fills take the row's dtype, starting positions are integers."""
    placed = list(arguments)
    if op in (movement.PAD, movement.WINDOW, movement.UNWINDOW):
        fill = placed[1]
        placed[1] = cast(fill, out.dtype) if isinstance(fill, np.ndarray) else number(fill, out.dtype)
    elif op is creation.FULL:
        placed[0] = number(placed[0], out.dtype)
    return placed


def number(value: bool | int | float, dtype: DType) -> np.ndarray:
    """A Python number as a 0-d array; integers wrap, floats become integers toward zero."""
    if dtype.is_floating_point:
        with np.errstate(all="ignore"):
            return cast(np.asarray(float(value), np.float64), dtype)
    if dtype is dtypes.bool_:
        return np.asarray(bool(value))
    if isinstance(value, float):
        return cast(np.asarray(value), dtype)
    bits = 8 * dtype.itemsize
    whole = int(value) % (1 << bits)
    if dtype.signed and whole >> (bits - 1):
        whole -= 1 << bits
    return np.asarray(whole, dtype.numpy)


def cast(x: np.ndarray, dtype: DType) -> np.ndarray:
    """An array in another dtype, as PyTorch casts on x86-64.

    Floats go to the nearest, ties to even; to integers toward zero, where NaN and what is out of range give
    the smallest integer, and uint8 takes the low bits of the int32.
    """
    source = dtypes.from_numpy(x.dtype)
    if source is dtype:
        return x
    with np.errstate(all="ignore"):
        if dtype.is_half and source is not dtypes.float32:
            return x.astype(np.float32).astype(dtype.numpy)
        if dtype is dtypes.bool_:
            return x != source.numpy.type(0)
        if source.is_floating_point and dtype.category is Category.INTEGRAL:
            if dtype is dtypes.uint8:
                return cast(x, dtypes.int32).astype(np.uint8)
            wide = x.astype(np.float64)
            bound = 2.0 ** (8 * dtype.itemsize - 1)
            inside = np.abs(wide) < bound
            whole = np.where(inside, wide, 0.0).astype(dtype.numpy)
            return np.where(inside, whole, np.iinfo(dtype.numpy).min)
        return x.astype(dtype.numpy)
