"""What a module computes at any batch: its forward recorded at several batches, and the records made one.

Recording computes nothing: inputs are rows without values, so a forward that asks for a value (control flow
on data, a host operation) cannot go unnoticed. Records must be equal but for their sizes, and every size and
every number must be an affine function of the batch. Two batches decide the function, the others confirm it.

Where sums have another order at other batches (`native.batches`), these have a program of their own.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NoReturn

from torturous.compiler.expand import Expanded, expand
from torturous.compiler.graph import Sizes, dimensions, unify
from torturous.compiler.sizes import MANY
from torturous.core import settings
from torturous.core.errors import UnsupportedError
from torturous.ir.op import OPS, TYPES, Kind, Type, type_number
from torturous.ir.record import Record, context, describe_place
from torturous.native.batches import EVERY, RECORDED, Batches, Filling, filling_of, largest_of_each
from torturous.runtime.realize import realize
from torturous.runtime.storage import Storage
from torturous.tensor.base import TensorBase
from torturous.tensor.grad_mode import no_grad

Number = bool | int | float
LARGEST_DENOMINATOR = 1 << 26
"""Of numbers that are taken for quotients: below, no two quotients are the same double."""


@dataclass(frozen=True)
class InBatch:
    """factor · batch + constant."""

    factor: int
    constant: int

    def at(self, batch: int) -> int:
        return self.factor * batch + self.constant


@dataclass(frozen=True)
class Ratio:
    """scale · (numerator / denominator), as Python works it out: each step rounded to double."""

    numerator: InBatch
    denominator: InBatch
    scale: float = 1.0

    def at(self, batch: int) -> float:
        return self.scale * (self.numerator.at(batch) / self.denominator.at(batch))


Slot = Number | InBatch | Ratio | None


@dataclass(frozen=True)
class Program:
    """A forward at any batch."""

    expanded: Expanded
    """At one batch; `sizes` says which of its sizes stand for variables."""
    sizes: Sizes
    variables: tuple[InBatch, ...]
    """What each size variable is."""
    slots: tuple[Slot, ...]
    """What each slot is; None for a number that depends on the batch in another way than these."""
    inputs: tuple[Type, ...]
    """As they were given; the leading size stands for the batch."""
    leaves: tuple[int | str, ...]
    """Per leaf of the plan, in order: an input's position or a weight's name."""
    weights: Mapping[str, tuple[Type, bytes]]
    """The tensors that leaves stand for."""
    several: bool
    """Whether forward gives a tuple or list."""
    written: tuple[str, ...] = ()
    """The tensors that the last outputs are the new values of."""

    def at(self, batch: int) -> Program:
        """The same for one batch only: sizes are constants, which makes the fastest kernels."""
        template = tuple(want if want >= 0 else self.variables[~want].at(batch) for want in self.sizes.template)
        slots = tuple(slot.at(batch) if isinstance(slot, (InBatch, Ratio)) else slot for slot in self.slots)
        return replace(self, sizes=Sizes(template, 0), variables=(), slots=slots)

    def from_batch(self, least: int) -> Program:
        """The same for batches from `least` on."""
        many = frozenset(number for number, size in enumerate(self.variables)
                         if size.factor > 0 and size.at(least) >= MANY)
        return replace(self, sizes=replace(self.sizes, many=many))


Version = tuple[Batches, Program]


@dataclass(frozen=True)
class _Trace:
    """One recording."""

    batch: int
    record: Record
    inputs: tuple[int, ...]
    names: Mapping[int, str]
    expanded: Expanded
    written: tuple[str, ...]


def record_program(
    forward: Callable[..., Any], tensors: Mapping[str, TensorBase], inputs: Sequence[Type], max_batch: int | None
) -> list[Version]:
    """Records `forward(*inputs)` at several batches up to `max_batch` (and a few small ones in any case); for None
    once, with the inputs' own shapes.

    `tensors` are the module's own, by name; any other tensor that forward reads becomes "constant.0",
    "constant.1" … The inputs' leading size is the batch. Raises UnsupportedError, naming op and line, for a
    forward that cannot be recorded once for all batches.
    """
    several = False

    def body(arguments: list[Any]) -> list[Any]:
        nonlocal several
        with no_grad():
            result = forward(*arguments)
        several = isinstance(result, (tuple, list))
        if several and not result:
            raise TypeError("forward gave an empty tuple; a plan needs at least one tensor as its result")
        return list(result) if several else [result]

    versions = record_versions(body, tensors, inputs, max_batch, training=False)
    return [(batches, replace(program, several=several)) for batches, program in versions]


def record_versions(
    body: Callable[[list[Any]], list[Any]], tensors: Mapping[str, TensorBase], inputs: Sequence[Type],
    max_batch: int | None, training: bool,
) -> list[Version]:
    """Records `body`, a function from the list of inputs to a list of tensors, as `record_program` does forward.

    With `training` it may draw random numbers and write to `tensors`; what they hold then are further outputs. The
    last version is the one for few samples, and serves whatever no other one does.
    """
    if max_batch is None:
        return [(EVERY, record_body(body, tensors, inputs, training))]
    for tensor in tensors.values():
        tensor._realized()  # type: ignore[attr-defined]

    def trace(batch: int) -> _Trace:
        return _trace(body, tensors, inputs, batch, training)

    few, *others = _by_order_of_sums(trace, max_batch)
    weights: dict[str, tuple[Type, bytes]] = {}
    versions = []
    for traces in (few, *others):
        fillings = frozenset(filling_of(each.batch) for each in traces)
        batches = EVERY if traces is few else Batches(fillings=fillings)
        for batch in RECORDED[filling_of(traces[0].batch)]:  # As many as a function of the batch is found from.
            if len(traces) < 4 and batch not in [each.batch for each in traces]:
                traces.append(trace(batch))
        versions.append((batches, _program(traces, tensors, inputs, weights)))
    return versions[::-1]


def _by_order_of_sums(trace: Callable[[int], _Trace], max_batch: int) -> list[list[_Trace]]:
    """Recordings at all kinds of batches up to `max_batch`, by the orders of their sums; those for few samples first.
    The largest batch of each kind is among them, where a limit (`x[:30]`) shows."""
    single = None
    with suppress(Exception):  # What cannot be recorded for one sample is computed for it as for others.
        single = trace(1)
    found: dict[tuple, list[_Trace]] = {}
    most = max(7, max_batch)
    largest = largest_of_each(most)
    least = [RECORDED[filling][0] for filling in largest]
    for batch in dict.fromkeys((*RECORDED[Filling.FEW][:3], *sorted({*least, *largest.values()}))):
        traced = trace(batch)
        found.setdefault(_orders_of_sums(traced), []).append(traced)
    groups = list(found.values())
    for first, *_ in groups[1:]:  # Before it is expanded, what the program asks for is the same at all of them.
        _check_rows(groups[0][0], first, groups[0][0].record, first.record)
    if single is not None and _orders_of_sums(single) != _orders_of_sums(groups[0][0]):
        groups.append([single])
    return groups


def _orders_of_sums(traced: _Trace) -> tuple:
    return tuple(row[1] for row in traced.expanded.record.rows if OPS[row[0]].kind is Kind.CONTRACT)


def record_body(
    body: Callable[[list[Any]], list[Any]], tensors: Mapping[str, TensorBase], inputs: Sequence[Type], training: bool,
) -> Program:
    """The same for the inputs' own shapes alone."""
    for tensor in tensors.values():
        tensor._realized()  # type: ignore[attr-defined]
    return _program([_trace(body, tensors, inputs, None, training)], tensors, inputs, {})


