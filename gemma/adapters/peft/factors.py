"""The arithmetic between our factors and those of PEFT.

Turns A and B of one projection into `lora_A` (rank, inputs) and `lora_B` (outputs,
rank) of a flat linear layer, heads flattened into one dim, and back. It refuses to
know files, names and scales.
"""

from __future__ import annotations

import numpy as np

from gemma.config import HEADS_FIRST

Pair = tuple[np.ndarray, np.ndarray]


def has_blocks(projection: str, factorisation: str) -> bool:
    """Return whether every head has an A of its own, which PEFT has no form for."""
    return factorisation == "keras" and projection in HEADS_FIRST


def to_peft(projection: str, a: np.ndarray, b: np.ndarray) -> Pair:
    """Return `lora_A` and `lora_B` whose product is that of A and B.

    All keep their rank but the `keras` factors of query, key and value, an A for each
    of n heads and one B for all: they become n blocks, rank n * r. `lora_A` has the
    heads' A below each other, `lora_B` has B on its diagonal and is zero elsewhere.
    """
    if projection in HEADS_FIRST and b.ndim == 2:
        heads, hidden, rank = a.shape
        lora_a = a.transpose(0, 2, 1).reshape(heads * rank, hidden)
        lora_b = np.kron(np.eye(heads, dtype=b.dtype), b.T)
    elif projection in HEADS_FIRST:
        lora_a, lora_b = a.T, b.reshape(b.shape[0], -1).T
    else:
        lora_a, lora_b = a.reshape(-1, a.shape[-1]).T, b.T
    return np.ascontiguousarray(lora_a), np.ascontiguousarray(lora_b)


def from_peft(
    projection: str, kernel: tuple[int, ...], lora_a: np.ndarray, lora_b: np.ndarray
) -> Pair:
    """Return A and B, in the `shared` form, for a projection with such a kernel."""
    rank = lora_a.shape[0]
    if projection in HEADS_FIRST:
        heads, _, head_dim = kernel
        a, b = lora_a.T, lora_b.reshape(heads, head_dim, rank).transpose(2, 0, 1)
    else:
        a, b = lora_a.T.reshape(*kernel[:-1], rank), lora_b.T
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def from_blocks(heads: int, rank: int, lora_a: np.ndarray, lora_b: np.ndarray) -> Pair:
    """Return A and B in the `keras` form: undo the blocks of `to_peft`.

    Raises:
        ValueError: The factors are not such blocks, one B for all heads.
    """
    if lora_a.shape[0] != heads * rank or lora_b.shape[0] % heads:
        raise ValueError(f"rank {lora_a.shape[0]} is not {heads} blocks of {rank}")
    head_dim = lora_b.shape[0] // heads
    b = np.ascontiguousarray(lora_b[:head_dim, :rank].T)
    if not np.array_equal(np.kron(np.eye(heads, dtype=b.dtype), b.T), lora_b):
        raise ValueError(f"lora_B is not one block, {heads} times on the diagonal")
    a = lora_a.reshape(heads, rank, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(a), b
