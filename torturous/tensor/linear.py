"""Products: matrix products, linear layers, convolutions. All of them record a contraction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.core.shapes import broadcast, describe
from torturous.ir.contraction import CONTRACT, matrix_product, rows_product
from torturous.ir.macros import CONVOLUTION, LINEAR
from torturous.ir.op import TYPES, Type, type_number
from torturous.tensor.applying import Rule, apply_rule, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.joining import pad
from torturous.tensor.lowering import lowered_operands
from torturous.tensor.lowering import switch as autocasts
from torturous.tensor.shortcuts import shortcut

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

_NAMES = {"float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16",
          "int64": "long", "int32": "int", "uint8": "unsigned char", "bool": "bool"}


def same_dtype(name: str, a: TensorBase | Type, b: TensorBase | Type) -> DType:
    """The common dtype of two factors; RuntimeError where they differ, for products do not promote."""
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"{name}: expected m1 and m2 to have the same dtype, but got: {_NAMES[a.dtype.name]} != "
            f"{_NAMES[b.dtype.name]} (shapes {describe(a.shape)} and {describe(b.shape)})")
    if a.dtype is dtypes.bool_:
        raise RuntimeError(f"\"{name}\" not implemented for 'Bool'")
    return a.dtype


def matmul(a: TensorBase, b: TensorBase) -> Tensor:
    """The product of matrices, vectors, or batches of them, as `torch.matmul`.

    Shapes (…, M, K) and (…, K, N) give (…, M, N) with leading axes broadcast; a vector's missing axis comes and goes.
    RuntimeError where K differs.
    """
    if not isinstance(b, TensorBase):
        raise TypeError(f"matmul(): argument 'other' must be Tensor, not {type(b).__name__}")
    if autocasts.count:
        a, b = lowered_operands(a, b)
    return multiplied(a, b)


def multiplied(a: TensorBase, b: TensorBase) -> Tensor:
    """`matmul` in the operands' own dtype, autocast or not."""
    rule = _product_rule(a._type, b._type)
    if rule is not None:
        return apply_rule(CONTRACT, rule, a, b)
    left: Any = a if len(a.shape) > 1 else a.unsqueeze(0)  # type: ignore[attr-defined]
    right: Any = b if len(b.shape) > 1 else b.unsqueeze(1)  # type: ignore[attr-defined]
    if len(right.shape) > 2 or len(left.shape) == 2:
        lead = broadcast([left.shape[:-2], right.shape[:-2]])
        left = left.expand(*lead, *left.shape[-2:]) if left.shape[:-2] != lead else left
        right = right.expand(*lead, *right.shape[-2:]) if right.shape[:-2] != lead else right
    rule = _product_rule(left._type, right._type)
    assert rule is not None
    product = apply_rule(CONTRACT, rule, left, right)
    if len(a.shape) == 1:
        product = product.squeeze(-2)
    return product.squeeze(-1) if len(b.shape) == 1 else product


@lru_cache(1 << 12)
def _product_rule(a_type: int, b_type: int) -> Rule | None:
    """What the product of two factors gives, by their types; raises PyTorch's errors.

    None where something is to be done first: vectors are no matrices yet, or batches are to be broadcast.
    """
    a, b = TYPES[a_type], TYPES[b_type]
    if not a.shape or not b.shape:
        raise RuntimeError("both arguments to matmul need to be at least 1D, but they are "
                           f"{len(a.shape)}D and {len(b.shape)}D")
    dtype = same_dtype("matmul", a, b)
    left = a.shape if len(a.shape) > 1 else (1, *a.shape)
    right = b.shape if len(b.shape) > 1 else (*b.shape, 1)
    if right[-2] != left[-1]:
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({left[-2]}x{left[-1]} and {right[-2]}x{right[-1]}): the last "
            f"axis of {describe(a.shape)} must equal axis {-2 if len(b.shape) > 1 else -1} of {describe(b.shape)}")
    if len(a.shape) == 1 or len(b.shape) == 1:
        return None
    result = type_number((*left[:-1], right[-1]), dtype)
    if len(right) == 2 and len(left) > 2:
        return result, rows_product(len(left))  # One matrix for a whole batch: leading axes are more rows.
    return (result, matrix_product(len(left) - 2)) if left[:-2] == right[:-2] else None


