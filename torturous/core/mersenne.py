"""The Mersenne Twister MT19937 with the state and the seeding of PyTorch's CPU generator.

Source of the algorithm: Matsumoto and Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed
uniform pseudo-random number generator", ACM TOMACS 8 (1998), with the initialization of 2002.

The state is one caller-owned `uint32[625]`: the block of 624 untempered words and, last, the *position*: how
many words of the block have been given out. Position 0 (just seeded) and 624 (block used up) both mean that
the next word twists the block first; a kernel that draws words tests `position % 624 == 0`. The two are kept
apart because PyTorch's saved states keep them apart.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 624
"""Words in the block."""
STATE_WORDS = BLOCK + 1
"""Words in the caller's array: the block and the position."""
STATE_BYTES = 5056
"""Length of PyTorch's saved generator state (`torch.get_rng_state().numel()`)."""

_OFFSET = 397
_LEAD = BLOCK - _OFFSET
_UPPER = np.uint32(0x80000000)
_LOWER = np.uint32(0x7FFFFFFF)
_MATRIX = np.uint32(0x9908B0DF)
_ONE = np.uint32(1)
_INITIAL_MULTIPLIER = 1812433253

_TEMPER_BLOCKS = 64
"""Blocks drawn between two temperings: small enough for the words to be in the cache still."""

# PyTorch's saved state: seed, words left + 1, seeded, next word, the block as 64-bit words, three doubles of
# which the middle one is the kept double-precision normal, its validity, padding, the kept single-precision
# normal, its validity, padding; little-endian on every machine that PyTorch runs on.
_SAVED = struct.Struct(f"<Qiiq{8 * BLOCK}sdddi4xf?3x")


def seed_value(seed: int) -> int:
    """The 64-bit seed that PyTorch makes of an argument of `manual_seed`.

    Negative seeds count from 2**64 downwards. Raises ValueError outside [-2**63, 2**64).
    """
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"manual_seed expects a seed in [-2**63, 2**64), got {seed}")
    return seed % 2**64


def _initial_block(seed: int) -> NDArray[np.uint32]:
    """The block for a 32-bit seed."""
    words = [seed]
    for index in range(1, BLOCK):
        previous = words[-1]
        words.append((_INITIAL_MULTIPLIER * (previous ^ (previous >> 30)) + index) & 0xFFFFFFFF)
    return np.array(words, dtype=np.uint32)


def _twist(block: NDArray[np.uint32]) -> None:
    """Replace the block by the next one, in place.

    Word i of the new block needs words i and i + 1 of the old one, and word i + 397 of the old one or,
    wrapping around, word i - 227 of the new one: so all the bit mixing is done at once and the rest in runs
    of 227.
    """
    mixed = (block[:-1] & _UPPER) | (block[1:] & _LOWER)
    mixed = (mixed >> _ONE) ^ ((mixed & _ONE) * _MATRIX)
    last = block[-1:] & _UPPER
    block[:_LEAD] = block[_OFFSET:] ^ mixed[:_LEAD]
    block[_LEAD : 2 * _LEAD] = block[:_LEAD] ^ mixed[_LEAD : 2 * _LEAD]
    block[2 * _LEAD : -1] = block[_LEAD : _OFFSET - 1] ^ mixed[2 * _LEAD :]
    last |= block[:1] & _LOWER
    block[-1:] = block[_OFFSET - 1 : _OFFSET] ^ (last >> _ONE) ^ ((last & _ONE) * _MATRIX)


def _temper(words: NDArray[np.uint32]) -> None:
    """Turn words of the block into output words, in place."""
    words ^= words >> np.uint32(11)
    words ^= (words << np.uint32(7)) & np.uint32(0x9D2C5680)
    words ^= (words << np.uint32(15)) & np.uint32(0xEFC60000)
    words ^= words >> np.uint32(18)


