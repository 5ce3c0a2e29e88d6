"""The generator and the distributions against PyTorch's CPU generator: bit for bit, in any order of calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from torturous.core import discrete_distributions as discrete
from torturous.core import distributions as draw
from torturous.core import dtypes
from torturous.core.box_muller import fused_multiply_add32, fused_multiply_add64
from torturous.core.mersenne import BLOCK, STATE_BYTES, MersenneTwister

FLOATING = (dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16)
INTEGRAL = (dtypes.uint8, dtypes.int32, dtypes.int64)
TORCH = {dtype: getattr(torch, dtype.name if dtype is not dtypes.bool_ else "bool") for dtype in dtypes.ALL}

Step = Callable[[MersenneTwister], tuple[Any, torch.Tensor]]
"""Makes the same call of both libraries on their generators."""


def saved_state() -> np.ndarray:
    return torch.get_rng_state().numpy()


def pytorch_draws_by_mkl() -> bool:
    """On Intel processors PyTorch seeds a generator of MKL's for `bernoulli_(number)`: one word in all."""
    torch.manual_seed(0)
    torch.empty(100).bernoulli_(0.5)
    drawn = MersenneTwister(seed=0)
    drawn.skip(1)
    return np.array_equal(saved_state(), drawn.get_state())


DRAWS_BY_MKL = pytorch_draws_by_mkl()
VECTOR_NORMALS = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(ours: np.ndarray, theirs: torch.Tensor, dtype: dtypes.DType) -> None:
    assert ours.dtype == dtype.numpy and ours.shape == tuple(theirs.shape)
    raw = theirs.view(torch.int16).numpy() if dtype is dtypes.bfloat16 else theirs.numpy()
    np.testing.assert_array_equal(bits(ours), bits(raw))


# ---- one step of a random program --------------------------------------------------------------------------

sizes = st.one_of(st.integers(0, 40), st.sampled_from([64, 313, 640, 2000]))
shapes = st.one_of(
    sizes.map(lambda n: (n,)), st.just(()), st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(1, 4))
)
floating = st.sampled_from(FLOATING)
bounds = st.floats(-8, 8, allow_subnormal=False)
scales = st.floats(1e-3, 5)
inner_probability = st.floats(0.01, 0.99)


@st.composite
def in_place(draw_: st.DrawFn, kind: str) -> Step:
    """A method of an empty tensor that fills it."""
    shape = draw_(shapes)
    dtype = draw_(floating)
    ours: Callable[[MersenneTwister], np.ndarray]
    if kind == "uniform":
        low, high = sorted((draw_(bounds), draw_(bounds))) if draw_(st.booleans()) else (0.0, 1.0)
        theirs = lambda tensor: tensor.uniform_(low, high)  # noqa: E731
        ours = lambda g: draw.uniform(g, shape, dtype, low, high)  # noqa: E731
    elif kind == "normal":
        mean, std = (draw_(bounds), draw_(scales)) if draw_(st.booleans()) else (0.0, 1.0)
        theirs = lambda tensor: tensor.normal_(mean, std)  # noqa: E731
        ours = lambda g: draw.normal(g, shape, dtype, mean, std)  # noqa: E731
    elif kind == "log_normal":
        mean, std = draw_(st.floats(-3, 3)), draw_(st.floats(0.1, 2))
        theirs = lambda tensor: tensor.log_normal_(mean, std)  # noqa: E731
        ours = lambda g: draw.log_normal(g, shape, dtype, mean, std)  # noqa: E731
    elif kind == "exponential":
        rate = draw_(scales)
        theirs = lambda tensor: tensor.exponential_(rate)  # noqa: E731
        ours = lambda g: draw.exponential(g, shape, dtype, rate)  # noqa: E731
    elif kind == "cauchy":
        median, sigma = draw_(bounds), draw_(scales)
        theirs = lambda tensor: tensor.cauchy_(median, sigma)  # noqa: E731
        ours = lambda g: draw.cauchy(g, shape, dtype, median, sigma)  # noqa: E731
    else:
        assert kind == "geometric"
        dtype = draw_(st.sampled_from(FLOATING + INTEGRAL))
        probability = draw_(st.floats(0.2, 0.99))
        theirs = lambda tensor: tensor.geometric_(probability)  # noqa: E731
        ours = lambda g: draw.geometric(g, shape, dtype, probability)  # noqa: E731

    return lambda g: (ours(g), theirs(torch.empty(shape, dtype=TORCH[dtype])))


