"""Activation functions. Each is PyTorch's function of the same name, gradients at the kinks included.

A function that would overflow where it is not used is applied to 0 there, so that its gradient is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torturous.core.dtypes import DType
from torturous.core.shapes import describe, normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir.activations import (
    EXPONENTIAL_UNIT,
    GELU,
    GELU_TANH,
    HARDTANH,
    LEAKY_RELU,
    PRELU,
    SILU,
    SOFTPLUS,
)
from torturous.ir.macros import LOG_SOFTMAX, SOFTMAX
from torturous.ir.op import Op
from torturous.ir.record import user_place
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.recording import binary, cast, in_place, unary, write_value
from torturous.tensor.warn import warn_user

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Number = bool | int | float


def _check(name: str, x: TensorBase, floating: bool = True) -> None:
    if not isinstance(x, TensorBase):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")
    if floating and not x.dtype.is_floating_point:
        raise NotImplementedError(f"\"{name}\" not implemented for {x.dtype.name}: it needs a floating dtype")


def _where(condition: TensorBase, a: Any, b: Any) -> Tensor:
    return apply(ops.WHERE, condition, a, b)


def _source(x: Any, inplace: bool) -> Any:
    """What to compute from: a value of its own where x is written over, for gradients still need it."""
    if not inplace:
        return x
    x._writable()
    x._came_round(user_place())
    return x.clone()


def _delivered(x: TensorBase, value: Any, inplace: bool, name: str) -> Tensor:
    """The value, or x with the value written over it."""
    if not inplace:
        return value
    write_value(x, value.row(), name)
    return x  # type: ignore[return-value]


# Rectifiers -------------------------------------------------------------------------------------------------
def relu(input: TensorBase, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    _check("relu", input, False)
    return in_place(ops.RELU, input) if inplace else unary(ops.RELU, input)


def leaky_relu(input: TensorBase, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else slope · x."""
    _check("leaky_relu", input)
    x = _source(input, inplace)
    value = apply(LEAKY_RELU, x, float(negative_slope))
    return _delivered(input, value, inplace, "leaky_relu")


def prelu(input: TensorBase, weight: TensorBase) -> Tensor:
    """x where x > 0, else weight · x; weight has one element, or one per channel of (N, C, …)."""
    _check("prelu", input)
    _check("prelu", weight)
    if input.dtype is not weight.dtype:
        raise RuntimeError(f"prelu: Type promoting not supported. Got {input.dtype} and {weight.dtype}")
    axis = -1
    if len(weight.shape) == 1 and weight.shape[0] != 1:
        axis = min(1, len(input.shape) - 1)
        channels = input.shape[1] if len(input.shape) > 1 else 1
        if not input.shape or weight.shape[0] != channels:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{weight.shape[0]} and channel size = {channels} (prelu: input {describe(input.shape)})")
    elif len(weight.shape) > 1:
        raise RuntimeError("prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = "
                           f"{len(weight.shape)}")
    return apply_typed(PRELU, tuple(input.shape), input.dtype, input, weight, attributes=(axis,))


