"""Attention as its formula says it: what every other path is held against.

All scores at once, key/value heads repeated for their queries, and JAX's own gradient.
It takes the most memory of all paths and is there to be trusted, not to be fast.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gemma.attention.scores import MASKED
from gemma.attention.sight import Sight


def attend_reference(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    sight: Sight,
    *,
    soft_cap: float | None,
) -> jax.Array:
    """Attend as `gemma.attention.Attention`."""
    groups, length = query.shape[2] // key.shape[2], query.shape[1]
    key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type="float32")
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    visible = sight.mask(0, 0, queries=length, keys=length)[:, None]
    weights = jax.nn.softmax(jnp.where(visible, scores, MASKED), axis=-1)
    weights = jnp.where(visible, weights, 0.0).astype(query.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
