"""Making tensors: from Python and NumPy data, filled, in sequence.

All take `dtype`, `device` (the CPU, or nothing), `requires_grad`, `layout` (strided) and `pin_memory`
(False). Sizes are given as `zeros(2, 3)` or `zeros((2, 3))`. Fills and sequences are recorded and cost
nothing until read.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import ceil, prod
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.devices import check_device, check_format, check_layout
from torturous.core.devices import device as Device
from torturous.core.dtypes import Category, DType
from torturous.core.shapes import Shape
from torturous.ir import elementwise as ops
from torturous.ir.creation import FULL, IOTA
from torturous.ir.record import number_category
from torturous.runtime.buffers import Buffer, allocate
from torturous.runtime.storage import Storage
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import Number, TensorBase
from torturous.tensor.literals import literal_array
from torturous.tensor.movement import as_function
from torturous.tensor.recording import cast, modifying
from torturous.tensor.sharing import shared_view
from torturous.tensor.values import of_array

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


# What all have in common ------------------------------------------------------------------------------------
def chosen_dtype(name: str, dtype: Any, default: DType) -> DType:
    """A `dtype` argument: None stands for the default, Python's types for their own."""
    if dtype is None:
        return default
    if isinstance(dtype, DType):
        return dtype
    python = {float: dtypes.float64, int: dtypes.int64, bool: dtypes.bool_}
    if dtype in python:
        return python[dtype]
    raise TypeError(f"{name}(): argument 'dtype' must be torch.dtype, not {type(dtype).__name__}")


def size_of(name: str, size: Sequence[Any]) -> Shape:
    """A shape from the arguments that give it."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    for extent in size:
        if isinstance(extent, (bool, float)) or not hasattr(extent, "__index__"):
            raise TypeError(
                f"{name}(): argument 'size' (position 1) must be tuple of ints, not {type(extent).__name__}")
    shape = tuple(map(index, size))
    if shape and min(shape) < 0:
        raise RuntimeError(f"{name}: Dimension size must be non-negative, but got {list(shape)}.")
    return shape


def finished(
    t: Tensor,
    *,
    device: Device | str | None = None,
    requires_grad: bool = False,
    layout: Any = None,
    pin_memory: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A new tensor, once the options that say nothing about its elements are checked."""
    check_device(device)
    check_layout(layout)
    check_format(memory_format)
    if pin_memory:
        raise RuntimeError("pin_memory=True needs an accelerator, and only the CPU exists here")
    return t.requires_grad_() if requires_grad else t


def from_buffer(buffer: Buffer, shape: Shape, dtype: DType) -> Tensor:
    """A tensor over memory that already holds its elements, row-major."""
    storage = Storage.of(tuple(shape), dtype, buffer)
    return TensorBase._make(storage, storage.type_index)


def from_array(array: np.ndarray, dtype: DType | None = None) -> Tensor:
    """A tensor with a copy of an array's elements."""
    with np.errstate(all="ignore"):
        return of_array(array, dtype or dtypes.from_numpy(array.dtype))


# From data --------------------------------------------------------------------------------------------------
def tensor(data: Any, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """A new leaf with a copy of `data`: a number, nested sequences of numbers, a NumPy array, or a tensor.

    Without `dtype`, Python bools, ints and floats give bool, int64 and the default floating type; arrays keep
    theirs. Raises ValueError for ragged sequences, TypeError or RuntimeError for what is not a number.
    """
    wanted = None if dtype is None else chosen_dtype("tensor", dtype, dtypes.float32)
    if isinstance(data, TensorBase):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
            stacklevel=2,
        )
        source: Any = data.detach()
        return finished(source.clone() if wanted in (None, data.dtype) else cast(source, wanted), **options)
    array, kind = literal_array(data, wanted)
    return finished(from_array(array, kind), **options)


def scalar_tensor(s: Number, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """A 0-d tensor, of the default floating type unless told otherwise."""
    return tensor(s, dtype=chosen_dtype("scalar_tensor", dtype, dtypes.default_float()), **options)


def as_tensor(data: Any, dtype: DType | None = None, device: Device | str | None = None) -> Tensor:
    """`data` as a tensor, without copying where a tensor or array already is what is asked for."""
    check_device(device)
    if isinstance(data, TensorBase):
        return cast(data, chosen_dtype("as_tensor", dtype, data.dtype))
    if isinstance(data, np.ndarray) and (dtype is None or dtypes.from_numpy(data.dtype) is dtype):
        return from_numpy(data)
    return tensor(data, dtype=dtype)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that shares an array's memory, in both directions.

    Raises TypeError for what is not an array or has no dtype here; ValueError for negative strides, a foreign
    byte order, and strides that are no multiple of the element size.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    if not array.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion between byte "
            "orders is currently not supported."
        )
    dtype = dtypes.from_numpy(array.dtype)
    if not array.flags.writeable:
        warnings.warn(
            "The given NumPy array is not writable, and PyTorch does not support non-writable tensors: "
            "writing to the tensor would write to the array. Copy the array first.",
            stacklevel=2,
        )
    if not array.flags.c_contiguous:
        return shared_view(array, dtype)
    t = from_buffer(Buffer.wrap(array), array.shape, dtype)
    t.storage.foreign = t.storage.buffer
    return t


