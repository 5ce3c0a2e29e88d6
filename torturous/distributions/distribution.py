"""What every distribution has: shapes, checks, and what follows from a few methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from torturous.tensor import Tensor, as_tensor, broadcast_tensors, enable_grad, get_default_dtype, no_grad
from torturous.tensor.base import Size
from torturous.tensor.values import known_values


class Distribution:
    """Draws have the shape sample_shape + batch_shape + event_shape."""

    has_rsample = False
    """Whether draws are functions of the parameters that gradients flow through."""

    def __init__(self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (),
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        self._validate_args = validate_args is not False

    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw that gradients flow through to the parameters; NotImplementedError where there is none."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or probability, at a value."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        raise NotImplementedError

    def _extended_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        return (*sample_shape, *self._batch_shape, *self._event_shape)

    def _check(self, name: str, parameter: Any, holds: Callable[[np.ndarray], Any], wanted: str) -> None:
        """ValueError where a parameter's values are known and not what they must be."""
        values = known_values(parameter) if self._validate_args else None
        if values is not None and not np.all(holds(values)):
            raise ValueError(
                f"Expected parameter {name} ({type(parameter).__name__} of shape {tuple(parameter.shape)}) of "
                f"distribution {type(self).__name__} to satisfy the constraint {wanted}, but found invalid values")

    def _check_value(self, value: Any, holds: Callable[[np.ndarray], Any], wanted: str) -> None:
        values = known_values(value) if self._validate_args and isinstance(value, Tensor) else None
        if values is not None and not np.all(holds(values)):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the "
                f"support ({wanted}) of the distribution {type(self).__name__}, but found invalid values")


def parameters(*given: Any) -> tuple[Any, ...]:
    """Numbers and tensors as tensors of one shape."""
    like = next((value for value in given if isinstance(value, Tensor)), None)
    dtype = get_default_dtype() if like is None else like.dtype
    tensors = [value if isinstance(value, Tensor) else as_tensor(float(value), dtype=dtype) for value in given]
    return tuple(broadcast_tensors(*tensors))


def lazily(method: Callable[[Any], Any]) -> Any:
    """A property worked out once, when it is first asked for, with its history even where gradients are off."""

    def compute(self: Any) -> Any:
        with enable_grad():
            return method(self)

    return cached_property(compute)


def one_of(name: str, probs: Any, logits: Any) -> None:
    """ValueError unless exactly one of two parameters is given."""
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}: Either `probs` or `logits` must be specified, but not both.")
