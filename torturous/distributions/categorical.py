"""The categorical distribution: one of so many classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torturous.core.shapes import broadcast
from torturous.distributions.distribution import Distribution, lazily, one_of
from torturous.tensor import Tensor, finfo, multinomial, no_grad


class Categorical(Distribution):
    """Classes along the last axis, with probabilities proportional to `probs`, or to e^`logits`."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        one_of("Categorical", probs, logits)
        given = logits if probs is None else probs
        if not given.shape:
            raise ValueError(f"`{'logits' if probs is None else 'probs'}` parameter must be at least one-dimensional.")
        super().__init__(tuple(given.shape[:-1]), (), validate_args)
        self._num_events = given.shape[-1]
        if probs is None:
            self._check("logits", given, lambda x: x == x, "IndependentConstraint(Real(), 1)")
            self.logits = given - given.logsumexp(-1, keepdim=True)
        else:
            self._check("probs", given, lambda x: x >= 0, "Simplex()")
            self.probs = given / given.sum(-1, keepdim=True)

    @lazily
    def probs(self) -> Any:
        return self.logits.softmax(-1)

    @lazily
    def logits(self) -> Any:
        eps = finfo(self.probs.dtype).eps
        return self.probs.clamp(eps, 1 - eps).log()

    @property
    def mean(self) -> Tensor:
        return self.probs.new_full(self.batch_shape, float("nan"))

    @property
    def variance(self) -> Tensor:
        return self.probs.new_full(self.batch_shape, float("nan"))

    @property
    def mode(self) -> Tensor:
        return self.probs.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Classes as int64."""
        rows = self.probs.detach().reshape(-1, self._num_events)
        with no_grad():
            drawn: Any = multinomial(rows, prod(sample_shape), True)
        return drawn.t().reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Any) -> Tensor:
        self._check_value(value, lambda x: (x >= 0) & (x < self._num_events), "IntegerInterval")
        shape = broadcast([tuple(value.shape), tuple(self.batch_shape)])
        chosen = value.long().expand(shape).unsqueeze(-1)
        return self.logits.expand(*shape, self._num_events).gather(-1, chosen).squeeze(-1)

    def entropy(self) -> Tensor:
        likely = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -(likely * self.probs).sum(-1)
