"""The normal distribution."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi, sqrt
from typing import Any

from torturous.distributions.distribution import Distribution, parameters
from torturous.tensor import Tensor, no_grad, normal, ones, zeros


class Normal(Distribution):
    """With mean `loc` and standard deviation `scale`, which is positive."""

    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(loc, scale)
        super().__init__(tuple(self.loc.shape), (), validate_args)
        self._check("loc", self.loc, lambda x: x == x, "Real()")
        self._check("scale", self.scale, lambda x: x > 0, "GreaterThan(lower_bound=0.0)")

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw without gradients."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return normal(self.loc.expand(shape), self.scale.expand(shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """loc + scale · a standard normal draw."""
        shape = self._extended_shape(sample_shape)
        drawn: Any = normal(zeros(shape, dtype=self.loc.dtype), ones(shape, dtype=self.loc.dtype))
        return self.loc + drawn * self.scale

    def log_prob(self, value: Any) -> Tensor:
        self._check_value(value, lambda x: x == x, "Real()")
        return -((value - self.loc) ** 2) / (2 * self.variance) - self.scale.log() - log(sqrt(2 * pi))

    def cdf(self, value: Any) -> Tensor:
        """The probability of a draw of at most `value`."""
        return ((value - self.loc) * self.scale.reciprocal() / sqrt(2)).erf() * 0.5 + 0.5

    def entropy(self) -> Tensor:
        return self.scale.log() + (0.5 + 0.5 * log(2 * pi))
