"""Random tensors against PyTorch's, bit for bit, recorded draws and host draws taking turns on one state."""

from __future__ import annotations

import pickle
import random as choices
import warnings

import numpy as np
import pytest
import torch

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.ir.indexing import TAKE
from torturous.tensor import generator as generators
from torturous.tensor import random as randoms
from torturous.tensor.applying import apply
from torturous.tensor.tensor import from_array
from torturous.tensor.values import computed_values

FLOATING = ("float32", "float64", "float16", "bfloat16")


def bits(t) -> np.ndarray:
    """A torturous tensor's values as bytes."""
    return np.ascontiguousarray(computed_values(t)).reshape(-1).view(np.uint8)


def oracle_bits(t: torch.Tensor) -> np.ndarray:
    flat = t.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def assert_same(mine, theirs: torch.Tensor) -> None:
    assert tuple(mine.shape) == tuple(theirs.shape)
    assert str(mine.dtype) == str(theirs.dtype)
    np.testing.assert_array_equal(bits(mine), oracle_bits(theirs))


def seed_both(seed: int) -> None:
    generators.manual_seed(seed)
    torch.manual_seed(seed)


def zeros(shape, dtype: str):
    """The same zeros as a torturous and a torch tensor."""
    return from_array(np.zeros(shape, dtypes.by_name(dtype).numpy)), torch.zeros(
        shape, dtype=getattr(torch, dtype)
    )


def assert_same_state() -> None:
    np.testing.assert_array_equal(generators.get_rng_state().numpy(), torch.get_rng_state().numpy())


# Draws ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("bounds", [(0, 1), (-0.3, 0.7), (2.5, 2.6), (-1e3, 1e3), (1, 1)])
def test_uniform(dtype: str, bounds: tuple[float, float]) -> None:
    seed_both(hash((dtype, bounds)) % 1000)
    for shape in [(7,), (33, 41), (0, 3), ()]:
        mine, theirs = zeros(shape, dtype)
        assert_same(mine.uniform_(*bounds), theirs.uniform_(*bounds))
    assert_same_state()


@pytest.mark.parametrize("dtype", FLOATING)
def test_rand_and_randn(dtype: str) -> None:
    seed_both(4)
    kind, theirs = dtypes.by_name(dtype), getattr(torch, dtype)
    for shape in [(5,), (16,), (3, 50), (1000,)]:
        assert_same(randoms.rand(*shape, dtype=kind), torch.rand(*shape, dtype=theirs))
        assert_same(randoms.randn(shape, dtype=kind), torch.randn(shape, dtype=theirs))
    like, theirs_like = zeros((4, 9), dtype)
    assert_same(randoms.rand_like(like), torch.rand_like(theirs_like))
    assert_same(randoms.randn_like(like), torch.randn_like(theirs_like))
    assert_same_state()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32", "bool"])
def test_integers(dtype: str) -> None:
    seed_both(5)
    mine, theirs = zeros((6, 50), dtype)
    bounds = [(0, 2)] if dtype == "bool" else [(0, 10), (3, 100), (0, 1), (17, 18)]
    if dtype in ("int64", "int32"):
        bounds += [(-5, 5), (-(2**27), 2**27 - 1), (-(2**30), 2**30)]
    if dtype == "int64":
        bounds += [(-(2**60), 2**61)]
    for low, high in bounds:
        assert_same(mine.random_(low, high), theirs.random_(low, high))
    assert_same(mine.random_(), theirs.random_())
    if dtype != "bool":
        assert_same(mine.random_(9), theirs.random_(9))
    assert_same_state()


def test_functions_of_integers() -> None:
    seed_both(6)
    assert_same(randoms.randint(10, (4, 5)), torch.randint(10, (4, 5)))
    assert_same(randoms.randint(-3, 10, (4, 5)), torch.randint(-3, 10, (4, 5)))
    assert_same(
        randoms.randint(low=2, high=4, size=(9,), dtype=dtypes.int32),
        torch.randint(low=2, high=4, size=(9,), dtype=torch.int32),
    )
    like, theirs = zeros((3, 3), "float32")
    assert_same(randoms.randint_like(like, 7), torch.randint_like(theirs, 7))
    assert_same(randoms.randint_like(like, 3, 7), torch.randint_like(theirs, 3, 7))
    assert_same(randoms.randperm(17), torch.randperm(17))
    assert_same(randoms.randperm(5, dtype=dtypes.int32), torch.randperm(5, dtype=torch.int32))
    assert_same_state()


