"""Where tensors are, and how they lie in memory: there is one device, the CPU, and one layout."""

from __future__ import annotations

from typing import Any

from torturous.core.errors import UnsupportedError

_TYPES = ("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla",
          "lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone")


class device:
    """A device: `device("cpu")`, `device("cpu:0")`, `device("cpu", 0)`. Hashable and comparable.

    As in PyTorch, any device that it knows can be named, but only the CPU can be used (see `check_device`). Raises
    RuntimeError for a name that is none, and for an accelerator's number.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int):
            raise RuntimeError(f"device {type} is an accelerator's number, and only 'cpu' exists here")
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str, not {type.__class__.__name__}")
        name, _, number = type.partition(":")
        if name not in _TYPES:
            raise RuntimeError(f"Expected one of {', '.join(_TYPES)} device type at start of device string: {type}")
        if number:
            if index is not None:
                raise RuntimeError(
                    f"type (string) must not include an index because index was passed: {type}"
                )
            if not number.isdigit():
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        if index is not None and index < 0:
            raise RuntimeError(f"Device index must not be negative, got {index}")
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + (f", index={self.index})" if self.index is not None else ")")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> Any:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        return self

    def __exit__(self, *error: object) -> None:
        pass


CPU = device("cpu")


def check_device(where: device | str | int | None) -> None:
    """Raises for a device that does not exist: AssertionError for GPUs that PyTorch calls "cuda" and "xpu", else
    RuntimeError."""
    if where is None:
        return
    wanted = device(where)
    if wanted.type != "cpu":
        error = AssertionError if wanted.type in ("cuda", "xpu") else RuntimeError
        raise error(f"device '{wanted}' does not exist: only 'cpu' does; leave the device out or use 'cpu'")


class layout:
    """How a tensor's elements are kept; `strided` is the only way here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


strided = layout("strided")


class memory_format:
    """An order of axes in memory: row-major (`contiguous_format`), as it was (`preserve_format`), or
    others."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"


contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")


def check_format(wanted: memory_format | None) -> None:
    """Raises UnsupportedError for an order of axes in memory other than row-major."""
    if wanted not in (None, contiguous_format, preserve_format):
        raise UnsupportedError(
            f"memory_format={wanted}: tensors are row-major here (the compiler chooses the order it computes "
            "in); leave the argument out"
        )


def check_layout(wanted: layout | None) -> None:
    """Raises UnsupportedError for a layout other than `strided`."""
    if wanted not in (None, strided):
        raise UnsupportedError(f"layout={wanted}: only torch.strided is supported")


__all__ = [
    "CPU",
    "channels_last",
    "channels_last_3d",
    "check_device",
    "check_format",
    "check_layout",
    "contiguous_format",
    "device",
    "layout",
    "memory_format",
    "preserve_format",
    "strided",
]
