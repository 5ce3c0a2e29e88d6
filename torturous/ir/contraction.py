"""The contraction: a sum of products over affine index maps.

Matrix products, convolutions of any rank, and all of their gradients are this one op. A *loop* is an axis of the
result (numbered from 0) or a reduced axis (numbered after those). Each operand axis has an index map

    index = (Σ coefficient · loop + offset) / divisor

that reads as zero where it is not whole or outside the operand. The sum is taken over the reduced loops in
row-major order, in blocks of BLOCK products: a block is one chain of multiply-adds, each rounded once, from zero;
block results are added in order. The order thus depends on the reduced extents alone.

Sixteen-bit operands are multiplied and added as float32, and the result is rounded once. Some machines have an
instruction for bfloat16 that takes subnormal elements and sums for zero: see `codegen.pairs`.

A contraction marked LANEWISE (the gradient of the weights of most convolutions) deals its products out
to LANES chains, product k to chain k mod LANES, in blocks of BLOCK products a chain; block results are added chain by
chain, and the chains are combined pairwise at the end (l with l+8, +4, +2, +1).

One marked PLANEWISE (the same gradient where channels keep to themselves, and samples do not fill vectors) is like
that, but its lines are set apart and its planes filled: behind each line, the last reduced loop, come `gap` products
that are zero, and behind each plane, the last `depth` loops, as many as make its length a multiple of LANES.

The reduced loops of a convolution run over the window first and the channels last: a window's tap either exists for
all channels or lies outside, and channels of one tap are a run in memory for whoever stores them last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from torturous.core import dtypes
from torturous.core.box_muller import fused_multiply_add32, fused_multiply_add64
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import Attributes, Kind, Op, Type, define

BLOCK = 256
LANES = 16
FEW_CHANNELS = 32
MOST_CHANNELS = 256
"""The gradient of a convolution's weights is LANEWISE where channels are few, whatever the batch; where they are more,
if whole vectors of products lie beside each other; not where they are most: such layers have few pixels, whose products
do not pay for combining the lanes. Nor where channels fill vectors and samples do not (see `_taps_by_channels`)."""
MOST_LINES = 1 << 12
"""Of pixels, over which such a gradient is summed tap by tap: each is listed."""
MOST_WASTED = 6, 5
"""Samples computed for every sample asked for, up to which lanes are samples: as a fraction."""
LANEWISE = "lanewise"
"""A fourth attribute: see the module's text."""
PLANEWISE = "planewise"
"""The same, with gap and depth behind it."""
MOST_PAIRS = 32
"""Pairs of channels of a group up to which each pair's gradient is a sum over planes of its own."""


