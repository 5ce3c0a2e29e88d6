"""`torch.cuda` where there is none: questions are answered, whatever needs a GPU raises.

Exceptions are of PyTorch's types, as its build without CUDA raises them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torturous.cuda import amp
from torturous.tensor.tensor import Tensor


# Questions --------------------------------------------------------------------------------------------------
def is_available() -> bool:
    """Whether there is a GPU: never."""
    return False


def is_initialized() -> bool:
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def is_tf32_supported() -> bool:
    return False


def device_count() -> int:
    return 0


def get_arch_list() -> list[str]:
    """The GPU architectures that there are kernels for: none."""
    return []


# Memory, of which there is none -----------------------------------------------------------------------------
def memory_allocated(device: Any = None) -> int:
    """Bytes in use on the GPU."""
    return 0


def max_memory_allocated(device: Any = None) -> int:
    return 0


def memory_reserved(device: Any = None) -> int:
    return 0


def max_memory_reserved(device: Any = None) -> int:
    return 0


def memory_stats(device: Any = None) -> dict[str, Any]:
    return {}


def empty_cache() -> None:
    """Gives back unused memory of the GPU."""


# Random numbers: seeding every GPU there is seeds none ------------------------------------------------------
def manual_seed(seed: int) -> None:
    """Seeds the present GPU's generator once there is one; `torch.manual_seed` seeds the CPU's."""
    int(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds the generators of all GPUs; `torch.manual_seed` seeds the CPU's."""
    int(seed)


def seed() -> None:
    """Seeds the present GPU's generator from the operating system, once there is one."""


def seed_all() -> None:
    """Seeds the generators of all GPUs from the operating system."""


def get_rng_state_all() -> list[Tensor]:
    """The states of all GPUs' generators."""
    return []


def set_rng_state_all(new_states: list[Tensor]) -> None:
    """Continues the generators of all GPUs; AssertionError for states of GPUs that are not there."""
    if new_states:
        raise AssertionError(f"set_rng_state_all(): {len(new_states)} states, but there is no GPU")


# What needs a GPU -------------------------------------------------------------------------------------------
def _needing(name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        raise AssertionError(
            f"torch.cuda.{name}(): there is no GPU here, only the CPU; ask torch.cuda.is_available() first")

    function.__name__ = name
    function.__doc__ = "Raises AssertionError: there is no GPU."
    return function


(can_device_access_peer, current_device, current_stream, default_stream, get_device_capability, get_device_name,
 get_device_properties, get_rng_state, init, initial_seed, ipc_collect, mem_get_info, memory_summary,
 reset_max_memory_allocated, reset_max_memory_cached, reset_peak_memory_stats, set_device, set_rng_state, synchronize,
 utilization) = map(_needing, (
     "can_device_access_peer", "current_device", "current_stream", "default_stream", "get_device_capability",
     "get_device_name", "get_device_properties", "get_rng_state", "init", "initial_seed", "ipc_collect", "mem_get_info",
     "memory_summary", "reset_max_memory_allocated", "reset_max_memory_cached", "reset_peak_memory_stats", "set_device",
     "set_rng_state", "synchronize", "utilization"))


class Stream:
    """A queue of a GPU: RuntimeError, since there is none."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        raise RuntimeError(f"torch.cuda.{type(self).__name__} needs a GPU, and only the CPU exists here")


class Event(Stream):
    """A point in a GPU's queue: RuntimeError, since there is none."""


class OutOfMemoryError(RuntimeError):
    """What a GPU without memory left would raise; nothing raises it here."""


class device:
    """A context in which a GPU is the present one; for None, and numbers below zero, it changes nothing.

    Entering it for a GPU raises AssertionError.
    """

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else device

    def __enter__(self) -> None:
        if not (isinstance(self.idx, int) and self.idx < 0):
            set_device(self.idx)

    def __exit__(self, *error: object) -> None:
        pass


class _TensorType:
    """One of PyTorch's old types of GPU tensors: nothing is an instance of it, and it makes nothing."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *arguments: Any) -> Any:
        raise TypeError(f"type torch.cuda.{self.__name__} not available: there is no GPU here, only the CPU")

    def __instancecheck__(self, value: Any) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<class 'torch.cuda.{self.__name__}'>"


(BFloat16Tensor, BoolTensor, ByteTensor, CharTensor, DoubleTensor, FloatTensor, HalfTensor, IntTensor, LongTensor,
 ShortTensor) = map(_TensorType, (
     "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
     "IntTensor", "LongTensor", "ShortTensor"))

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "Event", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "OutOfMemoryError", "ShortTensor", "Stream", "amp", "can_device_access_peer",
    "current_device", "current_stream", "default_stream", "device", "device_count", "empty_cache", "get_arch_list",
    "get_device_capability", "get_device_name", "get_device_properties", "get_rng_state", "get_rng_state_all", "init",
    "initial_seed", "ipc_collect", "is_available", "is_bf16_supported", "is_initialized", "is_tf32_supported",
    "manual_seed", "manual_seed_all", "max_memory_allocated", "max_memory_reserved", "mem_get_info",
    "memory_allocated", "memory_reserved", "memory_stats", "memory_summary", "reset_max_memory_allocated",
    "reset_max_memory_cached", "reset_peak_memory_stats", "seed", "seed_all", "set_device", "set_rng_state",
    "set_rng_state_all", "synchronize", "utilization",
]
