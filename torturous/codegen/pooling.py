"""Pooling a convolution's results right after they are computed: what a window's pixels have become, tap after tap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as combinations

from torturous.codegen.combining import Combiner, State, tree
from torturous.codegen.expressions import LANES, KernelWriter, Point


class Pooling:
    """Writes the epilogue of a kernel that pools; without pools, that of any kernel whose results come one by one."""

    def __init__(self, writer: KernelWriter) -> None:
        self.writer = writer
        kernel = writer.kernel
        self.axes = kernel.pooled_axes
        extents = [kernel.axes[axis].constant or 0 for axis in self.axes]
        self.taps = list(combinations(*map(range, extents)))
        """Places in a window, in order."""
        self.combiners = [Combiner(writer, accumulator, LANES) for accumulator in kernel.accumulators[1:]]

    def store(self, point: Point, result: Callable[[int], str]) -> None:
        """Stores what the kernel makes of a vector of windows; `result(tap)` gives the sums of products."""
        w = self.writer
        kernel = w.kernel
        if not self.axes:
            point.accumulated = [result(0)]
        else:
            w.hoist([*(store.expression for store in kernel.stores),
                     *(accumulator.expression for accumulator in kernel.accumulators[1:])], point, *self.axes)
            point.accumulated = ["", *self._pooled(point, result)]
        for store in kernel.stores:
            if not store.inside:
                w.store(w.emit(store.expression, point), store.buffer, store.address, point)

    def _pooled(self, point: Point, result: Callable[[int], str]) -> list[str]:
        """The finished values of what pools."""
        w = self.writer
        seen: list[list[State]] = [[] for _ in self.combiners]
        for number, tap in enumerate(self.taps):
            axes = point.axes | dict(zip(self.axes, tap, strict=True))
            here = Point(axes, point.lane_axis, LANES, point.mask, point.tail, outer=point)
            here.accumulated = [result(number)]
            for store in w.kernel.stores:
                if store.inside:
                    w.store(w.emit(store.expression, here), store.buffer, store.address, here)
            for states, combiner in zip(seen, self.combiners, strict=True):
                states.append(combiner.element(here, number))
        return [combiner.result(self._combined(combiner, states))
                for combiner, states in zip(self.combiners, seen, strict=True)]

    @staticmethod
    def _combined(combiner: Combiner, elements: Sequence[State]) -> State:
        """A window's elements in the order of a reduction; the first of several best is found in any."""
        if not combiner.indexed:
            states = [combiner.begun(element) for element in elements]
            return tree(combiner, [*states, *[None] * (LANES - len(states))])
        state, *rest = elements
        for element in rest:
            state = combiner.feed(state, element, begun=True)
        return state
