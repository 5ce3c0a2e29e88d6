"""The safetensors format: named tensors, and nothing that could run when it is read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import safetensors
from safetensors.numpy import save as serialize

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.tensor import Tensor
from torturous.tensor.values import computed_values, of_array

_NAMES = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I32": dtypes.int32, "I64": dtypes.int64, "F16": dtypes.float16,
    "BF16": dtypes.bfloat16, "F32": dtypes.float32, "F64": dtypes.float64,
}


def write_safetensors(state: object) -> bytes:
    """A file's content for a flat mapping from names to tensors. Tensors that share memory are written separately.

    TypeError names what is not a tensor; UnsupportedError says so for anything but a flat mapping.
    """
    if not isinstance(state, Mapping):
        raise UnsupportedError(
            f"save(): a safetensors file holds a mapping from names to tensors, not {type(state).__name__}: for a "
            "module save module.state_dict(), for anything else name the file .pt")
    content: dict[str, np.ndarray] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            raise UnsupportedError(f"save(): a safetensors file holds a flat mapping; entry {name!r} is itself a "
                                   "mapping (a file named .pt can hold it)")
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(f"save(): entry {name!r} must map a str to a Tensor, but maps {type(name).__name__} to "
                            f"{type(value).__name__}")
        content[name] = np.ascontiguousarray(computed_values(value)).reshape(tuple(value.shape))
    return serialize(content, {"format": "pt"})


def read_safetensors(content: bytes, file: str) -> dict[str, Tensor]:
    """The tensors of a file, in its order of names.

    RuntimeError, naming the file, where it is not a safetensors file or is damaged; UnsupportedError for an element
    type this version has not.
    """
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise RuntimeError(f"{file} is neither a checkpoint nor a readable safetensors file: {error}") from error
    result = {}
    for name, entry in entries:
        dtype = _NAMES.get(entry["dtype"])
        if dtype is None:
            raise UnsupportedError(f"{file}: tensor {name!r} has element type {entry['dtype']}; supported are "
                                   f"{', '.join(_NAMES)}")
        result[name] = of_array(np.frombuffer(entry["data"], dtype.numpy).reshape(entry["shape"]), dtype)
    return result
