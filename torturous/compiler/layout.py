"""How stored values lie in memory: the order of their axes, outermost first.

Values that only kernels see may lie in any order; leaves and outputs lie as their users expect. Convolutions of samples
that fill vectors want those innermost: then they are the vector lanes, none is wasted on one, ten or twenty channels,
windows of any stride need no shuffling, and pooling, normalization and elementwise kernels in between follow for free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod

from torturous.compiler.graph import Graph, Node
from torturous.compiler.sizes import Size, product
from torturous.core import dtypes
from torturous.ir import contraction
from torturous.ir.op import Kind

Order = tuple[int, ...]
LANES = 16
LONG_LINE = 48
"""Products in a line from which a gradient of weights reads lines in place, wherever they begin and end in vectors."""
MOST_COMPUTED = 1.4
"""Pixels computed for every pixel asked for, up to which lanes are pixels read in place."""
MOST_PRODUCTS = 150
"""Products of a group's results at one place, up to which they are written out."""
FEWEST_SUMMED = 8
"""Channels that are summed: a run of so many products is worth listing."""
MOST_TAPS = 7
"""Taps along a line that may each exist for other pixels of it, and then have a loop of their own."""
FEWEST_PIXELS = 64
"""Where a gradient of weights sums fewer, storing its results takes longer than computing them."""
WHOLE = frozenset({Kind.RANDOM, Kind.SCATTER, Kind.ALONG, Kind.HOST, Kind.REPEAT, Kind.ITEM})
"""What has kernels of its own, which read and write whole values as they are shaped."""
SPECIAL = WHOLE | {Kind.ATTENTION}
"""The same and attention, which reads rows wherever they lie."""


def row_major(rank: int) -> Order:
    return tuple(range(rank))


def samples_innermost(rank: int) -> Order:
    """Pixels, then channels, then samples: all channels of a pixel are a stretch of memory, in whole vectors."""
    return (*range(2, rank - 1), 1, rank - 1, 0) if rank > 2 else (1, 0)


def strides(shape: tuple[Size, ...], order: Order) -> tuple[Size, ...]:
    """Strides in elements of a dense buffer whose axes lie in this order."""
    result = [Size.of(1)] * len(shape)
    for position, axis in enumerate(order):
        result[axis] = product(shape[inner] for inner in order[position + 1:])
    return tuple(result)


