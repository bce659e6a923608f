"""The state of training as a checkpoint's flat arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from gemma.abstract import build_abstract
from trainer.checkpoint import Store
from trainer.model.assemble import Model, split
from trainer.model.state import Arrays
from trainer.tasks.session import Assembly
from trainer.training.guard import recent_slots
from trainer.training.optimizer import StackedOptimizer, averaged_weights
from trainer.training.schedule import Schedule
from trainer.training.step import TrainState


def build_optimizer(parts: Assembly) -> StackedOptimizer:
    """Build the optimizer and schedule of a configuration over the trained arrays."""
    config, model = parts.config, parts.model
    schedule = Schedule(
        config.schedule.name,
        peak=config.optimizer.learning_rate,
        warmup_steps=config.schedule.warmup_steps,
        num_train_steps=config.trainer.num_train_steps,
        final_fraction=config.schedule.final_fraction,
        decay_fraction=config.schedule.decay_fraction,
    )
    return StackedOptimizer(
        config.optimizer,
        schedule,
        {path: model.tree[path] for path in model.trainable},
        shardings=model.shardings(model.trainable),
        replicated=model.placement.replicated(),
        build_abstract=build_abstract,
        beside=recent_slots() if config.trainer.skip_spikes else None,
    )


def state_shardings(model: Model, optimizer: StackedOptimizer) -> TrainState:
    """Return where each array of a state lies."""
    return TrainState(model.shardings(model.trainable), optimizer.shardings)


def shapes_of_state(
    model: Model, optimizer: StackedOptimizer
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shape, dtype and sharding of every array of a state, under flat names."""
    trainable, _ = split(model.shapes(), model)
    return flatten_state(TrainState(trainable, optimizer.shapes()))


def weights_in_use(state: TrainState) -> Arrays:
    """Return what is evaluated and written: the averages where a run keeps them."""
    return averaged_weights(state.trainable, state.slots)


def flatten_state(state: TrainState) -> dict[str, Any]:
    """Return the arrays of a state under the names that checkpoints use."""
    return {f"{part}/{name}": a for part, name, a in _parts(state)}


def unflatten_state(arrays: Mapping[str, Any]) -> TrainState:
    """Return the state that `flatten_state` flattened."""
    parts: dict[str, Arrays] = {field: {} for field in TrainState._fields}
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = array
    return TrainState(**parts)


def restore_state(
    store: Store, step: int | None, like: Mapping[str, jax.ShapeDtypeStruct]
) -> tuple[TrainState, dict[str, Any]]:
    """Return the state of a step, the newest if None, and its metadata."""
    arrays, metadata = store.restore(step, like)
    return unflatten_state(arrays), metadata


def _parts(state: TrainState) -> Iterator[tuple[str, str, Any]]:
    for part, arrays in state._asdict().items():
        for name, array in arrays.items():
            yield part, name, array
