"""Gradients: one walk back over the rows of the tape.

The tape is the record itself. A record that has been realized keeps the values that gradient rules read; rows
that are still pending are read where they are. Gradient rows are recorded like any others, so gradients of
gradients need nothing more. What a walk over a stretch of rows appends depends on their structure alone, so
it is remembered: a stretch seen before appends its ready-made rows (see `stretches.py`).

An *adjoint* is a row of the pending record that holds the gradient of a tape's row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torturous.ir.op import OPS, TYPES, Kind, Op
from torturous.ir.record import Place, Record, context
from torturous.ir.value import Typed, Value
from torturous.tensor.base import TensorBase, node_of
from torturous.tensor.stretches import Stretch, remembered
from torturous.tensor.tape import (
    AGAIN,
    CustomNode,
    LeafHooks,
    NodeHooks,
    add_to_grad,
    check_version,
    enter_saved,
    newest_first,
    own,
    present,
)

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Node = tuple[Record, int]
Adjoints = dict[int, int]


class Backward:
    """One backward pass: adjoints per tape, walked from the newest row of the newest tape to the oldest.

    `targets` are the tensors whose gradients are asked for; None means all leaves.
    """

    def __init__(self, create_graph: bool, retain_graph: bool, targets: Sequence[TensorBase] | None) -> None:
        self.create_graph = create_graph
        self.retain_graph = retain_graph
        self.adjoints: dict[Record, Adjoints] = {}
        self.leaves: Adjoints = {}
        """By the identity of a leaf tensor."""
        self.tensors: dict[int, TensorBase] = {}
        self.captured: Adjoints = {}
        """By the position of a target that is not a leaf."""
        self.targets = targets
        self.wanted: set[int] = set()
        """Identities of the leaf tensors among the targets."""
        self.nodes: dict[Record, dict[int, list[int]]] = {}
        """Rows of the other targets, with the targets' positions."""
        for position, target in enumerate(targets or ()):
            if target._requires_grad:
                self.wanted.add(id(target))
            else:
                record, index = node_of(target)
                self.nodes.setdefault(record, {}).setdefault(index, []).append(position)
        self.useful: dict[Record, bytearray] = {}
        """With targets: the rows through which a gradient reaches one."""
        self.accumulated = False
        """Whether a gradient was added to one already present."""
        self._occurrences: dict[int, int] = {}
        """How many rows are yet to come at which a leaf with hooks may receive gradients."""
        self._entered: dict[tuple[Record, int], int] = {}
        self._outgoing: list[tuple[int, int]] = []
        self._walked: list[tuple[Record, list[int]]] = []
        self._kept: list[Any] = []
        self._holders: dict[int, Tensor] = {}
        self._stretch: Stretch | None = None
        self._visited: list[int] = []

    # The walk -----------------------------------------------------------------------------------------------
    def run(self, seeds: Sequence[tuple[Node, int]]) -> None:
        """Carries the gradients of some nodes, given as adjoints, back to the leaves."""
        for (record, index), row in seeds:
            self._add(record, index, row)
        order = newest_first(list(self.adjoints))
        if self.targets is not None:
            self._mark_useful(order)
        hooked = {record: self._hooked_rows(record) for record in order}
        for record in order:
            adjoints = self.adjoints.get(record, {})
            if hooked[record]:
                self._walk_with_hooks(record, adjoints, hooked[record])
            elif adjoints:
                self._walk(record, adjoints)
        self._kept.clear()

    def _add(self, record: Record, index: int, row: int) -> None:
        table = self.adjoints.setdefault(record, {})
        before = table.get(index)
        table[index] = row if before is None else self._sum(before, row)

    def _sum(self, a: int, b: int) -> int:
        pending, tracking = context.record, self.create_graph
        place = pending.place_of(b)
        return (Value(pending, a, place, tracking) + Value(pending, b, place, tracking)).index

    def _walk(self, record: Record, adjoints: Adjoints) -> None:
        """Walks a tape on which nobody looks at gradients."""
        pending = context.record
        high = max(adjoints)
        nodes = self.nodes.get(record)
        useful = self.useful.get(record)
        self._stretch = stretch = remembered(record, high, adjoints, self.create_graph, nodes, useful)
        if stretch.known:
            visited, self._outgoing, captured = stretch.replay(self, record)
            adjoints.clear()
            for position, row in captured:
                self.captured[position] = row
        else:
            self._visited = visited = []
            before = dict(self.captured)
            self._steps(record, adjoints, high, 0)
            captured = [(k, row) for k, row in self.captured.items() if k not in before]
            stretch.remember(pending, visited, self._outgoing, captured)
        self._stretch = None
        self._walked.append((record, visited))
        self._flush(record)

    def _walk_with_hooks(self, record: Record, adjoints: Adjoints, stops: Sequence[int]) -> None:
        """Walks a tape, stopping at the rows whose gradients somebody looks at."""
        visited: list[int] = []
        self._visited = visited
        self._walked.append((record, visited))
        high = max(adjoints, default=-1)
        # The lists stay with us if a hook realizes the record, which moves them to its tape.
        sources, hooks = record.sources, record.hooks
        for stop in stops:
            if stop < high:
                self._steps(record, adjoints, high, stop + 1)
                self._flush(record)
            high = min(high, stop)
            row = adjoints.pop(stop, None)
            if row is not None:
                row = self._look_at(record, stop, row, hooks.get(stop))
            source = sources.get(stop)
            if isinstance(source, CustomNode):
                if row is not None:
                    adjoints[stop] = row
                if stop == source.first:
                    self._run_custom(source, record, adjoints)
                high = min(high, stop - 1)
            elif isinstance(source, TensorBase):
                if row is not None:
                    self._reach(source, row)
                self._occurrences[id(source)] -= 1
                if not self._occurrences[id(source)] and id(source) in self.leaves:
                    self._complete(source)
            elif row is not None:
                self._step(present(record), record, stop, row, adjoints)
                self._flush(record)
        if adjoints:
            self._steps(record, adjoints, max(adjoints), 0)
            self._flush(record)

    def _look_at(self, record: Record, index: int, row: int, hooks: NodeHooks | None) -> int:
        """Runs a row's hooks; as in PyTorch, a target that gradients go on from is captured before them."""
        useful = self.useful.get(record)
        goes_on = useful is not None and any(o >= 0 and useful[o] for o in present(record).rows[index][3:])
        if goes_on:
            self._capture(record, index, row)
        if hooks is not None:
            row = self._run_hooks(hooks, row)
        if not goes_on:
            self._capture(record, index, row)
        return row

    def _steps(self, record: Record, adjoints: Adjoints, high: int, low: int) -> None:
        tape = present(record)
        for index in range(high, low - 1, -1):
            row = adjoints.pop(index, None)
            if row is not None:
                self._capture(record, index, row)
                self._step(tape, record, index, row, adjoints)

    def _step(self, tape: Record, record: Record, index: int, row: int, adjoints: Adjoints) -> None:
        """Carries the gradient of one row on to its operands."""
        if index in tape.sources:
            self._outgoing.append((index, row))
            return
        number, attributes, _, *operands = tape.rows[index]
        op, place, tracked = OPS[number], tape.places[index], tape.tracked
        useful = self.useful.get(record)
        if op.kind is Kind.ITEM:
            # What has several values is walked when all of theirs are complete: it comes before them.
            if useful is None or useful[operands[0]]:
                adjoints[~index] = adjoints[operands[0]] = row
            self._passed(index)
            return
        if op.whole_rule is not None:
            self._step_whole(tape, record, index, adjoints)
            self._passed(index)
            return
        if op.once and index < len(tape.freed) and tape.freed[index]:
            raise RuntimeError(AGAIN)
        rules = op.gradients
        for position, operand in enumerate(operands):
            if operand < 0 or not tracked[operand] or (useful is not None and not useful[operand]):
                continue
            rule = rules[position] if position < len(rules) else None
            if rule is None:
                continue
            saves = op.saves[position]
            if saves and index < len(tape.freed) and tape.freed[index]:
                raise RuntimeError(AGAIN)
            pending = context.record
            values = [self._operand(tape, o, k in saves, op, place) for k, o in enumerate(operands)]
            out = self._operand(tape, index, -1 in saves, op, place)
            gradient = Value(pending, row, place, self.create_graph)
            shape, dtype = TYPES[tape.rows[operand][2]]
            result = rule(gradient, out, attributes, *values).sum_to(shape).to(dtype).index
            before = adjoints.get(operand)
            adjoints[operand] = result if before is None else self._sum(before, result)
        self._passed(index)

    def _passed(self, index: int) -> None:
        self._visited.append(index)
        if self._stretch is not None:
            self._stretch.note(index)

    def _step_whole(self, tape: Record, record: Record, index: int, adjoints: Adjoints) -> None:
        """Carries the gradients of a row's values, kept below zero, on to its operands."""
        number, attributes, type_index, *operands = tape.rows[index]
        op, place, pending = OPS[number], tape.places[index], context.record
        useful = self.useful.get(record)
        gradients: dict[int, Value] = {}
        item = index + 1
        while item < len(tape.rows) and OPS[tape.rows[item][0]].kind is Kind.ITEM and tape.rows[item][3] == index:
            row = adjoints.pop(~item, None)
            if row is not None:
                gradients[tape.rows[item][1][0]] = Value(pending, row, place, self.create_graph)
            item += 1
        if index < len(tape.freed) and tape.freed[index] and any(True for _ in tape.reads_of(index)):
            raise RuntimeError(AGAIN)
        needs = [o >= 0 and bool(tape.tracked[o]) and (useful is None or bool(useful[o])) for o in operands]
        assert op.whole_rule is not None
        results = op.whole_rule(
            gradients, attributes, TYPES[type_index], needs,
            lambda position: self._operand(tape, operands[position], True, op, place),
            lambda position: self._operand(tape, index + 1 + position, True, op, place))
        for operand, result in zip(operands, results, strict=False):
            if result is not None:
                shape, dtype = TYPES[tape.rows[operand][2]]
                after = result.sum_to(shape).to(dtype).index
                before = adjoints.get(operand)
                adjoints[operand] = after if before is None else self._sum(before, after)

    def _operand(self, tape: Record, operand: int, saved: bool, op: Op, place: Place) -> Any:
        """What a rule sees of an operand: its value if the op saves it, else only its type."""
        pending = context.record
        if operand < 0:
            if tape is not pending:
                ordinal = ~operand >> 2
                operand = pending.slot(tape.slots[ordinal])
                if self._stretch is not None:
                    self._stretch.copied(operand, ordinal)
            return Value(pending, operand, place, self.create_graph)
        if not saved:
            return Typed(pending, TYPES[tape.rows[operand][2]])
        check_version(tape, operand, op.name)
        if self._stretch is not None:
            self._stretch.read(operand, op.name)
        if tape is not pending:
            operand = self._enter(tape, operand)
        return Value(pending, operand, place, self.create_graph)

    def _enter(self, tape: Record, index: int) -> int:
        """A saved value of an older tape as a leaf of the pending record."""
        key = (tape, index)
        known = self._entered.get(key)
        if known is None:
            known = self._entered[key] = enter_saved(tape, index, self.create_graph)
            if self._stretch is not None:
                self._stretch.entered(known, index)
        return known

    def _capture(self, record: Record, index: int, row: int) -> None:
        nodes = self.nodes.get(record)
        if nodes is not None:
            for position in nodes.get(index, ()):
                self.captured[position] = row

    def _flush(self, record: Record) -> None:
        """Passes on the gradients that have reached rows with sources."""
        outgoing, self._outgoing = self._outgoing, []
        sources = present(record).sources
        for index, row in outgoing:
            source = sources[index]
            if isinstance(source, tuple):
                self._add(source[0], source[1], row)
            else:
                self._reach(source, row)

    def _reach(self, leaf: TensorBase, row: int) -> None:
        key = id(leaf)
        before = self.leaves.get(key)
        self.leaves[key] = row if before is None else self._sum(before, row)
        self.tensors[key] = leaf

    def _mark_useful(self, order: Sequence[Record]) -> None:
        for record in reversed(order):
            nodes, sources, tracked = self.nodes.get(record, {}), record.sources, record.tracked
            marks = self.useful[record] = bytearray(len(record.rows))
            for index, row in enumerate(record.rows):
                if not tracked[index]:
                    continue
                source = sources.get(index)
                if index in nodes:
                    marks[index] = 1
                elif isinstance(source, tuple):
                    older = self.useful.get(source[0])
                    marks[index] = older is not None and older[source[1]]
                elif isinstance(source, TensorBase):
                    marks[index] = id(source) in self.wanted
                else:
                    marks[index] = any(operand >= 0 and marks[operand] for operand in row[3:])

    # Leaves -------------------------------------------------------------------------------------------------
    def accumulate(self) -> None:
        """Adds the gradients that have arrived to the leaves' `.grad`."""
        for key in list(self.leaves):
            self._accumulate_leaf(self.tensors[key])

    def _accumulate_leaf(self, leaf: TensorBase) -> None:
        row = self.leaves.pop(id(leaf))
        if self.targets is not None and id(leaf) not in self.wanted:
            return
        self.accumulated = add_to_grad(leaf, row, self.create_graph) or self.accumulated
        hooks = leaf._hooks
        if hooks is not None and hooks.after:
            with self._interrupted():
                for hook in list(hooks.after.values()):
                    hook(leaf)

    def _complete(self, leaf: TensorBase) -> None:
        """A leaf with hooks has its whole gradient."""
        hooks = leaf._hooks
        if hooks is not None and hooks.table:
            self.leaves[id(leaf)] = self._run_hooks(hooks, self.leaves.pop(id(leaf)))
        if not self.capturing:
            self._accumulate_leaf(leaf)

    capturing = False
    """Whether gradients are returned (`autograd.grad`) and not accumulated."""

    # Those who look at gradients ----------------------------------------------------------------------------
    def _hooked_rows(self, record: Record) -> list[int]:
        """Rows at which the walk stops, from the newest to the oldest."""
        stops = set(record.hooks)
        for index, source in record.sources.items():
            if isinstance(source, TensorBase):
                if source._hooks is not None and (source._hooks.table or source._hooks.after):
                    stops.add(index)
                    self._occurrences[id(source)] = self._occurrences.get(id(source), 0) + 1
            elif isinstance(source, CustomNode):
                stops.add(index)
        return sorted(stops, reverse=True)

    def _run_hooks(self, hooks: NodeHooks | LeafHooks, row: int) -> int:
        gradient = own(context.record, row)
        shape = gradient.shape
        with self._interrupted():
            for hook in list(hooks.table.values()):
                result = hook(gradient)
                if result is None:
                    continue
                if not isinstance(result, TensorBase):
                    raise TypeError(
                        f"expected Variable, but hook returned '{type(result).__name__}': None or a Tensor "
                        "is wanted")
                if result.shape != shape:
                    raise RuntimeError(
                        f"hook '{getattr(hook, '__name__', hook)}' has changed the size of value: "
                        f"{list(shape)} became {list(result.shape)}")
                gradient = result  # type: ignore[assignment]
            row = gradient.row()
        row = gradient.row()
        if isinstance(hooks, NodeHooks):
            for reference in hooks.retains:
                t = reference()
                if t is not None:
                    add_to_grad(t, row, self.create_graph)
        return row

    def _run_custom(self, node: CustomNode, record: Record, adjoints: Adjoints) -> None:
        """Calls the user's backward of an `autograd.Function`."""
        rows = [adjoints.pop(node.first + position, None) for position in range(node.count)]
        if all(row is None for row in rows):
            return
        operands = present(record).rows[node.first][4:]
        tracked = present(record).tracked
        gradients = [None if row is None else own(context.record, row) for row in rows]
        with self._interrupted():
            results = node.run(gradients, present(record), self.create_graph)
        if not self.retain_graph:
            node.release()
        for operand, result in zip(operands, results, strict=True):
            if result is not None and tracked[operand]:
                shape, dtype = TYPES[present(record).rows[operand][2]]
                if tuple(result.shape) != shape:
                    raise RuntimeError(
                        f"Function {node.name}Backward returned an invalid gradient: got "
                        f"{list(result.shape)} but expected shape compatible with {list(shape)}")
                value = Value(context.record, result.row(), None, self.create_graph).to(dtype)
                before = adjoints.get(operand)
                adjoints[operand] = value.index if before is None else self._sum(before, value.index)

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Around the user's code, which may realize the pending record: carries over what the pass still
        needs."""
        before = context.record
        tables = [*self.adjoints.values(), self.leaves, self.captured]
        live = {row for table in tables for row in table.values()}
        self._holders = {
            row: self._holders[row] if row in self._holders else own(before, row) for row in sorted(live)
        }
        rows = [(table, key, self._holders[row]) for table in tables for key, row in table.items()]
        yield
        if context.record is not before or before.tape is not None:
            self._kept.append(None if before.tape is None else before.tape())
            self._holders = {}
            self._entered.clear()
            for table, key, holder in rows:
                if key in table:
                    table[key] = holder.row()

    # The end ------------------------------------------------------------------------------------------------
    def finish(self) -> None:
        """Gives up saved values, unless the graph is to be used again."""
        if self.retain_graph:
            return
        for record, visited in self._walked:
            tape = present(record)
            freed = tape.freed
            if len(freed) < len(tape):
                freed.extend(bytes(len(tape) - len(freed)))
            for index in visited:
                freed[index] = 1
            if tape is not context.record:
                left = (index for index, gone in enumerate(freed) if tape.tracked[index] and not gone)
                read = tape.read_rows(left)
                tape.values = {row: buffer for row, buffer in tape.values.items() if row in read}
