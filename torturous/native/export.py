"""`native.export`: a model as a static library that a C program links.

The way is that of every plan: record, expand, `make_plan`, `generate`, compile. What differs is the end:
objects go into an archive instead of this process, and `routine.py` writes down in instructions what Python
otherwise does before it calls the driver.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torturous.codegen import objectfile
from torturous.codegen.target import Target, export_targets
from torturous.compiler.sizes import Size
from torturous.core.errors import UnsupportedError
from torturous.ir.op import Type
from torturous.native.archive import archive
from torturous.native.describe import ABI, Description, Value
from torturous.native.entry import Library, inference
from torturous.native.execution import Execution
from torturous.native.go_wrapper import go_model
from torturous.native.header import KEYWORDS, inference_header
from torturous.native.linking import find_linker, link_shared, link_wasm, require_linker
from torturous.native.packaging import build_files
from torturous.native.planning import fixed_batches, planned
from torturous.native.python_wrapper import python_model
from torturous.native.recording import Program, Version, record_program
from torturous.native.routine import Place, Routine, kernels_of, place_constants
from torturous.native.rust_wrapper import rust_model
from torturous.native.selftest import GOLDEN_BATCH, selftest
from torturous.native.stretches import Called
from torturous.native.weights import Weight, identity, place, weights_file
from torturous.native.workspace import BATCH
from torturous.runtime import build
from torturous.runtime.bound import target as process_target
from torturous.runtime.build import KernelSource
from torturous.tensor.base import TensorBase
from torturous.tensor.grad_mode import no_grad

MOST_BATCH = (1 << 31) - 1
RESERVED = KEYWORDS | {
    "prepared", "batch", "workers", "workspace", "workspace_bytes", "run", "pool", "state", "gradients",
    "learning_rate", "learning_rates"}


class SizeBudgetError(RuntimeError):
    """A library came out larger than `size_budget` allows."""


@dataclass(frozen=True)
class Bundle:
    """What an export has written."""

    directory: Path
    name: str
    files: tuple[Path, ...]
    kernels: int
    """In the library, for all its instruction sets."""
    code_bytes: int
    """Of instructions and constants in the library: what a program grows by at most."""
    library_bytes: int
    weights_bytes: int
    """Of the block that holds them in memory."""
    targets: tuple[str, ...]


def export(
    module: Callable[..., Any], examples: Sequence[TensorBase], directory: str | Path, name: str = "net",
    max_batch: int | None = 256, *, target: str | None = None, batches: Sequence[int] = (),
    embed_weights: bool = False, size_budget: int | None = None, shared: bool | None = None,
) -> Bundle:
    """Writes a bundle into `directory`: `lib<name>.a`, `<name>.h`, `<name>.safetensors`, `<name>.json`,
    `<name>_selftest.c` and what other build systems and languages need (see docs/embedding.md).

    `module` is a Module in evaluation mode, or a function of tensors. `examples` are its arguments: their
    leading size is the batch, all other sizes are fixed; their first samples become the self-test. The library
    serves every batch from 1 to `max_batch`; None means that all shapes are fixed and there is no batch (functions
    then take 1 for it). It computes, bit for bit, what the module computes in this process.

    `target`: None for all levels of this machine's architecture, chosen at run time; "native" for its best; or one of
    "avx512", "avx2", "sse2", "aarch64-linux", "riscv64-linux", "wasm32", "thumbv7em". `batches` get plans of their own
    besides, whose sizes are constants: faster, and larger. With `embed_weights` (one target) the weights are part of
    the library. `size_budget`, in bytes, bounds the library's code. `shared`: True for `lib<name>.so` (wasm:
    `<name>.wasm`) as well, which needs a linker; None makes it where there is one.

    Raises ValueError for a module in training mode, a name that is no C identifier, examples whose batches
    differ or a `max_batch` out of range; TypeError for arguments or results that are not tensors;
    UnsupportedError, naming op and line, for a forward that cannot be one plan for all batches, and where there is
    no linker and `shared` is True; SizeBudgetError for a library beyond `size_budget`.
    """
    check_name(name)
    check_batch(max_batch)
    if getattr(module, "training", False):
        raise ValueError("the module is in training mode; call its eval() to export what it computes then")
    targets = export_targets(target)
    if embed_weights and len(targets) > 1:
        raise ValueError("embed_weights packs weights for one instruction set: give target, for example 'avx2'")
    check_system(targets)
    build.start()  # Compiling processes get ready while the model is recorded.
    inputs, batch = input_types(examples, max_batch is not None)
    linker = require_linker(targets[-1]) if shared else None if shared is False else find_linker(targets[-1])
    tensors = named_tensors(module)
    versions = record_program(module, tensors, inputs, max_batch)
    program = versions[-1][1]
    routines = _routines(name, versions, batch, fixed_batches(batches, max_batch), max_batch or 0, targets)
    kept = {leaf for routine in routines
            for node, leaf in zip(routine.plan.leaves, routine.program.leaves, strict=True)
            if isinstance(leaf, str) and node in routine.read_by_runs()}
    weights, end = place([(key, kind.shape, kind.dtype, True) for key, (kind, _) in program.weights.items()],
                         frozenset(program.weights) - kept)
    for routine in routines:
        _place(routine, weights)
    block_bytes = place_constants(routines, end) if any(r.constants for r in routines) else end
    mark = identity(weights, block_bytes, [[node.op.name for node in routine.constants] for routine in routines])
    logical = logical_tensors(module, tensors, program)
    file = weights_file(logical)
    input_values, output_values = _values(module, program, routines[-1], max_batch is None)
    description = Description(
        name, tuple(t.name for t in targets), hashlib.sha256(file).hexdigest(), max_batch or 1, block_bytes,
        input_values, output_values)
    library = Library(name, targets, description, weights, mark, block_bytes, max_batch or 1)
    execution = Execution(name, name, routines, targets)
    objects = []
    if embed_weights:
        block = _packed_block(library, routines, program)
        objects.append(("block.o", _block_object(library, block)))
    compiled = compile_library(library, [execution], inference(library, execution, embed_weights))
    objects = [*compiled.objects, *objects]
    check_budget(compiled.code_bytes, size_budget, name)
    golden = min(batch, GOLDEN_BATCH)
    golden_inputs = [array_of(example)[:golden] if max_batch is not None else array_of(example)
                     for example in examples]
    golden_outputs = _golden(module, examples, golden if max_batch is not None else None)
    shared_name = f"{name}.wasm" if targets[-1].architecture == "wasm32" else f"lib{name}.so"
    files = {
        f"lib{name}.a": archive(objects),
        f"{name}.h": inference_header(library, execution, embed_weights).encode(),
        f"{name}.safetensors": file,
        f"{name}_selftest.c": selftest(
            library, golden_inputs, golden_outputs, golden if max_batch is not None else 1, len(file),
            embed_weights).encode(),
        **{file_name: text.encode() for file_name, text in build_files(library).items()},
    }
    if not embed_weights:
        files |= {
            f"{name}.rs": rust_model(library).encode(), f"{name}.go": go_model(library).encode(),
            f"{name}.py": python_model(library, shared_name, max_batch is None).encode()}
    about = {
        "workspace_bytes": {str(n): execution.nbytes(n, 1) for n in sorted({1, batch, max_batch or 1})
                            if n <= (max_batch or 1)},
        "prepared_bytes": block_bytes,
        "embedded": embed_weights,
        "plans": [str(routine.batches) for routine in routines],
    }
    return write_bundle(
        library, Path(directory), files, about, compiled, linker, shared_name,
        ["prepare", "run", "run_parallel", "workspace_bytes", "describe", "strerror"])


# Arguments --------------------------------------------------------------------------------------------------
def check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in KEYWORDS:
        raise ValueError(f"name must be an identifier in C, got {name!r}")


def check_batch(max_batch: int | None) -> None:
    if max_batch is None:
        return
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= MOST_BATCH:
        raise ValueError(f"max_batch must be None or an integer from 1 to {MOST_BATCH}, got {max_batch!r}")


def check_system(targets: Sequence[Target]) -> None:
    """Refuses targets whose system's linkers do not read what is made here."""
    for target in targets:
        if target.triple.endswith("-elf") and ("darwin" in target.triple or "windows" in target.triple):
            raise UnsupportedError(
                f"cannot export for this system yet: objects for {target.triple} are ELF, which linkers here "
                "do not read; give a target of another system")


