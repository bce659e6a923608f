"""Attention of one token a row against a cache: the step of decoding.

Reads every key and value once, in the order in which a cache keeps them. It needs no
gradient, and no choice among paths: there is no matrix of scores to save.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gemma.attention.scores import MASKED


def attend_one_query(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    *,
    soft_cap: float | None,
) -> jax.Array:
    """Average the values that each row's one query attends to.

    Args:
        query: [batch, 1, heads, head_dim], already scaled.
        key: [batch, keys, kv_heads, head_dim]; heads // kv_heads queries share one.
        value: As `key`.
        visible: bool [batch or 1, 1, keys].
        soft_cap: Bound of the scores; None leaves them.

    Returns:
        [batch, 1, heads, head_dim] in the query's dtype; softmax in float32.
    """
    batch, _, heads, head_dim = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, head_dim)
    # keys come first, values second: XLA:CPU would copy them transposed otherwise
    scores = jax.lax.dot_general(
        key,
        grouped,
        (((3,), (3,)), ((0, 2), (0, 1))),
        preferred_element_type="float32",
    ).swapaxes(2, 3)  # [batch, kv_heads, groups, keys]
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(visible[:, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    mixed = jax.lax.dot_general(weights, value, (((3,), (1,)), ((0, 1), (0, 2))))
    return mixed.reshape(query.shape)