def _program(
    traces: Sequence[_Trace], tensors: Mapping[str, TensorBase], inputs: Sequence[Type],
    weights: dict[str, tuple[Type, bytes]],
) -> Program:
    """Recordings made one; `weights` are those of all programs."""
    first = traces[0]
    for other in traces[1:]:
        _check_structure(first, other)
    sizes = unify([dimensions(trace.expanded) for trace in traces])
    leaves = _leaves(traces, tensors, weights)
    return Program(first.expanded, sizes, _variables(traces, sizes), _slots(traces), tuple(inputs), leaves,
                   weights, False, first.written)


def same_structure(a: Program, b: Program) -> bool:
    """Whether two programs differ in their numbers at most."""
    mine, theirs = a.expanded.record.rows, b.expanded.record.rows
    return (len(mine) == len(theirs) and all(map(_alike, mine, theirs)) and a.expanded.outputs == b.expanded.outputs
            and a.leaves == b.leaves and a.written == b.written)


# One recording ----------------------------------------------------------------------------------------------
def _trace(
    body: Callable[[list[Any]], list[Any]], tensors: Mapping[str, TensorBase], inputs: Sequence[Type],
    batch: int | None, training: bool,
) -> _Trace:
    realize()
    limit, settings.row_limit.value = settings.row_limit.value, sys.maxsize
    record = context.renew()
    room = record.room
    try:
        names: dict[int, str] = {}
        for name, tensor in tensors.items():
            names.setdefault(tensor.row(), name)
        # Weights that NumPy can see are read when all is recorded, not now.
        record.urgent, record.room = False, room
        shapes = [kind.shape if batch is None else (batch, *kind.shape[1:]) for kind in inputs]
        types = [type_number(shape, kind.dtype) for shape, kind in zip(shapes, inputs, strict=True)]
        rows = [record.leaf(number, False) for number in types]
        results = body([TensorBase._of_row(record, row) for row in rows])
        with no_grad():
            outputs = [_output_row(result) for result in results]
        if context.record is not record:
            _refuse_value(None)
        _refuse_kinds(record, training)
        written = _writes(record, tensors, training)
    except Exception as error:
        if context.record is not record and not isinstance(error, UnsupportedError):
            _refuse_value(error)
        raise
    finally:
        settings.row_limit.value = limit
        context.renew()
        for _, owner in _written(record):
            owner.withdraw(RuntimeError("written while a module was being exported"))
    expanded = expand(record, (*outputs, *written.values()))
    _refuse_kinds(expanded.record, training)
    return _Trace(batch or 1, record, tuple(rows), names, expanded, tuple(written))


