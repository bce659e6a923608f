"""One optimizer step as one compiled program.

Turns state and a batch of microbatches into the next state and a few sums. Gradients
and counts are added over microbatches and divided once, so that accumulation and data
parallelism give the gradient of one big batch whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from trainer.distribution.mesh import batch_sharding
from trainer.training.optimizer import StackedOptimizer, clip_by_global_norm
from trainer.training.update_group import Arrays

Key = jax.Array | None
Loss = Callable[[Arrays, Arrays, Arrays, Key], jax.Array]
"""(trainable, frozen, microbatch, dropout key) -> summed loss in nats."""


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


def build_train_step(
    loss: Loss,
    optimizer: StackedOptimizer,
    *,
    clip_norm: float | None,
    dropout_seed: int | None,
    state_shardings: TrainState,
    replicated: NamedSharding,
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
    """

    def step(
        state: TrainState, frozen: Arrays, batch: Arrays
    ) -> tuple[TrainState, StepSums]:
        key = _dropout_key(dropout_seed, state.slots["iteration"])
        total, gradients = _accumulate(loss, state.trainable, frozen, batch, key)
        count = batch["loss_mask"].sum(dtype="float32")
        # a batch without any loss has zero gradients, not 0 / 0
        divisor = jnp.maximum(count, 1.0)
        mean = {p: g / divisor.astype(g.dtype) for p, g in gradients.items()}
        clipped, norm = clip_by_global_norm(mean, clip_norm)
        rate = optimizer.learning_rate(state.slots)
        trainable, slots = optimizer.apply(clipped, state.trainable, state.slots)
        return TrainState(trainable, slots), StepSums(total, count, norm, rate)

    sums = StepSums(*[replicated] * len(StepSums._fields))
    return jax.jit(step, donate_argnums=0, out_shardings=(state_shardings, sums))


def place_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, *, microbatches: int | None = None
) -> Arrays:
    """Put the rows of a global batch on the devices that need them.

    Args:
        batch: Arrays [sequences, length]; every process has the whole batch's rows
            that its devices hold.
        mesh: Mesh whose first axis splits the sequences.
        microbatches: Split the sequences into so many parts, first dim; None keeps
            [sequences, length].
    """

    def put(x: np.ndarray) -> jax.Array:
        if microbatches is not None:
            x = x.reshape(microbatches, -1, *x.shape[1:])
        batch_dim = 0 if microbatches is None else 1
        sharding = batch_sharding(mesh, dims=x.ndim, batch_dim=batch_dim)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return {name: put(x) for name, x in batch.items()}


def _accumulate(
    loss: Loss, trainable: Arrays, frozen: Arrays, batch: Arrays, key: Key
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


def _dropout_key(seed: int | None, iteration: jax.Array) -> Key:
    return None if seed is None else jax.random.fold_in(jax.random.key(seed), iteration)


def _fold(key: Key, index: jax.typing.ArrayLike) -> Key:
    return None if key is None else jax.random.fold_in(key, index)