@pytest.mark.parametrize("dtype", [*FLOATING, "int64", "uint8", "bool"])
def test_bernoulli(dtype: str) -> None:
    seed_both(7)
    mine, theirs = zeros((5, 60), dtype)
    for p in (0.5, 0.1, 1.0, 0.0):
        assert_same(mine.bernoulli_(p), theirs.bernoulli_(p))
    for width in ("float32", "float64"):
        chances = np.random.default_rng(0).random((5, 60)).astype(width)
        assert_same(mine.bernoulli_(from_array(chances)), theirs.bernoulli_(torch.tensor(chances)))
    assert_same(randoms.bernoulli(from_array(chances)), torch.bernoulli(torch.tensor(chances)))
    assert_same_state()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "name, parameters",
    [
        ("normal_", (0.5, 2.0)),
        ("exponential_", (1.5,)),
        ("geometric_", (0.3,)),
        ("log_normal_", (0.5, 0.25)),
        ("cauchy_", (1.0, 3.0)),
    ],
)
def test_continuous_draws(name: str, parameters: tuple[float, ...], dtype: str) -> None:
    seed_both(8)
    for shape in [(3,), (5,), (40,), (7, 9)]:
        mine, theirs = zeros(shape, dtype)
        assert_same(getattr(mine, name)(*parameters), getattr(theirs, name)(*parameters))
    assert_same_state()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(15,), (16,), (17,), (31,), (4, 8), (3, 5, 7), (64, 65)])
def test_normals_in_groups(shape: tuple[int, ...], dtype: str) -> None:
    """Whole groups of sixteen, and a last one that overlaps; what is drawn next shows how many words they took."""
    seed_both(5)
    mine, theirs = zeros(shape, dtype)
    for parameters in ((), (-1.5, 0.02)):
        assert_same(mine.normal_(*parameters), theirs.normal_(*parameters))
    assert_same(randoms.rand(3), torch.rand(3))


def test_normal_of_tensors() -> None:
    seed_both(9)
    rng = np.random.default_rng(1)
    mean, std = rng.normal(size=(4, 5)).astype("float32"), rng.random((4, 5)).astype("float32")
    mine = [from_array(mean), from_array(std)]
    theirs = [torch.tensor(mean), torch.tensor(std)]
    assert_same(randoms.normal(1.5, 0.5, (3, 4)), torch.normal(1.5, 0.5, (3, 4)))
    np.testing.assert_allclose(
        randoms.normal(*mine).numpy(), torch.normal(*theirs).numpy(), rtol=1e-6, atol=1e-6
    )
    with pytest.raises(RuntimeError, match="std >= 0"):
        randoms.normal(mine[0], from_array(-std))


def test_multinomial() -> None:
    seed_both(10)
    for shape, count, replacement in [
        ((6,), 4, False),
        ((6,), 9, True),
        ((3, 5), 1, False),
        ((3, 5), 8, True),
    ]:
        weights = np.random.default_rng(2).random(shape).astype("float32")
        mine = randoms.multinomial(from_array(weights), count, replacement)
        assert_same(mine, torch.multinomial(torch.tensor(weights), count, replacement))
    assert_same_state()


# Destinations -----------------------------------------------------------------------------------------------
def test_views_are_filled_in_the_order_of_memory() -> None:
    seed_both(11)
    mine, theirs = zeros((8, 12), "float32")
    for cut in (
        lambda t: t.transpose(0, 1),
        lambda t: t[2:5],
        lambda t: t[:, 3:9],
        lambda t: t[1:7:2, ::3],
        lambda t: t.transpose(0, 1)[2:4],
    ):
        cut(mine).uniform_(-1, 1)
        cut(theirs).uniform_(-1, 1)
        assert_same(mine, theirs)
        cut(mine).normal_()
        cut(theirs).normal_()
        assert_same(mine, theirs)
        cut(mine).bernoulli_(0.25)
        cut(theirs).bernoulli_(0.25)
        assert_same(mine, theirs)
    assert_same_state()


def test_leaves_that_require_grad_are_refused() -> None:
    mine = from_array(np.zeros(4, "float32")).requires_grad_()
    before = generators.get_rng_state().numpy().copy()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        mine.uniform_()
    np.testing.assert_array_equal(generators.get_rng_state().numpy(), before)


