"""Cross-entropy over a large vocabulary, without ever holding the logits.

Turns hidden states and the embedding table into a sum of token losses and its
gradients, in one pass over chunks of tokens. Positions without loss are sorted to the
end and their chunks never run. Returns sums: whoever divides has added first.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from gemma.quantized.array import Table
from trainer.model.vocabulary_tiles import (
    capped,
    normaliser,
    normaliser_and_gradient,
)


def summed_loss(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    *,
    soft_cap: float | None,
    shards: int,
    chunk_tokens: int,
    table_shards: int,
    table_is_trained: bool,
) -> jax.Array:
    """Return the summed cross-entropy in nats, float32, differentiable.

    Args:
        hidden: [batch, seq, dim] after the final norm.
        table: [vocabulary, dim], the tied embedding; a quantized one is frozen.
        labels: int32 [batch, seq], the token that each position predicts.
        loss_mask: bool [batch, seq], where a loss counts.
        soft_cap: Bound of the logits; None leaves them.
        shards: Parts in which the batch dim lies on devices; chunks are formed in each.
        chunk_tokens: Tokens whose logits exist at a time, over all shards.
        table_shards: Parts in which the vocabulary lies on devices.
        table_is_trained: Whether the gradient for the table is wanted.
    """
    form = _Form(
        soft_cap=soft_cap,
        shards=shards,
        chunk=_chunk_size(labels.size, shards, chunk_tokens),
        table_shards=table_shards,
        table_is_trained=table_is_trained,
    )
    return _loss(hidden, table, labels, loss_mask, form)


def token_losses(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    *,
    soft_cap: float | None,
    shards: int,
    chunk_tokens: int,
    table_shards: int,
) -> jax.Array:
    """Return each position's loss in nats, float32 [batch, seq]; 0 where masked.

    Args as in `summed_loss`; there is no gradient.
    """
    chunk = _chunk_size(labels.size, shards, chunk_tokens)
    order, restore = _arrangement(loss_mask, shards)
    hidden, targets, mask = (
        _arrange(x, order, chunk) for x in (hidden, labels, loss_mask)
    )

    def body(i: int, losses: jax.Array) -> jax.Array:
        part = functools.partial(_chunk, start=i * chunk, size=chunk)
        h = part(hidden)
        total = normaliser(h, table, soft_cap=soft_cap, table_shards=table_shards)
        picked, _, _ = _label_logits(h, table, part(targets), soft_cap)
        loss = jnp.where(part(mask), total - picked, 0.0)
        return jax.lax.dynamic_update_slice_in_dim(losses, loss, i * chunk, axis=1)

    losses = jnp.zeros(targets.shape, "float32")
    losses = jax.lax.fori_loop(0, _chunks_with_loss(mask, chunk), body, losses)
    return jnp.take_along_axis(losses, restore, axis=1).reshape(labels.shape)


@dataclasses.dataclass(frozen=True)
class _Form:
    """What is known when the loss is compiled; see `summed_loss`."""

    soft_cap: float | None
    shards: int
    chunk: int
    table_shards: int
    table_is_trained: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    form: _Form,
) -> jax.Array:
    return _loss_and_gradients(hidden, table, labels, loss_mask, form)[0]


def _loss_and_gradients(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    form: _Form,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None]]:
    """Run the chunks that carry loss; return the sum and its gradients."""
    order, restore = _arrangement(loss_mask, form.shards)
    h, targets, mask = (
        _arrange(x, order, form.chunk) for x in (hidden, labels, loss_mask)
    )

    def body(i: int, carry: tuple) -> tuple:
        total, d_h, d_table = carry
        start = i * form.chunk
        part = functools.partial(_chunk, start=start, size=form.chunk)
        chunk = part(h), table, part(targets), part(mask), form.soft_cap
        if form.table_is_trained:
            losses, d_part, d_rows = _chunk_of_trained(*chunk)
            d_table += d_rows
        else:
            losses, d_part = _chunk_of_frozen(*chunk, form.table_shards)
        d_h = jax.lax.dynamic_update_slice_in_dim(d_h, d_part, start, axis=1)
        return total + losses.sum(), d_h, d_table

    d_table = jnp.zeros(table.shape, "float32") if form.table_is_trained else None
    start = (jnp.zeros((), "float32"), jnp.zeros_like(h), d_table)
    chunks = _chunks_with_loss(mask, form.chunk)
    total, d_h, d_table = jax.lax.fori_loop(0, chunks, body, start)
    if d_table is not None:
        d_table = d_table.astype(table.dtype)
    d_hidden = jnp.take_along_axis(d_h, restore[..., None], axis=1)
    return total, (d_hidden.reshape(hidden.shape), d_table)


def _backward(
    form: _Form, gradients: tuple[jax.Array, jax.Array | None], upstream: jax.Array
) -> tuple[jax.Array, jax.Array | None, None, None]:
    d_hidden, d_table = gradients
    d_hidden = d_hidden * upstream.astype(d_hidden.dtype)
    if d_table is not None:
        d_table = d_table * upstream.astype(d_table.dtype)
    return d_hidden, d_table, None, None


_loss.defvjp(_loss_and_gradients, _backward)


def _chunk_of_frozen(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    soft_cap: float | None,
    table_shards: int,
) -> tuple[jax.Array, jax.Array]:
    """Return losses [shards, chunk] and the gradient for `hidden`, in tiles."""
    total, gradient = normaliser_and_gradient(
        hidden, table, soft_cap=soft_cap, table_shards=table_shards
    )
    picked, slope, rows = _label_logits(hidden, table, labels, soft_cap)
    gradient -= rows if slope is None else slope[..., None] * rows
    losses = jnp.where(loss_mask, total - picked, 0.0)
    gradient = jnp.where(loss_mask[..., None], gradient, 0.0)
    return losses, gradient.astype(hidden.dtype)


def _label_logits(
    hidden: jax.Array, table: Table, labels: jax.Array, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Return the labels' logits [shards, chunk], the cap's slope, the table's rows."""
    rows = table[labels].astype(hidden.dtype)
    raw = jnp.einsum("std,std->st", hidden, rows, preferred_element_type="float32")
    return *capped(raw, soft_cap), rows


