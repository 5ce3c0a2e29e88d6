"""Whole networks trained step by step beside PyTorch, from the same seed: the same losses, and the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from nn.models import gpt, resnet, vnet

import torturous
from torturous.runtime.realize import statistics


def trained(library: Any, build: Callable[[Any], Any], step: Callable[[Any, Any, int], Any],
            optimize: Callable[..., Any], steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of some steps, in float64, and the state after them."""
    library.manual_seed(0)
    net = build(library).double()
    optimizer, schedule = optimize(library, net)
    losses = []
    for number in range(steps):
        optimizer.zero_grad()
        loss = step(library, net, number)
        loss.backward()
        if number % 2:
            library.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    net.eval()
    with library.no_grad():
        losses.append(step(library, net, steps).item())
    return losses, {name: value.numpy() for name, value in net.state_dict().items()}


def agree(build: Callable[[Any], Any], step: Callable[[Any, Any, int], Any], optimize: Callable[..., Any],
          steps: int = 4) -> None:
    theirs = trained(torch, build, step, optimize, steps)
    mine = trained(torturous, build, step, optimize, steps)
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-8)
    assert list(mine[1]) == list(theirs[1])
    for name, value in theirs[1].items():
        np.testing.assert_allclose(mine[1][name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def data(library: Any, number: int, *shape: int) -> Any:
    return library.tensor(np.random.default_rng(number).standard_normal(shape))


def classes(library: Any, number: int, count: int, *shape: int) -> Any:
    return library.tensor(np.random.default_rng(number).integers(0, count, shape))


def test_resnet() -> None:
    def step(library: Any, net: Any, number: int) -> Any:
        images, labels = data(library, number, 4, 3, 8, 8), classes(library, number, 5, 4)
        return library.nn.functional.cross_entropy(net(images), labels, label_smoothing=0.1)

    def optimize(library: Any, net: Any) -> Any:
        optimizer = library.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        return optimizer, library.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=10)

    agree(resnet, step, optimize)


def test_gpt() -> None:
    def step(library: Any, net: Any, number: int) -> Any:
        tokens = classes(library, number, 11, 3, 9)
        logits = net(tokens[:, :-1])
        return library.nn.functional.cross_entropy(
            logits.view(-1, logits.size(-1)), tokens[:, 1:].reshape(-1), ignore_index=-1)

    def optimize(library: Any, net: Any) -> Any:
        matrices = [p for p in net.parameters() if p.dim() >= 2]
        vectors = [p for p in net.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = library.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
        return optimizer, library.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)

    agree(gpt, step, optimize)


def test_vnet() -> None:
    def step(library: Any, net: Any, number: int) -> Any:
        volumes, labels = data(library, number, 2, 1, 8, 8, 8), classes(library, number, 2, 2, 8, 8, 8)
        logits = net(volumes)
        likely = library.softmax(logits, 1)[:, 1]
        wanted = labels.to(likely.dtype)
        overlap = 2 * (likely * wanted).sum() / (likely.sum() + wanted.sum() + 1)
        return library.nn.functional.cross_entropy(logits, labels) + 1 - overlap

    def optimize(library: Any, net: Any) -> Any:
        optimizer = library.optim.Adam(net.parameters(), lr=1e-3)
        return optimizer, library.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9 ** epoch)

    agree(vnet, step, optimize, 3)


def test_a_training_step_is_one_short_plan() -> None:
    """Forward, backward, running statistics and update of ResNet-18's graph: one realization."""
    net = resnet(torturous, (4, 4, 8, 8))
    optimizer = torturous.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = torturous.tensor(np.zeros((2, 3, 8, 8), np.float32))
    labels = torturous.tensor(np.zeros(2, np.int64))
    for number in range(4):
        optimizer.zero_grad()
        torturous.nn.functional.cross_entropy(net(images), labels).backward()
        runs = statistics.runs
        optimizer.step()
        if number > 1:
            assert statistics.runs == runs + 1
