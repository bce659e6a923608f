"""The order of rows, as arithmetic.

Turns (seed, epoch, place in the epoch) into the number of a row, in constant time and
memory, the same on every machine and in every version of every library. It refuses to
know what the rows are.
"""

from __future__ import annotations

import dataclasses

import numpy as np

ROUNDS = 8
WINDOW_STRIDE = 1 << 32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """How far training has read: the whole state of the data.

    `index` is `window * WINDOW_STRIDE + sequences of that window already used`.
    """

    epoch: int = 0
    index: int = 0

    @classmethod
    def at(cls, *, epoch: int, window: int, offset: int) -> Position:
        """Return the position before sequence `offset` of a window of an epoch."""
        return cls(epoch, window * WINDOW_STRIDE + offset)

    @property
    def window(self) -> int:
        """Window of the epoch, from 0."""
        return self.index // WINDOW_STRIDE

    @property
    def offset(self) -> int:
        """Sequences of the window that are already used."""
        return self.index % WINDOW_STRIDE


def shuffled(places: np.ndarray, *, size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the row at each place of a pseudo-random order of `size` rows.

    A Feistel network permutes the smallest power of four that holds `size`; values
    beyond `size` go through it again until they fall inside, which keeps it one to one.

    Args:
        places: Numbers below `size`, any shape.
        size: Number of rows.
        seed: Of the run.
        epoch: Passes over the data so far; each has its own order.

    Returns:
        Numbers below `size` (int64), a permutation if `places` are all numbers below.

    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains (2002), the
    generalised Feistel and cycle walking; rounds are SplitMix64's finaliser.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = _round_keys(seed, epoch)
    values = np.array(places, np.uint64)
    outside = np.ones(values.shape, bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys, half)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    """Permute the numbers below 4**half."""
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << shift) | right


def _round_keys(seed: int, epoch: int) -> np.ndarray:
    """Return a key for every round (uint64), all different for every seed and epoch."""
    words = np.array([seed % 2**64, epoch], np.uint64)
    start = _mix(_mix(words[:1] + _GOLDEN) ^ words[1:])
    return _mix(start + np.arange(1, ROUNDS + 1, dtype=np.uint64) * _GOLDEN)


def _mix(values: np.ndarray) -> np.ndarray:
    """Return SplitMix64's finaliser of uint64 numbers, wrapping around."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
