"""Gradients of all weights of a small Gemma on a mesh, with their program."""

import dataclasses

import jax
import numpy as np

from gemma.presets import open_preset
from trainer.distribution.mesh import build_mesh
from trainer.model.assemble import build_model, initial_arrays
from trainer.model.objective import training_loss


def full_model(repository, shape, family="gemma2", **changed):
    """Return a model of four layers, all weights trained: of Gemma 2 two scan steps."""
    golden = open_preset(str(repository / "tests/golden/keras_hub" / family))
    config = dataclasses.replace(golden.config, **({"num_layers": 4} | changed))
    preset = dataclasses.replace(golden, config=config)
    mesh = build_mesh(shape, jax.devices()[: shape[0] * shape[1]])
    return build_model(preset, mesh, dtype="float32", lora=None)


def gradients(model, length=32, sequences=4):
    """Return gradients and program of a batch of random rows, all with loss."""
    arrays = initial_arrays(model, load_weights=False, adapter=None, seed=0)
    ids = np.random.default_rng(0).integers(3, 2048, (sequences, length + 1), "int32")
    batch = {
        "token_ids": ids[:, :-1],
        "labels": ids[:, 1:],
        "loss_mask": np.ones((sequences, length), bool),
        "segment_ids": np.ones((sequences, length), "int32"),
        "positions": np.tile(np.arange(length, dtype="int32"), (sequences, 1)),
    }
    loss = training_loss(model, remat="block", chunk_tokens=32)
    step = jax.jit(jax.grad(lambda t: loss(t, {}, batch, None)[0]))
    program = step.lower(arrays).compile()
    return program(arrays), program.as_text()