def check_budget(code_bytes: int, budget: int | None, name: str) -> None:
    if budget is not None and code_bytes > budget:
        raise SizeBudgetError(f"the code of {name} takes {code_bytes} bytes, and size_budget allows {budget}")


def input_types(examples: Sequence[TensorBase], batched: bool) -> tuple[tuple[Type, ...], int]:
    """Types of the arguments, and their batch."""
    if isinstance(examples, TensorBase) or not examples:
        raise TypeError("examples must be a tuple of tensors, one for each argument of forward: (example,)")
    for position, example in enumerate(examples):
        if not isinstance(example, TensorBase):
            raise TypeError(f"example {position} must be a tensor, got {type(example).__name__}")
        if batched and not example.shape:
            raise ValueError(f"example {position} has no axes; the leading axis of each example is the batch")
    types = tuple(Type(tuple(example.shape), example.dtype) for example in examples)
    if not batched:
        return types, 1
    batches = [example.shape[0] for example in examples]
    if len(set(batches)) > 1 or batches[0] < 1:
        raise ValueError(
            f"the examples' leading sizes are the batch: they must agree and be at least 1, got {batches}")
    return types, batches[0]


def named_tensors(module: Any) -> dict[str, TensorBase]:
    """A module's parameters and buffers under their state-dict names, tied ones once; nothing for a function."""
    tensors: dict[str, TensorBase] = {}
    for kind in ("named_parameters", "named_buffers"):
        if hasattr(module, kind):
            tensors.update(getattr(module, kind)())
    return tensors