# Filled -----------------------------------------------------------------------------------------------------
def _filled(shape: Shape, dtype: DType, number: Number, options: dict[str, Any]) -> Tensor:
    return finished(apply_typed(FULL, shape, dtype, number), **options)


def _uninitialised(shape: Shape, dtype: DType, options: dict[str, Any]) -> Tensor:
    buffer = allocate(prod(shape) * dtype.itemsize)
    if dtype is dtypes.bool_:
        buffer.brief(np.uint8, (buffer.nbytes,))[...] = 0  # Other bytes than 0 and 1 are not values of bool.
    return finished(from_buffer(buffer, shape, dtype), **options)


def _sized(size: tuple[Any, ...], options: dict[str, Any], name: str) -> Shape:
    if "size" in options:
        size = (options.pop("size"),)
    return size_of(name, size)


def zeros(*size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
    """Zeros of a given shape."""
    shape = _sized(size, options, "zeros")
    return _filled(shape, chosen_dtype("zeros", dtype, dtypes.default_float()), 0, options)


def ones(*size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
    """Ones of a given shape."""
    shape = _sized(size, options, "ones")
    return _filled(shape, chosen_dtype("ones", dtype, dtypes.default_float()), 1, options)


def empty(*size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
    """A tensor whose elements are whatever is in memory."""
    shape = _sized(size, options, "empty")
    return _uninitialised(shape, chosen_dtype("empty", dtype, dtypes.default_float()), options)


def full(size: Any, fill_value: Number | TensorBase, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Every element `fill_value`, whose kind decides the dtype if none is given."""
    number = _number("full", fill_value)
    default = (
        fill_value.dtype
        if isinstance(fill_value, TensorBase)
        else dtypes.number_type(number_category(number))
    )
    return _filled(size_of("full", (size,)), chosen_dtype("full", dtype, default), number, options)


def _plain(value: Any) -> Any:
    """A Python number in place of a tensor or a NumPy one."""
    return value.item() if isinstance(value, (TensorBase, np.generic)) else value  # type: ignore[union-attr]


def _number(name: str, value: Any) -> Number:
    value = _plain(value)
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name}(): argument 'fill_value' must be Number, not {type(value).__name__}")
    return value


def zeros_like(input: TensorBase, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Zeros of another tensor's shape and, unless given, dtype."""
    return _filled(tuple(input.shape), chosen_dtype("zeros_like", dtype, input.dtype), 0, options)


def ones_like(input: TensorBase, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Ones of another tensor's shape and, unless given, dtype."""
    return _filled(tuple(input.shape), chosen_dtype("ones_like", dtype, input.dtype), 1, options)


def empty_like(input: TensorBase, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """A tensor of another's shape and, unless given, dtype, with whatever is in memory."""
    return _uninitialised(tuple(input.shape), chosen_dtype("empty_like", dtype, input.dtype), options)


def full_like(input: TensorBase, fill_value: Number | TensorBase, *, dtype: DType | None = None,
              **options: Any) -> Tensor:
    """`fill_value` in another tensor's shape and, unless given, dtype."""
    number = _number("full_like", fill_value)
    return _filled(tuple(input.shape), chosen_dtype("full_like", dtype, input.dtype), number, options)


# Sequences --------------------------------------------------------------------------------------------------
def iota(count: int, dtype: DType, start: Number = 0, step: Number = 1) -> Tensor:
    """start + i·step for i < count."""
    return apply_typed(IOTA, (count,), dtype, start, step)


def arange(start: Number, end: Number | None = None, step: Number = 1, *, dtype: DType | None = None,
           **options: Any) -> Tensor:
    """start, start + step, … below `end` (above it for a negative step); `arange(end)` starts at 0.

    Integers give int64, otherwise the default floating type. RuntimeError for a step of 0 or of the wrong
    sign.
    """
    if end is None:
        start, end = 0, start
    start, end, step = map(_plain, (start, end, step))
    whole = all(isinstance(value, int) for value in (start, end, step))
    wanted = chosen_dtype("arange", dtype, dtypes.int64 if whole else dtypes.default_float())
    if not wanted.is_floating_point:
        start, end, step = int(start), int(end), int(step)
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"upper bound and lower bound inconsistent with step sign: from {start} to {end} by {step}")
    if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
        count = -((start - end) // step)
    else:
        count = ceil((end - start) / step)
    # Positions are exact in float64 whatever the result is rounded to.
    exact = dtypes.float64 if wanted.is_floating_point else dtypes.int64
    return finished(cast(iota(count, exact, start, step), wanted), **options)


def linspace(start: Number, end: Number, steps: int, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """`steps` numbers evenly spaced from `start` to `end`, both included."""
    start, end = float(_plain(start)), float(_plain(end))
    wanted = chosen_dtype("linspace", dtype, dtypes.default_float())
    if steps < 0:
        raise RuntimeError(f"number of steps must be non-negative, but got {steps}")
    if steps < 2:
        return _filled((steps,), wanted, start, options)
    step = (end - start) / (steps - 1)
    place = iota(steps, dtypes.float64)
    rising: Any = place * step + start
    falling: Any = end - (steps - 1 - place) * step  # From the nearer end, so that the last is `end` itself.
    return finished(cast(apply(ops.WHERE, place < steps // 2, rising, falling), wanted), **options)


def logspace(start: Number, end: Number, steps: int, base: float = 10.0, *, dtype: DType | None = None,
             **options: Any) -> Tensor:
    """`base` to the power of `steps` numbers evenly spaced from `start` to `end`, both included."""
    wanted = chosen_dtype("logspace", dtype, dtypes.default_float())
    powers: Any = linspace(start, end, steps, dtype=dtypes.float64)
    return finished(cast(apply(ops.POW, float(base), powers), wanted), **options)


def inclusive_range(start: Number, end: Number | None = None, step: Number = 1, *, dtype: DType | None = None,
          **options: Any) -> Tensor:
    """start, start + step, … up to `end`, which is included: PyTorch's deprecated form of `arange`."""
    if end is None:
        start, end = 0, start
    wanted = chosen_dtype("range", dtype, dtypes.default_float())
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"upper bound and lower bound inconsistent with step sign: from {start} to {end} by {step}")
    exact = dtypes.float64 if wanted.is_floating_point else dtypes.int64
    return finished(cast(iota(int((end - start) / step) + 1, exact, start, step), wanted), **options)


def asarray(obj: Any, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor, sharing memory with a tensor or array where it can, unless `copy` is true.

    RuntimeError where `copy` is False and there is no way but copying.
    """
    result: Any = as_tensor(obj, dtype=dtype, device=device)
    shares = isinstance(obj, (TensorBase, np.ndarray)) and result.dtype is (
        obj.dtype if isinstance(obj, TensorBase) else dtypes.from_numpy(obj.dtype))
    if copy is False and not shares:
        raise ValueError(f"asarray(): can't alias {type(obj).__name__} as {result.dtype} without copying")
    if copy and shares:
        result = result.detach().clone()
    return result.requires_grad_() if requires_grad else result


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A vector that shares the memory of bytes; ValueError where they are too few or do not divide evenly."""
    wanted = chosen_dtype("frombuffer", dtype, dtypes.default_float())
    t: Any = from_numpy(np.frombuffer(buffer, wanted.numpy, count, offset))
    return t.requires_grad_() if requires_grad else t


def eye(n: int, m: int | None = None, *, dtype: DType | None = None, **options: Any) -> Tensor:
    """Ones where row and column are equal, else zeros: shape (n, m), or (n, n)."""
    columns = n if m is None else m
    for name, size in (("n", n), ("m", columns)):
        if size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {size}")
    same = iota(n, dtypes.int64).unsqueeze(1) == iota(columns, dtypes.int64)
    return finished(cast(same, chosen_dtype("eye", dtype, dtypes.default_float())), **options)


def _triangle(name: str, t: TensorBase, diagonal: int, lower: bool) -> Tensor:
    if len(t.shape) < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    rows, columns = t.shape[-2:]
    distance: Any = iota(columns, dtypes.int64) - iota(rows, dtypes.int64).unsqueeze(1)
    kept = distance <= diagonal if lower else distance >= diagonal
    return apply(ops.WHERE, kept, t, False if t.dtype.category is Category.BOOL else 0)


def _triangle_in_place(name: str, t: Any, diagonal: int) -> Tensor:
    lower = name == "tril"
    if not t._repeats():
        return modifying(getattr(Creation, name))(t, diagonal)
    # Of an expanded tensor a place in memory becomes zero if any element there does.
    if len(t.shape) < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    return t.masked_fill_(~_triangle(name, ones(*t.shape[-2:], dtype=dtypes.bool_), diagonal, lower), 0)


class Creation(TensorBase):
    """Methods that make tensors like this one."""

    __slots__ = ()

    def new_tensor(self, data: Any, *, dtype: DType | None = None, **options: Any) -> Tensor:
        """A copy of `data`, in this tensor's dtype unless given."""
        return tensor(data, dtype=dtype or self.dtype, **options)

    def new_zeros(self, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        return zeros(*size, dtype=dtype or self.dtype, **options)

    def new_ones(self, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        return ones(*size, dtype=dtype or self.dtype, **options)

    def new_empty(self, *size: Any, dtype: DType | None = None, **options: Any) -> Tensor:
        return empty(*size, dtype=dtype or self.dtype, **options)

    def new_full(
        self, size: Any, fill_value: Number, *, dtype: DType | None = None, **options: Any
    ) -> Tensor:
        return full(size, fill_value, dtype=dtype or self.dtype, **options)

    def new(self, *arguments: Any) -> Tensor:
        """As the old constructors: sizes give uninitialised memory, a sequence its elements."""
        return legacy(arguments, self.dtype)

    def tril(self, diagonal: int = 0) -> Tensor:
        """The last two axes' elements up to a diagonal, zeros above it."""
        return _triangle("tril", self, diagonal, True)

    def triu(self, diagonal: int = 0) -> Tensor:
        """The last two axes' elements from a diagonal on, zeros below it."""
        return _triangle("triu", self, diagonal, False)

    def tril_(self, diagonal: int = 0) -> Tensor:
        return _triangle_in_place("tril", self, diagonal)

    def triu_(self, diagonal: int = 0) -> Tensor:
        return _triangle_in_place("triu", self, diagonal)


def legacy(arguments: tuple[Any, ...], dtype: DType) -> Tensor:
    """What `FloatTensor(...)` and its kin give: sizes give uninitialised memory, a sequence or array its
    elements."""
    if not arguments:
        return empty(0, dtype=dtype)
    first = arguments[0]
    if len(arguments) == 1:
        if isinstance(first, TensorBase):
            if first.dtype is not dtype:
                raise TypeError(
                    f"expected a tensor of {dtype} but got one of {first.dtype}; use .to({dtype})"
                )
            return first.detach()
        if type(first).__name__ == "Size":
            return empty(first, dtype=dtype)
        if isinstance(first, (list, tuple, np.ndarray)):
            return tensor(first, dtype=dtype)
        if isinstance(first, float):
            raise TypeError("new(): data must be a sequence (got float)")
    return empty(*arguments, dtype=dtype)


class TensorType:
    """One of PyTorch's old types, as `FloatTensor`: makes tensors, and tells whether something is one."""

    def __init__(self, name: str, dtype: DType) -> None:
        self.__name__ = name
        self.dtype = dtype

    def __call__(self, *arguments: Any) -> Tensor:
        return legacy(arguments, self.dtype)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, TensorBase) and value.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class 'torch.{self.__name__}'>"


BoolTensor = TensorType("BoolTensor", dtypes.bool_)
ByteTensor = TensorType("ByteTensor", dtypes.uint8)
IntTensor = TensorType("IntTensor", dtypes.int32)
LongTensor = TensorType("LongTensor", dtypes.int64)
HalfTensor = TensorType("HalfTensor", dtypes.float16)
BFloat16Tensor = TensorType("BFloat16Tensor", dtypes.bfloat16)
FloatTensor = TensorType("FloatTensor", dtypes.float32)
DoubleTensor = TensorType("DoubleTensor", dtypes.float64)
TENSOR_TYPES = {kind.dtype: kind for kind in (
    BoolTensor, ByteTensor, IntTensor, LongTensor, HalfTensor, BFloat16Tensor, FloatTensor, DoubleTensor)}

tril: Callable[..., Any] = as_function(Creation.tril)
triu: Callable[..., Any] = as_function(Creation.triu)

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor",
    "LongTensor", "arange", "as_tensor", "asarray", "empty", "empty_like", "eye", "from_numpy", "frombuffer", "full",
    "full_like", "inclusive_range", "linspace", "logspace", "ones", "ones_like", "scalar_tensor", "tensor", "tril",
    "triu", "zeros", "zeros_like",
]
