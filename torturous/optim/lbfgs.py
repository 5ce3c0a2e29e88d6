"""L-BFGS (Nocedal, 1980; Liu and Nocedal, 1989), with a line search for the strong Wolfe conditions if asked for.

Unlike the other optimizers a step evaluates the closure several times, and looks at values to decide how to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torturous.optim.optimizer import Optimizer
from torturous.optim.options import as_number, learning_rate
from torturous.tensor import Tensor, cat, enable_grad, no_grad, realize_step, zeros_like

Evaluate = Callable[[float], "tuple[float, Tensor, float]"]
"""The loss at a distance along the direction, the flat gradient there, and the loss's slope along the direction."""


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes; one parameter group only.

    `step(closure)` calls the closure, which computes the loss and its gradients, at most `max_eval` times in `max_iter`
    iterations; it ends where gradients are within `tolerance_grad` or changes within `tolerance_change`.
    `line_search_fn` is None or 'strong_wolfe'.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if max_eval is None:
            max_eval = max_iter * 5 // 4
        defaults = {
            "lr": learning_rate(lr),
            "max_iter": max_iter,
            "max_eval": max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params: list[Tensor] = self.param_groups[0]["params"]

    # Parameters and gradients as one vector ----------------------------------------------------------------
    def _gradient(self) -> Tensor:
        """All gradients as one vector, computed."""
        parts = [zeros_like(param).reshape(-1) if param.grad is None else param.grad.reshape(-1)
                 for param in self._params]
        flat = cat(parts) if len(parts) > 1 else parts[0].clone()
        realize_step([], [flat], [])
        return flat

    def _move(self, origin: list[Tensor], direction: Tensor, distance: float) -> None:
        """Parameters = origin + distance · direction."""
        start = 0
        for param, at in zip(self._params, origin, strict=True):
            end = start + param.numel()
            param.copy_(at + direction[start:end].reshape(at.shape) * distance)
            start = end

    def _copies(self) -> list[Tensor]:
        return [param.detach().clone() for param in self._params]

    # One step ------------------------------------------------------------------------------------------------
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Several iterations; gives the loss that the closure gave first."""
        with no_grad():
            return self._step(closure)

    def _step(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise RuntimeError("only 'strong_wolfe' is supported")

        def evaluate() -> tuple[Any, float, Tensor]:
            with enable_grad():
                loss = closure()
            return loss, float(loss), self._gradient()

        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        first, loss, gradient = evaluate()
        evaluations = 1
        state["func_evals"] += 1
        if self._largest(gradient) <= group["tolerance_grad"]:
            return first
        memory = _Memory(state, group["history_size"])
        direction: Any = state.get("d")
        distance: Any = state.get("t")
        previous, previous_loss = state.get("prev_flat_grad"), state.get("prev_loss")
        iterations = 0
        while iterations < group["max_iter"]:
            iterations += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction = -gradient
            else:
                memory.learn(gradient - previous, direction * distance)
                direction = memory.direction(gradient)
            previous, previous_loss = gradient, loss
            rate = as_number(group["lr"])
            distance = min(1.0, 1.0 / float(gradient.abs().sum())) * rate if state["n_iter"] == 1 else rate
            slope = float(gradient.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            used = 0
            if group["line_search_fn"] is None:
                self._move(self._copies(), direction, distance)
                if iterations != group["max_iter"]:
                    _, loss, gradient = evaluate()
                    used = 1
            else:
                origin = self._copies()

                def at(step: float, origin: list[Tensor] = origin, direction: Tensor = direction
                       ) -> tuple[float, Tensor, float]:
                    self._move(origin, direction, step)
                    _, value, grad = evaluate()
                    self._move(origin, direction, 0.0)
                    return value, grad, float(grad.dot(direction))

                loss, gradient, distance, used = strong_wolfe(
                    at, distance, self._largest(direction), loss, gradient, slope, group["tolerance_change"])
                self._move(origin, direction, distance)
            evaluations += used
            state["func_evals"] += used
            if (iterations == group["max_iter"] or evaluations >= group["max_eval"]
                    or self._largest(gradient) <= group["tolerance_grad"]
                    or self._largest(direction * distance) <= group["tolerance_change"]
                    or abs(loss - previous_loss) < group["tolerance_change"]):
                break
        realize_step(self._params, [], [])
        state.update(d=direction, t=distance, old_dirs=memory.changes, old_stps=memory.steps, ro=memory.scales,
                     H_diag=memory.diagonal, prev_flat_grad=previous, prev_loss=previous_loss)
        return first

    @staticmethod
    def _largest(t: Tensor) -> float:
        return float(t.abs().max())


class _Memory:
    """The last changes of gradients and parameters, and the direction that follows from them."""

    def __init__(self, state: dict[str, Any], size: int) -> None:
        self.size = size
        self.changes: list[Tensor] = state.get("old_dirs", [])
        self.steps: list[Tensor] = state.get("old_stps", [])
        self.scales: list[float] = state.get("ro", [])
        self.diagonal: float = state.get("H_diag", 1)

    def learn(self, change: Tensor, step: Tensor) -> None:
        """Takes in a change of the gradient over a step, if the curvature along it is positive enough."""
        curvature = float(change.dot(step))
        if curvature <= 1e-10:
            return
        if len(self.changes) == self.size:
            for kept in (self.changes, self.steps, self.scales):
                kept.pop(0)
        self.changes.append(change)
        self.steps.append(step)
        self.scales.append(1.0 / curvature)
        self.diagonal = curvature / float(change.dot(change))

    def direction(self, gradient: Tensor) -> Tensor:
        """−H · gradient by the recursion of two loops."""
        count = len(self.changes)
        weights = [0.0] * count
        q = -gradient
        for i in reversed(range(count)):
            weights[i] = float(self.steps[i].dot(q)) * self.scales[i]
            q = q - self.changes[i] * weights[i]
        d = q * self.diagonal
        for i in range(count):
            back = float(self.changes[i].dot(d)) * self.scales[i]
            d = d + self.steps[i] * (weights[i] - back)
        realize_step([], [d], [])
        return d


# Line search ------------------------------------------------------------------------------------------------------
def _cubic_minimum(x1: float, f1: float, g1: float, x2: float, f2: float, g2: float,
                   bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with two slopes is least, within bounds (Nocedal, Wright, eq. 3.59)."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if square < 0:
        return (low + high) / 2.0
    d2 = square**0.5
    if x1 <= x2:
        least = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        least = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(least, low), high)


Point = tuple[float, float, Any, float]
"""A distance, the loss there, the gradient, and the slope."""


def strong_wolfe(evaluate: Evaluate, distance: float, longest: float, loss: float, gradient: Tensor, slope: float,
                 tolerance: float, c1: float = 1e-4, c2: float = 0.9, most: int = 25
                 ) -> tuple[float, Tensor, float, int]:
    """A distance whose loss and slope fulfil the strong Wolfe conditions (Nocedal, Wright 2006, algorithms 3.5, 3.6).

    `longest` is the largest element of the direction. Gives loss, gradient, distance and the evaluations it took.
    """
    start: Point = (0.0, loss, gradient, slope)
    before = start
    now: Point = (distance, *evaluate(distance))
    used, tries = 1, 0
    bracket: list[Point] = []
    while tries < most:
        if now[1] > loss + c1 * now[0] * slope or (tries > 1 and now[1] >= before[1]):
            bracket = [before, now]
            break
        if abs(now[3]) <= -c2 * slope:
            return now[1], now[2], now[0], used
        if now[3] >= 0:
            bracket = [before, now]
            break
        bounds = (now[0] + 0.01 * (now[0] - before[0]), now[0] * 10)
        further = _cubic_minimum(before[0], before[1], before[3], now[0], now[1], now[3], bounds)
        before = now
        now = (further, *evaluate(further))
        used += 1
        tries += 1
    if not bracket:
        bracket = [start, now]
    best, used = _zoom(evaluate, bracket, loss, slope, longest, tolerance, c1, c2, tries, most, used)
    return best[1], best[2], best[0], used


def _zoom(evaluate: Evaluate, bracket: list[Point], loss: float, slope: float, longest: float, tolerance: float,
          c1: float, c2: float, tries: int, most: int, used: int) -> tuple[Point, int]:
    """Narrows a bracket until a point in it fulfils the conditions."""
    stalled = False
    low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
    while tries < most:
        left, right = min(p[0] for p in bracket), max(p[0] for p in bracket)
        if (right - left) * longest < tolerance:
            break
        a, b = bracket
        place = _cubic_minimum(a[0], a[1], a[3], b[0], b[1], b[3])
        margin = 0.1 * (right - left)
        if min(right - place, place - left) < margin:
            if stalled or place >= right or place <= left:
                place = right - margin if abs(place - right) < abs(place - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        new: Point = (place, *evaluate(place))
        used += 1
        tries += 1
        if new[1] > loss + c1 * place * slope or new[1] >= bracket[low][1]:
            bracket[high] = new
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
            continue
        if abs(new[3]) <= -c2 * slope:
            bracket[low] = new
            break
        if new[3] * (bracket[high][0] - bracket[low][0]) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = new
    return bracket[low], used