@st.composite
def integer_step(draw_: st.DrawFn) -> Step:
    shape = draw_(shapes)
    dtype = draw_(st.sampled_from(dtypes.ALL))
    kind = draw_(st.sampled_from(["both", "none", "low"]))
    if kind == "none":
        return lambda g: (
            discrete.integers(g, shape, dtype),
            torch.empty(shape, dtype=TORCH[dtype]).random_(),
        )
    if dtype.is_floating_point:
        least, greatest = {dtypes.float16: (-2048, 2048), dtypes.bfloat16: (-256, 256)}.get(
            dtype, (-(2**24), 2**24)
        )
        if dtype is dtypes.float64:
            least, greatest = -(2**53), 2**53
    elif dtype is dtypes.bool_:
        least, greatest = 0, 1
    else:
        info = np.iinfo(dtype.numpy)
        least, greatest = int(info.min), int(info.max)
    low = draw_(st.integers(least, greatest - 1))
    if kind == "low":
        return lambda g: (
            discrete.integers(g, shape, dtype, low),
            torch.empty(shape, dtype=TORCH[dtype]).random_(low, None),
        )
    most = greatest - low
    extent = draw_(st.one_of(st.integers(1, most), st.sampled_from([1, 10, 2**28 - 1, 2**28, 2**32])))
    high = low + min(extent, most)
    return lambda g: (
        discrete.integers(g, shape, dtype, low, high),
        torch.empty(shape, dtype=TORCH[dtype]).random_(low, high),
    )


@st.composite
def bernoulli_step(draw_: st.DrawFn) -> Step:
    shape = draw_(shapes)
    dtype = draw_(st.sampled_from(dtypes.ALL))
    if draw_(st.booleans()):
        probability = draw_(st.floats(0, 1))
        if DRAWS_BY_MKL:  # the same words as a float64 tensor of probabilities
            theirs = lambda t: t.bernoulli_(torch.full(shape, probability, dtype=torch.float64))  # noqa: E731
        else:
            theirs = lambda t: t.bernoulli_(probability)  # noqa: E731
        return lambda g: (
            draw.bernoulli(g, shape, dtype, probability),
            theirs(torch.empty(shape, dtype=TORCH[dtype])),
        )
    wide = draw_(floating)
    seed = draw_(st.integers(0, 2**32 - 1))
    probabilities = np.random.default_rng(seed).random(shape[-1:] if draw_(st.booleans()) else shape)
    array = np.asarray(probabilities, wide.numpy)
    tensor = torch.from_numpy(np.asarray(array, np.float64)).to(TORCH[wide])
    return lambda g: (
        draw.bernoulli(g, shape, dtype, array),
        torch.empty(shape, dtype=TORCH[dtype]).bernoulli_(tensor),
    )


@st.composite
def dropout_step(draw_: st.DrawFn) -> Step:
    shape = (
        draw_(st.integers(1, 4)),
        draw_(st.integers(1, 5)),
        *draw_(st.sampled_from([(), (3,), (2, 3), (2, 1, 3)])),
    )
    probability = draw_(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), inner_probability))
    dtype = draw_(floating)
    name = draw_(st.sampled_from(["dropout", "feature", "alpha", "feature_alpha"]))
    mask_shape = draw.feature_shape(shape) if name.startswith("feature") else shape
    function: Callable[..., Any]
    if name == "feature":
        by_dimensions: dict[int, Callable[..., Any]]
        by_dimensions = {2: torch.feature_dropout, 3: F.dropout1d, 4: F.dropout2d, 5: F.dropout3d}
        function = by_dimensions[len(shape)]
    else:
        function = {
            "dropout": F.dropout,
            "alpha": F.alpha_dropout,
            "feature_alpha": F.feature_alpha_dropout,
        }[name]

    def step(g: MersenneTwister) -> tuple[Any, torch.Tensor]:
        ones = torch.ones(shape, dtype=TORCH[dtype])
        kept = np.broadcast_to(draw.dropout_mask(g, mask_shape, probability), shape)
        if "alpha" in name:  # dropped elements have a negative value there, and all are zero for p = 1
            out = function(ones, probability, True)
            return kept, out > 0
        return kept, function(ones, probability, True) != 0

    return step


