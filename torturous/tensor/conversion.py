"""A tensor as something else: of another dtype, as NumPy and Python values, copied, pickled; and what it says
of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import devices, dtypes
from torturous.core.devices import check_device, check_format
from torturous.core.devices import device as Device
from torturous.core.dtypes import DType
from torturous.core.shapes import normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir.op import TYPES
from torturous.runtime.flight import land
from torturous.runtime.realize import expose
from torturous.tensor.base import TensorBase
from torturous.tensor.creation import TENSOR_TYPES, TensorType, from_array, legacy
from torturous.tensor.printing import tensor_text
from torturous.tensor.recording import binary, cast
from torturous.tensor.values import compute_values, computed_values, look

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

_TYPE_NAMES = {f"torch.{kind.__name__}": kind.dtype for kind in TENSOR_TYPES.values()}


def rebuild(array: np.ndarray, dtype: DType, requires_grad: bool) -> Tensor:
    """A pickled tensor's second life."""
    t = from_array(array.view(dtype.numpy), dtype)
    return t.requires_grad_() if requires_grad else t


def _method(dtype: DType) -> Callable[..., Tensor]:
    def convert(self: TensorBase, memory_format: Any = None) -> Tensor:
        check_format(memory_format)
        return cast(self, dtype)

    convert.__doc__ = f"The tensor as {dtype}; itself if it is."
    return convert


