"""One optimizer step as one compiled program.

Turns state and a batch of microbatches into the next state and a few sums. Gradients
and counts are added over microbatches and divided once, so that accumulation and data
parallelism give the gradient of one big batch whatever the lengths. A step whose loss
or gradient is not finite gives back its state, bit for bit: the devices decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from trainer.distribution.rows import place_sequences
from trainer.training import guard
from trainer.training.optimizer import StackedOptimizer, clip_by_norm, global_norm
from trainer.training.update_group import Arrays

Key = jax.Array | None
Loss = Callable[[Arrays, Arrays, Arrays, Key], tuple[jax.Array, jax.Array]]
"""(trainable, frozen, microbatch, dropout key) -> two sums in nats: of the loss that
is minimised, and of the plain cross-entropy, which is told."""


class TrainState(NamedTuple):
    """What a step changes: trained weights and optimizer slots."""

    trainable: Arrays
    slots: Arrays


class StepSums(NamedTuple):
    """What a step tells, each a scalar on the devices, float32 or bool.

    `loss_sum` is of the plain cross-entropy, `minimised_sum` of what is minimised.
    Unless `is_applied`, the state is that of before, its count of updates included.
    """

    loss_sum: jax.Array
    minimised_sum: jax.Array
    loss_tokens: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    is_applied: jax.Array


def build_train_step(
    loss: Loss,
    optimizer: StackedOptimizer,
    *,
    clip_norm: float | None,
    dropout_seed: int | None,
    state_shardings: TrainState,
    replicated: NamedSharding,
    skip_spikes: float | None = None,
) -> Callable[[TrainState, Arrays, Arrays], tuple[TrainState, StepSums]]:
    """Return the step (state, frozen, batch) -> (state, sums); it compiles once.

    The state is donated. Batch arrays are [microbatches, sequences, length], as
    `place_batch` makes them.

    Args:
        loss: What is minimised, as a sum over a microbatch.
        optimizer: Applies the mean gradient.
        clip_norm: Largest global norm of that gradient; None never clips.
        dropout_seed: Of the run's dropout; None drops nothing.
        state_shardings: Where the state lies, before and after.
        replicated: Where the sums lie.
        skip_spikes: Standard deviations above the mean of the last updates beyond
            which a loss or a gradient norm is a spike, and its step not applied; the
            state has `guard.recent_slots` then. None applies all that are finite.
    """

    def step(
        state: TrainState, frozen: Arrays, batch: Arrays
    ) -> tuple[TrainState, StepSums]:
        key = _dropout_key(dropout_seed, state.slots["iteration"])
        (minimised, plain), gradients = _accumulate(
            loss, state.trainable, frozen, batch, key
        )
        count = batch["loss_mask"].sum(dtype="float32")
        # a batch without any loss has zero gradients, not 0 / 0
        divisor = jnp.maximum(count, 1.0)
        norm = global_norm(_divided(gradients, divisor))
        rate = optimizer.learning_rate(state.slots)
        numbers = {guard.LOSS: plain / divisor, guard.GRAD_NORM: norm}
        is_applied = guard.is_finite(minimised, plain, norm)
        if skip_spikes is not None:
            is_applied &= guard.is_usual(numbers, state.slots, deviations=skip_spikes)

        mean = clip_by_norm(_divided(gradients, divisor), norm, clip_norm)
        weights, slots = optimizer.apply(mean, state.trainable, state.slots)
        if skip_spikes is not None:
            slots |= guard.remember(numbers, state.slots)
        # a choice of each element, in place: a branch would copy the whole state
        after = jax.tree.map(
            lambda new, old: jnp.where(is_applied, new, old),
            TrainState(weights, slots),
            state,
        )
        return after, StepSums(plain, minimised, count, norm, rate, is_applied)

    told = StepSums(*[replicated] * len(StepSums._fields))
    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, told))


def place_batch(
    batch: Mapping[str, np.ndarray],
    mesh: Mesh,
    *,
    microbatches: int | None = None,
    sequences: int | None = None,
) -> Arrays:
    """Put the rows of a global batch on the devices that need them.

    Args:
        batch: Arrays [sequences, length]: the whole batch's, or those of the sequences
            that `local_sequences` names.
        mesh: Mesh whose first axis splits the sequences.
        microbatches: Split the sequences into so many parts, first dim; None keeps
            [sequences, length].
        sequences: Sequences of the whole batch; None where all are in `batch`.
    """
    whole = sequences or len(next(iter(batch.values())))
    return place_sequences(batch, mesh, sequences=whole, microbatches=microbatches)


def _accumulate(
    loss: Loss, trainable: Arrays, frozen: Arrays, batch: Arrays, key: Key
) -> tuple[tuple[jax.Array, jax.Array], Arrays]:
    """Add both losses and the gradients over the microbatches."""

    def sums_and_gradients(micro: Arrays, index: jax.typing.ArrayLike) -> tuple:
        def minimised(trainable: Arrays) -> tuple[jax.Array, tuple]:
            sums = loss(trainable, frozen, micro, _fold(key, index))
            return sums[0], tuple(sums)

        gradients, sums = jax.grad(minimised, has_aux=True)(trainable)
        return sums, gradients

    count = batch["token_ids"].shape[0]
    if count == 1:
        micro = jax.tree.map(lambda x: x[0], batch)
        return sums_and_gradients(micro, 0)

    def body(carry: tuple, xs: tuple) -> tuple:
        index, micro = xs
        return jax.tree.map(jnp.add, carry, sums_and_gradients(micro, index)), None

    zero = jnp.zeros((), "float32")
    zeros = ((zero, zero), jax.tree.map(jnp.zeros_like, trainable))
    return jax.lax.scan(body, zeros, (jnp.arange(count), batch))[0]


def _divided(gradients: Arrays, divisor: jax.Array) -> Arrays:
    return {path: g / divisor.astype(g.dtype) for path, g in gradients.items()}


def _dropout_key(seed: int | None, iteration: jax.Array) -> Key:
    return None if seed is None else jax.random.fold_in(jax.random.key(seed), iteration)


def _fold(key: Key, index: jax.typing.ArrayLike) -> Key:
    return None if key is None else jax.random.fold_in(key, index)