def threshold(input: TensorBase, threshold: Number, value: Number, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`."""
    _check("threshold", input, False)
    x = _source(input, inplace)
    result = cast(_where(binary(ops.LE, x, threshold), value, x), x.dtype)
    return _delivered(input, result, inplace, "threshold")


def hardtanh(input: TensorBase, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x between its bounds; no gradient on or beyond them."""
    _check("hardtanh", input, False)
    x = _source(input, inplace)
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    if x.dtype.is_floating_point:
        value = apply(HARDTANH, x, float(min_val), float(max_val))
    else:
        above = _where(binary(ops.GE, x, max_val), max_val, x)
        value = cast(_where(binary(ops.LE, x, min_val), min_val, above), x.dtype)
    return _delivered(input, value, inplace, "hardtanh")


def relu6(input: TensorBase, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0, 6, inplace)


def hardsigmoid(input: TensorBase, inplace: bool = False) -> Tensor:
    """relu6(x + 3) / 6."""
    _check("hardsigmoid", input)
    x = _source(input, inplace)
    return _delivered(input, relu6(binary(ops.ADD, x, 3)) / 6, inplace, "hardsigmoid")


def hardswish(input: TensorBase, inplace: bool = False) -> Tensor:
    """x · relu6(x + 3) / 6."""
    _check("hardswish", input)
    x = _source(input, inplace)
    return _delivered(input, x * relu6(binary(ops.ADD, x, 3)) / 6, inplace, "hardswish")


def softshrink(input: TensorBase, lambd: float = 0.5) -> Tensor:
    """x moved by lambd toward 0, and 0 where it would pass it."""
    _check("softshrink", input)
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    inner = _where(binary(ops.LT, input, -lambd), binary(ops.ADD, input, lambd), binary(ops.MUL, input, 0.0))
    return _where(binary(ops.GT, input, lambd), binary(ops.SUB, input, lambd), inner)


def hardshrink(input: TensorBase, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0."""
    _check("hardshrink", input)
    return _where(binary(ops.LE, unary(ops.ABS, input), lambd), 0.0, input)


def tanhshrink(input: TensorBase) -> Tensor:
    """x − tanh(x)."""
    return binary(ops.SUB, input, unary(ops.TANH, input))


# Exponential units ------------------------------------------------------------------------------------------
def _exponential_unit(x: TensorBase, inside: float, negative: float, positive: float) -> Tensor:
    """positive · x where x > 0, else negative · (exp(inside · x) − 1)."""
    return apply(EXPONENTIAL_UNIT, x, float(inside), float(negative), float(positive))


def elu(input: TensorBase, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha · (exp(x) − 1)."""
    _check("elu", input)
    x = _source(input, inplace)
    return _delivered(input, _exponential_unit(x, 1.0, alpha, 1), inplace, "elu")


def selu(input: TensorBase, inplace: bool = False) -> Tensor:
    """The scaled exponential linear unit (Klambauer et al., 2017)."""
    _check("selu", input)
    x = _source(input, inplace)
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return _delivered(input, _exponential_unit(x, 1.0, alpha * scale, scale), inplace, "selu")


def celu(input: TensorBase, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha · (exp(x / alpha) − 1)."""
    _check("celu", input)
    x = _source(input, inplace)
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _delivered(input, _exponential_unit(x, 1.0 / alpha, alpha, 1), inplace, "celu")


# Smooth units -----------------------------------------------------------------------------------------------
def sigmoid(input: TensorBase) -> Tensor:
    """1 / (1 + exp(−x))."""
    return unary(ops.SIGMOID, input)


def tanh(input: TensorBase) -> Tensor:
    """The hyperbolic tangent."""
    return unary(ops.TANH, input)


def logsigmoid(input: TensorBase) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    _check("log_sigmoid", input)
    tail = unary(ops.LOG1P, unary(ops.EXP, -unary(ops.ABS, input)))
    return binary(ops.MINIMUM, input, 0.0) - tail


def softplus(input: TensorBase, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta · x)) / beta; x itself where beta · x > threshold."""
    _check("softplus", input)
    return apply(SOFTPLUS, input, float(beta), float(threshold))


def softsign(input: TensorBase) -> Tensor:
    """x / (1 + |x|)."""
    return binary(ops.DIV, input, unary(ops.ABS, input) + 1)


def silu(input: TensorBase, inplace: bool = False) -> Tensor:
    """x · sigmoid(x)."""
    _check("silu", input)
    x = _source(input, inplace)
    return _delivered(input, apply(SILU, x), inplace, "silu")


def mish(input: TensorBase, inplace: bool = False) -> Tensor:
    """x · tanh(softplus(x)) (Misra, 2019)."""
    _check("mish", input)
    x = _source(input, inplace)
    return _delivered(input, binary(ops.MUL, x, unary(ops.TANH, softplus(x))), inplace, "mish")


def gelu(input: TensorBase, approximate: str = "none") -> Tensor:
    """x · Φ(x), Φ the normal distribution function; `approximate='tanh'` takes its approximation."""
    _check("gelu", input)
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return apply(GELU if approximate == "none" else GELU_TANH, input)


def glu(input: TensorBase, dim: int = -1) -> Tensor:
    """a · sigmoid(b), a and b the halves of the input along `dim`."""
    _check("glu", input)
    if not input.shape:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    axis = normalize_axis(dim, len(input.shape))
    size = input.shape[axis]
    if size % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {axis} is size {size} (glu of "
                           f"{describe(input.shape)})")
    half = size // 2
    first, second = input.sliced(axis, 0, half, 1), input.sliced(axis, half, size, 1)  # type: ignore[attr-defined]
    return first * unary(ops.SIGMOID, second)


# Softmax ----------------------------------------------------------------------------------------------------
def _along(op: Op, name: str, x: TensorBase, dim: int | None, dtype: DType | None) -> Any:
    _check(name, x, False)
    if dim is None:
        dim = 0 if len(x.shape) in (0, 1, 3) else 1
        warn_user(f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
                  "dim=X as an argument.")
    axis = normalize_axis(dim, len(x.shape))
    if dtype is not None:
        x = cast(x, dtype)
    _check(name, x)
    if not x.shape:
        return apply(op, x.reshape(1), attributes=(0,)).reshape(())  # type: ignore[attr-defined]
    return apply(op, x, attributes=(axis,))


def softmax(input: TensorBase, dim: int | None = None, _stacklevel: int = 3,
            dtype: DType | None = None) -> Tensor:
    """exp(x) / Σ exp(x) along `dim`, after a cast to `dtype` if one is given.

    Without `dim`, PyTorch's implicit choice and its warning: axis 0 of tensors with 0, 1 or 3 axes, else 1.
    `_stacklevel` is there for PyTorch's callers; the warning is at the user's line anyhow.
    """
    return _along(SOFTMAX, "softmax", input, dim, dtype)


def softmin(input: TensorBase, dim: int | None = None, _stacklevel: int = 3,
            dtype: DType | None = None) -> Tensor:
    """softmax(−x)."""
    _check("softmin", input, False)
    return _along(SOFTMAX, "softmin", unary(ops.NEG, input), dim, dtype)


def log_softmax(input: TensorBase, dim: int | None = None, _stacklevel: int = 3,
                dtype: DType | None = None) -> Tensor:
    """log(softmax(x)) along `dim`; see `softmax`."""
    return _along(LOG_SOFTMAX, "log_softmax", input, dim, dtype)