# States -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(12))
def test_programs_of_draws(seed: int) -> None:
    """Recorded draws, some never used, and host draws in any order leave and give what PyTorch's do."""
    rng = choices.Random(seed)
    seed_both(seed)
    kept = []
    for _ in range(25):
        step = rng.randrange(8)
        size = rng.choice([1, 3, 15, 16, 17, 300, 624, 1300])
        if step == 0:
            kept.append((randoms.rand(size), torch.rand(size)))
        elif step == 1:
            kept.append((randoms.randn(size), torch.randn(size)))
        elif step == 2:
            randoms.rand(size)
            torch.rand(size)
        elif step == 3:
            kept.append((randoms.randint(100, (size,)), torch.randint(100, (size,))))
        elif step == 4:
            kept.append((randoms.randperm(size), torch.randperm(size)))
        elif step == 5 and kept:
            assert_same(*kept.pop(rng.randrange(len(kept))))
        elif step == 6:
            assert_same_state()
        else:
            mine, theirs = zeros((size,), "float64")
            kept.append((mine.uniform_(2, 3), theirs.uniform_(2, 3)))
    for mine, theirs in kept:
        assert_same(mine, theirs)
    assert_same_state()


def test_unused_draws_do_not_pile_up() -> None:
    """Thousands of draws that nobody looks at are still computed now and then."""
    seed_both(12)
    for _ in range(1500):
        randoms.rand(3)
        torch.rand(3)
    state = generators.default_generator._state
    assert state is not None
    assert state.storage.record is None or len(state.storage.record.rows) < 2500
    assert_same(randoms.rand(3), torch.rand(3))


def test_saved_states() -> None:
    seed_both(13)
    randoms.rand(700)
    torch.rand(700)
    saved = generators.get_rng_state()
    first = randoms.rand(10).numpy().copy()
    with generators.fork_rng():
        randoms.randn(31)
        generators.manual_seed(1)
    np.testing.assert_array_equal(randoms.rand(10).numpy(), torch.rand(20)[10:].numpy())
    generators.set_rng_state(saved)
    np.testing.assert_array_equal(randoms.rand(10).numpy(), first)
    generators.set_rng_state(from_array(torch.get_rng_state().numpy()))
    assert_same(randoms.rand(10), torch.rand(10))


def test_generators_are_separate() -> None:
    mine, theirs = generators.Generator(), torch.Generator()
    assert mine.initial_seed() == theirs.initial_seed()
    seed_both(14)
    assert_same(randoms.rand(5, generator=mine), torch.rand(5, generator=theirs))
    assert mine.manual_seed(99) is mine
    theirs.manual_seed(99)
    assert_same(randoms.randn(20, generator=mine), torch.randn(20, generator=theirs))
    other = pickle.loads(pickle.dumps(mine))
    assert_same(randoms.randperm(9, generator=other), torch.randperm(9, generator=theirs))
    assert_same_state()
    assert generators.initial_seed() == torch.initial_seed() == 14
    assert mine.seed() == mine.initial_seed()


def test_a_failed_plan_leaves_the_generator_usable() -> None:
    seed_both(15)
    randoms.rand(3).numpy()
    index = from_array(np.array([0, 1])) + 5
    table = from_array(np.zeros((4, 2), "float32"))
    lost = apply(TAKE, table, index, attributes=(0,)) + randoms.rand(2, 2)
    with pytest.raises(IndexError):
        lost.numpy()
    assert randoms.rand(4).numpy().shape == (4,)


def test_errors() -> None:
    cases = [
        (lambda r, z: z((3,), "float32").uniform_(2, 1), RuntimeError),
        (lambda r, z: z((3,), "int64").uniform_(), NotImplementedError),
        (lambda r, z: z((3,), "float32").normal_(0, -1), RuntimeError),
        (lambda r, z: z((3,), "float32").bernoulli_(1.5), RuntimeError),
        (lambda r, z: z((3,), "float32").exponential_(-1), RuntimeError),
        (lambda r, z: z((3,), "float32").geometric_(1.5), RuntimeError),
        (lambda r, z: z((3,), "uint8").random_(0, 300), RuntimeError),
        (lambda r, z: r.randint(5, 2, (3,)), RuntimeError),
        (lambda r, z: r.rand(-1), RuntimeError),
        (lambda r, z: r.randperm(-1), RuntimeError),
        (lambda r, z: r.rand(3, generator="me"), TypeError),
    ]
    for call, kind in cases:
        with pytest.raises(kind):
            call(torch, lambda *a: zeros(*a)[1])
        with pytest.raises(kind):
            call(randoms, lambda *a: zeros(*a)[0])
    with pytest.raises(UnsupportedError):
        randoms.rand(3, device="cuda")
    with pytest.raises(UnsupportedError):
        generators.Generator("cuda")
    with pytest.raises(TypeError):
        generators.set_rng_state([1, 2])
    with pytest.raises(RuntimeError):
        generators.set_rng_state(from_array(np.zeros(5, np.uint8)))


def test_bounds_beyond_the_significand_warn() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from_array(np.zeros(3, "float32")).random_(0, 2**26)
    assert any("out of bounds" in str(warning.message) for warning in caught)