def _refuse_kinds(record: Record, training: bool) -> None:
    """Refuses host operations, and outside of training random numbers."""
    refused = (Kind.HOST,) if training else (Kind.HOST, Kind.RANDOM)
    for row, place in zip(record.rows, record.places, strict=True):
        op = OPS[row[0]]
        if op.kind in refused:
            reason = "runs in Python" if op.kind is Kind.HOST else "draws random numbers"
            raise UnsupportedError(
                f"cannot export {op.name} at {describe_place(place)}: it {reason}, so that what it gives is not a "
                "compiled function of inputs and weights")


def _output_row(output: Any) -> int:
    if not isinstance(output, TensorBase):
        raise TypeError(
            f"forward must give a tensor or a tuple of tensors to be exported, got {type(output).__name__}")
    return output.row()


def _refuse_value(error: Exception | None) -> NoReturn:
    """Raises the error for a forward that asked for a value while it was recorded, and got `error`."""
    line = "an unknown line"
    for frame, number in traceback.walk_tb(error.__traceback__ if error is not None else None):
        if not frame.f_globals.get("__name__", "").startswith(__name__.partition(".")[0] + "."):
            line = f"{frame.f_code.co_filename}:{number} in {frame.f_code.co_name}"
    raise UnsupportedError(
        f"cannot export: forward needs a tensor's value at {line}. Control flow on data and host operations "
        "have no place in a compiled plan (nor has memory above 16 KiB that a NumPy array shares: clone() it)"
    ) from error


