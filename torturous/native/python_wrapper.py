"""`<name>.py`: a Python module around the shared library, with ctypes and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template

from torturous.native.describe import Value, size_text
from torturous.native.entry import Library
from torturous.native.training_entry import Training

_COMMON = Template('''\
"""$name: $what as a native library, made by torturous. Needs NumPy only.

$usage
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import numpy as np

MAX_BATCH = $max_batch
$constants
"""(name, data type, shape as a function of the batch)"""
_FOLDER = Path(__file__).resolve().parent


def _aligned(nbytes: int) -> np.ndarray:
    block = np.zeros(nbytes + 64, np.uint8)
    return block[-block.ctypes.data % 64:][:nbytes]


class _Library:
    """The shared library, and a workspace for each thread."""

    def __init__(self, path: str | Path | None, **functions: list[object]) -> None:
        self.functions = ctypes.CDLL(str(path or _FOLDER / "$shared"))
        self.functions.${name}_strerror.restype = ctypes.c_char_p
        self.functions.${name}_workspace_bytes.restype = ctypes.c_size_t
        self.functions.${name}_workspace_bytes.argtypes = [ctypes.c_int64, ctypes.c_int64]
        for function, types in functions.items():
            getattr(self.functions, "${name}_" + function).argtypes = types
        self._local = threading.local()

    def call(self, function: str, *arguments: object) -> None:
        code = getattr(self.functions, "${name}_" + function)(*arguments)
        if code:
            raise ValueError("$name: " + self.functions.${name}_strerror(code).decode())

    def workspace(self, batch: int) -> tuple[int, int]:
        """Address and length of memory that a call may work in."""
        needed = self.functions.${name}_workspace_bytes(batch, 1)
        block = getattr(self._local, "block", None)
        if block is None or block.nbytes < needed:
            block = self._local.block = _aligned(needed)
        return block.ctypes.data, block.nbytes


def _arrays(inputs: tuple[np.ndarray, ...]) -> tuple[int, list[np.ndarray]]:
    """The batch, and inputs as the library wants them."""
    if len(inputs) != len(INPUTS):
        raise TypeError(f"$name takes {len(INPUTS)} inputs, got {len(inputs)}")
    batch = $batch_of
    if not 1 <= batch <= MAX_BATCH:
        raise ValueError(f"$name takes batches from 1 to {MAX_BATCH}, got {batch}")
    arrays = []
    for (name, dtype, shape), given in zip(INPUTS, inputs):
        array = np.ascontiguousarray(given, dtype)
        if array.shape != shape(batch):
            raise ValueError(f"$name: {name} must have shape {shape(batch)}, got {array.shape}")
        arrays.append(array)
    return batch, arrays


def _addresses(arrays: list[np.ndarray]) -> list[int]:
    return [array.ctypes.data for array in arrays]
''')

_MODEL = Template('''