@st.composite
def choice_step(draw_: st.DrawFn) -> Step:
    if draw_(st.booleans()):
        count = draw_(st.integers(0, 700))
        dtype = draw_(st.sampled_from([dtypes.int64, dtypes.int32, dtypes.float32, dtypes.float64]))
        return lambda g: (discrete.permutation(g, count, dtype), torch.randperm(count, dtype=TORCH[dtype]))
    categories = draw_(st.integers(1, 30))
    rows = draw_(st.sampled_from([(), (1,), (4,)]))
    replacement = draw_(st.booleans())
    samples = draw_(st.integers(1, 50 if replacement else categories))
    # Without replacement, equal quotients (frequent in sixteen bits) have no promised order in PyTorch.
    dtype = draw_(floating) if replacement and samples > 1 else draw_(st.sampled_from(FLOATING[:2]))
    weights = np.random.default_rng(draw_(st.integers(0, 2**32 - 1))).random((*rows, categories)) + 0.01
    array = weights.astype(dtype.numpy)
    tensor = torch.from_numpy(array.astype(np.float64)).to(TORCH[dtype])
    return lambda g: (
        discrete.multinomial(g, array, samples, replacement),
        torch.multinomial(tensor, samples, replacement),
    )


steps = st.one_of(
    *(in_place(k) for k in ("uniform", "normal", "log_normal", "exponential", "cauchy", "geometric")),
    integer_step(),
    bernoulli_step(),
    choice_step(),
    *(() if DRAWS_BY_MKL else (dropout_step(),)),
)


@pytest.mark.skipif(not VECTOR_NORMALS, reason="PyTorch's normals have other bits without AVX2")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, deadline=None)
@given(seed=st.integers(-(2**63), 2**64 - 1), program=st.lists(steps, min_size=1, max_size=6))
def test_any_sequence_of_calls_stays_in_step(seed: int, program: list[Step]) -> None:
    torch.manual_seed(seed)
    generator = MersenneTwister(seed=seed)
    for step in program:
        ours, theirs = step(generator)
        assert_same_bits(ours, theirs, dtypes.by_name(str(theirs.dtype).removeprefix("torch.")))
        np.testing.assert_array_equal(generator.get_state(), saved_state())


# ---- the generator -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**64 - 1),
    counts=st.lists(
        st.one_of(st.integers(0, 5), st.integers(BLOCK - 2, BLOCK + 2), st.just(3000)), max_size=6
    ),
    skips=st.booleans(),
)
def test_words_and_saved_states(seed: int, counts: list[int], skips: bool) -> None:
    torch.manual_seed(seed)
    generator = MersenneTwister(seed=seed)
    assert generator.initial_seed == torch.initial_seed()
    np.testing.assert_array_equal(generator.get_state(), saved_state())
    for count in counts:
        expected = torch.empty(count, dtype=torch.int32).random_().numpy()
        if skips:
            generator.skip(count)
        else:
            words = generator.words(count)
            assert words.dtype == np.uint32
            np.testing.assert_array_equal(words & 0x7FFFFFFF, expected)
        np.testing.assert_array_equal(generator.get_state(), saved_state())


def test_large_draws_cross_the_tempering_pieces() -> None:
    count = 3 * 64 * BLOCK + 7
    torch.manual_seed(5)
    generator = MersenneTwister(seed=5)
    assert_same_bits(draw.uniform(generator, (count,), dtypes.float32), torch.rand(count), dtypes.float32)
    assert np.array_equal(
        generator.words(9) & 0x7FFFFFFF, torch.empty(9, dtype=torch.int32).random_().numpy()
    )


def test_states_travel_both_ways() -> None:
    torch.manual_seed(11)
    torch.randn(3)  # keeps a fourth number
    generator = MersenneTwister()
    generator.set_state(saved_state())
    assert generator.initial_seed == 11 and generator.next_double_normal is not None
    assert_same_bits(draw.normal(generator, (4,), dtypes.float32), torch.randn(4), dtypes.float32)
    draw.normal(generator, (2,), dtypes.float64)
    torch.set_rng_state(torch.from_numpy(generator.get_state()))
    assert_same_bits(
        draw.normal(generator, (5,), dtypes.float64), torch.randn(5, dtype=torch.float64), dtypes.float64
    )


def test_state_is_the_callers() -> None:
    state = MersenneTwister(seed=2).state.copy()
    first, second = MersenneTwister(state), MersenneTwister(state)
    together = np.concatenate([first.words(400), second.words(400), first.words(7)])
    np.testing.assert_array_equal(together, MersenneTwister(seed=2).words(807))


