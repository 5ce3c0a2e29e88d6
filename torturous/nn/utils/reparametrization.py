"""A layer's weight as a function of other parameters, computed before every call: weight norm, spectral norm.

These are PyTorch's older functions, which keep the layer's class and save `weight_g`, `weight_v` and so on; what is
more general is in `torturous.nn.utils.parametrize`.
"""

from __future__ import annotations

from typing import Any

from torturous.nn import functional as F
from torturous.nn.modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from torturous.nn.modules.module import Module
from torturous.nn.parameter import Parameter
from torturous.tensor import Tensor, no_grad

_KEY = "_reparametrizations"


def _own(module: Module) -> dict[str, Any]:
    """What recomputes a module's tensors, by their names, with the hooks that call it."""
    return module.__dict__.setdefault(_KEY, {})


def _put(module: Module, name: str, kind: Any) -> None:
    if name in _own(module):
        raise RuntimeError(f"Cannot register two {type(kind).__name__} hooks on the same parameter {name}")
    kind.begin(module)
    _own(module)[name] = kind, module.register_forward_pre_hook(lambda layer, inputs: kind.renew(layer))


def _take(module: Module, name: str, kind: type) -> Any:
    known = _own(module).get(name)
    if known is None or not isinstance(known[0], kind):
        what = "weight_norm" if kind is WeightNorm else "spectral_norm"
        raise ValueError(f"{what} of '{name}' not found in {module}")
    known[1].remove()
    return _own(module).pop(name)[0]


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The norm over all axes but one, which stay as ones; over all of them without `dim` (or −1)."""
    if dim is None or dim == -1:
        return (v * v).sum().sqrt()
    axes = tuple(axis for axis in range(v.dim()) if axis != dim % v.dim())
    return (v * v).sum(axes, keepdim=True).sqrt() if axes else v.abs()


class WeightNorm:
    """weight = g · v / ‖v‖ (Salimans, Kingma 2016)."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = dim

    def value(self, module: Module) -> Tensor:
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except(v, self.dim))

    def begin(self, module: Module) -> None:
        weight = getattr(module, self.name)
        del module._parameters[self.name]
        module.register_parameter(f"{self.name}_g", Parameter(norm_except(weight.detach(), self.dim).clone()))
        module.register_parameter(f"{self.name}_v", Parameter(weight.detach()))
        self.renew(module)

    def renew(self, module: Module) -> None:
        setattr(module, self.name, self.value(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Give `module` the parameters `weight_g` (norms over all axes but `dim`) and `weight_v` in place of `weight`."""
    _put(module, name, WeightNorm(name, dim))
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight a parameter again."""
    kind = _take(module, name, WeightNorm)
    value = kind.value(module).detach()
    delattr(module, name)
    del module._parameters[f"{name}_g"], module._parameters[f"{name}_v"]
    module.register_parameter(name, Parameter(value))
    return module


class SpectralNorm:
    """weight = original / its largest singular value, followed by the power method (Miyato et al., 2018)."""

    def __init__(self, name: str, iterations: int, eps: float, dim: int) -> None:
        if iterations <= 0:
            raise ValueError("Expected n_power_iterations to be positive, but got "
                             f"n_power_iterations={iterations}")
        self.name = name
        self.iterations = iterations
        self.eps = eps
        self.dim = dim

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight with axis `dim` first and the others as one."""
        if self.dim:
            weight = weight.permute(self.dim, *(axis for axis in range(weight.dim()) if axis != self.dim))
        return weight.reshape(weight.size(0), -1)

    def value(self, module: Module, iterate: bool) -> Tensor:
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = self.matrix(weight)
        if iterate:
            with no_grad():
                for _ in range(self.iterations):
                    v.copy_(F.normalize(matrix.t() @ u, dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps))
            # Gradients need these values, and the next call writes over them.
            u, v = u.clone(), v.clone()
        return weight / (u * (matrix @ v)).sum()

    def begin(self, module: Module) -> None:
        weight = getattr(module, self.name)
        matrix = self.matrix(weight)
        with no_grad():
            u = F.normalize(weight.new_empty(matrix.size(0)).normal_(0, 1), dim=0, eps=self.eps)
            v = F.normalize(weight.new_empty(matrix.size(1)).normal_(0, 1), dim=0, eps=self.eps)
        del module._parameters[self.name]
        module.register_parameter(f"{self.name}_orig", weight)
        setattr(module, self.name, weight.detach())
        module.register_buffer(f"{self.name}_u", u)
        module.register_buffer(f"{self.name}_v", v)

    def renew(self, module: Module) -> None:
        setattr(module, self.name, self.value(module, module.training))


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """Divide the module's weight by its largest singular value, which each training call comes closer to.

    `dim` is the axis of outputs: 1 for transposed convolutions, else 0, unless given.
    """
    if dim is None:
        dim = 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0
    _put(module, name, SpectralNorm(name, n_power_iterations, eps, dim))
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight, as it is now, a parameter again."""
    kind = _take(module, name, SpectralNorm)
    with no_grad():
        value = kind.value(module, False)
    delattr(module, name)
    del module._parameters[f"{name}_orig"], module._buffers[f"{name}_u"], module._buffers[f"{name}_v"]
    module.register_parameter(name, Parameter(value.detach()))
    return module


__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]