class Map(NamedTuple):
    """Where one operand axis is read: see the module's text."""

    terms: tuple[tuple[int, int], ...]
    """(loop, coefficient), coefficients not zero."""
    offset: int = 0
    divisor: int = 1

    @property
    def lone(self) -> int | None:
        """The loop that this map simply is, if it is one."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and self.offset == 0 and self.divisor == 1:
            return self.terms[0][0]
        return None


def lone(loop: int) -> Map:
    return Map(((loop, 1),))


def fills_vectors(samples: int) -> bool:
    """Whether vectors of samples waste few lanes: the last one reaches back over those before it."""
    computed, asked = MOST_WASTED
    return samples >= LANES and -(-samples // LANES) * LANES * asked <= computed * samples


def loop_extents(attributes: Attributes, out: Shape, a: Shape, b: Shape) -> Shape:
    """Extents of all loops: of the result, then of the reduced ones, read off the operand axes they index alone."""
    reduced, maps_a, maps_b = attributes[:3]
    extents: list[int | None] = [*out, *[None] * reduced]
    for maps, shape in ((maps_a, a), (maps_b, b)):
        for index_map, size in zip(maps, shape, strict=True):
            loop = Map(*index_map).lone
            if loop is not None and extents[loop] is None:
                extents[loop] = size
    assert None not in extents, "a reduced loop that no operand axis is"
    return tuple(extents)  # type: ignore[arg-type]


def accumulator(dtype: DType) -> DType:
    return dtypes.float32 if dtype.is_half else dtype


def _gathered(x: np.ndarray, maps: Sequence[Map], extents: Shape) -> np.ndarray:
    """An operand spread over the whole loop space (a reference, for small cases)."""
    loops = np.indices(extents, sparse=True)
    valid = np.ones(extents, bool)
    index = []
    for axis, (terms, offset, divisor) in enumerate(maps):
        position: Any = offset
        for loop, coefficient in terms:
            position = position + loops[loop] * coefficient
        valid = valid & (position % divisor == 0)
        position = position // divisor
        valid = valid & (position >= 0) & (position < x.shape[axis])
        index.append(np.broadcast_to(np.clip(position, 0, max(x.shape[axis] - 1, 0)), extents))
    if not x.size:
        return np.zeros(extents, x.dtype)
    return np.where(valid, x[tuple(index)], x.dtype.type(0))


_MULTIPLY_ADD = {"float32": fused_multiply_add32, "float64": fused_multiply_add64}


def _meaning(out: Type, at: Attributes, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    _, maps_a, maps_b = at[:3]
    extents = loop_extents(at, out.shape, a.shape, b.shape)
    working = accumulator(out.dtype).numpy
    total_products = prod(extents[len(out.shape):])
    left = _gathered(a.astype(working), maps_a, extents).reshape(prod(out.shape), total_products)
    right = _gathered(b.astype(working), maps_b, extents).reshape(prod(out.shape), total_products)
    if at[3:4] == (PLANEWISE,):
        left, right = (_filled_planes(side, extents[len(out.shape):], *at[4:]) for side in (left, right))
    if at[3:]:
        total_products = left.shape[1]
        filled = -(-total_products // LANES) * LANES
        left, right = (np.pad(side, ((0, 0), (0, filled - total_products))) for side in (left, right))
        left, right = (side.reshape(len(side), filled // LANES, LANES).transpose(0, 2, 1) for side in (left, right))
        left, right = (side.reshape(prod(out.shape) * LANES, filled // LANES) for side in (left, right))
        chains = _chained(left, right, BLOCK).reshape(prod(out.shape), LANES)
        while chains.shape[1] > 1:
            half = chains.shape[1] // 2
            chains = chains[:, :half] + chains[:, half:]
        total = chains[:, 0]
    else:
        total = _chained(left, right, BLOCK)
    return total.reshape(out.shape).astype(out.dtype.numpy)


def _filled_planes(side: np.ndarray, extents: Shape, gap: int, depth: int) -> np.ndarray:
    """Products as PLANEWISE counts them: lines set apart by zeros, planes filled with zeros."""
    side = side.reshape(len(side), *extents)
    side = np.pad(side, [(0, 0)] * len(extents) + [(0, gap)])
    planes = side.ndim - depth
    side = side.reshape(*side.shape[:planes], prod(side.shape[planes:]))
    side = np.pad(side, [(0, 0)] * (side.ndim - 1) + [(0, -side.shape[-1] % LANES)])
    return side.reshape(len(side), prod(side.shape[1:]))


def _chained(left: np.ndarray, right: np.ndarray, block: int) -> np.ndarray:
    """Sums of products over the last axis, in blocks of chained multiply-adds."""
    working = left.dtype
    total = np.zeros(left.shape[0], working)
    multiply_add = _MULTIPLY_ADD.get(working.name, lambda a, b, c: a * b + c)
    with np.errstate(all="ignore"):
        for start in range(0, left.shape[1], block):
            chain = np.zeros_like(total)
            for k in range(start, min(start + block, left.shape[1])):
                chain = multiply_add(left[:, k], right[:, k], chain)
            total = chain if start == 0 else total + chain
    return total


def _substitute(index_map: Map, loop: int, solution: Map) -> Map:
    """Replaces a loop by the map that solves for it."""
    coefficient = dict(index_map.terms).get(loop)
    if coefficient is None:
        return index_map
    if solution.divisor == 1:
        terms = dict(index_map.terms)
        del terms[loop]
        for other, factor in solution.terms:
            terms[other] = terms.get(other, 0) + coefficient * factor
        kept = tuple((other, factor) for other, factor in sorted(terms.items()) if factor)
        return Map(kept, index_map.offset + coefficient * solution.offset, index_map.divisor)
    if index_map.lone == loop:
        return solution
    raise NotImplementedError("a contraction whose two operands both step through the same loop with a stride")


def _gradient_rule(position: int) -> Any:
    """The gradient of one operand: a contraction of the result's gradient with the other operand."""

    def rule(g: Any, out: Any, at: Attributes, a: Any, b: Any) -> Any:
        _, *both = at[:3]
        mine = [Map(*m) for m in both[position]]
        theirs = [Map(*m) for m in both[1 - position]]
        operand, other = (a, b) if position == 0 else (b, a)
        rank = len(out.shape)
        upstream = [lone(loop) for loop in range(rank)]
        total = rank + at[0]
        # New loops, numbered from `total` on, are this operand's axes; each eliminates one old loop.
        eliminated: set[int] = set()
        for axis, index_map in enumerate(mine):
            target = total + axis
            candidates = [(loop, c) for loop, c in index_map.terms if c > 0 and loop not in eliminated]
            loop, factor = candidates[0]
            terms = [(target, index_map.divisor)]
            terms += [(other_loop, -c) for other_loop, c in index_map.terms if other_loop != loop]
            solution = Map(tuple(terms), -index_map.offset, factor)
            eliminated.add(loop)
            upstream = [_substitute(m, loop, solution) for m in upstream]
            theirs = [_substitute(m, loop, solution) for m in theirs]
        remaining = [loop for loop in range(total) if loop not in eliminated]
        windowed = {loop for m in [*upstream, *theirs] if len(m.terms) > 1 for loop, _ in m.terms}
        order: tuple = ()
        if 0 in remaining and windowed:
            grouped = mine[0].lone == 1 and any(Map(*m).lone == 1 for m in both[1 - position])
            order = _order_of_sum(out.shape, operand, theirs, grouped)
        if order[:1] != (PLANEWISE,) and (0 not in remaining or order or out.shape[0] % LANES == 0):
            remaining.sort(key=lambda loop: loop not in windowed)
        numbering = {total + axis: axis for axis in range(len(mine))}
        numbering |= {loop: len(mine) + position for position, loop in enumerate(remaining)}

        def renumber(maps: list[Map]) -> tuple[Map, ...]:
            return tuple(
                Map(tuple(sorted((numbering[loop], c) for loop, c in m.terms)), m.offset, m.divisor) for m in maps
            )

        attributes = (len(remaining), renumber(upstream), renumber(theirs), *order)
        return g.apply_typed(CONTRACT, operand.shape, operand.dtype, other, attributes=attributes)

    return rule


