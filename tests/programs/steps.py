"""What random programs do with tensors' elements and shapes, beyond the basics. All of it is exact in halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from programs.machine import SCALARS, Machine

MOST_ELEMENTS = 64
"""What is larger is not made larger still."""
Choice = tuple[str, Callable[[], Any]]


class Steps(Machine):
    """One choice of each `do_…` is made by `k`; operands are `i`'s and `j`'s variables."""

    def choose(self, k: int, *choices: Choice) -> None:
        text, function = choices[k % len(choices)]
        self.make(text, function)

    def alter(self, k: int, *choices: Choice) -> None:
        """As `choose`, of what changes a variable in place."""
        text, function = choices[k % len(choices)]
        self.say(text)
        function()

    def small(self, t: Any) -> bool:
        return t.numel() <= MOST_ELEMENTS

    def axis(self, t: Any, k: int) -> int:
        """An axis, or −1 of a tensor that has none."""
        return k % len(t.shape) if len(t.shape) else -1

    def positions(self, t: Any, axis: int) -> Any:
        """Indices into an axis, the first one twice; none where it is empty."""
        size = tuple(t.shape)[axis] if len(t.shape) else 1
        return self.library.tensor([0, size - 1, 0] if size else [], dtype=self.library.int64)

    # Elements -----------------------------------------------------------------------------------------------
    def do_convert(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        name = ("float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool")[k]
        dtype = getattr(self.library, name)
        if x.dtype.is_floating_point and name in ("int64", "int32", "uint8"):
            # What a conversion makes of numbers that do not fit is left open by C++.
            self.make(f"{a}.nan_to_num(1, 2, 0).clamp(0, 100).to({name})",
                      lambda: x.nan_to_num(1, 2, 0).clamp(0, 100).to(dtype))
        else:
            self.make(f"{a}.to({name})", lambda: x.to(dtype))

    def do_round(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        name = ("floor", "ceil", "trunc", "round", "sign", "square", "logical_not", "isfinite")[k]
        self.make(f"{a}.{name}()", lambda: getattr(x, name)())

    def do_limit(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        number = SCALARS[j % len(SCALARS)]
        self.choose(
            k,
            (f"{a}.clamp(-1, 2)", lambda: x.clamp(-1, 2)),
            (f"{a}.clamp(min={number})", lambda: x.clamp(min=number)),
            (f"{a}.minimum({b})", lambda: x.minimum(y)),
            (f"where({a} > 0, {a}, {b})", lambda: self.library.where(x > 0, x, y)),
            (f"where({a} > {b}, {number}, {b})", lambda: self.library.where(x > y, number, y)),
            (f"{a}.masked_fill({b} > 0, {number})", lambda: x.masked_fill(y > 0, number)),
            (f"{a} / 2", lambda: x / 2),
            (f"{a} // 2", lambda: x // 2),
        )

    # Shapes -------------------------------------------------------------------------------------------------
    def do_join(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        if not (self.small(x) and self.small(y)):
            return
        axis = self.axis(x, k // 4)
        self.choose(
            k,
            (f"cat([{a}, {b}], {axis})", lambda: self.library.cat([x, y], axis)),
            (f"stack([{a}, {a}], {axis})", lambda: self.library.stack([x, x], axis)),
            (f"{a}.repeat({[2] * len(x.shape)})", lambda: x.repeat([2] * len(x.shape))),
            (f"{a}.repeat_interleave(2, {axis})", lambda: x.repeat_interleave(2, axis)),
        )

    def do_turn(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        axis = self.axis(x, j)
        pad = self.library.nn.functional.pad
        self.choose(
            k,
            (f"{a}.flip({axis})", lambda: x.flip(axis)),
            (f"{a}.roll(1, {axis})", lambda: x.roll(1, axis)),
            (f"{a}.tril()", lambda: x.tril()),
            (f"{a}.triu(1)", lambda: x.triu(1)),
            (f"pad({a}, (1, -1), value=1.5)", lambda: pad(x, (1, -1), value=1.5)),
            (f"{a}.movedim(0, -1)", lambda: x.movedim(0, -1)),
            (f"{a}.squeeze({axis})", lambda: x.squeeze(axis)),
            (f"{a}.unfold({axis}, 2, 2)", lambda: x.unfold(axis, 2, 2)),
        )

    def do_split(self, i: int, j: int, k: int) -> None:
        """Parts put together again: PyTorch forbids most writes to the parts themselves, here they are views as any."""
        a, x = self.pick(i)
        axis = self.axis(x, j)
        self.choose(
            k,
            (f"cat({a}.split(1, {axis})[::-1], {axis})",
             lambda: self.library.cat(x.split(1, axis)[::-1], axis)),
            (f"stack({a}.unbind({axis})[:2], {axis})", lambda: self.library.stack(x.unbind(axis)[:2], axis)),
            (f"{a}.narrow({axis}, 0, 1)", lambda: x.narrow(axis, 0, 1)),
        )

    # Along an axis ------------------------------------------------------------------------------------------
    def do_order(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        axis = self.axis(x, j)
        self.choose(
            k,
            (f"{a}.sort({axis}, stable=True)[0]", lambda: x.sort(dim=axis, stable=True)[0]),
            (f"{a}.sort({axis}, True, stable=True)[1]", lambda: x.sort(dim=axis, descending=True, stable=True)[1]),
            (f"{a}.cumsum({axis})", lambda: x.cumsum(axis)),
            (f"{a}.cummax({axis})[0]", lambda: x.cummax(axis)[0]),
            (f"{a}.max({axis})[0]", lambda: x.max(axis)[0]),
            (f"{a}.min({axis})[1]", lambda: x.min(axis)[1]),
            (f"{a}.topk(1, {axis})[0]", lambda: x.topk(1, axis)[0]),
            (f"{a}.unique()", lambda: x.detach().unique()),
        )

    def do_count(self, i: int, j: int, k: int) -> None:
        a, x = self.pick(i)
        axis = self.axis(x, j)
        self.choose(
            k,
            (f"{a}.any({axis})", lambda: x.any(axis)),
            (f"{a}.all()", lambda: x.all()),
            (f"{a}.count_nonzero({axis})", lambda: x.count_nonzero(axis)),
            (f"{a}.nonzero().contiguous()", lambda: x.nonzero().contiguous()),
        )

    # Elements by their places -------------------------------------------------------------------------------
    def do_take(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        axis = self.axis(x, k // 4)
        index, first = self.positions(x, axis), self.positions(x, 0)
        self.choose(
            k,
            (f"{a}.index_select({axis}, {index.tolist()})", lambda: x.index_select(axis, index)),
            (f"{a}[{first.tolist()}]", lambda: x[first]),
            (f"{a}[{a} > 0]", lambda: x[x > 0]),
            (f"{a}.gather({axis}, ({b} > 0).long().clamp(max={len(index) and int(index[1])}))",
             lambda: x.gather(axis, (y > 0).long().clamp(max=len(index) and int(index[1])))),
            # Which error a table without dimensions is, depends in PyTorch on whether gradients are tracked.
            (f"embedding({first.tolist()}, {a})",
             lambda: self.library.nn.functional.embedding(first, x if x.shape else x.reshape(1, 1))),
            (f"{a}[..., None, -1]", lambda: x[..., None, -1]),
        )

    def do_put(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        number = SCALARS[j % len(SCALARS)]
        if x is not y and self.backend.shares(x, y):  # PyTorch refuses operands that overlap in part.
            b, y = f"{b}.clone()", y.clone()
        axis = self.axis(x, j)
        index, first = self.positions(x, axis), self.positions(x, 0)
        self.alter(
            k,
            (f"{a}[{first.tolist()}] = {number}", lambda: x.__setitem__(first, number)),
            (f"{a}[{a} > 0] = {number}", lambda: x.__setitem__(x > 0, number)),
            (f"{a}.masked_fill_({b} > 0, {number})", lambda: x.masked_fill_(y > 0, number)),
            (f"{a}.index_add_({axis}, {index.tolist()}, {a}.detach()[{index.tolist()}])",
             lambda: x.index_add_(axis, index, x.detach().index_select(axis, index))),
            (f"{a}.index_put_(({first.tolist()},), {b}.clone(), accumulate=True)",
             lambda: x.index_put_((first,), y.clone(), accumulate=True)),
            (f"{a}.zero_()", lambda: x.zero_()),
            (f"{a}.clamp_(0, 1)", lambda: x.clamp_(0, 1)),
            (f"{a}.addcmul_({b}, {b}, value={number})", lambda: x.addcmul_(y, y, value=number)),
        )

    # Sums of products, windows, linear algebra --------------------------------------------------------------
    def do_layer(self, i: int, j: int, k: int) -> None:
        (a, x), (b, y) = self.pick(i), self.pick(j)
        library, functional = self.library, self.library.nn.functional
        taps = library.tensor([[[1, -1, 0.5]], [[2, 0, 1]]])
        weight = library.tensor([[1.0, 0.5, -1], [2, 0, 1]])
        twice = library.eye(3) * 2
        self.choose(
            k,
            (f"conv1d({a}.float().reshape(1, 1, -1), …)",
             lambda: functional.conv1d(x.float().reshape(1, 1, -1), taps, padding=1)),
            (f"conv_transpose1d({a}.float().reshape(-1, 1, 1), …)",
             lambda: functional.conv_transpose1d(x.float().reshape(-1, 1, 1), taps.transpose(0, 1), stride=2)),
            (f"linear({a}.float(), …)", lambda: functional.linear(x.float(), weight)),
            (f"max_pool1d({a}.float().reshape(1, 1, -1), 2, 1)",
             lambda: functional.max_pool1d(x.float().reshape(1, 1, -1), 2, 1)),
            (f"einsum('i...,...j->ij', {a}.float(), {b}.float())",
             lambda: library.einsum("i...,...j->ij", x.float(), y.float())),
            (f"linalg.solve(2 * eye(3), {a}.float())", lambda: library.linalg.solve(twice, x.float())),
            (f"outer({a}.reshape(-1), {b}.reshape(-1))", lambda: library.outer(x.reshape(-1)[:4], y.reshape(-1)[:4])),
            (f"addmm({a}, {b}, {b}.t())", lambda: library.addmm(x, y, y.t(), beta=0.5)),
        )
