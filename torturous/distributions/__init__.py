"""`torch.distributions`: probability distributions to draw from, with the logarithms of their densities.

Draws are PyTorch's for the same seed. Parameters are checked where their values are known; what is pending is not
computed for the sake of a check.
"""

from __future__ import annotations

from torturous.distributions.bernoulli import Bernoulli
from torturous.distributions.categorical import Categorical
from torturous.distributions.distribution import Distribution
from torturous.distributions.divergence import kl_divergence
from torturous.distributions.normal import Normal
from torturous.distributions.uniform import Uniform

__all__ = ["Bernoulli", "Categorical", "Distribution", "Normal", "Uniform", "kl_divergence"]
