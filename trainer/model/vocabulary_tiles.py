"""Sums over the vocabulary, one tile of it at a time.

Turns hidden states and the embedding table into the logarithm of the softmax's sum
and its gradient, in one pass: a tile of logits is used for both and forgotten, so that
it stays in the processor's cache, and a frozen table is read once. It refuses to know
labels, masks and the table's own gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from gemma.layers.token_embedding import tile_size
from gemma.quantized.array import Table, split_rows

TILE = 2048
"""Vocabulary entries of a tile, on each device that holds a part of the table."""

SAFE_CAP = 50.0  # exp(50) * 262,144 entries stays below float32's 3e38

Carry = TypeVar("Carry")


class Pieces(NamedTuple):
    """Which positions count, and how many of them meet a tile at a time.

    Attributes:
        sizes: Largest first: as many pieces of each as fit what the ones before left,
            and of the last one more. It divides the others and a shard's positions.
        counted: Positions that count, the first ones of every shard.
    """

    sizes: tuple[int, ...]
    counted: jax.Array | int


class Sums(NamedTuple):
    """What a pass over the vocabulary tells of each position, in float32.

    Positions beyond the pieces that count hold anything, NaN too.

    Attributes:
        normaliser: log(sum(exp(logits))), [shards, tokens].
        gradient: Of it for `hidden`, [shards, tokens, dim]; None if not asked for.
        level: Mean of the logits, [shards, tokens]; None if not asked for.
        level_gradient: Of it for `hidden`; None unless both are asked for.
    """

    normaliser: jax.Array
    gradient: jax.Array | None
    level: jax.Array | None
    level_gradient: jax.Array | None


def sums_over_vocabulary(
    hidden: jax.Array,
    table: Table,
    *,
    soft_cap: float | None,
    table_shards: int,
    pieces: Pieces,
    with_gradient: bool,
    with_level: bool = False,
) -> Sums:
    """Run the tiles, and return what they add up to.

    Args:
        hidden: [shards, tokens, dim].
        table: [vocabulary, dim]; a quantized one becomes floats a tile at a time.
        soft_cap: Bound of the logits; None leaves them.
        table_shards: Parts in which the vocabulary lies on devices; tiles are formed
            in each.
        pieces: Positions that count, and how many of them meet a tile at a time.
        with_gradient: Whether gradients are wanted.
        with_level: Whether the mean of the logits is wanted; under a soft cap its
            gradient costs a product more.
    """
    tiles = split_tiles(table, table_shards)

    def sums_of(part: Table) -> _Running:
        start = _nothing(hidden, soft_cap, with_gradient, with_level)
        return _part_sums(hidden, part, soft_cap, pieces, start)

    if table_shards == 1:  # a batched product would copy each tile transposed on a CPU
        running = sums_of(tiles[0])
    else:  # sums of its own for each part: one collective at the end, not one a tile
        running = _joined(jax.vmap(sums_of)(tiles))
    share = 1.0 / running.total
    return Sums(
        normaliser=running.top + jnp.log(running.total),
        gradient=_times(share, running.gradient),
        level=_divided(running.level, table.shape[0]),
        level_gradient=_divided(running.level_gradient, table.shape[0]),
    )


def split_tiles(table: Table, table_shards: int) -> Table:
    """Return a table as [table_shards, tiles, entries of a tile, dim]."""
    entries = table.shape[0] // table_shards
    size = tile_size(entries, TILE)
    return split_rows(table, table_shards, entries // size, size)


def for_each_piece(
    pieces: Pieces,
    tokens: int,
    body: Callable[[jax.Array | int, int, Carry], Carry],
    carry: Carry,
) -> Carry:
    """Run `body` on every piece that counts.

    Args:
        pieces: Which count; a piece that is all there is always does.
        tokens: Positions of a shard.
        body: (first position, size, carry) -> carry.
        carry: What the first run gets.
    """
    if pieces.sizes == (tokens,):
        return body(0, tokens, carry)
    counted = jnp.clip(pieces.counted, 0, tokens)
    done = jnp.zeros((), counted.dtype)
    for size in pieces.sizes:
        left = counted - done
        count = left // size if size > pieces.sizes[-1] else -(-left // size)

        def run(
            i: int, carry: Carry, first: jax.Array = done, size: int = size
        ) -> Carry:
            return body(first + i * size, size, carry)

        carry = jax.lax.fori_loop(0, count, run, carry)
        done += count * size
    return carry


def take(x: jax.Array, start: jax.Array | int, size: int) -> jax.Array:
    """Return positions from `start` on of [shards, tokens, ...]."""
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)


def put(x: jax.Array, part: jax.Array, start: jax.Array | int) -> jax.Array:
    """Return [shards, tokens, ...] with new positions from `start` on."""
    return jax.lax.dynamic_update_slice_in_dim(x, part, start, axis=1)


def capped(
    raw: jax.Array, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None]:
    """Return soft-capped logits and their slope; None stands for a slope of 1."""
    if soft_cap is None:
        return raw, None
    bounded = jnp.tanh(raw / soft_cap)
    return bounded * soft_cap, 1.0 - jnp.square(bounded)


class _Running(NamedTuple):
    """Sums so far: `total` and `gradient` over exp(logits - top), not yet divided."""

    top: jax.Array
    total: jax.Array
    gradient: jax.Array | None
    level: jax.Array | None
    level_gradient: jax.Array | None


def _nothing(
    hidden: jax.Array, soft_cap: float | None, with_gradient: bool, with_level: bool
) -> _Running:
    zeros = jnp.zeros(hidden.shape[:2], "float32")
    wide = jnp.zeros(hidden.shape, "float32")
    return _Running(
        top=zeros if _is_safe(soft_cap) else jnp.full_like(zeros, -jnp.inf),
        total=zeros,
        gradient=wide if with_gradient else None,
        level=zeros if with_level else None,
        level_gradient=wide if with_gradient and with_level else None,
    )


def _is_safe(soft_cap: float | None) -> bool:
    """Whether exponents of the logits need no shift."""
    return soft_cap is not None and soft_cap <= SAFE_CAP


def _part_sums(
    hidden: jax.Array,
    tiles: Table,
    soft_cap: float | None,
    pieces: Pieces,
    start: _Running,
) -> _Running:
    """Add up all tiles of a part of the table, each for all pieces."""

    def add_tile(i: int, running: _Running) -> _Running:
        tile = tiles[i].astype(hidden.dtype)

        def add_piece(at: jax.Array | int, size: int, running: _Running) -> _Running:
            before = jax.tree.map(lambda x: take(x, at, size), running)
            after = _add(take(hidden, at, size), tile, soft_cap, before)
            return jax.tree.map(lambda x, part: put(x, part, at), running, after)

        return for_each_piece(pieces, hidden.shape[1], add_piece, running)

    return jax.lax.fori_loop(0, tiles.shape[0], add_tile, start)


def _add(
    hidden: jax.Array, tile: jax.Array, soft_cap: float | None, running: _Running
) -> _Running:
    """Add one tile to the sums of one piece."""
    top, total, gradient, level, level_gradient = running
    raw = jnp.einsum("std,vd->stv", hidden, tile, preferred_element_type="float32")
    logits, slope = capped(raw, soft_cap)
    if level is not None:
        level += logits.sum(-1)
    if level_gradient is not None:
        pull = tile.astype("float32").sum(0) if slope is None else _pull(slope, tile)
        level_gradient += pull
    if not _is_safe(soft_cap):
        new_top = jnp.maximum(top, logits.max(-1))
        keep, top = jnp.exp(top - new_top), new_top
        logits -= top[..., None]
        total, gradient = keep * total, _times(keep, gradient)
    weights = jnp.exp(logits)
    total += weights.sum(-1)
    if gradient is not None:
        gradient += _pull(weights if slope is None else weights * slope, tile)
    return _Running(top, total, gradient, level, level_gradient)


def _pull(weights: jax.Array, tile: jax.Array) -> jax.Array:
    """Return the tile's rows added by weights [shards, tokens, entries]."""
    weights = weights.astype(tile.dtype)
    return jnp.einsum("stv,vd->std", weights, tile, preferred_element_type="float32")


def _joined(parts: _Running) -> _Running:
    """Add the sums of the table's parts, first dim."""
    top = parts.top.max(0)
    keep = jnp.exp(parts.top - top)
    gradient = _times(keep, parts.gradient)
    rest = (gradient, parts.level, parts.level_gradient)
    return _Running(top, (keep * parts.total).sum(0), *map(_summed, rest))


def _summed(x: jax.Array | None) -> jax.Array | None:
    return None if x is None else x.sum(0)


def _times(factor: jax.Array, x: jax.Array | None) -> jax.Array | None:
    return None if x is None else factor[..., None] * x


def _divided(x: jax.Array | None, count: int) -> jax.Array | None:
    return None if x is None else x / count
