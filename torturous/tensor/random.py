"""Random tensors: the numbers that PyTorch's CPU generator gives for the same seed, bit for bit.

Uniform and normal numbers, integers of less than 28 bits and Bernoulli trials are recorded like any other operation;
the other distributions compute the generator's state and draw on the host (`core.distributions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import discrete_distributions, distributions, dtypes
from torturous.core.box_muller import GROUP
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import Shape, broadcast, is_contiguous
from torturous.ir.movement import PERMUTE
from torturous.ir.noise import BERNOULLI, INTEGERS, NORMAL, UNIFORM
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.generator import Generator, chosen
from torturous.tensor.recording import begin_write, write_value
from torturous.tensor.values import computed_values, of_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torturous.tensor.tensor import Tensor

MOST_RECORDED = 1 << 28
"""Ranges of integers below this take one word each, and are recorded."""


# Values -----------------------------------------------------------------------------------------------------
def _host(generator: Generator | None, draw: Callable[..., NDArray[Any]], *arguments: Any) -> Tensor:
    with chosen(generator).host() as twister:
        values = draw(twister, *arguments)
    return of_array(values, dtypes.from_numpy(values.dtype))


def _checked(generator: Generator | None, draw: Callable[..., NDArray[Any]], *arguments: Any) -> None:
    """Raises what a draw with these arguments would raise, by drawing nothing."""
    draw(chosen(generator)._twister, (0,), *arguments)


def _uniform(shape: Shape, dtype: DType, low: float, high: float, generator: Generator | None) -> Tensor:
    _checked(generator, distributions.uniform, dtype, low, high)
    words = prod(shape) * (2 if dtype is dtypes.float64 else 1)
    raw = chosen(generator).raw(words)
    if (low, high) == (0, 1) and not dtype.is_half:
        return apply_typed(UNIFORM, shape, dtype, raw)
    if dtype is dtypes.float64:
        return apply_typed(UNIFORM, shape, dtype, raw, float(high) - float(low), float(low), float(high))
    first, last = np.float32(low), np.float32(high)
    bounds = [float(bound) for bound in np.array([first, last]).astype(dtype.numpy)]
    # What comes out as `high` when rounded becomes `low`; the fused step itself is in float32.
    return apply_typed(UNIFORM, shape, dtype, raw, float(last - first), float(first), bounds[1])


def _normal(shape: Shape, dtype: DType, mean: float, std: float, generator: Generator | None,
            contiguous: bool = True) -> Tensor:
    """In groups of sixteen where PyTorch makes them so and needs nothing of the C library; else on the host."""
    count = prod(shape)
    if count < GROUP or not contiguous or not dtype.is_floating_point or dtype is dtypes.float64:
        return _host(generator, distributions.normal, shape, dtype, float(mean), float(std), contiguous)
    _checked(generator, distributions.normal, dtype, float(mean), float(std))
    raw = chosen(generator).raw(distributions.normal_group_words(count, dtype))
    return apply_typed(NORMAL, shape, dtype, raw, float(mean), float(std))


def _bernoulli(shape: Shape, dtype: DType, p: float, generator: Generator | None) -> Tensor:
    _checked(generator, distributions.bernoulli, dtype, p)
    return apply_typed(BERNOULLI, shape, dtype, chosen(generator).raw(2 * prod(shape)), float(p))


def _integers(shape: Shape, dtype: DType, low: int | None, high: int | None,
              generator: Generator | None) -> Tensor:
    small = low is not None and high is not None and high - low < MOST_RECORDED
    if not small or dtype.is_floating_point or dtype is dtypes.bool_:
        return _host(generator, discrete_distributions.integers, shape, dtype, low, high)
    _checked(generator, discrete_distributions.integers, dtype, low, high)
    assert low is not None and high is not None
    return apply_typed(INTEGERS, shape, dtype, chosen(generator).raw(prod(shape)), high - low, low)


# In place ---------------------------------------------------------------------------------------------------
def _filled(t: TensorBase, name: str, make: Callable[[Shape], Tensor]) -> Tensor:
    """Fills t with what `make` draws for a shape: in the order of memory, whatever the strides."""
    begin_write(t)
    if 0 in t.shape:
        return t  # type: ignore[return-value]
    rank = len(t.shape)
    order = sorted(range(rank), key=lambda axis: -t.strides[axis])
    value = make(tuple(t.shape[axis] for axis in order))
    if order != list(range(rank)):
        value = apply(PERMUTE, value, attributes=tuple(sorted(range(rank), key=order.__getitem__)))
    write_value(t, value.row(), name, replaces=True)
    return t  # type: ignore[return-value]


class Random(TensorBase):
    """Methods that fill a tensor with random numbers. All take `generator=`; None is the default one."""

    __slots__ = ()

    def uniform_(self, from_: float = 0, to: float = 1, *, generator: Generator | None = None) -> Tensor:
        """Uniform in [from, to)."""
        return _filled(self, "uniform", lambda shape: _uniform(shape, self.dtype, from_, to, generator))

    def normal_(self, mean: float = 0, std: float = 1, *, generator: Generator | None = None) -> Tensor:
        """Normal. RuntimeError for a negative std."""
        contiguous = is_contiguous(tuple(self.shape), self.strides)
        return _filled(self, "normal", lambda shape: _normal(shape, self.dtype, mean, std, generator, contiguous))

    def random_(self, from_: int | None = None, to: int | None = None, *,
                generator: Generator | None = None) -> Tensor:
        """Integers in [low, high) by `random_(low, high)`, in [0, high) by `random_(high)`, else any."""
        if from_ is not None and to is None:
            from_, to = 0, from_
        return _filled(self, "random", lambda shape: _integers(shape, self.dtype, from_, to, generator))

    def bernoulli_(self, p: float | TensorBase = 0.5, *, generator: Generator | None = None) -> Tensor:
        """1 with probability p, a number or a tensor that broadcasts to this one, else 0."""
        if not isinstance(p, TensorBase):
            return _filled(self, "bernoulli", lambda shape: _bernoulli(shape, self.dtype, p, generator))
        if not p.dtype.is_floating_point:
            raise RuntimeError(f"bernoulli_: probabilities must be floating, got {p.dtype.name}")
        if not is_contiguous(tuple(self.shape), self.strides):
            raise UnsupportedError("bernoulli_ with a tensor of probabilities needs a contiguous tensor: "
                                   "fill one and copy_ it")
        values = computed_values(p)
        return _filled(self, "bernoulli", lambda shape: _host(
            generator, distributions.bernoulli, shape, self.dtype, values))

    def exponential_(self, lambd: float = 1, *, generator: Generator | None = None) -> Tensor:
        """Exponential with rate lambd. RuntimeError unless lambd > 0."""
        return self._drawn("exponential", distributions.exponential, generator, float(lambd))

    def geometric_(self, p: float, *, generator: Generator | None = None) -> Tensor:
        """The number of trials up to the first success. RuntimeError for a p outside (0, 1)."""
        return self._drawn("geometric", distributions.geometric, generator, float(p))

    def log_normal_(self, mean: float = 1, std: float = 2, *, generator: Generator | None = None) -> Tensor:
        """exp of a normal number. RuntimeError unless std > 0."""
        return self._drawn("log_normal", distributions.log_normal, generator, float(mean), float(std))

    def cauchy_(self, median: float = 0, sigma: float = 1, *, generator: Generator | None = None) -> Tensor:
        """Cauchy. RuntimeError unless sigma > 0."""
        return self._drawn("cauchy", distributions.cauchy, generator, float(median), float(sigma))

    def bernoulli(self, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
        """`torch.bernoulli(self)`, or of a number `p` with this tensor's shape and dtype."""
        return bernoulli(self, p, generator=generator)

    def multinomial(self, num_samples: int, replacement: bool = False, *,
                    generator: Generator | None = None) -> Tensor:
        """`torch.multinomial(self, …)`."""
        return multinomial(self, num_samples, replacement, generator=generator)

    def _drawn(self, name: str, draw: Callable[..., NDArray[Any]], generator: Generator | None,
               *parameters: float) -> Tensor:
        _checked(generator, draw, self.dtype, *parameters)
        return _filled(self, name, lambda shape: _host(generator, draw, shape, self.dtype, *parameters))