def logical_tensors(module: Any, tensors: Mapping[str, TensorBase], program: Program) -> dict[str, np.ndarray]:
    """What the weights file holds: the state dict, and what else the plan reads."""
    named: Mapping[str, Any] = module.state_dict() if hasattr(module, "state_dict") else {}
    logical = {key: array_of(value) for key, value in named.items() if isinstance(value, TensorBase)}
    for key, tensor in tensors.items():
        if key not in logical:
            logical[key] = array_of(tensor)
    for key, (kind, content) in program.weights.items():
        logical.setdefault(key, np.frombuffer(content, kind.dtype.numpy).reshape(kind.shape))
    return logical


def array_of(tensor: TensorBase) -> np.ndarray:
    """A tensor's elements, for every data type (`numpy()` has no bfloat16)."""
    copy: Any = tensor.detach().clone()
    copy._realized()
    return copy.storage.buffer.array(copy.dtype.numpy, tuple(copy.shape)).copy()


# Plans ------------------------------------------------------------------------------------------------------
def _routines(name: str, versions: Sequence[Version], batch: int, fixed: Sequence[int], most: int,
              targets: Sequence[Target]) -> list[Routine]:
    routines = []
    for symbol, version, plan, batches in planned(name, versions, batch, fixed, most, targets):
        kernels = {target.name: kernels_of(name, plan, target) for target in targets}
        inputs = frozenset(
            node for node, leaf in zip(plan.leaves, version.leaves, strict=True) if isinstance(leaf, int))
        routines.append(Routine(symbol, version, plan, kernels, inputs, batches))
        routines[-1].library = name
    return routines


