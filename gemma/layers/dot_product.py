"""Attention between grouped heads: scores, soft cap, mask, softmax, average.

One function for every caller, so that a faster kernel has one place to enter. It
knows arrays only: no variables, no caches.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gemma.layers.token_embedding import apply_soft_cap

MASKED = -2.0e38  # finite, so that a row with nothing to attend to is no NaN


def visible_keys(
    query_index: jax.Array,
    key_index: jax.Array,
    *,
    window: int | None,
    query_segments: jax.Array | None = None,
    key_segments: jax.Array | None = None,
    key_mask: jax.Array | None = None,
) -> jax.Array:
    """Return which keys each query may see: bool [batch or 1, queries, keys].

    Args:
        query_index: Places of the queries in the sequence, [batch or 1, queries].
        key_index: Places of the keys, [batch or 1, keys].
        window: A query sees itself and the window - 1 places before; None sees all.
        query_segments: Row of each query, [batch, queries]; None: one row.
        key_segments: Row of each key, [batch, keys].
        key_mask: False for keys that are padding, [batch, keys].
    """
    distance = query_index[:, :, None] - key_index[:, None, :]
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    if query_segments is not None:
        visible &= query_segments[:, :, None] == key_segments[:, None, :]
    if key_mask is not None:
        visible &= key_mask[:, None, :].astype(bool)
    return visible


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    *,
    soft_cap: float | None,
) -> jax.Array:
    """Average the values that each scaled query attends to.

    Args:
        query: [batch, queries, heads, head_dim], already scaled.
        key: [batch, keys, kv_heads, head_dim]; heads // kv_heads queries share one.
        value: As `key`.
        visible: bool [batch or 1, queries, keys].
        soft_cap: Bound of the scores; None leaves them.

    Returns:
        [batch, queries, heads, head_dim] in the query's dtype; softmax in float32.
    """
    batch, length, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    scores = jnp.einsum(
        "btkgh,bskh->bkgts", grouped, key, preferred_element_type="float32"
    )
    scores = apply_soft_cap(scores, soft_cap)
    scores = jnp.where(visible[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    mixed = jnp.einsum("bkgts,bskh->btkgh", weights, value)
    return mixed.reshape(batch, length, heads, head_dim)
