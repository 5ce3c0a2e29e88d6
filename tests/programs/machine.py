"""Random programs: what they consist of, and how they run on PyTorch and here.

A program is a list of steps `(kind, i, j, k)` of small integers. What a step does depends on the shapes it
meets, which are the same on both sides, so that most steps are valid; those that are not must raise on both
sides. Numbers are small multiples of a half, so that sums are exact in any order and comparisons fall alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Step = tuple[str, int, int, int]
SHAPES = ((3,), (2, 3), (), (2, 1), (3, 2), (0, 3), (1,), (2, 3, 2))
DTYPES = ("float32", "float32", "float64", "int64", "bool", "float32", "int32", "uint8")
SCALARS = (2, 0.5, -1, 1.5, True)
MOST_VARIABLES = 8
EXPECTED = (RuntimeError, IndexError, TypeError, ValueError)


@dataclass
class Backend:
    """One side: its library, what reads its memory, and what is done after each step."""

    library: Any
    shares: Callable[[Any, Any], bool]
    """Whether two tensors look at the same memory."""
    recurrent: Callable[[Any], Any]
    """The output of a recurrent layer with fixed weights, 3 wide to 2."""
    attend: Callable[[Any], Any]
    """Attention over rows made of the sum of a tensor's elements: (2, 3)."""
    tripled: Callable[[Any], Any]
    """An `autograd.Function`: its input doubled, with a gradient that is three times its input's."""
    realize: Callable[[], None] = lambda: None
    after_step: Callable[[], None] = lambda: None


@dataclass
class Run:
    """What a program did: everything that was seen, by name, and its text."""

    seen: list[tuple[str, np.ndarray]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)
    source: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n".join(self.source)


