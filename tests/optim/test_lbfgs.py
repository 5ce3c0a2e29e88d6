"""L-BFGS against PyTorch's: the same losses, parameters and number of evaluations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import torturous


def run(library, options, steps=2):
    w = library.nn.Parameter(library.tensor(np.array([-1.2, 1.0, 0.3, 2.0])))
    b = library.nn.Parameter(library.tensor(np.array([[0.5, -0.2]])))
    optimizer = library.optim.LBFGS([w, b], **options)
    losses = []

    def closure():
        optimizer.zero_grad()
        valley = 100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2
        loss = valley.sum() + ((b - w[:2]) ** 4).sum()
        loss.backward()
        losses.append(loss.item())
        return loss

    first = [optimizer.step(closure).item() for _ in range(steps)]
    state = optimizer.state[w]
    return first, losses, w.detach().numpy(), b.detach().numpy(), state["func_evals"], state["n_iter"]


@pytest.mark.parametrize("options", [
    {"lr": 1e-3}, {"line_search_fn": "strong_wolfe"}, {"line_search_fn": "strong_wolfe", "history_size": 2},
    {"lr": 0.01, "max_iter": 5, "history_size": 3}, {"line_search_fn": "strong_wolfe", "max_eval": 4},
    {"line_search_fn": "strong_wolfe", "tolerance_grad": 10.0}], ids=str)
def test_steps_agree(options):
    mine, theirs = (run(library, options) for library in (torturous, torch))
    assert mine[4:] == theirs[4:] and len(mine[1]) == len(theirs[1])
    for ours, other in zip(mine[:4], theirs[:4], strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("library", [torturous, torch])
def test_errors(library):
    params = [library.nn.Parameter(library.ones(2)) for _ in range(2)]
    with pytest.raises(ValueError, match="parameter groups"):
        library.optim.LBFGS([{"params": params[:1]}, {"params": params[1:]}])
    with pytest.raises(ValueError, match="learning rate"):
        library.optim.LBFGS(params, lr=-1)

    def closure():
        loss = params[0].sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="strong_wolfe"):
        library.optim.LBFGS(params, line_search_fn="other").step(closure)