def linear(input: TensorBase, weight: TensorBase, bias: TensorBase | None = None) -> Tensor:
    """input (…, I) · weight (O, I)ᵀ + bias (O). RuntimeError names the axis that does not fit."""
    if autocasts.count:
        input, weight, bias = lowered_operands(input, weight, bias)
    if len(weight.shape) == 1:
        product: Any = matmul(input, weight)
        return product if bias is None else product + bias
    rule = _linear_rule(input._type, weight._type)
    return apply_rule(LINEAR, rule, input, weight) if bias is None else apply_rule(LINEAR, rule, input, weight, bias)


@lru_cache(1 << 12)
def _linear_rule(x_type: int, weight_type: int) -> Rule:
    """What a linear layer gives, by the types of its operands; raises PyTorch's errors."""
    x, weight = TYPES[x_type], TYPES[weight_type]
    if not x.shape or x.shape[-1] != weight.shape[1]:
        rows = prod(x.shape) // max(x.shape[-1], 1) if x.shape else 1
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1] if x.shape else 1} and "
            f"{weight.shape[1]}x{weight.shape[0]}): linear needs the last axis of its input, {describe(x.shape)}, to "
            f"be {weight.shape[1]}")
    return type_number((*x.shape[:-1], weight.shape[0]), same_dtype("linear", x, weight)), ()


