"""All parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from torturous.tensor import Tensor, cat


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other, as one 1-d tensor."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give the parameters, in order, the elements of the 1-d tensor `vec`.

    As in PyTorch the parameters become views of `vec`. Raises `TypeError` if `vec` is not a tensor and
    `ValueError` if it has too few elements.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    parameters = list(parameters)
    needed = sum(parameter.numel() for parameter in parameters)
    if vec.numel() < needed:
        raise ValueError(f"vec has {vec.numel()} elements, but the parameters have {needed}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view_as(parameter).data
        start = end