def _place(routine: Routine, weights: Sequence[Weight]) -> None:
    """Weights lie in the block, pointer 0 of a call; inputs and outputs behind the pointers after it."""
    offsets = {weight.name: weight.offset for weight in weights}
    count = len(routine.program.inputs)
    for node, leaf in zip(routine.plan.leaves, routine.program.leaves, strict=True):
        if isinstance(leaf, int):
            routine.places[node] = Place(1 + leaf)
        else:
            routine.places[node] = Place(0, offsets[leaf]) if offsets[leaf] >= 0 else Place(offsets[leaf])
    for position, node in enumerate(routine.plan.outputs):
        routine.places[node] = Place(1 + count + position)


# The library ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Compiled:
    """A library's objects, without weights."""

    objects: list[tuple[str, bytes]]
    kernels: Mapping[str, str]
    """What each symbol computes."""
    code_bytes: int


def compile_library(
    library: Library, executions: Sequence[Execution], entry: str, others: frozenset[str] = frozenset()
) -> Compiled:
    """Compiles every kernel for its target, and the entry functions for the last one. They may use the symbols
    `others` besides what every object may."""
    described: dict[str, str] = {}
    objects: list[tuple[str, bytes]] = []
    defined: set[str] = set()
    for target in library.targets:
        sources: dict[str, KernelSource] = {}
        for execution in executions:
            for routine in execution.routines:
                for called in routine.kernels[target.name]:
                    sources.setdefault(
                        called.symbol, KernelSource(called.symbol, _renamed(called), called.description))
        for (symbol, source), data in zip(
                sources.items(), build.objects_of(list(sources.values()), target, others), strict=True):
            objectfile.check(data, f"{source.description} (for {target.name})", others)
            described[symbol] = source.description
            objects.append((f"k{len(objects)}.o", data))
        defined |= set(sources)
    source = KernelSource(library.name, entry, f"the entry functions of {library.name}")
    (data,) = build.objects_of([source], library.targets[-1], others | defined | {f"{library.name}_block"})
    objects.insert(0, ("entry.o", data))
    return Compiled(objects, described, sum(objectfile.code_bytes(content) for _, content in objects))


def _renamed(called: Called) -> str:
    """A kernel's module with a name that only this library uses, hidden from whoever loads what it is linked
    into."""
    plain = called.generated.symbol
    return called.generated.text.replace(f"define void @{plain}(", f"define hidden void @{called.symbol}(")


def _block_object(library: Library, block: bytes) -> bytes:
    """The weights as an object with one read-only symbol."""
    words = np.frombuffer(block, "<u8")
    text = ", ".join(f"i64 {word}" for word in words.tolist())
    symbol = f"{library.name}_block"
    ir = f"@{symbol} = hidden constant [{len(words)} x i64] [{text}], align 64\n"
    (data,) = build.objects_of([KernelSource(symbol, ir, "the weights")], library.targets[-1])
    return data


def _packed_block(library: Library, routines: Sequence[Routine], program: Program) -> bytes:
    """What `prepare` would leave in memory, computed here: the same kernels, for this machine."""
    block = np.zeros(library.block_bytes + 64, np.uint8)
    block = block[-block.ctypes.data % 64:][:library.block_bytes]
    block[:len(library.identity)] = np.frombuffer(library.identity, np.uint8)
    contents = {weight: np.frombuffer(program.weights[weight.name][1], np.uint8) for weight in library.weights}
    sources = [content.ctypes.data for weight, content in contents.items() if weight.offset < 0]
    for weight, content in contents.items():
        if weight.offset < 0:
            continue
        block[weight.offset:weight.offset + weight.nbytes] = content
    host = process_target()
    for routine in routines:
        if not routine.prepared:
            continue
        calls = [kernels_of(library.name, routine.plan, host)[number] for number in routine.prepared]
        for called in calls:
            generated = called.generated
            source = KernelSource(generated.symbol, generated.text, called.description)
            (address,) = build.build([source], host)
            table = np.array(routine.argument_words(generated, block.ctypes.data, sources), np.int64)
            kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(address)
            kernel(table.ctypes.data, 0, 1, table.ctypes.data)
    return block.tobytes() + bytes(-len(block) % 8)