def _writes(record: Record, tensors: Mapping[str, TensorBase], training: bool) -> dict[str, int]:
    """Rows that are the new values of tensors, by name; refuses writes to other memory, or any but in training."""
    named = {id(tensor.storage): name for name, tensor in reversed(list(tensors.items()))}
    rows: dict[str, int] = {}
    for row, storage in _written(record):
        name = named.get(id(storage))
        if name is None or not training:
            what = "a tensor that it did not make" if name is None else name
            raise UnsupportedError(
                f"cannot export: forward writes to {what} in place ({_row_name(record, row)}), but weights "
                "do not change in an exported plan" if not training else
                f"cannot export: {_row_name(record, row)} writes to {what}, which belongs to no module")
        rows[name] = row
    return dict(sorted(rows.items()))


def _written(record: Record) -> Iterator[tuple[int, Storage]]:
    """Rows that are pending versions of memory which has a value already."""
    for row, owner in record.owners.items():
        if isinstance(owner, Storage) and owner.pending and owner.buffer is not None:
            yield row, owner


def _row_name(record: Record, row: int) -> str:
    return f"{OPS[record.rows[row][0]].name} at {describe_place(record.places[row])}"


# Records made one -------------------------------------------------------------------------------------------
def _check_structure(first: _Trace, other: _Trace) -> None:
    mine, theirs = first.expanded.record, other.expanded.record
    _check_rows(first, other, mine, theirs)
    if first.expanded.outputs != other.expanded.outputs:
        _refuse_structure(first, other, f"{len(mine.rows)} operations", f"{len(theirs.rows)} operations")


def _check_rows(first: _Trace, other: _Trace, mine: Record, theirs: Record) -> None:
    for index, (a, b) in enumerate(zip(mine.rows, theirs.rows, strict=False)):
        if not _alike(a, b):
            _refuse_structure(first, other, _row_name(mine, index), _row_name(theirs, index))
    if len(mine.rows) != len(theirs.rows):
        _refuse_structure(first, other, f"{len(mine.rows)} operations", f"{len(theirs.rows)} operations")


def _refuse_structure(first: _Trace, other: _Trace, mine: str, theirs: str) -> NoReturn:
    raise UnsupportedError(
        f"cannot export: forward does different things at different batches: {mine} at batch {first.batch}, "
        f"but {theirs} at batch {other.batch}")


def _alike(a: tuple, b: tuple) -> bool:
    return _without_sizes(a) == _without_sizes(b)


def _without_sizes(row: tuple) -> tuple:
    shape, dtype = TYPES[row[2]]
    return row[:2] + (len(shape), dtype.number) + row[3:]


def _affine(batches: Sequence[int], values: Sequence[int]) -> InBatch | None:
    """The affine function with integer factors through all points, if there is one."""
    factor, rest = divmod(values[1] - values[0], batches[1] - batches[0])
    function = InBatch(factor, values[0] - factor * batches[0])
    fits = [function.at(batch) for batch in batches] == list(values)
    return function if rest == 0 and fits else None


def _variables(traces: Sequence[_Trace], sizes: Sizes) -> tuple[InBatch, ...]:
    batches = [trace.batch for trace in traces]
    matched = [sizes.match(dimensions(trace.expanded)) for trace in traces]
    functions = []
    for variable in range(sizes.variables):
        values = [match[variable] for match in matched if match is not None]
        function = _affine(batches, values)
        if function is None:
            _refuse_size(traces[0], sizes, variable, batches, values)
        functions.append(function)
    return tuple(functions)


def _refuse_size(
    trace: _Trace, sizes: Sizes, variable: int, batches: Sequence[int], values: Sequence[int]
) -> NoReturn:
    record = trace.expanded.record
    position = sizes.template.index(~variable)
    row = 0
    while position >= len(TYPES[record.rows[row][2]].shape):
        position -= len(TYPES[record.rows[row][2]].shape)
        row += 1
    observed = ", ".join(f"{value} at batch {batch}" for value, batch in zip(values, batches, strict=True))
    raise UnsupportedError(
        f"cannot export: axis {position} of {_row_name(record, row)} is not an affine function of the batch: "
        f"{observed}")