def _order_of_sum(out: Shape, weights: Any, windows: list[Map], grouped: bool) -> tuple:
    """How a gradient of weights is summed up: further attributes of its contraction.

    `windows` are the maps of what the convolution reads, in which the weights' spatial axes are loops by now; if it is
    `grouped`, the weights' first axis are the groups.
    """
    slid = [index_map for index_map in windows if len(index_map.terms) > 1]
    spatial = len(slid)
    own = weights.shape[:len(weights.shape) - spatial]
    samples, width = out[0], out[-1]
    if grouped and not fills_vectors(samples) and prod(own[1:]) <= MOST_PAIRS and all(m.divisor == 1 for m in slid):
        (_, stride), (_, spacing) = slid[-1].terms
        gap = -(-abs(spacing) * (weights.shape[-1] - 1) // stride)
        return PLANEWISE, gap, min(spatial, 2)
    if _taps_by_channels(out, weights, slid):
        return ()
    channels = max(own[1:] if grouped else own)
    vectors = samples % LANES == 0 or (samples == 1 and width % LANES == 0)
    return (LANEWISE,) if channels <= FEW_CHANNELS or (channels <= MOST_CHANNELS and vectors) else ()


def _taps_by_channels(out: Shape, weights: Any, slid: list[Map]) -> bool:
    """Whether such a gradient is best summed tap by tap, with the channels that windows slide over as lanes: no tap is
    multiplied where it lies outside."""
    spatial = len(slid)
    channels, taps = weights.shape[-spatial - 1], weights.shape[len(weights.shape) - spatial:]
    lines = out[0] * prod(out[len(out) - spatial:-1])
    return (not fills_vectors(out[0]) and not weights.dtype.is_half and channels > 0 and channels % LANES == 0
            and prod(taps) > 1 and lines <= MOST_LINES
            and all(m.divisor == 1 and all(c > 0 for _, c in m.terms) for m in slid))


def _infer(at: Attributes, operands: Sequence[Type]) -> Type:
    raise NotImplementedError("the shape of a contraction is worked out by whoever records it")


CONTRACT = define(Op(
    "contract", Kind.CONTRACT, None, _meaning, (_gradient_rule(0), _gradient_rule(1)), ((1,), (0,)),
    document="attributes: number of reduced loops, maps of the first and of the second operand"))


@cache
def matrix_product(batch: int) -> Attributes:
    """(…, M, K) @ (…, K, N) with `batch` leading axes common to both."""
    lead = tuple(lone(loop) for loop in range(batch))
    m, n, k = (lone(batch + position) for position in range(3))
    return 1, (*lead, m, k), (*lead, k, n)


@cache
def rows_product(rank: int) -> Attributes:
    """(…, K) @ (K, N) for a left factor of this rank: all its leading axes are rows."""
    lead = tuple(lone(loop) for loop in range(rank - 1))
    return 1, (*lead, lone(rank)), (lone(rank), lone(rank - 1))


@cache
def linear(rank: int) -> Attributes:
    """x(…, I) with weight(O, I): the last axis of x contracted with the last of weight."""
    lead = tuple(lone(loop) for loop in range(rank - 1))
    return 1, (*lead, lone(rank)), (lone(rank - 1), lone(rank))


def convolution(stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], grouped: bool,
                separate: bool = False) -> Attributes:
    """x(N, [G,] C, …) with weight([G,] O, C, …) to (N, [G,] O, …): cross-correlation, as in PyTorch.

    Channels that are `separate` have a group each: x(N, C, …) with weight(C, 1, …) to (N, C, …).
    """
    spatial = len(stride)
    first = 3 if grouped else 2  # The result's loops: n, [g,] o, spatial…
    rank = first + spatial
    channel = rank + spatial
    kernel = [rank + axis for axis in range(spatial)]
    windows = tuple(
        Map(tuple(sorted(((first + axis, stride[axis]), (kernel[axis], dilation[axis])))), -padding[axis])
        for axis in range(spatial)
    )
    group = (lone(1),) if grouped else ()
    x_maps = (lone(0), *group, lone(1 if separate else channel), *windows)
    weight_maps = (*group, lone(first - 1), lone(channel), *map(lone, kernel))
    return 1 + spatial, x_maps, weight_maps