def test_broken_states_are_refused() -> None:
    generator = MersenneTwister(seed=1)
    good = generator.get_state()
    with pytest.raises(RuntimeError, match="size 5056"):
        generator.set_state(good[:-1])
    with pytest.raises(TypeError, match="ByteTensor"):
        generator.set_state(good.astype(np.int32))
    with pytest.raises(RuntimeError, match="Invalid mt19937 state"):
        generator.set_state(np.zeros(STATE_BYTES, np.uint8))
    with pytest.raises(TypeError, match="uint32"):
        MersenneTwister(np.zeros(625, np.int64))
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match="seed"):
            generator.manual_seed(seed)
    np.testing.assert_array_equal(generator.get_state(), good)


# ---- the distributions where the sequences above do not reach ----------------------------------------------


@pytest.mark.skipif(not VECTOR_NORMALS, reason="PyTorch's normals have other bits without AVX2")
@pytest.mark.parametrize("dtype", FLOATING, ids=repr)
@pytest.mark.parametrize("count", [20_000, 20_003])
def test_many_normals(dtype: dtypes.DType, count: int) -> None:
    torch.manual_seed(count)
    generator = MersenneTwister(seed=count)
    expected = torch.empty(count, dtype=TORCH[dtype]).normal_(-1.5, 0.02)
    assert_same_bits(draw.normal(generator, (count,), dtype, -1.5, 0.02), expected, dtype)


@pytest.mark.parametrize("dtype", FLOATING, ids=repr)
def test_strided_destinations_are_filled_by_stride(dtype: dtypes.DType) -> None:
    def both(fill: Callable[[torch.Tensor], Any], ours: Callable[[MersenneTwister], np.ndarray]) -> None:
        torch.manual_seed(8)
        generator = MersenneTwister(seed=8)
        storage = torch.zeros((6, 8), dtype=TORCH[dtype])
        fill(storage)
        assert_same_bits(ours(generator), storage, dtype)
        np.testing.assert_array_equal(generator.get_state(), saved_state())

    both(lambda s: s.t().uniform_(), lambda g: draw.uniform(g, (6, 8), dtype))
    both(lambda s: s.t().normal_(), lambda g: draw.normal(g, (6, 8), dtype, contiguous=False))

    def sliced(g: MersenneTwister) -> np.ndarray:
        storage = np.zeros((6, 8), dtype.numpy)
        storage[:, ::2] = draw.normal(g, (6, 4), dtype, contiguous=False)
        return storage

    both(lambda s: s[:, ::2].normal_(), sliced)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FLOATING), st.integers(-(2**62), 2**62), st.integers(1, 2**62), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_integers_beyond_the_significand(dtype: dtypes.DType, low: int, extent: int, bounded: bool) -> None:
    """PyTorch moves bounds that the dtype cannot hold, or refuses them: so must we."""
    shift = {dtypes.float16: 46}.get(dtype, 0)
    low >>= shift
    high = min(low + max(extent >> shift, 1), 2**63 - 1) if bounded else None
    torch.manual_seed(1)
    generator = MersenneTwister(seed=1)
    try:
        expected = torch.empty(9, dtype=TORCH[dtype]).random_(low, high)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            discrete.integers(generator, (9,), dtype, low, high)
        return
    assert_same_bits(discrete.integers(generator, (9,), dtype, low, high), expected, dtype)


@pytest.mark.parametrize("dtype", [dtypes.int64, dtypes.float64, dtypes.float32, dtypes.bfloat16], ids=repr)
def test_all_64_bits(dtype: dtypes.DType) -> None:
    torch.manual_seed(4)
    expected = torch.empty(50, dtype=TORCH[dtype]).random_(-(2**63), None)
    ours = discrete.integers(MersenneTwister(seed=4), (50,), dtype, -(2**63))
    assert_same_bits(ours, expected, dtype)


def test_integers_warn_where_a_float_has_gaps() -> None:
    with pytest.warns(UserWarning, match="to - 1 is out of bounds"):
        discrete.integers(MersenneTwister(), (2,), dtypes.float32, 0, 2**26)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], ids=repr)
