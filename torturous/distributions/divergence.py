"""How far one distribution is from another."""

from __future__ import annotations

from typing import Any

from torturous.distributions.bernoulli import Bernoulli
from torturous.distributions.categorical import Categorical
from torturous.distributions.distribution import Distribution
from torturous.distributions.normal import Normal
from torturous.tensor import Tensor


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """Kullback and Leibler's divergence of q from p, for two of one kind: normal, categorical or Bernoulli.

    NotImplementedError for other pairs.
    """
    a: Any = p
    b: Any = q
    if isinstance(p, Normal) and isinstance(q, Normal):
        ratio = (a.scale / b.scale).pow(2)
        return ((ratio + ((a.loc - b.loc) / b.scale).pow(2)) - 1 - ratio.log()) * 0.5
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        terms = a.probs * (a.logits - b.logits)
        terms = terms.masked_fill((b.probs == 0).expand(terms.shape), float("inf"))
        return terms.masked_fill((a.probs == 0).expand(terms.shape), 0).sum(-1)
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        one = a.probs * (a.probs / b.probs).log()
        one = one.masked_fill(b.probs == 0, float("inf")).masked_fill(a.probs == 0, 0)
        none = (1 - a.probs) * ((1 - a.probs) / (1 - b.probs)).log()
        return one + none.masked_fill(b.probs == 1, float("inf")).masked_fill(a.probs == 1, 0)
    raise NotImplementedError(
        f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}")
