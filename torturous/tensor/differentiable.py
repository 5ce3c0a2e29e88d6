"""What a tensor knows of gradients: whether it wants one, the one it has, its history and hooks."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torturous.core.hooks import RemovableHandle, add_hook
from torturous.ir.op import OPS, TYPES
from torturous.ir.record import Record
from torturous.tensor.autograd import run_backward
from torturous.tensor.base import TensorBase, node_of, on_tape
from torturous.tensor.tape import CustomNode, LeafHooks, NodeHooks

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

Hook = Callable[["Tensor"], "Tensor | None"]


class GradFn:
    """The operation that a tensor's gradient passes first, and the way on from there."""

    def __init__(self, record: Record, index: int) -> None:
        self._record = record
        self._index = index

    def name(self) -> str:
        """`MulBackward0`, or `torturous::autograd::AccumulateGrad` for a leaf."""
        source = self._record.sources.get(self._index)
        if isinstance(source, TensorBase):
            return "torturous::autograd::AccumulateGrad"
        if isinstance(source, CustomNode):
            return f"{source.name}Backward"
        row = self._record.rows[self._index]
        name = row[1][0] if OPS[row[0]].name == "spent" else OPS[row[0]].name
        return "".join(part.capitalize() for part in name.split("_")) + "Backward0"

    @property
    def variable(self) -> Tensor:
        """The leaf that gradients accumulate in; AttributeError where this is no leaf."""
        source = self._record.sources.get(self._index)
        if not isinstance(source, TensorBase):
            raise AttributeError(f"'{self.name()}' object has no attribute 'variable'")
        return source  # type: ignore[return-value]

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """Where the gradients of the operands go, as pairs of a function and 0; None where none flows."""
        record = self._record
        if isinstance(record.sources.get(self._index), TensorBase):
            return ()
        row = record.rows[self._index]
        operands = row[4:] if isinstance(record.sources.get(self._index), CustomNode) else row[3:]
        return tuple(
            (_grad_fn(record, operand) if record.tracked[operand] else None, 0)
            for operand in operands if operand >= 0
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and (other._record, other._index) == (self._record, self._index)

    def __hash__(self) -> int:
        return hash((id(self._record), self._index))

    def __repr__(self) -> str:
        return f"<{self.name()} object at {hash(self):#x}>"


def _grad_fn(record: Record, index: int) -> GradFn:
    return GradFn(*on_tape(record, index))


class Differentiable(TensorBase):
    """Methods and properties that have to do with gradients."""

    __slots__ = ()

    # Wanting gradients
    # -----------------------------------------------------------------------------------------
    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow into or through this tensor."""
        return bool(self._requires_grad or self._tracked())

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Whether operations on this tensor are to be tracked; only floating-point leaves can be told.

        Raises RuntimeError for another dtype, and for a tensor that is the result of tracked operations.
        """
        requires_grad = bool(requires_grad)
        if requires_grad and not TYPES[self._type].dtype.is_floating_point:
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        if self._tracked():
            if not requires_grad:
                raise RuntimeError(
                    "you can only change requires_grad flags of leaf variables. If you want to use a "
                    "computed variable in a subgraph that doesn't require differentiation use var_no_grad = "
                    "var.detach().")
        elif self._requires_grad != requires_grad:
            self._requires_grad = requires_grad
            self._leave_row()
        return self  # type: ignore[return-value]

    @property
    def _version(self) -> int:
        """How often this memory has been written in place, through any view of it (PyTorch's name for it)."""
        return self.storage.version

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor is not the result of tracked operations."""
        return bool(self._requires_grad or not self._tracked())

    @property
    def grad_fn(self) -> GradFn | None:
        """The operation that this tensor is the tracked result of; None for a leaf."""
        return None if self.is_leaf else _grad_fn(*node_of(self))

    # Its gradient
    # ----------------------------------------------------------------------------------------------
    @property
    def grad(self) -> Tensor | None:
        """What `backward` has accumulated here; None before it has."""
        if self._grad is None and not self._requires_grad and not self._retains and self._tracked():
            warnings.warn(
                "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
                "attribute won't be populated during autograd.backward(). If you indeed want the .grad field "
                "to be populated for a "
                "non-leaf Tensor, use .retain_grad() on the non-leaf Tensor.", UserWarning, stacklevel=2)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, TensorBase):
                raise TypeError(
                    "assigned grad expected to be a Tensor or None but got grad of type "
                    f"{type(value).__name__}")
            if value is self:
                raise RuntimeError("can't assign Variable as its own grad")
            if value.dtype is not self.dtype:
                raise RuntimeError(
                    f"attempting to assign a gradient with dtype '{value.dtype}' to a tensor with dtype "
                    f"'{self.dtype}': convert it with .to(dtype)")
            if value.shape != self.shape:
                raise RuntimeError(
                    f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor of size "
                    f"'{list(self.shape)}'. Please ensure that the gradient and the tensor are the same size")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None,
                 create_graph: bool = False, inputs: Tensor | Sequence[Tensor] | None = None) -> None:
        """Adds the gradient of this tensor to the `.grad` of every leaf it was computed from, or of `inputs`
        only.

        `gradient` is the gradient of this tensor itself, of its shape; only a tensor of one element can do
        without. Saved values are freed unless `retain_graph` (by default: `create_graph`). Raises
        RuntimeError as PyTorch.
        """
        retain = create_graph if retain_graph is None else bool(retain_graph)
        run_backward([self], [gradient], retain, create_graph, checked_inputs(inputs))

    # Without history
    # ---------------------------------------------------------------------------------------------
    @property
    def data(self) -> Tensor:
        """The same memory without history; what is written to it goes unseen by autograd."""
        t = self.detach()
        t._unseen = True
        return t

    @data.setter
    def data(self, value: TensorBase) -> None:
        """Has this tensor look at another one's memory, whatever its shape; gradients and hooks stay."""
        if not isinstance(value, TensorBase):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        if self._requires_grad and not value.dtype.is_floating_point:
            raise RuntimeError(
                "data set to a tensor that requires gradients must be floating point or complex dtype")
        for name in ("storage", "base", "steps", "_type", "_strides", "_offset"):
            setattr(self, name, getattr(value, name))
        self._detached = True
        self._record, self._index, self._seen = None, -1, -1

    def detach_(self) -> Tensor:
        """Gives up this tensor's history. RuntimeError for a view, which shares its base's."""
        if self.base is not None and not self._detached:
            raise RuntimeError(
                "Can't detach views in-place. Use detach() instead. If you are using DistributedDataParallel "
                "(DDP) for training, and gradient_as_bucket_view is set as True, gradients are views of DDP "
                "buckets.")
        self._detached, self._requires_grad, self._retains = True, False, False
        self._leave_row()
        return self  # type: ignore[return-value]

    # Hooks
    # -------------------------------------------------------------------------------------------------------
    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Has `hook(gradient)` called when this tensor's gradient is known; what it returns replaces the
        gradient.

        Hooks are called in the order in which they were registered. Raises RuntimeError for a tensor that
        needs no gradient.
        """
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        return add_hook(self._hook_table(), hook)

    def _hook_table(self) -> Any:
        if self._requires_grad:
            return self._leaf_hooks().table
        return _node_hooks(self).table

    def _leaf_hooks(self) -> LeafHooks:
        if self._hooks is None:
            self._hooks = LeafHooks()
        return self._hooks

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Has `hook(tensor)` called when a backward pass has added to this leaf's `.grad`."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if not self._requires_grad:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        return add_hook(self._leaf_hooks().after, hook)

    def retain_grad(self) -> None:
        """Has backward passes keep the gradient of this tensor in `.grad`, though it is no leaf."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self._requires_grad or self._retains:
            return
        self._retains = True
        _node_hooks(self).retains.append(weakref.ref(self))

    @property
    def retains_grad(self) -> bool:
        """Whether this tensor is no leaf and yet keeps its gradient."""
        return self._retains


def _node_hooks(t: TensorBase) -> NodeHooks:
    record, index = node_of(t)
    return record.hooks.setdefault(index, NodeHooks())


def checked_inputs(inputs: Any) -> list[Any] | None:
    """`inputs` of `backward` as a list."""
    if inputs is None:
        return None
    listed = [inputs] if isinstance(inputs, TensorBase) else list(inputs)
    if not listed:
        raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    for number, t in enumerate(listed):
        if not (t._requires_grad or t._tracked()):
            raise RuntimeError(f"One of the differentiated Tensors does not require grad (inputs[{number}])")
    return listed