def test_multinomial_without_replacement_in_sixteen_bits(dtype: dtypes.DType) -> None:
    weights = np.array([[5.0, 0.0, 1.0, 2.0], [1.0, 8.0, 0.0, 0.0]])
    tensor = torch.from_numpy(weights).to(TORCH[dtype])
    torch.manual_seed(3)
    generator = MersenneTwister(seed=3)
    for _ in range(50):
        chosen = discrete.multinomial(generator, weights.astype(dtype.numpy), 2)
        np.testing.assert_array_equal(np.sort(chosen), np.sort(torch.multinomial(tensor, 2).numpy()))
        assert all(weights[row, index] > 0 for row in range(2) for index in chosen[row])


@pytest.mark.parametrize("count", [2049, 300])
def test_permutations_of_rounded_numbers(count: int) -> None:
    dtype = dtypes.float16 if count == 2049 else dtypes.bfloat16
    torch.manual_seed(6)
    ours = discrete.permutation(MersenneTwister(seed=6), count, dtype)
    assert_same_bits(ours, torch.randperm(count, dtype=TORCH[dtype]), dtype)


REFUSED: list[tuple[str, Callable[[MersenneTwister], Any], Callable[[], Any]]] = [
    ("uniform", lambda g: draw.uniform(g, (3,), dtypes.float32, 2, 1), lambda: torch.empty(3).uniform_(2, 1)),
    ("uniform", lambda g: draw.uniform(g, (3,), dtypes.float32, -3e38, 3e38),
     lambda: torch.empty(3).uniform_(-3e38, 3e38)),
    ("out of bounds", lambda g: draw.uniform(g, (3,), dtypes.float16, 0, 7e4),
     lambda: torch.empty(3, dtype=torch.half).uniform_(0, 7e4)),
    ("not implemented", lambda g: draw.uniform(g, (3,), dtypes.int32),
     lambda: torch.empty(3, dtype=torch.int32).uniform_()),
    ("std", lambda g: draw.normal(g, (3,), dtypes.float32, 0, -1), lambda: torch.empty(3).normal_(0, -1)),
    ("not implemented", lambda g: draw.normal(g, (3,), dtypes.int64),
     lambda: torch.empty(3, dtype=torch.int64).normal_()),
    ("std", lambda g: draw.log_normal(g, (3,), dtypes.float32, 0, 0),
     lambda: torch.empty(3).log_normal_(0, 0)),
    ("lambda", lambda g: draw.exponential(g, (3,), dtypes.float32, 0),
     lambda: torch.empty(3).exponential_(0)),
    ("floating", lambda g: draw.exponential(g, (3,), dtypes.int32),
     lambda: torch.empty(3, dtype=torch.int32).exponential_()),
    ("p to be in", lambda g: draw.geometric(g, (3,), dtypes.float32, 1),
     lambda: torch.empty(3).geometric_(1)),
    ("not implemented", lambda g: draw.geometric(g, (3,), dtypes.bool_, 0.5),
     lambda: torch.empty(3, dtype=torch.bool).geometric_(0.5)),
    ("sigma", lambda g: draw.cauchy(g, (3,), dtypes.float32, 0, 0), lambda: torch.empty(3).cauchy_(0, 0)),
    ("p to be in", lambda g: draw.bernoulli(g, (3,), dtypes.float32, 2),
     lambda: torch.empty(3).bernoulli_(2)),
    ("every probability", lambda g: draw.bernoulli(g, (3,), dtypes.float32, np.full(3, 1.5)),
     lambda: torch.empty(3).bernoulli_(torch.full((3,), 1.5))),
    ("between 0 and 1", lambda g: draw.dropout_mask(g, (3,), 1.5), lambda: F.dropout(torch.ones(3), 1.5)),
    ("2 dimensions", lambda g: draw.feature_shape((3,)),
     lambda: torch.feature_dropout(torch.ones(3), 0.5, True)),
    ("less than", lambda g: discrete.integers(g, (3,), dtypes.int64, 3, 3),
     lambda: torch.randint(3, 3, (3,))),
    ("Overflow", lambda g: discrete.integers(g, (3,), dtypes.int64, 0, 2**63),
     lambda: torch.randint(0, 2**63, (3,))),
    ("out of bounds", lambda g: discrete.integers(g, (3,), dtypes.uint8, 0, 300),
     lambda: torch.empty(3, dtype=torch.uint8).random_(0, 300)),
    ("out of bounds", lambda g: discrete.integers(g, (3,), dtypes.int32, -(2**31) - 1, 0),
     lambda: torch.empty(3, dtype=torch.int32).random_(-(2**31) - 1, 0)),
    ("handles only", lambda g: discrete.integers(g, (3,), dtypes.float16, -(2**63)),
     lambda: torch.empty(3, dtype=torch.half).random_(-(2**63), None)),
    ("negative", lambda g: discrete.permutation(g, -1), lambda: torch.randperm(-1)),
    ("greater than", lambda g: discrete.permutation(g, 300, dtypes.uint8),
     lambda: torch.randperm(300, dtype=torch.uint8)),
    ("greater than", lambda g: discrete.permutation(g, 2050, dtypes.float16),
     lambda: torch.randperm(2050, dtype=torch.half)),
    ("not implemented", lambda g: discrete.permutation(g, 2, dtypes.bool_),
     lambda: torch.randperm(2, dtype=torch.bool)),
    ("1 or 2 dim", lambda g: discrete.multinomial(g, np.ones((2, 2, 2)), 1),
     lambda: torch.multinomial(torch.ones(2, 2, 2), 1)),
    ("floating", lambda g: discrete.multinomial(g, np.ones(3, np.int64), 1),
     lambda: torch.multinomial(torch.ones(3, dtype=torch.int64), 1)),
    ("n_sample <= 0", lambda g: discrete.multinomial(g, np.ones(3), 0),
     lambda: torch.multinomial(torch.ones(3), 0)),
    ("without replacement", lambda g: discrete.multinomial(g, np.ones(3), 4),
     lambda: torch.multinomial(torch.ones(3), 4)),
    ("element < 0", lambda g: discrete.multinomial(g, np.array([1.0, -1.0]), 2, True),
     lambda: torch.multinomial(torch.tensor([1.0, -1.0]), 2, True)),
    ("element < 0", lambda g: discrete.multinomial(g, np.array([1.0, math.inf]), 1),
     lambda: torch.multinomial(torch.tensor([1.0, math.inf]), 1)),
    ("sum of probabilities", lambda g: discrete.multinomial(g, np.zeros(3), 2),
     lambda: torch.multinomial(torch.zeros(3), 2)),
]  # fmt: skip


