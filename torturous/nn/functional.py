"""What layers are made of, as functions: PyTorch's `torch.nn.functional` under the same names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.shapes import describe, normalize_axis
from torturous.ir import elementwise as ops
from torturous.ir import reduction
from torturous.ir.creation import IOTA
from torturous.ir.indexing import TAKE
from torturous.tensor import linear as products
from torturous.tensor.activations import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.attention import multi_head_attention_forward, scaled_dot_product_attention
from torturous.tensor.creation import empty_like, zeros_like
from torturous.tensor.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from torturous.tensor.folding import (
    fold,
    lp_pool1d,
    lp_pool2d,
    lp_pool3d,
    max_unpool1d,
    max_unpool2d,
    max_unpool3d,
    unfold,
)
from torturous.tensor.joining import pad
from torturous.tensor.linear import linear
from torturous.tensor.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from torturous.tensor.margins import (
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    pairwise_distance,
    poisson_nll_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from torturous.tensor.normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from torturous.tensor.pooling import average_pool, max_pool
from torturous.tensor.positions import check_within
from torturous.tensor.resampling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    channel_shuffle,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    upsample,
)
from torturous.tensor.sampling import affine_grid, grid_sample
from torturous.tensor.tables import embedding_bag
from torturous.tensor.tensor import Tensor
from torturous.tensor.values import computed_values

Sizes = int | Sequence[int]


# Products ---------------------------------------------------------------------------------------------------
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1 · W[o] · x2 + bias for every output o: (…, I), (…, J) and weight (O, I, J) to (…, O)."""
    outputs, rows, columns = weight.shape
    if input1.shape[-1] != rows or input2.shape[-1] != columns or input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(f"bilinear: inputs {describe(input1.shape)} and {describe(input2.shape)} do not fit the "
                           f"weight {describe(weight.shape)}: their last axes must be its last two, the others alike")
    half = input1 @ weight.permute(1, 0, 2).reshape(rows, outputs * columns)
    product = half.reshape(*input1.shape[:-1], outputs, columns) * input2.unsqueeze(-2)
    result: Tensor = apply(reduction.SUM, product, attributes=((len(product.shape) - 1,), False))
    return result if bias is None else result + bias


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
           padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, L) with weight (O, C/groups, K); `padding` also 'valid' or 'same'."""
    return products.convolution(input, weight, bias, stride, padding, dilation, groups, 1)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
           padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, H, W) with weight (O, C/groups, …); `padding` also 'valid' or 'same'."""
    return products.convolution(input, weight, bias, stride, padding, dilation, groups, 2)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
           padding: Sizes | str = 0, dilation: Sizes = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of (N, C, D, H, W) with weight (O, C/groups, …); `padding` also 'valid' or 'same'."""
    return products.convolution(input, weight, bias, stride, padding, dilation, groups, 3)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
                     padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1,
                     dilation: Sizes = 1) -> Tensor:
    """The gradient of `conv1d` as an operation: (N, C, L) with weight (C, O/groups, K)."""
    return products.transposed_convolution(
        input, weight, bias, stride, padding, output_padding, groups, dilation, 1)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
                     padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1,
                     dilation: Sizes = 1) -> Tensor:
    """The gradient of `conv2d` as an operation: (N, C, H, W) with weight (C, O/groups, K, K')."""
    return products.transposed_convolution(
        input, weight, bias, stride, padding, output_padding, groups, dilation, 2)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sizes = 1,
                     padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1,
                     dilation: Sizes = 1) -> Tensor:
    """The gradient of `conv3d` as an operation: (N, C, D, H, W) with weight (C, O/groups, …)."""
    return products.transposed_convolution(
        input, weight, bias, stride, padding, output_padding, groups, dilation, 3)


# Pooling ----------------------------------------------------------------------------------------------------
def max_pool1d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, L); with `return_indices` also where it was."""
    return max_pool(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool2d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, H, W); see `max_pool1d`."""
    return max_pool(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


def max_pool3d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               dilation: Sizes = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of (N, C, D, H, W); see `max_pool1d`."""
    return max_pool(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


def avg_pool1d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of (N, C, L)."""
    return average_pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


def avg_pool2d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, H, W)."""
    return average_pool(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)


def avg_pool3d(input: Tensor, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window of (N, C, D, H, W)."""
    return average_pool(
        input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3)