class Model:
    """The model with its weights; threads may share it."""

    def __init__(self, weights: str | Path | None = None, library: str | Path | None = None) -> None:
        """By default the library and the weights that lie beside this file."""
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._library = _Library(
            library, prepare=[ctypes.c_char_p, size, pointer, size],
            run=[pointer] * (1 + len(INPUTS) + len(OUTPUTS)) + [ctypes.c_int64, pointer, size])
        self._prepared = _aligned(PREPARED_BYTES)
        content = Path(weights or _FOLDER / "$name.safetensors").read_bytes()
        self._library.call("prepare", content, len(content), self._prepared.ctypes.data, PREPARED_BYTES)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Runs the model; the leading size of every input is the batch."""
        batch, arrays = _arrays(inputs)
        outputs = [np.empty(shape(batch), dtype) for _, dtype, shape in OUTPUTS]
        self._library.call("run", self._prepared.ctypes.data, *_addresses(arrays + outputs), batch,
                           *self._library.workspace(batch))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)
''')

_TRAINER = Template('''

class Trainer:
    """The model in training: parameters, buffers, the optimizer's state and the random generator's. One thread at a
    time may use it. `rate` is the learning rate, or one for each parameter group where there are several."""

    def __init__(self, weights: str | Path | None = None, seed: int = -1, library: str | Path | None = None) -> None:
        """By default the library and the weights that lie beside this file. A seed from 0 on seeds the generator as
        `manual_seed` does; with a negative one its state comes from the file."""
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        rate = ctypes.c_double if LEARNING_RATES == 1 else ctypes.c_double * LEARNING_RATES
        data, rest = [pointer] * (len(INPUTS) + 1), [ctypes.c_int64, pointer, size]
        self._library = _Library(
            library, state_init=[pointer, size, ctypes.c_char_p, size, ctypes.c_int64],
            state_export=[pointer, pointer, size], step=[pointer, *data, rate, *rest],
            grad=[pointer, *data, pointer, *rest], apply=[pointer, pointer, rate, pointer, size])
        self._rate = rate
        self._state = _aligned(STATE_BYTES)
        content = Path(weights or _FOLDER / "$name.safetensors").read_bytes()
        self._library.call("state_init", self._state.ctypes.data, STATE_BYTES, content, len(content), seed)

    def step(self, *inputs: np.ndarray, rate: float | list[float]) -> float:
        """A whole step on a batch, the target last; gives the loss."""
        batch, arrays = _arrays(inputs)
        loss = np.empty((), LOSS)
        self._library.call("step", self._state.ctypes.data, *_addresses([*arrays, loss]), self._rates(rate), batch,
                           *self._library.workspace(batch))
        return loss.item()

    def grad(self, *inputs: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """The first half of a step: the loss, and gradients by name, which are parts of one block, their `base`."""
        batch, arrays = _arrays(inputs)
        loss, block = np.empty((), LOSS), _aligned(GRADIENT_BYTES)
        self._library.call("grad", self._state.ctypes.data, *_addresses([*arrays, loss, block]), batch,
                           *self._library.workspace(batch))
        return loss.item(), {
            name: np.ndarray(shape, dtype, block, offset) for name, (dtype, shape, offset) in GRADIENTS.items()}

    def apply(self, gradients: dict[str, np.ndarray], rate: float | list[float]) -> None:
        """The second half: changes parameters by gradients."""
        block = _aligned(GRADIENT_BYTES)
        for name, (dtype, shape, offset) in GRADIENTS.items():
            np.ndarray(shape, dtype, block, offset)[...] = gradients[name]
        self._library.call("apply", self._state.ctypes.data, block.ctypes.data, self._rates(rate),
                           *self._library.workspace(1))

    def export(self) -> bytes:
        """The whole state as the contents of a safetensors file."""
        file = np.empty(FILE_BYTES, np.uint8)
        self._library.call("state_export", self._state.ctypes.data, file.ctypes.data, FILE_BYTES)
        return file.tobytes()

    def _rates(self, rate: float | list[float]) -> object:
        return rate if LEARNING_RATES == 1 else self._rate(*rate)
''')


def python_model(library: Library, shared: str, fixed: bool) -> str:
    """The module for a library that runs a model. `shared` is what the shared library is called; `fixed`: there is no
    batch."""
    d = library.description
    call = ", ".join(value.name for value in d.inputs)
    usage = f"    from {library.name} import Model\n    model = Model()\n    output = model({call})"
    constants = (f"PREPARED_BYTES = {library.block_bytes}\nINPUTS = {_rows(d.inputs)}\nOUTPUTS = {_rows(d.outputs)}")
    words = _words(library, shared, fixed, usage, constants)
    return _COMMON.substitute(words, what="a model") + _MODEL.substitute(words)


def python_trainer(t: Training, gradients: Mapping[str, tuple[str, tuple[int, ...], int]], shared: str, fixed: bool
                   ) -> str:
    """The module for a library that trains one. `gradients`: data type, shape and offset of each."""
    library = t.library
    call = ", ".join(value.name for value in t.inputs)
    usage = (f"    from {library.name} import Trainer\n    trainer = Trainer()\n"
             f"    loss = trainer.step({call}, rate=0.1)")
    parts = {name: (_dtype(dtype), shape, offset) for name, (dtype, shape, offset) in gradients.items()}
    constants = "\n".join([
        f"STATE_BYTES = {library.block_bytes}", f"FILE_BYTES = {t.file_bytes}", f"LEARNING_RATES = {t.rates}",
        f'LOSS = "{_dtype(t.loss.dtype.name)}"', f"GRADIENT_BYTES = {t.gradient_bytes}", f"GRADIENTS = {parts!r}",
        f"INPUTS = {_rows(t.inputs)}"])
    words = _words(library, shared, fixed, usage, constants)
    return _COMMON.substitute(words, what="a training step") + _TRAINER.substitute(words)


def _words(library: Library, shared: str, fixed: bool, usage: str, constants: str) -> dict[str, object]:
    return {"name": library.name, "max_batch": library.max_batch, "shared": shared, "usage": usage,
            "constants": constants, "batch_of": "1" if fixed else "len(inputs[0])"}


def _rows(values: Sequence[Value]) -> str:
    rows = []
    for value in values:
        sizes = "".join(f"{size_text(size)}, " for size in value.shape)
        rows.append(f'("{value.name}", "{_dtype(value.dtype.name)}", lambda batch: ({sizes.rstrip(" ")}))')
    return f"[{', '.join(rows)}]"


def _dtype(name: str) -> str:
    """As NumPy names it; bfloat16 as its bits."""
    return "uint16" if name == "bfloat16" else name