def wants_batch_innermost(node: Node) -> bool:
    """Whether a contraction is a convolution, or a gradient of one, of samples that fill vectors: these are lanes."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2 or slides_over_planes(node):
        return False
    samples = batch(node)
    return samples is not None and (samples.is_many or (
        samples.constant is not None and contraction.fills_vectors(samples.constant)))


def batch(node: Node) -> Size | None:
    """The size of the sample axis of a contraction with windows: axis 0 of the operand that is windowed."""
    _, *maps = node.attributes[:3]
    for operand, its_maps in zip(node.inputs, maps, strict=True):
        if len(operand.shape) >= 3 and any(len(contraction.Map(*m).terms) > 1 for m in its_maps):
            return operand.shape[0] if contraction.Map(*its_maps[0]).lone is not None else None
    return None


def reads_in_place(node: Node, words: bool = False) -> bool:
    """Whether a convolution's operands, or those of a gradient of one, are read where they lie: see `codegen.direct`.

    For that every size must be known, but for the number of samples where these are lanes. There, borders are left
    out, and so is what lies between the elements of the operand (a divisor); gradients of weights leave nothing out and
    want a padded copy. Sixteen-bit operands are copied as float32, or as `words` where the machine takes these: for
    that channels must be even.
    """
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2:
        return False
    if node.dtype.is_half and (node.attributes[3:] or (words and node.dtype is dtypes.bfloat16 and not _pairs(node))):
        return False
    if slides_over_planes(node) or sums_over_planes(node):
        return False
    open_sizes = {size for shape in (node.shape, *(x.shape for x in node.inputs)) for size in shape
                  if size.constant is None}
    if open_sizes:
        if open_sizes != {batch(node)} or not wants_batch_innermost(node):
            return False
        return sums_samples_last(node) if node.attributes[3:] else is_windowed(node)
    if node.attributes[3:]:
        return _has_runs_of_products(node)
    return is_windowed(node) if wants_batch_innermost(node) else _runs_along_pixels(node)


def _pairs(node: Node) -> bool:
    """Whether the innermost loop of a sum is an axis of both operands, of an even number of elements."""
    reduced, *maps = node.attributes[:3]
    last = len(node.shape) + reduced - 1
    for operand, its_maps in zip(node.inputs, maps, strict=True):
        stepping = [axis for axis, (terms, _, _) in enumerate(its_maps) if last in dict(terms)]
        if len(stepping) != 1 or contraction.Map(*its_maps[stepping[0]]).lone != last:
            return False
        size = operand.shape[stepping[0]].constant
        if size is None or size % 2:
            return False
    return True


def axis_of(its_maps: Sequence[contraction.Map], loop: int) -> int:
    """The axis of an operand that a loop is."""
    return next(axis for axis, index_map in enumerate(its_maps) if index_map.lone == loop)


def halved(size: Size) -> Size:
    """Of an even size that is known."""
    assert size.constant is not None and size.constant % 2 == 0, "an axis to be halved"
    return Size.of(size.constant // 2)


def slides_over_planes(node: Node) -> bool:
    """Whether a convolution, or the gradient of one's input, keeps channels in groups so small that its window's taps
    are written out (see `codegen.windows`)."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2 or node.attributes[3:] or not is_windowed(node):
        return False
    rank = len(node.shape)
    reduced, *maps = node.attributes[:3]
    maps = [[contraction.Map(*m) for m in its_maps] for its_maps in maps]
    which = next(n for n, its_maps in enumerate(maps) if any(len(m.terms) > 1 for m in its_maps))
    weights = node.inputs[1 - which]
    group = maps[1 - which][0].lone
    if group != 1 or group not in [m.lone for m in maps[which]]:
        return False
    count = product(weights.shape[1:]).constant
    if count is None or count > MOST_PRODUCTS:
        return False
    windows = [m for m in maps[which] if len(m.terms) > 1]
    # Taps come before channels in the sum, in the order of the axes.
    taps = [loop for m in windows for loop, _ in m.terms if loop >= rank]
    if taps != list(range(rank, rank + len(windows))) or reduced > len(windows) + 1 or len(windows) > 3:
        return False
    steps = [next(factor for loop, factor in m.terms if loop < rank) for m in windows]
    if len(windows) == 3 and windows[0].divisor != 1:
        return False
    return all(m.divisor == 1 or step == 1 for m, step in zip(windows, steps, strict=True))


def sums_over_planes(node: Node) -> bool:
    """Whether a contraction is the gradient of such a convolution's weights (see `codegen.windowsums`)."""
    return node.op.kind is Kind.CONTRACT and node.attributes[3:4] == (contraction.PLANEWISE,)


def runs_across_channels(node: Node, words: bool = False) -> bool:
    """Whether the lanes of a convolution, or of the gradient of one's input, are channels of its result: see
    `codegen.channels`. All sizes must be known, these channels must fill vectors, and those that are summed make long
    runs. `words` as in `reads_in_place`."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2 or node.attributes[3:] or not is_windowed(node):
        return False
    if slides_over_planes(node) or wants_batch_innermost(node):
        return False
    if any(size.constant is None for shape in (node.shape, *(x.shape for x in node.inputs)) for size in shape):
        return False
    if words and node.dtype is dtypes.bfloat16 and not _pairs(node):
        return False
    which, channels = channel_loop(node)
    reduced, *maps = node.attributes[:3]
    *_, line = its_maps = [contraction.Map(*m) for m in maps[which]]
    if any(m.divisor != 1 and c != 1 for m in its_maps for loop, c in m.terms if loop < len(node.shape)):
        return False
    summed = [size for size, m in zip(node.inputs[which].shape, its_maps, strict=True)
              if m.lone == len(node.shape) + reduced - 1]
    taps = [size for size, m in zip(node.inputs[1 - which].shape, maps[1 - which], strict=True)
            if contraction.Map(*m).lone in [loop for loop, _ in line.terms]]
    return (channels >= 0 and (node.shape[channels].constant or 0) % LANES == 0 and node.shape[channels] != 0
            and any(size != 1 for size in node.shape[channels + 1:])
            and all((size.constant or 0) >= FEWEST_SUMMED for size in summed) and len(summed) == 1
            and all((size.constant or 0) <= MOST_TAPS for size in taps))


def sums_tap_by_tap(node: Node) -> bool:
    """Whether a contraction is the gradient of a convolution's weights whose lanes are channels of what windows slide
    over: see `codegen.taps`. Its sum runs over samples first, sizes are known, these channels fill vectors."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2 or node.attributes[3:] or node.dtype.is_half:
        return False
    if is_windowed(node) or batch(node) is None or sums_samples_last(node) or _has_divisors(node):
        return False
    if any(size.constant is None for shape in (node.shape, *(x.shape for x in node.inputs)) for size in shape):
        return False
    reduced, *maps = node.attributes[:3]
    which, channels = channel_loop(node)
    rank = len(node.shape)
    upstream = [contraction.Map(*m).lone for m in maps[1 - which]]
    summed = [loop for loop in upstream if loop is not None and loop >= rank]
    windows = [dict(contraction.Map(*m).terms) for m in maps[which] if len(contraction.Map(*m).terms) > 1]
    in_order = summed == list(range(rank, rank + reduced)) and None not in upstream
    slid = all(len(terms) == 2 and sum(loop >= rank for loop in terms) == 1 and all(c > 0 for c in terms.values())
               for terms in windows)
    pixels = [node.inputs[1 - which].shape[axis].constant or 0 for axis, loop in enumerate(upstream) if loop in summed]
    few_lines = prod(pixels) >= FEWEST_PIXELS and prod(pixels[:-1]) <= contraction.MOST_LINES
    single = all(terms.get(loop) == 1 for terms in windows for loop in terms if loop >= rank) and all(
        node.shape[loop] == 1 for terms in windows for loop in terms if loop < rank)
    sizes = {loop: size.constant or 0 for loop, size in enumerate(node.shape)}
    return (in_order and slid and not single and len(windows) == reduced - 1 and channels >= 0 and sizes[channels] > 0
            and sizes[channels] % LANES == 0 and few_lines)


