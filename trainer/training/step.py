"""One optimizer step, and one evaluation batch, each one compiled program.

Turns state and a batch of microbatches into the next state and a few sums. Gradients
and counts are added over microbatches and divided once, so that accumulation and data
parallelism give the gradient of one big batch whatever the lengths.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gemma.stacked import Stacked
from trainer.training.loss import summed_loss, token_losses
from trainer.training.optimizer import Arrays, StackedOptimizer, clip_by_global_norm

EMBEDDING = "token_embedding/embeddings"


class TrainState(NamedTuple):
    """What a step changes: trained weights and optimizer slots."""

    trainable: Arrays
    slots: Arrays


class StepSums(NamedTuple):
    """What a step tells, each a float32 scalar on the devices."""

    loss_sum: jax.Array
    loss_tokens: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What of the configuration a step is compiled from."""

    remat: str
    loss_chunk_tokens: int
    clip_norm: float | None
    dropout_seed: int | None


def build_train_step(
    stacked: Stacked,
    optimizer: StackedOptimizer,
    settings: StepSettings,
    *,
    state_shardings: TrainState,
    replicated: NamedSharding,
) -> Callable[[TrainState, Arrays, Arrays], tuple[TrainState, StepSums]]:
    """Compile-on-first-call the step (state, frozen, batch) -> (state, sums).

    The state is donated. Batch arrays are [microbatches, sequences, length], as
    `place_batch` makes them.
    """
    shards = replicated.mesh.devices.shape[0]
    table_is_trained = EMBEDDING in state_shardings.trainable

    def loss(trainable: Arrays, frozen: Arrays, micro: Arrays, key: Any) -> jax.Array:
        weights = {**frozen, **trainable}
        hidden = stacked.hidden(
            weights,
            micro["token_ids"],
            positions=micro["positions"],
            segment_ids=micro["segment_ids"],
            dropout_key=key,
            remat=settings.remat,
        )
        return summed_loss(
            hidden,
            stacked.constraints.embedding(weights[EMBEDDING]),
            micro["labels"],
            micro["loss_mask"],
            soft_cap=stacked.config.final_logit_soft_cap,
            shards=shards,
            chunk_tokens=settings.loss_chunk_tokens,
            table_is_trained=table_is_trained,
        )

    def step(
        state: TrainState, frozen: Arrays, batch: Arrays
    ) -> tuple[TrainState, StepSums]:
        key = _dropout_key(settings.dropout_seed, state.slots["iteration"])
        total, gradients = _accumulate(loss, state.trainable, frozen, batch, key)
        count = batch["loss_mask"].sum(dtype="float32")
        # a batch without any loss has zero gradients, not 0 / 0
        mean = {p: g / jnp.maximum(count, 1.0).astype(g.dtype) for p, g in gradients.items()}
        clipped, norm = clip_by_global_norm(mean, settings.clip_norm)
        rate = optimizer.learning_rate(state.slots)
        trainable, slots = optimizer.apply(clipped, state.trainable, state.slots)
        return TrainState(trainable, slots), StepSums(total, count, norm, rate)

    sums = StepSums(*[replicated] * len(StepSums._fields))
    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, sums))


def build_eval_step(
    stacked: Stacked, *, loss_chunk_tokens: int, end_of_turn: int, shards: int
) -> Callable[[Arrays, Arrays], dict[str, jax.Array]]:
    """Compile-on-first-call (weights, batch) -> sums of losses and counts.

    `content` leaves out the positions that predict `end_of_turn`. Batch arrays are
    [sequences, length].
    """

    def evaluate(weights: Arrays, batch: Arrays) -> dict[str, jax.Array]:
        hidden = stacked.hidden(
            weights,
            batch["token_ids"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
        )
        losses = token_losses(
            hidden,
            stacked.constraints.embedding(weights[EMBEDDING]),
            batch["labels"],
            batch["loss_mask"],
            soft_cap=stacked.config.final_logit_soft_cap,
            shards=shards,
            chunk_tokens=loss_chunk_tokens,
        )
        content = batch["loss_mask"] & (batch["labels"] != end_of_turn)
        return {
            "loss_sum": losses.sum(),
            "loss_tokens": batch["loss_mask"].sum(dtype="float32"),
            "content_loss_sum": jnp.where(content, losses, 0.0).sum(),
            "content_tokens": content.sum(dtype="float32"),
        }

    return jax.jit(evaluate)


def _accumulate(
    loss: Callable[..., jax.Array],
    trainable: Arrays,
    frozen: Arrays,
    batch: Arrays,
    key: jax.Array | None,
) -> tuple[jax.Array, Arrays]:
    """Add loss and gradients over the microbatches."""
    value_and_grad = jax.value_and_grad(loss)
    count = batch["token_ids"].shape[0]
    if count == 1:
        micro = jax.tree.map(lambda x: x[0], batch)
        return value_and_grad(trainable, frozen, micro, _fold(key, 0))

    def body(carry: tuple, xs: tuple) -> tuple:
        index, micro = xs
        total, sums = value_and_grad(trainable, frozen, micro, _fold(key, index))
        return jax.tree.map(jnp.add, carry, (total, sums)), None

    zeros = (jnp.zeros((), "float32"), jax.tree.map(jnp.zeros_like, trainable))
    return jax.lax.scan(body, zeros, (jnp.arange(count), batch))[0]


def _dropout_key(seed: int | None, iteration: jax.Array) -> jax.Array | None:
    return None if seed is None else jax.random.fold_in(jax.random.key(seed), iteration)


def _fold(key: jax.Array | None, index: Any) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, index)


def place_batch(
    batch: dict[str, Any], mesh: jax.sharding.Mesh, *, microbatches: int | None = None
) -> Arrays:
    """Put the rows of a global batch on the devices that need them.

    Args:
        batch: Arrays [sequences, length]; every process has the whole batch's rows
            that its devices hold.
        mesh: Mesh whose first axis splits the sequences.
        microbatches: Split the sequences into so many parts, first dim; None keeps
            [sequences, length].
    """
    spec = PartitionSpec(mesh.axis_names[0])
    if microbatches is not None:
        spec = PartitionSpec(None, *spec)

    def put(x: Any) -> jax.Array:
        if microbatches is not None:
            x = x.reshape(microbatches, -1, *x.shape[1:])
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(x.shape, sharding, functools.partial(_at, x))

    return {name: put(x) for name, x in batch.items()}


def _at(x: Any, index: tuple[slice, ...]) -> Any:
    return x[index]
