"""Attention whose scores stand all at once: the fastest where sequences are short.

Its backward pass computes the scores again instead of keeping them, and orders its
products so that no matrix of scores is ever copied transposed. Cost and memory grow
with the square of the length, whatever the window: `gemma.attention.blocked` is for
longer sequences.
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


def attend_whole(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    sight: Sight,
    *,
    soft_cap: float | None,
) -> jax.Array:
    """Attend as `gemma.attention.Attention`."""
    window, *segments = sight
    return _attend(query, key, value, segments, window, soft_cap)


Segments = list[jax.Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: Segments,
    window: int | None,
    soft_cap: float | None,
) -> jax.Array:
    return _forward(query, key, value, segments, window, soft_cap)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: Segments,
    window: int | None,
    soft_cap: float | None,
) -> tuple[jax.Array, tuple]:
    """Return the mix, and what the backward pass needs: nothing of scores' size."""
    groups = query.shape[2] // key.shape[2]
    q, k, v = heads_first(query, groups), heads_first(key, 1), heads_first(value, 1)
    visible = _visible(query, window, segments)
    scores, _ = masked_scores(q, k, visible, soft_cap)
    top = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - top)
    # nothing to attend to: no weight, and no gradient, rather than that of MASKED keys
    share = jnp.where(top > MASKED, 1.0 / weights.sum(-1, keepdims=True), 0.0)
    mixed = product(weights.astype(v.dtype), v, 3, 2) * share
    mixed = tokens_first(mixed.astype(query.dtype), groups)
    mixed, top, share = checkpoint_name((mixed, top, share), KEPT)
    return mixed, (query, key, value, segments, mixed, top, share)


def _backward(
    window: int | None, soft_cap: float | None, kept: tuple, d_mixed: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    query, key, value, segments, mixed, top, share = kept
    groups = query.shape[2] // key.shape[2]
    q, k, v = heads_first(query, groups), heads_first(key, 1), heads_first(value, 1)
    d_m, m = heads_first(d_mixed, groups), heads_first(mixed, groups)
    visible = _visible(query, window, segments)
    scores, slope = masked_scores(q, k, visible, soft_cap)
    weights = jnp.exp(scores - top) * share
    d_scores = score_gradient(weights, d_m, v, mix_drift(d_m, m), slope)
    d_scores, weights = d_scores.astype(q.dtype), weights.astype(v.dtype)
    d_q = tokens_first(product(d_scores, k, 3, 2).astype(query.dtype), groups)
    # the small operand comes first: XLA:CPU would copy scores transposed otherwise
    d_k = jnp.moveaxis(product(q, d_scores, 2, 2), 3, 1).astype(key.dtype)
    d_v = jnp.moveaxis(product(d_m, weights, 2, 2), 3, 1).astype(value.dtype)
    return d_q, d_k, d_v, None


_attend.defvjp(_forward, _backward)


def _visible(query: jax.Array, window: int | None, segments: Segments) -> jax.Array:
    length = query.shape[1]
    return Sight(window, *segments).mask(0, 0, queries=length, keys=length)