def tuple_of(value: int | Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """A number for every spatial axis, or one number each."""
    if isinstance(value, int):
        return (value,) * count
    result = tuple(int(v) for v in value)
    if len(result) == 1:
        return result * count
    if len(result) != count:
        raise RuntimeError(f"expected {name} to be a single integer value or a list of {count} values, but got {value}")
    return result


def convolution(
    x: TensorBase, weight: TensorBase, bias: TensorBase | None, stride: int | Sequence[int],
    padding: int | Sequence[int] | str, dilation: int | Sequence[int], groups: int, spatial: int,
) -> Tensor:
    """x(N, C, …) with weight(O, C/groups, …): `F.conv1d`, `conv2d`, `conv3d`; x may lack the batch axis."""
    _check_tensors(f"conv{spatial}d", x, weight)
    if autocasts.count:
        x, weight, bias = lowered_operands(x, weight, bias)
    return _convolved(x, weight, bias, stride, padding, dilation, groups, spatial)


@shortcut(operands=3)
def _convolved(
    x: TensorBase, weight: TensorBase, bias: TensorBase | None, stride: int | Sequence[int],
    padding: int | Sequence[int] | str, dilation: int | Sequence[int], groups: int, spatial: int,
) -> Tensor:
    if len(x.shape) == spatial + 1:
        batched = _convolved(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups, spatial)  # type: ignore[attr-defined]
        return batched.squeeze(0)
    strides = tuple_of(stride, spatial, "stride")
    dilations = tuple_of(dilation, spatial, "dilation")
    if isinstance(padding, str):
        x, pads = _named_padding(x, padding, strides, dilations, weight.shape[2:])
    else:
        pads = tuple_of(padding, spatial, "padding")
    rule = _convolution_rule(x._type, weight._type, None if bias is None else bias._type, strides, pads, dilations,
                             groups, spatial)
    return apply_rule(CONVOLUTION, rule, *((x, weight) if bias is None else (x, weight, bias)))


@lru_cache(1 << 12)
def _convolution_rule(x: int, weight: int, bias: int | None, strides: tuple[int, ...], pads: tuple[int, ...],
                      dilations: tuple[int, ...], groups: int, spatial: int) -> Rule:
    """What a convolution gives, by the types of its operands; raises PyTorch's errors."""
    name = f"conv{spatial}d"
    kind, factor = TYPES[x], TYPES[weight]
    _check_types(name, kind, factor, None if bias is None else TYPES[bias], spatial)
    shape, kernel = kind.shape, factor.shape[2:]
    if shape[1] != factor.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {describe(factor.shape)}, expected input{describe(shape)} to "
            f"have {factor.shape[1] * groups} channels, but got {shape[1]} channels instead ({name}: axis 1)")
    if factor.shape[0] % groups:
        raise RuntimeError(f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but "
                           f"got weight of size {describe(factor.shape)} instead ({name})")
    out = []
    for axis in range(spatial):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        padded = shape[2 + axis] + 2 * pads[axis]
        if padded < reach:
            raise RuntimeError(
                f"Calculated padded input size per channel: ({padded}). Kernel size: ({reach}). Kernel size can't be "
                f"greater than actual input size ({name}: axis {2 + axis} of {describe(shape)})")
        out.append((padded - reach) // strides[axis] + 1)
    return type_number((shape[0], factor.shape[0], *out), kind.dtype), (False, strides, pads, dilations, groups)


def _named_padding(x: Any, padding: str, strides: tuple[int, ...], dilations: tuple[int, ...],
                   kernel: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    if padding == "valid":
        return x, (0,) * len(kernel)
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}' (valid choices are 'same' and 'valid')")
    if any(stride != 1 for stride in strides):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    totals = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
    if any(total % 2 for total in totals):
        extra = [amount for total in reversed(totals) for amount in (0, total % 2)]
        x = pad(x, extra)
    return x, tuple(total // 2 for total in totals)


def _check_tensors(name: str, x: Any, weight: Any) -> None:
    for role, value in (("input", x), ("weight", weight)):
        if not isinstance(value, TensorBase):
            raise TypeError(f"{name}(): argument '{role}' must be Tensor, not {type(value).__name__}")


def _check_types(name: str, x: Any, weight: Any, bias: Any, spatial: int) -> None:
    """Of tensors or their types."""
    if len(x.shape) not in (spatial + 1, spatial + 2):
        raise RuntimeError(f"Expected {spatial + 1}D (unbatched) or {spatial + 2}D (batched) input to {name}, but got "
                           f"input of size: {describe(x.shape)}")
    if x.dtype is not weight.dtype:
        raise RuntimeError(f"Input type ({_NAMES[x.dtype.name]}) and weight type ({_NAMES[weight.dtype.name]}) should "
                           f"be the same ({name}); cast one of them with .to()")
    if bias is not None and bias.dtype is not x.dtype:
        raise RuntimeError(f"Input type ({_NAMES[x.dtype.name]}) and bias type ({_NAMES[bias.dtype.name]}) should be "
                           f"the same ({name})")
    if bias is not None and len(bias.shape) != 1:
        raise RuntimeError(f"{name}: expected bias to be 1-dimensional, but got {describe(bias.shape)}")


def transposed_convolution(
    x: TensorBase, weight: TensorBase, bias: TensorBase | None, stride: int | Sequence[int],
    padding: int | Sequence[int], output_padding: int | Sequence[int], groups: int, dilation: int | Sequence[int],
    spatial: int,
) -> Tensor:
    """x(N, C, …) with weight(C, O/groups, …): the gradient of a convolution, `F.conv_transpose1d` and so on."""
    name = f"conv_transpose{spatial}d"
    _check_tensors(name, x, weight)
    if autocasts.count:
        x, weight, bias = lowered_operands(x, weight, bias)
    _check_types(name, x, weight, bias, spatial)
    if len(x.shape) == spatial + 1:
        batched = transposed_convolution(
            x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation, spatial)  # type: ignore[attr-defined]
        return batched.squeeze(0)
    strides, pads = tuple_of(stride, spatial, "stride"), tuple_of(padding, spatial, "padding")
    extra, dilations = tuple_of(output_padding, spatial, "output_padding"), tuple_of(dilation, spatial, "dilation")
    if x.shape[1] != weight.shape[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {describe(weight.shape)}, expected input{describe(x.shape)} to "
            f"have {weight.shape[0]} channels, but got {x.shape[1]} channels instead ({name}: axis 1)")
    out = []
    for axis in range(spatial):
        if extra[axis] >= max(strides[axis], dilations[axis]):
            raise RuntimeError(
                f"output padding must be smaller than either stride or dilation, but got output_padding {extra[axis]} "
                f"stride {strides[axis]} dilation {dilations[axis]} ({name})")
        size = ((x.shape[2 + axis] - 1) * strides[axis] - 2 * pads[axis]
                + dilations[axis] * (weight.shape[2 + axis] - 1) + extra[axis] + 1)
        if size <= 0:
            raise RuntimeError(f"Given input size per channel: {describe(x.shape[2:])}. Calculated output size per "
                               f"channel: {size}. Output size is too small ({name})")
        out.append(size)
    operands = (x, weight) if bias is None else (x, weight, bias)
    return apply_typed(CONVOLUTION, (x.shape[0], weight.shape[1] * groups, *out), x.dtype, *operands,
                       attributes=(True, strides, pads, dilations, groups))
