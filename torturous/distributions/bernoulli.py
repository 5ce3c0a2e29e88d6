"""The Bernoulli distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torturous.distributions.distribution import Distribution, lazily, one_of, parameters
from torturous.tensor import Tensor, bernoulli, finfo, no_grad
from torturous.tensor.losses import binary_cross_entropy_with_logits


class Bernoulli(Distribution):
    """1 with probability `probs`, or sigmoid(`logits`); else 0."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        one_of("Bernoulli", probs, logits)
        (given,) = parameters(logits if probs is None else probs)
        super().__init__(tuple(given.shape), (), validate_args)
        if probs is None:
            self.logits = given
        else:
            self.probs = given
            self._check("probs", given, lambda x: (x >= 0) & (x <= 1), "Interval(lower_bound=0.0, upper_bound=1.0)")

    @lazily
    def probs(self) -> Any:
        return self.logits.sigmoid()

    @lazily
    def logits(self) -> Any:
        eps = finfo(self.probs.dtype).eps
        inside = self.probs.clamp(eps, 1 - eps)
        return inside.log() - (-inside).log1p()

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of zeros and ones."""
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Any) -> Tensor:
        self._check_value(value, lambda x: (x == 0) | (x == 1), "Boolean()")
        logits, value = parameters(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")
