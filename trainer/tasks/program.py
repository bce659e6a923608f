"""The program of a run's step: one for training and for looking ahead.

Turns a configuration and devices into the step that training calls, and into its
lowered form with shapes in place of arrays. The devices may be those of a topology
that is not here: nothing is allocated. It refuses to know what a program is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
from jax.sharding import Mesh, NamedSharding

from trainer.config.schema import RunConfig
from trainer.data.packing import build_batch
from trainer.distribution.mesh import batch_sharding
from trainer.model.assemble import split
from trainer.model.objective import training_loss
from trainer.model.state import Arrays
from trainer.tasks.kept_programs import Program, shelf_of
from trainer.tasks.session import Assembly, assemble
from trainer.tasks.state import build_optimizer, state_shardings
from trainer.training.optimizer import StackedOptimizer
from trainer.training.step import StepSums, TrainState, build_train_step

Step = Callable[[TrainState, Arrays, Arrays], tuple[TrainState, StepSums]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepProgram:
    """A run's step before it is compiled, with everything that decides it.

    Attributes:
        parts: Configuration, mesh and model.
        optimizer: With the shapes of its slots.
        step: The jitted step of training.
    """

    parts: Assembly
    optimizer: StackedOptimizer
    step: Step

    def arguments(self) -> tuple[TrainState, Arrays, Arrays]:
        """Return the step's state, frozen arrays and batch as shapes."""
        model = self.parts.model
        trainable, frozen = split(model.shapes(), model)
        state = TrainState(trainable, self.optimizer.shapes())
        length = self.parts.config.data.sequence_length  # the longest that rows have
        return state, frozen, batch_shapes(self.parts, length)

    def lower(self) -> jax.stages.Lowered:
        """Return the step lowered for the mesh's devices; `compile()` is next."""
        return self.step.lower(*self.arguments())


def step_program(
    config: RunConfig,
    devices: Sequence[jax.Device],
    *,
    bytes_per_device: int | None = None,
) -> StepProgram:
    """Build the program of a configuration without weights, tokenizer or arrays.

    Args:
        config: What would be trained.
        devices: All of them: this machine's, or those of a topology from
            `jax.experimental.topologies`.
        bytes_per_device: Memory of a device, for `mesh=auto`; None when unknown.

    Raises:
        PresetError: The preset cannot be opened.
        ConfigError: The mesh or the adapters are impossible.
    """
    parts = assemble(config, devices, bytes_per_device=bytes_per_device)
    optimizer = build_optimizer(parts)
    step = build_step(parts, optimizer)
    return StepProgram(parts=parts, optimizer=optimizer, step=step)


def build_step(parts: Assembly, optimizer: StackedOptimizer) -> Step:
    """Return the jitted step of a run."""
    config, model = parts.config, parts.model
    return build_train_step(
        training_loss(
            model,
            remat=config.trainer.remat,
            chunk_tokens=config.trainer.loss_chunk_tokens,
            z_loss=config.trainer.z_loss,
            label_smoothing=config.trainer.label_smoothing,
        ),
        optimizer,
        clip_norm=config.optimizer.clip_norm,
        dropout_seed=config.seed if config.lora.dropout else None,
        state_shardings=state_shardings(model, optimizer),
        replicated=model.placement.replicated(),
        skip_spikes=config.trainer.skip_spikes,
    )


def kept_step(parts: Assembly, optimizer: StackedOptimizer) -> Program:
    """Return the step of a run with its programs kept, one a length of the batch."""
    return Program(
        build_step(parts, optimizer),
        shelf_of(parts, "step"),
        varies=lambda state, frozen, batch: batch["token_ids"].shape,
        donated=(0,),
    )


def batch_shapes(parts: Assembly, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the batch of a step as shapes, for sequences padded to a length."""
    shape = parts.microbatches, parts.config.trainer.forward_size, length
    return _shapes(shape, batch_sharding(parts.mesh, dims=3, batch_dim=1))


def evaluation_shapes(
    mesh: Mesh, *, sequences: int, length: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return a batch of held-out sequences as shapes, padded to a length."""
    return _shapes((sequences, length), batch_sharding(mesh, dims=2))


def _shapes(
    shape: tuple[int, ...], sharding: NamedSharding
) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(shape, x.dtype, sharding=sharding)
        for name, x in build_batch([()], shape[-1], pad_token_id=0).items()
    }