# New tensors ------------------------------------------------------------------------------------------------
def _shape(name: str, size: Sequence[Any]) -> Shape:
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    shape = tuple(int(extent) for extent in size)
    for extent in shape:
        if extent < 0:
            raise RuntimeError(f"Trying to create tensor with negative dimension {extent}: {list(shape)} "
                               f"({name})")
    return shape


def _placed(t: Tensor, device: Any, requires_grad: bool) -> Tensor:
    if device is not None and str(device).partition(":")[0] != "cpu":
        raise UnsupportedError(f"only device 'cpu' is supported, got {device!r}")
    if requires_grad:
        t.requires_grad_(True)
    return t


def rand(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), of the given shape; the default floating dtype unless one is given."""
    value = _uniform(_shape("rand", size), dtype or dtypes.default_float(), 0, 1, generator)
    return _placed(value, device, requires_grad)


def randn(*size: Any, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
    """Standard normal, of the given shape."""
    dtype = dtype or dtypes.default_float()
    return _placed(_normal(_shape("randn", size), dtype, 0.0, 1.0, generator), device, requires_grad)


def randint(*bounds_and_size: Any, low: int | None = None, high: int | None = None, size: Any = None,
            generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """`randint(high, size)` or `randint(low, high, size)`: integers in [low, high), by default int64."""
    given = list(bounds_and_size)
    if size is None and given and isinstance(given[-1], (tuple, list)):
        size = given.pop()
    if high is None and given:
        high = given.pop()
    if low is None:
        low = given.pop() if given else 0
    if given or size is None or high is None:
        raise TypeError("randint() received an invalid combination of arguments: expected (high, size) or "
                        "(low, high, size)")
    shape = _shape("randint", (size,))
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    return _placed(_integers(shape, dtype or dtypes.int64, low, high, generator), device, requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The integers 0 … n − 1 in a random order, int64 unless a dtype is given."""
    order = _host(generator, discrete_distributions.permutation, n, dtype or dtypes.int64)
    return _placed(order, device, requires_grad)


