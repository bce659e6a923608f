"""Attention between grouped heads: scores, soft cap, mask, softmax, average.

One function for every caller, so that a faster kernel has one place to enter. Its
backward pass computes the scores again instead of keeping them, and orders its
products so that no matrix of scores is ever copied transposed. It knows arrays only:
no variables, no caches.
"""

from __future__ import annotations

import functools

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
        [batch, queries, heads, head_dim] in the query's dtype; softmax in float32. A
        query that sees no key gets zeros.
    """
    if query.shape[1] == 1:  # decoding: a cache is not worth rearranging
        return _attend_one(query, key, value, visible, soft_cap)
    return _attend(query, key, value, visible, soft_cap)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    soft_cap: float | None,
) -> jax.Array:
    return _forward(query, key, value, visible, soft_cap)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    soft_cap: float | None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return the mix, and what the backward pass needs: nothing of scores' size."""
    groups = query.shape[2] // key.shape[2]
    q, k, v = _heads_first(query, groups), _heads_first(key, 1), _heads_first(value, 1)
    scores, _ = _scores(q, k, visible, soft_cap)
    top = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - top)
    # nothing to attend to: no weight, and no gradient, rather than that of MASKED keys
    share = jnp.where(top > MASKED, 1.0 / weights.sum(-1, keepdims=True), 0.0)
    mixed = _product(weights.astype(v.dtype), v, 3, 2) * share
    mixed = _tokens_first(mixed.astype(query.dtype), groups)
    return mixed, (query, key, value, visible, mixed, top, share)


def _backward(
    soft_cap: float | None, kept: tuple[jax.Array, ...], d_mixed: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """Source: Dao et al. 2022, arXiv 2205.14135, algorithm 4, without its tiles."""
    query, key, value, visible, mixed, top, share = kept
    groups = query.shape[2] // key.shape[2]
    q, k, v = _heads_first(query, groups), _heads_first(key, 1), _heads_first(value, 1)
    d_m, m = _heads_first(d_mixed, groups), _heads_first(mixed, groups)
    scores, slope = _scores(q, k, visible, soft_cap)
    weights = jnp.exp(scores - top) * share
    drift = (d_m.astype("float32") * m).sum(-1, keepdims=True)
    d_scores = weights * (_product(d_m, v, 3, 3) - drift)
    if slope is not None:
        d_scores *= slope
    d_scores, weights = d_scores.astype(q.dtype), weights.astype(v.dtype)
    d_q = _tokens_first(_product(d_scores, k, 3, 2).astype(query.dtype), groups)
    # the small operand comes first: XLA:CPU would copy scores transposed otherwise
    d_k = jnp.moveaxis(_product(q, d_scores, 2, 2), 3, 1).astype(key.dtype)
    d_v = jnp.moveaxis(_product(d_m, weights, 2, 2), 3, 1).astype(value.dtype)
    return d_q, d_k, d_v, None


_attend.defvjp(_forward, _backward)


def _scores(
    q: jax.Array, k: jax.Array, visible: jax.Array, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return masked scores [batch, kv_heads, groups x queries, keys] and their slope.

    The slope is the soft cap's; None stands for 1.
    """
    scores, slope = _product(q, k, 3, 3), None
    if soft_cap is not None:
        bounded = jnp.tanh(scores / soft_cap)
        scores, slope = bounded * soft_cap, 1.0 - jnp.square(bounded)
    groups = q.shape[2] // visible.shape[1]
    seen = jnp.tile(visible[:, None], (1, 1, groups, 1))
    return jnp.where(seen, scores, MASKED), slope


def _product(a: jax.Array, b: jax.Array, dim_a: int, dim_b: int) -> jax.Array:
    """Return the float32 product over two dims, for every sequence and kv head."""
    dims = (((dim_a,), (dim_b,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(a, b, dims, preferred_element_type="float32")


def _heads_first(x: jax.Array, groups: int) -> jax.Array:
    """Turn [batch, places, heads, dim] to [batch, kv_heads, groups x places, dim]."""
    batch, places, heads, dim = x.shape
    split = x.reshape(batch, places, heads // groups, groups, dim)
    return split.transpose(0, 2, 3, 1, 4).reshape(batch, heads // groups, -1, dim)


def _tokens_first(x: jax.Array, groups: int) -> jax.Array:
    """Undo `_heads_first`."""
    batch, kv_heads, rows, dim = x.shape
    split = x.reshape(batch, kv_heads, groups, rows // groups, dim)
    return split.transpose(0, 3, 1, 2, 4).reshape(batch, -1, kv_heads * groups, dim)


def _attend_one(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    soft_cap: float | None,
) -> jax.Array:
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
    scores = apply_soft_cap(scores, soft_cap)
    scores = jnp.where(visible[:, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    mixed = jax.lax.dot_general(weights, value, (((3,), (1,)), ((0, 1), (0, 2))))
    return mixed.reshape(query.shape)
