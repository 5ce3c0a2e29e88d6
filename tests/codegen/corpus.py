"""A sample of everything that kernels do, as programs with one digest each: for comparing targets bit by bit.

    python tests/codegen/corpus.py        prints {"name": "digest of the result's bits", …} as JSON

Run as a script in a process of its own, so that the target is the one that the environment says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import torturous as torch
from benchmarks.models.gpt import make_gpt
from benchmarks.models.net import make_net

F = torch.nn.functional
FLOATING = ("float32", "float64", "float16", "bfloat16")
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3e-39, 6e-8, 65504.0, 3e38, 1e-300, 0.5, -1.5, 2.5, 88.8, -104.0]
FUNCTIONS = (
    "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "sigmoid", "erf", "abs", "neg", "floor", "ceil", "trunc", "round", "sign", "reciprocal", "square", "relu",
)
ACTIVATIONS = ("gelu", "silu", "softplus", "elu", "mish", "hardswish", "log_softmax", "softmax")
BINARY = ("add", "sub", "mul", "div", "pow", "fmod", "remainder", "atan2", "maximum", "minimum", "lt", "eq")
WHOLE = ("add", "sub", "mul", "floor_divide", "remainder", "maximum", "bitwise_xor")

Program = Callable[[], Any]


def values(seed: int, *shape: int, dtype: str = "float32") -> torch.Tensor:
    """Normal numbers of all magnitudes, with special ones among them where there is room."""
    random = np.random.default_rng(seed)
    array = random.standard_normal(shape) * 10.0 ** random.integers(-3, 2, shape)
    if array.size > 64:
        array.reshape(-1)[:len(SPECIAL)] = SPECIAL
    with np.errstate(over="ignore"):
        return torch.tensor(array).to(getattr(torch, dtype))


def ordinary(seed: int, *shape: int, dtype: str = "float32", requires_grad: bool = False) -> torch.Tensor:
    tensor = torch.tensor(np.random.default_rng(seed).standard_normal(shape)).to(getattr(torch, dtype))
    return tensor.requires_grad_() if requires_grad else tensor


def elementwise() -> Iterator[tuple[str, Program]]:
    for dtype in FLOATING:
        x, y = values(0, 5, 77, dtype=dtype), values(1, 77, dtype=dtype)
        whole = dtype == "float32"  # of the other dtypes a few: their functions are float32's, or tested by themselves
        for name in FUNCTIONS if whole else ("exp", "tanh", "floor"):
            yield f"{name} {dtype}", lambda name=name, x=x: getattr(torch, name)(x)
        for name in ACTIVATIONS if whole else ("gelu", "softmax"):
            options = {"dim": -1} if "softmax" in name else {}
            yield f"{name} {dtype}", lambda name=name, x=x, options=options: getattr(F, name)(x, **options)
        for name in BINARY if whole else ("add", "div", "fmod"):
            if hasattr(torch, name):
                yield f"{name} {dtype}", lambda name=name, x=x, y=y: getattr(torch, name)(x, y)
        clean = ordinary(2, 83, dtype=dtype).abs() * 3
        yield f"casts of {dtype}", lambda clean=clean: [
            clean.to(getattr(torch, other)) for other in (*FLOATING, "int64", "int32", "uint8", "bool")]
    for dtype in ("int64", "int32", "uint8"):
        random = np.random.default_rng(3)
        a, b = (torch.tensor(random.integers(1, 100, 131)).to(getattr(torch, dtype)) for _ in range(2))
        for name in WHOLE:
            if hasattr(torch, name):
                yield f"{name} {dtype}", lambda name=name, a=a, b=b: getattr(torch, name)(a, b)


def reductions() -> Iterator[tuple[str, Program]]:
    for dtype in FLOATING:
        x = ordinary(4, 7, 130, 3, dtype=dtype)
        for dim in (0, 1, 2, (0, 2)):
            yield f"sum over {dim} {dtype}", lambda x=x, dim=dim: x.sum(dim)
        yield f"other reductions {dtype}", lambda x=x: [x.sum(), x.mean(1), x.amax(0), x.prod(2)]
    x = ordinary(5, 6, 300)
    yield "variance and deviation", lambda: [x.var(1), x.std(0), x.var()]
    yield "extremes", lambda: [x.argmax(1), x.argmin(0), x.max(1)[0], x.logsumexp(1)]
    yield "softmax of columns", lambda: [F.softmax(x, 0), F.log_softmax(x, 0)]
    for name in ("cumsum", "cumprod"):
        if hasattr(torch, name):
            yield name, lambda name=name: getattr(torch, name)(x * 0.5, 1)
    if hasattr(torch, "sort"):
        yield "sorting", lambda: [*torch.sort(x, 1), *torch.topk(x, 5, 1)]


def products() -> Iterator[tuple[str, Program]]:
    for dtype in FLOATING:
        for m, k, n in ((1, 1, 1), (17, 300, 33), (130, 20, 70)) if dtype == "float32" else ((17, 300, 33),):
            a, b = ordinary(6, m, k, dtype=dtype), ordinary(7, k, n, dtype=dtype)
            at, bt = ordinary(8, k, m, dtype=dtype), ordinary(9, n, k, dtype=dtype)
            yield f"product {m}×{k}×{n} {dtype}", lambda a=a, b=b, at=at, bt=bt: [a @ b, a @ bt.mT, at.mT @ b]
        a, b = ordinary(10, 4, 9, 31, dtype=dtype), ordinary(11, 4, 31, 12, dtype=dtype)
        yield f"batched product {dtype}", lambda a=a, b=b: (a @ b).relu()
    for name, size, weight, options in (
        ("conv1d", (2, 3, 50), (4, 3, 5), {"stride": 2, "padding": 2}),
        ("conv2d", (3, 1, 12, 12), (10, 1, 5, 5), {}),
        ("conv2d", (2, 6, 9, 11), (8, 3, 3, 3), {"padding": 1, "groups": 2, "dilation": 2}),
        ("conv2d", (2, 8, 14, 14), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
        ("conv3d", (1, 3, 6, 7, 8), (5, 3, 3, 3, 3), {"padding": 1}),
        ("conv_transpose2d", (2, 4, 6, 6), (4, 3, 2, 2), {"stride": 2}),
        ("conv_transpose3d", (1, 4, 3, 4, 5), (4, 2, 2, 2, 2), {"stride": 2}),
    ):
        def convolution(name=name, size=size, weight=weight, options=options):
            x, w = ordinary(12, *size, requires_grad=True), ordinary(13, *weight, requires_grad=True)
            out = getattr(F, name)(x, w, **options)
            (out * out).sum().backward()
            return [out.detach(), x.grad, w.grad]

        yield f"{name} {size} {weight} {options}", convolution


def layers() -> Iterator[tuple[str, Program]]:
    def gradients(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Program:
        def program():
            operands = [ordinary(20 + number, *shape, requires_grad=True) for number, shape in enumerate(shapes)]
            out = function(*operands)
            (out * out.detach().cos()).sum().backward()
            return [out.detach(), *(operand.grad for operand in operands)]

        return program

    yield "layer norm", gradients(lambda x, w, b: F.layer_norm(x, (37,), w, b), (6, 37), (37,), (37,))
    yield "convolution, batch norm, residual", gradients(
        lambda x, w, s, b: (F.batch_norm(F.conv2d(x, w, padding=1), None, None, s, b, training=True) + x).relu(),
        (4, 5, 6, 7), (5, 5, 3, 3), (5,), (5,))
    yield "attention", gradients(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *[(2, 3, 17, 16)] * 3)
    yield "pooling", gradients(lambda x: F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1), (2, 3, 13, 13))
    index = torch.tensor(np.random.default_rng(30).integers(0, 11, (4, 9)))
    yield "embedding", gradients(lambda w: F.embedding(index, w), (11, 6))
    yield "gather", gradients(lambda x: torch.gather(x, 0, index), (11, 9))
    yield "cross entropy", gradients(lambda x: F.cross_entropy(x, index[:, 0]), (4, 11))


def random_numbers() -> Iterator[tuple[str, Program]]:
    def draws():
        torch.manual_seed(5)
        return [torch.rand(1000), torch.randn(1000), torch.randn(7), torch.randint(0, 1000, (50,)), torch.randperm(33),
                F.dropout(torch.ones(500), 0.3), torch.rand(100, dtype=torch.float64)]

    yield "random numbers", draws


def training() -> Iterator[tuple[str, Program]]:
    def trained(make: Callable[[], Any], loss: Callable[..., Any], optimizer: str, **options: Any) -> Program:
        def program():
            torch.manual_seed(1)
            model = make()
            stepper = getattr(torch.optim, optimizer)(model.parameters(), **options)
            losses = []
            for _ in range(2):
                stepper.zero_grad()
                value = loss(model)
                value.backward()
                stepper.step()
                losses.append(value.item())
            return [torch.tensor(losses), *(parameter.detach() for parameter in model.parameters())]

        return program

    random = np.random.default_rng(40)
    digits, labels = ordinary(41, 12, 1, 28, 28), torch.tensor(random.integers(0, 10, 12))
    yield "MNIST net", trained(lambda: make_net(torch), lambda net: F.nll_loss(net(digits), labels), "SGD", lr=0.05,
                               momentum=0.5)
    text = torch.tensor(random.integers(0, 13, (3, 17)))
    sizes = {"vocabulary": 13, "context": 16, "layers": 1, "heads": 2, "width": 24}
    yield "GPT", trained(lambda: make_gpt(torch, **sizes), lambda gpt: gpt(text[:, :-1], text[:, 1:].clone()), "AdamW",
                        lr=1e-2)


def corpus() -> Iterator[tuple[str, Program]]:
    for family in (elementwise, reductions, products, layers, random_numbers, training):
        yield from family()


def digest(result: Any) -> str:
    """Of the bits of all tensors in a result; NaNs count as one, since which of them is made is left open."""
    parts = result if isinstance(result, (list, tuple)) else [result]
    mark = hashlib.sha256()
    for part in parts:
        array = (part.float() if part.dtype in (torch.float16, torch.bfloat16) else part).numpy()
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
        mark.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return mark.hexdigest()[:16]


if __name__ == "__main__":
    print(json.dumps({name: digest(program()) for name, program in corpus()}))
