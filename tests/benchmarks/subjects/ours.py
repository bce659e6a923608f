"""This project's own engine: the step of `task=train` on random weights.

Put together as `trainer.tasks.train` does it, with the defaults of the configuration
for what no peer has: what is computed again and the size of the loss's chunks.
"""

import dataclasses
import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from subjects.random_preset import random_preset
from workload import Workload

from gemma.abstract import build_abstract
from gemma.config import GemmaConfig
from gemma.lora import lora_settings
from trainer.config.schema import (
    DataConfig,
    OptimizerConfig,
    PresetConfig,
    RunConfig,
    TrainerConfig,
)
from trainer.distribution.mesh import build_mesh, usable_bytes
from trainer.model.assemble import Model, build_model, initial_arrays, split
from trainer.model.objective import training_loss
from trainer.model.remat import choose_remat
from trainer.tasks.planning.memory_plan import memory_plan
from trainer.training.optimizer import StackedOptimizer
from trainer.training.schedule import Schedule
from trainer.training.step import TrainState, build_train_step, place_batch


def build(workload: Workload, **options: str) -> Callable[[Any, Any], float]:
    """Return one optimizer step from inputs and labels to the mean loss.

    Args:
        workload: Dimensions and batch.
        options: Of `trainer.*`: `remat` and `loss_chunk_tokens`.
    """
    settings = TrainerConfig(**{name: _value(word) for name, word in options.items()})
    mesh = build_mesh((1, 1), jax.devices()[:1])
    model = build_model(
        random_preset(config_of(workload)),
        mesh,
        dtype=workload.dtype,
        lora=lora_settings(workload.lora_rank),
    )
    arrays = initial_arrays(model, load_weights=True, adapter=None, seed=0)
    trainable, frozen = split(arrays, model)
    optimizer = _optimizer(model, workload)
    state = TrainState(trainable, optimizer.initial_slots())
    step_function = build_train_step(
        training_loss(
            model,
            remat=_remat(settings, workload),
            chunk_tokens=settings.loss_chunk_tokens,
        ),
        optimizer,
        clip_norm=None,
        dropout_seed=None,
        state_shardings=TrainState(
            model.shardings(model.trainable), optimizer.shardings
        ),
        replicated=model.placement.replicated(),
    )

    def step(inputs: Any, labels: Any) -> float:
        nonlocal state
        batch = place_batch(full_batch(workload, inputs, labels), mesh, microbatches=1)
        state, sums = step_function(state, frozen, batch)
        return float(sums.loss_sum) / float(sums.loss_tokens)

    return step


def config_of(workload: Workload) -> GemmaConfig:
    """Return the workload's dimensions as a Gemma 2."""
    return GemmaConfig(
        vocabulary_size=workload.vocabulary_size,
        num_layers=workload.num_layers,
        num_query_heads=workload.num_query_heads,
        num_key_value_heads=workload.num_key_value_heads,
        hidden_dim=workload.hidden_dim,
        intermediate_dim=2 * workload.ffw_dim,
        head_dim=workload.head_dim,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        attention_logit_soft_cap=workload.attention_logit_soft_cap,
        final_logit_soft_cap=workload.final_logit_soft_cap,
        use_sliding_window_attention=True,
        sliding_window_size=workload.sliding_window_size,
    )


def full_batch(workload: Workload, inputs: Any, labels: Any) -> dict[str, Any]:
    """Return the batch of full sequences, packed with rows, with loss everywhere."""
    positions = workload.positions()
    return {
        "token_ids": inputs,
        "labels": labels,
        "loss_mask": np.ones(labels.shape, bool),
        "segment_ids": np.cumsum(positions == 0, axis=1, dtype="int32"),
        "positions": positions,
    }


def versions() -> str:
    """Return what was measured."""
    names = ("jax", "keras")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _optimizer(model: Model, workload: Workload) -> StackedOptimizer:
    schedule = Schedule(
        "constant",
        peak=workload.learning_rate,
        warmup_steps=0,
        num_train_steps=100,
        final_fraction=0.0,
    )
    return StackedOptimizer(
        OptimizerConfig(learning_rate=workload.learning_rate, clip_norm=None),
        schedule,
        {path: model.tree[path] for path in model.trainable},
        shardings=model.shardings(model.trainable),
        replicated=model.placement.replicated(),
        build_abstract=build_abstract,
    )


def _remat(settings: TrainerConfig, workload: Workload) -> str:
    """Return what a run of this size keeps on this machine."""
    config = RunConfig(
        preset=PresetConfig(dtype=workload.dtype),
        data=DataConfig(sequence_length=workload.sequence_length),
        trainer=dataclasses.replace(settings, global_batch_size=workload.batch_size),
    )
    lora = lora_settings(workload.lora_rank)
    devices = jax.devices()[:1]
    plan = memory_plan(config, config_of(workload), lora, platform=devices[0].platform)
    room = usable_bytes(devices)
    return choose_remat(settings.remat, plan, (1, 1), bytes_per_device=room)


def _value(word: str) -> int | str:
    return int(word) if word.isdigit() else word
