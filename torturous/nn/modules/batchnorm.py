"""Normalization by statistics of a batch, and of single samples, with running statistics for evaluation.

Ioffe and Szegedy (2015); Ulyanov et al. (2016) for instances.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torturous.nn import functional as F
from torturous.nn import init
from torturous.nn.modules.module import Module
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, empty, int64, ones, tensor, zeros
from torturous.tensor.normalization import count_batch


class _NormBase(Module):
    """Parameters and running statistics, one number per channel: axis 1, or 0 where there is no batch axis."""

    ranks: ClassVar[tuple[int, ...]]
    """Numbers of axes that an input may have."""

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
                 device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            parameter = Parameter(empty(num_features, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, parameter)
        if track_running_stats:
            self.register_buffer("running_mean", zeros(num_features, device=device, dtype=dtype))
            self.register_buffer("running_var", ones(num_features, device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", tensor(0, dtype=int64, device=device))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget all batches: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, no batches seen."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in self.ranks:
            wanted = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"expected {wanted} input (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class _BatchNorm(_NormBase):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        running_mean, running_var, batches = self.running_mean, self.running_var, self.num_batches_tracked
        if self.training and self.track_running_stats and batches is not None:
            count_batch(batches)
            if self.momentum is None:  # The mean over all batches.
                momentum = 1.0 / batches.double()
        if self.training and not self.track_running_stats:
            running_mean = running_var = None
        return F.batch_norm(input, running_mean, running_var, self.weight, self.bias,
                            self.training or (running_mean is None and running_var is None), momentum, self.eps)


class BatchNorm1d(_BatchNorm):
    """Every channel of (N, C) or (N, C, L) with mean 0 and variance 1 over the batch, then `weight` and `bias`.

    In evaluation by running statistics, which take the share `momentum` of each batch's (None: the mean over all).
    """

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """The same for (N, C, H, W)."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """The same for (N, C, D, H, W)."""

    ranks = (5,)


class _InstanceNorm(_NormBase):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def _check_channels(self, channels: int, axis: int) -> None:
        if channels == self.num_features:
            return
        message = (f"expected input's size at dim={axis} to match num_features ({self.num_features}), but got: "
                   f"{channels}.")
        if self.affine:
            raise ValueError(message)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        batched = input.dim() == self.ranks[-1]
        self._check_channels(input.shape[1 if batched else 0], 1 if batched else 0)
        result = F.instance_norm(input if batched else input.unsqueeze(0), self.running_mean, self.running_var,
                                 self.weight, self.bias, self.training or not self.track_running_stats,
                                 0.0 if self.momentum is None else self.momentum, self.eps)
        return result if batched else result.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Every channel of every sample of (N, C, L) or (C, L) with mean 0 and variance 1."""

    ranks = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """The same for (N, C, H, W) or (C, H, W)."""

    ranks = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """The same for (N, C, D, H, W) or (C, D, H, W)."""

    ranks = (4, 5)
