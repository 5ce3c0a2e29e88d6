"""`torch.autograd.function`: operations whose gradient the user writes."""

from torturous.tensor.function import Function, FunctionContext, once_differentiable

FunctionCtx = FunctionContext

__all__ = ["Function", "FunctionCtx", "once_differentiable"]
