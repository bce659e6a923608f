"""Cross-entropy over a large vocabulary, without ever holding the logits.

Turns hidden states and the embedding table into sums of token losses and their
gradients, in chunks of positions. Those without loss are sorted to the end, and
neither their chunks nor their pieces of a chunk ever run: the budget is the batch, and
what is computed is what has loss. Returns sums: whoever divides has added first.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gemma.quantized.array import Table
from trainer.model.loss_form import LossForm
from trainer.model.loss_terms import LossTerms, minimised_loss
from trainer.model.trained_table import losses_and_gradients
from trainer.model.vocabulary_tiles import (
    Pieces,
    Sums,
    capped,
    put,
    sums_over_vocabulary,
    take,
)


class LossSums(NamedTuple):
    """Sums over positions in nats, float32; only `minimised` has a gradient."""

    minimised: jax.Array
    plain: jax.Array


def summed_loss(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    *,
    form: LossForm,
    terms: LossTerms,
    table_is_trained: bool,
) -> LossSums:
    """Return the sum that is minimised, and the plain cross-entropy beside it.

    Args:
        hidden: [batch, seq, dim] after the final norm.
        table: [vocabulary, dim], the tied embedding; a quantized one is frozen.
        labels: int32 [batch, seq], the token that each position predicts.
        loss_mask: bool [batch, seq], where a loss counts.
        form: How it is computed.
        terms: What is minimised.
        table_is_trained: Whether the gradient for the table is wanted.
    """
    chosen = _Chosen(form, terms, table_is_trained)
    minimised, plain = _loss(hidden, table, labels, loss_mask, chosen)
    return LossSums(minimised, jax.lax.stop_gradient(plain))


def token_losses(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    *,
    form: LossForm,
) -> jax.Array:
    """Return each position's loss in nats, float32 [batch, seq]; 0 where masked.

    Args as in `summed_loss`; there is no gradient.
    """
    order = _Order(loss_mask, form.shards)
    chunk = form.chunk_size(order.tokens)
    given = order.arrange(_Positions(hidden, labels, loss_mask), chunk)

    def body(i: int, losses: jax.Array) -> jax.Array:
        part = given.part(i * chunk, chunk)
        pieces = Pieces(form.piece_sizes(order.tokens), order.counted - i * chunk)
        sums = _sums(part.hidden, table, form, pieces, with_gradient=False)
        picked, _, _ = _label_logits(part, table, form.soft_cap)
        loss = jnp.where(part.loss_mask, sums.normaliser - picked, 0.0)
        return put(losses, loss, i * chunk)

    losses = jnp.zeros(given.labels.shape, "float32")
    losses = jax.lax.fori_loop(0, -(-order.counted // chunk), body, losses)
    return order.restore(losses).reshape(labels.shape)


class _Positions(NamedTuple):
    """What the loss needs of positions: [batch, seq, ...] or [shards, tokens, ...]."""

    hidden: jax.Array
    labels: jax.Array
    loss_mask: jax.Array

    def part(self, start: jax.Array | int, size: int) -> _Positions:
        """Return positions from `start` on of every shard."""
        return _Positions(*(take(x, start, size) for x in self))


class _Chosen(NamedTuple):
    """The arguments of `summed_loss` that are no arrays."""

    form: LossForm
    terms: LossTerms
    table_is_trained: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _loss(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    chosen: _Chosen,
) -> tuple[jax.Array, jax.Array]:
    return _loss_and_gradients(hidden, table, labels, loss_mask, chosen)[0]


def _loss_and_gradients(
    hidden: jax.Array,
    table: Table,
    labels: jax.Array,
    loss_mask: jax.Array,
    chosen: _Chosen,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array | None]]:
    """Compute what carries loss; return the sums and the gradients of the first."""
    order = _Order(loss_mask, chosen.form.shards)
    compute = _of_trained if chosen.table_is_trained else _of_frozen
    given = _Positions(hidden, labels, loss_mask)
    sums, d_h, d_table = compute(order, given, table, chosen.form, chosen.terms)
    return sums, (order.restore(d_h).reshape(hidden.shape), d_table)


def _backward(
    chosen: _Chosen,
    gradients: tuple[jax.Array, jax.Array | None],
    upstream: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array | None, None, None]:
    d_hidden, d_table = gradients
    d_hidden = d_hidden * upstream[0].astype(d_hidden.dtype)
    if d_table is not None:
        d_table = d_table * upstream[0].astype(d_table.dtype)
    return d_hidden, d_table, None, None


_loss.defvjp(_loss_and_gradients, _backward)


def _of_frozen(
    order: _Order,
    given: _Positions,
    table: Table,
    form: LossForm,
    terms: LossTerms,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, None]:
    """Run the chunks that carry loss; the table is read once in each."""
    chunk = form.chunk_size(order.tokens)
    given = order.arrange(given, chunk)

    def body(i: int, carry: tuple) -> tuple:
        minimised, plain, d_h = carry
        part = given.part(i * chunk, chunk)
        pieces = Pieces(form.piece_sizes(order.tokens), order.counted - i * chunk)
        losses, d_part = _chunk(part, table, pieces, form, terms)
        return (
            minimised + losses[0].sum(),
            plain + losses[1].sum(),
            put(d_h, d_part, i * chunk),
        )

    start = (*[jnp.zeros((), "float32")] * 2, jnp.zeros_like(given.hidden))
    chunks = -(-order.counted // chunk)
    minimised, plain, d_h = jax.lax.fori_loop(0, chunks, body, start)
    return (minimised, plain), d_h, None


def _chunk(
    part: _Positions,
    table: Table,
    pieces: Pieces,
    form: LossForm,
    terms: LossTerms,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Return both losses [shards, chunk] and the gradient for `hidden`."""
    smooths = terms.label_smoothing > 0.0
    wanted = {"with_gradient": True, "with_level": smooths}
    sums = _sums(part.hidden, table, form, pieces, **wanted)
    picked, slope, rows = _label_logits(part, table, form.soft_cap)
    gradient = terms.normaliser_slope(sums.normaliser)[..., None] * sums.gradient
    gradient -= terms.label_share * (rows if slope is None else slope[..., None] * rows)
    if smooths:
        gradient -= terms.label_smoothing * sums.level_gradient
    losses = minimised_loss(terms, sums.normaliser, picked, sums.level)
    minimised, plain = (jnp.where(part.loss_mask, x, 0.0) for x in losses)
    gradient = jnp.where(part.loss_mask[..., None], gradient, 0.0)
    return (minimised, plain), gradient.astype(part.hidden.dtype)


