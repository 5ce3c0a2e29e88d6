"""`native.export_training`: a training step as a static library.

Two plans: `grad` is forward, loss and backward, `apply` the optimizer's update. Whatever Python keeps between steps
(parameters, running statistics, moments, the random generator) are leaves of these plans and lie in the library's
state; what a step writes to them are outputs that are kept back until it has gone well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from torturous.codegen.objectfile import DOUBLES
from torturous.codegen.target import Target, export_targets
from torturous.compiler.plan import Plan
from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.mersenne import STATE_WORDS
from torturous.ir.op import Type
from torturous.native.archive import archive
from torturous.native.batches import EVERY, Batches
from torturous.native.describe import Description, Value
from torturous.native.entry import Library
from torturous.native.execution import Execution
from torturous.native.export import (
    RESERVED,
    Bundle,
    argument_names,
    array_of,
    batched_shape,
    check_batch,
    check_budget,
    check_name,
    check_system,
    compile_library,
    input_types,
    named_tensors,
    unused,
    write_bundle,
)
from torturous.native.go_wrapper import go_trainer
from torturous.native.linking import find_linker, require_linker
from torturous.native.packaging import build_files
from torturous.native.planning import fixed_batches, plan_of, planned
from torturous.native.python_wrapper import python_trainer
from torturous.native.recording import Program, Version, record_versions
from torturous.native.routine import Place, Routine, kernels_of
from torturous.native.rust_wrapper import rust_trainer
from torturous.native.selftest import GOLDEN_BATCH, Golden, training_selftest
from torturous.native.training_entry import GENERATOR, STEP, Training, Way, training
from torturous.native.training_header import training_header
from torturous.native.updating import Update, Updating
from torturous.native.weights import identity, place, weights_file
from torturous.optim.optimizer import GroupOptimizer
from torturous.runtime import build
from torturous.tensor import Tensor, enable_grad, multi_tensor, no_grad
from torturous.tensor.base import TensorBase
from torturous.tensor.generator import default_generator, fork_rng, manual_seed
from torturous.tensor.tensor import from_array

GOLDEN_STEPS = 3
GOLDEN_SEED = 7


def export_training(
    model: Any, loss_function: Callable[[Any, Any], Any], optimizer: Any, examples: Sequence[TensorBase],
    directory: str | Path, name: str = "net", max_batch: int | None = 256, *, target: str | None = None,
    batches: Sequence[int] = (), size_budget: int | None = None, shared: bool | None = None,
) -> Bundle:
    """Writes a bundle whose library trains `model` (see docs/embedding.md): `<name>_grad`, `<name>_apply` and
    `<name>_step`, which do what `loss_function(model(*inputs), target)`, `backward()` and `optimizer.step()` do,
    bit for bit.

    `examples` are the inputs of `model` and, last, the target. The model is recorded as it is, in training mode if
    it is in training mode. The learning rate is an argument of the functions, one per parameter group; all other
    options are as in `optimizer`. `<name>.safetensors` holds everything as it is now, from where the library goes on.
    Dropout draws what this process's default generator would draw.

    `batches` get plans of their own besides, whose sizes are constants: somewhat faster, and larger.

    Other arguments and errors are those of `export`; UnsupportedError also for an optimizer that is not one of
    `torturous.optim` or has hooks, ValueError for one that has parameters which are not the model's.
    """
    check_name(name)
    check_batch(max_batch)
    targets = export_targets(target)
    check_system(targets)
    build.start()  # Compiling processes get ready while the model is recorded.
    types, batch = input_types(examples, max_batch is not None)
    if len(types) < 2:
        raise TypeError("examples must be the inputs of the model and, last, the target of the loss")
    linker = require_linker(targets[-1]) if shared else None if shared is False else find_linker(targets[-1])
    tensors = named_tensors(model)
    step = _Step(model, loss_function, optimizer, tensors)
    grad = step.record_grad(types, max_batch)
    updates = step.record_apply()
    logical = step.state()
    weights, end = place([(key, array.shape, _dtype(array, step.tensors.get(key)), key in step.required)
                          for key, array in logical.items()])
    offsets = {weight.name: weight.offset for weight in weights}
    gradients, gradient_bytes = step.place_gradients()
    inputs, loss = _values(model, types, step.loss_dtype, max_batch is None)
    file = weights_file(logical)
    mark = identity(weights, end, "training")
    description = Description(
        name, tuple(t.name for t in targets), hashlib.sha256(file).hexdigest(), max_batch or 1, end, inputs, [loss])
    library = Library(name, targets, description, weights, mark, end, max_batch or 1)
    routines = []
    fixed = fixed_batches(batches, max_batch)
    for symbol, program, plan, served in planned(f"{name}_grad", grad, batch, fixed, max_batch or 0, targets):
        routine = _routine(name, symbol, program, plan, targets, offsets, served)
        _place_grad(routine, len(types), gradients)
        _keep(routine, 1 + len(gradients), offsets)
        routines.append(routine)
    executions = [Execution(f"{name}_grad", name, routines, targets)]
    ways = []
    for position, update in enumerate(updates):
        symbol = f"{name}_apply{position}"
        routine = _routine(name, symbol, update.program, plan_of(update.program, 1), targets, offsets)
        _place_apply(routine, gradients)
        _keep(routine, 0, offsets)
        executions.append(Execution(symbol, name, [routine], targets))
        ways.append(Way(update.path, executions[-1], update.numbers))
    written = Training(
        library, executions[0], ways, step.updating.names, inputs, loss, gradient_bytes,
        max((t.dtype.itemsize for t in step.trained.values()), default=4), step.rates)
    doubles = frozenset() if targets[-1].has_doubles else DOUBLES
    compiled = compile_library(library, executions, training(written), doubles)
    check_budget(compiled.code_bytes, size_budget, name)
    golden = _golden(model, loss_function, optimizer, examples, step, max_batch is not None)
    described = {key: (step.trained[key].dtype.name, tuple(step.trained[key].shape), offset)
                 for key, offset in gradients.items()}
    shared_name = f"{name}.wasm" if targets[-1].architecture == "wasm32" else f"lib{name}.so"
    files = {
        f"lib{name}.a": archive(compiled.objects),
        f"{name}.h": training_header(written, gradients).encode(),
        f"{name}.safetensors": file,
        f"{name}_selftest.c": training_selftest(written, golden, len(file)).encode(),
        f"{name}.rs": rust_trainer(written).encode(),
        f"{name}.go": go_trainer(written).encode(),
        f"{name}.py": python_trainer(written, described, shared_name, max_batch is None).encode(),
        **{file_name: text.encode() for file_name, text in build_files(library).items()},
    }
    about = {
        "workspace_bytes": {str(n): written.nbytes(n, 1) for n in sorted({1, batch, max_batch or 1})
                            if n <= (max_batch or 1)},
        "state_bytes": end,
        "gradient_bytes": gradient_bytes,
        "gradients": [{"name": key, "dtype": dtype, "shape": list(shape), "offset": offset}
                      for key, (dtype, shape, offset) in described.items()],
        "learning_rates": step.rates,
    }
    functions = ["state_init", "state_export", "state_bytes", "workspace_bytes", "describe", "strerror"]
    functions += [f"{function}{suffix}" for function in ("grad", "apply", "step") for suffix in ("", "_parallel")]
    return write_bundle(library, Path(directory), files, about, compiled, linker, shared_name, functions)


# Recording --------------------------------------------------------------------------------------------------
class _Step:
    """What there is to a training step, and its recordings."""

    def __init__(self, model: Any, loss_function: Callable[[Any, Any], Any], optimizer: Any,
                 tensors: Mapping[str, TensorBase]) -> None:
        if not isinstance(optimizer, GroupOptimizer):
            raise UnsupportedError(
                f"cannot export a step of {type(optimizer).__name__}: only torturous.optim's optimizers are recorded")
        if optimizer._step_pre_hooks or optimizer._step_post_hooks:
            raise UnsupportedError(f"cannot export a step of {type(optimizer).__name__} with hooks: they are Python")
        self.model = model
        self.loss_function = loss_function
        self.optimizer = optimizer
        self.rates = len(optimizer.param_groups)
        self.required = set(tensors)
        self.trained: dict[str, Tensor] = {}
        """Parameters with a gradient, in the model's order."""
        self.loss_dtype = dtypes.float32
        self._names = {id(tensor): name for name, tensor in tensors.items()}
        self.tensors: dict[str, TensorBase] = {**tensors, GENERATOR: owned(np.zeros(STATE_WORDS, np.int32))}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in self._names:
                    raise ValueError("the optimizer has a parameter that is not one of the model's")

    def record_grad(self, types: Sequence[Type], max_batch: int | None) -> list[Version]:
        """Forward, loss and backward: the loss, gradients, and what is written on the way."""
        parameters: dict[str, Any] = {
            name: tensor for name, tensor in self.tensors.items() if tensor._requires_grad}

        def body(arguments: list[Any]) -> list[Any]:
            self.trained = {}
            with self._own_generator(), _without_gradients(parameters.values()), enable_grad():
                loss = self.loss_function(self.model(*arguments[:-1]), arguments[-1])
                if not isinstance(loss, TensorBase) or loss.shape:
                    raise TypeError("the loss function must give a tensor of one number, without axes")
                loss.backward()  # type: ignore[attr-defined]
                self.loss_dtype = loss.dtype
                found = []
                for name, parameter in parameters.items():
                    if parameter._grad is not None:
                        self.trained[name] = parameter
                        found.append(parameter._grad)
            return [loss, *found]

        return record_versions(body, self.tensors, types, max_batch, training=True)

    @contextmanager
    def _own_generator(self) -> Iterator[None]:
        """Draws of the default generator go on from the tensor GENERATOR; afterwards it is as it was."""
        with default_generator.host():
            default_generator._state = self.tensors[GENERATOR]
            try:
                yield
            finally:
                default_generator._state = None

    def record_apply(self) -> list[Update]:
        """Every way through the optimizer's step."""
        self.updating = Updating(self.optimizer, self.trained)
        kept: dict[tuple[int, str], Tensor] = {}
        parameters = {name: self.tensors[name] for name in self.trained}
        for name, parameter, entry, initial in self.updating.kept():
            key = f"torturous.optimizer.{entry}.{name}"
            content = self._moment(parameter, entry, initial)
            kept[id(parameter), entry] = self.tensors[key] = owned(content)
            if content.any():
                self.required.add(key)
        tensors = {name: tensor for name, tensor in self.tensors.items()
                   if name in parameters or name.startswith("torturous.optimizer.")}
        return self.updating.record(tensors, kept)

    def _moment(self, parameter: Tensor, entry: str, initial: float) -> np.ndarray:
        """What a tensor of the optimizer holds now, or will hold at first."""
        present = self.optimizer.state.get(parameter, {}).get(entry)
        return array_of(multi_tensor.state_of(parameter, initial) if present is None else present)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in the state, as it is now."""
        logical = {name: array_of(tensor) for name, tensor in self.tensors.items() if name != GENERATOR}
        counts = set()
        for parameter in self.trained.values():
            entries = self.optimizer.state.get(parameter, {})
            counts.add(int(entries.get("step", bool(entries))))  # SGD keeps no count, but its first step is another.
        if len(counts) > 1:
            raise UnsupportedError(
                f"cannot export: parameters have made different numbers of steps ({sorted(counts)}), and the library "
                "counts them together")
        logical[STEP] = np.array(next(iter(counts), 0), np.int64)
        logical |= self.updating.present()
        with default_generator.host() as twister:
            logical[GENERATOR] = twister.state.view(np.int32).copy()
        return logical

    def place_gradients(self) -> tuple[dict[str, int], int]:
        """Offsets of gradients in their block, one after the other, and its length."""
        offsets, end = {}, 0
        for name, parameter in self.trained.items():
            size = parameter.dtype.itemsize
            end = -(-end // size) * size
            offsets[name] = end
            end += size * int(np.prod(tuple(parameter.shape), dtype=np.int64))
        return offsets, end


def owned(content: np.ndarray) -> Tensor:
    """A tensor whose memory nobody else sees."""
    with no_grad():
        tensor = from_array(np.ascontiguousarray(content)).clone()
    tensor._realized()
    return tensor


@contextmanager
def _without_gradients(parameters: Any) -> Iterator[None]:
    """Parameters have no gradient inside, and what they had before outside."""
    kept = [(parameter, parameter._grad) for parameter in parameters]
    for parameter, _ in kept:
        parameter._grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter._grad = gradient


# Places -----------------------------------------------------------------------------------------------------
def _routine(name: str, symbol: str, program: Program, plan: Plan, targets: Sequence[Target],
             offsets: Mapping[str, int], batches: Batches = EVERY) -> Routine:
    """A plan whose leaves by name lie in the state."""
    unknown = [leaf for leaf in program.leaves if isinstance(leaf, str) and leaf not in offsets]
    if unknown:
        shape = list(program.weights[unknown[0]][0].shape)
        raise UnsupportedError(
            f"cannot export: the step reads a tensor of shape {shape} that is neither the model's nor made by recorded "
            "operations; register it as a buffer")
    kernels = {target.name: kernels_of(name, plan, target) for target in targets}
    routine = Routine(symbol, program, plan, kernels, None, batches)
    routine.library = name
    for node, leaf in zip(plan.leaves, program.leaves, strict=True):
        if isinstance(leaf, str):
            routine.places[node] = Place(0, offsets[leaf])
    return routine


def _place_grad(routine: Routine, inputs: int, gradients: Mapping[str, int]) -> None:
    """Behind the state: inputs, the loss, the block of gradients."""
    for node, leaf in zip(routine.plan.leaves, routine.program.leaves, strict=True):
        if isinstance(leaf, int):
            routine.places[node] = Place(1 + leaf)
    loss, *rest = routine.plan.outputs
    routine.places[loss] = Place(1 + inputs)
    for node, offset in zip(rest, gradients.values(), strict=False):
        routine.places[node] = Place(2 + inputs, offset)


def _place_apply(routine: Routine, gradients: Mapping[str, int]) -> None:
    """Behind the state: the block of gradients, and numbers."""
    offsets = list(gradients.values())
    for node, leaf in zip(routine.plan.leaves, routine.program.leaves, strict=True):
        if isinstance(leaf, int):
            routine.places[node] = Place(1, offsets[leaf])
    routine.numbers = Place(2)


def _keep(routine: Routine, first: int, offsets: Mapping[str, int]) -> None:
    """Outputs from the `first` on are new values of what lies in the state."""
    for node, name in zip(routine.plan.outputs[first:], routine.program.written, strict=True):
        routine.kept.append((node, Place(0, offsets[name])))


def _dtype(array: np.ndarray, tensor: TensorBase | None) -> dtypes.DType:
    return tensor.dtype if tensor is not None else dtypes.by_name(array.dtype.name)


def _values(model: Any, types: Sequence[Type], loss: dtypes.DType, fixed: bool) -> tuple[list[Value], Value]:
    taken = set(RESERVED)
    names = [*argument_names(model, len(types) - 1), "target"]
    inputs = [Value(unused(name, taken), kind.dtype, batched_shape(kind, fixed))
              for name, kind in zip(names, types, strict=True)]
    return inputs, Value(unused("loss", taken), loss, ())


# The self-test ----------------------------------------------------------------------------------------------
def _golden(model: Any, loss_function: Callable[[Any, Any], Any], optimizer: Any, examples: Sequence[Any],
            step: _Step, batched: bool) -> Golden:
    """Steps of copies of model and optimizer, on the examples' first samples."""
    batch = min(examples[0].shape[0], GOLDEN_BATCH) if batched else 1
    inputs = [example[:batch] if batched else example for example in examples]
    model, optimizer = deepcopy((model, optimizer))
    named = named_tensors(model)
    for parameter in named.values():
        parameter._grad = None
    losses = []
    with fork_rng(), enable_grad():
        manual_seed(GOLDEN_SEED)
        for _ in range(GOLDEN_STEPS):
            for parameter in named.values():
                parameter._grad = None
            given = [example.clone() for example in inputs]  # The model may write to them.
            loss = loss_function(model(*given[:-1]), given[-1])
            loss.backward()
            optimizer.step()
            losses.append(array_of(loss))
    return Golden(GOLDEN_SEED, batch, [array_of(example) for example in inputs], losses,
                  [float(group["lr"]) for group in optimizer.param_groups],
                  {name: array_of(tensor) for name, tensor in named.items()})