def transposed_convolution(
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], grouped: bool, separate: bool = False
) -> Attributes:
    """x(N, [G,] C, …) with weight([G,] C, O, …) to (N, [G,] O, …): the gradient of a convolution, as in PyTorch.

    Channels that are `separate` have a group each: x(N, C, …) with weight(C, 1, …) to (N, C, …).
    """
    spatial = len(stride)
    first = 3 if grouped else 2
    rank = first + spatial
    channel = rank + spatial
    kernel = [rank + axis for axis in range(spatial)]
    windows = tuple(
        Map(tuple(sorted(((first + axis, 1), (kernel[axis], -dilation[axis])))), padding[axis], stride[axis])
        for axis in range(spatial)
    )
    group = (lone(1),) if grouped else ()
    if separate:
        return 1 + spatial, (lone(0), lone(1), *windows), (lone(1), lone(channel), *map(lone, kernel))
    x_maps = (lone(0), *group, lone(channel), *windows)
    weight_maps = (*group, lone(channel), lone(first - 1), *map(lone, kernel))
    return 1 + spatial, x_maps, weight_maps


def unfolded(x: Shape, out: Shape, kernel: Shape, transposing: Sequence[Sequence[int]]) -> bool:
    """Whether a transposed convolution, or the gradient of a convolution's input, is a matrix product: its windows lie
    side by side, so that every place of the result has one tap. `transposing` are stride, padding and dilation.

    Not where samples are lanes, whose kernels leave out the taps that are not there, nor where blocks of products would
    begin elsewhere: a sample's result does not depend on how many there are.
    """
    stride, padding, dilation = transposing
    side_by_side = tuple(stride) == kernel and not any(padding) and set(dilation) == {1} and out[2:] == tuple(
        places * taps for places, taps in zip(x[2:], kernel, strict=True))
    return side_by_side and not fills_vectors(x[0]) and (BLOCK % max(x[1], 1) == 0 or x[1] % BLOCK == 0)


def unfolding(spatial: int) -> Attributes:
    """x(N, C, …) with weight(C, O, …) to (N, O, places, taps, places, taps, …)."""
    channel = 2 + 2 * spatial
    x_maps = (lone(0), lone(channel), *(lone(2 + 2 * axis) for axis in range(spatial)))
    return 1, x_maps, (lone(channel), lone(1), *(lone(3 + 2 * axis) for axis in range(spatial)))


__all__ = ["BLOCK", "CONTRACT", "Map", "accumulator", "convolution", "linear", "lone", "loop_extents",
           "matrix_product", "rows_product", "transposed_convolution", "unfolded", "unfolding"]
