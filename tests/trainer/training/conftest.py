"""A real small Gemma 2 on a mesh of choice, and batches for it."""

import dataclasses

import jax
import numpy as np
import pytest

from gemma.abstract import build_abstract
from gemma.config import EMBEDDING
from gemma.lora import lora_settings
from gemma.presets import open_preset
from tests.trainer.training.planting import poison
from trainer.config.schema import OptimizerConfig
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model, initial_arrays, split
from trainer.model.objective import training_loss
from trainer.training.guard import recent_slots
from trainer.training.optimizer import StackedOptimizer
from trainer.training.schedule import Schedule
from trainer.training.step import TrainState, build_train_step, place_batch


@dataclasses.dataclass
class Trainee:
    """A model with its state and compiled step."""

    model: object
    state: TrainState
    frozen: dict
    step: object
    mesh: object

    def train(self, batches, *, microbatches=1, told="loss_sum"):
        """Run a step a batch; return the means of a sum, and gradient norms."""
        losses, norms = [], []
        for batch in batches:
            placed = place_batch(batch, self.mesh, microbatches=microbatches)
            self.state, sums = self.step(self.state, self.frozen, placed)
            losses.append(float(getattr(sums, told)) / float(sums.loss_tokens))
            norms.append(float(sums.grad_norm))
        return losses, norms


def make_trainee(
    preset,
    shape,
    *,
    rank=4,
    optimizer=None,
    clip_norm=1.0,
    dropout=0.0,
    terms=None,
    train_embedding=False,
    skip_spikes=None,
    **lora,
):
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    settings = lora_settings(rank, dropout=dropout, **lora) if rank else None
    model = build_model(preset, mesh, dtype="float32", lora=settings)
    if train_embedding:
        paths = (EMBEDDING, *model.trainable)
        model = dataclasses.replace(model, trainable=paths)
    arrays = initial_arrays(model, load_weights=True, adapter=None, seed=0)
    trainable, frozen = split(arrays, model)
    schedule = Schedule(
        "constant", peak=1e-2, warmup_steps=0, num_train_steps=10, final_fraction=0.0
    )
    shardings = model.shardings(model.trainable)
    stacked_optimizer = StackedOptimizer(
        optimizer or OptimizerConfig(),
        schedule,
        {path: model.tree[path] for path in model.trainable},
        shardings=shardings,
        replicated=model.placement.replicated(),
        build_abstract=build_abstract,
        beside=recent_slots() if skip_spikes else None,
    )
    step = build_train_step(
        training_loss(model, remat="block", chunk_tokens=16, **(terms or {})),
        stacked_optimizer,
        clip_norm=clip_norm,
        dropout_seed=0 if dropout else None,
        state_shardings=TrainState(shardings, stacked_optimizer.shardings),
        replicated=model.placement.replicated(),
        skip_spikes=skip_spikes,
    )
    state = TrainState(trainable, stacked_optimizer.initial_slots())
    return Trainee(model, state, frozen, step, mesh)


def make_batch(seed, *, sequences=8, length=24, vocabulary=2048):
    """Two packed rows and padding a sequence, unlike many positions with loss."""
    random = np.random.RandomState(seed)
    token_ids = random.randint(7, vocabulary, (sequences, length)).astype("int32")
    ends = random.randint(6, length - 2, sequences)
    places = np.arange(length)
    second = places[None] >= ends[:, None]
    padding = places[None] >= length - random.randint(0, 5, (sequences, 1))
    segment_ids = np.where(padding, 0, 1 + second).astype("int32")
    positions = np.where(second, places - ends[:, None], places).astype("int32")
    loss_mask = (random.rand(sequences, length) < 0.5) & ~padding
    labels = np.roll(token_ids, -1, axis=1)
    return {
        "token_ids": token_ids,
        "labels": labels,
        "loss_mask": loss_mask,
        "segment_ids": segment_ids,
        "positions": positions * ~padding,
    }


@pytest.fixture(scope="session")
def golden_preset(repository):
    return open_preset(str(repository / "tests/golden/keras_hub/gemma2"))


@pytest.fixture(scope="session")
def trainee(golden_preset, repository, tmp_path_factory):
    """Return a function that makes a trainee of a family on a mesh."""
    gemma3 = open_preset(str(repository / "tests/golden/keras_hub/gemma3"))
    spoiled = tmp_path_factory.mktemp("presets") / "poisoned"
    poisoned = open_preset(
        str(poison(repository / "tests/golden/keras_hub/gemma2", spoiled))
    )
    presets = {"gemma2": golden_preset, "gemma3": gemma3, "poisoned": poisoned}

    def make(shape=(1, 1), *, family="gemma2", **settings):
        return make_trainee(presets[family], shape, **settings)

    return make


@pytest.fixture(scope="session")
def batches():
    return [make_batch(seed) for seed in range(4)]