class Conversion(TensorBase):
    """Methods that give something else than a tensor, or a tensor of another type."""

    __slots__ = ()

    __array_priority__ = 1000

    def __init__(self, *arguments: Any, device: Device | str | None = None) -> None:
        """PyTorch's old constructor: sizes give uninitialised memory, a sequence its elements; default
        dtype."""
        check_device(device)
        self._become(legacy(arguments, dtypes.default_float()))

    def _become(self, other: TensorBase) -> None:
        """Makes a new object everything that another tensor is."""
        self._storage, self._type = other.storage, other._type
        self._record, self._index, self._seen = other._record, other._index, other._seen
        self.__dict__.update(other.__dict__)

    @staticmethod
    def _make_subclass(cls: type, data: TensorBase, require_grad: bool = False) -> Any:
        """A leaf of a subclass that shares the memory of `data`."""
        t: Any = object.__new__(cls)
        t._become(data.detach())
        t.requires_grad_(require_grad)
        return t

    # Types --------------------------------------------------------------------------------------------------
    def to(self, *arguments: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False,
           copy: bool = False, memory_format: Any = None) -> Tensor:
        """The tensor in another dtype: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`.

        Itself where nothing changes, unless `copy`. RuntimeError for a device but the CPU.
        """
        rest = list(arguments)
        if rest and isinstance(rest[0], TensorBase):
            dtype = rest.pop(0).dtype
        elif rest and isinstance(rest[0], (str, int, Device)) or rest and rest[0] is None:
            device = rest.pop(0)
        if rest and (isinstance(rest[0], DType) or rest[0] in (float, int, bool)):
            dtype = {float: dtypes.float64, int: dtypes.int64, bool: dtypes.bool_}.get(rest[0], rest[0])
            rest.pop(0)
        if rest and isinstance(rest[0], bool):
            rest.pop(0)  # non_blocking: nothing is copied between devices.
        if rest and isinstance(rest[0], bool):
            copy = rest.pop(0)
        if rest:
            raise TypeError(f"to() received an invalid combination of arguments: {arguments!r}")
        check_device(device)
        check_format(memory_format)
        result = cast(self, self.dtype if dtype is None else dtype)
        return result.clone() if copy and result is self else result

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """Without an argument the name of the old type ("torch.FloatTensor"), else the tensor as that type or
        dtype."""
        if dtype is None:
            return f"torch.{TENSOR_TYPES[self.dtype].__name__}"
        if isinstance(dtype, str):
            if dtype not in _TYPE_NAMES:
                raise ValueError(f"invalid type: '{dtype}'; the types are {', '.join(_TYPE_NAMES)}")
            dtype = _TYPE_NAMES[dtype]
        return cast(self, dtype.dtype if isinstance(dtype, TensorType) else dtype)

    def type_as(self, other: TensorBase) -> Tensor:
        return cast(self, other.dtype)

    def cpu(self, memory_format: Any = None) -> Tensor:
        check_format(memory_format)
        return self  # type: ignore[return-value]

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Tensor:
        raise AssertionError(
            "cuda(): no accelerator exists here, only the CPU; leave the call out or use .cpu()"
        )

    def pin_memory(self) -> Tensor:
        raise AssertionError("pin_memory(): pinned memory is for accelerators, and only the CPU exists here")

    def is_pinned(self) -> bool:
        return False

    # Python and NumPy ---------------------------------------------------------------------------------------
    def _realized(self) -> None:
        """Computes the present value if it is pending."""
        computed_values(self)

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """An array that shares the tensor's memory. RuntimeError for a tensor that requires grad, unless
        `force`."""
        if not force and (self._requires_grad or self._tracked()):
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.dtype is dtypes.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16; convert with .float() first")
        computed_values(self)
        memory = expose(self.storage)
        if self.base is None:
            return memory
        item = self.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            memory.reshape(-1)[self._offset:], tuple(self.shape), [stride * item for stride in self.strides])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is None or array.dtype == dtype:
            return array.copy() if copy else array
        return array.astype(dtype)

    def __array_wrap__(self, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
        return from_array(array)

    def _host(self) -> np.ndarray:
        """The elements for reading, of a dtype that Python knows."""
        array = computed_values(self)
        return array.astype(np.float32) if self.dtype is dtypes.bfloat16 else array

    def tolist(self) -> Any:
        """Nested lists of Python numbers; a number for a 0-d tensor."""
        return self._host().tolist()

    def item(self) -> Any:
        """The only element as a Python number; RuntimeError if there are more, or none."""
        array = self._host()
        if array.size != 1:
            raise RuntimeError(f"a Tensor with {array.size} elements cannot be converted to Scalar")
        return array.item()

    def _scalar(self) -> Any:
        array = self._host()
        if array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return array.item()

    def __bool__(self) -> bool:
        array = computed_values(self)
        if array.size != 1:
            many = "more than one value" if array.size else "no values"
            raise RuntimeError(f"Boolean value of Tensor with {many} is ambiguous; use .any() or .all()")
        return bool(array.item())

    def __int__(self) -> int:
        return int(self._scalar())

    def __float__(self) -> float:
        return float(self._scalar())

    def __complex__(self) -> complex:
        return complex(self._scalar())

    def __index__(self) -> int:
        if self.dtype.is_floating_point or self.numel() != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._scalar())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))  # type: ignore[attr-defined]

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, (TensorBase, int, float)):
            raise RuntimeError(
                f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(value)}.")
        return bool(computed_values(binary(ops.EQ, self, value)).any())

    def __format__(self, specification: str) -> str:
        if not self.shape:
            return format(self.item(), specification)
        if specification:
            raise TypeError(f"unsupported format string passed to {type(self).__name__}.__format__")
        return str(self)

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        shown = self if type(self).__name__ == "Tensor" else self.detach()
        history = self.grad_fn  # type: ignore[attr-defined]
        return tensor_text(shown, self._requires_grad, history and history.name(), tensor_contents)

    __str__ = __repr__

    # Copies -------------------------------------------------------------------------------------------------
    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A leaf with memory of its own; RuntimeError for a tensor with history."""
        if id(self) in memo:
            return memo[id(self)]
        if self._tracked():
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at "
                "the moment; use .detach().clone()"
            )
        copy = self._make_subclass(type(self), self.detach().clone(), self._requires_grad)
        memo[id(self)] = copy
        if self._grad is not None:
            copy._grad = self._grad.detach().clone()
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        array = computed_values(self)
        bytes_of = np.array(array).view(np.uint16) if self.dtype.is_half and array.ndim else np.array(array)
        if self.dtype is dtypes.bfloat16 and not array.ndim:
            bytes_of = np.array(array).reshape(1).view(np.uint16).reshape(())
        return rebuild, (bytes_of, self.dtype, self._requires_grad or self._tracked())

    # What it says of itself ---------------------------------------------------------------------------------
    def size(self, dim: int | None = None) -> Any:
        """The shape, or the extent of one axis."""
        return self.shape if dim is None else TYPES[self._type].shape[normalize_axis(dim, len(self.shape))]

    def stride(self, dim: int | None = None) -> Any:
        """Steps between neighbours in elements, of all axes or of one."""
        return tuple(self.strides) if dim is None else self.strides[normalize_axis(dim, len(self.shape))]

    def dim(self) -> int:
        return len(TYPES[self._type].shape)

    def numel(self) -> int:
        count = 1
        for extent in TYPES[self._type].shape:
            count *= extent
        return count

    def element_size(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    def storage_offset(self) -> int:
        return self._offset

    def data_ptr(self) -> int:
        """The address of the first element, as long as the tensor is not written to."""
        compute_values(self)
        look(self)
        land()
        assert self.storage.buffer is not None
        return self.storage.buffer.address + self._offset * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        return False

    def is_signed(self) -> bool:
        return self.dtype.is_signed

    def get_device(self) -> int:
        return -1

    @property
    def device(self) -> Device:
        return devices.CPU

    @property
    def layout(self) -> devices.layout:
        return devices.strided

    @property
    def ndim(self) -> int:
        return len(TYPES[self._type].shape)

    @property
    def nbytes(self) -> int:
        return self.numel() * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def is_cuda(self) -> bool:
        return False

    @property
    def is_sparse(self) -> bool:
        return False

    # Under other names, and names that hide Python's --------------------------------------------------------
    ndimension, nelement = dim, numel
    half, bfloat16 = _method(dtypes.float16), _method(dtypes.bfloat16)
    double, long = _method(dtypes.float64), _method(dtypes.int64)
    byte = _method(dtypes.uint8)


# Set from outside, because within the class they would hide the types that annotations name.
for _name, _dtype in (("float", dtypes.float32), ("int", dtypes.int32), ("bool", dtypes.bool_)):
    setattr(Conversion, _name, _method(_dtype))
