"""What random programs do with gradients, optimizers, threads and copies. Completes the machine."""

from __future__ import annotations

import copy
import io
import threading
from typing import Any

from programs.steps import Steps


class Complete(Steps):
    """A machine that can do everything."""

    def do_optimize(self, i: int, j: int, k: int) -> None:
        """Steps of one optimizer over the leaves that were there when it was made."""
        if self.optimizer is None:
            if not self.leaves:
                return
            self.say(f"optimizer = SGD([{', '.join(name for name, _ in self.leaves)}], 0.5, momentum=0.5)")
            # A leaf that is not one any more (it was written in place) must be refused, on both sides.
            self.optimizer = self.library.optim.SGD([leaf for _, leaf in self.leaves], 0.5, momentum=0.5)
        self.say("optimizer.step()" + ("; optimizer.zero_grad()" if k % 2 else ""))
        self.optimizer.step()
        self.updated = True
        if k % 2:
            self.optimizer.zero_grad(set_to_none=bool(k % 4 == 1))

    def do_derive(self, i: int, j: int, k: int) -> None:
        """A gradient that can be differentiated again."""
        if not self.leaves:
            return
        (a, x), (b, leaf) = self.pick(i), self.leaves[j % len(self.leaves)]
        text = f"grad(({a} * {a}).sum(), {b}, create_graph={bool(k % 2)}, allow_unused=True)"
        self.say(text)
        (g,) = self.library.autograd.grad((x * x).sum(), leaf, create_graph=bool(k % 2), allow_unused=True)
        if g is not None:
            self.keep(g, text)

    def do_function(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        self.make(f"tripled({a})", lambda: self.backend.tripled(x))

    def do_retain(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        if not x.requires_grad or x.is_leaf:
            return
        self.say(f"{a}.retain_grad()")
        x.retain_grad()
        self.retained.append((a, x))

    def do_raise(self, i: int, j: int, k: int) -> None:
        """A hook that fails in the middle of a backward pass, before it has reached any leaf."""
        a, x = self.pick(i)
        if not x.requires_grad or self.updated:
            return
        self.say(f"{a}.register_hook(raises); {a}.sum().backward(retain_graph=True)")

        def hook(g: Any) -> None:
            raise ValueError("a hook's own")

        handle = x.register_hook(hook)
        try:
            (x * 2).sum().backward(retain_graph=True)
        finally:
            handle.remove()

    def do_freeze(self, i: int, j: int, k: int) -> None:
        """A tensor without views is told whether it is a leaf (docs/decisions.md, "What views pass on")."""
        a, x = self.pick(i)
        text = f"{a}.detach().clone().requires_grad_({bool(k % 2)}).requires_grad_({bool(k // 2 % 2)})"
        self.make(text, lambda: x.detach().clone().requires_grad_(bool(k % 2)).requires_grad_(bool(k // 2 % 2)))

    def do_clear(self, i: int, j: int, k: int) -> None:
        if not self.leaves:
            return
        a, leaf = self.leaves[i % len(self.leaves)]
        if leaf.grad is None:
            return
        if k % 2:
            self.say(f"{a}.grad = None")
            leaf.grad = None
        else:
            self.say(f"{a}.grad.mul_(0.5)")
            with self.library.no_grad():
                leaf.grad.mul_(0.5)

    def do_copy(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        if k % 2:
            self.make(f"deepcopy({a})", lambda: copy.deepcopy(x))
        else:
            self.make(f"load(save({a}))", lambda: self.saved_and_loaded(x.detach()))

    def saved_and_loaded(self, t: Any) -> Any:
        file = io.BytesIO()
        self.library.save({"t": t, "twice": [t, t]}, file)
        file.seek(0)
        return self.library.load(file)["twice"][1]

    def do_thread(self, i: int, j: int, k: int) -> None:
        """Another step, made by a thread of its own."""
        kind = ("binary", "view", "inplace", "backward", "take", "put", "order", "update")[k]
        failed: list[Exception] = []

        def work() -> None:
            try:
                getattr(self, "do_" + kind)(i, j, k)
            except Exception as error:
                failed.append(error)

        self.say("in a thread:")
        self.threaded = True
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def do_inference(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        self.say(f"inference_mode: ({a} * {b}).sum().item()")
        with self.library.inference_mode():
            total = (x * y).sum()
        self.see(f"{a} * {b}", total.clone())


KINDS = sorted(name[3:] for name in dir(Complete) if name.startswith("do_"))