class Machine:
    """Runs one program on one side. What it can do grows in `steps.py` and `training.py`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.library = backend.library
        self.run = Run()
        self.pool: list[tuple[str, Any]] = []
        self.leaves: list[tuple[str, Any]] = []
        self.arrays: list[tuple[str, np.ndarray]] = []
        """NumPy arrays that share memory with tensors."""
        self.hooked: dict[str, list[np.ndarray]] = {}
        """Gradients that hooks have seen, by hook."""
        self.retained: list[tuple[str, Any]] = []
        """What was told to keep its gradient."""
        self.optimizer: Any = None
        self.threaded = False
        """Whether another thread has recorded something: what it left pending does not see NumPy's writes coming."""
        self.updated = False
        """Whether a leaf was changed by hand."""
        self.names = 0

    def execute(self, program: list[Step]) -> Run:
        for number, (kind, i, j, k) in enumerate(program):
            length = len(self.run.source)
            try:
                getattr(self, "do_" + kind)(i, j, k)
            except EXPECTED as error:
                self.run.errors.append(
                    (number, next(kind.__name__ for kind in EXPECTED if isinstance(error, kind)))
                )
                if len(self.run.source) > length:
                    self.run.source[-1] += f"  # {type(error).__name__}: {str(error).splitlines()[0][:100]}"
            self.backend.after_step()
        for name, t in self.pool:
            self.see(name, t)
        for name, t in [*self.leaves, *self.retained]:
            if t.grad is not None:
                self.see(f"{name}.grad", t.grad)
        for name, array in [*self.arrays, *((hook, g) for hook, all_ in self.hooked.items() for g in all_)]:
            self.run.seen.append((name, array.copy()))
        return self.run

    # Helpers ------------------------------------------------------------------------------------------------
    def say(self, line: str) -> None:
        self.run.source.append(line)

    def see(self, name: str, t: Any) -> None:
        self.run.seen.append((f"{name}: {str(t.dtype).removeprefix('torch.')}", self.values(t)))

    def values(self, t: Any) -> np.ndarray:
        """A copy; of bfloat16, which NumPy has not, as float32."""
        t = t.detach()
        return np.array((t.float() if t.dtype is self.library.bfloat16 else t).numpy())

    def pick(self, i: int) -> tuple[str, Any]:
        if not self.pool:
            self.do_new(i, 0, 0)
        return self.pool[i % len(self.pool)]

    def keep(self, t: Any, text: str) -> None:
        """A new variable; the oldest one is forgotten when there are too many."""
        name = f"v{self.names}"
        self.run.source[-1] = f"{name} = {text}"
        self.names += 1
        self.pool.append((name, t))
        if len(self.pool) > MOST_VARIABLES:
            del self.pool[0]

    def make(self, text: str, function: Callable[[], Any]) -> None:
        self.say(text)
        self.keep(function(), text)

    def data(self, i: int, j: int) -> np.ndarray:
        shape, dtype = SHAPES[i % len(SHAPES)], DTYPES[j % len(DTYPES)]
        count = int(np.prod(shape))
        values = (np.arange(count) * 7 + i + j) % 9 - 4
        return (values * 0.5 if dtype.startswith("float") else values).astype(dtype).reshape(shape)

    def dim(self, t: Any, k: int) -> int | None:
        rank = len(t.shape)
        return None if rank == 0 or k % (rank + 1) == rank else k % (rank + 1)

    # Steps --------------------------------------------------------------------------------------------------
    def do_new(self, i: int, j: int, k: int) -> None:
        array = self.data(i, j)
        tracked = array.dtype.kind == "f" and k % 2 == 1
        text = f"tensor({array.tolist()}, {array.dtype})" + (".requires_grad_()" if tracked else "")
        self.say(text)
        t = self.library.tensor(array)
        if tracked:
            t = t.requires_grad_()
        self.keep(t, text)
        if tracked:
            self.leaves.append(self.pool[-1])

    def do_shared(self, i: int, j: int, k: int) -> None:
        array = self.data(i, j)
        text = f"from_numpy(a{len(self.arrays)} := array({array.tolist()}, {array.dtype}))"
        self.say(text)
        self.keep(self.library.from_numpy(array), text)
        self.arrays.append((f"a{len(self.arrays)}", array))

    def do_binary(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        symbol = ("+", "-", "*", ">", "maximum")[k % 5]
        function = {
            "+": lambda: x + y,
            "-": lambda: x - y,
            "*": lambda: x * y,
            ">": lambda: x > y,
            "maximum": lambda: x.maximum(y),
        }[symbol]
        self.make(f"{a}.maximum({b})" if symbol == "maximum" else f"{a} {symbol} {b}", function)

    def do_scalar(self, i: int, j: int, k: int) -> None:
        (a, x), number = self.pick(i), SCALARS[j % len(SCALARS)]
        symbol = ("+", "*", "r-", "<=")[k % 4]
        function = {
            "+": lambda: x + number,
            "*": lambda: x * number,
            "r-": lambda: number - x,
            "<=": lambda: x <= number,
        }[symbol]
        self.make(f"{number} - {a}" if symbol == "r-" else f"{a} {symbol} {number}", function)

    def do_unary(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        name = ("relu", "neg", "abs", "clone", "detach", "contiguous")[k % 6]
        self.make(f"{a}.{name}()", lambda: getattr(x, name)())

    def do_reduce(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        name, dim = ("sum", "sum", "amax", "argmax")[j % 4], self.dim(x, k)
        if name != "sum" and 0 in tuple(x.shape):
            return
        if name == "amax" and dim is None:
            dim = ()
        if name == "argmax" and x.dtype is self.library.bool:
            return
        keep = bool(k % 2) and dim is not None
        text = f"{a}.{name}({'' if dim is None else dim}{', keepdim=True' if keep else ''})"
        self.make(text, lambda: getattr(x, name)() if dim is None else getattr(x, name)(dim, keepdim=keep))

    def do_view(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        shape = list(x.shape)
        rank = len(shape)
        axis = k % max(rank, 1)
        if rank == 0:
            self.make(f"{a}.reshape(1)", lambda: x.reshape(1))
        elif j % 6 == 0:
            begin, end, step = ((1, None, 1), (0, 2, 1), (0, None, 2))[k % 3]
            key = (slice(None),) * axis + (slice(begin, end, step),)
            inner = f"{begin or ''}:{end or ''}:{step}"
            self.make(f"{a}[{':, ' * axis}{inner}]", lambda: x[key])
        elif j % 6 == 1:
            order = [(axis + n) % rank for n in range(rank)]
            self.make(f"{a}.permute({order})", lambda: x.permute(order))
        elif j % 6 == 2:
            self.make(
                f"{a}.reshape(-1)" if 0 not in shape else f"{a}.reshape({shape})",
                lambda: x.reshape(-1) if 0 not in shape else x.reshape(shape),
            )
        elif j % 6 == 3:
            self.make(f"{a}.unsqueeze({axis})", lambda: x.unsqueeze(axis))
        elif j % 6 == 4:
            wide = [3 if size == 1 else size for size in shape]
            self.make(f"{a}.expand({wide})", lambda: x.expand(wide))
        else:
            self.make(f"{a}[{':, ' * axis}{k % 3 - 1}]", lambda: x[(slice(None),) * axis + (k % 3 - 1,)])

    def do_matmul(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        if str(x.dtype) != str(y.dtype) and 0 in (*x.shape, *y.shape):
            return  # Whether PyTorch minds depends on whether gradients are tracked.
        self.make(f"{a} @ {b}", lambda: self.library.matmul(x, y))

    def do_recur(self, i: int, j: int, k: int) -> None:
        name, t = self.pick(i)
        self.make(f"recurrent({name})", lambda: self.backend.recurrent(t))

    def do_attend(self, i: int, j: int, k: int) -> None:
        name, t = self.pick(i)
        self.make(f"attend({name})", lambda: self.backend.attend(t))

    def do_inplace(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        number = SCALARS[j % len(SCALARS)]
        if x is not y and self.backend.shares(x, y):  # PyTorch refuses operands that overlap in part.
            b, y = f"{b}.clone()", y.clone()
        text, function = (
            (f"{a}.add_({b})", lambda: x.add_(y)),
            (f"{a}.mul_({number})", lambda: x.mul_(number)),
            (f"{a}.copy_({b})", lambda: x.copy_(y)),
            (f"{a}.fill_({number})", lambda: x.fill_(number)),
            (f"{a}[0] = {number}", lambda: x.__setitem__(0, number)),
            (
                f"{a}[..., 1:] = {b}" if len(x.shape) > 1 else f"{a}[1:] = {b}",
                lambda: x.__setitem__((slice(None),) * (max(len(x.shape), 1) - 1) + (slice(1, None),), y),
            ),
            (f"{a}.sub_({b})", lambda: x.sub_(y)),
            (f"{a}.relu_()", lambda: x.relu_()),
        )[k % 8]
        self.say(text)
        function()

    def do_update(self, i: int, j: int, k: int) -> None:
        """A hand-written optimizer step."""
        if not self.leaves:
            return
        a, leaf = self.leaves[i % len(self.leaves)]
        if leaf.grad is None:
            return
        self.say(f"with no_grad(): {a}.sub_({a}.grad * 0.5)" + (f"; {a}.grad = None" if k % 2 else ""))
        with self.library.no_grad():
            leaf.sub_(leaf.grad * 0.5)
        self.updated = True
        if k % 2:
            leaf.grad = None

    def do_untracked(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        text = f"no_grad: {a} * {b}"
        self.say(text)
        with self.library.no_grad():
            product = x * y
        self.keep(product, text)

    def do_backward(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        self.say(f"{a}.sum().backward({'retain_graph=True' if k % 2 else ''})")
        x.sum().backward(retain_graph=bool(k % 2))

    def do_hook(self, i: int, j: int, k: int) -> None:
        """A hook that looks at a gradient's values in the middle of a backward pass, and may change it."""
        a, x = self.pick(i)
        if not x.requires_grad:
            return
        if self.updated and not x.is_leaf:
            return  # It may be a view of what was hooked and then changed by hand: PyTorch 2.13 dies of a hook on that.
        name = f"hook{len(self.hooked)}"
        seen = self.hooked[name] = []
        self.say(f"{a}.register_hook({name})  # {'doubles' if k % 2 else 'looks'}")

        def hook(g: Any) -> Any:
            seen.append(self.values(g))
            return g * 2 if k % 2 else None

        x.register_hook(hook)

    def do_gradient(self, i: int, j: int, k: int) -> None:
        """A gradient becomes a variable like any other."""
        if self.leaves:
            a, leaf = self.leaves[i % len(self.leaves)]
            if leaf.grad is not None:
                self.make(f"{a}.grad", lambda: leaf.grad)

    def do_export(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        self.say(f"a{len(self.arrays)} = {a}.detach().numpy()")
        array = x.detach().numpy()
        self.arrays.append((f"a{len(self.arrays)}", array))
        self.run.seen.append((f"{a}.numpy()", array.copy()))

    def do_write(self, i: int, j: int, k: int) -> None:
        """Writing memory behind everybody's back; histories, which may have saved it, are let go."""
        if not self.arrays:
            return
        name, array = self.arrays[i % len(self.arrays)]
        for _, t in self.pool if self.threaded else ():
            self.values(t)
        if not array.flags.writeable or 0 in array.strides:
            return
        self.say(
            f"{name} += 1 (and everything detached)" if array.dtype != bool else f"{name}[...] = True (…)"
        )
        self.pool = [
            (n, t.detach() if t.requires_grad and not any(t is leaf for _, leaf in self.leaves) else t)
            for n, t in self.pool
        ]
        if array.dtype == bool:
            array[...] = True
        else:
            array += 1

    def do_item(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        self.say(f"{a}.sum().item()")
        self.run.seen.append((f"{a}.sum().item()", np.asarray(x.sum().item())))

    def do_realize(self, i: int, j: int, k: int) -> None:
        self.say("realize()")
        self.backend.realize()

    def do_forget(self, i: int, j: int, k: int) -> None:
        if len(self.pool) > 1:
            name, _ = self.pool.pop(i % len(self.pool))
            self.say(f"del {name}")