def _slots(traces: Sequence[_Trace]) -> tuple[Slot, ...]:
    batches = [trace.batch for trace in traces]
    merged: list[Slot] = []
    for numbers in zip(*[trace.expanded.record.slots for trace in traces], strict=True):
        if all(repr(number) == repr(numbers[0]) for number in numbers):  # NaN and −0.0 included
            merged.append(numbers[0])
        elif any(isinstance(number, bool) or not math.isfinite(number) for number in numbers):
            merged.append(None)
        elif all(float(number).is_integer() for number in numbers):
            merged.append(_affine(batches, [int(number) for number in numbers]))
        else:
            merged.append(_ratio(batches, numbers))
    return tuple(merged)


def _ratio(batches: Sequence[int], numbers: Sequence[float]) -> Ratio | None:
    """The ratio that is each of the numbers to the last bit, if there is one (1 / n, momentum · (n / (n − 1)))."""
    for scale in _scales(batches, numbers):
        fractions = [Fraction(number / scale).limit_denominator(LARGEST_DENOMINATOR) for number in numbers]
        numerator = _affine(batches, [fraction.numerator for fraction in fractions])
        denominator = _affine(batches, [fraction.denominator for fraction in fractions])
        if numerator is not None and denominator is not None:
            ratio = Ratio(numerator, denominator, scale)
            if [ratio.at(batch) for batch in batches] == list(numbers):
                return ratio
    return None


def _scales(batches: Sequence[int], numbers: Sequence[float]) -> list[float]:
    """Factors that the numbers may have: 1, and short decimals near what they tend to as the batch grows."""
    if 0.0 in numbers:
        return [1.0]
    # 1 / number = a + b / batch for everything of this kind; its limit is 1 / a.
    (first, *_, last), (small, *_, large) = (1 / number for number in numbers), batches
    slope = (first - last) / (1 / small - 1 / large)
    limit = last - slope / large
    near = [round(1 / limit, digits) for digits in range(1, 13)] if limit else []
    return [1.0, *dict.fromkeys(scale for scale in near if scale)]


def _leaves(
    traces: Sequence[_Trace], tensors: Mapping[str, TensorBase], weights: dict[str, tuple[Type, bytes]]
) -> tuple[int | str, ...]:
    """What each leaf of the plan stands for; the contents of those that are weights are added to these."""
    leaves: list[int | str] = []
    buffers: dict[int, str] = {}
    for name, tensor in tensors.items():
        buffers.setdefault(id(tensor.storage.buffer), name)
    for rows in zip(*[trace.expanded.leaves for trace in traces], strict=True):
        trace, row = traces[0], rows[0]
        if row in trace.inputs:
            leaves.append(trace.inputs.index(row))
            continue
        contents = [_contents(trace, row) for trace, row in zip(traces, rows, strict=True)]
        kind = TYPES[trace.record.rows[row][2]]
        known = trace.names.get(row) or buffers.get(id(trace.record.values[row]))
        leaf = known or _constant((kind, contents[0]), weights)
        if any(content != contents[0] for content in contents):
            raise UnsupportedError(
                f"cannot export: {leaf}, a tensor of shape {list(kind.shape)} that forward makes outside of "
                "recorded operations, depends on the batch")
        weights[leaf] = (kind, contents[0])
        leaves.append(leaf)
    return tuple(leaves)


def _constant(content: tuple[Type, bytes], weights: Mapping[str, tuple[Type, bytes]]) -> str:
    """What a tensor without a name is called; all of the same content alike."""
    constants = {name: known for name, known in weights.items() if name.startswith("constant.")}
    return next((name for name, known in constants.items() if known == content), f"constant.{len(constants)}")


def _contents(trace: _Trace, row: int) -> bytes:
    kind = TYPES[trace.record.rows[row][2]]
    return trace.record.values[row].array(kind.dtype.numpy, kind.shape).tobytes()