def _chunk_of_trained(
    hidden: jax.Array,
    table: jax.Array,
    labels: jax.Array,
    loss_mask: jax.Array,
    soft_cap: float | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return losses [shards, chunk] and gradients for `hidden` and for the table.

    The chunk's logits exist: the table's gradient takes them all at once.
    """
    weights = table.astype(hidden.dtype)
    raw = jnp.einsum("std,vd->stv", hidden, weights, preferred_element_type="float32")
    logits, slope = capped(raw, soft_cap)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    is_label = jnp.arange(table.shape[0]) == labels[..., None]
    picked = jnp.where(is_label, logits, 0.0).sum(-1)
    losses = jnp.where(loss_mask, total[..., 0] - picked, 0.0)
    d_logits = jnp.exp(logits - total) - is_label
    if slope is not None:
        d_logits *= slope
    d_logits = jnp.where(loss_mask[..., None], d_logits, 0.0).astype(hidden.dtype)
    d_hidden = jnp.einsum("stv,vd->std", d_logits, weights)
    d_table = jnp.einsum(
        "stv,std->vd", d_logits, hidden, preferred_element_type="float32"
    )
    return losses, d_hidden, d_table


def _arrangement(loss_mask: jax.Array, shards: int) -> tuple[jax.Array, jax.Array]:
    """Return the order that puts positions with loss first, and its inverse."""
    mask = loss_mask.reshape(shards, -1)
    order = jnp.argsort(~mask, axis=1, stable=True)
    return order, jnp.argsort(order, axis=1)


def _arrange(x: jax.Array, order: jax.Array, chunk: int) -> jax.Array:
    """Reorder [batch, seq, ...] to [shards, tokens, ...], padded to whole chunks."""
    flat = x.reshape(*order.shape, *x.shape[2:])
    index = order.reshape(*order.shape, *[1] * (flat.ndim - 2))
    arranged = jnp.take_along_axis(flat, index, axis=1)
    missing = -order.shape[1] % chunk
    return jnp.pad(arranged, [(0, 0), (0, missing)] + [(0, 0)] * (flat.ndim - 2))


def _chunk_size(tokens: int, shards: int, chunk_tokens: int) -> int:
    return max(1, min(chunk_tokens, tokens) // shards)


def _chunk(x: jax.Array, *, start: int, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)


def _chunks_with_loss(loss_mask: jax.Array, chunk: int) -> jax.Array:
    """Chunks up to the last position with loss of the fullest shard."""
    return -(-loss_mask.sum(1).max() // chunk)