def _of_trained(
    order: _Order,
    given: _Positions,
    table: jax.Array,
    form: LossForm,
    terms: LossTerms,
) -> tuple[tuple[jax.Array, jax.Array], jax.Array, jax.Array]:
    """Run all positions that carry loss against each tile of the table."""
    sizes = form.piece_sizes(order.tokens)
    given = order.arrange(given, sizes[-1])
    found = losses_and_gradients(
        given.hidden,
        table,
        given.labels,
        given.loss_mask,
        terms=terms,
        soft_cap=form.soft_cap,
        table_shards=form.table_shards,
        tile_gradient=form.tile_gradient,
        pieces=Pieces(sizes, order.counted),
    )
    return (found.minimised.sum(), found.plain.sum()), found.d_hidden, found.d_table


def _sums(
    hidden: jax.Array, table: Table, form: LossForm, pieces: Pieces, **wanted: bool
) -> Sums:
    return sums_over_vocabulary(
        hidden,
        table,
        soft_cap=form.soft_cap,
        table_shards=form.table_shards,
        pieces=pieces,
        **wanted,
    )


def _label_logits(
    part: _Positions, table: Table, soft_cap: float | None
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
    """Return the labels' logits [shards, chunk], the cap's slope, the table's rows."""
    rows = table[part.labels].astype(part.hidden.dtype)
    raw = jnp.einsum("std,std->st", part.hidden, rows, preferred_element_type="float32")
    return *capped(raw, soft_cap), rows


class _Order:
    """Positions of every shard, those with loss first."""

    def __init__(self, loss_mask: jax.Array, shards: int) -> None:
        mask = loss_mask.reshape(shards, -1)
        self._order = jnp.argsort(~mask, axis=1, stable=True)
        self.tokens = mask.shape[1]
        self.counted = mask.sum(1).max()  # of the fullest shard

    def arrange(self, given: _Positions, multiple: int) -> _Positions:
        """Reorder [batch, seq, ...] to [shards, tokens, ...], padded to a multiple."""
        return _Positions(*(self._arrange(x, multiple) for x in given))

    def _arrange(self, x: jax.Array, multiple: int) -> jax.Array:
        flat = x.reshape(*self._order.shape, *x.shape[2:])
        index = self._order.reshape(*self._order.shape, *[1] * (flat.ndim - 2))
        arranged = jnp.take_along_axis(flat, index, axis=1)
        missing = -self.tokens % multiple
        return jnp.pad(arranged, [(0, 0), (0, missing)] + [(0, 0)] * (flat.ndim - 2))

    def restore(self, x: jax.Array) -> jax.Array:
        """Undo `arrange`: [shards, tokens, ...] in the order of the batch."""
        back = jnp.argsort(self._order, axis=1)
        return jnp.take_along_axis(
            x, back.reshape(*back.shape, *[1] * (x.ndim - 2)), axis=1
        )
