"""Sums over the vocabulary, one tile of it at a time.

Turns hidden states and the embedding table into the logarithm of the softmax's sum
and its gradient, in one pass: a tile of logits is used for both and forgotten, so that
it stays in the processor's cache, and a frozen table is read once. It refuses to know
labels, masks and the table's own gradient.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gemma.layers.token_embedding import tile_size
from gemma.quantized.array import Table, split_rows

TILE = 2048
"""Vocabulary entries of a tile, on each device that holds a part of the table."""

SAFE_CAP = 50.0  # exp(50) * 262,144 entries stays below float32's 3e38


def normaliser(
    hidden: jax.Array, table: Table, *, soft_cap: float | None, table_shards: int
) -> jax.Array:
    """Return log(sum(exp(logits))) of each position, float32 [shards, tokens].

    Args:
        hidden: [shards, tokens, dim].
        table: [vocabulary, dim]; a quantized one becomes floats a tile at a time.
        soft_cap: Bound of the logits; None leaves them.
        table_shards: Parts in which the vocabulary lies on devices; tiles are formed
            in each.
    """
    return _sums(hidden, table, soft_cap, table_shards, with_gradient=False)[0]


def normaliser_and_gradient(
    hidden: jax.Array, table: Table, *, soft_cap: float | None, table_shards: int
) -> tuple[jax.Array, jax.Array]:
    """Return `normaliser` and its gradient for `hidden`, float32 [shards, tokens, dim].

    Args as in `normaliser`.
    """
    return _sums(hidden, table, soft_cap, table_shards, with_gradient=True)


def capped(
    raw: jax.Array, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return soft-capped logits and their slope; None stands for a slope of 1."""
    if soft_cap is None:
        return raw, None
    bounded = jnp.tanh(raw / soft_cap)
    return bounded * soft_cap, 1.0 - jnp.square(bounded)


def _sums(
    hidden: jax.Array,
    table: Table,
    soft_cap: float | None,
    table_shards: int,
    *,
    with_gradient: bool,
) -> tuple[jax.Array, jax.Array]:
    """Return the normaliser and, if asked for, its gradient."""
    entries = table.shape[0] // table_shards
    size = tile_size(entries, TILE)
    parts = split_rows(table, table_shards, entries // size, size)

    def sums_of(tiles: Table) -> tuple[jax.Array, jax.Array, jax.Array]:
        return _part_sums(hidden, tiles, soft_cap, with_gradient=with_gradient)

    if table_shards == 1:  # a batched product would copy each tile transposed on a CPU
        top, total, gradient = sums_of(parts[0])
    else:  # sums of its own for each part: one collective at the end, not one a tile
        tops, totals, gradients = jax.vmap(sums_of)(parts)
        top = tops.max(0)
        keep = jnp.exp(tops - top)
        total = (keep * totals).sum(0)
        gradient = (keep[..., None] * gradients).sum(0)
    return top + jnp.log(total), gradient / total[..., None]


def _part_sums(
    hidden: jax.Array, tiles: Table, soft_cap: float | None, *, with_gradient: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return a shift of the logits, their sum of exponentials and its gradient."""
    is_bounded = soft_cap is not None and soft_cap <= SAFE_CAP

    def body(i: int, carry: tuple) -> tuple:
        top, total, gradient = carry
        tile = tiles[i].astype(hidden.dtype)
        raw = jnp.einsum("std,vd->stv", hidden, tile, preferred_element_type="float32")
        logits, slope = capped(raw, soft_cap)
        if not is_bounded:
            new_top = jnp.maximum(top, logits.max(-1))
            keep, top = jnp.exp(top - new_top), new_top
            logits -= top[..., None]
            total, gradient = keep * total, keep[..., None] * gradient
        weights = jnp.exp(logits)
        total += weights.sum(-1)
        if with_gradient:
            weights = weights if slope is None else weights * slope
            gradient += jnp.einsum(
                "stv,vd->std",
                weights.astype(hidden.dtype),
                tile,
                preferred_element_type="float32",
            )
        return top, total, gradient

    shape = hidden.shape[:2]
    top = jnp.full(shape, 0.0 if is_bounded else -jnp.inf, "float32")
    dim = hidden.shape[2] if with_gradient else 0
    start = (top, jnp.zeros(shape, "float32"), jnp.zeros((*shape, dim), "float32"))
    return jax.lax.fori_loop(0, tiles.shape[0], body, start)
