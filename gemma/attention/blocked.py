"""Attention block by block, in plain XLA: for CPUs, and wherever no kernel fits.

Turns a sequence into blocks of queries, each of which walks over the blocks of keys
that it sees: none after it, none before its window, none of other segments. So cost
grows with the window, or with the rows of a packed sequence, and no more than one block
of scores exists at a time, forward and backward. Where one block covers everything,
the scores stand whole (`gemma.attention.whole`).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gemma.attention.scores import (
    KEPT,
    MASKED,
    heads_first,
    masked_scores,
    mix_drift,
    product,
    score_gradient,
    tokens_first,
)
from gemma.attention.sight import Sight
from gemma.attention.whole import attend_whole

LARGEST_BLOCK = 128
"""Places of a block at most, on a CPU: see tests/benchmarks/results/attention.md."""


def attend_blocked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    sight: Sight,
    *,
    soft_cap: float | None,
    largest_block: int = LARGEST_BLOCK,
) -> jax.Array:
    """Attend as `gemma.attention.Attention`, with its arguments.

    A block has at most `largest_block` places, fewer where that needs less padding.
    """
    length = query.shape[1]
    if length <= largest_block:
        return attend_whole(query, key, value, sight, soft_cap=soft_cap)
    block = best_block(length, largest_block)
    rest = -length % block
    if rest:  # after the end, where nothing is seen from
        query, key, value = (_padded(x, rest) for x in (query, key, value))
        sight = Sight(sight.window, *(_padded(x, rest, "edge") for x in sight[1:]))
    mixed = _attend(query, key, value, sight[1:], sight.window, soft_cap, block)
    return mixed[:, :length]


def best_block(length: int, largest: int) -> int:
    """Return the block that pads a length least, the largest of equally good ones.

    None is smaller than half of the largest.
    """
    blocks = range(largest, largest // 2, -max(largest // 8, 1))
    return min(blocks, key=lambda block: -length % block)


Segments = tuple[jax.Array | None, jax.Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: Segments,
    window: int | None,
    soft_cap: float | None,
    block: int,
) -> jax.Array:
    return _forward(query, key, value, segments, window, soft_cap, block)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: Segments,
    window: int | None,
    soft_cap: float | None,
    block: int,
) -> tuple[jax.Array, tuple]:
    """Source: Milakov and Gimelshein 2018, arXiv 1805.02867, algorithm 3."""
    groups, sight = query.shape[2] // key.shape[2], Sight(window, *segments)
    q, k, v = (_split(x, n, block) for x, n in ((query, groups), (key, 1), (value, 1)))

    def attend_row(_: None, row: tuple) -> tuple[None, tuple]:
        i, first, q_i = row

        def add(j: jax.Array, sums: tuple) -> tuple:
            mixed, top, total = sums
            visible = sight.mask(i * block, j * block, queries=block, keys=block)
            scores, _ = masked_scores(q_i, k[j], visible, soft_cap)
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            weights, kept = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            mixed = mixed * kept + product(weights.astype(v.dtype), v[j], 3, 2)
            return mixed, new_top, total * kept + weights.sum(-1, keepdims=True)

        nothing = jnp.zeros((*q_i.shape[:3], 1), "float32")
        start = (jnp.zeros(q_i.shape, "float32"), nothing + MASKED, nothing)
        mixed, top, total = jax.lax.fori_loop(first, i + 1, add, start)
        sees = top > MASKED  # else no weight, and no gradient
        mixed = jnp.where(sees, mixed / total, 0.0).astype(query.dtype)
        return None, (mixed, jnp.where(sees, top + jnp.log(total), jnp.inf))

    rows = (jnp.arange(len(q)), _first_blocks(sight, len(q), block), q)
    _, (mixed, log_total) = jax.lax.scan(attend_row, None, rows)
    mixed, log_total = checkpoint_name((_joined(mixed, groups), log_total), KEPT)
    return mixed, (query, key, value, segments, mixed, log_total)


def _backward(
    window: int | None,
    soft_cap: float | None,
    block: int,
    kept: tuple,
    d_mixed: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, segments, mixed, log_total = kept
    groups, sight = query.shape[2] // key.shape[2], Sight(window, *segments)
    q, k, v = (_split(x, n, block) for x, n in ((query, groups), (key, 1), (value, 1)))
    d_m, m = _split(d_mixed, groups, block), _split(mixed, groups, block)

    def descend_row(d_kv: tuple, row: tuple) -> tuple[tuple, jax.Array]:
        i, first, q_i, d_m_i, m_i, log_total_i = row
        drift = mix_drift(d_m_i, m_i)

        def add(j: jax.Array, sums: tuple) -> tuple:
            d_q, d_k, d_v = sums
            visible = sight.mask(i * block, j * block, queries=block, keys=block)
            scores, slope = masked_scores(q_i, k[j], visible, soft_cap)
            weights = jnp.exp(scores - log_total_i)
            d_scores = score_gradient(weights, d_m_i, v[j], drift, slope)
            d_scores, weights = d_scores.astype(q.dtype), weights.astype(v.dtype)
            d_q += product(d_scores, k[j], 3, 2)
            d_k = d_k.at[j].add(product(d_scores, q_i, 2, 2))
            d_v = d_v.at[j].add(product(weights, d_m_i, 2, 2))
            return d_q, d_k, d_v

        start = (jnp.zeros(q_i.shape, "float32"), *d_kv)
        d_q, *d_kv = jax.lax.fori_loop(first, i + 1, add, start)
        return tuple(d_kv), d_q.astype(query.dtype)

    rows = (jnp.arange(len(q)), _first_blocks(sight, len(q), block), q, d_m, m)
    start = (jnp.zeros(k.shape, "float32"), jnp.zeros(v.shape, "float32"))
    (d_k, d_v), d_q = jax.lax.scan(descend_row, start, (*rows, log_total))
    d_k, d_v = d_k.astype(key.dtype), d_v.astype(value.dtype)
    return _joined(d_q, groups), _joined(d_k, 1), _joined(d_v, 1), None


_attend.defvjp(_forward, _backward)


def _first_blocks(sight: Sight, blocks: int, block: int) -> jax.Array:
    """Return the first block of keys that a block of queries may see: int32 [blocks].

    By the smallest and largest segment of each block: too early for segments in no
    order, but never too late.
    """
    index = jnp.arange(blocks)
    may_see = index[:, None] >= index[None, :]
    if sight.window is not None:
        last_key = (index + 1) * block - 1
        may_see &= index[:, None] * block - last_key[None, :] < sight.window
    if sight.segments is not None:
        queries, keys = (
            x.reshape(x.shape[0], blocks, block)
            for x in (sight.segments, sight.of_keys())
        )
        overlap = (queries.min(-1)[:, :, None] <= keys.max(-1)[:, None, :]) & (
            queries.max(-1)[:, :, None] >= keys.min(-1)[:, None, :]
        )
        may_see &= overlap.any(0)
    return jnp.where(may_see.any(-1), may_see.argmax(-1), index)


def _padded(x: jax.Array | None, rest: int, mode: str = "constant") -> jax.Array | None:
    if x is None:
        return None
    return jnp.pad(x, [(0, 0), (0, rest)] + [(0, 0)] * (x.ndim - 2), mode)


def _split(x: jax.Array, groups: int, block: int) -> jax.Array:
    """Turn [batch, seq, ...] to [blocks, ...], each as `heads_first` gives it."""
    blocks = x.reshape(x.shape[0], -1, block, *x.shape[2:])
    return jax.vmap(lambda part: heads_first(part, groups), 1)(blocks)


def _joined(x: jax.Array, groups: int) -> jax.Array:
    """Undo `_split`."""
    blocks = jax.vmap(lambda part: tokens_first(part, groups), 0, 1)(x)
    return blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])
