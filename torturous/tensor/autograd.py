"""What `tensor.backward`, `autograd.backward` and `autograd.grad` have in common: a backward pass from some tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torturous.ir.record import context
from torturous.ir.value import Value
from torturous.runtime.realize import realize
from torturous.tensor.backward import Backward, Node
from torturous.tensor.base import TensorBase, node_of
from torturous.tensor.tape import add_to_grad, own, present

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


def _seeds(tensors: Sequence[TensorBase], gradients: Sequence[TensorBase | None], create_graph: bool
           ) -> list[tuple[Node, int]]:
    """The nodes to start from, with the adjoints to start with."""
    for number, (t, gradient) in enumerate(zip(tensors, gradients, strict=True)):
        if not (t._requires_grad or t._tracked()):
            raise RuntimeError(
                f"element {number} of tensors does not require grad and does not have a grad_fn")
        if gradient is None:
            if t.shape.numel() != 1:  # type: ignore[attr-defined]
                raise RuntimeError(
                    "grad can be implicitly created only for scalar outputs, but the output has the shape "
                    f"{list(t.shape)}: give its gradient, or reduce it first, as in output.sum().backward()")
        elif not isinstance(gradient, TensorBase):
            raise TypeError(f"gradients can be either Tensors or None, but got {type(gradient).__name__}")
        elif gradient.shape != t.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{number}] has a shape of {gradient.shape} and "
                f"output[{number}] has a shape of {t.shape}.")
    while True:
        pending = context.record
        seeds = []
        for t, gradient in zip(tensors, gradients, strict=True):
            node = node_of(t)
            place = present(node[0]).place_of(node[1])
            if gradient is None:
                start = Value(pending, -1, place, create_graph).full(tuple(t.shape), t.dtype, 1)
            else:
                start = Value(pending, gradient.row(), place, create_graph).to(t.dtype)
            seeds.append((node, start.index))
        if context.record is pending:
            return seeds
        # Entering a tensor has realized what others were entered into: then all are entered afresh.


def run_backward(tensors: Sequence[TensorBase], gradients: Sequence[TensorBase | None], retain_graph: bool,
                 create_graph: bool, inputs: Sequence[TensorBase] | None = None) -> None:
    """Adds the gradients of some tensors to the `.grad` of all leaves, or of `inputs` only."""
    tracking, context.tracking = context.tracking, create_graph
    try:
        seeds = _seeds(tensors, gradients, create_graph)
        run = Backward(create_graph, retain_graph, inputs)
        run.run(seeds)
        for position, row in run.captured.items():
            assert inputs is not None
            if not inputs[position]._retains:
                run.accumulated = add_to_grad(inputs[position], row, create_graph) or run.accumulated
        run.accumulate()
        run.finish()
    finally:
        context.tracking = tracking
    if run.accumulated and not create_graph:
        realize(wait=False)


def run_grad(tensors: Sequence[TensorBase], gradients: Sequence[TensorBase | None], retain_graph: bool,
             create_graph: bool, inputs: Sequence[TensorBase]) -> list[Tensor | None]:
    """The gradients of some tensors with respect to `inputs`; None for one that does not take part."""
    tracking, context.tracking = context.tracking, create_graph
    try:
        seeds = _seeds(tensors, gradients, create_graph)
        run = Backward(create_graph, retain_graph, inputs)
        run.capturing = True
        run.run(seeds)
        results: list[Tensor | None] = []
        for position, t in enumerate(inputs):
            row = run.leaves.get(id(t)) if t._requires_grad else run.captured.get(position)
            results.append(None if row is None else own(context.record, row))
        run.finish()
    finally:
        context.tracking = tracking
    return results


__all__ = ["run_backward", "run_grad"]