# The bundle -------------------------------------------------------------------------------------------------
def write_bundle(
    library: Library, folder: Path, files: Mapping[str, bytes], about: Mapping[str, object], compiled: Compiled,
    linker: str | None, shared_name: str, functions: Sequence[str],
) -> Bundle:
    """Writes files, the shared library or module where there is a linker, and `<name>.json`."""
    name, target = library.name, library.targets[-1]
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for file, content in files.items():
        (folder / file).write_bytes(content)
        written[file] = content
    if linker is not None:
        if target.architecture == "wasm32":
            symbols = [f"{name}_{function}" for function in functions]
            link_wasm(linker, folder / f"lib{name}.a", folder / shared_name, symbols)
        else:
            link_shared(linker, folder / f"lib{name}.a", folder / shared_name)
        written[shared_name] = (folder / shared_name).read_bytes()
    d = library.description
    described = {
        "abi": ABI,
        "name": name,
        "targets": [{"name": t.name, "triple": t.triple, "features": t.features} for t in library.targets],
        "max_batch": d.max_batch,
        "inputs": [value.describe() for value in d.inputs],
        "outputs": [value.describe() for value in d.outputs],
        **about,
        "code_bytes": compiled.code_bytes,
        "weights": [weight.describe() for weight in library.weights],
        "kernels": dict(compiled.kernels),
        "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in written.items()},
    }
    text = (json.dumps(described, indent=1) + "\n").encode()
    (folder / f"{name}.json").write_bytes(text)
    paths = tuple(folder / file for file in [*written, f"{name}.json"])
    return Bundle(folder, name, paths, len(compiled.kernels), compiled.code_bytes, len(files[f"lib{name}.a"]),
                  library.block_bytes, tuple(t.name for t in library.targets))


def _golden(module: Any, examples: Sequence[TensorBase], batch: int | None) -> list[np.ndarray]:
    """What the module computes from the examples' first samples, here and now."""
    with no_grad():
        first: list[Any] = list(examples)
        # Copies: a forward may write to its inputs.
        result = module(*[(example if batch is None else example[:batch]).clone() for example in first])
    return [array_of(output) for output in (result if isinstance(result, (tuple, list)) else [result])]


# The description --------------------------------------------------------------------------------------------
def _values(module: Any, program: Program, routine: Routine, fixed: bool) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs with names that C accepts."""
    taken = set(RESERVED)
    names = argument_names(module, len(program.inputs))
    inputs = [
        Value(unused(name, taken), kind.dtype, batched_shape(kind, fixed))
        for name, kind in zip(names, program.inputs, strict=True)
    ]
    outputs = []
    for position, node in enumerate(routine.plan.graph.outputs):
        name = f"output{position}" if program.several else "output"
        outputs.append(Value(unused(name, taken), node.dtype, tuple(map(routine.in_batch, node.shape))))
    return inputs, outputs


def batched_shape(kind: Type, fixed: bool) -> tuple[Size, ...]:
    """An example's shape, its leading size being the batch."""
    sizes = tuple(map(Size.of, kind.shape))
    return sizes if fixed else (BATCH, *sizes[1:])


def argument_names(module: Any, count: int) -> list[str]:
    """The names of forward's first parameters."""
    signature = inspect.signature(getattr(module, "forward", module))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in positional]
    return [names[position] if position < len(names) else f"input{position}" for position in range(count)]


def unused(name: str, taken: set[str]) -> str:
    """The name, or one near it, that is an identifier in C and not taken yet."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    while name in taken:
        name += "_"
    taken.add(name)
    return name