class MersenneTwister:
    """PyTorch's CPU generator over a state that the caller owns.

    `state` is a contiguous uint32[625] which the generator reads and changes in place (see the module's
    text), so that a native kernel and this class can take turns on it; without one, a fresh array is seeded
    with `seed`. An array that is given is taken as it is: call `manual_seed` to seed it.

    `next_double_normal` is the second of a pair of normal numbers, kept for the next call that draws them one
    by one; `next_float_normal` is part of PyTorch's saved state, but no CPU operation of PyTorch sets or
    reads it.
    """

    __slots__ = ("initial_seed", "next_double_normal", "next_float_normal", "state")

    def __init__(self, state: NDArray[np.uint32] | None = None, seed: int = 5489) -> None:
        if state is not None and (
            state.dtype != np.uint32 or state.shape != (STATE_WORDS,) or not state.flags.c_contiguous
        ):
            raise TypeError(
                f"a generator's state is a contiguous uint32 array of shape ({STATE_WORDS},), "
                f"got {state.dtype} of shape {state.shape}"
            )
        self.state: NDArray[np.uint32] = np.empty(STATE_WORDS, np.uint32) if state is None else state
        self.initial_seed = seed_value(seed)
        self.next_double_normal: float | None = None
        self.next_float_normal: float | None = None
        if state is None:
            self.manual_seed(seed)
        elif self.position > BLOCK:
            raise ValueError(f"a generator's position is in [0, {BLOCK}], got {self.position}")

    @property
    def position(self) -> int:
        """Words of the present block given out; 0 when just seeded."""
        return int(self.state[BLOCK])

    def manual_seed(self, seed: int) -> None:
        """Start over as `torch.manual_seed(seed)` does.

        The whole 64-bit seed is remembered in `initial_seed`, but, as in PyTorch, only its low 32 bits choose
        the numbers. Raises ValueError for a seed outside [-2**63, 2**64).
        """
        self.initial_seed = seed_value(seed)
        self.state[:BLOCK] = _initial_block(self.initial_seed & 0xFFFFFFFF)
        self.state[BLOCK] = 0
        self.next_double_normal = None
        self.next_float_normal = None

    def _draw(self, words: NDArray[np.uint32]) -> None:
        """Fill `words` with the next words, untempered."""
        block = self.state[:BLOCK]
        position = self.position
        filled = 0
        while filled < len(words):
            if position % BLOCK == 0:
                _twist(block)
                position = 0
            count = min(BLOCK - position, len(words) - filled)
            words[filled : filled + count] = block[position : position + count]
            position += count
            filled += count
        self.state[BLOCK] = position

    def words(self, count: int) -> NDArray[np.uint32]:
        """The next `count` words of the stream, each uniform over 32 bits: a fresh uint32[count]."""
        words = np.empty(count, np.uint32)
        step = BLOCK * _TEMPER_BLOCKS
        for start in range(0, count, step):
            piece = words[start : start + step]
            self._draw(piece)
            _temper(piece)
        return words

    def skip(self, count: int) -> None:
        """Pass over `count` words, leaving the state as `words(count)` would."""
        position = self.position
        for _ in range((count + position - 1) // BLOCK - (position - 1) // BLOCK if count else 0):
            _twist(self.state[:BLOCK])
        if count:
            self.state[BLOCK] = (position + count - 1) % BLOCK + 1

    def get_state(self) -> NDArray[np.uint8]:
        """The state in the layout of `torch.get_rng_state()`: a fresh uint8[5056]."""
        left = 1 if self.position == 0 else BLOCK + 1 - self.position
        kept_double, kept_float = self.next_double_normal, self.next_float_normal
        saved = _SAVED.pack(
            self.initial_seed,
            left,
            1,
            self.position,
            self.state[:BLOCK].astype("<u8").tobytes(),
            0.0,
            kept_double or 0.0,
            0.0,
            kept_double is not None,
            kept_float or 0.0,
            kept_float is not None,
        )
        return np.frombuffer(saved, np.uint8).copy()

    def set_state(self, saved: NDArray[np.uint8]) -> None:
        """Continue from a state saved by `get_state` or by `torch.get_rng_state()`.

        Raises TypeError if it is not an array of bytes, RuntimeError if it has another length than 5056 or
        does not describe a seeded generator.
        """
        if saved.dtype != np.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        if saved.size != STATE_BYTES:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {STATE_BYTES} "
                f"but found the input RNG state size to be {saved.size}"
            )
        seed, left, seeded, position, block, _, kept_double, _, has_double, kept_float, has_float = (
            _SAVED.unpack(saved.tobytes())
        )
        consistent = 0 <= position <= BLOCK and left == (1 if position == 0 else BLOCK + 1 - position)
        if not seeded or not consistent:
            raise RuntimeError("Invalid mt19937 state")
        self.state[:BLOCK] = np.frombuffer(block, "<u8").astype(np.uint32)
        self.state[BLOCK] = position
        self.initial_seed = seed
        self.next_double_normal = kept_double if has_double else None
        self.next_float_normal = kept_float if has_float else None
