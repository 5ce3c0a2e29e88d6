"""Floor 6: what the user holds.

Each module lists the names that it offers; here they are put together.
"""

from __future__ import annotations

from torturous.tensor import (
    arithmetic,
    comparison,
    composed,
    creation,
    functions,
    lowering,
    matrices,
    modes,
    multi_tensor,
    names,
    ordering,
    printing,
    products,
    reductions,
    running,
    summation,
    types,
)
from torturous.tensor.activations import celu, hardshrink, log_softmax, prelu, selu, softmax, threshold
from torturous.tensor.arithmetic import *  # noqa: F403
from torturous.tensor.comparison import *  # noqa: F403
from torturous.tensor.composed import *  # noqa: F403
from torturous.tensor.creation import *  # noqa: F403
from torturous.tensor.decompositions import cholesky_method as cholesky
from torturous.tensor.decompositions import det_method as det
from torturous.tensor.decompositions import logdet_method as logdet
from torturous.tensor.decompositions import matrix_power_method as matrix_power
from torturous.tensor.decompositions import pinverse
from torturous.tensor.decompositions import qr_method as qr
from torturous.tensor.decompositions import slogdet_method as slogdet
from torturous.tensor.decompositions import svd_method as svd
from torturous.tensor.functions import *  # noqa: F403
from torturous.tensor.gathering import (
    argwhere,
    gather,
    index_add,
    index_copy,
    index_fill,
    index_put,
    index_select,
    masked_scatter,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    take,
    take_along_dim,
)
from torturous.tensor.generator import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from torturous.tensor.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from torturous.tensor.joining import (
    cat,
    column_stack,
    concat,
    concatenate,
    dstack,
    hstack,
    meshgrid,
    row_stack,
    stack,
    vstack,
)
from torturous.tensor.lowering import *  # noqa: F403
from torturous.tensor.matrices import *  # noqa: F403
from torturous.tensor.modes import *  # noqa: F403
from torturous.tensor.movement import (
    broadcast_shapes,
    broadcast_tensors,
    broadcast_to,
    clone,
    diagonal,
    flatten,
    moveaxis,
    movedim,
    narrow,
    permute,
    ravel,
    reshape,
    select,
    squeeze,
    swapaxes,
    swapdims,
    t,
    transpose,
    unflatten,
    unsqueeze,
)
from torturous.tensor.multi_tensor import realize_step
from torturous.tensor.names import *  # noqa: F403
from torturous.tensor.ordering import *  # noqa: F403
from torturous.tensor.printing import *  # noqa: F403
from torturous.tensor.products import *  # noqa: F403
from torturous.tensor.random import (
    bernoulli,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from torturous.tensor.rearranging import (
    diag,
    diagonal_scatter,
    flip,
    fliplr,
    flipud,
    repeat_interleave,
    roll,
    rot90,
    select_scatter,
    slice_scatter,
    tile,
)
from torturous.tensor.reductions import *  # noqa: F403
from torturous.tensor.running import *  # noqa: F403
from torturous.tensor.splitting import (
    chunk,
    dsplit,
    hsplit,
    split,
    split_with_sizes,
    tensor_split,
    unbind,
    vsplit,
)
from torturous.tensor.tensor import Tensor
from torturous.tensor.types import *  # noqa: F403

tensor = creation.tensor  # Not the module of this name.
einsum, tensordot = summation.einsum, summation.tensordot

__all__ = [
    *arithmetic.__all__,
    *comparison.__all__,
    *composed.__all__,
    *creation.__all__,
    *functions.__all__,
    *lowering.__all__,
    *matrices.__all__,
    *modes.__all__,
    *names.__all__,
    *ordering.__all__,
    *printing.__all__,
    *products.__all__,
    *reductions.__all__,
    *running.__all__,
    *types.__all__,
    "Generator", "Tensor", "argwhere", "bernoulli", "broadcast_shapes", "broadcast_tensors", "broadcast_to", "cat",
    "celu", "cholesky", "chunk", "clone", "column_stack", "concat", "concatenate", "default_generator", "det", "diag",
    "diagonal", "diagonal_scatter", "dsplit", "dstack", "einsum", "enable_grad", "flatten", "flip", "fliplr",
    "flipud", "fork_rng", "gather", "get_rng_state", "hardshrink", "hsplit", "hstack", "index_add", "index_copy",
    "index_fill", "index_put", "index_select", "inference_mode", "initial_seed", "is_grad_enabled", "log_softmax",
    "logdet", "manual_seed", "masked_scatter", "masked_select", "matrix_power", "meshgrid", "moveaxis", "movedim",
    "multi_tensor", "multinomial", "narrow", "no_grad", "nonzero", "normal", "permute", "pinverse", "prelu", "qr",
    "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "ravel", "realize_step",
    "repeat_interleave", "reshape", "roll", "rot90", "row_stack", "scatter", "scatter_add", "seed", "select",
    "select_scatter", "selu", "set_grad_enabled", "set_rng_state", "slice_scatter", "slogdet", "softmax", "split",
    "split_with_sizes", "squeeze", "stack", "svd", "swapaxes", "swapdims", "t", "take", "take_along_dim",
    "tensor_split", "tensordot", "threshold", "tile", "transpose", "unbind", "unflatten", "unsqueeze", "vsplit",
    "vstack",
]
