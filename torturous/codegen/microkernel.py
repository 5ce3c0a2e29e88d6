"""The register-tiled micro-kernel that every contraction runs through: a batch-reduce matrix product.

A tile of accumulators takes in *runs* of products. Along a run both operands step evenly through memory; from run to
run they may jump anywhere. A packed panel is one long run, a convolution read in place has a run per tap of its
window. (The single building block of Georganas et al., "High-Performance Deep Learning via a Single Building Block",
2020.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torturous.codegen.arithmetic import Arithmetic
from torturous.codegen.builder import Builder, Integer
from torturous.codegen.expressions import LANES
from torturous.codegen.target import Target


@dataclass(frozen=True)
class Tile:
    """The register tile: `rows` broadcasts against `vectors` vectors of LANES."""

    rows: int
    vectors: int

    @property
    def lanes(self) -> int:
        return self.vectors * LANES

    @property
    def slowness(self) -> float:
        """How much longer a multiply-add takes than in the best of tiles: loads for each, and chains of them that are
        too few to hide how long one takes."""
        chains = self.rows * self.vectors
        return max(1.0, FEWEST_ACCUMULATORS / chains) * (1 + (self.rows + self.vectors) / chains / 2)


FEWEST_ACCUMULATORS = 8
"""Chains that hide how long a multiply-add takes."""


def registers_each(target: Target, itemsize: int) -> int:
    """Registers that a vector of LANES elements takes; those of sixteen bits are computed in single precision."""
    return max(1, LANES * max(itemsize, 4) // (target.lanes * 4))


def vectors_held(target: Target, itemsize: int) -> int:
    """Vectors of LANES that registers hold, leaving two for what is on its way."""
    return max(target.registers - 2, 4) // registers_each(target, itemsize)


def most_rows(target: Target, itemsize: int, vectors: int) -> int:
    """Rows of a tile of so many vectors at most: registers hold it, and a line of lanes beside it."""
    return max(1, (vectors_held(target, itemsize) - vectors) // vectors)


CACHE_LINE = 64
MOST_UNROLLED = 128
"""Multiply-adds in the body of the loop along a run, about."""


class Ahead(NamedTuple):
    """Memory to be fetched on the way, a cache line at each turn of the loop along a run: stretches of `bytes`, the
    next of which begins `stride` bytes after the one before."""

    place: str
    bytes: Integer
    stride: Integer


@dataclass(frozen=True)
class MicroKernel:
    """How a tile's operands lie, in bytes: steps from product to product, and the stride from row to row."""

    builder: Builder
    arithmetic: Arithmetic
    tile: Tile
    lane_step: Integer
    row_step: Integer
    row_stride: Integer

    def zeros(self) -> list[str]:
        """A tile before its first product."""
        return [self.arithmetic.constant(0)] * (self.tile.rows * self.tile.vectors)

    def unroll(self, length: int) -> int:
        """How many products of runs of this length the loop's body takes, leaving none over."""
        most = max(1, MOST_UNROLLED // (self.tile.rows * self.tile.vectors))
        return next(count for count in range(min(most, length), 0, -1) if length % count == 0)

    def run(self, lanes: str, rows: str, count: Integer, state: list[str], unroll: int, ahead: Ahead | None = None
            ) -> list[str]:
        """The tile after `count` more products: acc[row][vector] += row[k] · lane[k]. What is `ahead` is fetched
        meanwhile, as far as it comes."""
        if isinstance(count, int) and count <= unroll:
            for k in range(count):
                state = self._product(lanes, rows, k, state)
            return state
        full = count if unroll == 1 else count - count % unroll if isinstance(count, int) else (
            self.builder.sub(count, self.builder.rem(count, unroll)))
        lanes, rows, *state = self._loop(0, full, unroll, [lanes, rows, *state], ahead)
        if full != count:
            lanes, rows, *state = self._loop(full, count, 1, [lanes, rows, *state])
        return state

    def _loop(self, start: Integer, stop: Integer, unroll: int, values: list[str], ahead: Ahead | None = None
              ) -> list[str]:
        b = self.builder
        carried: list[tuple[str, Integer]] = list(zip(
            ["ptr", "ptr", *[self.arithmetic.kind] * (len(values) - 2)], values, strict=True))
        if ahead is not None:
            carried += [("ptr", ahead.place), ("i64", 0)]
        loop = b.begin_loop(start, stop, unroll, carried)
        lanes, rows, *state = loop.carried[:len(values)]
        onward: list[Integer] = []
        if ahead is not None:
            onward = self._fetch(ahead, *loop.carried[len(values):])
        for k in range(unroll):
            state = self._product(lanes, rows, k, state)
        moved = [b.offset(lanes, b.mul(self.lane_step, unroll)), b.offset(rows, b.mul(self.row_step, unroll))]
        return b.end_loop(loop, [*moved, *state, *onward])[:len(values)]

    def _fetch(self, ahead: Ahead, stretch: str, offset: str) -> list[Integer]:
        """Fetches a line of the stretch; the stretch and the offset of the next."""
        b = self.builder
        b.prefetch(b.offset(stretch, offset), level=2)
        further = b.add(offset, CACHE_LINE)
        past = b.compare("sge", further, ahead.bytes)
        return [b.choose(past, b.offset(stretch, ahead.stride), stretch, "ptr"), b.choose(past, 0, further)]

    def _product(self, lanes: str, rows: str, k: int, state: list[str]) -> list[str]:
        b, e, tile = self.builder, self.arithmetic, self.tile
        size = e.dtype.itemsize
        line = b.offset(lanes, b.mul(self.lane_step, k))
        vectors = [b.load(e.kind, b.offset(line, v * LANES * size), size) for v in range(tile.vectors)]
        result = []
        step = b.mul(self.row_step, k)
        if not isinstance(step, int):
            rows, step = b.offset(rows, step), 0
        for row in range(tile.rows):
            place = b.offset(rows, b.add(b.mul(self.row_stride, row), step))
            factor = e.splat(b.load(e.scalar, place, size))
            for v in range(tile.vectors):
                result.append(e.multiply_add(factor, vectors[v], state[row * tile.vectors + v]))
        return result

    # The tile in memory ------------------------------------------------------------------------------------------
    def join(self, state: list[str], out: str, stride: Integer, fresh: bool | str) -> None:
        """Adds the chains of a block to the tile in memory, whose rows lie `stride` bytes apart; or begins it."""
        self.put(self.joined(state, out, stride, fresh), out, stride)

    def joined(self, state: list[str], out: str, stride: Integer, fresh: bool | str) -> list[str]:
        """The chains of a block added to the tile in memory; themselves where they are fresh.

        `fresh` may be an i1 that is known at run time only.
        """
        if isinstance(fresh, bool):
            return state if fresh else self._sums(state, out, stride)
        b = self.builder
        before, join, done = b.block, b.label("join"), b.label("joined")
        b.emit(f"br i1 {fresh}, label %{done}, label %{join}")
        b.start_block(join)
        sums = self._sums(state, out, stride)
        b.emit(f"br label %{done}")
        b.start_block(done)
        return [b.value(f"phi {self.arithmetic.kind} [ {value}, %{before} ], [ {total}, %{join} ]")
                for value, total in zip(state, sums, strict=True)]

    def _places(self, out: str, stride: Integer) -> list[str]:
        b, size = self.builder, self.arithmetic.dtype.itemsize
        return [b.offset(out, b.add(b.mul(stride, row), v * LANES * size))
                for row in range(self.tile.rows) for v in range(self.tile.vectors)]

    def _sums(self, state: list[str], out: str, stride: Integer) -> list[str]:
        e, size = self.arithmetic, self.arithmetic.dtype.itemsize
        before = [self.builder.load(e.kind, place, size) for place in self._places(out, stride)]
        return [e.add(old, value) for old, value in zip(before, state, strict=True)]

    def put(self, state: list[str], out: str, stride: Integer) -> None:
        """Writes the tile to memory."""
        e, size = self.arithmetic, self.arithmetic.dtype.itemsize
        for place, value in zip(self._places(out, stride), state, strict=True):
            self.builder.store(e.kind, value, place, size)
