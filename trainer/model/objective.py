"""The losses of a model as pure functions of weights and a batch.

Turns a `Model` into what training differentiates and what evaluation adds up, so that
neither has to know what a model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from trainer.model.assemble import Model
from trainer.model.loss import LossSums, summed_loss, token_losses
from trainer.model.loss_form import CPU_PIECES, LossForm
from trainer.model.loss_terms import LossTerms
from trainer.model.placement import MODEL
from trainer.model.state import Arrays

Weights = Mapping[str, jax.Array]
Batch = Mapping[str, jax.Array]
TrainingLoss = Callable[[Arrays, Arrays, Batch, jax.Array | None], LossSums]


def training_loss(
    model: Model,
    *,
    remat: str,
    chunk_tokens: int,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> TrainingLoss:
    """Return (trainable, frozen, batch, dropout key) -> summed losses in nats.

    Batch arrays are [sequences, length]; the key is None where nothing drops.

    Args:
        model: The model.
        remat: What the backward pass computes again, as in `Stacked.hidden`.
        chunk_tokens: Positions that the loss takes at a time.
        z_loss: Coefficient of the squared normaliser; 0 minimises without it.
        label_smoothing: Share of the target that is spread over the vocabulary.
    """
    stacked = model.stacked
    form = loss_form(model, chunk_tokens)
    terms = LossTerms(
        vocabulary_size=stacked.config.vocabulary_size,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
    )

    def loss(
        trainable: Arrays, frozen: Arrays, batch: Batch, dropout_key: jax.Array | None
    ) -> LossSums:
        weights = {**frozen, **trainable}
        hidden = stacked.hidden(
            weights,
            batch["token_ids"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            dropout_key=dropout_key,
            remat=remat,
        )
        return summed_loss(
            hidden,
            stacked.table(weights),
            batch["labels"],
            batch["loss_mask"],
            form=form,
            terms=terms,
            table_is_trained=model.trains_embedding,
        )

    return loss


def evaluation_sums(
    model: Model, *, chunk_tokens: int, end_of_turn: int
) -> Callable[[Weights, Batch], dict[str, jax.Array]]:
    """Return the compiled (weights, batch) -> sums of losses and counts, float32.

    `content` leaves out the positions that predict `end_of_turn`.
    """
    stacked = model.stacked
    form = loss_form(model, chunk_tokens)

    def evaluate(weights: Weights, batch: Batch) -> dict[str, jax.Array]:
        hidden = stacked.hidden(
            weights,
            batch["token_ids"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
        )
        losses = token_losses(
            hidden,
            stacked.table(weights),
            batch["labels"],
            batch["loss_mask"],
            form=form,
        )
        content = batch["loss_mask"] & (batch["labels"] != end_of_turn)
        return {
            "loss_sum": losses.sum(),
            "loss_tokens": batch["loss_mask"].sum(dtype="float32"),
            "content_loss_sum": jnp.where(content, losses, 0.0).sum(),
            "content_tokens": content.sum(dtype="float32"),
        }

    return jax.jit(evaluate)


def loss_form(model: Model, chunk_tokens: int) -> LossForm:
    """Return how a model's loss is computed on its mesh."""
    devices = model.placement.mesh.devices
    return LossForm(
        soft_cap=model.stacked.config.final_logit_soft_cap,
        shards=devices.shape[0],
        chunk_tokens=chunk_tokens,
        piece_tokens=CPU_PIECES if devices.flat[0].platform == "cpu" else (),
        table_shards=_table_shards(model),
        tile_gradient=model.placement.tile_gradient(model.tree),
    )


def _table_shards(model: Model) -> int:
    """Parts in which the vocabulary lies on devices."""
    placement = model.placement
    part = model.stacked.backbone.token_embedding.weights[0].path
    axis = placement.spec(model.tree[part])[0]
    return placement.mesh.shape[axis] if axis == MODEL else 1
