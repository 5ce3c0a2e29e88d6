"""Generators of random numbers: PyTorch's CPU generator, whose state rows and the host take turns on.

A draw is reserved when it is recorded, whether or not its values are ever computed: a RANDOM row reads the
state and gives the advanced state, which is the generator's from then on, and raw 32-bit words.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.core.mersenne import STATE_WORDS, MersenneTwister
from torturous.ir.creation import RANDOM
from torturous.ir.movement import SLICE
from torturous.ir.record import context, user_place
from torturous.tensor.applying import apply_typed, note_end
from torturous.tensor.base import TensorBase
from torturous.tensor.shortcuts import shortcut
from torturous.tensor.values import computed_values, look, of_array

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor

DEFAULT_SEED = 67280421310721
"""What a new generator is seeded with, as in PyTorch."""


class Generator:
    """A Mersenne Twister with PyTorch's seeding, draws and saved states. `device` can only be the CPU."""

    def __init__(self, device: Any = "cpu") -> None:
        if str(device) != "cpu":
            raise UnsupportedError(f"Generator: only device 'cpu' is supported, got {device!r}")
        self._lock = threading.RLock()
        self._twister = MersenneTwister(seed=DEFAULT_SEED)
        self._state: TensorBase | None = None
        """The state while rows advance it (int32[625]); None while it is the host's, in `_twister`."""
        self.draws = 0
        """How many draws were recorded."""

    def __repr__(self) -> str:
        return f"<torch.Generator on cpu, initial seed {self._twister.initial_seed}>"

    def __getstate__(self) -> dict[str, Any]:
        with self.host() as twister:
            return {"saved": twister.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Generator.__init__(self)
        self._twister.set_state(state["saved"])

    # Seeds and states ---------------------------------------------------------------------------------------
    def manual_seed(self, seed: int) -> Generator:
        """Starts over from a seed in [-2**63, 2**64); ValueError outside it."""
        look(None)
        with self._lock:
            self._twister.manual_seed(int(seed))
            self._state = None
        return self

    def seed(self) -> int:
        """Starts over from a seed of 53 bits that the operating system gives; returns it."""
        seed = int.from_bytes(os.urandom(8), "little") & (2**53 - 1)
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """What the generator was last seeded with."""
        return self._twister.initial_seed

    def get_state(self) -> Tensor:
        """The state as `torch.get_rng_state` lays it out: uint8[5056]."""
        with self.host() as twister:
            return of_array(twister.get_state(), dtypes.uint8)

    def set_state(self, new_state: TensorBase) -> None:
        """Continues from a saved state. TypeError unless it is a uint8 tensor, RuntimeError if no state."""
        if not isinstance(new_state, TensorBase):
            raise TypeError(f"expected a torch.ByteTensor, but got {type(new_state).__name__}")
        saved = computed_values(new_state)
        look(None)
        with self._lock:
            self._twister.set_state(np.ascontiguousarray(saved))
            self._state = None

    def state(self) -> TensorBase:
        """The tensor that holds the state for rows to advance (int32[625])."""
        with self._lock:
            if self._state is None:
                self._state = of_array(self._twister.state.view(np.int32), dtypes.int32)
            return self._state

    def held(self) -> threading.RLock:
        """The lock that keeps other threads from drawing, as a context manager."""
        return self._lock

    # Draws --------------------------------------------------------------------------------------------------
    @contextmanager
    def host(self) -> Iterator[MersenneTwister]:
        """The generator for draws on the host, its state computed and up to date."""
        look(None)
        with self._lock:
            if self._state is not None:
                self._twister.state[:] = computed_values(self._state).view(np.uint32)
                self._state = None
            yield self._twister

    def drawn(self, draw: Callable[..., tuple[Tensor, Tensor]], *arguments: Any) -> Tensor:
        """What `draw(state, *arguments)` gives: it records a draw, and gives the advanced state beside its result."""
        with self._lock:
            state = self.state()
            self.draws += 1
            state._enter(writing=True)
            result, advanced = draw(state, *arguments)
            record, place = context.record, user_place()
            if advanced._record is record:
                state._write_fresh(advanced._index, record, place)
                note_end(record)
            else:  # So many rows had gathered that these were computed.
                state._write(advanced.row(), place)
            return result

    def raw(self, count: int) -> Tensor:
        """Records a draw: the advanced state, then `count` words, as one int32 tensor."""
        return self.drawn(_raw_words, count)


def words_drawn(state: TensorBase, count: int) -> tuple[Tensor, Tensor]:
    """The rows of a draw: the advanced state with `count` words behind it, and the advanced state alone."""
    both = apply_typed(RANDOM, (STATE_WORDS + count,), dtypes.int32, state)
    return both, apply_typed(SLICE, (STATE_WORDS,), dtypes.int32, both, 0, attributes=((0,), (1,)))


_raw_words = shortcut(operands=1)(words_drawn)


default_generator = Generator()
default_generator.seed()


def raw_words(generator: Generator, count: int) -> Tensor:
    """The next `count` words of a generator as int32[count], recorded."""
    return generator.raw(count).sliced(0, STATE_WORDS, STATE_WORDS + count, 1)


def chosen(generator: Generator | None) -> Generator:
    """The generator given, or the default one."""
    if generator is None:
        return default_generator
    if not isinstance(generator, Generator):
        raise TypeError(f"argument 'generator' must be torch.Generator, not {type(generator).__name__}")
    return generator


# The default generator --------------------------------------------------------------------------------------
def manual_seed(seed: int) -> Generator:
    """Seeds the default generator; gives it."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the operating system; gives the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """What the default generator was last seeded with."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state: uint8[5056]."""
    return default_generator.get_state()


def set_rng_state(new_state: TensorBase) -> None:
    """Continues the default generator from a saved state."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Within it draws leave no trace: the default generator's state is put back afterwards.

    There are no devices but the CPU: `devices` may only be None or empty.
    """
    if devices:
        raise UnsupportedError(f"fork_rng: there is no device but the CPU, got devices={devices!r}")
    if not enabled:
        yield
        return
    saved = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(saved)