# Tables -----------------------------------------------------------------------------------------------------
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Rows of a table: integers (…) and weight (V, D) to (…, D). The row `padding_idx` gets no gradient.

    IndexError for an index out of range, at once if the indices are known, else when the rows are computed.
    UnsupportedError for `max_norm`, `scale_grad_by_freq` and `sparse`.
    """
    for name, asked in (("max_norm", max_norm is not None), ("scale_grad_by_freq", scale_grad_by_freq),
                        ("sparse", sparse)):
        if asked:
            raise UnsupportedError(f"embedding: {name} is not supported")
    if input.dtype not in (dtypes.int64, dtypes.int32):
        raise RuntimeError(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; "
            f"but got {input.dtype.name} instead (while checking arguments for embedding)")
    if len(weight.shape) != 2:
        raise RuntimeError(f"'weight' must be 2-D (embedding), got shape {describe(weight.shape)}")
    count = weight.shape[0]
    # As PyTorch has it, for tables that no index fits.
    check_within(input, count, lambda least, greatest: (IndexError if count else RuntimeError)(
        f"index out of range in self (embedding: the table has {count} rows, the indices reach from {least} to "
        f"{greatest})"))
    rows = apply(TAKE, weight, input, attributes=(0,))
    if padding_idx is None:
        return rows
    if not -count <= padding_idx < count:
        raise AssertionError("Padding_idx must be within num_embeddings")
    learned = apply(ops.NE, input, padding_idx % count).unsqueeze(-1)
    return apply(ops.WHERE, learned, rows, rows.detach())


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Integers (…) to int64 (…, classes): 1 at the class, else 0; −1: one more than the largest class."""
    if tensor.dtype is not dtypes.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got "
                           f"{tensor.dtype.name}")
    values = computed_values(tensor)
    if not values.size and num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    if values.size and int(values.min()) < 0:
        raise RuntimeError("Class values must be non-negative.")
    if num_classes == -1:
        num_classes = int(values.max()) + 1
    elif num_classes < 1:
        raise RuntimeError("num_classes should be positive")
    elif values.size and int(values.max()) >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    classes = apply_typed(IOTA, (num_classes,), dtypes.int64, 0, 1)
    return apply(ops.EQ, tensor.unsqueeze(-1), classes).to(dtypes.int64)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau) (Jang et al., 2017); `hard` gives one-hot values with its gradient.

    `eps` has no effect, as in PyTorch.
    """
    noise = -empty_like(logits).exponential_().log()
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    largest = soft.max(dim, keepdim=True)[1]
    return zeros_like(logits).scatter_(dim, largest, 1.0) - soft.detach() + soft


# In place ---------------------------------------------------------------------------------------------------
relu_ = partial(relu, inplace=True)
leaky_relu_ = partial(leaky_relu, inplace=True)
elu_ = partial(elu, inplace=True)
selu_ = partial(selu, inplace=True)
celu_ = partial(celu, inplace=True)
hardtanh_ = partial(hardtanh, inplace=True)
threshold_ = partial(threshold, inplace=True)


# Norms and distances ----------------------------------------------------------------------------------------
def _norm(input: Tensor, p: float, axis: int) -> Tensor:
    """The p-norm along an axis, which stays as 1."""
    size = apply(ops.ABS, input)
    if p == float("inf"):
        return apply(reduction.AMAX, size, attributes=((axis,), True))
    if p == 1:
        return apply(reduction.SUM, size, attributes=((axis,), True))
    if p == 2:
        return apply(ops.SQRT, apply(reduction.SUM, input * input, attributes=((axis,), True)))
    return apply(reduction.SUM, size.pow(p), attributes=((axis,), True)).pow(1.0 / p)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """The input divided by its p-norm along `dim`, or by eps where that is larger."""
    norm = _norm(input, p, normalize_axis(dim, len(input.shape)))
    return input / apply(ops.WHERE, norm < eps, eps, norm)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x1 · x2 / (‖x1‖ ‖x2‖) along `dim`, each norm at least eps."""
    product = x1 * x2
    axis = normalize_axis(dim, len(product.shape))

    def total(x: Any) -> Any:
        return apply(reduction.SUM, x, attributes=((axis,), False))

    first, second = (apply(ops.MAXIMUM, apply(ops.SQRT, total(x * x)), eps) for x in (x1, x2))
    return total(product) / (first * second)


__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "affine_grid", "alpha_dropout", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "batch_norm", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu",
    "celu_", "channel_shuffle", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "cosine_embedding_loss", "cosine_similarity", "cross_entropy", "dropout", "dropout1d",
    "dropout2d", "dropout3d", "elu", "elu_", "embedding", "embedding_bag", "feature_alpha_dropout", "fold",
    "gaussian_nll_loss", "gelu", "glu", "grid_sample", "group_norm", "gumbel_softmax", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "hardtanh_", "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate",
    "kl_div", "l1_loss", "layer_norm", "leaky_relu", "leaky_relu_", "linear", "local_response_norm", "log_softmax",
    "logsigmoid", "lp_pool1d", "lp_pool2d", "lp_pool3d", "margin_ranking_loss", "max_pool1d", "max_pool2d",
    "max_pool3d", "max_unpool1d", "max_unpool2d", "max_unpool3d", "mish", "mse_loss",
    "multi_head_attention_forward", "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss",
    "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance", "pixel_shuffle", "pixel_unshuffle",
    "poisson_nll_loss", "prelu", "relu", "relu6", "relu_", "rms_norm", "scaled_dot_product_attention", "selu",
    "selu_", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softmin", "softplus",
    "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "threshold_", "triplet_margin_loss",
    "triplet_margin_with_distance_loss", "unfold", "upsample",
]
