"""Dropout: the masks are the ones that PyTorch draws from the same seed."""

from __future__ import annotations

from math import prod, sqrt
from typing import TYPE_CHECKING

from torturous.core.distributions import feature_shape
from torturous.core.shapes import Shape, describe
from torturous.ir import elementwise as ops
from torturous.ir.noise import NOISE
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.generator import default_generator, words_drawn
from torturous.tensor.recording import binary, in_place
from torturous.tensor.shortcuts import shortcut
from torturous.tensor.warn import warn_user

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

_ALPHA = 1.7580993408473766
"""Minus the limit of SELU for large negative inputs: what alpha dropout puts in place of what goes."""

_OTHER_RANK = (
    "{name}: Received a {rank}-D input to {name}, which is deprecated and will result in an error in a "
    "future release. To retain the behavior and silence this warning, please use dropout instead. Note that "
    "{name} exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, a channel "
    "dimension, and an optional batch dimension (i.e. {ranks} inputs).")
_THREE_AXES = (
    "dropout2d: Received a 3-D input to dropout2d and assuming that channel-wise 1-D dropout behavior is "
    "desired - input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will "
    "change in a future release to interpret the input as one without a batch dimension, i.e. shape "
    "(C, H, W). To maintain the 1-D channel-wise dropout behavior, please switch to using dropout1d instead.")


def dropout(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zeroes elements with probability p and divides the rest by 1 − p; else gives the input.

    Draws two words per element from the default generator, none if p is 0 or 1 or the input is empty.
    ValueError for a p outside [0, 1].
    """
    return _dropped("dropout", input, p, training, inplace, input.shape)


def dropout1d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, L) or (C, L): two words per channel. RuntimeError for another rank."""
    if len(input.shape) not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {len(input.shape)}D input "
                           f"(shape {describe(input.shape)})")
    return _channels("dropout1d", input, p, training, inplace, len(input.shape) == 2)


def dropout2d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, H, W). Warns for another rank, as PyTorch; 3 axes are (N, C, L)."""
    if len(input.shape) not in (3, 4):
        warn_user(_OTHER_RANK.format(name="dropout2d", rank=len(input.shape), spatial=2, ranks="3D or 4D"))
    if len(input.shape) == 3:
        warn_user(_THREE_AXES)
    return _channels("dropout2d", input, p, training, inplace, False)


def dropout3d(input: TensorBase, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W); warns for another rank, as PyTorch does."""
    if len(input.shape) not in (4, 5):
        warn_user(_OTHER_RANK.format(name="dropout3d", rank=len(input.shape), spatial=3, ranks="4D or 5D"))
    return _channels("dropout3d", input, p, training, inplace, len(input.shape) == 4)


def alpha_dropout(input: TensorBase, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance of what SELU gives (Klambauer et al., 2017)."""
    return _alpha_dropped("alpha_dropout", input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: TensorBase, p: float = 0.5, training: bool = False,
                          inplace: bool = False) -> Tensor:
    """Alpha dropout of whole channels of (N, C, …)."""
    return _alpha_dropped("feature_alpha_dropout", input, p, training, inplace, feature_shape(input.shape))


def _check(name: str, input: TensorBase, p: float) -> None:
    if not isinstance(input, TensorBase):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _channels(name: str, input: TensorBase, p: float, training: bool, inplace: bool,
              unbatched: bool) -> Tensor:
    _check(name, input, p)
    if not unbatched:
        return _dropped(name, input, p, training, inplace, feature_shape(input.shape))
    # A channel's element of the mask is drawn alike with or without an axis of one sample in front.
    return _dropped(name, input, p, training, inplace, (input.shape[0],) + (1,) * (len(input.shape) - 1))


def _dropped(name: str, input: TensorBase, p: float, training: bool, inplace: bool, mask: Shape) -> Tensor:
    _check(name, input, p)
    if not training or p == 0 or 0 in input.shape:
        return input  # type: ignore[return-value]
    if p == 1:
        return in_place(ops.MUL, input, 0.0) if inplace else binary(ops.MUL, input, 0.0)
    if inplace:
        return in_place(ops.MUL, input, _noise(input, p, mask))
    return default_generator.drawn(_noise_times, input, 1.0 - p, tuple(mask), _order_drawn(input, mask))


def _noise(input: TensorBase, p: float, mask: Shape) -> Tensor:
    """Factors for a mask's shape, of a dtype like the input's."""
    return default_generator.drawn(_noise_drawn, input, 1.0 - p, tuple(mask), _order_drawn(input, mask))


def _order_drawn(input: TensorBase, mask: Shape) -> tuple[int, ...] | None:
    """The order of axes in which noise is drawn if it is not theirs: that of memory, where the mask is for every
    element, as in PyTorch."""
    return _memory_order(input) if input.steps and mask == input.shape else None


def _noise_drawn(state: TensorBase, input: TensorBase, kept: float, mask: Shape, order: tuple[int, ...] | None
                 ) -> tuple[Tensor, Tensor]:
    """The rows of noise, and of the state after it."""
    drawn = mask if order is None else tuple(mask[axis] for axis in order)
    words, advanced = words_drawn(state, 2 * prod(mask))
    noise = apply_typed(NOISE, drawn, input.dtype, words, kept)
    return noise if order is None else noise.permute(tuple(map(order.index, range(len(order))))), advanced


@shortcut(operands=2)
def _noise_times(state: TensorBase, input: TensorBase, kept: float, mask: Shape, order: tuple[int, ...] | None
                 ) -> tuple[Tensor, Tensor]:
    """The rows of an input times noise, and of the state after it."""
    noise, advanced = _noise_drawn(state, input, kept, mask, order)
    return binary(ops.MUL, input, noise), advanced


def _memory_order(t: TensorBase) -> tuple[int, ...] | None:
    """Axes from the one with the longest steps in memory to the one with the shortest; None where they lie in their
    order, or repeat."""
    axes = tuple(range(len(t.shape)))
    wide = [axis for axis in axes if t.shape[axis] > 1]
    if any(t.strides[axis] == 0 for axis in wide):
        return None
    ranked = iter(sorted(wide, key=lambda axis: -t.strides[axis]))
    order = tuple(next(ranked) if axis in wide else axis for axis in axes)
    return None if order == axes else order


def _alpha_dropped(name: str, input: TensorBase, p: float, training: bool, inplace: bool,
                   mask: Shape) -> Tensor:
    _check(name, input, p)
    if not training or p == 0 or 0 in input.shape:
        return input  # type: ignore[return-value]
    if p == 1:
        return in_place(ops.MUL, input, 0.0) if inplace else binary(ops.MUL, input, 0.0)
    kept = apply(ops.NE, _noise(input, p, mask), 0).to(input.dtype)
    scale = 1.0 / sqrt((_ALPHA * _ALPHA * p + 1.0) * (1.0 - p))
    shift = (kept - 1) * (_ALPHA * scale) + _ALPHA * scale * p
    factors = kept * scale
    if inplace:
        return in_place(ops.ADD, in_place(ops.MUL, input, factors), shift)
    return binary(ops.MUL, input, factors) + shift
