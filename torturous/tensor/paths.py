"""The way of a view from its base, with repetition last.

What `expand` repeats is one place of memory, whatever is done with the view afterwards: a slice of an expanded axis
is an expanded slice, and a slice of one place is no longer expanded at all. So an expansion is moved behind the steps
that follow it, and a view that PyTorch would let be written has none left.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir import movement
from torturous.ir.op import TYPES, type_number
from torturous.tensor.base import Step, TensorBase


def extended(t: TensorBase, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps from t's base to what further steps make of t."""
    if len(steps) == 1 and (not t.steps or t.steps[-1].op is not movement.EXPAND):
        return (*t.steps, steps[0])
    path = list(t.steps)
    base = TYPES[t.storage.type_index]
    for step in steps:
        passed = None
        if path and path[-1].op is movement.EXPAND:
            inner = TYPES[path[-2].type_index].shape if len(path) > 1 else base.shape
            passed = _behind(inner, TYPES[path[-1].type_index].shape, step, base.dtype)
        if passed is None:
            path.append(step)
        else:
            path[-1:] = passed
    return tuple(path)


def _behind(inner: Shape, wide: Shape, step: Step, dtype: DType) -> list[Step] | None:
    """Steps from `inner` that do what expanding it to `wide` and then `step` do, expanding last; None if none do."""
    shape = TYPES[step.type_index].shape
    narrow = (1,) * (len(wide) - len(inner)) + inner
    path = []
    if step.op is movement.EXPAND:
        return [step]
    if step.op is movement.RESHAPE:
        reshaped = _reshaped(narrow, wide, shape)
        if reshaped is None:
            return None
        path, narrow = [Step(movement.RESHAPE, (), type_number(reshaped, dtype))], reshaped
    elif step.op in (movement.SLICE, movement.PERMUTE):
        if narrow != inner:
            path.append(Step(movement.RESHAPE, (), type_number(narrow, dtype)))
        if step.op is movement.PERMUTE:
            narrow = movement.permuted(narrow, step.attributes)
            path.append(Step(movement.PERMUTE, step.attributes, type_number(narrow, dtype)))
        else:
            boxes = [box for box in zip(*step.attributes, step.starts, strict=True) if narrow[box[0]] == wide[box[0]]]
            if boxes:
                axes, strides, starts = zip(*boxes, strict=True)
                narrow = tuple(shape[axis] if axis in axes else size for axis, size in enumerate(narrow))
                path.append(Step(movement.SLICE, (axes, strides), type_number(narrow, dtype), starts))
    else:
        return None
    if narrow != shape:
        path.append(Step(movement.EXPAND, (), step.type_index))
    return path


def _reshaped(narrow: Shape, wide: Shape, shape: Shape) -> Shape | None:
    """What `narrow` becomes where `wide`, to which it expands, is reshaped to `shape`; None if it is no such thing.

    Axes that are merged or split belong together: either none of them repeats, or all do that have a size.
    """
    if not prod(wide):
        return None
    result: list[int] = []
    first = 0
    while first < len(wide) or len(result) < len(shape):
        last, sizes = first, list(shape[len(result):len(result) + 1])
        extent, reached = 1, prod(sizes)
        while extent != reached or last == first < len(wide):
            if extent <= reached and last < len(wide):
                extent *= wide[last]
                last += 1
            else:
                sizes.append(shape[len(result) + len(sizes)])
                reached *= sizes[-1]
        group = [(have, want) for have, want in zip(narrow[first:last], wide[first:last], strict=True) if want != 1]
        repeated = [have != want for have, want in group]
        if any(repeated) and not all(repeated):
            return None
        result += [1] * len(sizes) if any(repeated) else sizes
        first = last
    return tuple(result)


def unrepeated(t: TensorBase) -> Any:
    """A view of what an expanded view repeats: the same axes, of size 1 where it does."""
    assert t.base is not None
    path = t.steps[:-1]
    inner = TYPES[path[-1].type_index if path else t.storage.type_index]
    shape = (1,) * (len(t.shape) - len(inner.shape)) + inner.shape
    if shape != inner.shape or not path:
        path = (*path, Step(movement.RESHAPE, (), type_number(shape, inner.dtype)))
    shorter = TensorBase._make(t.storage, path[-1].type_index)
    shorter.base, shorter.steps = t.base, path
    shorter._strides, shorter._offset = t.strides, t._offset
    shorter._detached, shorter._unseen = t._detached, t._unseen
    return shorter


__all__ = ["extended", "unrepeated"]
