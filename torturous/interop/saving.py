"""`save` and `load`: any objects as PyTorch's checkpoints, state dicts as safetensors too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from torturous.core.deferred import deferred
from torturous.core.devices import check_device, device
from torturous.core.errors import UnsupportedError
from torturous.interop.safetensor import read_safetensors, write_safetensors

if TYPE_CHECKING:
    from torturous.interop import checkpoint
    from torturous.interop.checkpoint import Placed
else:
    checkpoint = deferred("torturous.interop.checkpoint")

FileName = str | os.PathLike[str]
SAFETENSORS = ".safetensors"
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80\x02"


def save(obj: object, f: FileName | BinaryIO) -> None:
    """Writes an object to a file, or to something with `write`: a state dict, or any object that can be pickled.

    The file is PyTorch's, which reads it as we read PyTorch's. A name that ends in ".safetensors" asks for that format
    instead, which holds a flat mapping from names to tensors. A file appears whole or not at all.
    """
    if not isinstance(f, str | os.PathLike):
        checkpoint.write_checkpoint(obj, f, "archive")
        return
    target = Path(f)
    handle, temporary = tempfile.mkstemp(prefix=target.name + ".", dir=target.parent or ".")
    try:
        with os.fdopen(handle, "wb") as file:
            if target.suffix == SAFETENSORS:
                file.write(write_safetensors(obj))
            else:
                checkpoint.write_checkpoint(obj, file, target.stem or "archive")
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def load(f: FileName | BinaryIO, map_location: Any = None, pickle_module: None = None, *,
         weights_only: bool | None = None, mmap: bool | None = None) -> Any:
    """Reads what `save`, PyTorch or safetensors wrote.

    Tensors come to the CPU: what was saved on a GPU needs `map_location="cpu"` (or a dict or function that says so),
    else RuntimeError. `weights_only=False` lets the file name any class and run any code; otherwise tensors, Python's
    own types and `torch.serialization.add_safe_globals` are read, and pickle.UnpicklingError says what else there is.
    `mmap=True` leaves a checkpoint's storages on disk until they are read. RuntimeError names a damaged file.
    """
    if pickle_module is not None:
        raise UnsupportedError("load(pickle_module=…): files are read by Python's pickle")
    place = _placing(map_location)
    if not isinstance(f, str | os.PathLike):
        if mmap:
            raise RuntimeError("load(mmap=True): f must be a file's name")
        content, name = np.frombuffer(f.read(), np.uint8), "the file"
    else:
        name = os.fspath(f)
        # Written to by nobody but the tensors that look at it, of which the file hears nothing.
        content = np.memmap(f, np.uint8, "c") if mmap and os.path.getsize(f) else np.fromfile(f, np.uint8)
    start = content[:4].tobytes()
    try:
        if start == _ARCHIVE:
            return checkpoint.read_checkpoint(content, place, weights_only is False, bool(mmap))
        if mmap:
            raise RuntimeError("load(mmap=True): only checkpoints of PyTorch since 1.6 can be mapped into memory")
        if start[:2] == _PICKLE:
            return checkpoint.read_old_checkpoint(content, place, weights_only is False)
    except checkpoint.Damaged as error:
        raise RuntimeError(f"{name} is no whole checkpoint: {error}") from error
    return read_safetensors(content.tobytes(), name)


def _placing(map_location: Any) -> Placed:
    """Checks where things are to be loaded, now or, where that depends on where they were, as they are met."""
    if map_location is None or isinstance(map_location, Mapping):
        names = map_location or {}

        def place(location: str) -> None:
            wanted = device(names.get(location, location))
            if wanted.type != "cpu":
                raise RuntimeError(f"load(): the file's tensors were saved on {wanted}, which does not exist here; "
                                   "give map_location='cpu'")

        return place
    if callable(map_location) and not isinstance(map_location, device):
        asked: Callable[[Any, str], Any] = map_location

        def ask(location: str) -> None:
            asked(None, location)

        return ask
    check_device(map_location)
    return lambda location: None


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
