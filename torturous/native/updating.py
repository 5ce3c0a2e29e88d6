"""An optimizer's step, recorded: every way through it, with numbers that become known when the library runs.

What it keeps between steps is found by asking it: tensors that it wants made for its parameters, and numbers (of
`GroupOptimizer.numbers`), which the library keeps once for each group. Learning rates, the count of steps and these
numbers are unknown while it is recorded (`core.unknowns`). Where it compares them, each answer is a way of its own.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from torturous.core.errors import UnsupportedError
from torturous.core.unknowns import Answers, Expression, Path, TooManyWaysError, Unknown, every_way
from torturous.ir.op import Type
from torturous.native.recording import Program, record_body, same_structure
from torturous.optim.optimizer import GroupOptimizer, StateChanges
from torturous.tensor import Tensor, multi_tensor, no_grad
from torturous.tensor.base import TensorBase


@dataclass(frozen=True)
class Update:
    """One way through an optimizer's step."""

    path: Path
    """The comparisons that lead to it."""
    program: Program
    numbers: tuple[Expression, ...]
    """What the optimizer's numbers are afterwards."""


class Updating:
    """The step of an optimizer for the parameters that have gradients, by name."""

    def __init__(self, optimizer: GroupOptimizer, trained: Mapping[str, Tensor]) -> None:
        self.optimizer = optimizer
        self.trained = trained
        self.rates = len(optimizer.param_groups)
        """Unknown numbers are learning rates, then the count of steps, then the optimizer's own."""
        entries = sorted(optimizer.numbers - {"step"})
        identities = {id(parameter) for parameter in trained.values()}
        self.groups = [[p for p in group["params"] if id(p) in identities] for group in optimizer.param_groups]
        self.numbers = [(position, entry) for position, group in enumerate(self.groups) if group for entry in entries]
        """The optimizer's own numbers: group and entry of each."""
        self._types = [Type(tuple(parameter.shape), parameter.dtype) for parameter in trained.values()]

    def kept(self) -> list[tuple[str, Tensor, str, float]]:
        """The tensors that the optimizer keeps: its parameter's name, it, the entry, and what it begins as."""
        asked = _Asked()

        def body(gradients: list[Any]) -> list[Any]:
            self._update(gradients, self._fresh(), asked, None)
            raise _Answered

        with suppress(_Answered):
            record_body(body, self.trained, self._types, training=True)
        names = {id(parameter): name for name, parameter in self.trained.items()}
        return [(names[id(parameter)], parameter, entry, initial) for parameter, entry, initial in asked.found]

    def record(self, tensors: Mapping[str, TensorBase], kept: Mapping[tuple[int, str], Tensor]) -> list[Update]:
        """Every way through a step, of which one leads to each step. `tensors` are what it may write, by name; `kept`
        are the optimizer's among them, by parameter and entry."""
        later = self._ways(tensors, kept, first=False)
        first = self._ways(tensors, kept, first=True)
        if not self.numbers and len(first) == 1 and any(
                same_structure(first[0].program, other.program) for other in later):
            return later
        begins = ("eq", ("variable", self.rates), ("number", 0.0))
        return [replace(way, path=((begins, answer), *way.path))
                for answer, ways in ((True, first), (False, later)) for way in ways]

    def present(self) -> dict[str, np.ndarray]:
        """The optimizer's numbers as they are now, by name; zero where it has made no step."""
        found = {}
        for position, entry in self.numbers:
            values = {self.optimizer.state.get(p, {}).get(entry, 0.0) for p in self.groups[position]}
            if len(values) > 1:
                raise UnsupportedError(
                    f"cannot export: {entry} differs among the parameters of group {position}, for which the library "
                    "keeps it together")
            found[number_name(position, entry)] = np.array(values.pop(), np.float64)
        return found

    @property
    def names(self) -> list[str]:
        """What the numbers are called in a file."""
        return [number_name(*number) for number in self.numbers]

    # Recording ----------------------------------------------------------------------------------------------
    def _ways(self, tensors: Mapping[str, TensorBase], kept: Mapping[tuple[int, str], Tensor], first: bool
              ) -> list[Update]:
        def run(answers: Answers) -> tuple[Program, tuple[Expression, ...]]:
            numbers: tuple[Expression, ...] = ()

            def body(gradients: list[Any]) -> list[Any]:
                nonlocal numbers
                state = self._fresh() if first else self._later(answers, kept)
                numbers = self._update(gradients, state, _Given(kept), answers)
                return []

            program = record_body(body, tensors, self._types, training=True)
            if any(isinstance(slot, float) and not isinstance(slot, Unknown) and math.isnan(slot)
                   for slot in program.slots):
                raise ValueError("an unknown number has been taken for its value")
            return program, numbers

        try:
            return [Update(path, program, numbers) for path, (program, numbers) in every_way(run)]
        except (ValueError, OverflowError, TooManyWaysError) as error:
            raise UnsupportedError(
                f"cannot export a step of {type(self.optimizer).__name__}: what it does with its learning rate or its "
                f"count of steps is more than arithmetic and comparisons ({error})") from error

    def _update(self, gradients: list[Any], state: Mapping[int, Mapping[str, Any]], changes: StateChanges,
                answers: Answers | None) -> tuple[Expression, ...]:
        """All groups' updates, the optimizer's state being this, by parameter; gives the numbers afterwards."""
        optimizer, present = self.optimizer, self.optimizer.state
        given = {id(parameter): gradient for parameter, gradient in zip(self.trained.values(), gradients, strict=True)}
        optimizer.state = defaultdict(dict)
        for parameter in self.trained.values():
            optimizer.state[parameter].update(state[id(parameter)])
        try:
            with no_grad():
                for position, (group, parameters) in enumerate(
                        zip(optimizer.param_groups, self.groups, strict=True)):
                    if answers is not None:
                        group = {**group, "lr": answers.variable(position)}
                    if parameters:
                        optimizer._update(group, parameters, [given[id(p)] for p in parameters], changes)
            changes.commit()
            return tuple(self._number(position, entry) for position, entry in self.numbers)
        finally:
            optimizer.state = present

    def _number(self, position: int, entry: str) -> Expression:
        """What a number has become."""
        values = [self.optimizer.state[parameter][entry] for parameter in self.groups[position]]
        found = {value.expression if isinstance(value, Unknown) else ("number", float(value)) for value in values}
        if len(found) > 1:
            raise ValueError(f"{entry} differs among parameters")
        return found.pop()

    def _fresh(self) -> dict[int, dict[str, Any]]:
        """The state of an optimizer that has made no step."""
        return {id(parameter): {"step": 0} for parameter in self.trained.values()}

    def _later(self, answers: Answers, kept: Mapping[tuple[int, str], Tensor]) -> dict[int, dict[str, Any]]:
        """The state of an optimizer that has made steps."""
        count = answers.variable(self.rates)
        state: dict[int, dict[str, Any]] = {id(parameter): {"step": count} for parameter in self.trained.values()}
        for place, (position, entry) in enumerate(self.numbers):
            for parameter in self.groups[position]:
                state[id(parameter)][entry] = answers.variable(self.rates + 1 + place)
        for (identity, entry), tensor in kept.items():
            state[identity][entry] = tensor
        return state


def number_name(position: int, entry: str) -> str:
    """What a number of the optimizer's is called in a file."""
    return f"torturous.number.{entry}.{position}"


class _Answered(Exception):
    """Ends a recording that was only to find out what an optimizer keeps."""


class _Asked(StateChanges):
    """Notes which tensors an optimizer keeps, and what they begin as."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, str, float]] = []

    def buffer(self, param_state: dict[str, Any], name: str, initial: float, param: Tensor) -> Tensor:
        self.found.append((param, name, initial))
        return multi_tensor.state_of(param, initial)


class _Given(StateChanges):
    """Hands an optimizer the tensors it keeps, whether it knows them or asks for them the first time."""

    def __init__(self, kept: Mapping[tuple[int, str], Tensor]) -> None:
        super().__init__()
        self.kept = kept

    def buffer(self, param_state: dict[str, Any], name: str, initial: float, param: Tensor) -> Tensor:
        return self.kept[id(param), name]