def channel_loop(node: Node) -> tuple[int, int]:
    """Which operand of a convolution windows slide over; the loop that is the channels which are lanes: of the result,
    which the other operand has alone, or in a gradient of weights, of that operand, which it has alone."""
    _, *maps = node.attributes[:3]
    rank = len(node.shape)
    loops = [{loop for terms, _, _ in its_maps for loop, _ in terms if loop < rank} for its_maps in maps]
    which = next(n for n, its_maps in enumerate(maps) if any(len(terms) > 1 for terms, _, _ in its_maps))
    if is_windowed(node):
        own = loops[1 - which] - loops[which]
    else:
        lone = {contraction.Map(*m).lone for m in maps[which]}
        own = {loop for loop in loops[which] - loops[1 - which] if loop in lone}
    return which, (own.pop() if len(own) == 1 else -1)


def channels_together(count: Size) -> int:
    """How many channels of a convolution's result its weights are laid side by side for, where these are lanes."""
    return next(many for many in (4 * LANES, 2 * LANES, LANES) if (count.constant or 0) % many == 0)


def _has_runs_of_products(node: Node) -> bool:
    """Whether a gradient of weights has its products in whole vectors, of samples or of pixels beside each other, or in
    long lines of such."""
    reduced, *maps = node.attributes[:3]
    upstream = node.inputs[0].shape  # Of the convolution's result: samples, groups, channels, pixels.
    line = len(node.shape) + reduced - 2  # Pixels beside each other; the last loop are the samples.
    steps = [dict(contraction.Map(*its_maps[-1]).terms).get(line) for its_maps in maps]
    run = (upstream[0] * upstream[-1] if steps == [1, 1] else upstream[0]).constant
    return run is not None and run > 0 and (run % LANES == 0 or run >= LONG_LINE)


def _has_divisors(node: Node) -> bool:
    _, *maps = node.attributes[:3]
    return any(contraction.Map(*m).divisor != 1 for its_maps in maps for m in its_maps)


