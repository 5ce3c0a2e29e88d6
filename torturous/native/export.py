"""`native.export`: a model as a static library that a C program links.

The way is that of every plan: record, expand, `make_plan`, `generate`, compile. What differs is the end:
objects go into an archive instead of this process, and `entry.py` writes down in instructions what Python
otherwise does before it calls the driver.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from torturous.codegen import objectfile
from torturous.codegen.kernels import Generated, generate
from torturous.codegen.target import Target
from torturous.compiler.graph import Node
from torturous.compiler.plan import Plan, make_plan
from torturous.compiler.sizes import Size
from torturous.core import settings
from torturous.core.errors import UnsupportedError
from torturous.ir.op import Type
from torturous.ir.record import describe_place
from torturous.native.archive import archive
from torturous.native.entry import EntryWriter
from torturous.native.header import ABI, KEYWORDS, Value, header
from torturous.native.recording import Program, record_program
from torturous.native.weights import Layout, lay_out
from torturous.runtime import build
from torturous.runtime.bound import target as process_target
from torturous.runtime.build import KernelSource
from torturous.tensor.base import TensorBase

MOST_BATCH = (1 << 31) - 1
_RESERVED = KEYWORDS | {"weights", "batch", "workspace", "workspace_bytes"}



@dataclass(frozen=True)
class Bundle:
    """What an export has written."""

    directory: Path
    name: str
    files: tuple[Path, ...]
    kernels: int
    library_bytes: int
    weights_bytes: int
    target: str


def export(
    module: Callable[..., Any], examples: Sequence[TensorBase], directory: str | Path, name: str = "net",
    max_batch: int = 256,
) -> Bundle:
    """Writes `lib<name>.a`, `<name>.h`, `<name>.weights`, `<name>.safetensors` and `<name>.json` into
    `directory`.

    `module` is a Module in evaluation mode, or a function of tensors. `examples` are its arguments: their
    leading size is the batch, all other sizes are fixed, values do not matter; the plan is tuned for the
    examples' batch and serves every batch from 1 to `max_batch`. The library computes, bit for bit, what the
    module computes in this process. It is made for this process's instruction set (`TORTUROUS_TARGET`).

    Raises ValueError for a module in training mode, a name that is no C identifier, examples whose batches
    differ or a `max_batch` out of range; TypeError for arguments or results that are not tensors;
    UnsupportedError, naming op and line, for a forward that cannot be one plan for all batches, and on
    systems whose linker does not read ELF.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in KEYWORDS:
        raise ValueError(f"name must be an identifier in C, got {name!r}")
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or not 1 <= max_batch <= MOST_BATCH:
        raise ValueError(f"max_batch must be an integer from 1 to {MOST_BATCH}, got {max_batch!r}")
    if getattr(module, "training", False):
        raise ValueError("the module is in training mode; call its eval() to export what it computes then")
    inputs, batch = _inputs(examples)
    machine = process_target()
    if machine.triple.endswith("-elf"):
        raise UnsupportedError(
            f"cannot export on this system yet: objects for {machine.triple} are ELF, which linkers here "
            "do not read")
    tensors = _tensors(module)
    program = record_program(module, tensors, inputs, max_batch)
    hints = tuple(function.at(batch) for function in program.variables)
    plan = make_plan(program.expanded, program.sizes, hints, settings.fuse.value)
    layout = lay_out([(key, kind.shape, kind.dtype) for key, (kind, _) in program.weights.items()])
    library, writer, symbols = _library(name, program, plan, layout, max_batch, machine)
    block = layout.block({key: content for key, (_, content) in program.weights.items()})
    input_values, output_values = _values(module, program, plan, writer)
    logical = {key: _array(tensor) for key, tensor in tensors.items()}
    for key, (kind, content) in program.weights.items():
        logical.setdefault(key, np.frombuffer(content, kind.dtype.numpy).reshape(kind.shape))
    files = {
        f"lib{name}.a": library,
        f"{name}.h": header(
            name, input_values, output_values, max_batch, layout.nbytes, machine.name).encode(),
        f"{name}.weights": block,
        f"{name}.safetensors": save(logical),
    }
    description = {
        "abi": ABI,
        "name": name,
        "target": {"name": machine.name, "triple": machine.triple, "features": machine.features},
        "max_batch": max_batch,
        "inputs": [value.describe() for value in input_values],
        "outputs": [value.describe() for value in output_values],
        "workspace_bytes": {str(size): writer.workspace.nbytes(size) for size in sorted({1, batch, max_batch})
                            if size <= max_batch},
        "weights_bytes": layout.nbytes,
        "weights": [weight.describe() for weight in layout.weights],
        "kernels": symbols,
        "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    }
    files[f"{name}.json"] = (json.dumps(description, indent=1) + "\n").encode()
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    paths = tuple(folder / file for file in files)
    return Bundle(folder, name, paths, len(symbols), len(library), layout.nbytes, machine.name)


def _inputs(examples: Sequence[TensorBase]) -> tuple[tuple[Type, ...], int]:
    """Types of the arguments, and their batch."""
    if isinstance(examples, TensorBase) or not examples:
        raise TypeError("examples must be a tuple of tensors, one for each argument of forward: (example,)")
    for position, example in enumerate(examples):
        if not isinstance(example, TensorBase):
            raise TypeError(f"example {position} must be a tensor, got {type(example).__name__}")
        if not example.shape:
            raise ValueError(f"example {position} has no axes; the leading axis of each example is the batch")
    batches = [example.shape[0] for example in examples]
    if len(set(batches)) > 1 or batches[0] < 1:
        raise ValueError(
            f"the examples' leading sizes are the batch: they must agree and be at least 1, got {batches}")
    return tuple(Type(tuple(example.shape), example.dtype) for example in examples), batches[0]


def _tensors(module: Any) -> dict[str, TensorBase]:
    """A module's parameters and buffers under their state-dict names; nothing for a function."""
    tensors: dict[str, TensorBase] = {}
    for kind in ("named_parameters", "named_buffers"):
        if hasattr(module, kind):
            tensors.update(getattr(module, kind)())
    return tensors


def _array(tensor: TensorBase) -> np.ndarray:
    """A tensor's elements, for every data type (`numpy()` has no bfloat16)."""
    copy: Any = tensor.detach().clone()
    copy._realized()
    return copy.storage.buffer.array(copy.dtype.numpy, tuple(copy.shape))


# The library ------------------------------------------------------------------------------------------------
def _library(
    name: str, program: Program, plan: Plan, layout: Layout, max_batch: int, machine: Target
) -> tuple[bytes, EntryWriter, Mapping[str, str]]:
    """The archive, the writer that knows its workspace, and what each kernel symbol computes."""
    kernels: list[tuple[Generated, str]] = []
    sources: dict[str, KernelSource] = {}
    for level in plan.memory.levels:
        for kernel in level:
            generated = generate(kernel, machine)
            symbol = f"{name}_{generated.symbol}"
            description = f"{'+'.join(kernel.names)} at {describe_place(kernel.places[0])}"
            sources.setdefault(symbol, KernelSource(symbol, _renamed(generated, symbol), description))
            kernels.append((generated, symbol))
    writer = EntryWriter(name, program, plan, kernels, layout, max_batch, machine)
    entry = KernelSource(name, writer.write(), f"the entry functions of {name}")
    compiled = build.objects_of([entry, *sources.values()], machine)
    for source, data in zip(sources.values(), compiled[1:], strict=True):
        objectfile.check(data, source.description)
    foreign = objectfile.undefined_symbols(compiled[0]) - objectfile.ALLOWED - set(sources)
    if foreign:
        raise objectfile.ObjectFileError(f"{entry.description} need {', '.join(sorted(foreign))}")
    members = [("entry.o", compiled[0]), *((f"k{index}.o", data) for index, data in enumerate(compiled[1:]))]
    return archive(members), writer, {symbol: source.description for symbol, source in sources.items()}


def _renamed(kernel: Generated, symbol: str) -> str:
    """A kernel's module with a name that only this library uses, hidden from whoever loads what it is linked
    into."""
    return kernel.text.replace(f"define void @{kernel.symbol}(", f"define hidden void @{symbol}(")


# The description --------------------------------------------------------------------------------------------
def _values(
    module: Any, program: Program, plan: Plan, writer: EntryWriter
) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs with names that C accepts."""
    taken = set(_RESERVED)
    inputs = [
        Value(_unused(name, taken), kind.dtype, ("batch", *kind.shape[1:]))
        for name, kind in zip(_argument_names(module, len(program.inputs)), program.inputs, strict=True)
    ]
    outputs = []
    for position, node in enumerate(plan.outputs):
        name = f"output{position}" if program.several else "output"
        outputs.append(Value(_unused(name, taken), node.dtype, _shape(node, writer)))
    return inputs, outputs


def _argument_names(module: Any, count: int) -> list[str]:
    """The names of forward's first parameters."""
    signature = inspect.signature(getattr(module, "forward", module))
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in positional]
    return [names[position] if position < len(names) else f"input{position}" for position in range(count)]


def _unused(name: str, taken: set[str]) -> str:
    """The name, or one near it, that is an identifier in C and not taken yet."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _shape(node: Node, writer: EntryWriter) -> tuple[int | str, ...]:
    """Sizes as numbers, or as expressions in the batch."""
    shape: list[int | str] = []
    for size in node.shape:
        polynomial: Size = writer.in_batch(size)
        constant = polynomial.constant
        text = repr(polynomial).replace("batch0", "batch").replace("·", "*")
        shape.append(text if constant is None else constant)
    return tuple(shape)
