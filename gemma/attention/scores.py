"""The arithmetic of one block of scores, which several paths share.

Turns queries and keys with the heads first into masked scores, and the gradient of
a mix into that of scores. Softmax is left to whoever knows how many blocks there are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

MASKED = -2.0e38  # finite, so that a row with nothing to attend to is no NaN
KEPT = "attention"
"""Checkpoint name of what a path keeps for its backward pass beside its inputs: a remat
policy that saves this name never attends twice."""


def masked_scores(
    q: jax.Array, k: jax.Array, visible: jax.Array, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return masked scores [batch, kv_heads, groups x queries, keys] and their slope.

    The slope is the soft cap's; None stands for 1.

    Args:
        q: [batch, kv_heads, groups x queries, head_dim], scaled.
        k: [batch, kv_heads, keys, head_dim].
        visible: bool [batch or 1, queries, keys].
        soft_cap: Bound of the scores; None leaves them.
    """
    scores, slope = product(q, k, 3, 3), None
    if soft_cap is not None:
        bounded = jnp.tanh(scores / soft_cap)
        scores, slope = bounded * soft_cap, 1.0 - jnp.square(bounded)
    groups = q.shape[2] // visible.shape[1]
    seen = jnp.tile(visible[:, None], (1, 1, groups, 1))
    return jnp.where(seen, scores, MASKED), slope


def score_gradient(
    weights: jax.Array,
    d_mixed: jax.Array,
    v: jax.Array,
    drift: jax.Array,
    slope: jax.Array | None,
) -> jax.Array:
    """Return the gradient for scores before the cap, float32 as the weights.

    Source: Dao et al. 2022, arXiv 2205.14135, algorithm 4.

    Args:
        weights: Softmax of the scores, [batch, kv_heads, groups x queries, keys].
        d_mixed: Gradient for the mix, as the queries.
        v: Values, as the keys.
        drift: Of `mix_drift`.
        slope: Of `masked_scores`.
    """
    d_scores = weights * (product(d_mixed, v, 3, 3) - drift)
    return d_scores if slope is None else d_scores * slope


def mix_drift(d_mixed: jax.Array, mixed: jax.Array) -> jax.Array:
    """Return the sum that the softmax's gradient takes off each row, [..., 1]."""
    return (d_mixed.astype("float32") * mixed).sum(-1, keepdims=True)


def product(a: jax.Array, b: jax.Array, dim_a: int, dim_b: int) -> jax.Array:
    """Return the float32 product over two dims, for every sequence and kv head."""
    dims = (((dim_a,), (dim_b,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, dims, preferred_element_type="float32")


def heads_first(x: jax.Array, groups: int) -> jax.Array:
    """Turn [batch, places, heads, dim] to [batch, kv_heads, groups x places, dim]."""
    batch, places, heads, dim = x.shape
    split = x.reshape(batch, places, heads // groups, groups, dim)
    return split.transpose(0, 2, 3, 1, 4).reshape(batch, heads // groups, -1, dim)


def tokens_first(x: jax.Array, groups: int) -> jax.Array:
    """Undo `heads_first`."""
    batch, kv_heads, rows, dim = x.shape
    split = x.reshape(batch, kv_heads, groups, rows // groups, dim)
    return split.transpose(0, 3, 1, 2, 4).reshape(batch, -1, kv_heads * groups, dim)
