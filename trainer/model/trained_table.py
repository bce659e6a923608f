"""The loss where the embedding table is trained, and the table's own gradient.

Turns hidden states, labels and the table into token losses and both gradients, in two
passes over tiles of the vocabulary: the first adds up the softmax, the second computes
each tile of logits again for what it pulls. Logits of a chunk never stand side by side
for the whole vocabulary, and the table's gradient is written once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from trainer.model.loss_terms import LossTerms, minimised_loss
from trainer.model.vocabulary_tiles import (
    Pieces,
    capped,
    for_each_piece,
    put,
    split_tiles,
    sums_over_vocabulary,
    take,
)


class Trained(NamedTuple):
    """Losses [shards, tokens], and the gradients of their minimised sum."""

    minimised: jax.Array
    plain: jax.Array
    d_hidden: jax.Array
    d_table: jax.Array


class _Given(NamedTuple):
    """What the second pass reads of each position, [shards, tokens, ...]."""

    hidden: jax.Array
    labels: jax.Array
    loss_mask: jax.Array
    normaliser: jax.Array


class _Found(NamedTuple):
    """What the second pass adds up for each position."""

    picked: jax.Array
    d_hidden: jax.Array


def losses_and_gradients(
    hidden: jax.Array,
    table: jax.Array,
    labels: jax.Array,
    loss_mask: jax.Array,
    *,
    terms: LossTerms,
    soft_cap: float | None,
    table_shards: int,
    tile_gradient: NamedSharding | None,
    pieces: Pieces,
) -> Trained:
    """Return token losses and both gradients; nothing where a position is masked.

    Args:
        hidden: [shards, tokens, dim].
        table: [vocabulary, dim], floats.
        labels: int32 [shards, tokens].
        loss_mask: bool [shards, tokens]; False beyond the pieces that count.
        terms: What is minimised beside the cross-entropy.
        soft_cap: Bound of the logits; None leaves them.
        table_shards: Parts in which the vocabulary lies on devices.
        tile_gradient: How the gradient of a tile lies once it is summed.
        pieces: Positions that count, and how many of them meet a tile at a time.
    """
    sums = sums_over_vocabulary(
        hidden,
        table,
        soft_cap=soft_cap,
        table_shards=table_shards,
        pieces=pieces,
        with_gradient=False,
        with_level=terms.label_smoothing > 0.0,
    )
    given = _Given(hidden, labels, loss_mask, sums.normaliser)
    tiles = split_tiles(table, table_shards)
    firsts = jnp.arange(table.shape[0], step=tiles.shape[2]).reshape(table_shards, -1)

    def of_part(firsts: jax.Array, tiles: jax.Array) -> tuple[_Found, jax.Array]:
        return _part_gradients(
            given,
            firsts,
            tiles,
            terms=terms,
            soft_cap=soft_cap,
            tile_gradient=tile_gradient,
            pieces=pieces,
        )

    if table_shards == 1:
        found, d_table = of_part(firsts[0], tiles[0])
    else:
        parts, d_table = jax.vmap(of_part)(firsts, tiles)
        found = jax.tree.map(lambda x: x.sum(0), parts)
    minimised, plain = minimised_loss(terms, sums.normaliser, found.picked, sums.level)
    return Trained(
        minimised=jnp.where(loss_mask, minimised, 0.0),
        plain=jnp.where(loss_mask, plain, 0.0),
        d_hidden=found.d_hidden.astype(hidden.dtype),
        d_table=d_table.reshape(table.shape),
    )


def _part_gradients(
    given: _Given,
    firsts: jax.Array,
    tiles: jax.Array,
    *,
    terms: LossTerms,
    soft_cap: float | None,
    tile_gradient: NamedSharding | None,
    pieces: Pieces,
) -> tuple[_Found, jax.Array]:
    """Return what a part of the table pulls, and that part's own gradient.

    Args:
        given: All positions.
        firsts: First vocabulary entry of each tile.
        tiles: [tiles, entries of a tile, dim].
        terms: What is minimised.
        soft_cap: Bound of the logits.
        tile_gradient: How the gradient of a tile lies once it is summed.
        pieces: Positions that count.
    """
    shards, tokens, dim = given.hidden.shape

    def of_tile(found: _Found, xs: tuple) -> tuple[_Found, jax.Array]:
        first, rows = xs
        tile = rows.astype(given.hidden.dtype)

        def add_piece(at: jax.Array | int, size: int, carry: tuple) -> tuple:
            found, d_tile = carry
            piece = jax.tree.map(lambda x: take(x, at, size), given)
            picked, slopes = _picked_and_slopes(piece, first, tile, terms, soft_cap)
            pull = jnp.einsum(
                "stv,vd->std", slopes, tile, preferred_element_type="float32"
            )
            before = jax.tree.map(lambda x: take(x, at, size), found)
            after = jax.tree.map(jnp.add, before, _Found(picked, pull))
            d_tile += _rows_pulled(slopes, piece.hidden)
            return jax.tree.map(lambda x, p: put(x, p, at), found, after), d_tile

        # a sum of its own for each shard: one collective a tile, not one a piece
        d_tile = jnp.zeros((shards, *rows.shape), "float32")
        found, d_tile = for_each_piece(pieces, tokens, add_piece, (found, d_tile))
        d_tile = d_tile.sum(0).astype(rows.dtype)
        if tile_gradient is not None:  # a part for each device, or all would be whole
            d_tile = jax.lax.with_sharding_constraint(d_tile, tile_gradient)
        return found, d_tile

    start = _Found(
        jnp.zeros((shards, tokens), "float32"),
        jnp.zeros((shards, tokens, dim), "float32"),
    )
    return jax.lax.scan(of_tile, start, (firsts, tiles))


def _picked_and_slopes(
    piece: _Given,
    first: jax.Array,
    tile: jax.Array,
    terms: LossTerms,
    soft_cap: float | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the labels' logits in a tile, 0 elsewhere, and the loss's slopes there."""
    raw = jnp.einsum(
        "std,vd->stv", piece.hidden, tile, preferred_element_type="float32"
    )
    logits, slope = capped(raw, soft_cap)
    is_label = piece.labels[..., None] == first + jnp.arange(tile.shape[0])
    picked = jnp.where(is_label, logits, 0.0).sum(-1)
    factor = terms.normaliser_slope(piece.normaliser)
    slopes = factor[..., None] * jnp.exp(logits - piece.normaliser[..., None])
    slopes -= terms.label_share * is_label
    if terms.label_smoothing:
        slopes -= terms.label_smoothing / terms.vocabulary_size
    if slope is not None:
        slopes *= slope
    slopes = jnp.where(piece.loss_mask[..., None], slopes, 0.0)
    return picked, slopes.astype(piece.hidden.dtype)


def _rows_pulled(slopes: jax.Array, hidden: jax.Array) -> jax.Array:
    """Return float32 [shards, entries of a tile, dim]."""
    if slopes.shape[0] == 1:  # a batched product would copy its operands on a CPU
        return jnp.einsum(
            "tv,td->vd", slopes[0], hidden[0], preferred_element_type="float32"
        )[None]
    return jnp.einsum("stv,std->svd", slopes, hidden, preferred_element_type="float32")
