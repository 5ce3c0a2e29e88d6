"""Functions of one tensor, element by element. Integers and bool give the default floating type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturous.ir import elementwise as ops
from torturous.tensor.applying import apply
from torturous.tensor.base import TensorBase
from torturous.tensor.movement import as_function
from torturous.tensor.recording import binary, modifying, tensor_operand, unary

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


class Functions(TensorBase):
    """Methods that are functions of each element."""

    __slots__ = ()

    # Exponentials and logarithms ----------------------------------------------------------------------------
    def exp(self) -> Tensor:
        return unary(ops.EXP, self)

    def expm1(self) -> Tensor:
        """e^self − 1, exact near 0."""
        return unary(ops.EXPM1, self)

    def exp2(self) -> Tensor:
        """2^self."""
        return apply(ops.POW, 2.0, self)

    def log(self) -> Tensor:
        return unary(ops.LOG, self)

    def log1p(self) -> Tensor:
        """log(1 + self), exact near 0."""
        return unary(ops.LOG1P, self)

    def log2(self) -> Tensor:
        return unary(ops.LOG2, self)

    def log10(self) -> Tensor:
        return unary(ops.LOG10, self)

    # Roots --------------------------------------------------------------------------------------------------
    def sqrt(self) -> Tensor:
        return unary(ops.SQRT, self)

    def rsqrt(self) -> Tensor:
        """1 / √self."""
        return unary(ops.RSQRT, self)

    # Angles and hyperbolas ----------------------------------------------------------------------------------
    def sin(self) -> Tensor:
        return unary(ops.SIN, self)

    def cos(self) -> Tensor:
        return unary(ops.COS, self)

    def tan(self) -> Tensor:
        return unary(ops.TAN, self)

    def asin(self) -> Tensor:
        """The arcsine; NaN outside −1 … 1."""
        return unary(ops.ASIN, self)

    def acos(self) -> Tensor:
        """The arccosine; NaN outside −1 … 1."""
        return unary(ops.ACOS, self)

    def atan(self) -> Tensor:
        """The arctangent."""
        return unary(ops.ATAN, self)

    def atan2(self, other: TensorBase) -> Tensor:
        """The angle of the point (other, self), between −π and π."""
        return binary(ops.ATAN2, self, tensor_operand("atan2", "other", 2, other))

    def sinh(self) -> Tensor:
        return unary(ops.SINH, self)

    def cosh(self) -> Tensor:
        return unary(ops.COSH, self)

    def tanh(self) -> Tensor:
        return unary(ops.TANH, self)

    def asinh(self) -> Tensor:
        """The inverse hyperbolic sine."""
        return unary(ops.ASINH, self)

    def acosh(self) -> Tensor:
        """The inverse hyperbolic cosine; NaN below 1."""
        return unary(ops.ACOSH, self)

    def atanh(self) -> Tensor:
        """The inverse hyperbolic tangent; NaN outside −1 … 1."""
        return unary(ops.ATANH, self)

    # Of statistics and of neural networks -------------------------------------------------------------------
    def sigmoid(self) -> Tensor:
        """1 / (1 + e^−self)."""
        return unary(ops.SIGMOID, self)

    def erf(self) -> Tensor:
        """The error function."""
        return unary(ops.ERF, self)

    def relu(self) -> Tensor:
        """self where it is positive, else 0; integers stay integers."""
        return unary(ops.RELU, self)

    exp_, expm1_, exp2_ = modifying(exp), modifying(expm1), modifying(exp2)
    log_, log1p_, log2_, log10_ = modifying(log), modifying(log1p), modifying(log2), modifying(log10)
    sqrt_, rsqrt_ = modifying(sqrt), modifying(rsqrt)
    sin_, cos_, tan_ = modifying(sin), modifying(cos), modifying(tan)
    asin_, acos_, atan_, atan2_ = modifying(asin), modifying(acos), modifying(atan), modifying(atan2)
    asinh_, acosh_, atanh_ = modifying(asinh), modifying(acosh), modifying(atanh)
    arcsin, arccos, arctan, arctan2, arcsinh, arccosh, arctanh = asin, acos, atan, atan2, asinh, acosh, atanh
    arcsin_, arccos_, arctan_, arctan2_ = asin_, acos_, atan_, atan2_
    arcsinh_, arccosh_, arctanh_ = asinh_, acosh_, atanh_
    sinh_, cosh_, tanh_ = modifying(sinh), modifying(cosh), modifying(tanh)
    sigmoid_, erf_, relu_ = modifying(sigmoid), modifying(erf), modifying(relu)


acos = arccos = as_function(Functions.acos)
acosh = arccosh = as_function(Functions.acosh)
asin = arcsin = as_function(Functions.asin)
asinh = arcsinh = as_function(Functions.asinh)
atan = arctan = as_function(Functions.atan)
atan2 = arctan2 = as_function(Functions.atan2)
atanh = arctanh = as_function(Functions.atanh)
cos = as_function(Functions.cos)
cosh = as_function(Functions.cosh)
erf = as_function(Functions.erf)
exp = as_function(Functions.exp)
exp2 = as_function(Functions.exp2)
expm1 = as_function(Functions.expm1)
log = as_function(Functions.log)
log10 = as_function(Functions.log10)
log1p = as_function(Functions.log1p)
log2 = as_function(Functions.log2)
relu = as_function(Functions.relu)
rsqrt = as_function(Functions.rsqrt)
sigmoid = as_function(Functions.sigmoid)
sin = as_function(Functions.sin)
sinh = as_function(Functions.sinh)
sqrt = as_function(Functions.sqrt)
tan = as_function(Functions.tan)
tanh = as_function(Functions.tanh)
# In place as functions too, which PyTorch has for these only.
relu_ = as_function(Functions.relu_)
sigmoid_ = as_function(Functions.sigmoid_)
tanh_ = as_function(Functions.tanh_)

__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan",
    "atan2", "atanh",
    "cos", "cosh", "erf", "exp", "exp2", "expm1", "log", "log10", "log1p", "log2", "relu", "relu_", "rsqrt",
    "sigmoid", "sigmoid_", "sin", "sinh", "sqrt", "tan", "tanh", "tanh_",
]
