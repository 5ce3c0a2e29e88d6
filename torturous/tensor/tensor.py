"""`Tensor`: all families of operations put together."""

from __future__ import annotations

from torturous.ir.op import TYPES
from torturous.tensor.arithmetic import Arithmetic
from torturous.tensor.base import set_class
from torturous.tensor.comparison import Comparison
from torturous.tensor.composed import Composed
from torturous.tensor.conversion import Conversion
from torturous.tensor.creation import Creation, from_array, from_numpy
from torturous.tensor.decompositions import Decompositions
from torturous.tensor.differentiable import Differentiable
from torturous.tensor.functions import Functions
from torturous.tensor.gathering import Gathering
from torturous.tensor.matrices import Matrices
from torturous.tensor.network import Network
from torturous.tensor.ordering import Ordering
from torturous.tensor.products import Products
from torturous.tensor.random import Random
from torturous.tensor.rearranging import Rearranging
from torturous.tensor.reductions import Reductions
from torturous.tensor.running import Running
from torturous.tensor.turning import Turning


class Tensor(
    Arithmetic,
    Comparison,
    Functions,
    Reductions,
    Creation,
    Conversion,
    Differentiable,
    Gathering,
    Turning,
    Rearranging,
    Network,
    Products,
    Random,
    Running,
    Ordering,
    Composed,
    Matrices,
    Decompositions,
):
    """A multi-dimensional array with PyTorch's interface, computed when a value is needed."""

    __slots__ = ()


set_class(Tensor)


__all__ = ["TYPES", "Tensor", "from_array", "from_numpy"]
