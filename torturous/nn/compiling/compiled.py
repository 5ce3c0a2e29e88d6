"""`compile`: functions and modules whose calls are recorded in one step where nothing has changed."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from torturous.core.devices import device
from torturous.core.dtypes import DType
from torturous.core.errors import UnsupportedError
from torturous.ir.prefix import tree
from torturous.nn.compiling.state import State
from torturous.nn.compiling.watching import Watch
from torturous.nn.modules.module import Module
from torturous.tensor.base import Size, TensorBase
from torturous.tensor.generator import default_generator
from torturous.tensor.traces import Key, NotRepeatable, Start, Trace, capture, start

MOST_VARIANTS = 64
"""Kinds of arguments for which a function's calls are remembered; others are made each time."""
MOST_STATES = 8
MOST_TRACES = 1 << 12
MOST_REFUSALS = 4
"""Calls in a row that could not be remembered, after which it is not tried again."""


class _Calling(threading.local):
    """Whether a call of this thread is being watched: those within it are part of it."""

    inside = False


_calling = _Calling()


# Arguments ------------------------------------------------------------------------------------------------------
class _Arguments:
    """A call's arguments: tensors, and a key of all else about them."""

    def __init__(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.tensors: list[TensorBase] = []
        self.objects: list[Any] = []
        """Modules and functions: state to be watched."""
        self.key: Key = (tuple(map(self._key, arguments)), tuple((name, self._key(named[name])) for name in named))

    def _key(self, value: Any) -> Any:
        if isinstance(value, TensorBase):
            self.tensors.append(value)
            return _tensor_key(value)
        kind = type(value)
        if value is None or kind in (bool, int, float, str, Size) or isinstance(value, (DType, device)):
            return kind, value
        if kind in (tuple, list):
            return kind, tuple(map(self._key, value))
        if kind is dict:
            return kind, tuple((name, self._key(value[name])) for name in value)
        if isinstance(value, Module):
            self.objects.append(value)
            return kind, id(value)
        raise NotRepeatable(f"one of its arguments is a {kind.__name__}")


def _tensor_key(t: TensorBase) -> Key:
    """What of a tensor may decide what is recorded, besides its row."""
    own = t.__class__, t._type, t._requires_grad, t._detached, t._unseen, t._retains
    if t.base is None:
        return own
    steps = tuple([(step.op.number, step.attributes, step.type_index, step.starts) for step in t.steps])
    return *own, t._strides, t._offset, steps, t.base._requires_grad


# Calls ----------------------------------------------------------------------------------------------------------
class _Remembered:
    """Calls with one kind of arguments, in one state of what else they read."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.draws = False
        """Whether random numbers are drawn: then the generator's state is one of the tensors."""
        self.refusals = 0
        self._traces: dict[Key, Trace] = {}
        self._root = tree.root

    @property
    def traces(self) -> dict[Key, Trace]:
        """By where they start; forgotten with the prefixes that they start from."""
        if self._root is not tree.root:
            self._traces, self._root = {}, tree.root
        return self._traces


class _Variant:
    """Calls with one kind of arguments."""

    def __init__(self, arguments: _Arguments) -> None:
        self.objects = arguments.objects  # Kept, for their identities are part of the key.
        self.remembered: list[_Remembered] = []
        self.refusals = 0


class Compiled:
    """A function whose calls are recorded in one step where they would record what they did before.

    A call is first watched (`Watch`, `State`), then captured twice (`tensor.traces.capture`); if both times it recorded
    the same, it is repeated from then on, as long as arguments and state are the same and the record is where it was.
    """

    def __init__(self, function: Callable[..., Any], fullgraph: bool) -> None:
        self.function = function
        self.fullgraph = fullgraph
        self.variants: dict[Key, _Variant] = {}
        self.reason: str | None = None
        """Why the last call that had to be made was not remembered."""
        self.repeated = 0
        """How many calls were left out."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if _calling.inside:
            return self.function(*arguments, **named)
        try:
            given = _Arguments(arguments, named)
            variant = self._variant(given)
        except NotRepeatable as reason:
            return self._refused(reason, lambda: self.function(*arguments, **named))

        def call() -> Any:
            return self.function(*arguments, **named)

        for remembered in variant.remembered:
            if remembered.state.holds():
                return self._repeat(variant, remembered, given, call)
        return self._watch(variant, given, call)

    def _variant(self, given: _Arguments) -> _Variant:
        variant = self.variants.get(given.key)
        if variant is None:
            if len(self.variants) >= MOST_VARIANTS:
                raise NotRepeatable("it was called with too many kinds of arguments")
            variant = self.variants[given.key] = _Variant(given)
        if variant.refusals >= MOST_REFUSALS or len(variant.remembered) > MOST_STATES:
            raise NotRepeatable(self.reason or "what it reads changes too often")
        return variant

    def _refused(self, reason: NotRepeatable, call: Callable[[], Any]) -> Any:
        """Makes a call that cannot be remembered."""
        self.reason = str(reason)
        if self.fullgraph:
            name = getattr(self.function, "__qualname__", type(self.function).__name__)
            raise UnsupportedError(f"compile(fullgraph=True): calls of {name} cannot be left out, because {reason}")
        return call()

    def _watched(self, watch: Watch, call: Callable[[], Any]) -> Any:
        _calling.inside = True
        try:
            return watch.call(call)
        finally:
            _calling.inside = False

    def _watch(self, variant: _Variant, given: _Arguments, call: Callable[[], Any]) -> Any:
        """Makes a call to see what it reads."""
        watch = Watch()
        result = self._watched(watch, call)
        try:
            watch.check()
            variant.remembered.insert(0, _Remembered(State([self.function, *given.objects], watch)))
        except NotRepeatable as reason:
            variant.refusals += 1
            return self._refused(reason, lambda: result)
        return result

    def _repeat(self, variant: _Variant, remembered: _Remembered, given: _Arguments, call: Callable[[], Any]) -> Any:
        """Repeats a call of which all that it reads is as it was, or captures it."""
        if remembered.refusals >= MOST_REFUSALS:
            return self._refused(NotRepeatable(self.reason), call)
        tensors = [*given.tensors, *remembered.state.tensors]
        if not remembered.draws:
            return self._go_on(variant, remembered, start(tensors, None), call)
        with default_generator.held():  # The state's row is read now and written at the end of the call.
            begun = start(tensors, default_generator.state())
            return self._go_on(variant, remembered, begun, call)

    def _go_on(self, variant: _Variant, remembered: _Remembered, begun: Start | None, call: Callable[[], Any]) -> Any:
        if begun is None:
            return self._refused(NotRepeatable("it reads memory that others can write"), call)
        trace = remembered.traces.get(begun.key)
        if trace is None or not trace.agreed:
            return self._capture(variant, remembered, begun, call)
        try:
            result = trace.replay(begun)
        except NotRepeatable as reason:
            return self._refused(reason, call)
        self.repeated += 1
        remembered.refusals = 0
        return result

    def _capture(self, variant: _Variant, remembered: _Remembered, begun: Start, call: Callable[[], Any]) -> Any:
        key, draws = begun.key, default_generator.draws
        watch = Watch()
        result, trace = capture(begun, lambda: self._watched(watch, call))
        try:
            watch.check()
            if not watch.codes.keys() <= remembered.state.codes.keys():
                variant.remembered.remove(remembered)  # It has come to other code: what that reads is not known yet.
                raise NotRepeatable("it runs code that it did not run before")
            if not remembered.state.holds():
                raise NotRepeatable("it changes what it reads")
            if isinstance(trace, NotRepeatable):
                if not remembered.draws and default_generator.draws != draws:
                    remembered.draws = True
                    return result
                raise trace
            if len(remembered.traces) >= MOST_TRACES:
                remembered.traces.clear()
        except NotRepeatable as reason:
            remembered.refusals += 1
            return self._refused(reason, lambda: result)
        before = remembered.traces.get(key)
        trace.agreed = before is not None and before.agrees(trace)
        if before is not None and not trace.agreed:
            remembered.refusals += 1
        elif trace.agreed:
            remembered.refusals = 0
        remembered.traces[key] = trace
        return result


# What users call ------------------------------------------------------------------------------------------------
class OptimizedModule(Module):
    """A module whose calls are those of a compiled function: PyTorch's `torch._dynamo.OptimizedModule`.

    `_orig_mod` is the module itself, which attributes are read from and written to, and whose parameters it has.
    """

    def __init__(self, module: Module, fullgraph: bool) -> None:
        super().__init__()
        self._modules["_orig_mod"] = module
        self.__dict__["_compiled"] = Compiled(module, fullgraph)
        del self.__dict__["training"]

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self._compiled(*arguments, **named)

    @property
    def training(self) -> bool:  # type: ignore[override]
        return self._modules["_orig_mod"].training  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name == "_orig_mod" and name in modules:
            return modules[name]
        if "_orig_mod" not in modules:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(modules["_orig_mod"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or "_orig_mod" not in self.__dict__.get("_modules", {}):
            super().__setattr__(name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __len__(self) -> int:
        return len(self._orig_mod)


_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_BACKENDS = ("inductor", "eager", "aot_eager", "cudagraphs", "onnxrt", "openxla", "tvm")


def compile(model: Callable[..., Any] | None = None, *, fullgraph: bool = False, dynamic: bool | None = None,
            backend: str | Callable[..., Any] = "inductor", mode: str | None = None,
            options: dict[str, Any] | None = None, disable: bool = False) -> Any:
    """A function or module that does the same, and leaves out the Python of calls that it has seen before.

    Operations are compiled together with or without this call, and the results are the same, bit for bit. A call is
    repeated without Python where its arguments (shapes, dtypes, strides, `requires_grad`; numbers and texts by value),
    the gradient mode and all state that its code can read (globals, closures, attributes of modules and objects,
    training mode, parameters) are as they were. It is made as written where it asks for a value, runs a backward pass,
    uses an `autograd.Function`, changes state, or calls what cannot be left out: input and output, clocks, Python's or
    NumPy's random numbers. As with PyTorch, that is judged by calls made before: state hidden in extension modules is
    not seen, and neither is an attribute of a tensor.

    `fullgraph`: UnsupportedError, with the reason, for a call that has to be made as written. `dynamic`, `mode` and
    the name of a backend leave nothing to choose, since plans serve all sizes and there is one compiler: they are
    checked only. `disable` gives the function itself; without a function a decorator is given. Raises UnsupportedError
    for options of a backend and for backends of the caller's own, RuntimeError for unknown names, AssertionError for
    what cannot be called.
    """
    if not isinstance(backend, str):
        raise UnsupportedError("compile(): a backend of your own cannot be called: there is no graph of PyTorch's here")
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    if mode is not None and mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES)}")
    if backend not in _BACKENDS:
        raise RuntimeError(f"Invalid backend: '{backend}', should be one of: {', '.join(_BACKENDS)}")
    if dynamic not in (None, True, False):
        raise RuntimeError(f"compile(): dynamic must be True, False or None, not {dynamic!r}")
    if options:
        raise UnsupportedError(f"compile(): no backend here takes options such as {next(iter(options))!r}")
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode,
                                 disable=disable)
    if not callable(model):
        raise AssertionError(f"compile(): a module or function is wanted, not {type(model).__name__}")
    if disable:
        return model
    if isinstance(model, Module):
        return OptimizedModule(model, fullgraph)
    compiled = Compiled(model, fullgraph)

    @functools.wraps(model)
    def call(*arguments: Any, **named: Any) -> Any:
        return compiled(*arguments, **named)

    call._torchdynamo_orig_callable = model  # type: ignore[attr-defined]
    return call