def _runs_along_pixels(node: Node) -> bool:
    """Whether a convolution's results lie beside each other, and so does what they are made of, vectors at a time."""
    if not is_windowed(node) or _has_divisors(node):
        return False
    last = len(node.shape) - 1
    _, *maps = node.attributes[:3]
    position = next(n for n, its_maps in enumerate(maps) if any(len(terms) > 1 for terms, _, _ in its_maps))
    terms = dict(contraction.Map(*maps[position][-1]).terms)
    if terms.pop(last, None) != 1 or len(terms) != 1:
        return False
    (tap, dilation), = terms.items()
    weights = node.inputs[1 - position]
    taps = next(size for size, m in zip(weights.shape, maps[1 - position], strict=True)
                if contraction.Map(*m).lone == tap)
    width, lines = node.shape[-1].constant or 1, node.shape[-2].constant or 1
    pitch = max(node.inputs[position].shape[-1].constant or 1, width + ((taps.constant or 1) - 1) * abs(dilation))
    if len(node.shape) > 3:
        pitch *= dict(contraction.Map(*maps[position][-2]).terms).get(last - 1, 0)
    together = (lines - 1) * pitch + width if len(node.shape) > 3 and 0 < pitch < 2 * width else 0
    computed = [-(-width // LANES) * LANES / width if width >= LANES else inf,
                -(-together // LANES) * LANES / (width * lines) if together >= LANES else inf]
    return min(computed) <= MOST_COMPUTED


def is_windowed(node: Node) -> bool:
    """Whether a contraction is a convolution, or the gradient of one's input: windows slide over one operand.

    Its other operand, the weights, is then small beside the first.
    """
    _, *maps = node.attributes[:3]
    windowed = [any(len(contraction.Map(*m).terms) > 1 for m in its_maps) for its_maps in maps]
    if sorted(windowed) != [False, True]:
        return False
    samples = contraction.Map(*maps[windowed.index(True)][0]).lone
    return samples is not None and samples < len(node.shape)


def computes_samples(node: Node) -> bool:
    """Whether a node is what becomes of a convolution's results, in whose kernel lanes are samples.

    As an output of the plan it is better turned afterwards than written sample by sample.
    """
    while node.op.kind is Kind.ELEMENTWISE:
        before = [operand for operand in node.inputs if operand.shape == node.shape and len(operand.users) == 1]
        if len(before) != 1:
            return False
        (node,) = before
    if slides_over_planes(node):
        return False
    return wants_batch_innermost(node) and is_windowed(node)


def sums_samples_last(node: Node) -> bool:
    """Whether a contraction is the gradient of a convolution's weights whose sum runs over samples innermost."""
    if node.op.kind is not Kind.CONTRACT or len(node.inputs) != 2 or batch(node) is None or is_windowed(node):
        return False
    reduced, *maps = node.attributes[:3]
    return all(contraction.Map(*its_maps[0]).lone == len(node.shape) + reduced - 1 for its_maps in maps)


def makes_upstream(node: Node) -> bool:
    """Whether a gradient of weights may compute its first operand, the convolution's gradient, while it goes through
    its products: these are whole vectors of samples, dealt out to lanes."""
    samples = batch(node) if sums_samples_last(node) else None
    return (samples is not None and samples.constant is not None and samples.constant % LANES == 0
            and node.attributes[3:] == (contraction.LANEWISE,) and not node.dtype.is_half and reads_in_place(node))


def products_last(its_maps: Sequence[contraction.Map]) -> Order:
    """The order in which the axes of an operand without windows are loops: those that the sum runs over last."""
    return tuple(sorted(range(len(its_maps)), key=lambda axis: (its_maps[axis].lone or 0)))


def lanes_last(factor: Node) -> Order:
    """The order in which contractions like to read a factor that stays the same: what they keep of it innermost.

    Row-major where that is so already, where it is used otherwise, or where its users disagree.
    """
    usual = row_major(len(factor.shape))
    orders = set()
    for user in factor.users:
        if user.op is not contraction.CONTRACT or user.inputs.count(factor) != 1:
            return usual
        maps = user.attributes[1 + user.inputs.index(factor)]
        loops = [contraction.Map(*index_map).lone for index_map in maps]
        if None in loops:
            return usual
        rank = len(user.shape)
        kept = [axis for axis, loop in enumerate(loops) if loop is not None and loop < rank]
        orders.add((*(axis for axis in usual if axis not in kept), *kept))
    return orders.pop() if len(orders) == 1 else usual


def choose(graph: Graph, stored: set[Node], outputs: set[Node]) -> Callable[[Node], Order]:
    """The order of every stored value, as a function."""
    batches = {batch(node) for node in graph.nodes if wants_batch_innermost(node)}
    fixed = outputs | set(graph.leaves)

    def order(node: Node) -> Order:
        rank = len(node.shape)
        if rank < 3 or node in fixed or node.op.kind in SPECIAL:
            return row_major(rank)
        if any(user.op.kind in SPECIAL for user in node.users):
            return row_major(rank)
        if node.shape[0] in batches:
            return samples_innermost(rank)
        return row_major(rank)

    return order