@pytest.mark.parametrize("message, ours, theirs", REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_refused_as_pytorch_refuses(
    message: str, ours: Callable[[MersenneTwister], Any], theirs: Callable[[], Any]
) -> None:
    generator = MersenneTwister(seed=0)
    before = generator.get_state()
    with pytest.raises((RuntimeError, ValueError)) as refusal:
        theirs()
    with pytest.raises(refusal.type, match=message):
        ours(generator)
    np.testing.assert_array_equal(generator.get_state(), before)


# ---- the fused multiply-adds -------------------------------------------------------------------------------


def assert_rounds_once(a: float, b: float, c: float, number: type[np.floating]) -> None:
    function = fused_multiply_add32 if number is np.float32 else fused_multiply_add64
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    ours = number(function(number(a), number(b), number(c)))
    for neighbour in np.nextafter(ours, np.array([-np.inf, np.inf], number)):
        assert abs(exact - Fraction(float(ours))) <= abs(exact - Fraction(float(neighbour)))


@settings(max_examples=200, deadline=None)
@given(*(st.floats(-1e9, 1e9, width=32, allow_subnormal=False),) * 3, st.integers(-3, 3))
def test_fused_multiply_adds_round_once(a: float, b: float, c: float, nudge: int) -> None:
    for number in (np.float32, np.float64):
        assert_rounds_once(a, b, c, number)
        product = number(a) * number(b)  # adding about its negative leaves little but the rounding error
        assert_rounds_once(a, b, float(number(nudge) * np.spacing(product) - product), number)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**20),
    st.integers(1, 11),
    st.integers(-40, 40),
    st.booleans(),
    st.sampled_from([-1.0, 1.0]),
)
def test_fused_multiply_adds_near_ties(odd: int, small: int, scale: int, below: bool, sign: float) -> None:
    """A product just beside half a last bit, so that a sum rounded twice would go the wrong way."""
    for number, digits in ((np.float32, 24), (np.float64, 53)):
        last_bit = 2.0 ** (1 - digits)
        c = sign * (1 + (2 * odd + 1) * last_bit) * 2.0**scale
        delta = small * last_bit
        half = last_bit / 2 * 2.0**scale
        # (1 - d) (1 + d) = 1 - d**2: just below a tie; (1 + d) (1 + d) is above it.
        a, b = (1 - delta, 1 + delta) if below else (1 + delta, 1 + delta / 8)
        assert_rounds_once(a * half, b, c, number)
        assert_rounds_once(-a * half, b, c, number)
