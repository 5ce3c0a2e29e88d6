"""State dicts in files: the safetensors format, which holds named tensors and can run no code when read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save_file

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.tensor import Tensor
from torturous.tensor.values import computed_values, of_array

_NAMES = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I32": dtypes.int32, "I64": dtypes.int64, "F16": dtypes.float16,
    "BF16": dtypes.bfloat16, "F32": dtypes.float32, "F64": dtypes.float64,
}


def save(state: Mapping[str, Tensor], file: str | os.PathLike[str]) -> None:
    """Writes a state dict, a mapping from names to tensors, to a safetensors file.

    The file appears whole or not at all. Tensors that share memory are written separately. TypeError names what is
    not a tensor; UnsupportedError says so for anything but a flat mapping (an optimizer's state, a whole module).
    """
    if not isinstance(state, Mapping):
        raise UnsupportedError(
            f"save() writes a state dict, a mapping from names to tensors, not {type(state).__name__}: "
            "for a module pass module.state_dict()")
    content: dict[str, np.ndarray] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            raise UnsupportedError(f"save() writes a flat mapping; entry {name!r} is itself a mapping")
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"save(): entry {name!r} must map a str to a Tensor, but maps {type(name).__name__} to "
                            f"{type(value).__name__}")
        content[name] = np.ascontiguousarray(computed_values(value)).reshape(tuple(value.shape))
    target = Path(file)
    handle, temporary = tempfile.mkstemp(prefix=target.name + ".", dir=target.parent or ".")
    os.close(handle)
    try:
        save_file(content, temporary, {"format": "pt"})
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load(file: str | os.PathLike[str], map_location: object = None, *, weights_only: bool = True) -> dict[str, Tensor]:
    """Reads a safetensors file into a dict from names to tensors, in the file's order of names.

    RuntimeError, naming the file, where it is not a safetensors file or is damaged; UnsupportedError for an element
    type this version has not, and for `weights_only=False`, since files here hold nothing but tensors.
    """
    if map_location not in (None, "cpu") and str(map_location) != "cpu":
        raise RuntimeError(f"load(): tensors can only be loaded to the cpu, not {map_location!r}")
    if not weights_only:
        raise UnsupportedError("load(weights_only=False): a file holds named tensors only, never pickled objects")
    path = Path(file)
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise RuntimeError(f"{path} is not a readable safetensors file: {error}") from error
    result = {}
    for name, entry in entries:
        dtype = _NAMES.get(entry["dtype"])
        if dtype is None:
            raise UnsupportedError(f"{path}: tensor {name!r} has element type {entry['dtype']}; supported are "
                                   f"{', '.join(_NAMES)}")
        result[name] = of_array(np.frombuffer(entry["data"], dtype.numpy).reshape(entry["shape"]), dtype)
    return result


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