def rand_like(input: TensorBase, *, generator: Generator | None = None, dtype: DType | None = None,
              device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform in [0, 1), with the input's shape and, unless one is given, dtype."""
    return rand(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, device=device,
                requires_grad=requires_grad)


def randn_like(input: TensorBase, *, generator: Generator | None = None, dtype: DType | None = None,
               device: Any = None, requires_grad: bool = False) -> Tensor:
    """Standard normal, with the input's shape and, unless one is given, dtype."""
    return randn(tuple(input.shape), generator=generator, dtype=dtype or input.dtype, device=device,
                 requires_grad=requires_grad)


def randint_like(input: TensorBase, *bounds: int, low: int = 0, high: int | None = None,
                 generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
                 requires_grad: bool = False) -> Tensor:
    """`randint_like(input, high)` or `randint_like(input, low, high)`."""
    if len(bounds) == 2:
        low, high = bounds
    elif len(bounds) == 1:
        low, high = (low, bounds[0]) if high is None else (bounds[0], high)
    return randint(low=low, high=high, size=tuple(input.shape), generator=generator,
                   dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def normal(mean: float | TensorBase, std: float | TensorBase = 1.0, size: Any = None, *,
           generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:
    """`normal(mean, std, size)` of numbers, or of tensors that broadcast to the result's shape."""
    if not isinstance(mean, TensorBase) and not isinstance(std, TensorBase):
        if size is None:
            raise TypeError("normal() needs a size where mean and std are numbers")
        dtype = dtype or dtypes.default_float()
        drawn = _normal(_shape("normal", (size,)), dtype, mean, std, generator)
        return _placed(drawn, device, requires_grad)
    tensors = [value for value in (mean, std) if isinstance(value, TensorBase)]
    if size is not None:
        raise TypeError("normal() takes no size where mean or std is a tensor")
    if isinstance(std, TensorBase):
        if not bool((computed_values(std) >= 0).all()):
            raise RuntimeError("normal expects all elements of std >= 0.0")
    elif not std >= 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    shape = broadcast([tuple(value.shape) for value in tensors])
    result = _normal(shape, tensors[0].dtype, 0.0, 1.0, generator) * std + mean
    return _placed(result, device, requires_grad)


def bernoulli(input: TensorBase, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probabilities in `input`, or with the probability `p`, else 0; like `input`."""
    if p is not None:
        return _bernoulli(tuple(input.shape), input.dtype, p, generator)
    if not input.dtype.is_floating_point:
        raise NotImplementedError(f"\"bernoulli_tensor_cpu_p_\" not implemented for {input.dtype.name}: it "
                                  "needs a floating dtype")
    values = np.ascontiguousarray(computed_values(input))
    return _host(generator, distributions.bernoulli, values.shape, input.dtype, values)


def multinomial(input: TensorBase, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:
    """Indices drawn with the weights in each row of `input` (C) or (N, C): int64 (…, num_samples)."""
    values = np.ascontiguousarray(computed_values(input))
    return _host(generator, discrete_distributions.multinomial, values, num_samples, replacement)
