"""`autograd.Function`: operations whose gradient the user writes.

`forward` runs untracked; its results become rows of the tape that stand for their values and lead, through
the user's `backward`, to the operands. What `forward` saves is kept by the tape until a backward pass gives
it up.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torturous.ir.movement import ALIAS, FUNCTION
from torturous.ir.record import Record, context, user_place
from torturous.ir.value import Value
from torturous.runtime.storage import Storage
from torturous.tensor.base import TensorBase
from torturous.tensor.grad_mode import enable_grad, no_grad
from torturous.tensor.tape import AGAIN, CustomNode, own

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


class _Saved:
    """A tensor kept for `backward`; with a row where it has a history.

    Of a tensor with a history only the value is held: the tensor itself would hold its tape, which holds
    this.
    """

    __slots__ = ("tensor", "storage", "version", "row")

    def __init__(self, t: Any) -> None:
        self.tensor = t
        self.storage = weakref.ref(t.storage)
        self.version = _version(t.storage)
        self.row = -1

    def check(self, name: str) -> None:
        """Raises RuntimeError if the tensor has been written since."""
        storage = self.storage()
        if storage is not None and _version(storage) != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace "
                f"operation: [{self.tensor.dtype.name} {list(self.tensor.shape)}], saved by {name}, is at "
                f"version {_version(storage)}; expected version {self.version} instead.")


def _version(storage: Storage) -> int:
    return storage.version - storage.unseen


class FunctionContext(CustomNode):
    """The `ctx` of one call: what `forward` leaves for `backward`. Attributes of the user's own may be set
    on it."""

    def __init__(self, function: type[Function]) -> None:
        self.name = function.__name__
        self.needs_input_grad: tuple[bool, ...] = ()
        """Which arguments of `forward` are tensors that require gradients."""
        self._function = function
        self._saved: list[_Saved | None] | None = []
        self._dirty: tuple[TensorBase, ...] = ()
        self._constant: tuple[TensorBase, ...] = ()
        self._materialize = True
        self._positions: list[int] = []
        """Which arguments are tensors."""
        self._outputs: list[tuple[int, Any]] = []
        """Differentiable results: position among all results, and the result as `forward` gave it."""
        self._types: list[tuple[tuple[int, ...], Any]] = []
        self._differentiated: tuple[Record, bool] | None = None

    # For `forward`
    # ---------------------------------------------------------------------------------------------
    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors for `backward`, which finds them in `saved_tensors`. TypeError for anything else."""
        for t in tensors:
            if t is not None and not isinstance(t, TensorBase):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument is of type {type(t).__name__}")
        self._saved = [None if t is None else _Saved(t) for t in tensors]

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which arguments `forward` has changed in place; they must be among its results."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which results have no gradient."""
        self._constant = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` is given zeros (the default) or None for a result that has no gradient."""
        self._materialize = value

    # For `backward`
    # --------------------------------------------------------------------------------------------
    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `forward` saved. RuntimeError if it has been freed, or written in place since."""
        if self._saved is None:
            raise RuntimeError(AGAIN)
        return tuple(None if saved is None else self._unpacked(saved) for saved in self._saved)

    def _unpacked(self, saved: _Saved) -> Tensor:
        saved.check(self.name)
        if saved.row >= 0 and self._differentiated is not None and self._differentiated[1]:
            return self._with_history(saved.tensor, self._differentiated[0], saved.row)
        return saved.tensor

    def _with_history(self, t: TensorBase, tape: Record, index: int) -> Tensor:
        """A saved value with its place on the tape, for gradients of gradients."""
        value = t.row()
        pending = context.record
        if tape is pending:
            return own(pending, index)
        row = pending.append((ALIAS.number, (), t._type, value), 1, user_place())
        pending.sources[row] = (tape, index)
        return own(pending, row)

    # For the backward pass
    # -------------------------------------------------------------------------------------
    def run(
        self, gradients: Sequence[Tensor | None], tape: Record, create_graph: bool
    ) -> list[Tensor | None]:
        self._differentiated = (tape, create_graph)
        by_position = dict(zip([position for position, _ in self._outputs], gradients, strict=True))
        given = []
        for position, (shape, dtype) in enumerate(self._types):
            g = by_position.get(position)
            if g is None and self._materialize and dtype is not None:
                g = own(context.record, Value(context.record, -1, None, False).full(shape, dtype, 0).index)
            given.append(g)
        try:
            results = self._function.backward(self, *given)
        finally:
            self._differentiated = None
        return self._checked(results if isinstance(results, tuple) else (results,))

    def _checked(self, results: tuple[Any, ...]) -> list[Tensor | None]:
        count = len(self.needs_input_grad)
        if len(results) > count and all(result is None for result in results[count:]):
            results = results[:count]
        if len(results) != count:
            raise RuntimeError(
                f"function {self.name}Backward returned an incorrect number of gradients (expected {count}, "
                f"got {len(results)})")
        for position, result in enumerate(results):
            if result is not None and not isinstance(result, TensorBase):
                raise TypeError(
                    f"function {self.name}Backward returned a {type(result).__name__} at position "
                    f"{position + 1}, where a Tensor or None is expected")
            if result is not None and position not in self._positions:
                raise RuntimeError(
                    f"function {self.name}Backward returned a gradient different from None at position "
                    f"{position + 1}, but the corresponding forward input was not a Variable")
        return [results[position] for position in self._positions]

    def release(self) -> None:
        self._saved = None


class Function:
    """Base of the user's functions: static methods `forward(ctx, *args)` and `backward(ctx, *gradients)`.

    Or `forward(*args)` with `setup_context(ctx, inputs, output)`. `backward` gives one gradient (or None) for
    each argument of `forward`. Called through `apply`.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The results: a tensor or a tuple of tensors and other things."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: FunctionContext, inputs: tuple[Any, ...], output: Any) -> None:
        """Saves what `backward` needs, where `forward` does not take `ctx`."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: FunctionContext, *gradients: Any) -> Any:
        """The gradients of the arguments."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use "
            "it with backward mode AD.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Calls `forward`, and puts this function on the tape of its results."""
        ctx = FunctionContext(cls)
        ctx.needs_input_grad = tuple(map(_requires_grad, args))
        ctx._positions = [position for position, a in enumerate(args) if isinstance(a, TensorBase)]
        tracked = context.tracking and any(ctx.needs_input_grad)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                output = cls.forward(ctx, *args, **kwargs)
            else:
                output = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, output)
        if not tracked:
            return output
        results = output if isinstance(output, tuple) else (output,)
        attached = _attach(ctx, [args[position] for position in ctx._positions], list(results))
        return tuple(attached) if isinstance(output, tuple) else attached[0]


def _requires_grad(value: Any) -> bool:
    return isinstance(value, TensorBase) and (value._requires_grad or value._tracked())


def _attach(ctx: FunctionContext, inputs: list[Any], results: list[Any]) -> list[Any]:
    """The results with this function as their history."""
    dirty = [t for t in ctx._dirty if t._requires_grad]
    if dirty:
        raise RuntimeError("a leaf Variable that requires grad has been used in an in-place operation.")
    constant = {id(t) for t in ctx._constant}
    ctx._outputs = [
        (position, t) for position, t in enumerate(results)
        if isinstance(t, TensorBase) and t.dtype.is_floating_point and id(t) not in constant
    ]
    ctx._types = [
        (tuple(t.shape), t.dtype if t.dtype.is_floating_point else None)
        if isinstance(t, TensorBase) else ((), None)
        for t in results
    ]
    place = user_place(3)
    while True:  # Entering a tensor may realize what others were entered into: then all are entered afresh.
        record = context.record
        operands = [t.row() for t in inputs]
        values = [t.row() for _, t in ctx._outputs]
        if record is context.record:
            break
    ctx.first = len(record.rows)
    ctx.count = len(values)
    changed = {id(t) for t in ctx._dirty}
    rows = []
    for (_, t), value in zip(ctx._outputs, values, strict=True):
        rows.append(record.append((FUNCTION.number, (), t._type, value, *operands), 1, place))
        record.sources[rows[-1]] = ctx
    outputs = {id(t): row for row, (_, t) in zip(rows, ctx._outputs, strict=True)}
    histories = {id(t): row for row, t in zip(operands, inputs, strict=True) if record.tracked[row]}
    for saved in ctx._saved or ():
        if saved is None:
            continue
        t = saved.tensor
        if id(t) in outputs:
            saved.row = outputs[id(t)]
        elif id(t) in histories and not t._requires_grad:
            saved.row = histories[id(t)]
            saved.tensor = own(record, record.append((ALIAS.number, (), t._type, saved.row), 0, place))
    for row, (position, t) in zip(rows, ctx._outputs, strict=True):
        if id(t) in changed:
            t._write(row, place, settle=False)
        else:
            results[position] = own(record, row)
    return results


class _Once(Function):
    """Stands between the gradients that a once-differentiable backward gave and those who differentiate
    them."""

    @staticmethod
    def forward(ctx: FunctionContext, result: Tensor, *gradients: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(ctx: FunctionContext, *gradients: Any) -> Any:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Says of a `backward` that its own operations have no gradient: asking for it raises RuntimeError."""

    @functools.wraps(backward)
    def wrapper(ctx: FunctionContext, *gradients: Any) -> Any:
        with no_grad():
            results = backward(ctx, *gradients)
        wanted = list(filter(_requires_grad, gradients))
        if not context.tracking or not wanted:
            return results
        single = not isinstance(results, tuple)
        with enable_grad():
            guarded = tuple(
                _Once.apply(result, *wanted) if isinstance(result, TensorBase) else result
                for result in ((results,) if single else results)
            )
        return guarded[0] if single else guarded

    return wrapper


__all__ = ["Function", "FunctionContext", "once_differentiable"]
